#!/usr/bin/env python3
"""Which tests prove which security requirement of docs/security.md: docs/security-tests.md, between its two marks.

`requirements.py` checks that the document is what the tests say, and that no requirement is without a test.
`requirements.py --write` writes it.

A test proves what its name begins with: `t3_t4_identity_headers_...` proves T3 and T4.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs/security-tests.md"
DEFINITIONS = ROOT / "docs/security.md"
FINDINGS = ROOT / "tests/mutations/RESULTS.md"
BEGIN, END = "<!-- tests: begin -->\n", "<!-- tests: end -->\n"
# Requirements for later versions. The document marks them, too.
LATER = {
    # check and change
    *("P8",),
}
# No promise any more, or not yet. The document says so, and no test names them.
WITHDRAWN = {"C30"}
# Proved by a bench or a script, which print a figure or whether the requirement is met; or by the tests of others.
ELSEWHERE = {
    "C7": "`cargo bench --bench nodes -- spread`",
    "C35": "`packaging/three-gates/try.py`",
    "O7": "C8, C23, C24",
    "N29": "`benches/peers/run --only neighbours`",
    "S30": "`cargo test --all-features --test fuzz -- polled_events stream_`",
    "D16": "`cargo bench --bench exchange`",
    "D30": "`cargo test --all-features --test fuzz -- client_assertion grant_assertion oauth2_form exchange_answer`",
    "M15": "`cargo bench --bench mcp`",
    "S28": "`cargo bench --bench revocation`",
    "B57": "`cargo test --all-features --test fuzz -- session_cookie login_ callback_ device_`",
    "B58": "`cargo bench --bench browsers`",
    "B60": "`cargo bench --bench browsers`",
    "P34": "`cargo bench --bench logs`",
    "P57": "`cargo bench --bench admin`",
    "P47": "`cargo bench --bench traces --all-features`",
    "P64": "`python3 tests/docs.py`",
    "P65": "`python3 tests/docs.py`",
    "P66": "`python3 tests/stranger.py`",
    "P62": "`python3 tests/packages.py`",
    "P63": "`python3 tests/packages.py`",
    "K32": "`cargo test --all-features --test fuzz -- k32_api_key decision`",
    "O8": "C2, C11, C14, C15, C20, C21",
}
LAST = {"J": 28, "T": 37, "R": 33, "A": 33, "O": 51, "I": 66, "C": 46, "P": 72, "N": 74, "B": 60, "M": 22, "D": 31, "S": 30, "K": 32}
# Numbers that were never given, and those behind a gap.
UNUSED = {"A21", "A22", "B19"}
NUMBERS = [f"{letter}{n}" for letter, last in LAST.items() for n in range(1, last + 1) if f"{letter}{n}" not in UNUSED]
NUMBERS += ["T40", "T42", "T43", "N76", "N77"]
# Folders and files of tests that do not start the real binary.
INSIDE = ("src/", "crates/", "tests/layer/", "tests/exploration", "tests/loom_epoch", "tests/simulation")
TEST = re.compile(r"#\[(?:tokio::)?test[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:async )?fn (\w+)")
NAMED = re.compile(r"(?:[jtraoicpnbmdks]\d+_)+")


def proofs():
    found = {}
    for path in sorted([*ROOT.glob("src/**/*.rs"), *ROOT.glob("crates/*/src/**/*.rs"), *ROOT.glob("tests/**/*.rs")]):
        file = str(path.relative_to(ROOT))
        for name in TEST.findall(path.read_text()):
            if begin := NAMED.match(name):
                for number in begin.group().rstrip("_").upper().split("_"):
                    found.setdefault(number, {}).setdefault(file, []).append(name)
    return found


def cited(text):
    """The numbers that the document and the table of findings cite, and those that the document defines. Code is left out, and what
    reviews call their findings."""
    defined = re.findall(r"^- ([A-Z]\d+):", text, re.M)
    findings = re.sub(r"^\|[^|]*\|", "|", FINDINGS.read_text(), flags=re.M)
    prose = re.sub(r"`[^`\n]*`", "", text + findings)
    return set(re.findall(r"\b(?:[JTRAOICPNBMD]\d+|[SK]\d{1,2})\b", prose)), defined


def place(file):
    """The part of the tests or the crate that a file belongs to."""
    parts = file.removesuffix(".rs").split("/")
    if parts[0] == "src":
        return "src"
    part = "/".join(parts[:2])
    return part if (ROOT / part).is_dir() else f"{part}.rs"


def spans(numbers):
    """The numbers in their order, with their letter once and three or more in a row as `J1–16,18`."""
    rows = []
    for number in numbers:
        after = rows and NUMBERS.index(rows[-1][-1]) + 1
        if rows and NUMBERS[after : after + 1] == [number] and number[0] == rows[-1][0][0]:
            rows[-1].append(number)
        else:
            rows.append([number])
    of_letters = {}
    for row in rows:
        shown = [number[1:] for number in row]
        of_letters.setdefault(row[0][0], []).extend([f"{shown[0]}–{shown[-1]}"] if len(shown) > 2 else shown)
    return " ".join(letter + ",".join(spans) for letter, spans in of_letters.items())


def table(found):
    """Each part of the tests with the requirements that it proves, and the proofs that are no tests. Of tests inside, those
    of requirements that no test of the real binary proves."""
    real, inside = {}, {}
    for number in NUMBERS:
        is_proved = any(not file.startswith(INSIDE) for file in found.get(number, {}))
        for file in found.get(number, {}):
            if is_proved and file.startswith(INSIDE):
                continue
            of_place = (inside if file.startswith(INSIDE) else real).setdefault(place(file), [])
            if number not in of_place:
                of_place.append(number)
    lines = []
    for head, places in (("against the real binary", real), ("inside alone", inside)):
        lines += [f"| {head} | requirements |\n", "|---|---|\n"]
        lines += [f"| `{name}` | {spans(places[name])} |\n" for name in sorted(places)]
        lines.append("\n")
    proofs = {}
    for number in NUMBERS:
        if number in ELSEWHERE:
            proofs.setdefault(ELSEWHERE[number], []).append(number)
    lines += ["| by other means | requirements |\n", "|---|---|\n"]
    lines += [f"| {proof} | {spans(numbers)} |\n" for proof, numbers in proofs.items()]
    return "".join(lines)


def main():
    found = proofs()
    unknown = sorted(set(found) - (set(NUMBERS) - WITHDRAWN))
    missing = [number for number in NUMBERS if number not in {*LATER, *WITHDRAWN, *ELSEWHERE, *found}]
    text = DOCUMENT.read_text()
    definitions = DEFINITIONS.read_text()
    unsaid = [number for number in sorted(WITHDRAWN) if f"\n- {number}: Withdrawn" not in definitions]
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    written = head + BEGIN + table(found) + END + tail
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(written)
        text = written
    if "--inside" in sys.argv[1:]:
        bare = [n for n in NUMBERS if n not in {*LATER, *WITHDRAWN, *ELSEWHERE} and not any(not f.startswith(INSIDE) for f in found.get(n, {}))]
        print("without a test of the real binary:", " ".join(bare))
    problems = []
    if unknown:
        problems.append(f"tests name requirements that there are not: {' '.join(unknown)}")
    if unsaid:
        problems.append(f"docs/security.md does not say \"Withdrawn\" of {' '.join(unsaid)}")
    if missing:
        problems.append(f"no test names {' '.join(missing)}")
    numbers, defined = cited(definitions)
    known = {*NUMBERS, *LATER, *WITHDRAWN}
    if dead := sorted(numbers - known):
        problems.append(f"docs/security.md cites requirements that there are not: {' '.join(dead)}")
    if wrong := sorted({n for n in defined if defined.count(n) > 1} | (set(defined) ^ known) - LATER - WITHDRAWN):
        problems.append(f"docs/security.md does not define once: {' '.join(wrong)}")
    if text != written:
        problems.append("docs/security-tests.md is not what the tests say: run tests/requirements.py --write")
    for problem in problems:
        print(f"tests/requirements.py: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
