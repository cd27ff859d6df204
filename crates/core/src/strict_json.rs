//! Strict JSON, for signed documents and requests with credentials: a single object, without repeated members, and with
//! bounded depth (J10, J11).

use serde_json::{Map, Value};

pub(crate) use crate::bounds::{MAX_DEPTH, MAX_MEMBERS};

mod members;

pub(crate) use members::{Any, Member, Members};

/// Parses a JSON object. `bytes` must not contain anything else.
///
/// # Errors
/// A description of the problem, without any part of `bytes`.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, &'static str> {
    object_of_depth(bytes, MAX_DEPTH)
}

/// Does the same as [`object`] with a different limit for the depth.
pub fn object_of_depth(bytes: &[u8], max_depth: usize) -> Result<Map<String, Value>, &'static str> {
    members_of_depth(bytes, max_depth, &[])
}

/// Parses an object of which only some members are needed. The other members become null, and cost hardly more than
/// reading their bytes. Members must not be repeated, and all of `bytes` must be JSON in UTF-8.
pub fn members_of_depth(bytes: &[u8], max_depth: usize, skipped: &[&str]) -> Result<Map<String, Value>, &'static str> {
    Members::read_within(bytes, max_depth, skipped).map(Map::from)
}

const NOT_STRICT: &str = "not a JSON object, not strict JSON, a repeated member, or more than 1024 members";
const NOT_ALONE: &str = "there is extra data after the JSON";

/// A parser of `bytes`, which must be UTF-8, with this limit for the depth.
fn parser(
    bytes: &[u8],
    max_depth: usize,
) -> Result<serde_json::Deserializer<serde_json::de::StrRead<'_>>, &'static str> {
    // The depth is checked before the parser runs, because the parser recurses for each level.
    if is_shallow(bytes, max_depth) {
        // Checking all bytes as UTF-8 at once costs less than checking each string. It also covers the strings that a
        // parser skips.
        std::str::from_utf8(bytes).map(serde_json::Deserializer::from_str).map_err(|_| NOT_STRICT)
    } else {
        Err("the JSON is nested too deeply")
    }
}

/// Counts brackets outside strings. Does not check whether the rest is JSON.
pub(crate) fn is_shallow(bytes: &[u8], max_depth: usize) -> bool {
    // Most documents have too few brackets to be too deep, so the brackets are first counted in a vectorised way. `{`
    // and `[` differ in one bit, and a sum of bytes counts the brackets of a piece that is short enough not to
    // overflow.
    let brackets = |piece: &[u8]| piece.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>();
    if bytes.chunks(u8::MAX.into()).map(|piece| usize::from(brackets(piece))).sum::<usize>() <= max_depth {
        return true;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j11_an_object_is_strict_at_every_level() {
        for good in [r#"{}"#, " {\"a\":1,\r\n\"b\":[{\"a\":1},{\"a\":2}]} \n", r#"{"a":"{[{[{[{[{[{[{[{[{[\"{["}"#] {
            assert!(object(good.as_bytes()).is_ok(), "{good}");
        }
        let bad: [&[u8]; 18] = [
            b"",
            b"null",
            b"[]",
            b"\"a\"",
            br#"{"a":1,"a":1}"#,
            br#"{"a":1,"\u0061":2}"#,
            br#"{"b":{"a":1,"a":1}}"#,
            br#"{"b":[[{"a":1,"a":1}]]}"#,
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            br#"{"a":"\ud800"}"#,
            br#"{"a":1}x"#,
            br#"{"a":1}{}"#,
            b"{\"a\":1}\0",
            br#"{"a":NaN}"#,
            br#"{"a":1e400}"#,
            br#"{"a":1,}"#,
            b"{'a':1}",
        ];
        for bytes in bad {
            assert!(object(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a24_an_object_has_a_bound_on_its_members_at_every_level_and_as_many_as_that_pass() {
        let many = |count: usize| {
            let members: Vec<_> = (0..count).map(|n| format!("\"n{n}\":{n}")).collect();
            format!("{{{}}}", members.join(","))
        };
        let inside = |object: String| format!("{{\"a\":[{object}]}}");
        for (count, is_good) in [(MAX_MEMBERS, true), (MAX_MEMBERS + 1, false)] {
            for text in [many(count), inside(many(count))] {
                assert_eq!(object(text.as_bytes()).is_ok(), is_good, "{count}");
                assert_eq!(members_of_depth(text.as_bytes(), MAX_DEPTH, &["b"]).is_ok(), is_good, "{count}");
            }
            // A skipped member is not built, and only its bytes are bounded.
            assert!(members_of_depth(inside(many(count)).as_bytes(), MAX_DEPTH, &["a"]).is_ok());
        }
    }

    #[test]
    fn j10_depth_is_bounded_without_recursion() {
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(object(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert_eq!(object(nested(MAX_DEPTH).as_bytes()), Err("the JSON is nested too deeply"));
        assert_eq!(object(nested(1_000_000).as_bytes()), Err("the JSON is nested too deeply"));
        assert!(object("{\"a\":".repeat(1_000_000).as_bytes()).is_err());
    }
}
