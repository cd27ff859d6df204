#!/usr/bin/env python3
"""docs/start.md puts the gate in front of a service in Express, in FastAPI and in axum, as it is printed.

    tests/services.py --gate target/debug/rotogate      part of tests/all.sh

Each service of examples/upstreams is started by its line of the page. Then every command of the page runs in an empty folder, in the
order of the page, and prints what the page shows. Only ports and the password are replaced. Express and FastAPI come from npm and PyPI
(tests/interop/services/install.sh). `cargo test` has built the service in axum.
"""

import argparse
import json
import os
import re
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

PAGE = "docs/start.md"
# Ends the output of a block.
END = "-- end of a block --"


def expect(got, wanted, what):
    if got != wanted:
        sys.exit(f"tests/services.py: {what}: {got!r}, not {wanted!r}")


def steps():
    """The blocks of the page behind the one that starts a service: kind and text."""
    found = [(info, block) for _, info, block, _ in blocks((ROOT / PAGE).read_text())]
    (first,) = [at for at, (_, block) in enumerate(found) if "examples/upstreams" in block]
    return found[first + 1 :]


def of_page(info):
    """The one block of the page of this kind."""
    (block,) = [block for kind, block in steps() if kind == info]
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


def ask(url, headers=(), data=None, method=None):
    request = urllib.request.Request(url, data, dict(headers), method=method)
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


def configure(me, port):
    """The page's commands before the start of the gate."""
    _, block = steps()[0]
    *lines, last = re.sub(r"(?m)\s+# .*$", "", block).strip().splitlines()
    expect(last, "rotogate", "the last command before the second terminal")
    script = "\n".join(lines).replace("127.0.0.1:3000", f"127.0.0.1:{port}")
    # The question for the password is answered on standard input.
    ran = subprocess.run(["bash", "-ec", script], cwd=me.folder, env=me.variables, input=PASSWORD, text=True, capture_output=True)
    expect((ran.returncode, ran.stderr), (0, ""), script)
    config = me.folder / "gateway.toml"
    config.write_text(config.read_text().replace("127.0.0.1:8080", me.public).replace("127.0.0.1:8081", me.admin))


def follow(me):
    """What each block of commands prints, in one shell: later blocks use the variables and functions of earlier ones."""
    script = []
    for kind, block in steps()[1:]:
        if kind == "sh":
            script.append(block.replace("127.0.0.1:8080", me.public).replace("PASSWORD", PASSWORD) + f"echo '{END}'\n")
        if kind == "toml":
            script.append(f"cat >>gateway.toml <<'END'\n\n{block}END\n")
    ran = subprocess.run(["bash", "-c", "".join(script)], cwd=me.folder, env=me.variables, capture_output=True, text=True, timeout=120)
    expect(ran.stderr, "", "complaints of the page's commands")
    return [output.strip().splitlines() for output in ran.stdout.split(END)[:-1]]


def walk(me, gate, port):
    """The commands of the page and what they print, then what the page says of callers."""
    (caller,), (no_token,), (checked, reloaded, forbidden, *explained), (_, orders), (one, two), (ended, revoked), (token,) = follow(me)
    caller = json.loads(caller)
    expect(all(caller[key] for key in ("session", "request_id")), True, f"session and request of {caller}")
    expect(caller | {"session": "…", "request_id": "…"}, json.loads(of_page("json")), "what the service receives")
    shown = re.findall(r"# ((?:HTTP|gateway).*)$", (ROOT / PAGE).read_text(), re.M)
    expect([no_token, checked, revoked], shown, "what the page's comments show")
    expect(reloaded.startswith("gateway.toml reloaded"), True, reloaded)
    expect(json.loads(forbidden)["status"], 403, "an order without the scope")
    expect([line for line in of_page("text").splitlines() if line not in [*explained, "…"]], [], "lines that `explain` does not print")
    expect(f"The example services reply `{json.dumps(json.loads(orders), separators=(',', ':'))}`." in (ROOT / PAGE).read_text(), True, orders)
    # The second may have a shorter `expires_in`.
    tokens = [[json.loads(reply)[key] for key in ("access_token", "refresh_token")] for reply in (one, two)]
    expect(tokens[0], tokens[1], "a repeated refresh")
    expect(ended.endswith("of ada ended"), True, ended)
    expect(token, (me.folder / "data/admin.token").read_text().strip(), "the admin token")
    expect(ask(f"http://{me.admin}/")[0], 200, "the admin page")

    me.add(gate, "bob", "--subject", "100%-bob", "--scopes", "read")
    me.add(gate, "eve", "--scopes", "write")
    bob, eve = ([("Authorization", f"Bearer {me.token(name)}")] for name in ("bob", "eve"))
    for path in ("/orders", "/orders/", "/orders/17", "/orders/17/items"):
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            expect(ask(f"http://{me.public}{path}", bob, method=method)[0], 403, f"{method} {path} without the scope")
            expect(ask(f"http://{me.public}{path}", method=method)[0], 401, f"{method} {path} without a token")
    expect(ask(f"http://{me.public}/orders", eve), (200, "[]"), "the orders of eve, who has the scope")
    bob = me.token("bob")
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
        configure(me, port)
        serving = start(line, port, cache, gate)
        # A proxy in front, which the page does not have.
        trusting = {**os.environ, "ROTOGATE_SERVER__TRUSTED_PROXIES": "127.0.0.1/32"}
        gating = subprocess.Popen([gate], cwd=folder, env=trusting, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(f"{line} serves", lambda: ask(f"http://127.0.0.1:{port}/")[0], serving)
            until("the gate serves", lambda: ask(f"http://{me.admin}/readyz")[0] == 200, gating)
            walk(me, gate, port)
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
    print("services: Express, FastAPI and axum know their callers behind the gate, by the lines of docs/start.md")


if __name__ == "__main__":
    main()
