//! Parses a JSON-RPC message, and rejects it if another parser could find a different call. A member name must not
//! occur twice, in any letter case, because Go's JSON parser ignores case.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{Call, named_by};
use crate::denial::CallFlaw;
use crate::strict_json::{self, Any, Member};

const MAX_DEPTH: usize = 64;
const MAX_ID: usize = 256;
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

const MESSAGE: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: [&str; 3] = ["name", "uri", "_meta"];
const META: [&str; 1] = [META_VERSION];

/// The id of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum MessageId {
    /// A string.
    Text(Box<str>),
    /// A number.
    Number(serde_json::Number),
}

/// A JSON-RPC message.
#[derive(Debug)]
pub struct Message<'a> {
    id: Option<MessageId>,
    method: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    version: Option<Cow<'a, str>>,
}

impl Message<'_> {
    /// The message's id, or `None` for a notification.
    pub const fn id(&self) -> Option<&MessageId> {
        self.id.as_ref()
    }

    /// The call.
    pub fn call(&self) -> Call<'_> {
        Call { method: self.method.as_deref().map(Cow::Borrowed), name: self.name.as_deref().map(Cow::Borrowed) }
    }

    /// The protocol version in the message.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }
}

/// Parses a message. The error includes the message's id, if possible.
///
/// # Errors
/// [`CallFlaw::NotJson`] or [`CallFlaw::NotOneMessage`].
// Requirements M4 and M22.
pub fn read(body: &[u8]) -> Result<Message<'_>, (CallFlaw, Option<MessageId>)> {
    let mut found = CallMembers::default();
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = found.deserialize_message(&mut json).and_then(|()| json.end());
    let id = found.id.take();
    // The parser limits its own recursion, so check the depth afterwards.
    let is_shallow = strict_json::is_shallow(body, MAX_DEPTH);
    match read {
        Ok(()) if is_shallow => found.into_message(id),
        Ok(()) | Err(_) => match found.flaw {
            Some(what) => Err((CallFlaw::NotOneMessage(what), id)),
            None => Err((CallFlaw::NotJson, id)),
        },
    }
}

#[derive(Default)]
struct CallMembers<'a> {
    flaw: Option<&'static str>,
    is_jsonrpc: bool,
    has_answer: bool,
    id: Option<MessageId>,
    method: Option<Cow<'a, str>>,
    name: Option<Member<'a>>,
    uri: Option<Member<'a>>,
    version: Option<Cow<'a, str>>,
}

impl<'a> CallMembers<'a> {
    fn deserialize_message<D: Deserializer<'a>>(&mut self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(MapVisitor { found: self, place: Place::Message })
    }

    fn into_message(self, id: Option<MessageId>) -> Result<Message<'a>, (CallFlaw, Option<MessageId>)> {
        let refuse = |what| Err((CallFlaw::NotOneMessage(what), id.clone()));
        if !self.is_jsonrpc {
            return refuse("`jsonrpc` must be \"2.0\"");
        }
        let Some(method) = self.method else {
            return match self.has_answer {
                true => Ok(Message { id, method: None, name: None, version: None }),
                false => refuse("`method` is missing"),
            };
        };
        if self.has_answer {
            return refuse("it is both a request and a response");
        }
        let name = match named_by(&method) {
            None => None,
            Some(member) => {
                let named = if member == "uri" { self.uri } else { self.name };
                let Some(Member::Text(name)) = named else {
                    return refuse("the method requires a name or a URI in `params`");
                };
                Some(name)
            }
        };
        Ok(Message { id, method: Some(method), name, version: self.version })
    }

    fn refuse<T, E: serde::de::Error>(&mut self, what: &'static str) -> Result<T, E> {
        self.flaw.get_or_insert(what);
        Err(E::custom(what))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Message,
    Params,
    Meta,
}

impl Place {
    const fn known(self) -> &'static [&'static str] {
        match self {
            Self::Message => &MESSAGE,
            Self::Params => &PARAMS,
            Self::Meta => &META,
        }
    }
}

struct MapVisitor<'f, 'a> {
    found: &'f mut CallMembers<'a>,
    place: Place,
}

impl MapVisitor<'_, '_> {
    fn no_object<E: serde::de::Error>(self) -> Result<(), E> {
        self.found.refuse(match self.place {
            Place::Message => "it is not an object",
            Place::Params | Place::Meta => "`params` and `_meta` must be objects",
        })
    }
}

impl<'a> Visitor<'a> for MapVisitor<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, _: A) -> Result<(), A::Error> {
        match self.place {
            Place::Message => self.found.refuse("it is a batch, which is not supported"),
            Place::Params | Place::Meta => self.no_object(),
        }
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        match self.place {
            Place::Message => self.no_object(),
            Place::Params | Place::Meta => Ok(()),
        }
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.no_object()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.no_object()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.no_object()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.no_object()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.no_object()
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { found, place } = self;
        let mut seen = HashSet::new();
        while let Some(Text(key)) = map.next_key()? {
            let folded = fold(&key);
            let is_twin = place.known().iter().any(|known| *known != key && fold(known) == folded);
            if is_twin || !seen.insert(folded) {
                return found.refuse("a member is repeated, or differs from a known member only in letter case");
            }
            match (place, &*key) {
                (Place::Message, "jsonrpc") => found.is_jsonrpc = map.next_value::<Text<'a>>()?.0 == "2.0",
                (Place::Message, "method") => found.method = Some(map.next_value::<Text<'a>>()?.0),
                (Place::Message, "id") => {
                    let id = map.next_value_seed(IdSeed)?;
                    if let Some(id) = id {
                        found.id = Some(id).filter(|id| !matches!(id, MessageId::Text(text) if text.len() > MAX_ID));
                    }
                }
                (Place::Message, "params") => map.next_value_seed(MapVisitor { found, place: Place::Params })?,
                (Place::Params, "_meta") => map.next_value_seed(MapVisitor { found, place: Place::Meta })?,
                (Place::Params, "name") => found.name = Some(map.next_value_seed(Any::<false>)?),
                (Place::Params, "uri") => found.uri = Some(map.next_value_seed(Any::<false>)?),
                (Place::Meta, META_VERSION) => found.version = Some(map.next_value::<Text<'a>>()?.0),
                _ => {
                    found.has_answer |= place == Place::Message && matches!(&*key, "result" | "error");
                    map.next_value_seed(Any::<false>)?;
                }
            }
        }
        Ok(())
    }
}

impl<'a> DeserializeSeed<'a> for MapVisitor<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct IdSeed;

impl<'a> DeserializeSeed<'a> for IdSeed {
    type Value = Option<MessageId>;

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Option<MessageId>, D::Error> {
        match serde_json::Value::deserialize(json)? {
            serde_json::Value::Null => Ok(None),
            serde_json::Value::String(text) => Ok(Some(MessageId::Text(text.into()))),
            serde_json::Value::Number(number) => Ok(Some(MessageId::Number(number))),
            _ => Err(D::Error::custom("the id must be a string or a number")),
        }
    }
}

/// Folds a name like a parser that ignores letter case.
fn fold(key: &str) -> String {
    if key.is_ascii() {
        return key.to_ascii_lowercase();
    }
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}
