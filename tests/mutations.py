#!/usr/bin/env python3
"""Are the tests of a requirement able to fail? Each entry of tests/mutations/*.toml takes one rule out of the program, in a
copy of the sources; the tests that prove the requirement must then fail.

    tests/mutations.py --check          every mutation still fits the sources, and every requirement has one (fast)
    tests/mutations.py [J1 T12 ...]     runs them: all, or those of these requirements or files (slow: each is a build)

    [[mutation]]
    proves = ["J1"]                     # the requirements whose rule is taken out
    what = "the header's algorithm is not compared"
    file = "src/token/verify.rs"
    from = '''...'''                    # occurs exactly once
    to = '''...'''
    tests = ["--lib j1_"]               # arguments of `cargo test --all-features`; each must run something, and fail
                                        # or a script that takes --gate: "tests/docs.py"
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

# No bytecode files beside the sources.
sys.dont_write_bytecode = True
from requirements import LATER, NUMBERS, WITHDRAWN  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target/mutations"
# Seconds after which tests that still run count as failed. The slowest take ten.
HANGS_AFTER = 180
# Stores that several gates share: these rules stand in scripts and functions of the store, or take servers and several
# gates to break. They have no mutation yet.
IN_STORES = {f"C{n}" for n in [5, 6, 7, 12, 13, 16, 21, 22, 25, 26, 31, *range(33, 37)]} | {"O6", "O7", "O8"}
# Those besides that a review or a bench shows, not a run, and the one whose script changes the sources itself.
EXCEPT = LATER | WITHDRAWN | IN_STORES | {"N29", "O11", "P6", "P34", "P57"}
COPIED = ["src", "crates", "tests", "proto", "benches", "examples", "docs", "packaging"]
FILES = ["Cargo.toml", "Cargo.lock", "README.md", "SECURITY.md", "gateway.toml", "clippy.toml", "deny.toml"]
FILES += ["rust-toolchain.toml", "rustfmt.toml", "CONTRIBUTING.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md"]
FILES += ["LICENSE-MIT", "LICENSE-APACHE", "justfile"]


def mutations():
    for path in sorted((ROOT / "tests/mutations").glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutation"]:
            yield path.name, entry


def required():
    return [number for number in NUMBERS if number not in EXCEPT]


def check():
    problems, proved = [], set()
    for file, entry in mutations():
        proved.update(entry["proves"])
        count = (ROOT / entry["file"]).read_text().count(entry["from"])
        if count != 1:
            problems.append(f"{file}: {entry['what']}: its text occurs {count} times in {entry['file']}, once is needed")
        if entry["from"] == entry["to"]:
            problems.append(f"{file}: {entry['what']}: changes nothing")
    for number in required():
        if number not in proved:
            problems.append(f"no mutation takes the rule of {number} out")
    for problem in problems:
        print(f"tests/mutations.py: {problem}", file=sys.stderr)
    return not problems


def copy():
    WORK.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.rmtree(WORK / name, ignore_errors=True)
        shutil.copytree(ROOT / name, WORK / name)
    for name in FILES:
        shutil.copy2(ROOT / name, WORK / name)


def cargo(arguments):
    """Builds, then runs. Tests that do not end have failed."""
    environment = {**os.environ, "CARGO_TERM_COLOR": "never"}
    command = ["cargo", "test", "--quiet", "--all-features", *arguments.split()]
    build = subprocess.run([*command, "--no-run"], cwd=WORK, env=environment, capture_output=True, text=True)
    if build.returncode != 0:
        return build.stderr, 0, 0
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--no-fail-fast"], cwd=WORK, env=environment, process_group=0, **pipes) as run:
        try:
            said, problems = run.communicate(timeout=HANGS_AFTER)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
            return "", 0, 1
    passed = sum(int(n) for n in re.findall(r"(\d+) passed", said))
    failed = sum(int(n) for n in re.findall(r"(\d+) failed", said))
    return problems, passed, failed


def script(arguments):
    """Runs a script on the program of this copy."""
    build = subprocess.run(["cargo", "build", "--quiet", "--all-features"], cwd=WORK, capture_output=True, text=True)
    if build.returncode != 0:
        return build.stderr, 0, 0
    metadata = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=WORK, capture_output=True, text=True)
    gate = Path(json.loads(metadata.stdout)["target_directory"]) / "debug/rotogate"
    ran = subprocess.run(["python3", *shlex.split(arguments), "--gate", gate], cwd=WORK, capture_output=True, text=True)
    return ran.stderr, int(ran.returncode == 0), int(ran.returncode == 1)


def run(wanted):
    copy()
    survivors, done = [], 0
    for file, entry in mutations():
        if wanted and not wanted & {file, *entry["proves"]}:
            continue
        path = WORK / entry["file"]
        whole = path.read_text()
        path.write_text(whole.replace(entry["from"], entry["to"]))
        for arguments in entry["tests"]:
            said, passed, failed = (script if ".py" in arguments else cargo)(arguments)
            built = passed + failed > 0
            if not built or failed == 0:
                why = "does not build, or runs nothing" if not built else f"{passed} tests pass all the same"
                survivors.append(f"{entry['what']} ({' '.join(entry['proves'])}): {arguments}: {why}")
                if not built:
                    print(said[-1500:], file=sys.stderr)
            done += 1
            print(f"{' '.join(entry['proves']):14} {'found' if built and failed else 'SURVIVED':9} {entry['what']}", flush=True)
        path.write_text(whole)
    for survivor in survivors:
        print(f"tests/mutations.py: {survivor}", file=sys.stderr)
    print(f"{done} runs, {len(survivors)} without a failure")
    return not survivors and done > 0


arguments = sys.argv[1:]
sys.exit(0 if (check() if arguments == ["--check"] else run(set(arguments))) else 1)
