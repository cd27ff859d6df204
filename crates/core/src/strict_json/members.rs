//! The borrowed members of a token's header or payload.
//!
//! The gate reads most claims only once, so their values are not copied.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super as strict_json;
use crate::claim::ClaimPath;

/// Member names are unique.
#[derive(Debug, PartialEq)]
pub(crate) struct Members<'a>(Vec<(Cow<'a, str>, Member<'a>)>);

#[derive(Debug, PartialEq)]
pub(crate) enum Member<'a> {
    Null,
    Bool(bool),
    Text(Cow<'a, str>),
    Number(Number),
    Array(Vec<Self>),
    Object(Members<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAnObject;

impl<'a> Members<'a> {
    /// Accepts only a single JSON object, as strictly as [`strict_json`].
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, &'static str> {
        Self::read_within(bytes, strict_json::MAX_DEPTH, &[])
    }

    /// The members in `skipped` become null.
    pub(crate) fn read_within(bytes: &'a [u8], max_depth: usize, skipped: &[&str]) -> Result<Self, &'static str> {
        let mut parser = strict_json::parser(bytes, max_depth)?;
        let object = parser.deserialize_map(Object(skipped)).map_err(|_| strict_json::NOT_STRICT)?;
        parser.end().map_err(|_| strict_json::NOT_ALONE)?;
        Ok(object)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Member<'a>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, member)| member)
    }

    /// Many issuers write `null` for a missing claim.
    pub(crate) fn optional(&self, name: &str) -> Option<&Member<'a>> {
        self.get(name).filter(|member| **member != Member::Null)
    }

    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Returns `None` if a member on the path is missing or `null`.
    pub(crate) fn at(&self, path: &ClaimPath) -> Result<Option<&Member<'a>>, NotAnObject> {
        let mut segments = path.segments();
        let mut found = segments.next().and_then(|first| self.optional(first));
        for segment in segments {
            found = match found {
                Some(Member::Object(members)) => members.optional(segment),
                Some(_) => return Err(NotAnObject),
                None => return Ok(None),
            };
        }
        Ok(found)
    }
}

impl From<Members<'_>> for Map<String, Value> {
    fn from(members: Members<'_>) -> Self {
        members.0.into_iter().map(|(name, member)| (name.into_owned(), member.into())).collect()
    }
}

impl From<Member<'_>> for Value {
    fn from(member: Member<'_>) -> Self {
        match member {
            Member::Null => Self::Null,
            Member::Bool(yes) => Self::Bool(yes),
            Member::Text(text) => Self::String(text.into_owned()),
            Member::Number(number) => Self::Number(number),
            Member::Array(array) => Self::Array(array.into_iter().map(Self::from).collect()),
            Member::Object(members) => Self::Object(members.into()),
        }
    }
}

impl Member<'_> {
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    pub(crate) fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text(text), Value::String(wanted)) => *text == **wanted,
            (Self::Number(number), Value::Number(wanted)) => number == wanted,
            (Self::Bool(yes), Value::Bool(wanted)) => yes == wanted,
            (Self::Null | Self::Bool(_) | Self::Text(_) | Self::Number(_) | Self::Array(_) | Self::Object(_), _) => {
                false
            }
        }
    }
}

/// Visits an object, but skips the values of these members.
struct Object<'s>(&'s [&'s str]);

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Members<'de>, A::Error> {
        read(map, 16, self.0)
    }
}

fn read<'de, A: MapAccess<'de>>(mut map: A, expected: usize, skipped: &[&str]) -> Result<Members<'de>, A::Error> {
    let mut members = Vec::with_capacity(expected);
    while let Some(name) = map.next_key_seed(Name)? {
        let value = match skipped.contains(&&*name) {
            true => map.next_value::<IgnoredAny>().map(|IgnoredAny| Member::Null)?,
            false => map.next_value_seed(Any::<true>)?,
        };
        members.push((name, value));
        if members.len() > strict_json::MAX_MEMBERS {
            return Err(A::Error::custom("more than 1024 members"));
        }
    }
    once(members.iter().map(|(name, _)| name))?;
    Ok(Members(members))
}

/// Many names are sorted, because comparing all pairs would take too long.
fn once<'n, E: Error>(names: impl ExactSizeIterator<Item = &'n Cow<'n, str>> + Clone) -> Result<(), E> {
    let twice = if names.len() <= 16 {
        let mut rest = names;
        std::iter::from_fn(|| rest.next().map(|name| rest.clone().any(|other| other == name))).any(|twice| twice)
    } else {
        let mut names: Vec<&str> = names.map(|name| &**name).collect();
        names.sort_unstable();
        names.windows(2).any(|two| two.first() == two.last())
    };
    if twice { Err(E::custom("a member named twice")) } else { Ok(()) }
}

struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// If `WHOLE` is false, arrays and objects stay empty, and members may be repeated.
#[derive(Clone, Copy)]
pub(crate) struct Any<const WHOLE: bool>;

impl<'de, const WHOLE: bool> DeserializeSeed<'de> for Any<WHOLE> {
    type Value = Member<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, const WHOLE: bool> Visitor<'de> for Any<WHOLE> {
    type Value = Member<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Member<'de>, E> {
        Ok(Member::Null)
    }

    fn visit_bool<E: Error>(self, yes: bool) -> Result<Member<'de>, E> {
        Ok(Member::Bool(yes))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Member<'de>, E> {
        Ok(Member::Number(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Member<'de>, E> {
        Ok(Member::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Member<'de>, E> {
        Number::from_f64(value).map(Member::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Member<'de>, E> {
        Ok(Member::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Member<'de>, E> {
        Ok(Member::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Member<'de>, A::Error> {
        let mut array = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            if WHOLE {
                array.push(value);
            }
        }
        Ok(Member::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member<'de>, A::Error> {
        if WHOLE {
            return read(map, 0, &[]).map(Member::Object);
        }
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(self)?;
        }
        Ok(Member::Object(Members(Vec::new())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn same(member: &Member<'_>, value: &Value) -> bool {
        match (member, value) {
            (Member::Text(a), Value::String(b)) => a == b,
            (Member::Number(a), Value::Number(b)) => a == b,
            (Member::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Member::Object(a), Value::Object(b)) => {
                a.0.len() == b.len() && b.iter().all(|(name, b)| a.get(name).is_some_and(|a| same(a, b)))
            }
            (Member::Bool(a), Value::Bool(b)) => a == b,
            (Member::Null, Value::Null) => true,
            _ => false,
        }
    }

    fn agrees(bytes: &[u8]) -> bool {
        let Ok(members) = Members::read(bytes) else { return false };
        let object: Map<String, Value> = serde_json::from_slice(bytes).unwrap();
        assert_eq!(members.0.len(), object.len());
        for (name, value) in &object {
            assert!(same(members.get(name).unwrap(), value), "{name}: {value}");
        }
        assert_eq!(strict_json::object(bytes), Ok(object));
        true
    }

    fn members_in(value: &Value) -> usize {
        match value {
            Value::Object(object) => object.values().map(|value| 1 + members_in(value)).sum(),
            Value::Array(array) => array.iter().map(members_in).sum(),
            _ => 0,
        }
    }

    #[test]
    fn j11_a24_members_are_read_as_strictly_as_a_whole_document() {
        let many = |last: &str| {
            let names: String = (0..40).map(|n| format!("\"n{n}\":{n},")).collect();
            format!("{{{names}\"{last}\":1}}")
        };
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        let full = |count: usize| {
            let members: Vec<_> = (0..count).map(|n| format!("\"n{n}\":{n}")).collect();
            format!("{{{}}}", members.join(","))
        };
        for text in [
            "{}",
            " {\"a\":1,\r\n\"b\":[{\"a\":1},{\"a\":2}]} \n",
            r#"{"a":"\u0061\n","b":-1,"c":1.5,"d":null,"e":true,"f":{"g":{}},"h":[[],"i"]}"#,
            &many("n40"),
            &full(strict_json::MAX_MEMBERS),
            &nested(strict_json::MAX_DEPTH - 1),
        ] {
            assert!(agrees(text.as_bytes()), "{text}");
        }
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"b":{"a":1,"a":1}}"#,
            r#"{"b":[[{"a":1,"a":1}]]}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1}x"#,
            r#"{"a":1e400}"#,
            r#"{"a":NaN}"#,
            r#"{"a":1,}"#,
            "",
            "null",
            "[]",
            "\"a\"",
            "{\"a\":1}\0",
            "\u{feff}{}",
            &many("n7"),
            &full(strict_json::MAX_MEMBERS + 1),
            &nested(strict_json::MAX_DEPTH),
        ] {
            assert!(!agrees(text.as_bytes()), "{text}");
        }
        assert!(!agrees(b"{\"a\":\"\xff\"}") && !agrees(b"{\"\xff\":1}"));
    }

    proptest! {
        #[test]
        fn j11_a_text_is_refused_if_and_only_if_it_is_no_object_or_repeats_a_member(text in r#"\{("[ab\\]{0,2}":("c"|1|-2\.5|null|\[("a",?|\{\}){0,2}\]|\{"a":1,"[ab]":2\}),?){0,4}\}"#) {
            // Generated strings contain `":` only after the name of a member.
            let written = text.matches("\":").count();
            let read: Result<Map<String, Value>, _> = serde_json::from_str(&text);
            let is_good = read.is_ok_and(|object| members_in(&Value::Object(object)) == written);
            prop_assert_eq!(agrees(text.as_bytes()), is_good, "{}", text);
        }
    }
}
