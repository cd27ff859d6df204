#!/usr/bin/env python3
"""P6: a new configuration key does not compile until it is decided whether a reload applies it or a start does.

    tests/reload_classes.py        a build of the program's library; needs Rust

Adds a key to each type that has keys of both classes, in a copy of the sources, and asks the compiler where it misses
them. The other sections have one class each: a new section is a new key of `Config`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target/reload-classes"
SECTIONS = "crates/server/src/config/sections"
# The type, its file, and the file that decides about its keys.
TYPES = [
    ("Config", f"{SECTIONS}/mod.rs", "crates/server/src/server/operate/reload/config.rs"),
    ("ServerConfig", f"{SECTIONS}/server.rs", "crates/server/src/server/operate/reload/config.rs"),
    ("ListenerConfig", f"{SECTIONS}/listeners.rs", "crates/server/src/server/operate/reload/config.rs"),
    ("LimitsConfig", f"{SECTIONS}/limits.rs", "crates/server/src/server/operate/reload/config.rs"),
]
# E0027: a pattern does not mention the field.
UNDECIDED = "E0027"


def build():
    # As the documentation is built, beside it, so that no dependency is compiled twice.
    command = ["cargo", "check", "--lib", "--examples", "--all-features", "--message-format", "json"]
    env = {**os.environ, "CARGO_TARGET_DIR": os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))}
    run = subprocess.run(command, cwd=WORK, env=env, capture_output=True, text=True)
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return run, [line["message"] for line in lines if line.get("reason") == "compiler-message"]


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    for name in ["src", "crates", "proto", "tests", "benches", "examples", "docs"]:
        shutil.copytree(ROOT / name, WORK / name)
    for name in ["Cargo.toml", "Cargo.lock", "README.md", "gateway.toml", "rust-toolchain.toml", "clippy.toml"]:
        shutil.copy2(ROOT / name, WORK / name)
    shutil.copytree(ROOT / "packaging", WORK / "packaging")
    for name, file, _ in TYPES:
        path = WORK / file
        text, head = path.read_text(), f"pub struct {name} {{\n"
        if text.count(head) != 1:
            sys.exit(f"tests/reload_classes.py: {file} has no type {name}")
        path.write_text(text.replace(head, f"{head}    /// New.\n    pub new_key_of_{name.lower()}: bool,\n"))
    run, messages = build()
    missed = [
        (message["message"], span["file_name"])
        for message in messages
        if (message.get("code") or {}).get("code") == UNDECIDED
        for span in message["spans"]
    ]
    if not messages:
        print(run.stderr[-2000:], file=sys.stderr)
    undecided = [
        name
        for name, _, place in TYPES
        if not any(f"new_key_of_{name.lower()}`" in said and file.endswith(place) for said, file in missed)
    ]
    shutil.rmtree(WORK)
    for name in undecided:
        print(f"tests/reload_classes.py: a new key of {name} compiles without a decision", file=sys.stderr)
    print(f"P6: {len(TYPES) - len(undecided)} of {len(TYPES)} types: {'NOT met' if undecided else 'met'}")
    return 1 if undecided else 0


if __name__ == "__main__":
    sys.exit(main())
