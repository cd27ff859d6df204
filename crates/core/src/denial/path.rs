//! Why a path is refused.

use super::Denial;

/// Why a path is refused.
///
/// ```
/// use rotogate::denial::{Denial, PathError};
///
/// let denial = Denial::from(PathError::DotSegment);
/// assert_eq!(denial, Denial::BadPath(PathError::DotSegment));
/// assert_eq!(PathError::DotSegment.what(), "the path has a dot segment");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.what())]
#[non_exhaustive]
pub enum PathError {
    /// The path does not begin with a slash.
    NotAbsolute,
    /// The path contains a character that is not allowed in paths.
    Character,
    /// The path contains a `%` without two hex digits.
    Escape,
    /// The path contains an escaped control character or backslash.
    Hidden,
    /// The escapes decode to invalid or overlong UTF-8.
    Utf8,
    /// The path contains a `.` or `..` segment in any spelling.
    DotSegment,
    /// The path contains nested escapes of a forbidden byte.
    DoubleEncoding,
    /// The path contains `%2F`, and the route does not accept it.
    EncodedSlash,
    /// The path is not canonical, and the gate does not rewrite it.
    NotCanonical,
}

impl PathError {
    /// A description of the flaw, without any part of the path.
    pub const fn what(self) -> &'static str {
        match self {
            Self::NotAbsolute => "the path does not begin with a slash",
            Self::Character => "the path has a control character, a space, a backslash or a non-ASCII character",
            Self::Escape => "the path has an incomplete percent escape",
            Self::Hidden => "the path has a percent-encoded control character or backslash",
            Self::Utf8 => "the decoded path is not valid UTF-8",
            Self::DotSegment => "the path has a dot segment",
            Self::DoubleEncoding => "the path has a forbidden character that is percent-encoded more than once",
            Self::EncodedSlash => "the path has an encoded slash",
            Self::NotCanonical => {
                "the path has a non-canonical spelling: it has an unnecessary percent escape, lacks a necessary one, \
                 or has an empty segment"
            }
        }
    }
}

impl From<PathError> for Denial {
    fn from(error: PathError) -> Self {
        Self::BadPath(error)
    }
}
