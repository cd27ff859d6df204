//! The layers of CONTRIBUTING.md: a module uses only modules that stand below it in the map. The map is read, not repeated.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The crates, each with the heading of its map.
const CRATES: [(&str, &str); 2] = [("src", "### `rotogate`"), ("crates/server/src", "### `rotogate-server`")];

/// The modules of a map, each with its line: lines further down are lower floors.
fn map(heading: &str) -> BTreeMap<String, usize> {
    let text = fs::read_to_string(Path::new(ROOT).join("CONTRIBUTING.md")).unwrap();
    let section = text.split_once(heading).expect("a map for each crate").1;
    let block = section.split_once("```text\n").unwrap().1.split_once("```").unwrap().0;
    let mut floors = BTreeMap::new();
    for (floor, line) in block.lines().enumerate() {
        // Names, then two spaces, then what they are for.
        let names = line.trim().split("  ").next().unwrap();
        for name in names.split(", ").filter(|name| !name.is_empty()) {
            assert!(floors.insert(name.to_owned(), floor).is_none(), "{name} stands twice in the map");
        }
    }
    floors
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The text without comments and string literals on a line of their own; tests may use whatever they like.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The modules that follow `crate::` in the text, groups in braces included, each with its line.
fn used<'a>(text: &'a str, prefix: &str) -> Vec<(&'a str, usize)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let first = |text: &'a str| &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())];
    let mut all = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        if text[..at].ends_with(is_word) {
            continue;
        }
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut begins = true;
            for (place, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => begins = true,
                    c if begins && is_word(c) => {
                        all.push((first(&group[place..]), line));
                        begins = false;
                    }
                    _ => {}
                }
            }
        } else {
            all.push((first(rest), line));
        }
    }
    all
}

#[test]
fn no_module_uses_one_that_stands_above_it() {
    let mut wrong = Vec::new();
    for (folder, heading) in CRATES {
        let floors = map(heading);
        let folder = Path::new(ROOT).join(folder);
        let mut found = BTreeSet::new();
        for path in sources(&folder) {
            let within = path.strip_prefix(&folder).unwrap();
            let parts: Vec<_> = within.iter().map(|part| part.to_str().unwrap()).collect();
            let module = parts[0].trim_end_matches(".rs");
            let is_test = parts.iter().any(|part| matches!(*part, "tests" | "tests.rs"));
            if !parts.last().unwrap().ends_with(".rs") || ["lib", "main"].contains(&module) || is_test {
                continue;
            }
            found.insert(module.to_owned());
            let text = fs::read_to_string(&path).unwrap();
            let text = code(&text);
            // `super::` as often as the file is deep leads to the root, too.
            let depth = parts.len() - usize::from(parts.last() == Some(&"mod.rs"));
            let mut arrows = used(&text, "crate::");
            if depth == 1 {
                arrows.extend(used(&text, "super::"));
            }
            for (other, line) in arrows {
                let (Some(from), Some(to)) = (floors.get(module), floors.get(other)) else { continue };
                if module != other && to <= from {
                    wrong.push(format!("{}:{line}: {module} uses {other}", path.display()));
                }
            }
        }
        let mapped: BTreeSet<_> = floors.into_keys().collect();
        assert_eq!(found, mapped, "{heading}: the modules, and those of the map in CONTRIBUTING.md");
    }
    assert!(wrong.is_empty(), "an arrow points up or sideways:\n{}", wrong.join("\n"));
}

/// Where a document sends its reader, there is something.
#[test]
fn every_path_that_a_document_names_exists() {
    let root = Path::new(ROOT);
    let mut documents: Vec<_> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md"].map(|name| root.join(name)).into();
    documents
        .extend(sources(&root.join("docs")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "md")));
    let folders = ["src/", "crates/", "tests/", "benches/", "examples/", "packaging/", "docs/", "proto/"];
    let mut missing = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for quoted in text.split('`').skip(1).step_by(2) {
            let path = quoted.split_once(' ').map_or(quoted, |(path, _)| path).trim_end_matches([',', '.']);
            let is_path = folders.iter().any(|folder| path.starts_with(folder))
                && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
            // `x` is whatever the reader adds.
            let is_placeholder = path.split(['/', '.']).any(|part| part == "x");
            if is_path && !is_placeholder && !root.join(path).exists() {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn an_arrow_is_found_in_every_form() {
    let text = "use crate::{gate::{Gate, x}, route};\nlet a = crate::token::mint();\nuse rotogate_crate::no;";
    let found = used(text, "crate::");
    assert_eq!(found, [("gate", 1), ("route", 1), ("token", 2)]);
    assert_eq!(code("a\n// crate::gate\nb // crate::x"), "a\n\nb ");
}
