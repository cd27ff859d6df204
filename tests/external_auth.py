"""The external authorization of Gateway API (GEP-1494) in front of the gate's ext_authz: a part of tests/packages.py.

No implementation of Gateway API runs without a cluster. The manifests are held to the schemas of Gateway API, and Envoy runs what they
say: each rule is a route, the filter is ext_authz with nothing set but what GEP-1494 demands.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "packaging/kubernetes/external-auth"
PASSWORD = "correct horse battery staple"
HTTP = "type.googleapis.com/envoy.extensions.filters.http."
UPSTREAM_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# The schema of a filter takes unknown fields; a Gateway would ignore them.
FIELDS = {"type": None, "externalAuth": {"protocol": None, "backendRef": {"name": None, "namespace": None, "port": None}}}


def schema(target, documents):
    """What the schemas of Gateway API find wrong with its resources."""
    cache = target / "interop-cache/gateway-api"
    subprocess.run(["bash", ROOT / "tests/packages/install.sh", cache], check=True)
    shutil.copy(ROOT / "tests/packages/gateway_api.mjs", cache)
    ran = subprocess.run(["node", "gateway_api.mjs"], cwd=cache, input=json.dumps(documents), capture_output=True, text=True)
    return json.loads(ran.stdout) if ran.returncode == 0 else [ran.stderr.strip()]


def unknown(value, known):
    """The fields that nothing reads."""
    return [name for name in value if name not in known] + [
        field for name, entry in value.items() if known.get(name) for field in unknown(entry, known[name])
    ]


def external(rule):
    return next((filter["externalAuth"] for filter in rule.get("filters", []) if filter["type"] == "ExternalAuth"), None)


def references(by_kind):
    """What names what, across the namespaces."""
    route, grant, service, policy = (by_kind[kind] for kind in ("HTTPRoute", "ReferenceGrant", "Service", "NetworkPolicy"))
    wrong = []
    granted = {to["name"] for to in grant["spec"]["to"]}
    asked = [external(rule) for rule in route["spec"]["rules"]]
    if not any(asked):
        return ["no rule has the filter"]
    for reference in [backend for rule in route["spec"]["rules"] for backend in rule["backendRefs"]] + [one["backendRef"] for one in asked if one]:
        if "namespace" in reference and (reference["namespace"], reference["name"]) not in {(grant["metadata"]["namespace"], name) for name in granted}:
            wrong.append(f"the grant does not name {reference['name']}")
    (sender,) = grant["spec"]["from"]
    if sender["namespace"] != route["metadata"]["namespace"]:
        wrong.append("the grant is for another namespace than the route's")
    (port,) = service["spec"]["ports"]
    for one in filter(None, asked):
        if (one["backendRef"]["name"], one["backendRef"]["port"]) != (service["metadata"]["name"], port["port"]):
            wrong.append("the filter asks another Service")
    if port.get("appProtocol") != "kubernetes.io/h2c":
        wrong.append("the Service does not say that it speaks HTTP/2")
    if [ports["port"] for ports in policy["spec"]["ingress"][0]["ports"]] != [port["targetPort"]]:
        wrong.append("the NetworkPolicy does not open the port of the authorizer")
    wrong += [f"unknown field {name}" for rule in route["spec"]["rules"] for filter in rule.get("filters", []) for name in unknown(filter, FIELDS)]
    return wrong


def cluster(name, port, is_http2=False):
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    load = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
    http2 = {UPSTREAM_HTTP: {"@type": f"type.googleapis.com/{UPSTREAM_HTTP}", "explicit_http_config": {"http2_protocol_options": {}}}}
    return {"name": name, "load_assignment": load} | ({"typed_extension_protocol_options": http2} if is_http2 else {})


def envoy(route, listen, ports):
    """The configuration of Envoy for an HTTPRoute; `ports` has one for each Service."""
    routes, asked = [], None
    for rule in route["spec"]["rules"]:
        asked = external(rule) or asked
        for match in rule["matches"]:
            path = match["path"]
            kinds = {"Exact": "path", "PathPrefix": "prefix" if path["value"] == "/" else "path_separated_prefix"}
            one = {"match": {kinds[path["type"]]: path["value"]}, "route": {"cluster": rule["backendRefs"][0]["name"]}}
            if not external(rule):
                off = {"@type": f"{HTTP}ext_authz.v3.ExtAuthzPerRoute", "disabled": True}
                one["typed_per_filter_config"] = {"envoy.filters.http.ext_authz": off}
            routes.append(one)
    gate = asked["backendRef"]["name"]
    ask = {"@type": f"{HTTP}ext_authz.v3.ExtAuthz", "transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": gate}}}
    filters = [
        {"name": "envoy.filters.http.ext_authz", "typed_config": ask},
        {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{HTTP}router.v3.Router"}},
    ]
    host = {"name": "route", "domains": route["spec"]["hostnames"], "routes": routes}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "use_remote_address": True,
        "normalize_path": True,
        "http_filters": filters,
        "route_config": {"virtual_hosts": [host]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": listen}}
    clusters = [cluster(name, port, name == gate) for name, port in ports.items()]
    return {"static_resources": {"listeners": [{"name": "public", "address": address, "filter_chains": [chain]}], "clusters": clusters}}


class Application(BaseHTTPRequestHandler):
    """Answers with the headers that it received."""

    def do_GET(self):
        body = json.dumps([[name.lower(), value] for name, value in self.headers.items()]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def ask(port, path, headers=(), data=None):
    """Status, headers and body of a response; no status if there is none."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"host": "api.example.com", **dict(headers)})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
    except OSError:
        return None, {}, b""


def flow(expect, listen, kill_gate):
    """A client at the Gateway: refused, logged in, permitted, without its own identity headers; refused without a gate."""
    status, headers, _ = ask(listen, "/orders")
    expect((status, "Bearer" in headers.get("www-authenticate", "")) == (401, True), f"external auth: without a token: {status}")
    form = f"grant_type=password&client_id=web&username=ada&password={PASSWORD.replace(' ', '+')}".encode()
    status, _, answer = ask(listen, "/connect/token", data=form)
    if not expect(status == 200, f"external auth: the login: {status} {answer}"):
        return
    bearer = {"authorization": f"Bearer {json.loads(answer)['access_token']}"}
    status, _, answer = ask(listen, "/orders", bearer | {"x-auth-subject": "boss", "x-auth-roles": "admin", "remote-user": "boss"})
    if expect(status == 200, f"external auth: with a token: {status}"):
        seen = {}
        for name, value in json.loads(answer):
            seen.setdefault(name, []).append(value)
        expect(seen.get("x-auth-subject") == ["ada-1"], f"external auth: the subject {seen.get('x-auth-subject')}")
        unwanted = {"authorization", "x-auth-roles", "remote-user"} & set(seen)
        expect(not unwanted, f"external auth: the application received {sorted(unwanted)}")
    for path in ("/admin", "/orders/../admin", "//admin"):
        status, _, _ = ask(listen, path, bearer)
        expect(status in (400, 403), f"external auth: {path} without its scope: {status}")
    status, _, _ = ask(listen, "/.well-known/jwks.json")
    expect(status == 200, f"external auth: the keys: {status}")
    kill_gate()
    status, _, _ = ask(listen, "/orders", bearer)
    expect(status in (403, 503), f"external auth: without a gate: {status}")


def until_asked(listen, process):
    """Does Envoy answer, by the gate?"""
    for _ in range(600):
        if ask(listen, "/orders")[0] == 401:
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    return False


def check(expect, documents, gate, free_port):
    """All of it; `documents` are those of the folder, `expect` notes what is wrong."""
    by_kind = {document["kind"]: document for document in documents}
    target = gate.parent.parent
    ours = [document for document in documents if document["apiVersion"].startswith("gateway.networking")]
    wrong = schema(target, ours) + references(by_kind)
    if not expect(not wrong, f"external auth: {'; '.join(wrong)}"):
        return
    cache = target / "interop-cache/neighbours"
    subprocess.run(["bash", ROOT / "tests/neighbours/install.sh", cache], check=True)
    application = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    Thread(target=application.serve_forever, daemon=True).start()
    listen, public, admin, asked = (free_port() for _ in range(4))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        text = (FOLDER / "authorizer.toml").read_text().replace("0.0.0.0:8082", f"127.0.0.1:{asked}").replace("10.0.0.0/8", "127.0.0.1/32")
        (folder / "gateway.toml").write_text(configuration(public, admin) + text)
        add = [gate, "user", "add", "ada", "--subject", "ada-1", "--scopes", "read", "--stdin"]
        subprocess.run(add, cwd=folder, input=PASSWORD, text=True, capture_output=True, check=True)
        ports = {"rotogate": public, "rotogate-authorizer": asked, "app": application.server_port}
        (folder / "envoy.json").write_text(json.dumps(envoy(by_kind["HTTPRoute"], listen, ports)))
        with open(folder / "log", "w") as log:
            gating = subprocess.Popen([gate], cwd=folder, stdout=log, stderr=log)
            command = [cache / "bin/envoy-itself", "-c", "envoy.json", "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn"]
            proxy = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
        try:
            if expect(until_asked(listen, proxy), f"external auth: Envoy does not start: {(folder / 'log').read_text()}"):
                flow(expect, listen, lambda: (gating.kill(), gating.wait()))
        finally:
            for process in (proxy, gating):
                process.kill()
                process.wait()
            application.shutdown()


def configuration(public, admin):
    return f"""
[server]
listen = "127.0.0.1:{public}"
public_url = "https://api.example.com"
trusted_proxies = ["127.0.0.1/32"]
[admin]
listen = "127.0.0.1:{admin}"
[issuer]
audience = ["api"]
[store]
kind = "memory"
[directory]
kind = "file"
path = "users.toml"
[[clients]]
id = "web"
[[endpoints]]
dialect = "oauth2"
path = "/connect/token"
[[routes]]
path = "/admin"
scopes = ["admin"]
[[routes]]
path = "/{{*rest}}"
"""
