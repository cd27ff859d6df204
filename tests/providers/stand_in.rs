//! A stand-in for a provider, with the metadata, keys and tokens of the provider's documents.

use serde_json::{Map, Value, json};
use support::documents::Documents;

use crate::keys::{Key, Signed};

/// The documented behaviour of a provider. Each provider's module has one, with the addresses of the documents.
pub(crate) struct Provider {
    /// The folder in `examples/providers`.
    pub(crate) name: &'static str,
    /// The `iss` in the configuration of the folder.
    pub(crate) issuer: &'static str,
    /// The `iss` of another tenant, realm, project or instance.
    pub(crate) other_issuer: &'static str,
    /// The path of `jwks_uri`.
    pub(crate) keys: &'static str,
    pub(crate) key: Key,
    /// The published form of a key.
    pub(crate) published: fn(Value) -> Value,
    /// Further published keys.
    pub(crate) beside: Vec<Value>,
    /// The header of a token, without `alg` and `kid`.
    pub(crate) header: Value,
    /// The claims of an access token, without `iss`, `iat` and `exp`.
    pub(crate) claims: Value,
    /// From `iat` to `exp`, in seconds.
    pub(crate) lifetime: u64,
    /// The identity headers that the upstream receives.
    pub(crate) identity: &'static [(&'static str, &'static str)],
    /// Paths that need a scope or a role, each with the changes that remove it.
    pub(crate) restricted: Vec<(&'static str, Value)>,
    /// Other tokens of the provider, which must be refused.
    pub(crate) others: Vec<Other>,
}

/// A refused token: its description, the outcome in the access log, and its differences from an accepted token.
pub(crate) struct Other {
    pub(crate) what: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) header: Value,
    pub(crate) claims: Value,
}

/// A token with changed claims.
pub(crate) fn other(what: &'static str, outcome: &'static str, claims: Value) -> Other {
    Other { what, outcome, header: json!({}), claims }
}

/// Changes of a JSON object; `null` removes a member.
pub(crate) fn with(mut object: Value, changes: &Value) -> Value {
    let members = object.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(members.remove(name)),
            value => drop(members.insert(name.clone(), value.clone())),
        }
    }
    object
}

/// Seconds since 1970, by the provider's clock.
pub(crate) fn now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a provider has a clock of its own")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs()
}

/// The names of the first key, and of its successor.
pub(crate) const FIRST: &str = "key-2026-1";
pub(crate) const SECOND: &str = "key-2026-2";

/// The provider on a port of this machine: only scheme and authority of its address differ from the documents.
pub(crate) struct StandIn {
    documents: Documents,
    pub(crate) provider: Provider,
}

impl StandIn {
    pub(crate) fn start(provider: Provider) -> Self {
        let stand_in = Self { documents: Documents::start(), provider };
        let issuer = stand_in.issuer();
        let metadata = json!({
            "issuer": issuer, "jwks_uri": stand_in.documents.at(stand_in.provider.keys),
            "id_token_signing_alg_values_supported": [stand_in.provider.key.algorithm()],
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
        });
        let path = issuer.strip_prefix(&stand_in.documents.url()).unwrap().trim_end_matches('/');
        stand_in.documents.document(&format!("{path}/.well-known/openid-configuration"), &metadata);
        stand_in.publish(&[(&stand_in.provider.key, FIRST)]);
        stand_in
    }

    /// Publishes these keys, besides the keys that are always in the set.
    pub(crate) fn publish(&self, keys: &[(&Key, &str)]) {
        let own = keys.iter().map(|(key, kid)| (self.provider.published)(key.jwk(kid)));
        let all: Vec<_> = own.chain(self.provider.beside.iter().cloned()).collect();
        self.documents.document(self.provider.keys, &json!({ "keys": all }));
    }

    /// The number of fetches of the key set.
    pub(crate) fn fetches(&self) -> usize {
        self.documents.times(self.provider.keys)
    }

    /// A text with the address of the stand-in instead of the provider's.
    pub(crate) fn here(&self, text: &str) -> String {
        text.replace(origin(self.provider.issuer), &self.documents.url())
    }

    pub(crate) fn issuer(&self) -> String {
        self.here(self.provider.issuer)
    }

    /// The claims of a token that is issued now.
    pub(crate) fn claims(&self, changes: &Value) -> Value {
        let mut all = Map::new();
        all.insert("iss".to_owned(), json!(self.provider.issuer));
        all.insert("iat".to_owned(), json!(now()));
        all.insert("exp".to_owned(), json!(now() + self.provider.lifetime));
        let all = with(with(all.into(), &self.provider.claims), changes);
        serde_json::from_str(&self.here(&all.to_string())).unwrap()
    }

    /// A token that is issued now, with some claims changed.
    pub(crate) fn token(&self, changes: &Value) -> String {
        self.signed_by(&self.provider.key, FIRST, Signed::AsDocumented, &json!({}), changes)
    }

    pub(crate) fn signed_by(&self, key: &Key, kid: &str, signed: Signed, header: &Value, claims: &Value) -> String {
        let named = with(self.provider.header.clone(), &json!({ "kid": kid }));
        key.token(signed, with(named, header), &self.claims(claims))
    }
}

/// Scheme and authority of a URL.
fn origin(url: &str) -> &str {
    let authority = url.find("://").unwrap() + 3;
    url[authority..].find('/').map_or(url, |end| &url[..authority + end])
}
