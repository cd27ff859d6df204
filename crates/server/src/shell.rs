//! Words of commands that the program prints for a shell.

use std::borrow::Cow;
use std::path::Path;

/// Returns the text as one word of a shell command.
pub(crate) fn word(text: &str) -> String {
    // A name or path has no NUL, the only character that cannot be quoted.
    shlex::try_quote(text).map(Cow::into_owned).unwrap_or_default()
}

/// Returns the path as one word of a shell command.
pub(crate) fn path(path: &Path) -> String {
    word(&path.to_string_lossy())
}
