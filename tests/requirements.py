#!/usr/bin/env python3
"""The security requirements of requirements/*.toml, and what proves them.

    tests/requirements.py             checks that each requirement has a proof, and that nothing names one that does not exist
    tests/requirements.py R3 J1       prints these requirements with their tests and mutations; `all` prints every one
    tests/requirements.py --inside    lists those that no test of the real binary proves

A file has the requirements of one letter. `next` is the first number that was never given: a number is not used again.

    next = "J29"
    J1 = "Each key has one algorithm; the header never chooses it."
    P34 = { says = "…", proof = "cargo bench --bench logs", no_mutation = "a bench shows it" }

A test proves what its name begins with: `t3_t4_identity_headers_...` proves T3 and T4. `proof` is what proves a requirement
without such a test. Each requirement has an entry in tests/mutations/*.toml that names it, unless `no_mutation` says why not.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Documents whose tables cite requirements.
CITING = ("docs/security.md", "docs/browser-security.md", "tests/mutations/RESULTS.md")
# Folders and files of tests that do not start the real binary.
INSIDE = ("src/", "crates/", "tests/layer/", "tests/exploration", "tests/loom_epoch", "tests/simulation")
TEST = re.compile(r"#\[(?:tokio::)?test[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:async )?fn (\w+)")


class Requirement:
    def __init__(self, file, number, entry):
        entry = entry if isinstance(entry, dict) else {"says": entry}
        self.file, self.number, self.says = file, number, entry.pop("says")
        self.proof, self.no_mutation = entry.pop("proof", None), entry.pop("no_mutation", None)
        if entry:
            sys.exit(f"{file}: {number}: unknown: {' '.join(entry)}")


def read():
    """The requirements by their number, and what is wrong with the files."""
    found, problems = {}, []
    for path in sorted((ROOT / "requirements").glob("*.toml")):
        file = str(path.relative_to(ROOT))
        entries = tomllib.loads(path.read_text())
        after = entries.pop("next")
        for number, entry in entries.items():
            if not re.fullmatch(rf"{after[0]}[1-9]\d*", number) or int(number[1:]) >= int(after[1:]):
                problems.append(f"{file}: {number} is no number before `next`, {after}")
            if number in found:
                problems.append(f"{file}: {number} is also in {found[number].file}")
            found[number] = Requirement(file, number, entry)
    return found, problems


REQUIREMENTS, PROBLEMS = read()
LETTERS = "".join(sorted({number[0] for number in REQUIREMENTS}))
NAMED = re.compile(rf"(?:[{LETTERS.lower()}]\d+_)+")
NUMBER = re.compile(rf"\b[{LETTERS}]\d{{1,2}}\b")
# A comment that cites requirements says so.
COMMENT = re.compile(rf"[Rr]equirements?:? ((?:[{LETTERS}]\d{{1,2}}\b(?:, | and )?)+)")


def sources():
    for pattern in ("src/**/*.rs", "crates/*/src/**/*.rs", "crates/*/tests/**/*.rs", "tests/**/*.rs"):
        yield from sorted(ROOT.glob(pattern))


def proofs():
    """The tests of each requirement, by their file."""
    found = {}
    for path in sources():
        file = str(path.relative_to(ROOT))
        for name in TEST.findall(path.read_text()):
            if begin := NAMED.match(name):
                for number in begin.group().rstrip("_").upper().split("_"):
                    found.setdefault(number, {}).setdefault(file, []).append(name)
    return found


def mutations():
    """What the mutations of each requirement take out."""
    found = {}
    for path in sorted((ROOT / "tests/mutations").glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutation"]:
            for number in entry["proves"]:
                found.setdefault(number, []).append(f"{path.name}: {entry['what']}")
    return found


def cited():
    """The numbers that documents, comments and other requirements cite, with a place. Code is left out, and what reviews call
    their findings."""
    for file in CITING:
        text = (ROOT / file).read_text()
        if file.endswith("RESULTS.md"):
            text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.M)
        for number in NUMBER.findall(re.sub(r"`[^`\n]*`", "", text)):
            yield number, file
    for requirement in REQUIREMENTS.values():
        for number in NUMBER.findall(re.sub(r"`[^`]*`", "", requirement.says)):
            yield number, requirement.file
    for path in sources():
        for numbers in COMMENT.findall(path.read_text()):
            for number in NUMBER.findall(numbers):
                yield number, str(path.relative_to(ROOT))


def show(numbers):
    found, taken_out = proofs(), mutations()
    for number in numbers:
        requirement = REQUIREMENTS[number]
        print(f"{number}: {requirement.says}")
        for file, names in found.get(number, {}).items():
            print(*(f"  test      {file}: {name}" for name in names), sep="\n")
        if requirement.proof:
            print(f"  proof     {requirement.proof}")
        for what in taken_out.get(number, []):
            print(f"  mutation  {what}")
        if requirement.no_mutation:
            print(f"  no mutation: {requirement.no_mutation}")


def is_inside(files):
    return all(file.startswith(INSIDE) for file in files)


def check():
    found, problems = proofs(), list(PROBLEMS)
    if unknown := sorted(set(found) - set(REQUIREMENTS)):
        problems.append(f"tests name requirements that do not exist: {' '.join(unknown)}")
    for requirement in REQUIREMENTS.values():
        if requirement.number not in found and not requirement.proof:
            problems.append(f"{requirement.file}: {requirement.number} has no test and no `proof`")
    for number, file in dict.fromkeys(cited()):
        if number not in REQUIREMENTS:
            problems.append(f"{file} cites {number}, which does not exist")
    for requirement in REQUIREMENTS.values():
        for page in re.findall(r"\bdocs/[\w-]+\.md", requirement.says):
            if not (ROOT / page).exists():
                problems.append(f"{requirement.file}: {requirement.number} names {page}, which does not exist")
    return [*problems, *ends()]


def ends():
    """The cells of tests/ends.toml without a test that exists (R34)."""
    table = tomllib.loads((ROOT / "tests/ends.toml").read_text())
    columns, known = table.pop("columns"), {name for path in sources() for name in TEST.findall(path.read_text())}
    for row, cells in table.items():
        for column in dict.fromkeys([*columns, *cells]):
            cell = cells.get(column, [])
            is_shown = cell.startswith("none: ") if isinstance(cell, str) else bool(cell) and known.issuperset(cell)
            if column not in columns or not is_shown:
                yield f"tests/ends.toml: {row} × {column} has no test that exists: {cell}"


def main(arguments):
    if arguments == ["--inside"]:
        found = proofs()
        print(*(number for number, r in REQUIREMENTS.items() if not r.proof and is_inside(found.get(number, {}))))
        return 0
    if arguments:
        numbers = list(REQUIREMENTS) if arguments == ["all"] else [argument.upper() for argument in arguments]
        if unknown := [number for number in numbers if number not in REQUIREMENTS]:
            sys.exit(f"tests/requirements.py: no such requirement: {' '.join(unknown)}")
        show(numbers)
        return 0
    problems = check()
    for problem in problems:
        print(f"tests/requirements.py: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
