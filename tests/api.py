#!/usr/bin/env python3
"""The public API of the library, as docs.rs shows it: one line for each name, in docs/api.txt.

    tests/api.py            is docs/api.txt what the sources say? Part of tests/all.sh
    tests/api.py --write    writes it

A change of the API is a change of that file, so that a review sees it. What is hidden from docs.rs has no line: the program
uses it, and it changes with the program. The lines come from rustdoc's JSON, which a stable toolchain writes with
RUSTC_BOOTSTRAP=1, for what `cargo test --workspace --all-features` has built.

Either way it checks what docs.rs shows. A warning of rustdoc, such as a broken link, is an error. Each module, type, trait
and function has an example that `cargo test --doc` compiles. No text has a requirement number (`R12`): requirements/*.toml
has those, and docs.rs does not show them.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "api.txt"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# The crates whose names `rotogate` shows.
PARTS = ("rotogate_core", "rotogate_issuers", "rotogate_store_postgres", "rotogate_store_redb", "rotogate_store_redis")
# What has an example of its own. The fields, variants and methods of a type are in the type's.
WITH_EXAMPLE = {"module", "struct", "enum", "trait", "function"}
# Not a byte of a URL, as %C3.
NUMBER = re.compile(r"(?<!%)\b[ACIJNOPRT][0-9]{1,2}\b")


# `cargo test --doc` starts this in place of rustdoc, with the libraries that the tests were built with. `cargo doc` would check each
# of some 400 dependencies once more.
RUSTDOC = """#!/usr/bin/env python3
import os, sys
arguments, rest = [], iter(sys.argv[1:])
for argument in rest:
    if argument == "--test-run-directory":
        next(rest)
    elif argument != "--test":
        arguments.append(argument)
os.environ["RUSTC_BOOTSTRAP"] = "1"
os.execvp("rustdoc", ["rustdoc", *arguments, "--out-dir", "OUT"])
"""


def documented():
    """rustdoc's JSON of the libraries, by name."""
    target = TARGET.resolve()
    written = target / "api"
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir(parents=True)
    wrapper = written / "rustdoc"
    wrapper.write_text(RUSTDOC.replace("OUT", str(written)))
    wrapper.chmod(0o755)
    flags = "-D warnings -Z unstable-options --output-format json --document-hidden-items"
    command = ["cargo", "test", "--quiet", "--workspace", "--all-features", "--doc"]
    environment = {**os.environ, "RUSTDOC": str(wrapper), "RUSTDOCFLAGS": flags, "CARGO_TARGET_DIR": str(target)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"tests/api.py: rustdoc failed: {run.stderr}")
    return {name: json.loads((written / f"{name}.json").read_text()) for name in ("rotogate", *PARTS)}


def features():
    """How the table of features in src/lib.rs differs from Cargo.toml."""
    table = dict(re.findall(r"(?m)^//! \| `([\w-]+)` \| (yes|no) \|", (ROOT / "src/lib.rs").read_text()))
    declared = tomllib.loads((ROOT / "Cargo.toml").read_text())["features"]
    default = declared.pop("default")
    wanted = {name: "yes" if name in default else "no" for name in declared}
    for name in sorted(wanted.keys() | table.keys()):
        if wanted.get(name) != table.get(name):
            yield f"feature {name}: {wanted.get(name, 'absent')} in Cargo.toml, {table.get(name, 'absent')} in src/lib.rs"


SHOWN = set(tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["metadata"]["docs"]["rs"]["features"])
FEATURE = re.compile(r'CfgTrace\(\[NameValue \{ name: "feature", value: Some\("([\w-]+)"\)')


def is_hidden(item):
    """Is it no part of what docs.rs shows?"""
    attributes = [str(attribute) for attribute in item["attrs"]]
    if any("doc(hidden)" in attribute for attribute in attributes):
        return True
    return any(feature not in SHOWN for attribute in attributes for feature in FEATURE.findall(attribute))


def is_open(item):
    return not any("non_exhaustive" in str(attribute) for attribute in item["attrs"])


def has_example(docs):
    """Is there a code block in the text that `cargo test --doc` compiles as a program that works?"""
    fences = [line.strip()[3:] for line in docs.splitlines() if line.strip().startswith("```")]
    # Every second one ends a block.
    return any(set(re.split(r"[\s,]+", words)) <= {"", "rust", "no_run"} for words in fences[::2])


class Names:
    """What is visible of a library: of `rotogate` all, of the crates below it what that re-exports (`parts`)."""

    def __init__(self, document, parts=None):
        self.index = document["index"]
        self.paths = document["paths"]
        # What is visible here of the crates below: its path here and there.
        self.parts = []
        self.lines = set()
        self.top = set()
        self.mentions = set()
        # The texts of all visible items, each once, and what must have an example: by the first of their paths.
        self.docs = {}
        self.examples = {}
        # The files of hidden modules: an implementation there has no attribute of its own.
        hidden = (item for item in self.index.values() if "module" in item["inner"] and is_hidden(item))
        self.apart = {item["span"]["filename"].removesuffix("mod.rs") for item in hidden}
        root = self.index[str(document["root"])]
        if parts is None:
            self.text(root, "rotogate", "module")
            self.module(root, "rotogate")
            return
        numbers = {tuple(known["path"]): number for number, known in self.paths.items() if known["crate_id"] == 0}
        for path, there in parts:
            if (item := self.get(numbers.get(tuple(there)))) is None:
                sys.exit(f"tests/api.py: {path} is {'::'.join(there)}, which rustdoc does not have")
            self.item(item, path)

    def is_apart(self, implementation):
        span = implementation["span"]
        return span is not None and span["filename"].startswith(tuple(self.apart))

    def text(self, item, path, kind):
        self.docs.setdefault(item["id"], (path, item["docs"] or ""))
        if kind in WITH_EXAMPLE:
            self.examples.setdefault(item["id"], path)

    def without_example(self):
        return sorted(path for number, path in self.examples.items() if not has_example(self.docs[number][1]))

    def hidden_links(self):
        """The links of visible texts to items of ours that docs.rs does not show."""
        for number, (path, _) in self.docs.items():
            for name, target in self.get(number)["links"].items():
                # What an implementation has is shown with its type.
                if name.strip("`") == "self" or name.strip("`").endswith("::default"):
                    continue
                item = self.get(target)
                if item is not None and item["crate_id"] == 0 and target not in self.docs and "impl" not in item["inner"]:
                    yield f"{path} links `{name}`, which is hidden"

    def numbered(self):
        """The items whose text has a requirement number, with the number."""
        found = ((path, NUMBER.search(docs)) for path, docs in self.docs.values())
        return sorted((path, number.group()) for path, number in found if number)

    def unnamed(self):
        """The types of ours that a visible signature mentions, and that have no visible name."""
        for number, path in sorted(self.mentions, key=str):
            mentioned = self.get(number)
            ours = mentioned is not None and mentioned["crate_id"] == 0
            if ours and number not in self.top and "trait_alias" not in mentioned["inner"]:
                yield f"{path} mentions {mentioned['name']}"

    def unnamed_of(self, crate, part):
        """The types of another crate that a visible signature mentions, and that have no visible name."""
        shown = {part.get(number)["name"] for number in part.top if part.get(number)}
        for number, path in sorted(self.mentions, key=str):
            mentioned = self.paths.get(str(number))
            if mentioned and mentioned["crate_id"] != 0 and mentioned["path"][0] == crate and mentioned["path"][-1] not in shown:
                yield f"{path} mentions {mentioned['path'][-1]}"

    def mention(self, part, path):
        """Notes each type below `part` of a declaration."""
        if isinstance(part, dict):
            if "resolved_path" in part and part["resolved_path"]:
                self.mentions.add((part["resolved_path"]["id"], path))
            for below in part.values():
                self.mention(below, path)
        elif isinstance(part, list):
            for below in part:
                self.mention(below, path)

    def get(self, number):
        return self.index.get(str(number))

    def module(self, item, path):
        for number in item["inner"]["module"]["items"]:
            child = self.get(number)
            if child is None or is_hidden(child):
                continue
            if "use" in child["inner"]:
                used = child["inner"]["use"]
                target = self.get(used["id"]) if used["id"] is not None else None
                named = self.paths.get(str(used["id"]), {"path": [""]})
                if target is None and named["path"][0] in PARTS:
                    self.parts.append((f"{path}::{used['name']}", named["path"]))
                elif target is None:
                    self.lines.add(f"{path}::{used['name']} (of another crate)")
                    self.top.add(used["name"])
                elif not is_hidden(target):
                    self.item(target, f"{path}::{used['name']}")
            else:
                self.item(child, f"{path}::{child['name']}")

    def item(self, item, path):
        (kind,) = item["inner"]
        inner = item["inner"][kind]
        if kind != "impl":
            self.text(item, path, kind)
        if kind == "module":
            self.lines.add(f"{path}: module")
            self.module(item, path)
            return
        if kind in ("impl", "macro"):
            return
        self.top.add(item["id"])
        if kind in ("function", "type_alias", "constant", "static"):
            self.mention(inner, path)
        mark = " non_exhaustive" if kind in ("struct", "enum") and not is_open(item) else ""
        self.lines.add(f"{path}: {kind}{mark}")
        if kind == "enum":
            self.named(inner["variants"], path)
        if kind == "trait":
            self.named(inner["items"], path)
        if kind == "struct" and "plain" in inner["kind"]:
            self.named(inner["kind"]["plain"]["fields"], path)
        for number in inner.get("impls", []) if kind in ("struct", "enum") else []:
            implementation = self.get(number)
            if implementation is None or is_hidden(implementation) or self.is_apart(implementation):
                continue
            details = implementation["inner"]["impl"]
            if details["trait"] is None:
                self.named(details["items"], path)
            elif not details["is_synthetic"] and details["blanket_impl"] is None:
                self.lines.add(f"{path}: {details['trait']['path']}")

    def named(self, numbers, path):
        for number in numbers:
            member = self.get(number)
            if member is None or is_hidden(member) or member["visibility"] not in ("public", "default"):
                continue
            (kind,) = member["inner"]
            self.mention(member["inner"][kind], f"{path}::{member['name']}")
            self.text(member, f"{path}::{member['name']}", "member")
            if kind == "variant" and "tuple" in member["inner"][kind]["kind"]:
                for field in filter(None, map(self.get, member["inner"][kind]["kind"]["tuple"])):
                    self.mention(field["inner"], f"{path}::{member['name']}")
            if kind == "variant" and "struct" in member["inner"][kind]["kind"]:
                for field in map(self.get, member["inner"][kind]["kind"]["struct"]["fields"]):
                    self.text(field, f"{path}::{member['name']}::{field['name']}", "member")
                    self.mention(field["inner"], f"{path}::{member['name']}::{field['name']}")
            kind = {"struct_field": "field", "assoc_type": "type", "assoc_const": "constant"}.get(kind, kind)
            self.lines.add(f"{path}::{member['name']}: {kind}")


if wrong := list(features()):
    sys.exit("tests/api.py: " + "; ".join(wrong))
documents = documented()
facade = Names(documents["rotogate"])
parts = {
    crate: Names(documents[crate], [(path, there) for path, there in facade.parts if there[0] == crate]) for crate in PARTS
}
libraries = (facade, *parts.values())
unnamed = [found for names in libraries for found in names.unnamed()]
unnamed += [found for names in libraries for crate, part in parts.items() for found in names.unnamed_of(crate, part)]
if unnamed:
    print("\n".join(unnamed), file=sys.stderr)
    sys.exit("tests/api.py: make these types visible, or the signature private: a user cannot name them")
without = [path for names in libraries for path in names.without_example()]
for path in without:
    print(f"tests/api.py: {path} has no example in its documentation", file=sys.stderr)
numbered = [found for names in libraries for found in names.numbered()]
for path, number in numbered:
    print(f"tests/api.py: the documentation of {path} names {number}: say what it means", file=sys.stderr)
hidden = sorted(found for names in libraries for found in names.hidden_links())
for problem in hidden:
    print(f"tests/api.py: {problem}: name what the reader can see", file=sys.stderr)
total = sum(len(names.examples) for names in libraries)
print(f"{total - len(without)} of {total} modules, types, traits and functions have an example")
if without or numbered or hidden:
    sys.exit(1)
lines = set().union(*(names.lines for names in libraries))
text = "\n".join(sorted(lines)) + "\n"
if sys.argv[1:] == ["--write"]:
    RECORD.write_text(text)
    print(f"{sum(len(names.top) for names in libraries)} names, {len(lines)} lines")
elif RECORD.read_text() != text:
    before = set(RECORD.read_text().splitlines())
    for line in sorted(lines - before):
        print(f"+ {line}", file=sys.stderr)
    for line in sorted(before - lines):
        print(f"- {line}", file=sys.stderr)
    sys.exit("tests/api.py: the public API differs from docs/api.txt: if it should, run tests/api.py --write")
