//! The rules for names: a search for a type finds one type, and the name of a function says what the function does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::ROOT;
use super::sizes::{all_sources, without_tests};

/// Types with several definitions, one for each platform or feature.
const ALTERNATIVES: [&str; 2] = ["Monotonic", "Tracer"];

/// The name of the type that a line defines. An indented `type` is an associated one.
fn type_name(line: &str) -> Option<&str> {
    let item = line.trim_start();
    let item = match item.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ")?.1,
        None => item.strip_prefix("pub ").unwrap_or(item),
    };
    let (keyword, rest) = item.split_once(' ')?;
    let is_type = matches!(keyword, "struct" | "enum" | "trait") || keyword == "type" && !line.starts_with(' ');
    let name = rest.split(|c: char| !c.is_alphanumeric()).next()?;
    (is_type && name.starts_with(char::is_uppercase)).then_some(name)
}

/// The names that several of these lines define, each with the places.
fn doubled<'a>(lines: impl IntoIterator<Item = (&'a str, &'a Path)>) -> Vec<(&'a str, Vec<&'a Path>)> {
    let mut places: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
    for (line, path) in lines {
        if let Some(name) = type_name(line).filter(|name| !ALTERNATIVES.contains(name)) {
            places.entry(name).or_default().push(path);
        }
    }
    places.into_iter().filter(|(_, paths)| paths.len() > 1).collect()
}

#[test]
fn no_type_name_stands_twice_in_a_crate() {
    let mut crates: BTreeMap<PathBuf, Vec<(PathBuf, String)>> = BTreeMap::new();
    for path in all_sources() {
        let text = fs::read_to_string(&path).unwrap();
        let within = path.strip_prefix(ROOT).unwrap().to_owned();
        let folder: PathBuf = within.iter().take_while(|part| *part != "src").collect();
        crates.entry(folder).or_default().push((within, text));
    }
    for files in crates.values() {
        let lines = files.iter().flat_map(|(path, text)| without_tests(text).into_iter().map(|line| (line, &**path)));
        assert_eq!(doubled(lines), [], "names of several types");
    }
}

#[test]
fn no_function_is_called_of() {
    let is_of = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.contains("fn of(") || text.contains("fn of<")
    };
    let found: Vec<_> = all_sources().into_iter().filter(is_of).collect();
    assert!(found.is_empty(), "a function has the name `of`: {found:?}");
}

#[test]
fn a_type_is_found_by_its_definition() {
    let (a, b) = (Path::new("a"), Path::new("b"));
    let text =
        "pub(in crate::gate) struct Kind<T>(T);\n    type Kind = u8;\nlet kind = Kind::new();\npub type Other = Kind;";
    let lines = text.lines().map(|line| (line, a)).chain([("    enum Kind {", b), ("trait Monotonic {", a)]);
    let lines = lines.chain([("struct Monotonic;", b), ("pub trait Alone: Kind {", b)]);
    assert_eq!(doubled(lines), [("Kind", vec![a, b])]);
}
