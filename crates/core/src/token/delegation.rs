//! The client that acts for a token's subject (RFC 8693 §4.1), and the token that was exchanged first.

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::{Map, Value};

use super::verify::names::is_subject;
pub use crate::bounds::MAX_ACT;
use crate::revocation::list::DelegatedFacts;
pub use crate::revocation::list::TokenOrigin;

/// The claims of a token that a client got by token exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct Delegation {
    act: Value,
    /// The other issuer's token that was exchanged.
    pub origin: Option<TokenOrigin>,
    /// `origin_client`: the client of the first exchanged token of this gate.
    pub client: Option<Box<str>>,
}

impl Delegation {
    /// Returns `None` if `act` does not name an actor or is too long.
    // Requirement D4.
    pub fn new(act: Value, origin: Option<TokenOrigin>, client: Option<Box<str>>) -> Option<Self> {
        let names_one = act.get("sub").and_then(Value::as_str).is_some_and(is_subject);
        (names_one && act.to_string().len() <= MAX_ACT).then_some(Self { act, origin, client })
    }

    /// The claim `act`.
    pub fn act(&self) -> &Value {
        &self.act
    }

    /// The `sub` of the outermost actor.
    pub fn actor(&self) -> &str {
        self.act.get("sub").and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn facts(&self) -> DelegatedFacts<'_> {
        DelegatedFacts { origin: self.origin.as_ref(), client: self.client.as_deref() }
    }

    /// The number of actors.
    pub fn depth(&self) -> usize {
        std::iter::successors(Some(&self.act), |act| act.get("act")).count()
    }

    /// An actor from another issuer is stored with that issuer's name.
    pub(crate) fn around(actor: &str, earlier: Option<Value>, issuer_of_earlier: Option<&str>) -> Value {
        let mut act = Map::new();
        act.insert("sub".into(), actor.into());
        if let Some(mut earlier) = earlier {
            if let (Some(issuer), Value::Object(members)) = (issuer_of_earlier, &mut earlier) {
                members.entry("iss").or_insert_with(|| issuer.into());
            }
            act.insert("act".into(), earlier);
        }
        Value::Object(act)
    }

    pub(crate) fn put<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("act", &self.act)?;
        if let Some(TokenOrigin { issued_at, jti }) = &self.origin {
            map.serialize_entry("origin_iat", &issued_at.as_secs())?;
            jti.as_ref().map_or(Ok(()), |jti| map.serialize_entry("origin_jti", jti))?;
        }
        self.client.as_ref().map_or(Ok(()), |client| map.serialize_entry("origin_client", client))
    }

    /// A parsed JSON tree needs several times the memory of its text.
    pub(crate) fn bytes(&self) -> usize {
        let jti = self.origin.as_ref().and_then(|origin| origin.jti.as_deref()).map_or(0, str::len);
        4 * self.act.to_string().len() + jti + self.client.as_deref().map_or(0, str::len)
    }
}

impl Serialize for Delegation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.act.serialize(serializer)
    }
}
