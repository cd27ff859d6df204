"""Reads the Rust code of the product: its crates, their modules, and what each file uses. Part of tests/house.py.

The product is the packages in `default-members` and the packages that they depend on by path, wherever their folders are. A file counts
if a crate compiles it: the modules are followed from lib.rs and main.rs by `mod`, `#[path]` and inline modules. The text of an
`include!` counts as text of the file that includes it, unless protoc's compiler wrote it. Items under a `cfg` that only tests satisfy do
not count; the features `test` and `test-util` are off. Every other `cfg` is taken as possible.

A file uses another if a `use` or a path in it leads there, also inside a macro. Paths are followed as the compiler does: `crate`, `self`,
`super`, names of crates and modules, imported names, and re-exports, under another name and by `*` as well. The file that defines the
last name is used, and so is each file on the way that passes the name on. A `pub use` is a use by its own file only if that file names
the item elsewhere. A type whose methods (`impl Type`) are in further files of its module leads to these files.

Not seen: calls of methods, and implementations of traits, unless a path names them; what macros of other crates generate; names that a
macro puts together; paths in strings, as serde has them; what `include_str!` brings in, but Lua and SQL beside the code are searched for
names; names that `use x::*` brings into a file, where the file uses them without a path.
"""

import collections
import re
import tomllib
from pathlib import Path

TOKEN = re.compile(
    r"//[^\n]*|/\*.*?\*/"
    r'|(?<!\w)b?r(#*)".*?"\1'
    r'|(?<!\w)[bc]?"(?:\\.|[^"\\])*"'
    r"|(?<!\w)b?'(?:\\(?:u\{\w*\}|x..|.)|[^'\\\n])'",
    re.S,
)
NOT_NEWLINE = re.compile(r"[^\n]")
VISIBLE = r"(?:pub(?:\s*\([^)]*\))?\s+)?"
# What an attribute can be on, if it is no field, variant, arm or expression.
KEYWORDS = "fn|mod|impl|struct|enum|union|trait|use|const|static|type|let|macro_rules!"
ITEM = re.compile(rf"\s*{VISIBLE}(?:unsafe |async |const |extern |default )*({KEYWORDS})\b")
TO_SEMICOLON = ("use", "const", "static", "type", "let")
MODULE = re.compile(r"\bmod\s+(\w+)\s*([;{])")
USE = re.compile(r"\buse\s+([^;]+);")
IS_PUBLIC = re.compile(r"pub(?:\s*\([^)]*\))?\s+$")
DEFINED = re.compile(r"\b(?:struct|enum|union|trait|type|fn|const|static|mod)\s+(\w+)")
PATH = re.compile(r"(?<![\w:.])\$?(?:::)?[A-Za-z_]\w*(?:::[A-Za-z_]\w*)+")
RESTRICTED = re.compile(r"pub\s*\(\s*in\s[^)]*\)")
IMPL = re.compile(r"^[ \t]*(?:unsafe )?impl\b", re.M)
MACRO = re.compile(r"macro_rules!\s+(\w+)")
# The head of an `impl` of a type's own methods, without `Trait for`.
METHODS_OF = re.compile(r"\s*((?:\w+::)*\w+)(?!.*\bfor\b(?!\s*<))", re.S)
INCLUDE = re.compile(r"\binclude!\s*[({\[]([^;]*)")
TESTS_ONLY = {"test", "doctest", 'feature = "test"', 'feature = "test-util"'}


def after_generics(head):
    """The head of an `impl` without the generics of the `impl` itself."""
    depth = 0
    for at, char in enumerate(head.replace("->", "  ")):
        depth += (char == "<") - (char == ">")
        if depth == 0:
            return head[at + 1 :] if char == ">" else head
    return head


class Unreadable(Exception):
    """What this script cannot follow."""


def blank(text):
    return NOT_NEWLINE.sub(" ", text)


def lexed(text):
    """The text without comments, and besides without the contents of literals. All offsets stay."""
    code, bare, at = [], [], 0
    for token in TOKEN.finditer(text):
        between, word = text[at : token.start()], token.group()
        code.append(between)
        bare.append(between)
        if word.startswith("/"):
            code.append(blank(word))
            bare.append(blank(word))
        else:
            code.append(word)
            bare.append(f'"{blank(word[1:-1])}"' if len(word) > 1 else word)
        at = token.end()
    return "".join([*code, text[at:]]), "".join([*bare, text[at:]])


def closing(text, at):
    """The offset behind the bracket that closes the one at `at`."""
    depth = 0
    for bracket in re.finditer(r"[(\[{}\])]", text[at:]):
        depth += 1 if bracket.group() in "([{" else -1
        if depth == 0:
            return at + bracket.end()
    return len(text)


def possible(condition):
    """Can this `cfg` hold outside tests?"""
    condition = condition.strip()
    call = re.fullmatch(r"(any|all|not)\s*\((.*)\)", condition, re.S)
    if not call:
        return re.sub(r"\s*=\s*", " = ", condition) not in TESTS_ONLY
    parts, depth, begin = [], 0, 0
    for at, char in enumerate(call[2] + ","):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(call[2][begin:at])
            begin = at + 1
    parts = [part for part in parts if part.strip()]
    if call[1] == "not":
        # Only a condition without a choice is certain, and `not(test)` always holds here.
        return True
    return (any if call[1] == "any" else all)(map(possible, parts))


def end_of_item(bare, at):
    """The offset behind the item, field, variant or statement that begins at `at`."""
    while attribute := re.compile(r"\s*#\[").match(bare, at):
        at = closing(bare, attribute.end() - 1)
    item = ITEM.match(bare, at)
    depth = 0
    for mark in re.compile(r"->|=>|[(\[{}\])<>;,]").finditer(bare, item.end() if item else at):
        char = mark.group()
        if char in ("->", "=>"):
            continue
        if char in "<>":
            depth += 0 if item else (char == "<") - (char == ">")
        elif char in "([{":
            if char == "{" and depth == 0 and item and item[1] not in TO_SEMICOLON:
                return closing(bare, mark.start())
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth < 0:
                return mark.start()
        elif depth == 0 and (char == ";" or not item):
            return mark.end()
    return len(bare)


def without_tests(code, bare):
    """The texts with everything that only tests compile emptied."""
    cuts = []
    for attribute in re.finditer(r"#(!?)\[cfg\s*\(", bare):
        if cuts and attribute.start() < cuts[-1][1]:
            continue
        end = closing(bare, attribute.end() - 1)
        if not possible(code[attribute.end() : end - 1]):
            behind = closing(bare, attribute.start() + len(attribute[1]) + 1)
            cuts.append((0, len(bare)) if attribute[1] else (attribute.start(), end_of_item(bare, behind)))
    for begin, end in cuts:
        code = code[:begin] + blank(code[begin:end]) + code[end:]
        bare = bare[:begin] + blank(bare[begin:end]) + bare[end:]
    return code, bare


def leaves(tree):
    """The paths of a `use` tree, each with the name that it binds."""
    tree = re.sub(r"\s+", " ", tree).strip()
    brace = tree.find("{")
    if brace < 0:
        path, _, name = tree.partition(" as ")
        segments = [segment.strip().removeprefix("r#") for segment in path.split("::")]
        if segments[-1] == "self" and len(segments) > 1:
            segments.pop()
        return [(segments, name.strip() or segments[-1])]
    head, inner, depth, begin, parts = tree[:brace], tree[brace + 1 : tree.rfind("}")], 0, 0, []
    for at, char in enumerate(inner + ","):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append(inner[begin:at].strip())
            begin = at + 1
    return [leaf for part in parts if part for leaf in leaves(head + part)]


class Module:
    """A module: of a file, or inline in one."""

    def __init__(self, crate, path, file):
        self.crate, self.path, self.file = crate, path, file
        self.children, self.uses, self.globs, self.defined = {}, {}, [], set()
        # The `use` statements as (offset, is_public, path, name); the other paths, and the types of `impl Type`, as (offset, path).
        self.imports, self.paths, self.impls, self.rest = [], [], [], ""


class File:
    """A file that the product compiles, with what it includes."""

    def __init__(self, root, name, module):
        self.name, self.module, self.modules = name, module, []
        self.code, self.bare = without_tests(*lexed((root / name).read_text(errors="replace")))
        self.sources = [(0, name)]
        for include in list(INCLUDE.finditer(self.bare)):
            literal = re.match(r'\s*"([^"]*)"\s*[)}\]]', self.code[include.start(1) :])
            path = (root / name).parent / literal[1] if literal else None
            if not path or not path.is_file():
                raise Unreadable(f"{name}:{self.line(include.start())[1]}: an include! of a file that this script cannot find")
            text = path.read_text(errors="replace")
            if not text.startswith("// This file is @generated"):
                code, bare = without_tests(*lexed(text))
                self.sources.append((len(self.code) + 1, path.resolve().relative_to(root).as_posix()))
                self.code, self.bare = f"{self.code}\n{code}", f"{self.bare}\n{bare}"

    def line(self, offset):
        """The file and the line of an offset."""
        begin, name = next(source for source in reversed(self.sources) if source[0] <= offset)
        return name, self.code.count("\n", begin, offset) + 1

    def place(self, offset):
        name, line = self.line(offset)
        return f"{name}:{line}"

    def lines(self):
        return sum(1 for line in self.code.split("\n") if line.strip())


class Crate:
    """A library or a binary of a package. `externs` are the other crates, by the names that this one has for them."""

    def __init__(self, package, file):
        self.package, self.root_file, self.root, self.externs, self.macros = package, file, None, {}, {}


class Workspace:
    """The crates, modules and files of the product in a checkout, and the arrows between the files."""

    def __init__(self, root):
        self.root, self.files, self.crates, self.passed = root.resolve(), {}, [], []
        self.declares = collections.defaultdict(dict)
        self.packages()
        for crate in self.crates:
            crate.root = self.module(crate, (), crate.root_file, True)
        self.scripts()
        self.arrows()

    # Packages

    def packages(self):
        """Finds the packages and their crates."""
        workspace = tomllib.loads((self.root / "Cargo.toml").read_text())["workspace"]
        waiting, manifests, needs, libraries = [], {}, {}, {}
        for member in workspace.get("default-members", workspace.get("members")):
            waiting += [self.root] if member == "." else sorted(self.root.glob(member))
        while waiting:
            folder = waiting.pop().resolve()
            if folder not in manifests:
                manifests[folder] = tomllib.loads((folder / "Cargo.toml").read_text())
                needs[folder] = self.needs(folder, manifests[folder], workspace.get("dependencies", {}))
                waiting += needs[folder].values()
        for folder, manifest in sorted(manifests.items()):
            library, binaries = manifest.get("lib", {}), manifest.get("bin", [{}])
            targets = [library.get("path", "src/lib.rs"), *(binary.get("path", "src/main.rs") for binary in binaries)]
            for at, path in enumerate(targets):
                if (folder / path).is_file():
                    crate = Crate(folder, (folder / path).relative_to(self.root).as_posix())
                    self.crates.append(crate)
                    if at == 0:
                        libraries[folder] = (library.get("name", manifest["package"]["name"].replace("-", "_")), crate)
        for crate in self.crates:
            crate.externs = {key: libraries[folder][1] for key, folder in needs[crate.package].items() if folder in libraries}
            crate.externs |= {libraries[folder][0]: libraries[folder][1] for folder in needs[crate.package].values() if folder in libraries}
            # A binary sees the library of its package.
            name, library = libraries.get(crate.package, (None, crate))
            if library is not crate:
                crate.externs[name] = library

    def needs(self, folder, manifest, shared):
        """The folders of the packages that a package depends on, by the names that it has for them."""
        found = {}
        for table in [manifest, *manifest.get("target", {}).values()]:
            for name, dependency in table.get("dependencies", {}).items():
                if isinstance(dependency, dict):
                    base, dependency = (self.root, shared[name]) if dependency.get("workspace") else (folder, dependency)
                    if isinstance(dependency, dict) and "path" in dependency:
                        found[name.replace("-", "_")] = (base / dependency["path"]).resolve()
        return found

    # Modules

    def module(self, crate, path, name, is_root_of_folder):
        """Reads a file as this module, and the modules below it."""
        module = Module(crate, path, name)
        if name in self.files:
            # Two modules or crates share the file: the first is what it counts as.
            file = self.files[name]
        else:
            file = self.files[name] = File(self.root, name, module)
        folder = (self.root / name).parent
        self.inside(module, file, 0, len(file.bare), folder if is_root_of_folder else folder / Path(name).stem, folder)
        return module

    def inside(self, module, file, begin, end, folder, beside):
        """Reads the part of a file that is one module. `folder` has its modules; `#[path]` is relative to `beside`."""
        file.modules.append(module)
        text, at, own = file.bare, begin, []
        while found := MODULE.search(text, at, end):
            name = found[1]
            own.append(text[at : found.start()])
            at = found.end()
            if found[2] == "{":
                at = closing(text, found.end() - 1)
                child = Module(module.crate, (*module.path, name), file.name)
                self.inside(child, file, found.end(), at - 1, folder / name, folder / name)
            else:
                given = re.search(r'\bpath\s*=\s*"([^"]*)"', self.attributes(file, found.start()))
                files = [beside / given[1]] if given else [folder / f"{name}.rs", folder / name / "mod.rs"]
                files = [path for path in files if path.is_file()]
                if not files:
                    raise Unreadable(f"{file.place(found.start())}: the file of `mod {name}` is not there")
                there = files[0].resolve().relative_to(self.root).as_posix()
                child = self.module(module.crate, (*module.path, name), there, bool(given) or there.endswith("/mod.rs"))
                self.declares[file.name].setdefault(there, (found.start(), f"mod {name}"))
            module.children.setdefault(name, []).append(child)
            own.append(blank(text[found.start() : at]))
        self.names(module, "".join([*own, text[at:end]]), begin)

    @staticmethod
    def attributes(file, at):
        """The attributes before an item, with their strings."""
        begin = max(file.bare.rfind(mark, 0, at) for mark in (";", "}", "{"))
        return file.code[begin + 1 : at]

    def names(self, module, text, begin):
        """What the text of a module imports, defines and names."""
        text = RESTRICTED.sub(lambda found: "pub" + " " * (len(found.group()) - 3), text)
        for use in USE.finditer(text):
            is_public = bool(IS_PUBLIC.search(text, max(0, use.start() - 40), use.start()))
            for path, name in leaves(use[1]):
                module.imports.append((begin + use.start(1), is_public, path, name))
                if path[-1] == "*":
                    module.globs.append(path[:-1])
                else:
                    module.uses.setdefault(name, []).append(path)
        module.rest = USE.sub(lambda found: blank(found.group()), text)
        module.defined = set(DEFINED.findall(module.rest))
        for macro in MACRO.findall(module.rest):
            module.crate.macros[macro] = module
        module.paths = [(begin + found.start(), found.group()) for found in PATH.finditer(module.rest)]
        for found in IMPL.finditer(module.rest):
            if name := METHODS_OF.match(after_generics(module.rest[found.end() : module.rest.find("{", found.end())])):
                module.impls.append((begin + found.start(), name[1]))

    def scripts(self):
        """Lua and SQL beside the code: they mention names, and use no file."""
        self.other = {}
        for folder in sorted({(self.root / crate.root_file).parent for crate in self.crates}):
            for path in sorted([*folder.rglob("*.lua"), *folder.rglob("*.sql")]):
                text = "\n".join("" if line.lstrip().startswith("--") else line for line in path.read_text().split("\n"))
                self.other[path.relative_to(self.root).as_posix()] = text

    # Arrows

    def resolve(self, module, segments, seen=()):
        """The modules that define the last name of a path, as seen from a module."""
        segments = [segment.removeprefix("r#") for segment in segments]
        first, rest = segments[0], segments[1:]
        if first == "":
            extern = module.crate.externs.get(rest[0]) if rest else None
            return self.below(extern.root, rest[1:], seen) if extern else []
        if first in ("crate", "$crate"):
            return self.below(module.crate.root, rest, seen)
        if first in ("self", "super"):
            path = module
            while segments and segments[0] in ("self", "super"):
                path = self.parent(path) if segments[0] == "super" else path
                segments = segments[1:]
            return self.below(path, segments, seen) if path else []
        if first in module.children or first in module.uses:
            return self.below(module, segments, seen)
        if first in module.crate.externs:
            return self.below(module.crate.externs[first].root, rest, seen)
        if first in module.defined or not module.globs:
            return []
        return self.starred(module, segments, seen)

    def parent(self, module):
        parents = [module.crate.root]
        for name in module.path[:-1]:
            parents = [child for parent in parents for child in parent.children.get(name, [])]
        return parents[0] if parents else None

    def starred(self, module, segments, seen):
        """By a `use x::*` of the module."""
        for path in module.globs:
            key = (id(module), tuple(path), segments[0], "*")
            if key in seen:
                continue
            for target in self.resolve(module, path, (*seen, key)):
                if segments[0] in target.children or segments[0] in target.uses or segments[0] in target.defined:
                    self.passed.append(module)
                    return self.below(target, segments, (*seen, key))
                if found := self.starred(target, segments, (*seen, key)):
                    return found
        return []

    def below(self, module, segments, seen):
        """The same, for a path that begins in the module."""
        if not segments or segments[0] == "*":
            return [module]
        first, rest = segments[0], segments[1:]
        if first in module.children:
            found = [target for child in module.children[first] for target in self.below(child, rest, seen)]
            # A function may have the name of a module.
            return found + [module] if not rest and first in module.defined else found
        key = (id(module), first)
        if first in module.uses and key not in seen:
            self.passed.append(module)
            return [target for path in module.uses[first] for target in self.resolve(module, [*path, *rest], (*seen, key))]
        if first not in module.defined:
            if not module.path and first in module.crate.macros:
                return [module.crate.macros[first]]
            if found := self.starred(module, segments, seen):
                return found
        return [module]

    def arrows(self):
        """`uses[a][b]` is where the file a uses the file b: an offset, and the path in words. `passes` has what a `pub use` only passes
        on, and `methods` where a type of a has methods in b."""
        self.uses, self.passes, self.methods = ({name: {} for name in self.files} for _ in range(3))
        for file in self.files.values():
            for module in file.modules:
                for offset, is_public, path, name in module.imports:
                    is_used = not is_public or re.search(rf"\b{re.escape(name)}\b", module.rest)
                    self.arrow(self.uses if is_used else self.passes, module, offset, path)
                for offset, words in module.paths:
                    self.arrow(self.uses, module, offset, words.split("::"))
                for offset, words in module.impls:
                    for target in self.resolve(module, words.split("::")):
                        is_near = target.path[:1] in ((), module.path[:1])
                        if target.file != file.name and target.crate is module.crate and is_near:
                            self.methods[target.file].setdefault(file.name, (offset, f"impl {words}"))

    def arrow(self, table, module, offset, path):
        self.passed = []
        for target in [*self.resolve(module, path), *self.passed]:
            if target.file != module.file:
                table[module.file].setdefault(target.file, (offset, "::".join(path)))

    def place(self, user, used, table):
        """Where and how a file uses another, in words."""
        offset, words = table[user][used]
        if table is self.methods:
            return f"{self.files[used].place(offset)} has methods of a type of {user}: `{words}`"
        return f"{self.files[user].place(offset)} uses `{words}`"

    def is_ancestor(self, ancestor, file):
        """Is the module of one file above that of another?"""
        upper, lower = self.files[ancestor].module, self.files[file].module
        return upper.crate is lower.crate and lower.path[: len(upper.path)] == upper.path
