"""The self-test of tests/house.py: a small workspace, faults planted in it one at a time, and what must be said of each."""

import tempfile
from pathlib import Path

TREE = {
    "Cargo.toml": """[workspace]
default-members = [".", "crates/core"]
[package]
name = "app"
[dependencies]
app-core = { path = "crates/core" }
""",
    "src/lib.rs": "pub mod gate;\nmod widget;\npub use gate::admit;\n",
    "src/gate/mod.rs": "mod layer;\nmod other;\nmod wait;\npub use layer::admit;\npub(crate) struct Inner;\n",
    "src/gate/layer.rs": "use super::Inner;\nuse app_core::verify;\npub fn admit(_: &Inner) {\n    verify();\n}\n",
    "src/gate/wait.rs": "use super::Inner;\npub(super) fn wait(_: &Inner) {}\n",
    "src/gate/other.rs": "use super::wait::wait;\npub(super) fn other() {\n    wait(&super::Inner);\n}\n",
    "src/widget/mod.rs": "mod spin;\npub(crate) use spin::Spin;\n",
    "src/widget/spin.rs": "/// A part of a widget.\npub(crate) struct Spin;\n",
    "crates/core/Cargo.toml": '[package]\nname = "app-core"\n',
    "crates/core/src/lib.rs": "mod clock;\npub mod store;\nmod token;\nmod rest;\npub use token::verify;\n",
    "crates/core/src/clock.rs": "pub(crate) fn now() -> u64 {\n    0\n}\n",
    "crates/core/src/store.rs": "use crate::rest::Rest;\npub struct Store(Rest);\n",
    "crates/core/src/rest.rs": "pub struct Rest;\nconst PLACE: &str = \"a widget's\";\n",
    "crates/core/src/token.rs": "use crate::clock::now;\npub struct Token(u64);\npub fn verify() -> Token {\n    Token(now())\n}\n"
    "#[cfg(test)]\nmod tests {\n    use crate::store::Store;\n}\n",
    "tests/cost.rs": 'const LAYER: Row =\n    Row { name: "the layer", instructions: 53_454.0, allocations: 3.0 };\n',
    "CONTRIBUTING.md": "before\n<!-- house: begin -->\n<!-- house: end -->\nafter\n",
    "tests/house/bounds.toml": """path = ["src/gate/layer.rs"]
[instructions."the layer"]
in = "tests/cost.rs"
[closure."a token"]
from = "crates/core/src/token.rs"
has = "fn verify"
[closure.layer]
from = "src/gate/layer.rs"
has = "fn admit"
[circle.gate]
within = "src/gate/*"
[circles]
[capability.widget]
own = ["src/widget/*"]
names = ['[Ww]idget']
features = ["widgets"]
""",
}
TOKEN, GATE, CLOCK, OTHER = "crates/core/src/token.rs", "src/gate/mod.rs", "crates/core/src/clock.rs", "src/gate/other.rs"
BOUNDS = "tests/house/bounds.toml"


def before(file, text):
    """The file with a text before its own."""
    return {file: text + TREE[file]}


def instead(file, old, new):
    assert old in TREE[file], (file, old)
    return {file: TREE[file].replace(old, new)}


MANY = "".join(f"pub fn f{n}() {{}}\n" for n in range(9))
# What is planted, the files that change (None: is removed), and what must be said, or nothing.
FAULTS = [
    ("nothing", {}, []),
    ("a comment and tests that mention", before(CLOCK, "// A widget.\n#[cfg(test)]\nmod tests {\n    fn widget() {}\n}\n"), []),
    (
        "tests in a file that mention",
        before(CLOCK, "#[cfg(test)]\nmod tests;\n") | {"crates/core/src/clock/tests.rs": "struct Widget;\n"},
        [],
    ),
    (
        "a new mention",
        before(CLOCK, "struct Widget;\n"),
        ["widget: 3 files outside its own mention it, 2 in the table", f"{CLOCK}:1: struct Widget;"],
    ),
    (
        "a mention on the path",
        before("src/gate/layer.rs", "\nconst WHAT: &str = \"a widget\";\n"),
        ["widget: 1 files on the path of a request mention it, 0 in the table", "src/gate/layer.rs:2: const WHAT"],
    ),
    ("a mention by a feature", before(CLOCK, '#[cfg(feature = "widgets")]\nfn f() {}\n'), [f'{CLOCK}:1: #[cfg(feature = "widgets")]']),
    (
        "a mention under another name",
        before("src/lib.rs", "use widget as gadget;\n") | before("src/gate/wait.rs", "use crate::gadget::Spin;\n"),
        ["src/gate/wait.rs:1 uses `crate::gadget::Spin`, which is in src/widget/"],
    ),
    (
        "a mention by `*` under another name",
        before("src/lib.rs", "mod gadget {\n    pub(crate) use crate::widget::*;\n}\n")
        | before("src/gate/wait.rs", "\nuse crate::gadget::Spin;\n"),
        ["src/gate/wait.rs:2 uses `crate::gadget::Spin`, which is in src/widget/"],
    ),
    (
        "a mention in a file that is included",
        before(CLOCK, 'include!("clock.inc");\n') | {"crates/core/src/clock.inc": "\nstruct Widget;\n"},
        ["crates/core/src/clock.inc:2: struct Widget;"],
    ),
    (
        "a mention in a file elsewhere",
        before(CLOCK, '#[path = "../../far.rs"]\nmod far;\n') | {"crates/far.rs": "struct Widget;\n"},
        ["crates/far.rs:1: struct Widget;"],
    ),
    (
        "a mention in a folder that looks like tests",
        before(CLOCK, "mod tests;\n") | {"crates/core/src/clock/tests.rs": "struct Widget;\n"},
        ["crates/core/src/clock/tests.rs:1: struct Widget;"],
    ),
    (
        "a mention in a new crate",
        {"crates/core/Cargo.toml": TREE["crates/core/Cargo.toml"] + '[dependencies]\nfar = { path = "../../far", package = "app-far" }\n'}
        | {"far/Cargo.toml": '[package]\nname = "app-far"\n', "far/src/lib.rs": "pub struct Widget;\n"},
        ["far/src/lib.rs:1: pub struct Widget;"],
    ),
    (
        "a mention in a new crate that the workspace shares",
        {"crates/core/Cargo.toml": TREE["crates/core/Cargo.toml"] + "[dependencies]\napp-far.workspace = true\n"}
        | {"far/Cargo.toml": '[package]\nname = "app-far"\n', "far/src/lib.rs": "pub struct Widget;\n"}
        | instead("Cargo.toml", "[package]", '[workspace.dependencies]\napp-far = { path = "far" }\n[package]'),
        ["far/src/lib.rs:1: pub struct Widget;"],
    ),
    (
        "a file that moves to a capability's own, with what it is there for",
        {"src/gate/wait.rs": None, "src/widget/wait.rs": TREE["src/gate/wait.rs"].replace("super::Inner", "crate::gate::Inner")}
        | instead(GATE, "mod wait;", "use crate::widget::wait;")
        | before("src/widget/mod.rs", "pub(crate) mod wait;\n"),
        [f"{GATE}:3: use crate::widget::wait;", f"{OTHER}:1 uses `super::wait::wait`, which is in src/widget/"],
    ),
    (
        "a pattern that makes a file of the path a capability's own",
        instead(BOUNDS, '["src/widget/*"]', '["src/widget/*", "src/gate/layer.rs"]'),
        ["src/gate/layer.rs is on the path of a request, so it cannot be a capability's own file"],
    ),
    (
        "a file of the path that moves",
        {"src/gate/layer.rs": None, "src/gate/first.rs": TREE["src/gate/layer.rs"]} | instead(GATE, "layer", "first"),
        ["path: no file has the name src/gate/layer.rs", "layer: `fn admit` is not in src/gate/layer.rs: where does it begin now?"],
    ),
    ("a name that is gone", instead(BOUNDS, "'[Ww]idget'", "'[Ww]idget', 'Gizmo'"), ["no code has the name Gizmo: what is it called now?"]),
    ("own code in a second folder", before("src/widget/mod.rs", "mod b;\n") | {"src/widget/b/mod.rs": ""}, ["new: src/widget/b/mod.rs"]),
    (
        "a `use` that enlarges a closure",
        before(TOKEN, "use crate::store::Store;\n"),
        [
            "reading a token: 4 files, 2 in the table",
            f"{TOKEN}:1 uses `crate::store::Store`: crates/core/src/store.rs (2 lines, and 1 more behind it)",
        ],
    ),
    (
        "a `use` through another crate",
        before("src/gate/layer.rs", "use app_core::{store::{self, Store}};\n"),
        ["reading layer: 7 files, 5 in the table", "src/gate/layer.rs:1 uses `app_core::store"],
    ),
    ("a path without `use`", instead(TOKEN, "Token(now())", "drop(crate::store::X);"), [f"{TOKEN}:4 uses `crate::store::X`"]),
    (
        "methods that move to another file",
        before(TOKEN, "mod more;\n") | {"crates/core/src/token/more.rs": "use super::Token;\nimpl Token {\n    fn long(&self) {}\n}\n"},
        ["crates/core/src/token/more.rs:2 has methods of a type of crates/core/src/token.rs: `impl Token`"],
    ),
    ("code that grows", before(CLOCK, MANY), ["reading a token: 17 lines of code, 8 in the table", "no file is new"]),
    (
        "a new circle",
        before(CLOCK, "use crate::store::Store;\n") | before("crates/core/src/rest.rs", "use crate::clock::now;\n"),
        ["a new circle of 3 files", f"{CLOCK}:1 uses `crate::store::Store`", "crates/core/src/rest.rs:1 uses `crate::clock::now`"],
    ),
    (
        "a file that joins a circle",
        before("src/gate/layer.rs", "use super::other::other;\n") | before("src/gate/wait.rs", "use crate::admit;\n"),
        [
            "the largest circle of gate: 3 files, 2 in the table",
            "src/gate/layer.rs joined a circle of 2 files",
            "src/gate/wait.rs:1 uses `crate::admit`",
        ],
    ),
    ("recorded instructions that rise", instead("tests/cost.rs", "53_454", "53_455"), ["instructions, the layer: 53455 recorded, 53454 in"]),
    ("an `include!` that cannot be followed", before(CLOCK, "include!(concat!(A, B));\n"), [f"{CLOCK}:1: an include! of a file"]),
    ("a file that is not there", before(CLOCK, "mod gone;\n"), [f"{CLOCK}:1: the file of `mod gone` is not there"]),
]
# The tree has a circle of two files: other.rs and wait.rs, by these lines.
TREE["src/gate/wait.rs"] += "use super::other::other;\n"


def put(root, files):
    for name, text in files.items():
        path = root / name
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def self_test(check, unreadable):
    """Plants each fault, and ends with a message if one is not found. `check` returns the problems of a folder."""

    def problems(root, writes=False):
        try:
            return check(root, writes)[1]
        except unreadable as error:
            return [str(error)]

    def demand(holds, what, said):
        if not holds:
            raise SystemExit("\n".join([f"tests/house.py does not find {what}. It says:", *(said or ["nothing"])]))

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        put(root, TREE)
        said = problems(root, writes=True)
        demand(not said, "a table that it can write", said)
        written = {name: (root / name).read_text() for name in (BOUNDS, "tests/house/files.txt", "CONTRIBUTING.md")}
        TREE.update(written)
        for what, changes, expected in FAULTS:
            root = Path(folder) / what
            # The faults were made of the tree before its table was written.
            changes = {name: with_numbers(text) if name == BOUNDS else text for name, text in changes.items()}
            put(root, TREE)
            put(root, changes)
            said = problems(root)
            demand(bool(said) == bool(expected) and all(part in "\n".join(said) for part in expected), what, said)
            if expected:
                table = (root / BOUNDS).read_text()
                said = problems(root, writes=True)
                demand(said and (root / BOUNDS).read_text() == table, f"that --write would raise a number: {what}", said)
        root = Path(folder) / "divided"
        put(root, TREE)
        put(root, {CLOCK: "mod zero;\npub(crate) use zero::now;\n", "crates/core/src/clock/zero.rs": "pub(crate) fn now() {}\n"})
        demand("reading a token: 3 files, 2 in the table" in "\n".join(problems(root)), "a file that was divided", problems(root))
        demand(not problems(root, writes=True), "that a divided file is no loss", problems(root, writes=True))
        root = Path(folder) / "less"
        put(root, TREE)
        put(root, instead("crates/core/src/rest.rs", "widget", "gadget") | instead(OTHER, "use super::wait::wait;\n", ""))
        said = "\n".join(problems(root))
        for part in ("capability widget: files: 1, 2 in the table", "circle gate: files: 0, 2 in the table", "--write"):
            demand(part in said, f"a number that fell: {part}", [said])
        demand(not problems(root, writes=True), "that the table can be written", problems(root))
        demand(not problems(root), "its own table right", problems(root))
        demand("| widget | 1 | 0 | 1 |" in (root / "CONTRIBUTING.md").read_text(), "the table in CONTRIBUTING.md", [])
    print(f"house: {len(FAULTS) - 3} planted faults are found, and nothing else")
    return 0


def with_numbers(text):
    """A table of the tree with another pattern, and with the numbers that were written since."""
    for section in ("[capability.widget]",):
        numbers = TREE[BOUNDS].split(section)[1].split('features = ["widgets"]\n')[1]
        text = TREE[BOUNDS].split(section)[0] + section + text.split(section)[1] + numbers
    return text
