//! The form of the names in tokens.

use crate::bounds::MAX_NAME;

/// Returns whether the string is a valid `jti`, client id or account.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Returns whether the string is a valid `sub`: visible ASCII, because the gate sends it in a header.
pub fn is_subject(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}
