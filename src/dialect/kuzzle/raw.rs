//! Messages that pass through the gate. Unknown members pass byte for byte. Parsing and serialising could change a
//! number such as `1.10`, or a number with thirty digits.
//!
//! `strict_json` cannot be used here. It does not preserve a value's original text, and needs the complete document.

use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Removes the member `remove`, and replaces or appends the member `set`. Returns `None` if the bytes are not a JSON
/// object.
pub(super) fn rewrite(text: &[u8], remove: &str, set: Option<(&str, &str)>) -> Option<String> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let mut members = reader.deserialize_map(MembersVisitor).ok()?;
    reader.end().ok()?;
    members.retain(|(name, _)| name != remove);
    let mut written = String::with_capacity(text.len() + 64);
    let mut is_set = false;
    for (name, value) in &members {
        match set.filter(|(set, _)| set == name) {
            Some((_, text)) => {
                push(&mut written, name, &quoted(text));
                is_set = true;
            }
            None => push(&mut written, name, value.get()),
        }
    }
    if let Some((name, text)) = set.filter(|_| !is_set) {
        push(&mut written, name, &quoted(text));
    }
    written.push_str(if written.is_empty() { "{}" } else { "}" });
    Some(written)
}

/// Returns the string value of a member, if the first part of an object contains it.
pub(super) fn text_of(begun: &[u8], name: &str) -> Option<String> {
    let mut found = None;
    // The deserializer fails at the end of the available text, or once the member is found.
    let _ = serde_json::Deserializer::from_slice(begun).deserialize_map(TextOf { name, found: &mut found });
    found
}

struct TextOf<'a> {
    name: &'a str,
    found: &'a mut Option<String>,
}

impl<'de> Visitor<'de> for TextOf<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == self.name {
                *self.found = Some(map.next_value()?);
                return Ok(());
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

fn push(written: &mut String, name: &str, value: &str) {
    written.push(if written.is_empty() { '{' } else { ',' });
    written.push_str(&quoted(name));
    written.push(':');
    written.push_str(value);
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Collects the members in their original order.
struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NUMBERS: &str = r#"{"jwt":"t", "z":123456789012345678901234567890, "a":[1.10, 1E2,-0.0],"n":null}"#;

    #[test]
    fn what_stays_is_as_it_was_written_and_in_its_order() {
        let rest = r#""z":123456789012345678901234567890,"a":[1.10, 1E2,-0.0],"n":null"#;
        assert_eq!(rewrite(NUMBERS.as_bytes(), "jwt", None).unwrap(), format!("{{{rest}}}"));
        let id = rewrite(NUMBERS.as_bytes(), "jwt", Some(("id", "a\"b"))).unwrap();
        assert_eq!(id, format!("{{{rest},\"id\":\"a\\\"b\"}}"));
        let set = rewrite(br#"{"a":1.10,"id":7,"b":2.0}"#, "", Some(("id", "x"))).unwrap();
        assert_eq!(set, r#"{"a":1.10,"id":"x","b":2.0}"#);
        assert_eq!(rewrite(br#"{"jwt":"t"}"#, "jwt", None).unwrap(), "{}");
    }

    #[test]
    fn a_name_is_found_in_any_spelling() {
        assert_eq!(rewrite(br#"{"\u006awt":"t","a":1}"#, "jwt", None).unwrap(), r#"{"a":1}"#);
        assert_eq!(rewrite(br#"{"jwt":"t","jw\u0074":"u"}"#, "jwt", None).unwrap(), "{}");
    }

    #[test]
    fn a11_a_token_is_found_in_what_has_come_of_an_object() {
        let whole = br#"{"body":{"jwt":"no","a":[1,{"b":"}"}]},"\u006awt":"yes","rest":"#;
        assert_eq!(text_of(whole, "jwt").as_deref(), Some("yes"));
        for begun in
            [&whole[..50], b"{\"jwt\":1,\"a\":2", b"{\"jwt\":\"cut", b"[\"jwt\"]", b"", b"{\"body\":{\"jwt\":\"no\"}}"]
        {
            assert_eq!(text_of(begun, "jwt"), None, "{}", String::from_utf8_lossy(begun));
        }
    }

    #[test]
    fn what_is_no_object_is_nothing() {
        for text in ["", "[]", "1", "{", "{}{}", "{\"a\":}", "\u{feff}{}"] {
            assert_eq!(rewrite(text.as_bytes(), "jwt", None), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = rewrite(&bytes, "a", Some(("b", "c")));
            let _ = text_of(&bytes, "a");
        }
    }
}
