"""Several mutations in one build: each body of a function that some of them change is there once for each, and the variable
MUTANT of the environment chooses. What stands outside of a body, or in one that only the compiler runs, cannot be switched.
"""

import re
from pathlib import Path

# A switch for each crate: its folder of sources, whose lib.rs gets the function.
ROOT = Path(__file__).resolve().parent.parent
# The folders of the crates' sources.
CRATES = ("src/", *(f"crates/{path.name}/src/" for path in sorted(ROOT.glob("crates/*")) if path.name != "test-support"))
SWITCH = """
pub(crate) fn mutant() -> usize {
    static NUMBER: std::sync::LazyLock<usize> =
        std::sync::LazyLock::new(|| std::env::var("MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or_default());
    *NUMBER
}
"""
# Comments, strings and characters. A lifetime has no second quote.
OPAQUE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\(?:x..|u\{[^}]*\}|.)|[^'\\\n])'""", re.S
)


def package(crate):
    """The package of a folder of sources."""
    return "rotogate" if crate == "src/" else f"rotogate-{crate.split('/')[1]}"


def masked(text):
    """The text without what may hide a brace, in the same places."""
    return OPAQUE.sub(lambda opaque: re.sub(r"[^\n]", " ", opaque.group()), text)


def closing(text, at):
    """The place of the bracket that closes the one at this place."""
    depth = 0
    for bracket in re.compile(r"[{}]").finditer(text, at):
        depth += 1 if bracket.group() == "{" else -1
        if depth == 0:
            return bracket.start()
    return len(text)


def body(text, begin, end):
    """The innermost body of a function around this part of the text, without its braces; None if it cannot be there twice."""
    plain, found = masked(text), None
    for function in re.finditer(r"\bfn\s+\w+", plain[:begin]):
        depth, at = 0, function.end()
        while at < len(plain) and (depth or plain[at] not in "{;"):
            depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(plain[at], 0)
            at += 1
        if at >= len(plain) or plain[at] == ";" or at >= begin:
            continue
        last = closing(plain, at)
        if last < end:
            continue
        line = plain[plain.rfind("\n", 0, function.start()) + 1 : function.start()]
        _, _, returned = plain[function.start() : at].rpartition("->")
        # Two closures have two types, and a constant knows no environment.
        can_switch = "const" not in line.split() and "impl" not in re.findall(r"\w+", returned if "->" in plain[function.start() : at] else "")
        found = (at + 1, last) if can_switch else None
    return found


def switched(texts, entries):
    """The texts of the files with the mutations that can be switched, and these: number to entry. `texts` has the whole text
    of each file."""
    places, numbers = {}, {}
    for number, entry in enumerate(entries, 1):
        crate = next((crate for crate in CRATES if entry.file.startswith(crate)), None)
        whole = texts(entry.file)
        begin = whole.find(entry.old)
        span = crate and body(whole, begin, begin + len(entry.old))
        if not span or entry.file == crate + "lib.rs" or entry.file.endswith("main.rs"):
            continue
        of_file = places.setdefault(entry.file, {})
        # One in another would be there in each of its copies.
        if any(span != other and span[0] < other[1] and other[0] < span[1] for other in of_file):
            continue
        mutated = whole[span[0] : begin] + entry.new + whole[begin + len(entry.old) : span[1]]
        of_file.setdefault(span, []).append((number, mutated))
        numbers[number] = entry
    files = {}
    for file, of_file in places.items():
        text = texts(file)
        for (begin, end), bodies in sorted(of_file.items(), reverse=True):
            arms = "".join(f"{number} => {{{mutated}\n}}\n" for number, mutated in bodies)
            text = f"{text[:begin]}match crate::mutant() {{\n{arms}_ => {{{text[begin:end]}\n}}\n}}\n{text[end:]}"
        files[file] = text
    for crate in {next(crate for crate in CRATES if file.startswith(crate)) for file in files}:
        files[crate + "lib.rs"] = texts(crate + "lib.rs") + SWITCH
    return files, numbers
