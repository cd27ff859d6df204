//! Shell words in commands that the program prints.

use std::borrow::Cow;
use std::path::Path;

pub(crate) fn word(text: &str) -> String {
    // Only NUL cannot be quoted, and no name or path contains NUL.
    shlex::try_quote(text).map(Cow::into_owned).unwrap_or_default()
}

pub(crate) fn path(path: &Path) -> String {
    word(&path.to_string_lossy())
}
