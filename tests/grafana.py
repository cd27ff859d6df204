#!/usr/bin/env python3
"""docs/grafana-nginx.md puts a Grafana behind nginx and the gate, by the files that are printed there.

    tests/grafana.py --gate target/debug/rotogate      part of tests/all.sh

Only ports, the provider's address and nginx's folders are replaced. A stand-in trusts the header of the page's grafana.ini as
Grafana does, and another one logs users in as Keycloak does. Needs nginx and OpenSSL.
"""

import argparse
import base64
import configparser
import hashlib
import http.client
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.dont_write_bytecode = True
from docs import ROOT, blocks  # noqa: E402
from packages import free_port  # noqa: E402
from stranger import PASSWORD  # noqa: E402

PAGE = "docs/grafana-nginx.md"
PAGE_OF_TAB = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html"}


def expect(got, wanted, what):
    if got != wanted:
        sys.exit(f"tests/grafana.py: {what}: {got!r}, not {wanted!r}")


def until(what, holds):
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    sys.exit(f"tests/grafana.py: {what}: not within 30 s")


def of_page(kind):
    """The blocks of the page of this kind."""
    return [block for _, info, block, _ in blocks((ROOT / PAGE).read_text()) if info == kind]


class Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body="", **headers):
        self.send_response(status)
        for name, value in {"content_length": len(body.encode()), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def serve(handler, port):
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


class Grafana(Quiet):
    """Trusts the header that its configuration names, from the addresses that it lists."""

    settings = None
    received = []

    def user(self):
        trusted = self.settings["auth.proxy"]
        is_listed = trusted.getboolean("enabled") and self.client_address[0] in re.split(r"[,\s]+", trusted["whitelist"])
        return self.headers.get(trusted["header_name"]) if is_listed else None

    def do_GET(self):
        self.received.append(self.headers.items())
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if not self.user():
            return self.answer(401, "who is it?")
        if self.command == "POST" and urllib.parse.urlsplit(self.headers["origin"]).netloc != self.headers["host"]:
            return self.answer(403, "origin not allowed")
        if self.path == "/logout":
            return self.answer(302, location=self.settings["auth"]["signout_redirect_url"])
        if self.path == "/api/live/ws":
            return self.live()
        self.answer(200, json.dumps({"login": self.user()}))

    do_POST = do_GET

    def live(self):
        """Accepts a WebSocket of its own pages, and sends the user's name once."""
        if self.headers.get("origin") != self.settings["server"]["root_url"].rstrip("/"):
            return self.answer(403)
        if [self.headers.get(name, "").lower() for name in ("connection", "upgrade")] != ["upgrade", "websocket"]:
            return self.answer(400)
        key = f"{self.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        head = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
        name = self.user().encode()
        self.wfile.write("\r\n".join([*head, "", ""]).encode() + bytes([0x81, len(name)]) + name)
        # Until nginx or the client closes it.
        self.rfile.read(1)
        self.close_connection = True


def encoded(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=").decode()


class Keycloak(Quiet):
    """A realm in which one user logs in, with the client of the page. The test chooses the user."""

    url, folder, user, logins, secret = None, None, None, {}, secrets.token_urlsafe()

    @classmethod
    def start(cls, port, folder):
        cls.url, cls.folder = f"http://127.0.0.1:{port}/realms/acme", folder
        subprocess.run(["openssl", "genrsa", "-out", folder / "realm.key", "2048"], check=True, capture_output=True)
        serve(cls, port)

    def signed(self, kind, **claims):
        """A token with the claims of every token of the realm, and these."""
        now = int(time.time())
        own = {"iss": self.url, "iat": now, "exp": now + 300, "jti": secrets.token_hex(), "typ": kind, "azp": "grafana", "sid": "s-1"}
        text = f"{encoded({'alg': 'RS256', 'typ': 'JWT', 'kid': 'k1'})}.{encoded({**own, **self.user, **claims})}"
        sign = ["openssl", "dgst", "-sha256", "-sign", self.folder / "realm.key"]
        return f"{text}.{encoded(subprocess.run(sign, input=text.encode(), check=True, capture_output=True).stdout)}"

    def do_GET(self):
        path, _, query = self.path.removeprefix("/realms/acme").partition("?")
        asked = dict(urllib.parse.parse_qsl(query))
        of_openid = f"{self.url}/protocol/openid-connect"
        if path == "/.well-known/openid-configuration":
            ends = {"authorization": "auth", "token": "token", "end_session": "logout"}
            named = {f"{name}_endpoint": f"{of_openid}/{end}" for name, end in ends.items()}
            more = {"authorization_response_iss_parameter_supported": True, "code_challenge_methods_supported": ["S256"]}
            self.answer(200, json.dumps({"issuer": self.url, "jwks_uri": f"{of_openid}/certs", **named, **more}))
        elif path.endswith("/certs"):
            shown = ["openssl", "rsa", "-in", self.folder / "realm.key", "-noout", "-modulus"]
            modulus = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
            number = bytes.fromhex(modulus.strip().split("=")[1])
            key = {"kid": "k1", "kty": "RSA", "alg": "RS256", "use": "sig", "n": encoded(number), "e": "AQAB"}
            self.answer(200, json.dumps({"keys": [key]}))
        elif path.endswith("/auth"):
            code = secrets.token_urlsafe()
            self.logins[code] = asked
            back = {"state": asked["state"], "session_state": "s-1", "iss": self.url, "code": code}
            self.answer(302, location=f"{asked['redirect_uri']}?{urllib.parse.urlencode(back)}")
        else:
            self.answer(404)

    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
        login = self.logins.pop(form.get("code"), {})
        basic = base64.b64encode(f"grafana:{self.secret}".encode()).decode()
        is_client = self.headers.get("authorization") == f"Basic {basic}" or form.get("client_secret") == self.secret
        proof = encoded(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if not is_client or login.get("code_challenge") != proof or login["redirect_uri"] != form["redirect_uri"]:
            return self.answer(400, json.dumps({"error": "invalid_grant"}))
        tokens = {
            "access_token": self.signed("Bearer", aud="account", scope="openid profile"),
            "id_token": self.signed("ID", aud="grafana", nonce=login["nonce"], auth_time=int(time.time())),
            "refresh_token": self.signed("Refresh", aud=self.url),
        }
        self.answer(200, json.dumps({**tokens, "token_type": "Bearer", "expires_in": 300}), content_type="application/json")


class Browser:
    """A browser at nginx: it keeps the cookies."""

    def __init__(self, nginx):
        self.nginx, self.cookies = nginx, {"grafana_session": "of-grafana"}

    def head(self, headers):
        cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        return [*cookies.items(), *(headers.items() if isinstance(headers, dict) else headers)]

    def ask(self, path, headers=(), form=None):
        """Status, location and text of a reply."""
        connection = http.client.HTTPConnection(*self.nginx.split(":"), timeout=60)
        connection.putrequest("GET" if form is None else "POST", path, skip_host=True)
        body = urllib.parse.urlencode(form or {}).encode()
        own = [("Host", self.nginx)] if form is None else [
            ("Host", self.nginx), ("Origin", f"http://{self.nginx}"), ("Content-Length", len(body)),
            ("Content-Type", "application/x-www-form-urlencoded"), *PAGE_OF_TAB.items(),
        ]
        for name, value in [*own, *self.head(headers)]:
            connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        for name, value in reply.getheaders():
            if name.lower() == "set-cookie":
                name, _, value = value.split(";")[0].partition("=")
                self.cookies[name] = value
        text = reply.read().decode()
        connection.close()
        return reply.status, reply.headers.get("location"), text

    def path(self, url):
        """The path of a URL of nginx."""
        origin = f"http://{self.nginx}"
        expect(url.startswith(f"{origin}/"), True, f"{url} is at nginx")
        return url.removeprefix(origin)

    def live(self, headers=()):
        """The status of a handshake of a WebSocket, and its first message."""
        with socket.create_connection(self.nginx.split(":"), timeout=60) as wire:
            own = [
                ("Host", self.nginx), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ]
            lines = [f"{name}: {value}" for name, value in [*own, *self.head(headers)]]
            wire.sendall("\r\n".join(["GET /api/live/ws HTTP/1.1", *lines, "", ""]).encode())
            file = wire.makefile("rb")
            status = int(file.readline().split()[1])
            while file.readline().strip():
                pass
            return status, file.read(file.read(2)[1]).decode() if status == 101 else None

    def user(self, path="/api/user", headers=()):
        """The user that Grafana knows, or the status of a refusal."""
        status, _, text = self.ask(path, headers)
        return json.loads(text)["login"] if status == 200 else status


def ports():
    """The ports of the page, each with a free one."""
    numbers = re.findall(r"(?:127\.0\.0\.1|localhost):(\d+)", (ROOT / PAGE).read_text())
    return {number: str(free_port()) for number in dict.fromkeys([*numbers, "3000", "8081"])}


def here(text, moved):
    """A text of the page with the ports of this run. The browser is at localhost there, and at its address here."""
    for old, new in moved.items():
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}").replace(f"localhost:{old}", f"127.0.0.1:{new}")
    return text.replace("https://idp.example.com/realms/acme", Keycloak.url)


def sections(text):
    """The sections of a configuration, each with its heading."""
    return {re.match(r"\[+[\w.]+\]+", part)[0]: part for part in re.split(r"(?m)^(?=\[)", text) if part.strip()}


class Site:
    """The gate and nginx in a folder, with the files of the page."""

    def __init__(self, gate, folder, configuration, moved):
        self.folder, self.nginx = folder, f"127.0.0.1:{moved['8000']}"
        (folder / "gateway.toml").write_text(here(configuration, moved))
        (conf,) = of_page("nginx")
        temporary = " ".join(f"{name}_temp_path {name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "nginx.conf").write_text(here(conf, moved).replace("http {", f"http {{\n  access_log off; {temporary}", 1))
        own = {"PATH": f"{gate.parent}:{os.environ['PATH']}:/usr/sbin", "ROTOGATE_ADMIN__LISTEN": f"127.0.0.1:{moved['8081']}"}
        self.environment = {**os.environ, **own}
        self.started = []

    def run(self, line, typed=""):
        """A line of the page, in the folder."""
        where = {"cwd": self.folder, "env": self.environment}
        done = subprocess.run(["bash", "-c", line], **where, input=typed, capture_output=True, text=True)
        expect(done.returncode, 0, f"{line}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def start(self, *command):
        with open(self.folder / f"{command[0]}.log", "w") as log:
            self.started.append(subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log))

    def __enter__(self):
        self.start("rotogate")
        # One process: workers would outlive a killed master.
        self.start("nginx", "-p", ".", "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off; master_process off; pid nginx.pid;")
        until("nginx and the gate serve", lambda: all(each.poll() is None for each in self.started) and self.is_up())
        return self

    def is_up(self):
        try:
            return Browser(self.nginx).user() == 401
        except OSError:
            return False

    def __exit__(self, *_):
        for each in self.started:
            each.terminate()
            each.wait()


def attacks(browser, user):
    """Nothing that a client sends makes it another user. `user` is the user, or the status without a session."""
    before = len(Grafana.received)
    lies = [
        [("X-WEBAUTH-USER", "admin")],
        [("x-webauth-user", "admin"), ("X-Webauth-User", "admin")],
        [("X_WEBAUTH_USER", "admin")],
        [("X-WEBAUTH-USER", "admin"), ("Connection", "X-WEBAUTH-USER")],
        [("X-WEBAUTH-USER", "admin"), ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Uri", "/auth/login")],
    ]
    for lie in lies:
        expect(browser.user(headers=lie), user, f"the user of a client that sends {lie}")
    for headers in (PAGE_OF_TAB, {"Origin": f"http://{browser.nginx}"}):
        asked = browser.ask("/", [*headers.items(), *lies[0]])[0]
        expect(asked, 200 if isinstance(user, str) else 303 if headers is PAGE_OF_TAB else 401, f"a page with {lies[0]}")
    # Grafana prefers these credentials to the header, so they must not arrive.
    for credential in ("Basic YWRtaW46YWRtaW4=", "Bearer glsa_admin"):
        expect(browser.user(headers={"Authorization": credential}), 401, f"a client with {credential}")
    expect(browser.ask("/_gate")[0], 404, "a client that asks the gate itself")
    for headers in Grafana.received[before:]:
        names = [value for name, value in headers if re.sub(r"[-_.]", "", name.lower()) == "xwebauthuser"]
        expect((names, "admin" in str(headers), "rc1_" in str(headers)), ([user], False, False), "what arrived at Grafana")
    expect(len(Grafana.received) > before, isinstance(user, str), "requests that arrived at Grafana")


def log_in(browser, path, name):
    """From a page to the login form, and back to the page."""
    status, login, _ = browser.ask(path, PAGE_OF_TAB)
    expect(status, 303, "a page without a session")
    status, _, form = browser.ask(browser.path(login), PAGE_OF_TAB)
    expect((status, 'name="password"' in form), (200, True), "the login page")
    (to,) = urllib.parse.parse_qs(urllib.parse.urlsplit(login).query).get("to", ["/"])
    status, back, _ = browser.ask("/auth/login", form={"username": name, "password": PASSWORD, "to": to})
    expect((status, browser.path(back)), (303, path), "the reply to the password")


def log_in_at_keycloak(browser, path):
    status, login, _ = browser.ask(path, PAGE_OF_TAB)
    expect(status, 303, "a page without a session")
    status, away, _ = browser.ask(browser.path(login), PAGE_OF_TAB)
    expect((status, away.startswith(f"{Keycloak.url}/protocol/openid-connect/auth?")), (303, True), f"the way to Keycloak: {away}")
    realm = http.client.HTTPConnection(urllib.parse.urlsplit(away).netloc, timeout=60)
    realm.request("GET", away[away.index("/realms") :])
    callback = realm.getresponse().headers["location"]
    status, back, text = browser.ask(browser.path(callback), PAGE_OF_TAB)
    expect(status in (200, 303), True, f"the way back: {status} {text}")
    expect(back is None or browser.path(back) == path, True, f"the way back to the page: {back}")


def log_out(browser):
    """By the button that the page of the gate shows, to which Grafana's own logout leads."""
    status, to, _ = browser.ask("/logout", PAGE_OF_TAB)
    expect(status, 302, "the logout of Grafana")
    status, _, text = browser.ask(browser.path(to), PAGE_OF_TAB)
    (action,) = re.findall(r'<form[^>]* action="([^"]+)"', text)
    expect((status, urllib.parse.urljoin(to, action)), (200, to), "the page with the button")
    kept = dict(browser.cookies)
    status, away, text = browser.ask("/auth/logout", form={})
    expect(status in (200, 303), True, f"the button: {status}")
    browser.cookies = kept
    expect(browser.user(), 401, "the session after the logout")
    expect(browser.ask("/", PAGE_OF_TAB)[0], 303, "a page after the logout")
    return away or text


def use(site, log_in_as, name, other):
    """A user who may use Grafana, and one who may not."""
    stranger, browser, visitor = Browser(site.nginx), Browser(site.nginx), Browser(site.nginx)
    own = {"Origin": f"http://{site.nginx}"}
    attacks(stranger, 401)
    expect(stranger.live(own), (401, None), "a WebSocket without a session")
    log_in_as(browser, "/d/abc?orgId=1", name)
    expect((browser.user(), browser.user("/d/abc?orgId=1")), (name, name), "the user in Grafana")
    expect(browser.ask("/api/ds/query", form={"query": "up" * 9000})[0], 200, "a query")
    attacks(browser, name)
    browser.cookies["large"] = "x" * 6000
    expect(browser.user(), name, "the user of a browser with large cookies")
    del browser.cookies["large"]
    expect(browser.live(own), (101, name), "the WebSocket")
    expect(browser.live({**own, "X-WEBAUTH-USER": "admin"}), (101, name), "the WebSocket of a client that lies")
    expect(browser.live({"Origin": "https://evil.example"}), (403, None), "a WebSocket of another site")
    cookies = [value for headers in Grafana.received for header, value in headers if header.lower() == "cookie"]
    expect({each.split(";")[0] for each in cookies}, {"grafana_session=of-grafana"}, "the cookies at Grafana")
    expect("rc1_" in str(cookies), False, "the gate's cookie at Grafana")
    log_in_as(visitor, "/", other)
    refused = (visitor.user(), visitor.ask("/", PAGE_OF_TAB)[0], visitor.live(own)[0])
    expect(refused, (403, 403, 403), "a user who may not use Grafana")
    return log_out(browser)


def own_login(gate, folder, moved, first):
    """The page's commands up to the start, then a day with Grafana."""
    site = Site(gate, folder, first, moved)
    check, add, start = [re.sub(r"\s+# .*$", "", line) for line in of_page("sh")[0].strip().splitlines()]
    expect(site.run(check), "gateway.toml: valid", check)
    expect((site.run(add, PASSWORD), start), ("ada added", "rotogate"), add)
    expect(site.run(add.replace("ada", "bob").split(" --scopes")[0], PASSWORD), "bob added", "another user")
    (boss,) = re.findall(r"`(rotogate user add root [^`]+)`", (ROOT / PAGE).read_text().replace("\n", " "))
    expect(site.run(boss, PASSWORD), "root added", boss)
    with site:
        use(site, log_in, "ada", "bob")
        root = Browser(site.nginx)
        log_in(root, "/", "root")
        expect(root.user(), "admin", "the administrator of Grafana")


def log_in_as(browser, path, name, has_mapper=True):
    roles = {"roles": ["offline_access", *(["grafana"] if name == "ada" else [])]}
    Keycloak.user = {"sub": f"id-of-{name}", "preferred_username": name, **({"realm_access": roles} if has_mapper else {})}
    log_in_at_keycloak(browser, path)


def provider_login(gate, folder, moved, first, second):
    """The second configuration of the page, and what the page says of other settings of Keycloak."""
    changed, own = {**sections(first), **sections(second)}, sections(first)["[identity]"]
    for configuration in (changed, {**changed, "[identity]": own}):
        site = Site(gate, folder, "".join(configuration.values()), moved)
        (folder / "kc.secret").touch(mode=0o600)
        (folder / "kc.secret").write_text(Keycloak.secret)
        expect(site.run("rotogate check"), "gateway.toml: valid", "the second configuration")
        with site:
            if configuration is changed:
                led = use(site, log_in_as, "ada", "bob")
                expect(f"{Keycloak.url}/protocol/openid-connect/logout?" in led, True, f"the logout at Keycloak: {led}")
                without = Browser(site.nginx)
                log_in_as(without, "/", "ada", has_mapper=False)
                expect(without.user(), 403, "a user whose ID token has no roles")
            else:
                browser = Browser(site.nginx)
                log_in_as(browser, "/", "ada")
                expect(browser.user(), "kc|id-of-ada", "the user with the first [identity]")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gate", type=Path, required=True)
    gate = parser.parse_args().gate.resolve()
    moved = ports()
    Grafana.settings = configparser.ConfigParser()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        Keycloak.start(free_port(), Path(two))
        (ini,) = of_page("ini")
        Grafana.settings.read_string(here(ini, moved))
        serve(Grafana, int(moved["3000"]))
        # The stand-in believes whoever reaches it.
        expect(Browser(f"127.0.0.1:{moved['3000']}").user(headers={"X-WEBAUTH-USER": "admin"}), "admin", "Grafana alone")
        Grafana.received.clear()
        (first,), (second,) = of_page("toml"), of_page("toml,ignore")
        own_login(gate, Path(one), moved, first)
        Grafana.received.clear()
        provider_login(gate, Path(two), moved, first, second)
    print(f"grafana: users log in, and nobody else is somebody, by the files of {PAGE}")


if __name__ == "__main__":
    main()
