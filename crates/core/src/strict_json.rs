//! Strict JSON: a single object, without repeated members, and with limited depth (J10, J11).

use serde_json::{Map, Value};

pub(crate) use crate::bounds::{MAX_DEPTH, MAX_MEMBERS};

mod members;

pub(crate) use members::{Any, Member, Members};

/// Parses bytes that are exactly one JSON object.
///
/// # Errors
/// A description of the problem, without any part of `bytes`.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, &'static str> {
    object_of_depth(bytes, MAX_DEPTH)
}

/// Like [`object`], with another maximum depth.
pub fn object_of_depth(bytes: &[u8], max_depth: usize) -> Result<Map<String, Value>, &'static str> {
    members_of_depth(bytes, max_depth, &[])
}

/// Parses an object of which only some members are needed. The members in `skipped` become null, and cost little.
///
/// Members must not be repeated, and `bytes` must be valid JSON.
pub fn members_of_depth(bytes: &[u8], max_depth: usize, skipped: &[&str]) -> Result<Map<String, Value>, &'static str> {
    Members::read_within(bytes, max_depth, skipped).map(Map::from)
}

const NOT_STRICT: &str = "not a JSON object, not strict JSON, a repeated member, or more than 1024 members";
const NOT_ALONE: &str = "there is extra data after the JSON";

/// Refuses bytes that are not UTF-8.
fn parser(
    bytes: &[u8],
    max_depth: usize,
) -> Result<serde_json::Deserializer<serde_json::de::StrRead<'_>>, &'static str> {
    // The parser recurses for each level, so the depth is checked first.
    if is_shallow(bytes, max_depth) {
        // One check of all bytes is faster than one for each string, and covers skipped strings.
        std::str::from_utf8(bytes).map(serde_json::Deserializer::from_str).map_err(|_| NOT_STRICT)
    } else {
        Err("the JSON is nested too deeply")
    }
}

/// Counts brackets outside strings. The rest may be invalid.
pub(crate) fn is_shallow(bytes: &[u8], max_depth: usize) -> bool {
    // Most documents have few brackets, and counting is fast. `| 0x20` maps `[` to `{`. A chunk cannot overflow the
    // `u8`.
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
