#!/usr/bin/env python3
"""Do the README and the documentation hold? (requirements P64 and P65)

    tests/docs.py --gate target/debug/rotogate      part of tests/all.sh

- Each relative link of each *.md leads to a file, and its anchor to a heading there.
- Each ```toml block, laid over a small configuration, is one that `rotogate check` accepts. One that cannot stand alone says
  ```toml,ignore and has the reason in an HTML comment before it. A part of a section has what precedes it in such a
  comment: <!-- toml: [store] ... -->.
- Each line of an ```sh block that calls rotogate is a command line that rotogate understands.
- docs/SUMMARY.md, the contents of the book, names each page once.
- Every configuration key, outcome, audit event, metric, command and exit code is on its reference page.
- No sentence begins as the prose rules of CONTRIBUTING.md forbid.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
problems = []


def pages():
    folders = ("*.md", "docs/*.md", "packaging/**/*.md", "tests/*.md", "benches/*.md", "benches/*/*.md")
    return sorted(path for folder in folders for path in ROOT.glob(folder))


def shown(path):
    return path.relative_to(ROOT)


def blocks(text):
    """The fenced blocks of a page: (line, words after the fence, what is inside, the comment before)."""
    lines = text.splitlines()
    inside, found = None, []
    for number, line in enumerate(lines, 1):
        fence = re.match(r"\s*```(.*)$", line)
        if fence and inside is None:
            comment = re.search(r"<!--\s((?:(?!-->).)*)\s-->\s*$", "\n".join(lines[: number - 1]), re.S)
            before = comment[1] if comment else ""
            inside = (number, fence[1].strip(), [], before)
        elif fence:
            found.append((inside[0], inside[1], "\n".join(inside[2]) + "\n", inside[3]))
            inside = None
        elif inside:
            inside[2].append(line)
    return found


def without_blocks(text):
    """The page with its fenced blocks emptied: the lines keep their numbers."""
    inside, lines = False, []
    for line in text.splitlines():
        is_fence = re.match(r"\s*```", line)
        lines.append("" if inside or is_fence else line)
        inside ^= bool(is_fence)
    return "\n".join(lines)


# Links


def slug(heading):
    """The anchor that GitHub and mdBook give a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", text.replace("*", "")).replace(" ", "-")


def anchors(path):
    seen, found = {}, set()
    for heading in re.findall(r"(?m)^#+\s+(.*?)\s*#*$", without_blocks(path.read_text())):
        name = slug(heading)
        count = seen.get(name, 0)
        seen[name] = count + 1
        found.add(f"{name}-{count}" if count else name)
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', path.read_text()))


def links(path):
    text = re.sub(r"`[^`\n]*`", "", without_blocks(path.read_text()))
    targets = re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", text) + re.findall(r"(?m)^\[[^]]+\]:\s+(\S+)", text)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        if not to.exists():
            problems.append(f"{shown(path)}: the link {target} leads nowhere")
        elif anchor and to.suffix == ".md" and anchor not in anchors(to):
            problems.append(f"{shown(path)}: no heading for the link {target}")


# Configurations

BASE = """
[server]
listen = "127.0.0.1:0"
public_url = "https://api.example.com"
[admin]
listen = "127.0.0.1:0"
[issuer]
audience = ["api"]
[[clients]]
id = "web"
[[endpoints]]
dialect = "oauth2"
path = "/{account}/connect/token"
[[upstreams]]
name = "app"
urls = ["http://127.0.0.1:3000"]
[[routes]]
path = "/{*rest}"
upstream = "app"
"""
# What tells the entries of a list of tables apart.
NAMES = {"clients": "id", "endpoints": "path", "upstreams": "name", "routes": "path", "issuers": "url", "directories": "name"}


def laid_over(base, block):
    merged = dict(base)
    for key, value in block.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            merged[key] = laid_over(old, value)
        elif key in NAMES and isinstance(old, list):
            name = NAMES[key]
            taken = {entry.get(name) for entry in value}
            merged[key] = value + [entry for entry in old if entry.get(name) not in taken]
        else:
            merged[key] = value
    return merged


def written(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {written(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(written(entry) for entry in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def materials(folder):
    """A certificate, its key, a public key and a JWK set: what a configuration may name."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key", "-out", "cert",
            "-days", "365", "-subj", "/CN=api.example.com", "-addext", "subjectAltName=DNS:api.example.com,DNS:*.example.com")
    openssl("genrsa", "-out", "rsa", "2048")
    openssl("rsa", "-in", "rsa", "-pubout", "-out", "public")
    read = lambda name: (folder / name).read_text()
    jwks = '{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"1","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
    return {"cert": read("cert"), "key": read("key"), "public": read("public"), "jwks": jwks}


def provide(value, folder, made):
    """Makes each file that a configuration names; absolute paths move into the folder."""
    for key, entry in list(value.items()):
        for inner in entry if isinstance(entry, list) else [entry]:
            if isinstance(inner, dict):
                provide(inner, folder, made)
        if not isinstance(entry, str):
            continue
        text = {"cert": made["cert"], "ca": made["cert"], "client_ca": made["cert"], "key": made["key"],
                "public_key": made["public"], "jwks_file": made["jwks"]}.get(key)
        if key in ("secret_file", "password_file", "bearer_file", "sentinel_password_file", "bind_password_file"):
            text = "0123456789abcdef0123456789abcdef\n"
        if key == "url_file":
            text = "postgres://gate:password@db.example.com/app\n"
        if key == "firebase":
            text = '{"base64_signer_key": "MDEyMzQ1Njc4OWFiY2RlZg==", "base64_salt_separator": "Bw==", "rounds": 8, "mem_cost": 14}'
        if key == "authorization_file":
            text = "Bearer 0123456789abcdef0123456789abcdef\n"
        if key == "headers_file":
            text = "authorization: Bearer 0123456789abcdef0123456789abcdef\n"
        if key == "secret_hash_file":
            text = "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\n"
        if entry.startswith("/") and key in ("path", "keys", "token_file", "mark", "output", "cert", "ca", "client_ca") and (
            text or key in ("keys", "token_file", "mark", "output") or entry.endswith((".toml", ".redb", ".db"))
        ):
            entry = value[key] = entry.lstrip("/")
        if text:
            path = folder / entry
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(text)


def configuration(gate, place, above, block, made):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        try:
            if not block.lstrip("# ").startswith("["):
                # The rest of the section with which the comment ends.
                above, block = "", f"{above}\n{block}"
            merged = laid_over(laid_over(tomllib.loads(BASE), tomllib.loads(above)), tomllib.loads(block))
        except tomllib.TOMLDecodeError as error:
            problems.append(f"{place}: not TOML: {error}")
            return
        provide(merged, folder, made)
        if merged.get("store", {}).get("kind") in ("redis", "postgres"):
            # A shared store has keys beforehand.
            subprocess.run([gate, "--config", "none.toml", "init", "--dir", folder / "other"], capture_output=True)
            subprocess.run([gate, "--config", folder / "other/gateway.toml", "keys", "init"], capture_output=True)
            (folder / "other/data").rename(folder / "data")
        lines = [f"{json.dumps(key)} = {written(value)}" for key, value in merged.items()]
        (folder / "gateway.toml").write_text("\n".join(lines) + "\n")
        ran = subprocess.run([gate, "--config", "gateway.toml", "check"], cwd=folder, capture_output=True, text=True)
        if ran.returncode != 0:
            problems.append(f"{place}: rotogate check: {ran.stderr.strip()}")


# Commands


def commands(text):
    """The calls of rotogate in an sh block, without what surrounds them."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"\s#.*$", "", line).strip()
        for part in re.split(r"\s*(?:\||&&|;)\s*", line):
            if call := re.search(r"(?:^|.*\s)(?:/usr/bin/)?rotogate(\s.*)?$", part):
                if re.match(r"(?:sudo -u rotogate |docker compose (?:run --rm|exec) gate |kubectl .* -- )?(?:/usr/bin/)?rotogate(?:\s|$)", part):
                    yield re.sub(r"\s[<>].*$", "", call[1] or "")


def command(gate, place, arguments):
    ran = subprocess.run([gate, *shlex.split(arguments), "--help"], capture_output=True, text=True)
    if ran.returncode != 0:
        problems.append(f"{place}: rotogate{arguments}: {ran.stderr.strip().splitlines()[0]}")


def snippets(gate):
    work = []
    with tempfile.TemporaryDirectory() as scratch:
        made = materials(Path(scratch))
    for path in pages():
        for line, info, block, before in blocks(path.read_text()):
            place = f"{shown(path)}:{line}"
            words = re.split(r"[\s,]+", info)
            if words[0] == "toml" and "ignore" in words:
                if not before or before.startswith("toml:"):
                    problems.append(f"{place}: no reason for `ignore` in an HTML comment before it")
            elif words[0] == "toml":
                above = before.removeprefix("toml:") if before.startswith("toml:") else ""
                work.append((configuration, gate, place, above, block, made))
            elif words[0] == "sh":
                work += [(command, gate, place, arguments) for arguments in commands(block)]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(*each) for each in work]:
            done.result()
    return len(work)


# The configuration reference

REFERENCE = ROOT / "docs/configuration.md"
BEGIN, END = "<!-- keys: begin -->\n", "<!-- keys: end -->"


def split_comment(line):
    """A line of TOML and its comment; a # in a string begins none."""
    at = re.match(r"""(?:[^"'#]|"[^"]*"|'[^']*')*""", line).end()
    return line[:at].rstrip(), line[at:].lstrip("# ").rstrip()


def kind_of(text):
    """The type of a value, in words."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return ""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, dict):
        return "table"
    if isinstance(value, list):
        return "list"
    if isinstance(value, (int, float)):
        return "number"
    for kind, form in (
        ("duration", r"\d+(?:ms|s|m|h|d)"),
        ("size", r"\d+[KMG]iB"),
        ("share or number", r"\d+%"),
        ("rate", r"\d+/\d+[smh]"),
    ):
        if re.fullmatch(form, value):
            return kind
    return "text"


# The pages whose configurations have the keys of one kind of store, directory, issuer or dialect.
PAGES_OF_KINDS = ("redis", "postgres", "users", "directories", "issuers", "relay", "traces")


def sections():
    """gateway.toml, then the pages of kinds: (heading, keys, the heading's comment, page)."""
    yield from ((*section, None) for section in sections_of((ROOT / "gateway.toml").read_text()))
    for page in PAGES_OF_KINDS:
        text = (ROOT / f"docs/{page}.md").read_text()
        tables, found, above = [], [], None
        # A table of keys is of the section at the head of the configuration before it. It says more than that, so it is first.
        for part in re.finditer(r"(?ms)^```toml\b[^\n]*\n(.*?)^```$|^\| key(?: of `(\w+)`)? \|(.*?)\n(?!\|)", text):
            if part[1] is not None:
                inside = sections_of(part[1])
                found += inside
                above = inside[0] if inside else above
            elif above:
                kind = [entry for entry in above[1] if entry[0] == "kind"]
                tables.append([above[0], kind + keys_of_table(part[2], part[0]), ""])
        yield from ((*section, page) for section in tables + found)


def keys_of_table(prefix, table):
    """The rows of a table of keys, as those of a configuration."""
    head, _, *rows = ([c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.strip().splitlines())
    rest = [name for name in head if name != head[0]]
    keys = []
    for first, *cells in rows:
        row = dict(zip(rest, cells))
        default = next((text for name, text in row.items() if name.startswith("default")), "")
        meaning = next(text for name, text in row.items() if not name.startswith("default"))
        for name in re.findall(r"`([a-z_.]+)(?: = [^`]*)?`", first):
            keys.append([f"{prefix}.{name}" if prefix else name, Cell(default), False, meaning.replace("\\|", "|")])
    return keys


class Cell(str):
    """A default as a table has it, not a value."""


def sections_of(text):
    """A configuration as [[heading, [[key, value, is it a default, meaning]], the heading's comment]]."""
    found, last = [], None
    for line in text.splitlines():
        if continued := re.match(r"(?:# {20,}| {20,})#? ?(.*)", line):
            if last is not None:
                last[-1] += " " + continued[1].lstrip("# ")
            continue
        is_comment = line.startswith("# ")
        body, comment = split_comment(line[2:] if is_comment else line)
        if heading := re.fullmatch(r"(\[\[?[a-z_.]+\]?\])", body):
            last = [heading[1], [], comment]
            found.append(last)
        elif (key := re.fullmatch(r"([a-z0-9_]+) = (.+)", body)) and found:
            last = [key[1], key[2], not is_comment, comment]
            found[-1][1].append(last)
        else:
            last = None
    return found


def cell(text):
    return text.replace("|", "\\|").strip()


def declarations():
    """The keys that the sources declare with `section!`: {type: [(class, shown at a reload, field, key, type of the field)]}."""
    found = {}
    for path in sorted((ROOT / "crates/server/src/config/sections").rglob("*.rs")):
        for block in re.findall(r"(?ms)^section! \{\n(.*?)^\}\n", path.read_text()):
            name = re.search(r"(?m)^    (?:pub struct|impl) (\w+), read by", block)[1]
            line = r'(?m)^        (\w+)(?:\("(\w+)" if [\w:]+\))? (\w+)(?: as (?:some|"([^"]+)"))?: (?:(?:Vec|Option)<)?(\w+)'
            found[name] = [(kind, shown, field, key or field, of) for kind, shown, field, key, of in re.findall(line, block)]
    return found


def kept_by_a_reload():
    """The keys and sections that a running gate keeps, as their declarations say."""
    declared = declarations()
    names = set()
    for kind, shown, section, _, of in declared["Config"]:
        keys = declared.get(of, [])
        if kind == "each" and not keys:
            problems.append(f"the declaration of the keys of [{section}] was not found in the sources")
        if kind == "restart" and not shown or kind == "each" and all(kind in ("restart", "no_key") for kind, *_ in keys):
            names.add(section)
        elif kind == "each":
            names |= {f"{section}.{shown or key}" for kind, shown, _, key, _ in keys if kind == "restart"}
    if len(names) < 8:
        problems.append(f"only {len(names)} keys that a reload keeps were found in the sources")
    if "server.listen" in names:
        names |= {"server.listeners.address", "server.listeners.proxy_protocol"}
    return names


def change_of(heading, key, kept):
    name = f"{heading.strip('[]')}.{key}"
    parents = [name[:at] for at in range(len(name) + 1) if name[at : at + 1] in ("", ".")]
    return "upgrade" if any(parent in kept for parent in parents) else "reload"


def variant_of(keys):
    """What a section is of: one dialect, one kind of store or directory."""
    named = {key: value for key, value, *_ in keys}
    for key, usual in (("dialect", '"oauth2"'), ("kind", '"redb"')):
        if named.get(key, usual) != usual:
            return f" with {key} = {named[key]}"
    return ""


# A configuration with each section, and what each kind of a section takes besides. Their defaults are the program's own.
WHOLE = """
[server]
public_url = "http://127.0.0.1:8080"
[[server.listeners]]
address = "127.0.0.1:8443"
[issuer]
audience = ["api"]
[tracing]
endpoint = "http://127.0.0.1:4317"
[dpop]
[[clients]]
id = "web"
[[endpoints]]
dialect = "oauth2"
[[upstreams]]
name = "app"
urls = ["http://127.0.0.1:9000"]
[upstreams.health]
path = "/healthz"
[[routes]]
path = "/{*rest}"
upstream = "app"
[[resources]]
path = "/api"
[[authorizers]]
listen = "127.0.0.1:8090"
kind = "forward-auth"
neighbour = "nginx"
trusted_proxies = ["127.0.0.1/32"]
[[issuers]]
url = "https://idp.example.com"
audience = "x"
everywhere = true
discovery = true
[[issuers]]
url = "https://opaque.example.com"
audience = "x"
everywhere = true
introspection = { url = "https://opaque.example.com/i", client_id = "gate", secret_file = "secret" }
"""
# gateway.toml has a value for them, because nothing works without one: it is an example, no default.
REQUIRED = {
    ("[[clients]]", "id"): "required",
    ("[[endpoints]]", "dialect"): "required",
    ("[[upstreams]]", "name"): "required",
    ("[[upstreams]]", "urls"): "required",
    ("[[routes]]", "path"): "required",
    ("[[routes]]", "upstream"): "required, unless only `[[authorizers]]` serve the route",
}
# `config show --effective` does not name their default: WHOLE has another value, or the empty one is not printed.
UNNAMED_DEFAULTS = {
    ("[server]", "listen"), ("[server]", "max_connections_per_address"), ("[[issuers]]", "everywhere"),
    ("[directory]", "spring_pbkdf2_iterations"), ("[identity]", "headers"), ("[identity]", "claims"),
    ("[[routes]]", "hosts"), ("[[routes]]", "methods"), ("[[routes]]", "dangerous_forward_token"),
}
KINDS = {
    'directory "http"': '[directory]\nkind = "http"\nurl = "http://127.0.0.1:1/x"\n',
    'directory "ldap"': '[directory]\nkind = "ldap"\nurl = "ldaps://l.example"\nbase = "dc=x"\nfilter = "(uid={username})"\n'
    '[directory.groups]\nbase = "ou=g"\n',
    'directory "sql"': '[directory]\nkind = "sql"\nurl = "sqlite:u.db"\nauthenticate = "SELECT a AS subject, b AS password_hash FROM u '
    'WHERE c = {username}"\nlookup = "SELECT a AS subject FROM u WHERE a = {subject}"\n',
    'store "redis"': '[store]\nkind = "redis"\nurls = ["redis://127.0.0.1"]\n',
    'store "postgres"': '[store]\nkind = "postgres"\nurl = "postgres://gate@127.0.0.1/x"\n',
    'endpoints "kuzzle"': '[[endpoints]]\ndialect = "kuzzle"\npath = "/other"\n',
    'endpoints "envelope"': '[[endpoints]]\ndialect = "envelope"\npath = "/other"\n',
    'endpoints "knox"': '[[endpoints]]\ndialect = "knox"\n',
    'endpoints "my-sessions"': '[[endpoints]]\ndialect = "my-sessions"\npath = "/other"\n',
    'endpoints "relay"': '[[endpoints]]\ndialect = "relay"\npath = "/other"\ntoken_url = "https://idp.example.com/token"\n',
}


def defaults_of_the_program(gate):
    """{(section, variant): {key: default}}, by `rotogate config show --effective`."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder, "secret")
        secret.write_text("secret\n")
        secret.chmod(0o600)
        for kind, more in {"": "", **KINDS}.items():
            Path(folder, "gateway.toml").write_text(WHOLE + more)
            command = [gate, "--config", "gateway.toml", "--json", "config", "show", "--effective"]
            ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if ran.returncode != 0:
                problems.append(f"the configuration that shows defaults{kind and ' of ' + kind} is refused: {ran.stderr}")
            section, _, name = kind.replace('"', "").partition(" ")
            for entry in map(json.loads, ran.stdout.splitlines()):
                name_of, _, key = re.sub(r"\[\d+\]", "", entry["key"]).partition(".")
                if name_of == "server" and key.startswith("listeners."):
                    name_of, key = "server.listeners", key.removeprefix("listeners.")
                if entry["source"] == "default" and (not section or section == name_of):
                    value = entry["value"]
                    if isinstance(value, str):
                        value = value.replace(f"{Path(folder).resolve()}/", "").replace(f"{folder}/", "")
                    found.setdefault((name_of, name), {}).setdefault(key, value)
    return found


UNITS = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600, "day": 86400, "days": 86400, "d": 86400}
SIZES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def meant(value):
    """A value as a number of seconds or bytes where it is a duration or a size."""
    if isinstance(value, str):
        parts = value.split()
        times = [re.fullmatch(r"(\d+)(ms|s|m|h|days?|d)", part) for part in parts]
        if parts and all(times):
            return round(sum(int(part[1]) * UNITS[part[2]] for part in times), 3)
        if size := re.fullmatch(r"(\d+)([KMG]iB)", value):
            return int(size[1]) * SIZES[size[2]]
    return value


def shown_default(printed, default):
    """What the page has for the program's default: what is printed, if it means that; a share of something has no number."""
    literal = re.fullmatch(r"`([^`]+)`", printed)
    try:
        value = tomllib.loads(f"value = {literal[1]}")["value"] if literal else None
    except tomllib.TOMLDecodeError:
        value = literal[1]
    if value is not None and meant(value) == meant(default) or isinstance(value, str) and value.endswith("%"):
        return printed
    if value is None and printed not in ("", "required"):
        # Words, such as "the number of processors".
        return printed
    return f"`{toml_value(default)}`"


def toml_value(value):
    if isinstance(value, str):
        for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
            if isinstance(meant(value), (int, float)) and meant(value) >= size and meant(value) % size == 0:
                return f'"{int(meant(value) // size)}{unit}"' if unit != "d" or meant(value) > 86400 else '"24h"'
        return json.dumps(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2**16 and value % 2**10 == 0:
        return f'"{value // 2**20}MiB"' if value % 2**20 == 0 else f'"{value // 2**10}KiB"'
    return json.dumps(value)


def reference(gate):
    """The tables of docs/configuration.md: each key once, at its section or at its variant of it."""
    kept = kept_by_a_reload()
    defaults = defaults_of_the_program(gate)

    def default_of(heading, variant, key):
        section, _, rest = heading.strip("[]").partition(".")
        if heading.strip("[]") == "server.listeners":
            section, rest = "server.listeners", ""
        name = variant.rsplit("= ", 1)[-1].strip('"')
        key = f"{rest}.{key}" if rest else key
        for of in ((section, name), (section, "")):
            if key in defaults.get(of, {}):
                return defaults[of][key]
        return None
    tables = {}
    for heading, keys, comment, page in sections():
        if page and heading == "[[directories]]":
            # What is of a kind has the same keys in both.
            own = [entry for entry in keys if entry[0] in ("name", "accounts")]
            tables.setdefault((heading, ""), [comment, []])[1].extend((*entry[:2], False, entry[3], page) for entry in own)
            heading, keys = "[directory]", [entry for entry in keys if entry not in own]
        variant = variant_of(keys) if page or any(key == "dialect" for key, *_ in keys) else ""
        known = {entry[0] for entry in tables.get((heading, ""), (None, []))[1]}
        _, entries = table = tables.setdefault((heading, variant), [comment, []])
        known |= {entry[0] for entry in entries}
        for key, value, is_default, meaning in keys:
            if key not in known and (key, page) != ("kind", page or ""):
                known.add(key)
                entries.append((key, value, is_default and not page, meaning, page))
    # A table of keys has no values: their types are those of the page's configurations.
    kinds = {(page, key): kind_of(value) for _, keys, _, page in sections() for key, value, *_ in keys if not isinstance(value, Cell)}
    lines = []
    for (heading, variant), (comment, entries) in tables.items():
        if not entries:
            continue
        lines += ["", f"## {heading}{variant}", ""]
        if comment:
            text = re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", comment)
            lines += [text[0].upper() + text[1:] + ".", ""]
        lines += ["| key | type | default | change by | meaning |", "|---|---|---|---|---|"]
        for key, value, is_default, meaning, page in entries:
            text = re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", cell(meaning))
            own = default_of(heading, variant, key)
            if isinstance(value, Cell):
                default = shown_default(value, own) if own is not None else value
                kind = kind_of(toml_value(own)) if own is not None else kinds.get((page, key), "text")
                lines.append(f"| `{key}` | {kind} | {default} | {change_of(heading, key, kept)} | {text} ([{page}]({page}.md)) |")
                continue
            kind, value = kind_of(value), f"`{cell(value)}`"
            # A key that is commented out is shown with its default, too, if that is no name of something of the user's.
            is_default = is_default or not page and (
                kind not in ("text", "list", "table") and not re.search(r"(?i)\bunset:|\bdefault:", text)
            )
            required = REQUIRED.get((heading, key)) if not variant else None
            if required or text.startswith("required") and own is None:
                own, text = None, text.removeprefix("required").lstrip(": ")
                default, text = required or "required", f"{text}; such as {value}" if text else f"such as {value}"
            elif is_default:
                default = value
            else:
                named = re.search(r"(?i)\bdefault: ([^.;]+)", text)
                default, text = named[1] if named else "", f"{text}; such as {value}" if text else f"such as {value}"
            # Where "Unset:" says what it is without the key, the program's default is made from the other keys.
            if own not in (None, [], "") and not re.search(r"(?i)\bunset:", text):
                default = shown_default(default, own)
                text = text.removesuffix(f"; such as {default}")
            if default.startswith("`") and own is None and (heading + variant, key) not in UNNAMED_DEFAULTS:
                problems.append(f"{shown(REFERENCE)}: {heading}{variant} {key}: the program names no default, and the page has {default}")
            text += f" ([{page}]({page}.md))" if page else ""
            lines.append(f"| `{key}` | {kind} | {default} | {change_of(heading, key, kept)} | {text} |")
    return "\n".join(lines[1:]) + "\n"


def configuration_reference(gate, write):
    page = REFERENCE.read_text()
    head, rest = page.split(BEGIN)
    current = head + BEGIN + reference(gate) + END + rest.split(END)[1]
    if write:
        REFERENCE.write_text(current)
    elif current != page:
        problems.append("docs/configuration.md is not what gateway.toml says: python3 tests/docs.py --write")


def keys_of_the_program():
    """The keys that the sources declare, print or ask for."""
    folder = ROOT / "crates/server/src/config/sections"
    text = "\n".join(path.read_text() for path in sorted(folder.rglob("*.rs")))
    asked = re.findall(r'\.(?:get|get_or|get_file|require|required|list|list_or_empty|one_or_list|indexed|share_of|table|sections?)\(\s*"([a-z0-9_]+)"', text)
    put = re.findall(r'\bput(?:_some)?\(\s*&mut \w+,\s*"([a-z0-9_]+)"', text)
    declared = {key for keys in declarations().values() for kind, _, _, key, _ in keys if kind != "no_key" and key.isidentifier()}
    # Fields of `Config` are sections.
    return set(asked) | set(put) | declared


def completeness():
    """Each key that the program reads is on the page of the configuration, where each is in one table."""
    text = REFERENCE.read_text()
    code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"(?m)^## (.+)$", text)
    named = set(re.findall(r"[a-z][a-z0-9_]*", " ".join(code)))
    sections_named = set(re.findall(r"\[([a-z_.]+)\]", (ROOT / "gateway.toml").read_text()))
    named |= {name for section in sections_named for name in section.split(".")}
    keys = keys_of_the_program()
    if len(keys) < 200:
        problems.append(f"only {len(keys)} configuration keys were found in the sources")
    for key in sorted(keys - named):
        problems.append(f"{shown(REFERENCE)} does not have the key {key}: write it into gateway.toml or a page of {PAGES_OF_KINDS}")


def words_of_the_program(gate):
    """Each outcome, audit event, metric, command and exit code of the program, and the page that must name it."""
    read = lambda name: (ROOT / name).read_text()
    for source, pattern in (
        ("crates/core/src/reason.rs", r'Self::new\("(\w+)"'),
        ("crates/core/src/denial/table.rs", r'=> "(\w+)"'),
        ("crates/core/src/fault.rs", r'=> "(\w+)"'),
        ("crates/proxy/src/error.rs", r'=> "(\w+)"'),
    ):
        yield from (("docs/outcomes.md", f"| `{word}` |") for word in re.findall(pattern, read(source)))
    for action, code in re.findall(r'(?:good|bad)\("[\w.]+", "([\w.]+)", "(RG\d{4}[IW])"\)', read("crates/server/src/log/audit.rs")):
        yield ("docs/logs.md", f"| `{action}` | `{code}` |")
    families = read("crates/kit/src/metric_families.rs")
    for kind, name in re.findall(r'(?m)^    [A-Z_]+ = (Counter|Gauge|Histogram) "(\w+)"', families):
        prefix, suffix = "" if name.startswith("process_") else "rotogate_", "_total" if kind == "Counter" else ""
        yield ("docs/metrics.md", f"| `{prefix}{name}{suffix}` |")
    fields = re.findall(r'field\(\s*"([a-z_.]+)"', read("crates/server/src/log/access_fields.rs"))
    yield from (("docs/logs.md", f"| `{field}` |") for field in fields)
    yield from (("docs/operating.md", f"| {code} |") for code in (0, 1, 2))
    yield from (("docs/commands.md", f"\n## rotogate {name}\n") for name, _ in commands_of(gate))


def help_of(gate, words):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROTOGATE_")}
    ran = subprocess.run([gate, *words, "--help"], capture_output=True, text=True, check=True, env=environment)
    return "\n".join(line.rstrip() for line in ran.stdout.strip().splitlines())


def commands_of(gate, words=()):
    """The commands that have none below them, with their help."""
    text = help_of(gate, words)
    listed = re.search(r"(?ms)^Commands:\n(.*?)\n\n", text)
    below = re.findall(r"(?m)^  ([a-z-]+) ", listed[1]) if listed else []
    if not below:
        yield " ".join(words), text
    for name in below:
        if name != "help":
            yield from commands_of(gate, (*words, name))


# At the end of each help; the page has them once.
EXIT_CODES = """Exit codes: 0 done; 1 it could not be done, it was refused, or nothing matched; 2 the command line or the \
configuration is wrong."""
COMMANDS = ROOT / "docs/commands.md"


def command_reference(gate, write):
    parts = [COMMANDS.read_text().split("<!-- commands: begin -->")[0], "<!-- commands: begin -->\n"]
    for name, text in commands_of(gate):
        parts.append(f"\n## rotogate {name}\n\n```text\n{text.removesuffix(EXIT_CODES).rstrip()}\n```\n")
    page = "".join(parts) + "<!-- commands: end -->\n"
    if write:
        COMMANDS.write_text(page)
    elif page != COMMANDS.read_text():
        problems.append("docs/commands.md is not what rotogate --help says: python3 tests/docs.py --write")


# They have words of the reference in rows, too: by symptom, as ends of a response, as keys.
NO_REFERENCE = ("docs/refused.md", "docs/configuration.md")


def on_their_pages(gate):
    """Each word has its row on its page, and on no other page of the reference."""
    seen = 0
    texts = {str(shown(path)): path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
    for page, text in words_of_the_program(gate):
        seen += 1
        if text not in texts[page]:
            problems.append(f"{page} does not explain {text.strip('| ')}")
        if not text.startswith("| `"):
            continue
        row = re.compile(rf"(?m)^{re.escape(text)}")
        rows = {name: len(row.findall(other)) for name, other in texts.items() if name not in NO_REFERENCE}
        if page == "docs/outcomes.md":
            # How a response ended is another thing, with some of the same words.
            rows.pop("docs/logs.md")
        found = {name: count for name, count in rows.items() if count}
        if found != {page: 1}:
            problems.append(f"{text.strip('| ')} must be in one row of {page} alone, but: {found}")
    if seen < 220:
        problems.append(f"only {seen} words of the program were found")


def messages():
    """The errors and warnings of the application log, as the sources have them."""
    for path in sorted([*ROOT.glob("src/**/*.rs"), *ROOT.glob("crates/*/src/**/*.rs")]):
        if "tests" in path.relative_to(ROOT).parts or path.name == "tests.rs":
            continue
        source = path.read_text().split("#[cfg(test)]\nmod tests {")[0]
        for call in re.finditer(r"(?<![a-z_])(?:tracing::)?(?:error|warn)!\(", source):
            texts, depth, at = [], 1, call.end()
            while depth:
                if source[at] == '"':
                    text = re.compile(r'"((?:[^"\\]|\\.)*)"', re.S).match(source, at)
                    texts.append(text.group(1))
                    at = text.end()
                    continue
                depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(source[at], 0)
                at += 1
            body = source[call.end() : at]
            is_audit = "target: TARGET" in body or "rotogate::audit" in body
            if texts and not is_audit and not texts[-1].startswith("{"):
                yield re.sub(r"\\\n\s*", "", texts[-1]).replace('\\"', '"')


def messages_on_their_page():
    """Each message is explained in exactly one row of the page, by its beginning, and each row explains a message."""
    text = (ROOT / "docs/messages.md").read_text()
    rows = [
        (one or two).strip() for one, two in re.findall(r"^\| (?:`` (.+?) ``|`([^`]+)`) \|", text, re.M)
    ]
    found = set(messages())
    if len(found) < 100:
        problems.append(f"only {len(found)} messages were found in the sources")
    for row in rows:
        if not any(message.startswith(row) for message in found):
            problems.append(f"docs/messages.md: no message begins with: {row}")
    for message in sorted(found):
        # The longest row counts: one message may be the beginning of another.
        if not any(message.startswith(row) for row in rows):
            problems.append(f"docs/messages.md does not explain the message: {message}")
    for row in sorted(row for row in rows if rows.count(row) > 1):
        problems.append(f"docs/messages.md explains twice: {row}")


# Sentences begin with their subject, and an agent is named. Definitions in the lexicon and the table of tests are no sentences.
RIDDLES = re.compile(
    r"(?:^|[.:;] )(?:Who|Whoever|What|Whatever|In the place of) (?!\w+[^.]*\?)|\b(?:is|are) told\b|\bnobody reads\b|\bput aside\b|"
    r"\bstart anew\b|\bfind out who\b|\b[Ii]n the place of\b"
)


# Names of tests and mutations are no sentences either.
TABLES_OF_NAMES = re.compile(r"<!-- (tests|findings|mutations): begin -->.*?<!-- \1: end -->", re.S)


def prose():
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "gateway.toml"]:
        if path.name in ("lexicon.md", "commands.md"):
            continue
        text = without_blocks(TABLES_OF_NAMES.sub(lambda table: "\n" * table[0].count("\n"), path.read_text()))
        for number, line in enumerate(text.splitlines(), 1):
            # A heading or the bold name of a paragraph is no sentence.
            words = re.sub(r"^(?:#.*|[- ]*\*\*[^*]*\*\*)", "", re.sub(r"`[^`]*`", "x", line)).lstrip("-| ")
            if found := RIDDLES.search(words):
                problems.append(f"{shown(path)}:{number}: a sentence without its subject: {words[found.start():][:60]}")


def contents():
    """The contents of the book name each page of docs/ once."""
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs/SUMMARY.md").read_text())
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"SUMMARY.md"}
    for name in sorted(there ^ set(listed)) + sorted(name for name in set(listed) if listed.count(name) > 1):
        problems.append(f"docs/SUMMARY.md: {name} is not there exactly once")
    lines = len((ROOT / "README.md").read_text().splitlines())
    if lines > 120:
        problems.append(f"README.md has {lines} lines, more than 120")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gate", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="write the generated part of docs/configuration.md")
    options = parser.parse_args()
    gate = options.gate.resolve()
    configuration_reference(gate, options.write)
    command_reference(gate, options.write)
    completeness()
    contents()
    prose()
    on_their_pages(gate)
    messages_on_their_page()
    for path in pages():
        links(path)
    count = snippets(gate)
    for problem in problems:
        print(f"tests/docs.py: {problem}", file=sys.stderr)
    print(f"docs: {len(pages())} pages, {count} snippets, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
