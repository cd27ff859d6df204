//! Committed documents that are generated from the code. [`COMMAND`] writes the documents. Without `WRITE_DOCS`, tests
//! compare them.

use std::path::Path;

pub const COMMAND: &str = "WRITE_DOCS=1 cargo test --all-features --lib -- generated";

/// Compares a document with the generated text. `path` is relative to the repository's root.
///
/// # Panics
/// The document and the text differ.
pub fn assert_current(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let is_current = std::fs::read_to_string(&path).is_ok_and(|known| known == text);
    assert!(is_current, "{} does not match the code; run {COMMAND}", path.display());
}

/// Compares the part of a page between `<!-- part: begin -->` and `<!-- part: end -->`.
///
/// # Panics
/// The two differ, or the page does not contain the part.
pub fn assert_part_is_current(path: &str, part: &str, text: &str) {
    let (begin, end) = (format!("<!-- {part}: begin -->\n"), format!("<!-- {part}: end -->\n"));
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap();
    let (head, rest) = page.split_once(&begin).unwrap();
    let (_, tail) = rest.split_once(&end).unwrap();
    assert_current(path, &[head, &begin, text, &end, tail].concat());
}
