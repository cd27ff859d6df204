#!/usr/bin/env python3
"""What a distant store costs: two gates on Redis, and a link between them that delays every piece.

    cargo build -p rotogate-server && python3 benches/nodes/distance.py target/debug/rotogate

prints a table: the median times of a login, a refresh and a logout, less those without a delay, and how soon a revocation at one gate
is known at the other, each in round trips too; and which part of good tokens is refused with a staleness of so many round trips.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from pathlib import Path

CONFIG = """
[server]
listen = "127.0.0.1:0"
public_url = "http://gate.test"
[admin]
listen = "127.0.0.1:0"
[issuer]
audience = ["api"]
[limits]
login_per_address = "1000/1s"
login_per_account = "1000/1s"
refresh_per_session = "1000/1s"
[store]
kind = "redis"
urls = ["redis://127.0.0.1:{port}"]
staleness = "{staleness}ms"
[[clients]]
id = "web"
[[endpoints]]
dialect = "oauth2"
path = "/{{account}}/connect/token"
[[upstreams]]
name = "app"
urls = ["echo:"]
[[routes]]
path = "/{{*rest}}"
upstream = "app"
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Link:
    """Each piece arrives so many seconds after it was sent, in order."""

    def __init__(self, port):
        self.port, self.delay = port, 0.0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.own = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.port))
            for one, other in ((client, server), (server, client)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pieces, arrived = deque(), threading.Semaphore(0)
                threading.Thread(target=self.take, args=(one, pieces, arrived), daemon=True).start()
                threading.Thread(target=self.give, args=(other, pieces, arrived), daemon=True).start()

    def take(self, source, pieces, arrived):
        while True:
            try:
                piece = source.recv(65536)
            except OSError:
                piece = b""
            pieces.append((time.monotonic() + self.delay, piece))
            arrived.release()
            if not piece:
                return

    @staticmethod
    def give(target, pieces, arrived):
        while True:
            arrived.acquire()
            due, piece = pieces.popleft()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if not piece:
                    target.close()
                    return
                target.sendall(piece)
            except OSError:
                return


class Gate:
    def __init__(self, program, place, port, staleness):
        (place / "gateway.toml").write_text(CONFIG.format(port=port, staleness=staleness))
        self.process = subprocess.Popen([program, "--json"], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        greeting = json.loads(self.process.stdout.readline())
        self.url = f"http://{greeting['listening'][0]}"
        self.password = greeting.get("first_user", {}).get("password")

    def call(self, path, form=None, token=None):
        headers = {"Host": "gate.test"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = urllib.parse.urlencode(form | {"client_id": "web"}).encode() if form else None
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers)) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as answer:
            return answer.code, b""

    def token(self, **form):
        status, body = self.call("/connect/token", form)
        assert status == 200, (status, form)
        return json.loads(body)

    def end(self):
        self.process.terminate()
        self.process.wait()


def timed(work):
    begun = time.monotonic()
    result = work()
    return time.monotonic() - begun, result


def measure(a, b, password, rounds):
    login = lambda: a.token(grant_type="password", username="demo", password=password)
    times = {name: [] for name in ("login", "refresh here", "refresh elsewhere", "logout", "spread")}
    for _ in range(rounds):
        took, tokens = timed(login)
        times["login"].append(took)
        for name, gate in (("refresh here", a), ("refresh elsewhere", b)):
            refresh = tokens["refresh_token"]
            took, tokens = timed(lambda: gate.token(grant_type="refresh_token", refresh_token=refresh))
            times[name].append(took)
        access = tokens["access_token"]
        assert b.call("/x", token=access)[0] == 200
        took, _ = timed(lambda: a.call("/connect/revocation", {"token": tokens["refresh_token"]}))
        times["logout"].append(took)
        # From the acknowledgement on. The store had it half a round trip before.
        begun = time.monotonic()
        while b.call("/x", token=access)[0] == 200:
            time.sleep(0.001)
        times["spread"].append(time.monotonic() - begun)
    return times


def start_all(program, places, link, staleness, password):
    gates = [Gate(program, place, link.own, staleness) for place in places[:1]]
    if not (places[1] / "data").exists():
        subprocess.run(["cp", "-a", f"{places[0]}/data", f"{places[1]}/data"], check=True)
        (places[1] / "data/store.mark").unlink(missing_ok=True)
    gates.append(Gate(program, places[1], link.own, staleness))
    return gates, gates[0].password or password


def main():
    program = os.path.abspath(sys.argv[1])
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        redis = subprocess.Popen(
            ["redis-server", "--port", str(port), "--save", "", "--dir", folder, "--maxmemory-policy", "noeviction"],
            stdout=subprocess.DEVNULL,
        )
        time.sleep(1)
        places = [Path(folder) / name for name in ("a", "b")]
        for place in places:
            place.mkdir(mode=0o700)
        link, password, base = Link(port), None, None
        print("| round trip | login | refresh here | refresh elsewhere | logout | spread: median | longest |")
        for ms in (0, 10, 50, 100):
            link.delay = ms / 2000
            (a, b), password = start_all(program, places, link, 2000, password)
            for gate in (a, b):
                gate.token(grant_type="password", username="demo", password=password)
            times = measure(a, b, password, rounds)
            middle = {name: statistics.median(all_of) for name, all_of in times.items()}
            base = base or middle
            cells = []
            for name in ("login", "refresh here", "refresh elsewhere", "logout"):
                more = (middle[name] - base[name]) * 1000
                cells.append(f"{more:.0f} ms ({more / ms:.1f})" if ms else f"{middle[name] * 1000:.0f} ms")
            for spread in (middle["spread"], max(times["spread"])):
                cells.append(f"{spread * 1000:.0f} ms" + (f" ({spread * 1000 / ms:.1f})" if ms else ""))
            print(f"| {ms} ms | {' | '.join(cells)} |", flush=True)
            for gate in (a, b):
                gate.end()
        print("| round trips in the staleness | refused |")
        for factor in (2, 3, 4, 5, 8):
            # The shortest staleness is 500 ms.
            link.delay = 0.6 / factor / 2
            (a, b), password = start_all(program, places, link, 600, password)
            # While the gate has not heard of the store lately, a login is refused, too.
            access, until = None, time.monotonic() + 20
            while not access and time.monotonic() < until:
                form = {"grant_type": "password", "username": "demo", "password": password}
                status, body = a.call("/connect/token", form)
                access = json.loads(body)["access_token"] if status == 200 else None
            refused, number, until = 0, 0, time.monotonic() + 10
            while access and time.monotonic() < until:
                number += 1
                refused += a.call("/x", token=access)[0] == 503
                time.sleep(0.01)
            told = f"{100 * refused / number:.0f} % of {number}" if number else "no login within 20 s"
            print(f"| {factor} | {told} |", flush=True)
            for gate in (a, b):
                gate.end()
        redis.terminate()


if __name__ == "__main__":
    main()
