//! The layers of CONTRIBUTING.md: a module uses only modules that stand below it in the map. The map is read, not repeated.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "layers/names.rs"]
mod names;
#[path = "layers/sizes.rs"]
mod sizes;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The folders with a map: its heading, and how their modules are named.
const MAPS: [(&str, &str, &str); 4] = [
    ("src", "### `rotogate`", "crate::"),
    ("crates/core/src", "### `rotogate-core`", "crate::"),
    ("crates/server/src", "### `rotogate-server`", "crate::"),
    (SERVER, "#### The rooms of `server`", "crate::server::"),
];
const SERVER: &str = "crates/server/src/server";

/// The modules, or crates, of a map, each with its line: lines further down are lower floors.
fn map(heading: &str) -> BTreeMap<String, usize> {
    let text = fs::read_to_string(Path::new(ROOT).join("CONTRIBUTING.md")).unwrap();
    let section = text.split_once(heading).expect("the heading of a map").1;
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

/// The text without comments, and without string literals on their own line. Tests may use any module.
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
    for (folder, heading, prefix) in MAPS {
        let floors = map(heading);
        let has_roof = folder == SERVER;
        let folder = Path::new(ROOT).join(folder);
        let mut found = BTreeSet::new();
        for path in sources(&folder) {
            let within = path.strip_prefix(&folder).unwrap();
            let parts: Vec<_> = within.iter().map(|part| part.to_str().unwrap()).collect();
            let module = parts[0].trim_end_matches(".rs");
            let is_test = parts.iter().any(|part| matches!(*part, "tests" | "tests.rs"));
            if !parts.last().unwrap().ends_with(".rs") || ["lib", "main", "mod"].contains(&module) || is_test {
                continue;
            }
            found.insert(module.to_owned());
            let text = fs::read_to_string(&path).unwrap();
            let text = code(&text);
            // `super::` repeated to the depth of the file leads to the root, too.
            let depth = parts.len() - usize::from(parts.last() == Some(&"mod.rs"));
            let mut arrows = used(&text, prefix);
            arrows.extend(used(&text, &"super::".repeat(depth)));
            for (other, line) in arrows {
                let Some(from) = floors.get(module) else { continue };
                let is_up = match floors.get(other) {
                    Some(to) => to <= from,
                    // A name of the roof, which uses all rooms. Only the first line may use the roof.
                    None => has_roof && *from > 0,
                };
                if module != other && is_up {
                    wrong.push(format!("{}:{line}: {module} uses {other}", path.display()));
                }
            }
        }
        let mapped: BTreeSet<_> = floors.into_keys().collect();
        assert_eq!(found, mapped, "{heading}: the modules, and those of the map in CONTRIBUTING.md");
    }
    assert!(wrong.is_empty(), "an arrow points up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn no_crate_uses_one_that_stands_above_it() {
    let floors = map("## Where things are");
    let root = Path::new(ROOT);
    let folders =
        fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: BTreeSet<_> = folders.filter(|name| name != "test-support").collect();
    found.insert("rotogate".to_owned());
    assert_eq!(found, floors.keys().cloned().collect(), "the crates, and those of the map in CONTRIBUTING.md");
    let mut arrows = 0;
    for (name, floor) in &floors {
        let folder = if name == "rotogate" { root.to_owned() } else { root.join("crates").join(name) };
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        for dependency in manifest["dependencies"].as_table().unwrap().keys() {
            let Some(other) = floors.get(dependency.trim_start_matches("rotogate-")) else { continue };
            assert!(other > floor, "an arrow points up or sideways: {name} uses {dependency}");
            arrows += 1;
        }
    }
    assert!(arrows > floors.len(), "no arrows were found");
}

/// The modules that a text names below `root`, by `super::` and with groups, and the files that it declares.
fn named(text: &str, root: &str, own: &[&str]) -> Vec<Vec<String>> {
    fn expand<'a>(mut rest: &'a str, mut path: Vec<String>, all: &mut Vec<Vec<String>>) -> &'a str {
        loop {
            if let Some(mut group) = rest.strip_prefix('{') {
                while !group.is_empty() && !group.starts_with('}') {
                    group = expand(group.trim_start_matches([',', ' ', '\n']), path.clone(), all);
                }
                return group.get(1..).unwrap_or_default();
            }
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            path.push(rest[..end].to_owned());
            match rest[end..].strip_prefix("::") {
                Some(more) => rest = more,
                None => {
                    all.push(path);
                    // ` as name`
                    return rest[end..].trim_start_matches(|c| !",}".contains(c));
                }
            }
        }
    }
    let mut all = Vec::new();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    for (at, _) in text.match_indices(root).filter(|(at, _)| !text[..*at].ends_with(is_word)) {
        expand(&text[at + root.len()..], Vec::new(), &mut all);
    }
    for (at, _) in text.match_indices("super::").filter(|(at, _)| !text[..*at].ends_with(is_word)) {
        let rest = text[at..].trim_start_matches("super::");
        let up = (text[at..].len() - rest.len()) / "super::".len();
        let Some(left) = own.len().checked_sub(up) else { continue };
        expand(rest, own[..left].iter().map(|part| (*part).to_owned()).collect(), &mut all);
    }
    let declared = text.lines().filter_map(|line| line.trim_end().strip_suffix(';')?.rsplit_once("mod "));
    all.extend(declared.map(|(_, name)| own.iter().copied().chain([name]).map(str::to_owned).collect()));
    all
}

/// Files of two folders do not use each other in a circle. Uses of a file's own module do not count.
#[test]
fn no_circle_of_files_crosses_a_folder_of_the_server() {
    let root = Path::new(ROOT).join(SERVER);
    let mut modules: BTreeMap<Vec<String>, (PathBuf, String)> = BTreeMap::new();
    for path in sources(&root).into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs")) {
        let within = path.strip_prefix(&root).unwrap().with_extension("");
        let mut module: Vec<_> = within.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        module.pop_if(|last| last == "mod");
        let text = code(&fs::read_to_string(&path).unwrap());
        modules.insert(module, (path, text));
    }
    let mut arrows: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for (module, (path, text)) in &modules {
        let own: Vec<_> = module.iter().map(String::as_str).collect();
        for mut to in named(text, "crate::server::", &own) {
            while !modules.contains_key(&to) {
                to.pop();
            }
            if !module.starts_with(&to) {
                arrows.entry(path).or_default().insert(&modules[&to].0);
            }
        }
    }
    let mut reached: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for from in arrows.keys() {
        let (found, mut next) = (reached.entry(from).or_default(), vec![*from]);
        while let Some(file) = next.pop() {
            next.extend(arrows.get(file).into_iter().flatten().filter(|to| found.insert(**to)));
        }
    }
    assert!(reached.values().any(|files| files.len() > 20), "no arrows were found");
    let both = |a: &Path, b: &Path| reached.get(b).is_some_and(|files| files.contains(a)) && a.parent() != b.parent();
    let circles = reached.iter().flat_map(|(a, files)| files.iter().filter(|b| both(a, b)).map(move |b| (a, b)));
    let circles: Vec<_> = circles.map(|(a, b)| format!("{} and {}", a.display(), b.display())).collect();
    assert!(circles.is_empty(), "files of two folders use each other:\n{}", circles.join("\n"));
}

/// Every path in a document exists.
/// A file that no module names is not compiled: tests in it do not run, and nothing says so.
#[test]
fn each_file_of_a_crate_is_a_module_of_it() {
    let crates = fs::read_dir(Path::new(ROOT).join("crates")).unwrap().map(|entry| entry.unwrap().path().join("src"));
    let mut files: Vec<_> =
        crates.chain([Path::new(ROOT).join("src")]).filter(|src| src.is_dir()).flat_map(|src| sources(&src)).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    let texts: BTreeMap<_, _> = files.iter().map(|file| (file.clone(), fs::read_to_string(file).unwrap())).collect();
    let is_named = |file: &Path| {
        let (mut folder, mut name) = (file.parent().unwrap(), file.file_stem().unwrap().to_str().unwrap());
        if name == "mod" {
            name = folder.file_name().unwrap().to_str().unwrap();
            folder = folder.parent().unwrap();
        }
        let path = format!("/{}\"]", file.file_name().unwrap().to_str().unwrap());
        let above = ["mod.rs", "lib.rs", "main.rs"].map(|root| folder.join(root));
        above.iter().chain([&folder.with_extension("rs")]).any(|above| {
            let module = format!("mod {name};");
            texts.get(above).is_some_and(|text| text.lines().any(|line| line.trim_start().ends_with(&module)))
        }) || texts.values().any(|text| text.lines().any(|line| line.contains("#[path") && line.ends_with(&path)))
    };
    let is_root = |file: &&PathBuf| ["lib.rs", "main.rs"].iter().any(|root| file.ends_with(root));
    let orphans: Vec<_> = files.iter().filter(|file| !is_root(file) && !is_named(file)).collect();
    assert!(orphans.is_empty(), "no module names {orphans:#?}");
    assert!(files.len() > 300, "{}", files.len());
}

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
            // `x` stands for a name that the reader adds.
            let is_placeholder = path.split(['/', '.']).any(|part| part == "x");
            if is_path && !is_placeholder && !root.join(path).exists() {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Time comes from clock.rs. Timeouts and pauses use tokio's clock, which a test stops; clock.rs says why.
#[test]
fn one_module_reads_the_clocks_of_the_machine() {
    let clock = Path::new("crates/core/src/clock.rs");
    let mut readers = Vec::new();
    for folder in ["src", "crates"] {
        for path in sources(&Path::new(ROOT).join(folder)) {
            let short = path.strip_prefix(ROOT).unwrap();
            let is_of_tests =
                path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "test-support")
                    || path.file_stem().is_some_and(|stem| stem == "tests");
            if is_of_tests || short == clock || path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let code = code(&fs::read_to_string(&path).unwrap());
            let of_tokio =
                code.contains("use tokio::time::Instant") || named_in_group(&code, "use tokio::time::{", "Instant");
            let (all, written_out) =
                (code.matches("Instant::now").count(), code.matches("tokio::time::Instant::now").count());
            if code.contains("SystemTime::now") || (all > written_out && !of_tokio) {
                readers.push(short.display().to_string());
            }
        }
    }
    assert!(readers.is_empty(), "these read a clock of the machine:\n{}", readers.join("\n"));
}

/// Does a `use` with braces bring in this name?
fn named_in_group(code: &str, begin: &str, name: &str) -> bool {
    let group = code.split_once(begin).and_then(|(_, rest)| rest.split_once('}'));
    group.is_some_and(|(names, _)| names.split(',').any(|one| one.trim() == name))
}

#[test]
fn an_arrow_is_found_in_every_form() {
    let text = "use crate::{gate::{Gate, x}, route};\nlet a = crate::token::mint();\nuse rotogate_crate::no;";
    let found = used(text, "crate::");
    assert_eq!(found, [("gate", 1), ("route", 1), ("token", 2)]);
    assert_eq!(code("a\n// crate::gate\nb // crate::x"), "a\n\nb ");
    let text = "use crate::server::{a::{B, c}, d as e};\nuse super::{self, f};\nuse super::super::g::h;\nmod i;";
    let found: Vec<_> = named(text, "crate::server::", &["x", "y"]).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::B", "a::c", "d", "x::self", "x::f", "g::h", "x::y::i"]);
}
