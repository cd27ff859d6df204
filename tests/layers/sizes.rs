//! The bounds on functions and files. Tests may be longer.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{ROOT, sources};

/// The most lines of a function, from its signature to its closing brace.
const MAX_FUNCTION: usize = 80;
/// The most lines of a file.
const MAX_FILE: usize = 500;

/// The sources of all crates but those of tests.
pub(super) fn all_sources() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    let crates = fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let folders = crates.filter(|path| !path.ends_with("test-support")).map(|path| path.join("src"));
    let files = folders.chain([root.join("src")]).flat_map(|folder| sources(&folder));
    let is_test = |path: &Path| path.iter().any(|part| part == "tests" || part == "tests.rs");
    files.filter(|path| path.extension().is_some_and(|end| end == "rs") && !is_test(path)).collect()
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The lines without items that are compiled only for tests. rustfmt ends an item at the indent where it begins.
pub(super) fn without_tests(text: &str) -> Vec<&str> {
    let mut kept = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push(line);
            continue;
        }
        let is_end = |item: &str| indent(item) == indent(line) && item.ends_with(['}', ';']);
        lines.by_ref().find(|item| is_end(item));
    }
    kept
}

/// Each function with a body: its name, and its number of lines.
fn functions<'a>(lines: &[&'a str]) -> Vec<(&'a str, usize)> {
    let name = |line: &'a str| {
        let (before, after) = line.split_once("fn ")?;
        let is_signature = before.split_whitespace().all(|word| {
            matches!(word, "pub" | "const" | "async" | "default") || word.starts_with("pub(") || word.ends_with(')')
        });
        is_signature.then(|| after.split(['(', '<']).next().unwrap())
    };
    let length = |lines: &[&str]| {
        let opens = lines.iter().position(|line| line.ends_with('{') || line.ends_with('}'))?;
        if lines[..opens].iter().any(|line| line.ends_with(';')) {
            return None;
        }
        let is_end = |line: &&str| indent(line) == indent(lines[0]) && line.ends_with('}');
        lines.iter().position(is_end).map(|end| end + 1)
    };
    let named = lines.iter().enumerate().filter_map(|(at, line)| Some((at, name(line)?)));
    named.filter_map(|(at, name)| Some((name, length(&lines[at..])?))).collect()
}

#[test]
fn no_function_and_no_file_is_longer_than_its_bound() {
    let (mut long_functions, mut long_files) = (BTreeSet::new(), BTreeSet::new());
    for path in all_sources() {
        let text = fs::read_to_string(&path).unwrap();
        let lines = without_tests(&text);
        let shown = path.strip_prefix(ROOT).unwrap().display().to_string();
        if lines.len() > MAX_FILE {
            long_files.insert(shown.clone());
        }
        let long = functions(&lines).into_iter().filter(|(_, length)| *length > MAX_FUNCTION);
        long_functions.extend(long.map(|(name, _)| format!("{shown} {name}")));
    }
    assert_eq!(long_functions, BTreeSet::new(), "functions of more than {MAX_FUNCTION} lines");
    assert_eq!(long_files, BTreeSet::new(), "files of more than {MAX_FILE} lines");
}

#[test]
fn a_function_is_measured_to_its_own_end() {
    let text = "trait A {\n    fn none(\n        &self,\n    );\n    fn short() -> u8 { 1 }\n}\n\
                impl A for B {\n    pub(super) async fn long<T>(\n        t: T,\n    ) {\n        if t {\n        }\n    }\n}\n\
                #[cfg(test)]\nmod tests {\n    fn of_tests() {\n    }\n}\nconst fn last() {\n}";
    let found = functions(&without_tests(text));
    assert_eq!(found, [("short", 1), ("long", 6), ("last", 2)]);
}
