//! A second opinion on JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Does every object, however deep, name each of its members once? Names are compared as they are meant, not as they are
/// written.
pub(crate) fn names_members_once(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Once>(bytes).is_ok()
}

struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut names: Vec<String> = Vec::new();
        while let Some((name, _)) = map.next_entry::<String, Self>()? {
            if names.contains(&name) {
                return Err(A::Error::custom("twice"));
            }
            names.push(name);
        }
        Ok(self)
    }
}

/// The members of an object, each as it is written. `None` for what is no object, or names one twice.
pub(crate) fn members(bytes: &[u8]) -> Option<BTreeMap<String, String>> {
    serde_json::from_slice::<Members>(bytes).ok().map(|Members(members)| members)
}

struct Members(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self(BTreeMap::new()))
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((name, text)) = map.next_entry::<String, Box<RawValue>>()? {
            if self.0.insert(name, text.get().to_owned()).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(self)
    }
}
