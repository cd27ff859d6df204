#!/usr/bin/env python3
"""Are the diagrams of docs/diagrams what their text says?

    tests/diagrams.py [--write]      tests/docs.py asks it, too

Each *.d2 beside an SVG is its text (D2, https://d2lang.com; npm has it, pinned in tests/diagrams). The text of crates.svg is made of
the manifests: an arrow leads from a crate to each that it depends on, unless a longer way leads there.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs/diagrams"
TESTS = ROOT / "tests/diagrams"


def crates():
    """Each crate of the product, and the others that it names in [dependencies]."""
    manifests = [tomllib.loads(path.read_text()) for path in (ROOT / "Cargo.toml", *sorted(ROOT.glob("crates/*/Cargo.toml")))]
    names = {manifest["package"]["name"] for manifest in manifests} - {"rotogate-test-support"}
    return {
        manifest["package"]["name"]: {name for name in manifest.get("dependencies", {}) if name in names}
        for manifest in manifests
        if manifest["package"]["name"] in names
    }


def below(graph, name):
    return set().union(*({one} | below(graph, one) for one in graph[name]))


def crates_text():
    graph = crates()
    lines = ["# The crates: an arrow leads to a dependency."]
    for name in sorted(graph):
        lines.append(f'{name}: {name.removeprefix("rotogate-")}')
    for name in sorted(graph):
        indirect = set().union(*(below(graph, one) for one in graph[name]))
        lines += [f"{name} -> {one}" for one in sorted(graph[name] - indirect)]
    return "\n".join(lines) + "\n"


def drawn(cache):
    texts = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.d2"))} | {"crates": crates_text()}
    subprocess.run(["bash", TESTS / "install.sh", cache], check=True)
    shutil.copy(TESTS / "render.mjs", cache)
    ran = subprocess.run(["node", "render.mjs"], cwd=cache, input=json.dumps(texts), capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"tests/diagrams.py: {ran.stderr.strip()}")
    return json.loads(ran.stdout)


def differences(target, write=False):
    """What is wrong with the SVG files, after they were written if that is asked for."""
    for name, svg in drawn(target / "interop-cache/diagrams").items():
        path = FOLDER / f"{name}.svg"
        if write:
            path.write_text(svg + "\n")
        elif not path.exists() or path.read_text() != svg + "\n":
            yield f"{path.relative_to(ROOT)} is not what its text says: python3 tests/diagrams.py --write"
        if 'url("http' in svg or 'href="http' in svg:
            yield f"{path.relative_to(ROOT)} names another resource"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    problems = list(differences(ROOT / "target", parser.parse_args().write))
    for problem in problems:
        print(f"tests/diagrams.py: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
