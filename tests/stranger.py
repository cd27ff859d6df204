#!/usr/bin/env python3
"""Someone who has the documentation alone finds out why a token is refused, who ended a session, and changes the key of a running
gate (requirement P66).

    tests/stranger.py --gate target/debug/rotogate      part of tests/all.sh

Each line that it runs stands in an sh block of the documentation. Addresses and folders of the documentation are replaced by those
of this gate, and KID, OLD, NAME and SCOPE by what a line before printed or the documentation says.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
from docs import ROOT, blocks  # noqa: E402

PASSWORD = "correct horse battery staple"


def documented(page):
    """The lines of the sh blocks of a page."""
    text = (ROOT / page).read_text()
    lines = [line for _, info, block, _ in blocks(text) if info == "sh" for line in block.splitlines()]
    return [re.sub(r"\s+# .*$", "", line).strip() for line in lines]


def field(answer, name):
    return json.loads(answer)[name]


class Stranger:
    def __init__(self, gate, folder):
        self.folder = folder
        with socket.socket() as one, socket.socket() as two:
            for probe in (one, two):
                probe.bind(("127.0.0.1", 0))
            self.public, self.admin = (f"127.0.0.1:{probe.getsockname()[1]}" for probe in (one, two))
        self.known = {
            "https://api.example.com": f"http://{self.public}",
            "/var/log/rotogate": str(folder),
            "token.txt": str(folder / "token.txt"),
        }
        self.variables = {**os.environ, "PATH": f"{gate.parent}:{os.environ['PATH']}"}

    def do(self, page, begin, **words):
        """Runs the line of a page that begins so; words replace its placeholders."""
        found = [line for line in documented(page) if line.startswith(begin)]
        if len(found) != 1:
            sys.exit(f"tests/stranger.py: {page} has {len(found)} lines that begin with: {begin}")
        line = found[0]
        for old, new in {**self.known, **words}.items():
            line = line.replace(old, new)
        ran = subprocess.run(["bash", "-c", line], cwd=self.folder, env=self.variables, capture_output=True, text=True)
        return ran.returncode, ran.stdout, ran.stderr

    def done(self, page, begin, **words):
        code, out, error = self.do(page, begin, **words)
        if code != 0:
            sys.exit(f"tests/stranger.py: {begin}: exit code {code}: {out}{error}")
        return out

    def ask(self, *arguments):
        ran = subprocess.run(["curl", "-s", *arguments], capture_output=True, text=True, check=True)
        return ran.stdout

    def log_in(self):
        password = f"password={PASSWORD}"
        form = ["-d", "grant_type=password", "-d", "client_id=web", "-d", "username=ada", "--data-urlencode", password]
        return self.ask(f"http://{self.public}/connect/token", *form)

    def status(self, token, path="/orders"):
        headers = ["-H", f"Authorization: Bearer {token}"]
        return self.ask("-o", "/dev/null", "-w", "%{http_code}", f"http://{self.public}{path}", *headers)

    def why(self, token):
        """The line of the access log of a request with this token, and what to do by the page of outcomes."""
        self.variables["TOKEN"] = token
        said = self.done("docs/refused.md", "curl -si https://api.example.com/orders")
        self.variables["REQUEST_ID"] = said.split(":", 1)[1].strip()
        for _ in range(200):
            code, line, _ = self.do("docs/refused.md", 'grep "\\"http.request.id')
            if code == 0:
                break
            # The log is written several times a second.
            time.sleep(0.05)
        line = json.loads(line)
        row = re.search(rf"(?m)^\| `{line['rotogate.outcome']}` \|.*\| (.*) \|$", (ROOT / "docs/outcomes.md").read_text())
        return line, row[1]


def journey(me, gate):
    def expect(got, wanted, what):
        if got != wanted:
            sys.exit(f"tests/stranger.py: {what}: {got!r}, not {wanted!r}")

    config = me.folder / "gateway.toml"
    me.done("docs/operating.md", "rotogate init", **{"--upstream http://127.0.0.1:3000": "--upstream echo:"})
    text = config.read_text().replace("127.0.0.1:8080", me.public).replace("127.0.0.1:8081", me.admin)
    # The configuration of the page, and a route that asks for a scope.
    (logs,) = [block for _, info, block, _ in blocks((ROOT / "docs/refused.md").read_text()) if info == "toml"]
    text += "scopes = [\"read\"]\n" + logs.replace("/var/log/rotogate", str(me.folder))
    config.write_text(text)
    added = subprocess.run([gate, "user", "add", "ada", "--stdin"], cwd=me.folder, input=PASSWORD, text=True, capture_output=True)
    expect(added.returncode, 0, added.stderr)
    serving = subprocess.Popen([gate], cwd=me.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if subprocess.run([gate, "status"], cwd=me.folder, capture_output=True).returncode == 0:
                break
            time.sleep(0.05)

        # Why is this token refused? A scope is missing, and the page says how to give it.
        token = field(me.log_in(), "access_token")
        line, advice = me.why(token)
        expect((line["rotogate.outcome"], line["http.response.status_code"]), ("insufficient_scope", 403), "the reason")
        remedy = re.search(r"`(rotogate user add-scope NAME SCOPE)`", advice)
        command = remedy[1].replace("NAME", "ada").replace("SCOPE", "read")
        subprocess.run(["bash", "-c", command], cwd=me.folder, env=me.variables, check=True, capture_output=True)
        token = field(me.log_in(), "access_token")
        expect(me.status(token), "200", "a call after the advice")

        # Nobody sends a token; somebody sends no token of ours.
        expect(me.why("")[0]["rotogate.outcome"] in ("no_credential", "unusable_credential"), True, "no token")
        expect(me.why("abc.def.ghi")[0]["rotogate.outcome"], "malformed_token", "a broken token")

        # Who ended this session?
        ended = subprocess.run([gate, "session", "revoke", "--user", "ada"], cwd=me.folder, capture_output=True, text=True)
        expect(ended.stdout.strip().endswith("ended"), True, ended.stdout + ended.stderr)
        line, _ = me.why(token)
        expect(line["rotogate.outcome"], "token_revoked", "the reason")
        me.variables |= {"SESSION": line["session.id"], "SUBJECT": line["user.id"]}
        shown = me.done("docs/refused.md", "rotogate session show")
        state = re.search(r"(?m)^status\s+([\w-]+)", shown)[1]
        expect(f"| `{state}` |" in (ROOT / "docs/refused.md").read_text(), True, f"the page explains {state}")
        audit = json.loads(me.done("docs/refused.md", "grep '\"event.action\":\"revocation\"'").splitlines()[-1])
        expect((audit["rotogate.actor"], audit["because"]), ("default", "operator"), "who did it")
        (me.folder / "token.txt").write_text(token)
        expect(field(me.done("docs/refused.md", "rotogate token inspect"), "kind"), "access_token", "the token")

        # The key was stolen: another one signs, and the old one counts no longer.
        before = field(me.log_in(), "access_token")
        expect(me.status(before), "200", "a token by the old key")
        (old,) = [line.split()[0] for line in me.done("docs/operating.md", "rotogate keys list").splitlines()]
        kid = me.done("docs/operating.md", "rotogate keys add").split()[0]
        me.done("docs/operating.md", "rotogate keys promote KID", KID=kid)
        me.done("docs/operating.md", "rotogate keys retire OLD", OLD=old)
        for _ in range(200):
            # The page says: within a second after the files changed.
            if me.status(before) != "200":
                break
            time.sleep(0.05)
        expect(me.why(before)[0]["rotogate.outcome"], "unknown_key", "a token by the old key")
        after = field(me.log_in(), "access_token")
        expect(me.status(after), "200", "a token by the new key")
    finally:
        serving.terminate()
        serving.wait()


def quick_start(gate, folder):
    """The first start prints what docs/quick-start.md shows, and the lines work as they are pasted."""
    (shown,) = [block for _, info, block, _ in blocks((ROOT / "docs/quick-start.md").read_text()) if info == "text"]
    (folder / "gateway.toml").write_text((ROOT / "gateway.toml").read_text())
    public, admin = Stranger(gate, folder).public, Stranger(gate, folder).admin
    own = {"SERVER__LISTEN": public, "SERVER__PUBLIC_URL": f"http://{public}", "ISSUER__URL": f"http://{public}", "ADMIN__LISTEN": admin}
    environment = {**os.environ, **{f"ROTOGATE_{key}": value for key, value in own.items()}}
    serving = subprocess.Popen([gate], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        printed = "".join(serving.stdout.readline() for _ in shown.splitlines())
        password = re.search(r"(?m)^    password  (\S+)$", printed)[1]
        neutral = printed.replace(password, "…").replace(public, "127.0.0.1:8080").replace(admin, "127.0.0.1:8081")
        if neutral != shown:
            sys.exit(f"tests/stranger.py: docs/quick-start.md does not show what the first start prints: {neutral}")
        lines = [line.strip() for line in printed.split("Paste to try it:")[1].splitlines()]
        ran = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
        login, call, new, again, refused = ran.stdout.strip().splitlines()
        pair = lambda answer: (field(answer, "access_token"), field(answer, "refresh_token"))
        if not (pair(new) == pair(again) != pair(login) and field(call, "path") == "/hello" and " 401 " in refused):
            sys.exit(f"tests/stranger.py: the lines of the quick start do not do what it says: {ran.stderr}")
    finally:
        serving.terminate()
        serving.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gate", type=Path, required=True)
    gate = parser.parse_args().gate.resolve()
    with tempfile.TemporaryDirectory() as folder:
        journey(Stranger(gate, Path(folder)), gate)
    with tempfile.TemporaryDirectory() as folder:
        quick_start(gate, Path(folder))
    print("stranger: found why a token is refused and who ended a session, and changed the key, by documented lines")


if __name__ == "__main__":
    main()
