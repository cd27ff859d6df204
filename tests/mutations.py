#!/usr/bin/env python3
"""Are the tests of a requirement able to fail? Each entry of tests/mutations/*.toml takes one rule out of the program, in a
copy of the sources; the tests that prove the requirement must then fail.

    tests/mutations.py --check              each mutation fits the sources, names tests that exist, and every requirement has
                                            one; tests/mutations/RESULTS.md has what the ledger says (fast)
    tests/mutations.py                      runs those without a current result: never-run ones first, then the oldest, each with
                                            others of the same build
    tests/mutations.py J1 T12 keys.toml     runs those of these requirements, files or names (`what`), whatever the ledger says
    tests/mutations.py --stop-after 30      begins none after 30 minutes; --lib: those of unit tests alone; both go with the above
    tests/mutations.py --table              writes the tables of tests/mutations/RESULTS.md, as each run does at its end

    [[mutation]]
    proves = ["J1"]                     # the requirements whose rule is taken out
    what = "the header's algorithm is not compared"
    file = "src/token/verify.rs"
    from = '''...'''                    # occurs exactly once
    to = '''...'''
    tests = ["--lib j1_"]               # [-p PACKAGE] --lib or --test NAME, and filters; each must run something, and fail in a crate
                                        # or a script that takes --gate: "tests/docs.py"

Each result is a line of tests/mutations/ledger.jsonl. It is current as long as the entry and the text of its tests are the
same. A commit of the ledger is the last one that changed the sources, with a + if there were changes beside it.
"""

import datetime
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

# No bytecode files beside the sources.
sys.dont_write_bytecode = True
import mutants  # noqa: E402
from requirements import REQUIREMENTS, TEST  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target/mutations"
LEDGER = ROOT / "tests/mutations/ledger.jsonl"
DOCUMENT = ROOT / "tests/mutations/RESULTS.md"
# Seconds after which tests that still run count as failed. The slowest take ten.
HANGS_AFTER = 180
# Mutations in one build, and between two runs of their tests without one.
CHUNK = 25
COPIED = ["adapters/actix", "adapters/pingora", "src", "crates", "tests", "proto", "benches", "examples", "docs", "packaging"]
COPIED += ["requirements"]
FILES = ["Cargo.toml", "Cargo.lock", "README.md", "SECURITY.md", "gateway.toml", "clippy.toml", "deny.toml"]
FILES += ["rust-toolchain.toml", "rustfmt.toml", "CONTRIBUTING.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md"]
FILES += ["LICENSE-MIT", "LICENSE-APACHE", "justfile"]
# What a build is made of, for the commit of a result.
SOURCES = ["src", "crates", "proto", "build.rs", "Cargo.toml", "Cargo.lock", ":(glob)tests/**/*.rs"]
# A macro with the tests that crates of stores have in common, and what calls it.
SUITE = ROOT / "crates/core/src/store/conformance/suite.rs"
CALLS_SUITE = "rotogate_core::shared_store_suite!();"
# A target of tests/fuzz.
FUZZED = re.compile(r"^target!\(\s*(?:///.*\s*)*(\w+),", re.M)
PROGRAM = "rotogate-server"
FOLDERS = {mutants.package(folder): folder.rstrip("/") for folder in mutants.CRATES}
# Own crates without optimisation, and nothing for a debugger: most of the time of a mutation is its build.
QUICK = {"CARGO_INCREMENTAL": "1", "CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_PROFILE_DEV_OPT_LEVEL": "0", "CARGO_TERM_COLOR": "never"}
ENVIRONMENT = {**{name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}, **QUICK}


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def without_comments(text):
    """Another comment in a test is the same test."""
    return "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("//"))


class Tests:
    """The tests in the sources, each as (path as cargo prints it, nearly; its text)."""

    def __init__(self):
        server = tomllib.loads((ROOT / "crates/server/Cargo.toml").read_text())
        self.of_server = {test["name"] for test in server["test"]}
        self.found = {}

    def group(self, target, package):
        """The tests of `--lib` of a package, or of a test binary."""
        key = (target, package)
        if key not in self.found:
            if target == "--lib":
                base = ROOT / FOLDERS[package]
                files = sorted(base.rglob("*.rs"))
            else:
                base, name = ROOT / "tests", target.removeprefix("--test ")
                top = base / f"{name}.rs" if (base / f"{name}.rs").exists() else base / name / "main.rs"
                modules = re.findall(r"^(?:pub )?mod (\w+);", top.read_text(), re.M)
                inner = base if top.parent == base else top.parent
                files = [top] + [f for m in modules for f in [inner / f"{m}.rs", *sorted((inner / m).rglob("*.rs"))] if f.exists()]
                base = inner
            self.found[key] = [test for file in files for test in self.of_file(file, base)]
        return self.found[key]

    @staticmethod
    def of_file(file, base):
        if file == SUITE:
            return
        text = file.read_text()
        text += SUITE.read_text() if CALLS_SUITE in text else ""
        path = "::".join(part for part in file.relative_to(base).with_suffix("").parts if part not in ("mod", "lib", "main"))
        for match in [*TEST.finditer(text), *FUZZED.finditer(text)]:
            indent = re.match(r" *", text[text.rfind("\n", 0, match.start()) + 1 :]).group()
            end = text.find(f"\n{indent}}}", match.end())
            for name in (f"{path}::{match[1]}", f"{path}::tests::{match[1]}"):
                yield name, without_comments(text[match.start() : end])

    def runs(self, arguments):
        """The runs of cargo for the arguments of an entry: (package, target, filters, hash or None if there is no such test)."""
        words = [word for word in arguments.split() if word != "--"]
        package = words[1] if words[0] == "-p" else None
        words = words[2:] if package else words
        target, filters = (words[0], words[1:]) if words[0] == "--lib" else (" ".join(words[:2]), words[2:])
        if target != "--lib":
            packages = [PROGRAM if words[1] in self.of_server else "rotogate"]
        else:
            packages = [package] if package else list(FOLDERS)
        runs = []
        for package in packages:
            tests = self.group(target, package)
            texts = sorted({text for name, text in tests if any(part in name for part in filters)})
            if texts:
                runs.append((package, target, tuple(filters), sha("\0".join(texts))))
            missing = [part for part in filters if not any(part in name for name, _ in tests)]
            if missing and len(packages) == 1:
                return [(package, target, tuple(missing), None)]
        return runs or [(packages[0], target, tuple(filters), None)]


class Entry:
    def __init__(self, toml, entry, tests):
        self.toml, self.proves, self.what, self.file = toml, entry["proves"], entry["what"], entry["file"]
        self.old, self.new = entry["from"], entry["to"]
        self.scripts = [t for t in entry["tests"] if ".py" in t]
        named = [(t, tests.runs(t)) for t in entry["tests"] if ".py" not in t]
        self.runs = list(dict.fromkeys(run for _, runs in named for run in runs))
        # A filter without a package has a run in each crate with such tests, of which those of one must fail.
        self.groups = [runs for _, runs in named] + [[script] for script in self.scripts]
        self.dead = [t for t, runs in named if any(run[3] is None for run in runs)]
        self.dead += [t for t in self.scripts if not (ROOT / t.split()[0]).exists()]
        self.entry = sha(json.dumps(entry, sort_keys=True))
        texts = [] if self.dead else [(ROOT / t.split()[0]).read_text() for t in self.scripts]
        self.tests = sha("\0".join([*(run[3] or "" for run in self.runs), *texts]))
        self.last = None

    def is_current(self):
        return self.last is not None and self.last["entry"] == self.entry and self.last["tests"] == self.tests

    def kind(self):
        """What has to be built: entries of one kind follow one another."""
        built = sorted({(target != "--lib", package, target) for package, target, _, _ in self.runs})
        return bool(self.scripts), any(other for other, _, _ in built), built

    def result(self):
        return self.last["result"] if self.is_current() else "not run"


def entries():
    tests = Tests()
    last = {}
    if LEDGER.exists():
        for line in LEDGER.read_text().splitlines():
            record = json.loads(line)
            last[(record["file"], record["what"])] = record
    for path in sorted((ROOT / "tests/mutations").glob("*.toml")):
        for raw in tomllib.loads(path.read_text())["mutation"]:
            entry = Entry(path.name, raw, tests)
            entry.last = last.get((entry.toml, entry.what))
            yield entry


def check():
    problems, proved, seen = [], set(), set()
    everything = list(entries())
    for entry in everything:
        proved.update(entry.proves)
        name = f"{entry.toml}: {entry.what}"
        count = (ROOT / entry.file).read_text().count(entry.old)
        if count != 1:
            problems.append(f"{name}: its text occurs {count} times in {entry.file}, once is needed")
        if entry.old == entry.new:
            problems.append(f"{name}: changes nothing")
        if name in seen:
            problems.append(f"{name}: occurs twice")
        seen.add(name)
        problems += [f"{name}: there is no test for `{arguments}`" for arguments in entry.dead]
    bare = [r.number for r in REQUIREMENTS.values() if r.number not in proved and not r.no_mutation]
    problems += [f"no mutation takes the rule of {number} out" for number in bare]
    if DOCUMENT.read_text() != tables(everything):
        problems.append("tests/mutations/RESULTS.md is not what ledger and tests say: run tests/mutations.py --table")
    for problem in problems:
        print(f"tests/mutations.py: {problem}", file=sys.stderr)
    return not problems


def replaced(text, name, table):
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        sys.exit(f"tests/mutations.py: {DOCUMENT} has no marks for {name}")
    return f"{head}{begin}{table}{end}{tail}"


def between(text, name):
    return text.partition(f"<!-- {name}: begin -->\n")[2].partition(f"<!-- {name}: end -->\n")[0]


def of_files(everything):
    lines = ["| file | mutations | last commit | killed | survived | not run |\n", "|---|---|---|---|---|---|\n"]
    total = [0, 0, 0, 0]
    for toml in dict.fromkeys(entry.toml for entry in everything):
        those = [entry for entry in everything if entry.toml == toml]
        ran = [entry.last for entry in those if entry.is_current()]
        commit = max(ran, key=lambda record: record["date"])["commit"] if ran else "—"
        killed = sum(record["result"] == "killed" for record in ran)
        survived = sum(record["result"] == "survived" for record in ran)
        counts = [len(those), killed, survived, len(those) - killed - survived]
        total = [sum(pair) for pair in zip(total, counts)]
        lines.append(f"| `{toml}` | {counts[0]} | {commit} | {counts[1]} | {counts[2]} | {counts[3]} |\n")
    lines.append(f"| all | {total[0]} | | {total[1]} | {total[2]} | {total[3]} |\n")
    bad = [entry for entry in everything if entry.result() not in ("killed", "not run")]
    if bad:
        lines.append("\nNot killed:\n\n")
        lines += [f"- `{e.toml}`, {', '.join(e.proves)}: {e.what} ({e.result()})\n" for e in bad]
    return "".join(lines)


def of_findings(everything, written):
    """Adds to each finding, from its requirements, the number of mutations in each file, and how many were killed."""
    lines = ["| finding | what | requirements | mutations (killed) |\n", "|---|---|---|---|\n"]
    for line in written.splitlines()[2:]:
        finding, what, cell = [part.strip() for part in line.strip("|").split("|")][:3]
        numbers = set()
        for first, last in re.findall(r"\b([A-Z]\d+)(?: to ([A-Z]\d+))?", re.sub(r"`[^`]*`", "", cell)):
            numbers |= {f"{first[0]}{n}" for n in range(int(first[1:]), int((last or first)[1:]) + 1)}
        counts = {}
        for entry in everything:
            if numbers.intersection(entry.proves):
                count = counts.setdefault(entry.toml, [0, 0])
                count[0] += 1
                count[1] += entry.result() == "killed"
        shown = ", ".join(f"`{toml}` {of_file} ({killed})" for toml, (of_file, killed) in counts.items())
        lines.append(f"| {finding} | {what} | {cell} | {shown or '—'} |\n")
    return "".join(lines)


def tables(everything):
    text = DOCUMENT.read_text()
    text = replaced(text, "findings", of_findings(everything, between(text, "findings")))
    return replaced(text, "mutations", of_files(everything))


def copy():
    """Makes the work copy like the sources. A file that is the same is left alone, so cargo builds what changed, and it builds
    again what a run that was cut short had mutated."""
    wanted = {}
    for name in [*COPIED, *FILES]:
        path = ROOT / name
        for file in [path] if path.is_file() else (f for f in path.rglob("*") if f.is_file()):
            wanted[WORK / file.relative_to(ROOT)] = file
    for name in COPIED:
        for file in [f for f in (WORK / name).rglob("*") if f.is_file()]:
            if file not in wanted:
                file.unlink()
    for to, file in wanted.items():
        if not to.exists() or to.read_bytes() != file.read_bytes():
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(file.read_bytes())
        to.chmod(file.stat().st_mode)


def commit():
    def git(*arguments):
        return subprocess.run(["git", *arguments, "--", *SOURCES], cwd=ROOT, capture_output=True, text=True)

    changed = git("diff", "--quiet", "HEAD").returncode != 0
    return git("log", "-1", "--abbrev=8", "--format=%h").stdout.strip() + ("+" if changed else "")


def command(package, target):
    return ["cargo", "test", "--quiet", "--all-features", "-p", package, *target.split()]


def build(package, target):
    """What the compiler says; None if it builds."""
    built = subprocess.run([*command(package, target), "--no-run"], cwd=WORK, env=ENVIRONMENT, capture_output=True, text=True)
    return built.stderr if built.returncode != 0 else None


def cargo(package, target, filters, mutant=0):
    """Builds, then runs. Returns what was said, and the numbers of tests that passed and failed; None if it does not build. Tests
    that do not end have failed."""
    if wrong := build(package, target):
        return wrong, None, None
    environment = {**ENVIRONMENT, "MUTANT": str(mutant)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    run = [*command(package, target), "--", *filters]
    with subprocess.Popen(run, cwd=WORK, env=environment, process_group=0, **pipes) as tests:
        try:
            said, _ = tests.communicate(timeout=HANGS_AFTER * max(1, len(filters) // 4))
        except subprocess.TimeoutExpired:
            os.killpg(tests.pid, signal.SIGKILL)
            tests.communicate()
            return "the tests do not end", 0, 1
    passed = sum(int(n) for n in re.findall(r"(\d+) passed", said))
    failed = sum(int(n) for n in re.findall(r"(\d+) failed", said))
    return said, passed, failed


def script(arguments):
    """Runs a script on the program of this copy."""
    command = ["cargo", "build", "--quiet", "--all-features"]
    build = subprocess.run(command, cwd=WORK, env=ENVIRONMENT, capture_output=True, text=True)
    if build.returncode != 0:
        return build.stderr, None, None
    command = ["python3", *shlex.split(arguments), "--gate", WORK / "target/debug/rotogate"]
    ran = subprocess.run(command, cwd=WORK, capture_output=True, text=True)
    return ran.stderr, int(ran.returncode == 0), int(ran.returncode == 1)


def sound(chunk):
    """Leaves out what fails without a mutation: it would prove nothing."""
    failing, bad_scripts = {}, set()
    for package, target in dict.fromkeys(run[:2] for entry in chunk for run in entry.runs):
        filters = sorted({f for entry in chunk for run in entry.runs if run[:2] == (package, target) for f in run[2]})
        said, passed, failed = cargo(package, target, filters)
        if passed is None or (failed and "failures:" not in said):
            sys.exit(f"tests/mutations.py: {package} {target}, without a mutation: {said[-1500:]}")
        failing[package, target] = set(re.findall(r"^    ([\w:]+)$", said, re.M)) if failed else set()
    for arguments in dict.fromkeys(s for entry in chunk for s in entry.scripts):
        if not script(arguments)[1]:
            bad_scripts.add(arguments)
    for entry in chunk:
        bad = {name for run in entry.runs for name in failing[run[:2]] if any(f in name for f in run[2])}
        bad |= bad_scripts & set(entry.scripts)
        if bad:
            print(f"{'skipped':16} {entry.toml}: {entry.what}: fails without it: {', '.join(sorted(bad))}", flush=True)
        else:
            yield entry


def texts(file):
    return (ROOT / file).read_text()


def write(files):
    for file, text in files.items():
        (WORK / file).write_text(text)


def build_together(chunk):
    """Builds as many of the mutations at once as can be switched. Returns them by number; those of a file that does not compile so
    are left out. Leaves the files as they are then."""
    together = [entry for entry in chunk if not entry.scripts]
    while together:
        files, numbers = mutants.switched(texts, together)
        write(files)
        wrong = [said for run in dict.fromkeys(run[:2] for entry in chunk for run in entry.runs) if (said := build(*run))]
        if not wrong:
            return files, numbers
        write({file: texts(file) for file in files})
        named = set(re.findall(r"--> ([\w/.-]+):\d", wrong[0])) & set(files)
        together = [entry for entry in together if named and entry.file not in named]
    return {}, {}


def result(entry, mutant=0):
    """The mutation is in the sources, or chosen by its number. It is killed if a run of each group fails."""
    result = "killed"
    for group in entry.groups:
        passing = []
        for run in group:
            said, passed, failed = script(run) if isinstance(run, str) else cargo(*run[:3], mutant)
            if passed is None:
                print(said[-1500:], file=sys.stderr)
                return "does not compile"
            if failed:
                break
            passing.append(f"{passed} tests pass all the same: {run if isinstance(run, str) else ' '.join([*run[:2], *run[2]])}")
        else:
            print(*passing, sep="\n")
            result = "survived"
    return result


def judged(chunk):
    """Each mutation with its result. What survives in the common build is tried alone: a test may hide the number of the
    mutation from a program that it starts."""
    files, numbers = build_together(chunk)
    try:
        good = list(sound(chunk))
        killed = []
        for number, entry in numbers.items():
            if entry in good and result(entry, number) == "killed":
                killed.append(entry)
                yield entry, "killed"
    finally:
        write({file: texts(file) for file in files})
    for entry in good:
        if entry not in killed:
            try:
                write({entry.file: texts(entry.file).replace(entry.old, entry.new)})
                yield entry, result(entry)
            finally:
                write({entry.file: texts(entry.file)})


def run(wanted, stop_after, lib_alone):
    started = time.monotonic()
    copy()
    planned = [e for e in entries() if not e.dead and (wanted & {e.toml, e.what, *e.proves} if wanted else not e.is_current())]
    if lib_alone:
        planned = [e for e in planned if not e.scripts and all(target == "--lib" for _, target, _, _ in e.runs)]
    planned.sort(key=lambda e: (e.last["date"] if e.last else "", e.kind(), e.file))
    results, at = [], commit()

    def is_over():
        return stop_after is not None and time.monotonic() - started > stop_after * 60

    while planned and not is_over():
        kind = planned[0].kind()
        chunk = [e for e in planned if e.kind() == kind][:CHUNK]
        planned = [e for e in planned if e not in chunk]
        for entry, outcome in judged(chunk):
            results.append(outcome)
            entry.last = {
                "file": entry.toml,
                "what": entry.what,
                "entry": entry.entry,
                "tests": entry.tests,
                "commit": at,
                "result": outcome,
                "date": datetime.date.today().isoformat(),
            }
            with LEDGER.open("a") as ledger:
                ledger.write(json.dumps(entry.last, ensure_ascii=False) + "\n")
            print(f"{outcome:16} {' '.join(entry.proves):14} {entry.toml}: {entry.what}", flush=True)
            if is_over():
                break
    DOCUMENT.write_text(tables(list(entries())))
    bad = sum(outcome != "killed" for outcome in results)
    print(f"{len(results)} mutations, {bad} of them not killed, {(time.monotonic() - started) / 60:.0f} minutes")
    return bad == 0


def main(arguments):
    if arguments == ["--check"]:
        return check()
    if arguments == ["--table"]:
        DOCUMENT.write_text(tables(list(entries())))
        return True
    stop_after = None
    if "--stop-after" in arguments:
        at = arguments.index("--stop-after")
        stop_after = float(arguments[at + 1])
        del arguments[at : at + 2]
    wanted = set(arguments) - {"--lib"}
    if unknown := {word for word in wanted if word.startswith("-")}:
        sys.exit(f"tests/mutations.py: unknown: {' '.join(sorted(unknown))}")
    return run(wanted, stop_after, "--lib" in arguments)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
