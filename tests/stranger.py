#!/usr/bin/env python3
"""Someone who has the documentation alone finds out why a token is refused, who ended a session, and changes the key of a running
gate; and finds an expired certificate, an app that refreshes in a loop, guessed passwords, and what takes the memory (requirement
P66).

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


def until(what, is_so):
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.05)
    sys.exit(f"tests/stranger.py: {what}: not within 30 s")


def expect(got, wanted, what):
    if got != wanted:
        sys.exit(f"tests/stranger.py: {what}: {got!r}, not {wanted!r}")


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

    def line(self, page, begin, **words):
        """The line of a page that begins so; words replace its placeholders."""
        found = [line for line in documented(page) if line.startswith(begin)]
        if len(found) != 1:
            sys.exit(f"tests/stranger.py: {page} has {len(found)} lines that begin with: {begin}")
        line = found[0]
        for old, new in {**self.known, **words}.items():
            line = line.replace(old, new)
        return line

    def do(self, page, begin, **words):
        """Runs a line of a page."""
        line = self.line(page, begin, **words)
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

    def log_in(self, password=PASSWORD):
        password = f"password={password}"
        form = ["-d", "grant_type=password", "-d", "client_id=web", "-d", "username=ada", "--data-urlencode", password]
        return self.ask(f"http://{self.public}/connect/token", *form)

    def refresh(self, token):
        form = ["-d", "grant_type=refresh_token", "-d", "client_id=web", "-d", f"refresh_token={token}"]
        return json.loads(self.ask(f"http://{self.public}/connect/token", *form))

    def serve(self, gate):
        serving = subprocess.Popen([gate], cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("the gate serves", lambda: subprocess.run([gate, "status"], cwd=self.folder, capture_output=True).returncode == 0)
        return serving

    def metric(self, name):
        """The sum of a metric over its labels; 0 for one that this gate has no cause to show."""
        if f"`{name}" not in (ROOT / "docs/metrics.md").read_text():
            sys.exit(f"tests/stranger.py: docs/metrics.md does not explain {name}")
        lines = re.findall(rf"(?m)^{name}(?:\{{.*\}})? (\S+)$", self.ask(f"http://{self.admin}/metrics"))
        return sum(map(float, lines))

    def held(self, number):
        """Connections that stay after a request, whose reply nobody reads."""
        host, port = self.public.split(":")
        held = [socket.create_connection((host, int(port))) for _ in range(number)]
        [connection.sendall(f"GET / HTTP/1.1\r\nHost: {self.public}\r\n\r\n".encode()) for connection in held]
        return held

    def named(self, section, pattern):
        """What docs/metrics.md says to run for an alert."""
        text = (ROOT / "docs/metrics.md").read_text().split(f"### {section}\n")[1].split("\n### ")[0]
        command = re.search(pattern, text.replace("\n", " "))[0]
        ran = subprocess.run(["bash", "-c", command], cwd=self.folder, env=self.variables, capture_output=True, text=True, check=True)
        return ran.stdout

    def status(self, token, path="/orders"):
        headers = ["-H", f"Authorization: Bearer {token}"]
        return self.ask("-o", "/dev/null", "-w", "%{http_code}", f"http://{self.public}{path}", *headers)

    def why(self, token):
        """The line of the access log of a request with this token, and what to do by the page of outcomes."""
        self.variables["TOKEN"] = token
        said = self.done("docs/outcomes.md", "curl -si https://api.example.com/orders")
        self.variables["REQUEST_ID"] = said.split(":", 1)[1].strip()
        for _ in range(200):
            code, line, _ = self.do("docs/outcomes.md", 'grep "\\"http.request.id')
            if code == 0:
                break
            # The log is written several times a second.
            time.sleep(0.05)
        line = json.loads(line)
        row = re.search(rf"(?m)^\| `{line['rotogate.outcome']}` \|.*\| (.*) \|$", (ROOT / "docs/outcomes.md").read_text())
        return line, row[1]


def configured(me, gate, route):
    """The configuration of the page about refusals, and a user."""
    config = me.folder / "gateway.toml"
    me.done("docs/operating.md", "rotogate init", **{"--upstream http://127.0.0.1:3000": "--upstream echo:"})
    text = config.read_text().replace("127.0.0.1:8080", me.public).replace("127.0.0.1:8081", me.admin)
    (logs,) = [block for _, info, block, _ in blocks((ROOT / "docs/outcomes.md").read_text()) if info == "toml"]
    text += route + logs.replace("/var/log/rotogate", str(me.folder))
    config.write_text(text)
    added = subprocess.run([gate, "user", "add", "ada", "--stdin"], cwd=me.folder, input=PASSWORD, text=True, capture_output=True)
    expect(added.returncode, 0, added.stderr)
    return config


def journey(me, gate):
    configured(me, gate, "scopes = [\"read\"]\n")
    serving = me.serve(gate)
    try:
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
        shown = me.done("docs/outcomes.md", "rotogate session show")
        state = re.search(r"(?m)^status\s+([\w-]+)", shown)[1]
        expect(f"- `{state}`: " in (ROOT / "docs/outcomes.md").read_text(), True, f"the page explains {state}")
        audit = json.loads(me.done("docs/outcomes.md", "grep '\"event.action\":\"revocation\"'").splitlines()[-1])
        expect((audit["rotogate.actor"], audit["because"]), ("default", "operator"), "who did it")
        (me.folder / "token.txt").write_text(token)
        # A refused token is shown, and the exit code is that of a refusal.
        code, shown, _ = me.do("docs/outcomes.md", "rotogate token inspect")
        expect((code, field(shown, "kind"), field(shown, "refused")), (1, "access_token", "token_revoked"), "the token")

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


def refreshes_and_guesses(me, gate):
    """Who refreshes in a loop, and who guesses passwords."""
    configured(me, gate, "")
    counted = lambda begin: [
        line.split(None, 1)
        for line in subprocess.run(
            ["bash", "-c", me.line("docs/logs.md", "count() {") + "\n" + me.line("docs/logs.md", begin)],
            cwd=me.folder, env=me.variables, capture_output=True, text=True, check=True,
        ).stdout.splitlines()
    ]
    serving = me.serve(gate)
    try:
        # An app refreshes again and again, until a limit refuses it.
        answer = json.loads(me.log_in())
        for refreshes in range(1, 100):
            last, answer = answer, me.refresh(answer["refresh_token"])
            if "refresh_token" not in answer:
                break
        expect("refresh_token" in answer, False, "a limit refuses the loop")
        (me.folder / "token.txt").write_text(last["access_token"])
        session = field(me.done("docs/outcomes.md", "rotogate token inspect"), "claims")["sid"]
        frequent = "count '.\"rotogate.client.id\", .\"user.id\""
        # The login has a line, the refused refresh one of its own.
        until("the page's line shows the loop first, how often, and who", lambda: [(str(refreshes), "web", True)] == [
            (number, what.split("\t")[0], session in what) for number, what in counted(frequent)[:1]
        ])
        until("the limit of refreshes is in the events", lambda: "web" in me.named(
            "RotogateRefreshesLimited", r"rotogate events --action rate\.limited"
        ))

        # Somebody guesses. The user logs in all the same from where they were before.
        for guesses in range(1, 100):
            said = me.log_in("guess")
            if field(said, "error") != "invalid_grant":
                break
        expect(1 < guesses < 99, True, f"a limit refuses guesses: {said}")
        begin = "count '.\"client.address\""
        until("the page's line shows the guesses", lambda: any("wrong_password" in what for _, what in counted(begin)))
        until("all guesses are counted", lambda: (str(guesses - 1), "127.0.0.1") in [
            (number, what.split("\t")[0]) for number, what in counted(begin) if "wrong_password" in what
        ])
        until("the limit of logins is in the events", lambda: "127.0.0.1" in me.named(
            "RotogateGuessing", r"rotogate events --action rate\.limited"
        ))
    finally:
        serving.terminate()
        serving.wait()


def memory(me, gate):
    """What takes the memory: the page's table names the metric that grows, and its bound."""
    config = configured(me, gate, "")
    table = (ROOT / "docs/operating.md").read_text().split("**Memory grows.**")[1].split("\n\n")[1]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    named = {metric: bound for _, metrics, bound in rows for metric in re.findall(r"`(rotogate_\w+)`", metrics)}
    serving, held = me.serve(gate), []
    try:
        expect(me.metric("process_resident_memory_bytes") > 1e6, True, "the memory")
        before = {metric: me.metric(metric) for metric in named}
        held = me.held(60)
        until("the connections are counted", lambda: me.metric("rotogate_connections") >= 60)
        grown = [metric for metric in named if me.metric(metric) - before[metric] > 50]
        expect(grown, ["rotogate_connections"], "what grew")
        bound = re.findall(r"`(\w+)`", named["rotogate_connections"])[0]
        config.write_text(config.read_text().replace("[server]\n", f"[server]\n{bound} = 20\n", 1))
        me.done("docs/admin.md", "curl -H \"$TOKEN\" -X POST $GATE/v1/config/reload", **{
            "$GATE": f"http://{me.admin}", "$TOKEN": f"authorization: Bearer {(me.folder / 'data/admin.token').read_text().strip()}",
        })
        [connection.close() for connection in held]
        until("they are gone", lambda: me.metric("rotogate_connections") < 20)
        held = me.held(60)
        until("the lower bound counts", lambda: me.metric("rotogate_connections") == 20)
    finally:
        [connection.close() for connection in held]
        serving.terminate()
        serving.wait()


def certificate(folder, begin, end):
    """Writes a certificate of its own for localhost, valid in this period."""
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\nnew_certs_dir = .\nrand_serial = yes\ndefault_md = sha256\n"
        "policy = any\ncopy_extensions = copy\nunique_subject = no\n[any]\ncommonName = supplied\n"
        "[req]\ndistinguished_name = name\n[name]\n"
    )
    (folder / "index.txt").write_text("")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "new.key"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    request = ["openssl", "req", "-config", "ca.cnf", *key, *name, "-out", "new.csr"]
    subprocess.run(request, cwd=folder, check=True, capture_output=True)
    sign = ["openssl", "ca", "-batch", "-config", "ca.cnf", "-selfsign", "-keyfile", "new.key", "-in", "new.csr", "-out", "new.pem"]
    subprocess.run([*sign, "-notext", "-startdate", begin, "-enddate", end], cwd=folder, check=True, capture_output=True)
    (folder / "new.key").chmod(0o600)
    for file in ("https.pem", "https.key"):
        (folder / f"new.{file.split('.')[1]}").rename(folder / file)


def expired_certificate(me, gate):
    """A certificate expired: check and the metric say so, and a replaced file counts at once."""
    config = configured(me, gate, "")
    (tls,) = re.findall(r"(?m)^tls = \{ cert = \"https.pem\", key = \"https.key\" \}", (ROOT / "docs/edge.md").read_text())
    url = f"https://localhost:{me.public.split(':')[1]}"
    config.write_text(config.read_text().replace("[server]\n", f"[server]\n{tls}\n", 1).replace(f"http://{me.public}", url))
    certificate(me.folder, "20200101000000Z", "20200201000000Z")
    reached = lambda: subprocess.run(
        ["curl", "-s", "-S", "--cacert", "https.pem", f"{url}/.well-known/jwks.json"], cwd=me.folder, capture_output=True, text=True
    )
    serving = me.serve(gate)
    try:
        refused = reached()
        expect((refused.returncode, "expired" in refused.stderr), (60, True), refused.stderr)
        checked = me.done("docs/start.md", "rotogate check")
        expect("https.pem: the certificate expired at" in checked, True, checked)
        end = "rotogate_certificate_not_after_timestamp_seconds"
        expect(me.metric(end) < time.time(), True, "the metric of the certificate's end")
        certificate(me.folder, "20200101000000Z", "20991231000000Z")
        until("the new certificate is served without a signal", lambda: reached().returncode == 0)
        expect(me.metric(end) > time.time(), True, "the metric of the new end")
    finally:
        serving.terminate()
        serving.wait()


def quick_start(gate, folder):
    """The first start prints what README.md shows, and the lines after that work as they are pasted."""
    (shown,) = [block for _, info, block, _ in blocks((ROOT / "README.md").read_text()) if info == "text"]
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
            sys.exit(f"tests/stranger.py: README.md does not show what the first start prints: {neutral}")
        lines = []
        for line in iter(serving.stdout.readline, ""):
            lines.append(line.strip())
            if "head -1" in line:
                # The last line to paste. The gate runs on, so its output has no end.
                break
        lines = lines[lines.index("Paste to try it:") + 1 :]
        ran = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
        login, call, new, again, refused = ran.stdout.strip().splitlines()
        pair = lambda answer: (field(answer, "access_token"), field(answer, "refresh_token"))
        if not (pair(new) == pair(again) != pair(login) and field(call, "path") == "/hello" and " 401 " in refused):
            sys.exit(f"tests/stranger.py: the lines of the first start do not do what they say: {ran.stderr}")
        (command,) = re.findall(r"with the token: (.*)", printed)
        token = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True).stdout
        expect(len(token.strip()) > 40, True, "the admin token that the first start names")
    finally:
        serving.terminate()
        serving.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gate", type=Path, required=True)
    gate = parser.parse_args().gate.resolve()
    for walk in (journey, refreshes_and_guesses, memory, expired_certificate):
        with tempfile.TemporaryDirectory() as folder:
            walk(Stranger(gate, Path(folder)), gate)
    with tempfile.TemporaryDirectory() as folder:
        quick_start(gate, Path(folder))
    print("stranger: found why a token is refused and who ended a session, changed the key, and found a loop, guesses, what takes the "
          "memory, and an expired certificate, by documented lines")


if __name__ == "__main__":
    main()
