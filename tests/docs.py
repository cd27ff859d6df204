#!/usr/bin/env python3
"""Do the README and the documentation hold? (requirements P64 and P65)

    tests/docs.py --gate target/debug/rotogate      part of tests/all.sh
    tests/docs.py                                   what needs no program: neither snippets, commands nor diagrams

- Each relative link of each *.md leads to a file, and its anchor to a heading there.
- Each ```toml block, laid over a small configuration, is one that `rotogate check` accepts. One that cannot stand alone says
  ```toml,ignore and has the reason in an HTML comment before it. A part of a section has what precedes it in such a
  comment: <!-- toml: [store] ... -->.
- A block with a comment <!-- part of FILE --> before it is in that file.
- Each line of an ```sh block that calls rotogate is a command line that rotogate understands.
- Each diagram is what its text says (tests/diagrams.py).
- docs/SUMMARY.md, the contents of the book, names each page once.
- Every outcome, audit event, metric, command and exit code is on its reference page.
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

sys.dont_write_bytecode = True
import diagrams  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
problems = []


def pages():
    folders = ("*.md", "docs/*.md", "docs/design/*.md", "crates/*/README.md", "packaging/**/*.md", "tests/*.md", "tests/mutations/*.md")
    folders += ("benches/*.md", "benches/*/*.md")
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


def laid_over(base, block, completes=False):
    """`block` over `base`; if `base` completes the block, also its entries with the same name."""
    merged = dict(base)
    for key, value in block.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            merged[key] = laid_over(old, value)
        elif key in NAMES and isinstance(old, list):
            name = "name" if completes and all("name" in entry for entry in value) else NAMES[key]
            known = {entry.get(name): entry for entry in old}
            new = [known.get(entry.get(name), {}) | entry for entry in value] if completes else value
            taken = {entry.get(name) for entry in value}
            merged[key] = new + [entry for entry in old if entry.get(name) not in taken]
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
        if isinstance(entry, list) and key in ("cert", "key"):
            for one in entry:
                provide({key: one}, folder, made)
        if not isinstance(entry, str):
            continue
        text = {"cert": made["cert"], "ca": made["cert"], "client_ca": made["cert"], "key": made["key"],
                "jwks_file": made["public"] if entry.endswith(".pem") else made["jwks"]}.get(key)
        if key == "key_file":
            text = made["key"]
        if key in ("secret_file", "password_file", "bearer_file", "sentinel_password_file", "bind_password_file") or (
            key == "token_file" and not entry.startswith("/")
        ):
            text = "0123456789abcdef0123456789abcdef\n"
        if key == "url_file":
            text = "postgres://gate:password@db.example.com/app\n"
        if key == "logo":
            text = '<svg xmlns="http://www.w3.org/2000/svg"/>'
        if key == "hash_parameters":
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
        if key == "output" and "/" in entry:
            # The gate makes no folder of logs.
            (folder / entry).parent.mkdir(parents=True, exist_ok=True)
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
            context = tomllib.loads(above)
            merged = laid_over(tomllib.loads(BASE), laid_over(context, tomllib.loads(block), completes=True))
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
            if before.startswith("part of "):
                file = ROOT / before.removeprefix("part of ")
                if not file.is_file() or block not in file.read_text():
                    problems.append(f"{place}: not a part of {shown(file)}")
            if words[0] == "toml" and "ignore" in words:
                if not before or before.startswith("toml:"):
                    problems.append(f"{place}: no reason for `ignore` in an HTML comment before it")
            elif words[0] == "toml":
                above = before.removeprefix("toml:") if before.startswith("toml:") else ""
                for section in dict.fromkeys(re.findall(r"(?m)^\s*(\[\[?\w+)", above)):
                    if section not in block:
                        problems.append(f"{place}: needs the section {section}], and does not say so in a comment of the block")
                work.append((configuration, gate, place, above, block, made))
            elif words[0] == "sh":
                work += [(command, gate, place, arguments) for arguments in commands(block)]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(*each) for each in work]:
            done.result()
    return len(work)


# The reference


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
    fields = re.findall(r'field\(\s*"([a-z_.]+)"', read("crates/server/src/log/tests/access_fields.rs"))
    yield from (("docs/logs.md", f"| `{field}` |") for field in fields)
    yield from (("docs/operating.md", f"| {code} |") for code in (0, 1, 2))
    if gate:
        yield from (("docs/commands.md", f"\n## {name}\n") for name, _ in commands_of(gate))


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
EXIT_CODES = """Exit codes: 0 the command succeeded; 1 it failed, was refused, or matched nothing; 2 the command line or the \
configuration is invalid."""
COMMANDS = ROOT / "docs/commands.md"


OPTION = re.compile(r"^ {2,6}(-\w, )?(--[\w-]+.*?)(?:  +(.*))?$")


def options_of(text):
    """The options in a help, each with its description in one line; and the text before them."""
    before, _, after = text.partition("\nOptions:\n")
    found = {}
    for line in after.splitlines():
        if option := OPTION.match(line):
            name = (option[1] or "") + option[2]
            found[name] = [option[3] or ""]
        elif line.strip():
            found[name].append(line.strip())
    # clap says of a help with paragraphs where the short one is.
    return {name: " ".join(lines).strip().removesuffix(" (see a summary with '-h')") for name, lines in found.items()}, before


def block(text, options):
    """A block with the text, and with the options in two columns."""
    options = {re.sub(r" (?=<[^ ]+>$)", "=", name): about for name, about in options.items()}
    width = max(map(len, options), default=0)
    lines = [f"{name:<{width}}  {about}".rstrip() for name, about in options.items()]
    parts = [text.replace("\nArguments:\n", "\n").strip(), "\n".join(lines)]
    lines = "\n\n".join(part for part in parts if part).splitlines()
    return "".join(f"    {line}".rstrip() + "\n" for line in lines)


# The commands whose options the page explains once: of all commands, and of those that ask the running gate.
SHARED = (("Every command has these options:", "serve"), ("A command with `--admin` asks the running gate:", "status"))


def command_reference(gate, write):
    commands = {name: options_of(text.removesuffix(EXIT_CODES).rstrip()) for name, text in commands_of(gate)}
    shared, parts = {}, [COMMANDS.read_text().split("<!-- commands: begin -->")[0], "<!-- commands: begin -->\n"]
    for about, name in SHARED:
        more = {option: text for option, text in commands[name][0].items() if option not in shared}
        shared |= more
        parts.append(f"\n{about}\n\n{block('', more)}")
    of_every = commands[SHARED[0][1]][0]
    every = [option for options, _ in commands.values() for option in options.items()]
    often = {option: about for option, about in every if every.count((option, about)) > 2 and option not in shared and about}
    parts.append(f"\nSeveral commands have these:\n\n{block('', often)}")
    of_every = commands[SHARED[0][1]][0]
    for name, (options, text) in commands.items():
        of_gate = [option.split()[0] for option in options if option in shared and option not in of_every]
        own = {option: "" if often.get(option) == about else about for option, about in options.items() if shared.get(option) != about}
        if of_gate and not {option.split()[0] for option in own} & set(of_gate):
            own[of_gate[0]] = ""
        # A usage line that only has the arguments below says nothing more.
        named = re.findall(r"(?m)^  ([\[<][^\s]+)", text.partition("\nArguments:\n")[2])
        text = text.replace("\n".join(["", " ".join([f"Usage: rotogate {name} [OPTIONS]", *named]), ""]), "")
        parts.append(f"\n## {name}\n\n{block(text, own)}")
    page = "".join(parts) + "<!-- commands: end -->\n"
    if write:
        COMMANDS.write_text(page)
    elif page != COMMANDS.read_text():
        problems.append("docs/commands.md is not what rotogate --help says: python3 tests/docs.py --write")


# It has words of the reference in rows, too: as keys.
NO_REFERENCE = ("docs/configuration.md",)


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


# Sentences begin with their subject, and an agent is named. Definitions in the lexicon are no sentences.
RIDDLES = re.compile(
    r"(?:^|[.:;] )(?:Who|Whoever|What|Whatever|In the place of) (?!\w+[^.]*\?)|\b(?:is|are) told\b|\bnobody reads\b|\bput aside\b|"
    r"\bstart anew\b|\bfind out who\b|\b[Ii]n the place of\b"
)


def prose():
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "gateway.toml", ROOT / "crates/config/reference.toml"]:
        if path.name in ("lexicon.md", "commands.md"):
            continue
        for number, line in enumerate(without_blocks(path.read_text()).splitlines(), 1):
            # A heading or the bold name of a paragraph is no sentence.
            words = re.sub(r"^(?:#.*|[- ]*\*\*[^*]*\*\*)", "", re.sub(r"`[^`]*`", "x", line)).lstrip("-| ")
            if found := RIDDLES.search(words):
                problems.append(f"{shown(path)}:{number}: a sentence without its subject: {words[found.start():][:60]}")
            if not line.startswith("|") and (found := re.search(r"[.;:)] - \S", line)):
                problems.append(f"{shown(path)}:{number}: an element of a list begins in the line: {line[found.start():][:60]}")


def contents():
    """The contents of the book name each page of docs/ once."""
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs/SUMMARY.md").read_text())
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"SUMMARY.md"}
    for name in sorted(there ^ set(listed)) + sorted(name for name in set(listed) if listed.count(name) > 1):
        problems.append(f"docs/SUMMARY.md: {name} is not there exactly once")
    lines = len((ROOT / "README.md").read_text().splitlines())
    if lines > 120:
        problems.append(f"README.md has {lines} lines, more than 120")


# Most words of the documents: sentences and blocks, and tables with the pages that the program writes. A new page may raise
# the first by 1 200.
MOST_PROSE = 60_000
MOST_IN_TABLES = 30_000


def size():
    """The documents stay short: who adds a page shortens another."""
    prose = tables = 0
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for line in path.read_text().splitlines():
            words = sum(1 for word in line.replace("|", " ").split() if word.strip("-:"))
            if line.lstrip().startswith("|") or path.name in ("commands.md", "configuration.md"):
                tables += words
            else:
                prose += words
    for words, most, what in [(prose, MOST_PROSE, "sentences and blocks"), (tables, MOST_IN_TABLES, "tables")]:
        if words > most:
            problems.append(f"docs: {words} words in {what}, more than {most}: shorten what is there before you add")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gate", type=Path)
    parser.add_argument("--write", action="store_true", help="write docs/commands.md")
    options = parser.parse_args()
    if options.write and not options.gate:
        parser.error("--write needs --gate")
    gate = options.gate and options.gate.resolve()
    if gate:
        command_reference(gate, options.write)
    contents()
    prose()
    size()
    on_their_pages(gate)
    for path in pages():
        links(path)
    count = 0
    if gate:
        problems.extend(diagrams.differences(gate.parent.parent))
        count = snippets(gate)
    for problem in problems:
        print(f"tests/docs.py: {problem}", file=sys.stderr)
    print(f"docs: {len(pages())} pages, {count} snippets, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
