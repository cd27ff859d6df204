//! Third-party clients and servers in pinned versions. The first test that needs a version installs it into
//! `target/interop-cache`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::target_folder;

/// Runs the `install.sh` of a folder below `tests`, and returns the folder with the installed files. Concurrent
/// processes wait for each other.
pub fn installed(tests: &str) -> PathBuf {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests")).join(tests);
    let cache = target_folder("interop-cache").join(source.file_name().unwrap());
    let install = Command::new("bash").arg(source.join("install.sh")).arg(&cache).output();
    let install = install.expect("bash is missing: install bash");
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr).trim());
    cache
}

/// Like [`installed`], but also copies these files next to the packages that the files import.
pub fn installed_with(tests: &str, files: &[&str]) -> PathBuf {
    let cache = installed(tests);
    for file in files {
        put(&Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests")).join(tests).join(file), &cache.join(file));
    }
    cache
}

/// Copies a changed file atomically, because another process may be reading the earlier copy.
pub fn put(file: &Path, copy: &Path) {
    let text = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    if fs::read(copy).is_ok_and(|present| present == text) {
        return;
    }
    let mut new = tempfile::NamedTempFile::new_in(copy.parent().unwrap()).unwrap();
    std::io::Write::write_all(&mut new, &text).unwrap();
    new.persist(copy).unwrap();
}
