//! Clients and servers of others in pinned versions, which the first test that needs them installs into `target/interop-cache`.
//! Tests of several processes share the folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::target_folder;

/// Runs the `install.sh` of a folder below `tests`, and returns the folder with what it installs. The script does nothing if the
/// versions are there, and processes that run it at the same time wait for each other.
pub fn installed(tests: &str) -> PathBuf {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests")).join(tests);
    let cache = target_folder("interop-cache").join(source.file_name().unwrap());
    let install = Command::new("bash").arg(source.join("install.sh")).arg(&cache).output();
    let install = install.expect("bash is missing: install bash");
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr).trim());
    cache
}

/// The clients of [`installed`], and these files of their sources beside what they import.
pub fn installed_with(tests: &str, files: &[&str]) -> PathBuf {
    let cache = installed(tests);
    for file in files {
        put(&Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests")).join(tests).join(file), &cache.join(file));
    }
    cache
}

/// Copies a file unless the copy is there. A test in another process may be reading an earlier copy, so a new one takes its place
/// in one step.
pub fn put(file: &Path, copy: &Path) {
    let text = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    if fs::read(copy).is_ok_and(|present| present == text) {
        return;
    }
    let mut new = tempfile::NamedTempFile::new_in(copy.parent().unwrap()).unwrap();
    std::io::Write::write_all(&mut new, &text).unwrap();
    new.persist(copy).unwrap();
}
