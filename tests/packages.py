#!/usr/bin/env python3
"""The packages: what of them can be proved without a cluster, a registry and systemd as process 1.

    tests/packages.py --gate target/debug/rotogate           part of tests/all.sh
    tests/packages.py --gate target/x86_64-unknown-linux-musl/dist/rotogate --only static    after release.sh --static
    tests/packages.py --gate … --require-image               fails, instead of saying so, where no image can be built

- Kubernetes: each manifest by the schemas of Kubernetes (kubernetes-validate from PyPI, in an environment of its own), and what of
  the chart it refers to, by rules of our own.
- External auth: Gateway API's filter in front of the gate, by its schemas and by Envoy (tests/external_auth.py).
- Helm: the chart, linted and rendered by Helm's own code (helm-python-sdk from PyPI has Helm v4 as a library; the program `helm` is not
  run), by the schemas of Kubernetes, by rules for security settings and for what refers to what, and by `rotogate check` of the rendered
  configuration. With the values of its README it renders tests/packages/chart.yaml.
- Compose: the services, and every file that they mount; nginx, Prometheus and rotogate judge their own configurations.
- systemd: `systemd-analyze verify`, and a gate that takes its socket from systemd-socket-activate.
- Debian: every asset exists; the package is built, installed, upgraded below a gate that serves, removed and purged in a root of its
  own by dpkg. systemctl is a stand-in there.
- The image: its last stage is built by buildah on a base made of this machine's C library, and run as its user with a
  read-only root, where buildah is there and may.
"""

import argparse
import glob
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import tomllib
import urllib.request
import venv
from pathlib import Path

sys.dont_write_bytecode = True
import external_auth  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
# The chart with the values of its README.
CHART = ROOT / "tests/packages/chart.yaml"
PASSWORD = "correct horse battery staple"
PINNED = ["helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0", "PyYAML==6.0.3"]
problems = []


def expect(holds, what):
    if not holds:
        problems.append(what)
    return holds


def run(*command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)


def said(ran):
    return (ran.stdout + ran.stderr).strip()


def environment(target):
    """A Python with the pinned packages; made at the first run."""
    folder = target / "interop-cache" / "packages"
    python = folder / "bin/python3"
    stamp = folder / "pinned"
    if not (stamp.exists() and stamp.read_text() == "\n".join(PINNED)):
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINNED], check=True)
        stamp.write_text("\n".join(PINNED))
    return python


def documents(python, files):
    """The YAML documents of files, by the environment's parser: (file, document)."""
    reader = "import sys, json, yaml\nfor f in sys.argv[1:]:\n  print(json.dumps([f, list(yaml.safe_load_all(open(f)))]))"
    lines = run(python, "-c", reader, *files, check=True).stdout.splitlines()
    return [(Path(file), document) for file, all_of in map(json.loads, lines) for document in all_of]


# Kubernetes


def validate(python, files):
    """Each manifest by the schemas of Kubernetes. They do not have these."""
    custom = {"ServiceMonitor", "HTTPRoute", "ReferenceGrant"}
    for file in files:
        ran = run(python.parent / "kubernetes-validate", "--strict", file)
        unknown = {word for word in custom if f"kind {word} " in said(ran)}
        expect(ran.returncode == 0 or unknown, f"{file}: {said(ran)}")
        expect("WARN" not in said(ran) or unknown, f"{file}: {said(ran)}")


def kubernetes(python, gate):
    """The manifests that stand on the chart, beside its recorded rendering."""
    files = sorted((PACKAGING / "kubernetes").rglob("*.yaml"))
    validate(python, files)
    shown = {}
    for file, document in documents(python, [*files, CHART]):
        shown.setdefault(file.parent.name, {})[document["kind"], document["metadata"]["name"]] = document
    chart = shown["packages"]
    services = {name: document for (kind, name), document in chart.items() if kind == "Service"}
    (route,) = shown["gateway-api"].values()
    expect(route["metadata"]["namespace"] == "rotogate", "gateway-api: namespace")
    routed(route, services)
    for wrong in external_auth.schema(gate.parent.parent, [route]):
        problems.append(f"gateway-api: {wrong}")
    asking = shown["external-auth"]
    labels = chart["Deployment", "rotogate"]["spec"]["template"]["metadata"]["labels"]
    selectors = [asking["Service", "rotogate-authorizer"]["spec"]["selector"], asking["NetworkPolicy", "rotogate-authorizer"]["spec"]["podSelector"]["matchLabels"]]
    for selector in selectors:
        expect(selector and selector.items() <= labels.items(), f"external-auth: {selector} selects no pod of the chart")
    for rule in asking["HTTPRoute", "app"]["spec"]["rules"]:
        for backend in rule["backendRefs"]:
            ports = {port["port"] for port in services[backend["name"]]["spec"]["ports"]} if backend.get("namespace") == "rotogate" else {backend["port"]}
            expect(backend["port"] in ports, f"external-auth: no such port of {backend['name']}")
    config = chart["ConfigMap", "rotogate"]["data"]["gateway.toml"]
    checked_configuration(gate, "kubernetes/external-auth", f"{config}\n{(external_auth.FOLDER / 'authorizer.toml').read_text()}")


# Custom resources: no schema is at hand, so what they refer to.


def monitored(monitor, service, labels, text):
    """A ServiceMonitor, the Service with these labels, and the configuration."""
    viewers = [Path(token["file"]).name for token in tomllib.loads(text)["admin"]["tokens"] if token["role"] == "viewer"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    expect(set(wanted.items()) <= set(labels.items()), "ServiceMonitor: its selector matches no Service")
    ports = {port["name"] for port in service["spec"]["ports"]}
    for endpoint in monitor["spec"]["endpoints"]:
        expect(set(endpoint) == {"port", "path", "interval", "authorization"}, f"ServiceMonitor: keys {sorted(endpoint)}")
        expect(endpoint["port"] in ports and endpoint["path"] == "/metrics", "ServiceMonitor: no such port")
        # Prometheus sends the token to each pod, and who reads its configuration has the token.
        key = endpoint["authorization"]["credentials"]["key"]
        expect([key] == viewers, f"ServiceMonitor: {key} is not the token of the viewer")
    expect(monitor["apiVersion"] == "monitoring.coreos.com/v1", "ServiceMonitor: apiVersion")


def routed(route, services):
    """An HTTPRoute, and the Services by their names."""
    expect(route["apiVersion"] == "gateway.networking.k8s.io/v1", "HTTPRoute: apiVersion")
    for rule in route["spec"]["rules"]:
        for backend in rule["backendRefs"]:
            ports = {port["port"] for port in services[backend["name"]]["spec"]["ports"]}
            expect(backend["port"] in ports, "HTTPRoute: no such port of the Service")


def workload(name, together, text):
    """The security settings, and what names what; `text` is the configuration."""
    by_kind = {}
    for document in together:
        by_kind.setdefault(document["kind"], []).append(document)
    (pods,) = by_kind["Deployment"]
    pod = pods["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    what = f"{name}: "
    of_pod, of_container = pod["securityContext"], container["securityContext"]
    expect(of_pod["runAsNonRoot"] is True and of_pod["runAsUser"] >= 10000 and of_pod["fsGroup"], what + "user")
    expect(of_pod["seccompProfile"]["type"] == "RuntimeDefault", what + "seccomp")
    expect(of_container["readOnlyRootFilesystem"] is True, what + "the root can be written")
    expect(of_container["allowPrivilegeEscalation"] is False, what + "privileges can be gained")
    expect(of_container["capabilities"] == {"drop": ["ALL"]}, what + "capabilities")
    expect(pod["automountServiceAccountToken"] is False, what + "a token of the API server is mounted")
    expect(pod["enableServiceLinks"] is False, what + "variables of Services reach the gate")
    expect(container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"], what + "resources")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    config = tomllib.loads(text)
    of_config = {"http": config["server"]["listen"], "admin": config["admin"]["listen"], "probes": config["admin"]["probes"]}
    for port, address in of_config.items():
        expect(address == f"0.0.0.0:{ports[port]}", f"{what}port {port} is not that of gateway.toml")
    for probe, path in (("startupProbe", "/readyz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        asked = container[probe]["httpGet"]
        expect(asked == {"path": path, "port": "probes"}, f"{what}{probe} asks {asked}")
    drain = config["server"].get("drain_timeout", "30s")
    stop = int(drain.removesuffix("s")) + container["lifecycle"]["preStop"]["sleep"]["seconds"]
    expect(pod["terminationGracePeriodSeconds"] > stop, what + "the pod is killed before the gate has drained")
    # A Secret is a file for the user of the pod alone, and no variable.
    expect(not any("valueFrom" in variable for variable in container["env"]), what + "a secret in a variable")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for volume in volumes.values():
        if "secret" in volume:
            expect(volume["secret"]["defaultMode"] in (0o400, 400), f"{what}{volume['name']}: the mode of a Secret")
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    expect(set(mounts) == set(volumes), f"{what}mounts {sorted(mounts)}, volumes {sorted(volumes)}")
    at = {mount["mountPath"]: mount for mount in mounts.values()}
    files = [config["admin"]["token_file"], config["issuer"]["keys"], config["store"]["mark"]]
    files += [token["file"] for token in config["admin"]["tokens"]]
    files += [config["directory"]["path"]] if "path" in config.get("directory", {}) else []
    files += [config["store"][key] for key in ("path", "password_file") if key in config["store"]]
    for file in files:
        expect(any(Path(file).is_relative_to(path) for path in at), f"{what}{file} is on no volume")
    writable = {path for path, mount in at.items() if not mount.get("readOnly")}
    expect(writable == {"/var/lib/rotogate"}, f"{what}writable: {sorted(writable)}")
    scalers = by_kind.get("HorizontalPodAutoscaler", [])
    replicas = pods["spec"].get("replicas") or scalers[0]["spec"]["minReplicas"]
    for budget in by_kind["PodDisruptionBudget"]:
        expect("maxUnavailable" in budget["spec"] or replicas > budget["spec"]["minAvailable"], what + "budget")
    (policy,) = by_kind["NetworkPolicy"]
    open_to_all = [port["port"] for rule in policy["spec"]["ingress"] if "from" not in rule for port in rule["ports"]]
    expect(set(open_to_all) <= {"http"}, f"{what}ports that everyone reaches: {open_to_all}")
    for service in by_kind["Service"]:
        for port in service["spec"]["ports"]:
            expect(port["targetPort"] in ports, f"{what}Service {service['metadata']['name']}: no port {port['targetPort']}")
    expect(replicas > 1 and config["store"]["kind"] != "redb", what + "a store that gates share")


def checked_configuration(gate, name, text):
    """`rotogate check` takes a configuration, its paths moved into a folder that has what it names."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        moved = re.sub(r'"/(var/lib|etc|run)/', lambda match: f'"{folder}/{match[1]}/', text)
        for file in re.findall(r'(?:password_file|token_file|\nfile) = "([^"]+)"', moved):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).touch(mode=0o600)
            Path(file).write_text(f"{Path(file).name:x<32}\n")
        for file in re.findall(r'"(\S+/users.toml)"', moved):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        path = folder / "gateway.toml"
        path.write_text(moved)
        if 'kind = "redis"' in moved or "/etc/rotogate-keys" in moved:
            keys = run(gate, "--config", path, "keys", "init")
            expect(keys.returncode == 0, f"{name}: keys init: {said(keys)}")
        ran = run(gate, "--config", path, "check")
        expect(ran.returncode == 0, f"{name}: rotogate check: {said(ran)}")


# Helm

# What the environment's Helm says of a chart: its version, and of each set of values the findings of lint and the files, or the error.
HELM = """
import json, sys, helm_python as helm
asked = json.load(sys.stdin)
answer = {"version": helm.helm_sdk_version(), "lint": {}, "files": {}, "errors": {}}
with helm.Chart.load(asked["chart"]) as chart:
    for name, values in asked["values"].items():
        report = helm.lint(asked["chart"], values, strict=True, kube_version="v1.30.0")
        answer["lint"][name] = [m["error"] for m in report["messages"] if m["severity"] > 1] + report["errors"]
        try:
            answer["files"][name] = chart.render(values, name=name, namespace="gates")
        except helm.HelmError as error:
            answer["errors"][name] = str(error)
print(json.dumps(answer))
"""


def values_of_readme(python):
    """The values that packaging/helm/README.md shows."""
    text = (PACKAGING / "helm/README.md").read_text()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(textwrap.dedent(re.search(r"(?ms)^ *```yaml\n(.*?)^ *```$", text)[1]))
        file.flush()
        ((_, values),) = documents(python, [file.name])
    return values


def chart_values(plain):
    """Sets of values by release: those to be rendered, and those to be refused, each with a word of the reason."""
    store = plain["store"]
    directory = '[directory]\nkind = "ldap"\nurl = "ldaps://ldap.example.com"\nbase = "dc=example"\nfilter = "(uid={username})"\n\n'
    directories = directory.replace("[directory]", '[[directories]]\nname = "staff"')
    of_ingress = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "nginx-ingress"}}}
    postgres = {"kind": "postgres", "url": "postgres://gate@db.example.com/rotogate", "options": 'staleness = "3s"\n'}
    rendered = {
        # As tests/packages/chart.yaml.
        "rotogate": plain,
        "edge": plain
        | {
            "store": postgres,
            "config": directory + plain["config"],
            "secrets": {"users": "", "admin": "edge-admin"},
            "server": "workers = 2",
            "drainSeconds": 60,
            "autoscaling": {"enabled": True, "min": 3},
            "podDisruptionBudget": {"minAvailable": 2},
            "image": {"repository": "registry.example.com/rotogate", "digest": "sha256:" + "0" * 64},
            "imagePullSecrets": [{"name": "registry"}],
            "podAnnotations": {"example.com/team": "edge"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "edge", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "priorityClassName": "edge",
            "service": {"annotations": {"example.com/a": "b"}},
            "ingress": {
                "enabled": True,
                "className": "nginx",
                "annotations": {"example.com/a": "b"},
                "hosts": ["api.example.com"],
                "tls": [{"secretName": "api-tls", "hosts": ["api.example.com"]}],
            },
        },
        "gated-rotogate": plain
        | {
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}], "hostnames": ["api.example.com"]},
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "secrets": {"users": ""},
            "config": directories + plain["config"],
            "networkPolicy": {"from": [of_ingress], "monitoring": {"podSelector": {"app": "prom"}}},
        },
    }
    refused = {
        "no-url": ({key: value for key, value in plain.items() if key != "publicUrl"}, "/publicUrl"),
        "path-in-url": (plain | {"publicUrl": "https://api.example.com/x"}, "/publicUrl"),
        "one-gate": (plain | {"replicas": 1}, "/replicas"),
        "unknown-key": (plain | {"replica": 3}, "replica"),
        "embedded-store": (plain | {"store": store | {"kind": "redb"}}, "/store/kind"),
        "no-store": (plain | {"store": {"kind": "redis"}}, "/store/urls"),
        "two-stores": (plain | {"store": postgres | {"urls": store["urls"]}}, "/store/urls"),
        "own-section": (plain | {"config": "[server]\n" + plain["config"]}, "/config"),
        "no-routes": (plain | {"config": '[[clients]]\nid = "web"\n'}, "/config"),
        "no-users": (plain | {"secrets": {"users": ""}}, "/config"),
        "users-twice": (plain | {"config": directory + plain["config"]}, "/config"),
        "section-in-server": (plain | {"server": "[limits]"}, "/server"),
        "no-host": (plain | {"ingress": {"enabled": True}}, "/ingress/hosts"),
        "no-proxy": (plain | {"trustedProxies": [], "ingress": {"enabled": True, "hosts": ["api.example.com"]}}, "/trustedProxies"),
        "no-gateway": (plain | {"trustedProxies": [], "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}}, "/trustedProxies"),
        "users-indented": (plain | {"config": " " + directory + plain["config"]}, "/config"),
        "no-parent": (plain | {"httpRoute": {"enabled": True}}, "/httpRoute/parentRefs"),
        "no-node-drains": (plain | {"podDisruptionBudget": {"minAvailable": 2}}, "minAvailable"),
    }
    return rendered, refused


def helm(python, gate, is_recorded_anew):
    rendered, refused = chart_values(values_of_readme(python))
    asked = {"chart": str(PACKAGING / "helm/rotogate"), "values": rendered | {name: values for name, (values, _) in refused.items()}}
    ran = run(python, "-c", HELM, input=json.dumps(asked))
    if not expect(ran.returncode == 0, f"helm: {said(ran)}"):
        return
    answer = json.loads(ran.stdout)
    for name, (_, reason) in refused.items():
        expect(reason in answer["errors"].get(name, ""), f"helm/{name}: not refused for {reason}: {answer['errors'].get(name)}")
    of_values = "".join(f"---\n# {Path(path).name}\n{text.strip()}\n" for path, text in sorted(answer["files"].get("rotogate", {}).items()) if path.endswith(".yaml") and text.strip())
    if is_recorded_anew:
        CHART.write_text(of_values)
    expect(of_values == CHART.read_text(), f"helm/rotogate: not {CHART.relative_to(ROOT)}: if the change is meant, tests/packages.py --only helm --write records it")
    sums = set()
    for name in rendered:
        what = f"helm/{name}"
        expect(answer["lint"][name] == [], f"{what}: lint: {answer['lint'][name]}")
        if not expect(name not in answer["errors"], f"{what}: {answer['errors'].get(name)}"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for path, text in answer["files"][name].items():
                if path.endswith(".yaml") and text.strip():
                    files.append(Path(folder) / Path(path).name)
                    files[-1].write_text(text)
            validate(python, files)
            together = [document for _, document in documents(python, files)]
        sums.add(release_of_chart(python, what, name, together, rendered[name], gate))
    expect(len(sums) == len(rendered), "helm: another configuration does not replace the pods")
    print(f"packages: Helm {answer['version']} as a library; the program helm and a cluster were not there")


def release_of_chart(python, what, release, together, values, gate):
    """What the manifests of a release say of each other; the checksum of its configuration."""
    by_kind = {}
    for document in together:
        by_kind.setdefault(document["kind"], []).append(document)
    (config,), (pods,) = by_kind["ConfigMap"], by_kind["Deployment"]
    text = config["data"]["gateway.toml"]
    workload(what, together, text)
    checked_configuration(gate, what, text)
    full = release if "rotogate" in release else f"{release}-rotogate"
    names = {document["metadata"]["name"] for document in together}
    expect(names == {full, f"{full}-admin"}, f"{what}: names {sorted(names)}")
    expect(tomllib.loads(text)["admin"]["hosts"] == [f"{full}-admin.gates.svc"], f"{what}: the host of the admin listener")
    template = pods["spec"]["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    selectors = [pods["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in by_kind["Service"]]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in by_kind["PodDisruptionBudget"]]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in by_kind["NetworkPolicy"]]
    selectors += [one["labelSelector"]["matchLabels"] for one in pod["topologySpreadConstraints"]]
    for selector in selectors:
        expect(len(selector) == 2 and set(selector.items()) <= set(labels.items()), f"{what}: a selector {selector}")
    for scaler in by_kind.get("HorizontalPodAutoscaler", []):
        expect(scaler["spec"]["scaleTargetRef"]["name"] == full and "replicas" not in pods["spec"], f"{what}: the autoscaler")
    services = {service["metadata"]["name"]: service for service in by_kind["Service"]}
    for ingress in by_kind.get("Ingress", []):
        (rule,) = ingress["spec"]["rules"]
        backend = rule["http"]["paths"][0]["backend"]["service"]
        ports = {port["name"] for port in services[backend["name"]]["spec"]["ports"]}
        expect(backend["port"]["name"] in ports and rule["host"] == "api.example.com", f"{what}: Ingress: no such port")
    for monitor in by_kind.get("ServiceMonitor", []):
        admin = services[f"{full}-admin"]
        monitored(monitor, admin, admin["metadata"]["labels"], text)
    for route in by_kind.get("HTTPRoute", []):
        routed(route, services)
    network = values.get("networkPolicy", {})
    public, admin = by_kind["NetworkPolicy"][0]["spec"]["ingress"]
    expect(public.get("from", []) == network.get("from", []), f"{what}: who reaches the public port: {public}")
    prometheus = network.get("monitoring", {}).get("podSelector", {"app.kubernetes.io/name": "prometheus"})
    expect(admin["from"][0]["podSelector"]["matchLabels"] == prometheus, f"{what}: who reaches the admin port: {admin}")
    for key, kind in (("ingress", "Ingress"), ("httpRoute", "HTTPRoute"), ("serviceMonitor", "ServiceMonitor"), ("autoscaling", "HorizontalPodAutoscaler")):
        expect((kind in by_kind) == values.get(key, {}).get("enabled", False), f"{what}: {kind}")
    (secret,) = [volume["secret"]["secretName"] for volume in pod["volumes"] if volume["name"] == "admin"]
    expect(secret == values.get("secrets", {}).get("admin", "rotogate-admin"), f"{what}: the Secret with the admin token")
    return template["metadata"]["annotations"]["checksum/configuration"]


# External authorization


def external_authorization(python, gate):
    files = sorted(external_auth.FOLDER.glob("*.yaml"))
    external_auth.check(expect, [document for _, document in documents(python, files)], gate, free_port)


# Compose


def compose(python, gate):
    folder = PACKAGING / "compose"
    ((_, document),) = documents(python, [folder / "compose.yaml"])
    services, networks, volumes = document["services"], document["networks"], document["volumes"]
    known = set(
        "image build command ports volumes networks depends_on read_only cap_drop security_opt stop_grace_period restart "
        "healthcheck network_mode environment".split()
    )
    for name, service in services.items():
        expect(set(service) <= known, f"compose: {name}: {sorted(set(service) - known)}")
        expect("build" in service or re.fullmatch(r"\S+/\S+:\S+", service["image"]), f"compose: {name}: no image with a version")
        for volume in service.get("volumes", []):
            source, at = volume.split(":")[:2]
            there = (folder / source).is_file() if source.startswith(".") else source in volumes
            expect(there and at.startswith("/"), f"compose: {name}: volume {volume}")
        for network in service.get("networks", []):
            expect(network in networks, f"compose: {name}: network {network}")
        for other in service.get("depends_on", []):
            expect(other in services, f"compose: {name}: depends on {other}")
        for port in service.get("ports", []):
            expect(port.startswith("127.0.0.1:"), f"compose: {name}: port {port} is open to the network")
    of_gate = services["gate"]
    expect(of_gate["read_only"] and of_gate["cap_drop"] == ["ALL"], "compose: the gate is not confined")
    proxy = services["nginx"]["networks"]["front"]["ipv4_address"]
    text = (folder / "gateway.toml").read_text()
    expect(tomllib.loads(text)["server"]["trusted_proxies"] == [f"{proxy}/32"], "compose: trusted_proxies is not nginx")
    checked_configuration(gate, "compose", text)
    checked_configuration(gate, "container", (PACKAGING / "container/gateway.toml").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        # The name of a service resolves in its network alone.
        (Path(scratch) / "nginx.conf").write_text((folder / "nginx.conf").read_text().replace("gate:8080", "127.0.0.1:8080"))
        path = f"{os.environ['PATH']}:/usr/sbin"
        nginx = shutil.which("nginx", path=path)
        ran = run(nginx, "-t", "-g", f"pid {scratch}/pid;", "-c", f"{scratch}/nginx.conf")
        expect(ran.returncode == 0, f"compose: nginx -t: {said(ran)}")
        shutil.copy(PACKAGING / "prometheus/rotogate.rules.yml", scratch)
        shutil.copy(folder / "prometheus.yml", scratch)
        ran = run("promtool", "check", "config", f"{scratch}/prometheus.yml")
        expect(ran.returncode == 0, f"compose: promtool: {said(ran)}")


# systemd


def systemd(gate):
    with tempfile.TemporaryDirectory() as folder:
        for unit in ("rotogate.service", "rotogate.socket"):
            # The program is not installed here.
            text = (PACKAGING / unit).read_text().replace("/usr/bin/rotogate", str(gate))
            (Path(folder) / unit).write_text(text)
        ran = run("systemd-analyze", "verify", "--man=no", f"{folder}/rotogate.service", f"{folder}/rotogate.socket")
        expect(ran.returncode == 0 and not said(ran), f"systemd-analyze verify: {said(ran)}")
    # A default is beside the configuration, in /etc, where the service may not write.
    printed = run(gate, "--config", PACKAGING / "gateway.toml", "check", "--print")
    beside = re.findall(rf'^\w+ = "{re.escape(str(PACKAGING))}/.*', printed.stdout, re.M)
    expect(printed.returncode == 0 and printed.stdout and not beside, f"packaging/gateway.toml: {beside or said(printed)}")


# The ports that were given out. The kernel may give a port that is free again at once.
TAKEN = set()


def free_port():
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in TAKEN:
            TAKEN.add(port)
            return port


def until(what, holds):
    for _ in range(600):
        if holds():
            return True
        time.sleep(0.05)
    return expect(False, f"never happened: {what}")


def socket_activation(gate):
    """The first connection starts the gate, which answers on the socket that it was given."""
    with tempfile.TemporaryDirectory() as folder:
        public, admin = free_port(), free_port()
        text = (PACKAGING / "gateway.toml").read_text().replace("/var/lib/rotogate", f"{folder}/state")
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{public}").replace("127.0.0.1:8081", f"127.0.0.1:{admin}")
        (Path(folder) / "gateway.toml").write_text(text)
        log = open(f"{folder}/log", "w+")
        waiting = subprocess.Popen(
            ["systemd-socket-activate", "--listen", f"127.0.0.1:{public}", gate, "--config", f"{folder}/gateway.toml"],
            stdout=log,
            stderr=log,
        )
        try:
            until("systemd-socket-activate listens", lambda: "Listening on" in Path(log.name).read_text())
            expect(waiting.poll() is None and "listens on" not in Path(log.name).read_text(), "started before a connection")
            with urllib.request.urlopen(f"http://127.0.0.1:{public}/.well-known/jwks.json", timeout=60) as reply:
                expect(reply.status == 200, "socket activation: no answer")
            text = Path(log.name).read_text()
            expect("passed socket closed" not in text, f"socket activation: the socket was not used: {text}")
        except OSError as error:
            problems.append(f"socket activation: {error}: {Path(log.name).read_text()}")
        finally:
            # It has become the gate.
            waiting.terminate()
            waiting.wait()


# Debian


def debian(gate):
    metadata = tomllib.loads((ROOT / "crates/server/Cargo.toml").read_text())["package"]["metadata"]["deb"]
    pages = run("bash", PACKAGING / "debian/build.sh", "--pages", gate)
    if not expect(pages.returncode == 0, f"debian/build.sh --pages: {said(pages)}"):
        return
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        tree = scratch / "package"
        build = (PACKAGING / "debian/build.sh").read_text()
        expect(re.search(r"(?m)^cargo deb .*--profile dist ", build), "debian/build.sh: cargo-deb finds no program without its profile")
        for source, target, mode in metadata["assets"]:
            found = [str(gate)] if source == "target/dist/rotogate" else glob.glob(str(ROOT / "crates/server" / source))
            expect(found, f"debian: no file is {source}")
            for file in found:
                to = tree / (target + Path(file).name if target.endswith("/") else target)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, to)
                to.chmod(int(mode, 8))
        expect((tree / "usr/share/man/man1/rotogate.1.gz").exists(), "debian: no man page")
        expect((tree / "usr/share/man/man5/gateway.toml.5.gz").exists(), "debian: no man page of the configuration")
        for file in ("usr/share/bash-completion/completions/rotogate", "etc/logrotate.d/rotogate", "usr/share/doc/rotogate/changelog"):
            expect((tree / file).is_file(), f"debian: no {file}")
        control = tree / "DEBIAN"
        control.mkdir()
        for script in ("postinst", "prerm", "postrm"):
            checked = run("sh", "-n", PACKAGING / "debian" / script)
            expect(checked.returncode == 0, f"debian/{script}: {said(checked)}")
        logrotate(tree / "etc/logrotate.d/rotogate")
        if os.geteuid() != 0:
            print("packages: not root, so no package is installed")
            return
        installed(tree, control, metadata, scratch)


def installed(tree, control, metadata, scratch):
    """dpkg installs the package in a folder of its own, upgrades it below a gate that serves, removes and purges it."""
    (control / "conffiles").write_text("".join(f"{file}\n" for file in metadata["conf-files"]))
    for script in ("postinst", "prerm", "postrm"):
        shutil.copy(PACKAGING / "debian" / script, control / script)
        (control / script).chmod(0o755)
    program = tree / "usr/bin/rotogate"
    run("strip", program, check=True)
    root = scratch / "root"
    system_root(root, program)

    def dpkg(*arguments):
        base = ["dpkg", f"--root={root}", "--force-depends", "--force-bad-path", "--log=/dev/null", "--force-confold"]
        ran = run(*base, *arguments, env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"})
        expect(ran.returncode == 0, f"dpkg {arguments}: {said(ran)}")
        return said(ran)

    def package(version):
        (control / "control").write_text(
            f"Package: {metadata['name']}\nVersion: {version}-1\nArchitecture: all\nMaintainer: {metadata['maintainer']}\n"
            "Description: auth gateway\n"
        )
        file = scratch / f"rotogate_{version}.deb"
        built = run("dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, file)
        expect(built.returncode == 0, f"dpkg-deb: {said(built)}")
        return file

    hints = dpkg("--install", package("0.1.0"))
    expect("rotogate is installed. Next:" in hints, f"postinst gives no advice: {hints}")
    called = root / "called"
    expect("systemd-sysusers rotogate.conf" in called.read_text(), "postinst makes no user")
    version = run("chroot", root, "rotogate", "--version")
    expect(version.returncode == 0 and version.stdout.startswith("rotogate "), f"the installed program: {said(version)}")
    config = root / "etc/rotogate/gateway.toml"
    config.write_text(config.read_text() + "\n# ours\n")
    # The same program under another version, which it reports.
    (old,) = re.findall(r"^rotogate (\S+)", version.stdout)
    new = old[:-1] + str((int(old[-1]) + 1) % 10)
    program.write_bytes(program.read_bytes().replace(old.encode(), new.encode()))
    if may_mount():
        upgraded_in_place(root, old, new, lambda: dpkg("--install", package("0.1.1")))
    else:
        print("packages: no mounts, so no gate runs while its package is upgraded")
        dpkg("--install", package("0.1.1"))
    expect("restart" not in called.read_text(), "an upgrade restarts the gate")
    stopped = dpkg("--install", package("0.1.2"))
    expect("Next:" not in stopped, f"an upgrade without a running gate: {stopped}")
    expect(config.read_text().rstrip().endswith("# ours"), "an upgrade replaces the configuration")
    dpkg("--remove", "rotogate")
    expect("disable --now rotogate.socket rotogate.service" in called.read_text(), "a removal leaves the socket, which starts the gate")
    expect(config.exists() and not (root / "usr/bin/rotogate").exists(), "a removal takes the configuration, or leaves the program")
    dpkg("--purge", "rotogate")
    expect(not config.exists(), "a purge leaves the configuration")


def system_root(root, program):
    """A root for the scripts of the package: a shell, the libraries of the program, and stand-ins for what systemd would do."""
    for folder in ("var/lib/dpkg/updates", "var/lib/dpkg/info", "usr/bin", "usr/lib", "usr/lib64", "etc", "proc", "dev", "run/systemd/system"):
        (root / folder).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "var/lib/dpkg/status").touch()
    shutil.copy("/bin/sh", root / "bin/sh")
    for library in {word for of in (program, "/bin/sh") for word in run("ldd", of).stdout.split() if word.startswith("/")}:
        to = root / library.lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, to)
    for tool in ("systemd-sysusers", "chown", "systemctl", "chmod"):
        (root / "bin" / tool).write_text(
            f'#!/bin/sh\necho "{tool} $*" >>/called\ncase "$*" in *is-active*) [ -e /running ] ;; esac\n'
        )
        (root / "bin" / tool).chmod(0o755)


def upgraded_in_place(root, old, new, upgrade):
    """The package is upgraded while callers with tokens open connections: none is refused, and no session ends."""
    public, admin = free_port(), free_port()
    config = root / "etc/rotogate/gateway.toml"
    text = config.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{public}").replace("127.0.0.1:8081", f"127.0.0.1:{admin}")
    text = text.replace("http://127.0.0.1:3000", "echo:")
    config.write_text(text)
    (root / "var/lib/rotogate").mkdir(mode=0o700)
    enter = ["unshare", "--mount", "sh", "-c", f'mount --rbind /proc {root}/proc && mount --rbind /dev {root}/dev && exec "$@"', "sh"]
    rotogate = [*enter, "chroot", root, "/usr/bin/rotogate", "--config", "/etc/rotogate/gateway.toml"]
    added = run(*rotogate, "user", "add", "ada", "--stdin", input=PASSWORD)
    if not expect(added.returncode == 0, f"user add: {said(added)}"):
        return
    log = open(root / "log", "w+")
    serving = subprocess.Popen([str(word) for word in (*rotogate, "serve")], stdout=log, stderr=log)
    (root / "running").touch()
    said_so_far = lambda: Path(log.name).read_text()
    replies, done = [], threading.Event()

    def call():
        headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
        while not done.is_set():
            try:
                asked = urllib.request.Request(f"http://127.0.0.1:{public}/orders", headers=headers)
                with urllib.request.urlopen(asked, timeout=60) as reply:
                    replies.append(reply.status)
            except OSError as error:
                replies.append(error)

    callers = [threading.Thread(target=call) for _ in range(4)]
    try:
        until("the packaged gate serves", lambda: "process started" in said_so_far() or serving.poll() is not None)
        login = f"grant_type=password&client_id=web&username=ada&password={PASSWORD.replace(' ', '+')}".encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{public}/connect/token", login) as reply:
            token = json.load(reply)["access_token"]
        for caller in callers:
            caller.start()
        until("callers get replies", lambda: len(replies) > 50)
        output = upgrade()
        expect(f"upgraded from {old} to {new}, process {serving.pid}" in output, f"postinst does not upgrade the gate: {output}")
        after = len(replies)
        until("callers get replies from the successor", lambda: len(replies) > after + 50)
        config.write_text(text + "[nonsense]\n")
        refused = upgrade()
        expect("serves on as the former version" in refused, f"postinst, and a configuration that is wrong: {refused}")
        at = len(replies)
        until("callers get replies after a refused upgrade", lambda: len(replies) > at + 50)
    except OSError as error:
        problems.append(f"in-place upgrade: {error}: {said_so_far()}")
    finally:
        done.set()
        for caller in callers:
            if caller.is_alive():
                caller.join()
        (root / "running").unlink()
        serving.terminate()
        serving.wait()
        config.write_text(text)
    lost = [reply for reply in replies if reply != 200]
    expect(not lost, f"in-place upgrade: {len(lost)} of {len(replies)} requests failed, as {lost[:1]}")
    print(f"packages: {len(replies)} requests around two upgrades of the package, {len(lost)} lost")


def may_mount():
    """In a container root may not."""
    return os.geteuid() == 0 and run("unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt").returncode == 0


def logrotate(file):
    with tempfile.TemporaryDirectory() as folder:
        text = file.read_text().replace("/var/log/rotogate", folder)
        text = re.sub(r"su rotogate rotogate|create 0640 rotogate rotogate", "", text)
        (Path(folder) / "conf").write_text(text)
        ran = run(shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin"), "--debug", f"{folder}/conf")
        expect(ran.returncode == 0 and "error:" not in said(ran), f"logrotate: {said(ran)}")


# The release


def release(gate):
    """The archive is the same at each run, has what it names, and its checksums hold; each crate can be published."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        program = scratch / "rotogate"
        stripped = run("strip", "-o", program, gate)
        if not expect(stripped.returncode == 0, f"release: strip: {said(stripped)}"):
            return
        archives = []
        for place in (scratch / "one", scratch / "two"):
            made = run("bash", PACKAGING / "release.sh", "--archive", program, place)
            if not expect(made.returncode == 0, f"release.sh --archive: {said(made)}"):
                return
            archives.append(Path(made.stdout.strip()))
        one, two = archives
        expect(one.read_bytes() == two.read_bytes(), "release: two archives of one program differ")
        sums = run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=one.parent)
        expect(sums.returncode == 0 and one.name in sums.stdout, f"release: checksums: {said(sums)}")
        run("tar", "-xzf", one, "-C", scratch, check=True)
        tree = scratch / one.name.removesuffix(".tar.gz")
        version = run(tree / "rotogate", "--version")
        expect(tree.name.split("-")[1] in version.stdout, f"release: --version: {said(version)}")
        for file in ("LICENSE-MIT", "LICENSE-APACHE", "man/man5/gateway.toml.5", "completions/rotogate.fish",
                     "packaging/rotogate.service", "packaging/prometheus/rotogate.rules.yml"):
            expect((tree / file).is_file(), f"release: no {file}")
        checked = run(tree / "rotogate", "--config", tree / "packaging/gateway.toml", "check", cwd=scratch)
        expect(checked.returncode == 0, f"release: its configuration: {said(checked)}")
    published = run("cargo", "publish", "--workspace", "--dry-run", "--no-verify", "--allow-dirty", cwd=ROOT)
    expect(published.returncode == 0, f"cargo publish --dry-run: {said(published)[-2000:]}")
    crates = {crate["name"]: crate for crate in json.loads(run("cargo", "metadata", "--no-deps", "--format-version", "1", cwd=ROOT).stdout)["packages"]}
    uploaded = re.findall(r"Uploading (\S+) v", published.stderr)
    wanted = sorted(name for name, crate in crates.items() if crate["publish"] != [])
    expect(sorted(uploaded) == wanted, f"cargo publish --dry-run: {uploaded}, not {wanted}")
    for at, name in enumerate(uploaded):
        # Tests may use crates that come later.
        needs = {needed["name"] for needed in crates[name]["dependencies"] if needed["kind"] != "dev"} & set(wanted)
        expect(needs <= set(uploaded[:at]), f"cargo publish --dry-run: {name} comes before {needs - set(uploaded[:at])}")
        files = run("cargo", "package", "--list", "--allow-dirty", "--package", name, cwd=ROOT).stdout.split()
        expect({"LICENSE-MIT", "LICENSE-APACHE"} <= set(files), f"cargo package: {name} has no text of its licences")


# Programs of a build, each of which does what the scripts read.
STAND_INS = {
    "rustc": """#!/bin/sh
[ $1 = --print ] && echo {scratch} && exit
printf 'host: here\\nLLVM version: 99.1\\n'
""",
    # The program that it builds writes counts, as one with counters does.
    "cargo": """#!/bin/sh
echo "$RUSTFLAGS, for $ROTOGATE_PROFILED." >>{scratch}/seen
mkdir -p "$CARGO_TARGET_DIR/here/dist"
printf '#!/bin/sh\\n[ -z "$LLVM_PROFILE_FILE" ] || echo 7 >"$LLVM_PROFILE_FILE"\\n' >"$CARGO_TARGET_DIR/here/dist/rotogate"
chmod +x "$CARGO_TARGET_DIR/here/dist/rotogate"
""",
    "llvm-profdata-99": """#!/bin/sh
[ "$1 $2 $3" = "merge --sparse --output" ] && cat "$5" >"$4"
""",
    "llvm-bolt-22": """#!/bin/sh
[ $1 = --version ] && echo "LLVM version $BOLT" && exit
[ $2 = -instrument ] && cp "$1" "$4" && echo "echo 8 >$4.1" >>"$4" && exit
[ "$3" = /dev/null ] && cp "$5" "$8" && exit
{{ cat "$1"; echo "# laid by $(cat "$5")"; }} >"$3"
""",
    "merge-fdata-22": "#!/bin/sh\ncat \"$@\"\n",
    "lib/rustlib/here/bin/rust-objcopy": "#!/bin/sh\necho \"# $1\" >>\"$3\"\n",
}


def profile():
    """packaging/record.sh records a load, packaging/build.sh uses the record, and both go on without BOLT."""
    base = (PACKAGING / "container/Containerfile").read_text()
    toolchain = (PACKAGING / "toolchain.txt").read_text().strip()
    expect(f"rust:{toolchain.rsplit('.', 1)[0]}-" in base, "profile: the image is built by another compiler than packaging/toolchain.txt")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        tree, tools, plain = scratch / "tree", scratch / "tools", scratch / "out/here/dist/rotogate"
        (tree / "packaging").mkdir(parents=True)
        (tree / "benches/peers").mkdir(parents=True)
        for file in ("build.sh", "record.sh", "toolchain.txt"):
            shutil.copy(PACKAGING / file, tree / "packaging")
        for name, text in STAND_INS.items():
            file = scratch / name if "/" in name else tools / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.format(scratch=scratch))
            file.chmod(0o755)
        load = tree / "benches/peers/run"
        load.write_text('#!/bin/sh\n[ "$1" = --gate ] && exec "$2"\n')
        load.chmod(0o755)

        def script(name, *arguments, bolt="22.1.8"):
            """What a script prints; the flags and the name of each build that it started."""
            (scratch / "seen").write_text("")
            around = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "BOLT": bolt}
            ran = run("bash", f"packaging/{name}.sh", scratch / "out", *arguments, cwd=tree, env=around)
            expect(ran.returncode == 0, f"profile: {name}.sh {arguments}: {said(ran)}")
            return ran, (scratch / "seen").read_text().splitlines()

        missing = "llvm-bolt of LLVM 22 is missing (apt install bolt-22"
        for record, bolt, holds in ((scratch / "whole.tar.xz", "22.1.8", "counts layout"), (scratch / "counts.tar.xz", "21.0.0", "counts")):
            ran, seen = script("record", record, bolt=bolt)
            files = sorted(Path(name).name for name in run("tar", "-tf", record).stdout.split() if not name.endswith("/"))
            expect(" ".join(files) == holds and "-Cprofile-generate=" in seen[0], f"profile: {record.name} has {files}: {seen}")
            expect((missing in ran.stderr) == (bolt == "21.0.0"), f"profile: BOLT {bolt}: {said(ran)}")
        cases = (
            ((), "22.1.8", "none", ""),
            (("here", scratch / "counts.tar.xz"), "22.1.8", "here", ""),
            (("here", scratch / "whole.tar.xz"), "22.1.8", "here, layout", "# laid by 8\n# --strip-all\n"),
            (("here", scratch / "whole.tar.xz"), "21.0.0", "here", ""),
        )
        for arguments, bolt, profiled, laid in cases:
            what = f"profile: build.sh {arguments}, BOLT {bolt}"
            ran, (seen,) = script("build", *arguments, bolt=bolt)
            program = Path(ran.stdout.strip())
            expect(seen.endswith(f", for {profiled}."), f"{what}: {seen}")
            expect(("-Cprofile-use=" in seen) == bool(arguments) and ("--emit-relocs" in seen) == bool(laid), f"{what}: {seen}")
            expect((program == plain) == (not laid) and program.read_text() == plain.read_text() + laid, f"{what}: {program.read_text()}")
            expect((missing in ran.stderr) == (profiled == "here" and "whole" in str(arguments)), f"{what}: {said(ran)}")
        (tools / "llvm-profdata-99").unlink()
        ran = run("bash", "packaging/record.sh", scratch / "out", scratch / "none", cwd=tree, env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"})
        expect(ran.returncode == 1 and "rustup component add llvm-tools" in ran.stderr, f"profile: llvm-profdata: {said(ran)}")


def static(gate):
    """The program of `release.sh --static`, which built it: it asks for no library, and serves where there is nothing but it."""
    headers = run("readelf", "--program-headers", "--dynamic", "--wide", gate)
    if not expect(headers.returncode == 0, f"static: readelf: {said(headers)}"):
        return
    for word in ("INTERP", "(NEEDED)"):
        expect(word not in headers.stdout, f"static: {gate} is not static, it has {word}")
    files = ROOT / "target/release-files"
    if not expect((files / "SHA256SUMS").exists(), "static: release.sh --static has not run"):
        return
    sums = run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=files)
    # Of the target, which the folder of the build names.
    target = gate.parent.parent.name
    listed = sums.returncode == 0 and all(f"-{target}.{end}: OK" in sums.stdout for end in ("tar.gz", "cdx.json"))
    if not expect(listed, f"static: archive and SBOM of {target}: {said(sums)}"):
        return
    (sbom,) = [json.loads(file.read_text()) for file in files.glob(f"*-{target}.cdx.json")]
    listed = {component["name"] for component in sbom["components"]}
    # Of optional features, and of another system.
    expect({"rotogate-store-redis", "aws-lc-sys", "tonic"} <= listed and "windows-sys" not in listed, f"static: SBOM: {sorted(listed)}")
    with tempfile.TemporaryDirectory() as root:
        shutil.copy(gate, f"{root}/rotogate")
        public, admin = free_port(), free_port()
        text = (PACKAGING / "gateway.toml").read_text().replace("/var/lib/rotogate", "state")
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{public}").replace("127.0.0.1:8081", f"127.0.0.1:{admin}")
        Path(root, "gateway.toml").write_text(text)
        empty = ["chroot", root, "/rotogate"] if os.geteuid() == 0 else ["./rotogate"]
        serving = subprocess.Popen([*empty, "serve"], cwd=root, env={"PATH": os.environ["PATH"] + ":/usr/sbin"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        line = next((line for line in serving.stdout if "process started" in line), None)
        try:
            if expect(line, "static: it does not start"):
                with urllib.request.urlopen(f"http://127.0.0.1:{public}/.well-known/jwks.json") as reply:
                    expect(json.load(reply)["keys"], "static: no keys")
        finally:
            serving.terminate()
            expect(serving.wait() == 0, "static: it does not stop at SIGTERM")


# The image


def image(gate, is_required):
    """Builds the last stage and runs it as Kubernetes does."""
    text, bake = ((PACKAGING / "container" / file).read_text() for file in ("Containerfile", "docker-bake.hcl"))
    for name, default in re.findall(r"(?m)^ARG (BUILD|BASE)=(\S+)", text):
        expect(f'variable "{name}" {{ default = "{default}" }}' in bake, f"docker-bake.hcl: another {name}")
    if not shutil.which("buildah") or not may_mount():
        problems.extend(["the image needs buildah, and a root that may mount"] * is_required)
        print("not run here: no image is built, because buildah is missing, or a root that may mount")
        return
    stages = re.split(r"(?m)^FROM ", text)
    expect(len(stages) == 3, "the Containerfile has two stages")
    last = stages[2]
    for line in ("USER 65532:65532", "VOLUME /var/lib/rotogate", 'ENTRYPOINT ["/usr/bin/rotogate"]', "STOPSIGNAL SIGTERM"):
        expect(line in last, f"Containerfile: no {line}")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        # In the place of the first stage and of distroless/cc: this build, and the C library of this machine.
        base, build, context = scratch / "base", scratch / "build", scratch / "context"
        libraries = [line.split("=>")[-1].split()[0] for line in run("ldd", gate).stdout.splitlines() if "/" in line]
        for library in libraries:
            to = base / library.lstrip("/")
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, to)
        (build / "source/target/dist").mkdir(parents=True)
        shutil.copy(gate, build / "source/target/dist/rotogate")
        run("strip", build / "source/target/dist/rotogate")
        (build / "state/rotogate").mkdir(parents=True, mode=0o700)
        (base / "etc").mkdir(exist_ok=True)
        (base / "etc/passwd").write_text("nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")
        shutil.copytree(PACKAGING / "container", context / "packaging/container")
        lines = ["FROM scratch AS build", "COPY build/ /", "FROM scratch AS base", "COPY base/ /", "FROM base AS " + last.split(" AS ", 1)[1]]
        shutil.copytree(base, context / "base")
        shutil.copytree(build, context / "build")
        (context / "Containerfile").write_text("\n".join(lines))
        storage = ["--root", scratch / "storage", "--runroot", scratch / "run", "--storage-driver", "vfs"]

        def buildah(*arguments, **options):
            return run("buildah", *storage, *arguments, **options)

        built = buildah("bud", "--format", "docker", "--isolation", "chroot", "-t", "rotogate", context)
        if built.returncode != 0:
            problems.append(f"buildah bud: {said(built)}")
            return
        inspected = json.loads(buildah("inspect", "--type", "image", "rotogate").stdout)["Docker"]["config"]
        expect(inspected["User"] == "65532:65532", "image: user")
        expect(inspected["Healthcheck"]["Test"] == ["CMD", "/usr/bin/rotogate", "status"], "image: health check")
        expect(inspected["StopSignal"] in ("SIGTERM", "15") and inspected["Entrypoint"] == ["/usr/bin/rotogate"], "image: start")
        container = buildah("from", "--pull-never", "rotogate").stdout.strip()
        mounted = Path(buildah("mount", container).stdout.strip())
        confined(mounted, scratch, inspected)


def confined(mounted, scratch, inspected):
    """Runs the content of the image: its user, its environment, a root that cannot be written, one volume."""
    volume = mounted / "var/lib/rotogate"
    expect((volume.stat().st_uid, volume.stat().st_mode & 0o777) == (65532, 0o700), f"image: the volume: {volume.stat()}")
    for folder in ("proc", "dev"):
        (mounted / folder).mkdir(exist_ok=True)
    ports = {"ROTOGATE_SERVER__LISTEN": free_port(), "ROTOGATE_ADMIN__LISTEN": free_port()}
    variables = inspected["Env"] + [f"{name}=127.0.0.1:{port}" for name, port in ports.items()]
    mounts = (
        f"mount --bind {mounted} {mounted} && mount --bind {volume} {volume} && mount --rbind /proc {mounted}/proc && "
        f"mount --rbind /dev {mounted}/dev && mount -o remount,bind,ro {mounted} && cd / && exec \"$@\""
    )
    enter = ["unshare", "--mount", "sh", "-c", mounts, "sh", "env", "-i", *variables]
    enter += ["chroot", "--userspec=65532:65532", "--groups=", str(mounted)]
    log = open(scratch / "log", "w+")
    serving = subprocess.Popen([*enter, "/usr/bin/rotogate", "serve"], stdout=log, stderr=log)
    text = lambda: Path(log.name).read_text()
    try:
        until("the image serves", lambda: "process started" in text() or serving.poll() is not None)
        healthy = run(*enter, *inspected["Healthcheck"]["Test"][1:])
        expect(healthy.stdout.strip() == "ready", f"image: health check: {said(healthy)}: {text()}")
        user = Path(f"/proc/{serving.pid}/status").read_text()
        expect(re.search(r"(?m)^Uid:\s+65532\s", user), "image: it does not run as its user")
        expect(re.search(r"(?m)^CapEff:\s+0+$", user), "image: it has capabilities")
        written = {path.name for path in volume.iterdir()}
        expect({"keys", "rotogate.redb", "users.toml", "admin.token"} <= written, f"image: written: {sorted(written)}")
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['ROTOGATE_SERVER__LISTEN']}/.well-known/jwks.json") as reply:
            expect(reply.status == 200, "image: no answer")
    except OSError as error:
        problems.append(f"image: {error}: {text()}")
    finally:
        serving.terminate()
        expect(serving.wait() == 0, f"image: it does not stop at SIGTERM: {text()}")
    gone = run(*enter, *inspected["Healthcheck"]["Test"][1:])
    expect(gone.returncode == 1, "image: a gate that is gone is healthy")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gate", type=Path, required=True)
    parser.add_argument("--require-image", action="store_true")
    parser.add_argument("--write", action="store_true", help="records the rendered chart anew, in tests/packages/chart.yaml")
    parser.add_argument("--only", help="one part: kubernetes, helm, external auth, compose, systemd, socket activation, debian, release, profile, image; static, which is none of them")
    options = parser.parse_args()
    gate = options.gate.resolve()
    python = lambda: environment(gate.parent.parent)
    for name, step in (
        ("kubernetes", lambda: kubernetes(python(), gate)),
        ("helm", lambda: helm(python(), gate, options.write)),
        ("external auth", lambda: external_authorization(python(), gate)),
        ("compose", lambda: compose(python(), gate)),
        ("systemd", lambda: systemd(gate)),
        ("socket activation", lambda: socket_activation(gate)),
        ("debian", lambda: debian(gate)),
        ("release", lambda: release(gate)),
        ("profile", profile),
        ("image", lambda: image(gate, options.require_image)),
        ("static", lambda: static(gate)),
    ):
        if options.only != name and (options.only or name == "static"):
            continue
        began, before = time.monotonic(), len(problems)
        step()
        print(f"packages: {name}: {'good' if len(problems) == before else 'wrong'}, {time.monotonic() - began:.1f} s")
    for problem in problems:
        print(f"tests/packages.py: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
