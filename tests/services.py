#!/usr/bin/env python3
"""docs/service.md puts the gate in front of a service in Express, in FastAPI and in axum, as it is printed.

    tests/services.py --gate target/debug/rotogate      part of tests/all.sh

Each service of examples/upstreams is started by the line of the page, and so is the gate; then the lines of its client run. Ports and
the password are replaced. Express and FastAPI come from npm and PyPI (tests/interop/services/install.sh). `cargo test` has built the
service in axum.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True
from docs import ROOT, blocks  # noqa: E402
from packages import free_port  # noqa: E402
from stranger import PASSWORD, Stranger, documented  # noqa: E402

PAGE = "docs/service.md"


def expect(got, wanted, what):
    if got != wanted:
        sys.exit(f"tests/services.py: {what}: {got!r}, not {wanted!r}")


def of_page(info, begin=""):
    """The one block of the page of this kind that begins so."""
    (block,) = [block for _, words, block, _ in blocks((ROOT / PAGE).read_text()) if words == info and block.startswith(begin)]
    return block


def start(line, port, cache, gate):
    """The service by its line of the page, which also installs what it needs: that is there."""
    command = line.split("&&")[-1].strip().replace("3000", str(port))
    folder = cache if command.startswith("node") else ROOT / "examples/upstreams/fastapi"
    if command.startswith("node"):
        shutil.copy(ROOT / "examples/upstreams/express/server.mjs", cache)
    if command.startswith("cargo run --example "):
        command = str(gate.parent / "examples" / command.split()[-1])
    environment = {**os.environ, "PORT": str(port), "PATH": f"{cache}/python/bin:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    log = gate.parent.parent / "test-output" / f"service-{port}.log"
    log.parent.mkdir(exist_ok=True)
    # A group of its own, because the shell has the service below it.
    with open(log, "w") as said:
        return subprocess.Popen(command, shell=True, cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True)


def until(what, holds, process):
    for _ in range(1200):
        if holds():
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    sys.exit(f"tests/services.py: never happened: {what}")


def ask(url, headers=(), data=None):
    request = urllib.request.Request(url, data, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, None
    except OSError:
        return None, None


class Client(Stranger):
    """A reader of the page, with a gate and a service of their own."""

    def add(self, gate, name, *arguments):
        added = subprocess.run([gate, "user", "add", name, *arguments], cwd=self.folder, input=PASSWORD, text=True, capture_output=True)
        expect(added.returncode, 0, added.stderr)

    def token(self, name):
        form = ["-d", "grant_type=password", "-d", "client_id=web", "-d", f"username={name}", "--data-urlencode", f"password={PASSWORD}"]
        return json.loads(self.ask(f"http://{self.public}/connect/token", *form))["access_token"]

    def whoami(self, token, *arguments):
        return json.loads(self.ask(f"http://{self.public}/whoami", "-H", f"Authorization: Bearer {token}", *arguments))


def configure(me, gate, port):
    me.done(PAGE, "rotogate init", **{"http://127.0.0.1:3000": f"http://127.0.0.1:{port}"})
    (line,) = [line for line in documented(PAGE) if line.startswith("rotogate user add ada")]
    # The terminal's question is answered on standard input.
    added = subprocess.run(line, shell=True, cwd=me.folder, env=me.variables, input=PASSWORD, text=True, capture_output=True)
    expect(added.returncode, 0, added.stderr)
    me.add(gate, "bob", "--subject", "100%-bob", "--scopes", "read")
    config = me.folder / "gateway.toml"
    text = config.read_text().replace("127.0.0.1:8080", me.public).replace("127.0.0.1:8081", me.admin)
    text = text.replace("[server]\n", '[server]\ntrusted_proxies = ["127.0.0.1/32"]\n')
    config.write_text(text + of_page("toml"))


def walk(me, port):
    """The client of the page, then what the page says of callers."""
    script = of_page("sh", "# log in").replace("127.0.0.1:8080", me.public).replace("PASSWORD", PASSWORD)
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    caller, orders = (json.loads(line) for line in ran.stdout.splitlines())
    expect(all(caller[key] for key in ("session", "request_id")), True, f"session and request of {caller}")
    expect(caller | {"session": "…", "request_id": "…"}, json.loads(of_page("json")), "what the service receives")
    expect(orders, [{"item": "tea"}], "the orders of ada")

    bob = me.token("bob")
    known = [("Authorization", f"Bearer {bob}"), ("content-type", "application/json")]
    expect(ask(f"http://{me.public}/orders", known), (200, "[]"), "the orders of bob")
    expect(ask(f"http://{me.public}/orders", known, b'{"item":"tea"}')[0], 403, "an order without the scope")
    expect(ask(f"http://{me.public}/orders")[0], 401, "a request without a token")
    forged = ["-H", "x-auth-subject: ada-1", "-H", "x-auth-scope: write", "-H", "x-auth-roles: admin"]
    seen = me.whoami(bob, *forged)
    expect((seen["subject"], seen["scopes"], seen["roles"]), ("100%-bob", ["read"], []), "a caller who writes headers")
    # By a proxy that is trusted, and by another that is not.
    forwarded = ["-H", "x-forwarded-for: 203.0.113.7"]
    expect(me.whoami(bob, *forwarded)["address"], "203.0.113.7", "the client behind a proxy")
    expect(me.whoami(bob, "--interface", "127.0.0.2", *forwarded)["address"], "127.0.0.2", "the client")
    expect(ask(f"http://127.0.0.1:{port}/whoami")[0], 403, "a request that is not the gate's")


def service(line, gate, cache):
    with tempfile.TemporaryDirectory() as folder:
        me, port = Client(gate, Path(folder)), free_port()
        configure(me, gate, port)
        serving = start(line, port, cache, gate)
        gating = subprocess.Popen([gate], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(f"{line} serves", lambda: ask(f"http://127.0.0.1:{port}/")[0], serving)
            until("the gate serves", lambda: ask(f"http://{me.admin}/readyz")[0] == 200, gating)
            walk(me, port)
        finally:
            gating.terminate()
            os.killpg(serving.pid, signal.SIGTERM)
            gating.wait(), serving.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gate", type=Path, required=True)
    gate = parser.parse_args().gate.resolve()
    cache = gate.parent.parent / "interop-cache/services"
    subprocess.run(["bash", ROOT / "tests/interop/services/install.sh", cache], check=True)
    lines = [line for line in documented(PAGE) if "examples/upstreams" in line or line.startswith("cargo run")]
    expect(len(lines), 3, "services on the page")
    for line in lines:
        service(line, gate, cache)
    print("services: Express, FastAPI and axum know their callers behind the gate, by the lines of docs/service.md")


if __name__ == "__main__":
    main()
