#!/usr/bin/env python3
"""Starts the deployment of this folder on one machine, and kills each part while clients refresh.

    try.py [--store redis|postgres] [--gate target/release/rotogate] [--clients 6] [--only PART ...] [--keep]

Three gates, their store and HAProxy run from the files of this folder on loopback ports, in a temporary folder. The store
is Redis or Valkey with two replicas and three Sentinels, or PostgreSQL with two standbys, of which this script promotes one as
an operator's tool would. Each part is killed (SIGKILL) and started again. A line for each says how many refreshes
succeeded, how many got another answer, and the longest time in which no client succeeded. Ends with 1 if a client had to
log in again, or a token was accepted after its logout was acknowledged. --keep leaves everything running instead.
"""

import argparse
import http.client
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"
NUMBERS = (1, 2, 3)
# How long something that must happen may take on a slow machine.
PATIENCE = 90
# The ports that were given out.
TAKEN = set()


def free_port():
    """A port that the kernel gives to no connection: a client could otherwise have that of a part that is being started
    again, and keep it for a minute after its end."""
    first_of_connections = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, first_of_connections)
        with socket.socket() as one:
            try:
                one.bind((LOOPBACK, port))
            except OSError:
                continue
        if port not in TAKEN:
            TAKEN.add(port)
            return port


def until(what, holds, explain=lambda: ""):
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"not within {PATIENCE} s: {what}{explain()}")
        time.sleep(0.05)


def program(name, package):
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    return path or sys.exit(f"{name} is missing: install it (apt install {package})")


class Part:
    """A process that can be killed and started again."""

    def __init__(self, name, command, folder, environment=None):
        self.name, self.command, self.folder = name, command, folder
        self.environment = {**os.environ, **(environment or {})}
        self.process = None

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self):
        if self.process is not None:
            # Those of its processes that would outlive it, too: as if its machine were gone.
            first = self.process.pid
            others = Path(f"/proc/{first}/task/{first}/children").read_text()
            for pid in [first, *map(int, others.split())]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()
            self.process = None


class Deployment:
    """What the files of this folder describe, on one machine: their names and ports become those of loopback. The store is
    that of a subclass."""

    # What has a port for itself, besides gates and HAProxy.
    kinds = ()

    def __init__(self, root, gate):
        self.root, self.gate = root, str(gate)
        self.ports = {}
        names = ["haproxy"] + [f"{kind}-{n}" for kind in ("gate", "admin", *self.kinds) for n in NUMBERS]
        for name in names:
            self.ports[name] = free_port()
        self.passwords = {name: secrets.token_urlsafe(24) for name in ("GATE", "REPLICA", "SENTINEL", "ADMIN")}
        self.user_password = secrets.token_urlsafe(24)
        self.parts = {}

    def text(self, file, number=1):
        """A file of this folder, for one of the machines."""
        text = (HERE / file).read_text()
        port = self.ports
        changes = {
            "bind 0.0.0.0:80\n": f"bind {LOOPBACK}:{port['haproxy']}\n",
            "0.0.0.0:8080": f"{LOOPBACK}:{port[f'gate-{number}']}",
            "0.0.0.0:8081": f"{LOOPBACK}:{port[f'admin-{number}']}",
            "10.0.0.2": LOOPBACK,
        }
        for n in NUMBERS:
            changes[f"gate-{n}.internal:8080 check port 8081"] = (
                f"{LOOPBACK}:{port[f'gate-{n}']} check port {port[f'admin-{n}']}"
            )
        changes |= self.changes_of_store(number)
        for name, password in self.passwords.items():
            changes[f"{name}_PASSWORD"] = password
        for old, new in changes.items():
            text = text.replace(old, new)
        return text

    def add(self, name, command, files, environment=None):
        folder = self.root / name
        folder.mkdir(mode=0o700)
        for file, text in files.items():
            (folder / file).write_text(text)
            (folder / file).chmod(0o600)
        self.parts[name] = Part(name, command, folder, environment)

    def start(self):
        self.start_store()
        self.start_gates()
        command = [program("haproxy", "haproxy"), "-db", "-f", "haproxy.cfg"]
        self.add("haproxy", command, {"haproxy.cfg": self.text("haproxy.cfg")})
        self.parts["haproxy"].start()
        until("all parts work", self.is_whole, self.missing)

    def start_gates(self):
        for n in NUMBERS:
            # The clients of this trial refresh more often than a user's would.
            often = {f"ROTOGATE_LIMITS__{name}": "100000/1s" for name in ("REFRESH_PER_SESSION", "REFRESH_PER_ADDRESS")}
            often |= {f"ROTOGATE_LIMITS__LOGIN_PER_{name}": "1000/1s" for name in ("ADDRESS", "ACCOUNT")}
            files = {"gateway.toml": self.gateway(n), "store.pw": self.passwords["GATE"]}
            self.add(f"gate-{n}", [self.gate, "serve"], files, often)
        first = self.parts["gate-1"]
        subprocess.run(
            [self.gate, "user", "add", "try", "--stdin"],
            cwd=first.folder, input=self.user_password + "\n", text=True, check=True, stdout=subprocess.DEVNULL,
        )
        # The first gate makes the keys, the others get a copy.
        first.start()
        until("the first gate is ready", lambda: self.is_ready("gate-1"))
        for n in NUMBERS[1:]:
            folder = self.parts[f"gate-{n}"].folder
            shutil.copytree(first.folder / "keys", folder / "keys")
            shutil.copy(first.folder / "users.toml", folder / "users.toml")
            self.parts[f"gate-{n}"].start()

    def is_ready(self, name):
        try:
            connection = http.client.HTTPConnection(LOOPBACK, self.ports[name.replace("gate", "admin")], timeout=2)
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            return answer.status == 200 and b"degraded" not in answer.read()
        except (OSError, http.client.HTTPException):
            return False

    def is_whole(self):
        return (
            self.is_store_whole()
            and all(self.is_ready(f"gate-{n}") for n in NUMBERS)
            and ask(self.ports["haproxy"], "GET", "/")[0] == 401
        )

    def missing(self):
        """What does not work, and the end of its log."""
        said = "" if self.is_store_whole() else "\nthe store is not whole"
        for name, part in self.parts.items():
            ended = part.process is not None and part.process.poll() is not None
            if ended or (name.startswith("gate") and not self.is_ready(name)):
                log = (part.folder / "log").read_text(errors="replace").splitlines()[-20:]
                said += "\n".join([f"\n{name}{' has ended' if ended else ' is not ready'}:", *log])
        return said

    def gateway(self, number):
        return self.text("gateway.toml", number)

    def start_again(self, name):
        self.parts[name].start()

    def after_kill(self, name):
        """What an operator's tool does when a part fails."""

    def stop(self):
        for part in self.parts.values():
            part.kill()


class OnRedis(Deployment):
    kinds = ("redis", "sentinel")
    other_parts = ["sentinel-1", "a replica", "the primary"]

    def changes_of_store(self, number):
        port = self.ports
        changes = {
            "replica-announce-ip redis-1.internal": f"replica-announce-ip {LOOPBACK}",
            "bind 0.0.0.0\n": f"bind {LOOPBACK}\n",
            "port 6379\n": f"port {port[f'redis-{number}']}\n",
            "port 26379\n": f"port {port[f'sentinel-{number}']}\n",
        }
        for n in NUMBERS:
            changes[f"redis-{n}.internal:26379"] = f"{LOOPBACK}:{port[f'sentinel-{n}']}"
            changes[f"redis-{n}.internal 6379"] = f"{LOOPBACK} {port[f'redis-{n}']}"
        return changes

    def start_store(self):
        server = program("redis-server", "redis-server")
        for n in NUMBERS:
            command = [server, "redis.conf"]
            text = self.text("redis.conf", n)
            if n > 1:
                text += f"replicaof {LOOPBACK} {self.ports['redis-1']}\n"
            self.add(f"redis-{n}", command, {"redis.conf": text, "users.acl": self.text("users.acl")})
            self.parts[f"redis-{n}"].start()
        until("the servers answer", lambda: all(self.redis(f"redis-{n}", "PING") == "PONG" for n in NUMBERS))
        for n in NUMBERS:
            self.add(f"sentinel-{n}", [server, "sentinel.conf", "--sentinel"], {"sentinel.conf": self.text("sentinel.conf", n)})
            self.parts[f"sentinel-{n}"].start()
        until("the Sentinels know each other and the replicas", self.are_sentinels_whole)
        until("the replicas follow", self.are_replicas_online)

    def redis(self, name, *words):
        """What redis-cli says, or nothing."""
        environment = {**os.environ, "REDISCLI_AUTH": self.passwords["ADMIN"]}
        user = ["--user", "admin"] if name.startswith("redis") else []
        command = [program("redis-cli", "redis-tools"), "-h", LOOPBACK, "-p", str(self.ports[name]), *user, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def primary(self):
        for n in NUMBERS:
            said = self.redis(f"sentinel-{n}", "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main").splitlines()
            for name, port in self.ports.items():
                if len(said) == 2 and said[1] == str(port):
                    return name
        return None

    def are_sentinels_whole(self):
        def is_whole(n):
            said = self.redis(f"sentinel-{n}", "SENTINEL", "MASTER", "main").splitlines()
            fields = dict(zip(said[::2], said[1::2]))
            return fields.get("num-slaves") == "2" and fields.get("num-other-sentinels") == "2" and fields.get("flags") == "master"

        return all(is_whole(n) for n in NUMBERS)

    def are_replicas_online(self):
        primary = self.primary()
        return primary is not None and self.redis(primary, "INFO", "replication").count("state=online") == 2

    def is_store_whole(self):
        return self.are_sentinels_whole() and self.are_replicas_online()

    def name_of(self, part):
        primary = self.primary()
        replica = next(name for name in ("redis-1", "redis-2", "redis-3") if name != primary)
        return {"a replica": replica, "the primary": primary}.get(part, part)


class OnPostgres(Deployment):
    """One primary, and two standbys of which one has each commit before it is acknowledged."""

    kinds = ("db",)
    other_parts = ["a standby", "the primary"]
    # initdb and postgres refuse to run as root.
    nobody = 65534

    def __init__(self, root, gate):
        super().__init__(root, gate)
        self.primary = "db-1"
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        self.bin = folders[-1] if folders else Path(program("initdb", "postgresql")).resolve().parent
        root.chmod(0o711)

    def changes_of_store(self, number):
        changes = {"listen_addresses = '0.0.0.0'": f"listen_addresses = '{LOOPBACK}'",
                   "port = 5432\n": f"port = {self.ports[f'db-{number}']}\n",
                   # It is for connections to other machines.
                   'ca = "db-ca.pem"': '# ca = "db-ca.pem"'}
        for n in NUMBERS:
            changes[f"db-{n}.internal"] = f"{LOOPBACK}:{self.ports[f'db-{n}']}"
        return changes

    def gateway(self, number):
        before, rest = self.text("gateway.toml", number).split("# The store: ")
        return before + self.text("store-postgres.toml", number) + "\n[[clients]]" + rest.split("[[clients]]", 1)[1]

    def unprivileged(self, command):
        if os.geteuid() != 0:
            return [str(word) for word in command]
        user = [f"--reuid={self.nobody}", f"--regid={self.nobody}", "--clear-groups"]
        return [program("setpriv", "util-linux"), *user, *(str(word) for word in command)]

    def run(self, name, *command):
        folder = self.parts[name].folder
        environment = {**os.environ, "PGPASSWORD": self.passwords["ADMIN"]}
        done = subprocess.run(self.unprivileged(command), cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{command[0]}: {done.stderr}")

    def sql(self, name, statement):
        """What psql says, or nothing."""
        url = f"postgres://postgres@{LOOPBACK}:{self.ports[name]}/postgres?connect_timeout=2"
        environment = {**os.environ, "PGPASSWORD": self.passwords["ADMIN"]}
        command = [self.bin / "psql", "-qAtX", "-d", url, "-c", statement]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.strip()

    def start_store(self):
        for n in NUMBERS:
            name = f"db-{n}"
            command = self.unprivileged([self.bin / "postgres", "-D", "data", "-c", "unix_socket_directories="])
            self.add(name, command, {"admin.pw": self.passwords["ADMIN"], "rotogate.conf": self.text("postgresql.conf", n)})
            folder = self.parts[name].folder
            if os.geteuid() == 0:
                for path in (folder, *folder.iterdir()):
                    os.chown(path, self.nobody, self.nobody)
        options = ["--username=postgres", "--auth=scram-sha-256", "--pwfile=admin.pw", "--encoding=UTF8", "--locale=C"]
        self.run("db-1", self.bin / "initdb", "--no-sync", *options, "--pgdata=data")
        self.configure("db-1")
        self.parts["db-1"].start()
        until("the first server answers", lambda: self.sql("db-1", "select 1") == "1")
        for name in ("db-2", "db-3"):
            self.follow(name)
        until("the standbys follow", self.is_store_whole)
        self.sql("db-1", f"create role gate login password '{self.passwords['GATE']}'")
        self.sql("db-1", "create database rotogate owner gate")

    def configure(self, name):
        folder = self.parts[name].folder
        with open(folder / "data" / "postgresql.conf", "a") as file:
            file.write(f"\ninclude '{folder / 'rotogate.conf'}'\n")

    def conninfo(self, name):
        own = name.replace("-", "_")
        return (f"host={LOOPBACK} port={self.ports[self.primary]} user=postgres password={self.passwords['ADMIN']} "
                f"application_name={own}")

    def follow(self, name):
        """Begins anew as a standby of the primary."""
        folder = self.parts[name].folder
        shutil.rmtree(folder / "data", ignore_errors=True)
        copy = ["--checkpoint=fast", "--no-sync", "--pgdata=data", f"--dbname={self.conninfo(name)}"]
        self.run(name, self.bin / "pg_basebackup", *copy)
        # The copy has the primary's line, which names the primary's file.
        main = folder / "data" / "postgresql.conf"
        main.write_text("".join(line for line in main.read_text().splitlines(True) if not line.startswith("include '/")))
        self.configure(name)
        (folder / "data" / "postgresql.auto.conf").write_text(f"primary_conninfo = '{self.conninfo(name)}'\n")
        (folder / "data" / "standby.signal").touch()
        self.parts[name].start()

    def is_store_whole(self):
        streaming = "select count(*) from pg_stat_replication where state = 'streaming' and sync_state = 'quorum'"
        return self.sql(self.primary, streaming) == "2"

    def name_of(self, part):
        standby = next(f"db-{n}" for n in NUMBERS if f"db-{n}" != self.primary)
        return {"a standby": standby, "the primary": self.primary}.get(part, part)

    def after_kill(self, name):
        if name != self.primary:
            return
        # As Patroni does: the standby that has most becomes the primary, and the others follow it.
        standbys = [f"db-{n}" for n in NUMBERS if f"db-{n}" != name]
        end = "select pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')"
        self.primary = max(standbys, key=lambda one: int(self.sql(one, end)))
        self.run(self.primary, self.bin / "pg_ctl", "promote", "-D", "data")
        for one in standbys:
            if one != self.primary:
                self.sql(one, f"alter system set primary_conninfo = '{self.conninfo(one)}'")
                self.sql(one, "select pg_reload_conf()")

    def start_again(self, name):
        if not name.startswith("db-") or (self.parts[name].folder / "data" / "standby.signal").exists():
            self.parts[name].start()
        else:
            self.follow(name)


def ask(port, method, path, form=None, access=None):
    """Status, body and Retry-After; status 0 if no answer came."""
    headers = {"Host": "api.example.com"}
    if access:
        headers["Authorization"] = f"Bearer {access}"
    body = None
    if form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = urllib.parse.urlencode({"client_id": "web", **form})
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), float(answer.getheader("Retry-After") or 0)
    except (OSError, http.client.HTTPException):
        return 0, b"", 0.0
    finally:
        connection.close()


class Clients:
    """Each logs in once and refreshes from then on. What is not answered, or 5xx, is sent again with the same token."""

    def __init__(self, port, password, number):
        self.port, self.password = port, password
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.lost = []
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(number)]
        self.tokens = [self.log_in() for _ in self.threads]
        self.reset()
        for thread in self.threads:
            thread.start()

    def reset(self):
        with self.lock:
            self.refreshed = [0] * len(self.threads)
            self.others = {}
            self.latest = time.monotonic()
            self.longest = 0.0

    def log_in(self):
        form = {"grant_type": "password", "username": "try", "password": self.password}
        while True:
            status, body, pause = ask(self.port, "POST", "/connect/token", form)
            if status == 200:
                return json.loads(body)
            if status in (400, 401):
                sys.exit(f"the login is refused: {body.decode()}")
            time.sleep(min(pause, 1) or 0.1)

    def run(self, n):
        while not self.stopping.is_set():
            form = {"grant_type": "refresh_token", "refresh_token": self.tokens[n]["refresh_token"]}
            status, body, pause = ask(self.port, "POST", "/connect/token", form)
            with self.lock:
                if status == 200:
                    now = time.monotonic()
                    self.longest, self.latest = max(self.longest, now - self.latest), now
                    self.tokens[n] = json.loads(body)
                    self.refreshed[n] += 1
                elif status in (400, 401):
                    self.lost.append(body.decode())
                    return
                else:
                    name = str(status or "no answer")
                    self.others[name] = self.others.get(name, 0) + 1
            # As a client does that was told to come again.
            self.stopping.wait(0.01 if status == 200 else min(pause, 1) or 0.1)

    def go_on(self, times):
        """Waits until each client has refreshed so many times more."""
        with self.lock:
            before = list(self.refreshed)
        until("all clients refresh", lambda: self.lost or all(now >= then + times for now, then in zip(self.refreshed, before)))

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


def check_logout(deployment, clients):
    """Logs out until that is acknowledged. From then on no gate accepts the token once `staleness` is past."""
    tokens = clients.log_in()
    while ask(clients.port, "POST", "/connect/revocation", {"token": tokens["refresh_token"]})[0] != 200:
        time.sleep(0.1)
    acknowledged = time.monotonic()

    def accepts():
        statuses = [ask(clients.port, "GET", "/", access=tokens["access_token"])[0] for _ in range(6)]
        return any(status == 200 for status in statuses)

    # staleness, 2 s, is the bound; a request that was sent before it counts.
    while time.monotonic() < acknowledged + 2:
        time.sleep(0.05)
    return not accepts() and ask(clients.port, "POST", "/connect/token",
                                 {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]})[0] in (400, 503)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=["redis", "postgres"], default="redis")
    parser.add_argument("--gate", type=Path, default=HERE.parents[2] / "target/release/rotogate")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--only", nargs="+", metavar="PART")
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    gate = given.gate.resolve()
    if not gate.exists():
        sys.exit(f"{gate} is missing: build it (cargo build --release -p rotogate-server --features full), or name it with --gate")
    with tempfile.TemporaryDirectory(prefix="three-gates-") as root:
        deployment = {"redis": OnRedis, "postgres": OnPostgres}[given.store](Path(root), gate)
        try:
            deployment.start()
            if given.keep:
                keep(deployment)
            else:
                sys.exit(kill_each(deployment, given))
        finally:
            deployment.stop()


def keep(deployment):
    print(f"http://{LOOPBACK}:{deployment.ports['haproxy']}/ for Host api.example.com; user try, password {deployment.user_password}")
    print(f"everything is in {deployment.root}; Ctrl-C stops it and removes the folder")
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass


def kill_each(deployment, given):
    clients = Clients(deployment.ports["haproxy"], deployment.user_password, given.clients)
    is_good = True
    print(f"{'killed':<22}{'refreshes':>10}{'longest pause':>15}   other answers")
    for part in given.only or [*(f"gate-{n}" for n in NUMBERS), *deployment.other_parts, "haproxy"]:
        clients.go_on(10)
        name = deployment.name_of(part)
        clients.reset()
        deployment.parts[name].kill()
        deployment.after_kill(name)
        if name != "haproxy":
            # What stays goes on without it.
            clients.go_on(20)
            holds = check_logout(deployment, clients)
        deployment.start_again(name)
        until("all parts work again", deployment.is_whole, deployment.missing)
        clients.go_on(20)
        if name == "haproxy":
            holds = check_logout(deployment, clients)
        with clients.lock:
            others = ", ".join(f"{count} x {status}" for status, count in sorted(clients.others.items()))
            row = f"{part if part == name else f'{part} ({name})':<22}{sum(clients.refreshed):>10}{clients.longest:>13.2f} s   {others or 'none'}"
        print(row, flush=True)
        if not holds:
            print("a token was accepted after its logout was acknowledged")
        is_good = is_good and holds and not clients.lost
        if clients.lost:
            break
    clients.stop()
    print(f"clients that had to log in again: {len(clients.lost)} of {given.clients}", *clients.lost, sep="\n")
    return 0 if is_good else 1


if __name__ == "__main__":
    main()
