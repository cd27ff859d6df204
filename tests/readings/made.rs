//! Generated spellings: combinations of pieces, and spellings of the corpus with a byte changed. They are the same in
//! every run.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

const BEGINS: &[&str] = &["/", "/", "/public/", "/public/", "/files/", "/private/", "//", "/public", "/private"];

const PIECES: &[&str] = &[
    "private",
    "private",
    "private",
    "a",
    "b",
    "c-d",
    "1",
    "private",
    "public",
    "files",
    "a",
    "b.c",
    "..",
    "..",
    "..",
    ".",
    "...",
    "%2e%2e",
    "%2e",
    ".%2e",
    "%2E.",
    "..;",
    "..;x=1",
    ";",
    ";x",
    "%3b",
    "%70rivate",
    "priv%61te",
    "PRIVATE",
    "private;x",
    "private%20",
    "private.",
    "%2570rivate",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    "%252e%252e",
    "%252f",
    "%25",
    "%20",
    "..%20",
    "%09",
    "%00",
    "%0a",
    "%0d",
    "%c0%ae",
    "%c0%af",
    "%e0%80%ae",
    "%c2%85",
    "%c2%a0",
    "%e2%80%a8",
    "%ef%bc%8f",
    "%ef%bc%8e",
    "%3f",
    "?",
    "%23",
    "#",
    "?x=/../private/",
    "~",
    "%7e",
    "%7f",
    "%zz",
    "%",
    "%2",
    "%u002e",
    "|",
    "{a}",
    "@",
    ":",
    "http:",
    "&",
    "=",
    "+",
    "*",
    "'",
];

const JOINTS: &[&str] =
    &["/", "/", "/", "/", "/", "//", "///", "", "%2f", "%2F", "\\", "%5c", ";", "/./", "/../", "/;/"];

const ENDS: &[&str] = &["", "", "", "/", "/a", "/..", "/.", "?a", "?/../private/a", "%20", ".", ";", "/private/a"];

/// A change of one byte of a spelling.
#[derive(Clone, Copy, Debug)]
enum Change {
    Escape,
    EscapeTwice,
    Repeat,
    SwapCase,
    Remove,
    Before(&'static str),
}

fn put_together() -> impl Strategy<Value = Vec<u8>> {
    let middle = proptest::collection::vec((select(PIECES), select(JOINTS)), 1..6);
    (select(BEGINS), middle, select(PIECES), select(ENDS)).prop_map(|(begin, middle, last, end)| {
        let middle: String = middle.into_iter().flat_map(|(piece, joint)| [piece, joint]).collect();
        format!("{begin}{middle}{last}{end}").into_bytes()
    })
}

fn changed(corpus: &[Vec<u8>]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let change = prop_oneof![
        4 => Just(Change::Escape),
        1 => Just(Change::EscapeTwice),
        1 => Just(Change::Repeat),
        1 => Just(Change::SwapCase),
        1 => Just(Change::Remove),
        2 => select(PIECES).prop_map(Change::Before),
    ];
    let changes = proptest::collection::vec((any::<Index>(), change), 1..4);
    (select(corpus.to_vec()), changes).prop_map(|(mut target, changes)| {
        for (at, change) in changes {
            if target.len() < 2 {
                break;
            }
            // The first slash is not changed, because a target without it proves nothing.
            let at = at.index(target.len() - 1) + 1;
            let byte = target[at];
            let instead = match change {
                Change::Escape => format!("%{byte:02x}").into_bytes(),
                Change::EscapeTwice => format!("%25{byte:02X}").into_bytes(),
                Change::Repeat => vec![byte, byte],
                Change::SwapCase => vec![byte ^ if byte.is_ascii_alphabetic() { 0x20 } else { 0 }],
                Change::Remove => vec![],
                Change::Before(piece) => [piece.as_bytes(), &[byte]].concat(),
            };
            target.splice(at..=at, instead);
        }
        target
    })
}

/// This many targets, without characters that end a request line for every parser.
pub(crate) fn targets(corpus: &[Vec<u8>], count: usize) -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let strategy = prop_oneof![put_together(), changed(corpus)];
    let mut targets = Vec::new();
    while targets.len() < count {
        let target = strategy.new_tree(&mut runner).unwrap().current();
        if !target.iter().any(|byte| matches!(byte, b' ' | b'\r' | b'\n' | 0)) {
            targets.push(target);
        }
    }
    targets
}
