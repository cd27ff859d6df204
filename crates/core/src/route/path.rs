//! The canonical path. The gate forwards exactly the path that it matched.
//!
//! If two parsers read one path differently, a request can bypass a policy. For example, the gate reads
//! `/public/..;/admin` as a path below `/public`, while the upstream serves `/admin`. Each path therefore has one
//! canonical spelling:
//!
//! | in the path | result |
//! |---|---|
//! | an escaped unreserved character (`%41`, `%7e`) | decoded |
//! | any other escape | kept, with its hex digits in upper case |
//! | a character that RFC 3986 does not allow in a path but browsers send (`\|`, `{`, `"` …) | escaped |
//! | empty segments (`//`) | merged |
//! | a trailing slash, `;params` | kept: they are part of the matched path |
//! | `%2F` | kept as data, and [flagged](CanonicalPath::has_encoded_slash): a route refuses it by default |
//! | `.` and `..` segments, even escaped, beside `%2F` or escaped white space, or before `;`, `%3F`, `%23` | refused |
//! | `\`, NUL and control bytes, plain or escaped; non-ASCII bytes that are not escaped | refused |
//! | `%` without two hex digits; escapes that are not UTF-8 | refused |
//! | nested escapes (`%252e`) that decode to any of the above or to a slash | refused |

use std::borrow::Cow;

pub use crate::denial::PathError;

#[cfg(test)]
mod tests;

/// A path in its canonical spelling. If the path was already canonical, the value borrows from the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    text: Cow<'a, str>,
    encoded_slash: bool,
    has_loose_form: bool,
}

impl<'a> CanonicalPath<'a> {
    /// Parses the path of a request target, without its query.
    ///
    /// # Errors
    /// See the module's table.
    pub fn parse(raw: &'a str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        if let Some(has_loose_form) = plain(raw.as_bytes()) {
            return Ok(Self { text: Cow::Borrowed(raw), encoded_slash: false, has_loose_form });
        }
        let (text, encoded_slash) = rewrite(raw)?;
        let has_loose_form = plain(text.as_bytes()).unwrap_or(true);
        let text = if text == raw { Cow::Borrowed(raw) } else { Cow::Owned(text) };
        Ok(Self { text, encoded_slash, has_loose_form })
    }

    /// The path that is matched and forwarded.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the canonical path differs from the path that was sent.
    ///
    /// A layer that cannot rewrite the path rejects the request. On the gate's own endpoints, such a path is a near
    /// miss (R12).
    pub fn is_rewritten(&self) -> bool {
        matches!(self.text, Cow::Owned(_))
    }

    /// Returns whether the path equals `raw`, apart from the case of hex digits in escapes.
    pub fn equals_but_for_hex_case(&self, raw: &str) -> bool {
        // All other rewrites change the length of the path.
        self.text.eq_ignore_ascii_case(raw)
    }

    /// Whether the path contains an escaped slash.
    pub fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }

    /// Returns whether a lax server could read this path as a different one (requirement T20).
    pub(super) const fn has_loose_form(&self) -> bool {
        self.has_loose_form
    }

    /// Returns the loose form, for detecting near misses of an endpoint's path (R12).
    ///
    /// Escapes are decoded and case is folded. Parameters, trailing spaces and dots, and extra slashes are removed.
    /// Compare a loose form only with other loose forms.
    pub fn loose(&self) -> Cow<'_, str> {
        loosen(&self.text)
    }

    /// The path as an owned value.
    pub fn into_owned(self) -> CanonicalPath<'static> {
        let Self { text, encoded_slash, has_loose_form } = self;
        CanonicalPath { text: Cow::Owned(text.into_owned()), encoded_slash, has_loose_form }
    }
}

/// Returns whether the loose form differs, or `None` if the path needs the full parser.
fn plain(path: &[u8]) -> Option<bool> {
    let mut previous = 0;
    let mut varies = false;
    for &byte in path {
        let class = CLASSES.get(usize::from(byte)).copied().unwrap_or(NEVER);
        if class != PLAIN {
            let (after_slash, after_dot) = (previous == b'/', previous == b'.');
            match class {
                VARIES => varies = true,
                SLASH if !after_slash => varies |= after_dot,
                DOT if !after_slash => {}
                _ => return None,
            }
        }
        previous = byte;
    }
    Some(varies || previous == b'.')
}

const PLAIN: u8 = 0;
/// An upper-case letter or `;`, which the loose form changes.
const VARIES: u8 = 1;
const SLASH: u8 = 2;
const DOT: u8 = 3;
/// A byte that must not occur unescaped.
const NEVER: u8 = 4;

/// A table, because every byte of every path is examined.
const CLASSES: [u8; 256] = {
    let mut table = [NEVER; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        table[byte as usize] = match byte {
            b'/' => SLASH,
            b'.' => DOT,
            b'A'..=b'Z' | b';' => VARIES,
            _ if is_pchar(byte) => PLAIN,
            _ => NEVER,
        };
        byte += 1;
    }
    table
};

fn rewrite(raw: &str) -> Result<(String, bool), PathError> {
    let mut text = String::with_capacity(raw.len());
    let mut decoded = Vec::with_capacity(raw.len());
    let mut encoded_slash = false;
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'/' => {
                if !text.ends_with('/') {
                    text.push('/');
                    decoded.push(byte);
                }
            }
            b'%' => {
                let (Some(high), Some(low)) = (bytes.next().and_then(hex), bytes.next().and_then(hex)) else {
                    return Err(PathError::Escape);
                };
                let value = high << 4 | low;
                if is_hidden(value) {
                    return Err(PathError::Hidden);
                }
                encoded_slash |= value == b'/';
                if is_unreserved(value) {
                    text.push(char::from(value));
                } else {
                    push_escape(&mut text, value);
                }
                decoded.push(value);
            }
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                push_escape(&mut text, byte);
                decoded.push(byte);
            }
            _ if is_pchar(byte) => {
                text.push(char::from(byte));
                decoded.push(byte);
            }
            _ => return Err(PathError::Character),
        }
    }
    if std::str::from_utf8(&decoded).is_err() {
        return Err(PathError::Utf8);
    }
    let resolved = if decoded.contains(&b'%') { resolve_deep(&decoded)? } else { decoded };
    if resolved.split(|&b| b == b'/').any(is_dot_segment) {
        return Err(PathError::DotSegment);
    }
    Ok((text, encoded_slash))
}

fn resolve_deep(decoded: &[u8]) -> Result<Vec<u8>, PathError> {
    let resolved = resolve(decoded);
    let slashes = |bytes: &[u8]| bytes.iter().filter(|&&b| b == b'/').count();
    let forbidden = slashes(&resolved) != slashes(decoded)
        || resolved.iter().any(|&b| is_hidden(b))
        || std::str::from_utf8(&resolved).is_err();
    if forbidden { Err(PathError::DoubleEncoding) } else { Ok(resolved) }
}

/// Decodes nested escapes, such as `%2541`, in one pass.
pub(super) fn resolve(bytes: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        out.push(byte);
        while let [.., b'%', high, low] = out[..]
            && let (Some(high), Some(low)) = (hex(high), hex(low))
        {
            out.truncate(out.len().saturating_sub(3));
            out.push(high << 4 | low);
        }
    }
    out
}

/// Some servers cut off parameters, `?`, `#` or white space before they resolve dots.
fn is_dot_segment(segment: &[u8]) -> bool {
    let name = segment.split(|b| matches!(b, b';' | b'?' | b'#')).next().unwrap_or_default();
    std::str::from_utf8(name).is_ok_and(|name| matches!(name.trim(), "." | ".."))
}

fn loosen(text: &str) -> Cow<'_, str> {
    let is_loose = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_');
    if text.bytes().all(is_loose) && !text.ends_with('/') {
        return Cow::Borrowed(text);
    }
    let resolved = resolve(text.as_bytes());
    let resolved = String::from_utf8_lossy(&resolved);
    let mut out = String::with_capacity(resolved.len());
    for segment in resolved.split('/') {
        let name = segment.split(';').next().unwrap_or_default().trim_end_matches(['.', ' ']);
        if !name.is_empty() {
            out.push('/');
            // The long s becomes ASCII in upper case, and the Kelvin sign in lower case.
            out.extend(name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase));
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    Cow::Owned(out)
}

fn push_escape(text: &mut String, value: u8) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    text.extend(['%', DIGITS[usize::from(value >> 4)], DIGITS[usize::from(value & 0xf)]]);
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

const fn is_hidden(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f || byte == b'\\'
}

/// See RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')
}

/// See RFC 3986 §3.3.
const fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}
