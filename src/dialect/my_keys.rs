//! A user's own API keys over plain HTTP, for a page of an application.
//!
//! | request | result |
//! |---|---|
//! | `GET /keys` | lists the caller's live API keys, newest first |
//! | `POST /keys` with `{"name": "nightly"}` | makes an API key, which is shown only once |
//! | `POST /keys/{id}/rotate` | replaces an API key, and shows the new one only once |
//! | `DELETE /keys/{id}` | revokes an API key |
//!
//! The caller must have a valid access token of this gate, in `Authorization` or in a cookie, or a browser session. An
//! API key is not accepted. Errors are problem documents (RFC 9457). Another user's API key gets the same response as
//! an unknown one.
//!
//! ```
//! use rotogate::dialect::my_keys::MyKeys;
//! use rotogate::gate::Endpoint;
//!
//! let endpoint = Endpoint::new(MyKeys::default()).path("/account/keys");
//! # let _ = endpoint;
//! ```
// Requirement K5.

use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::json;
use super::own_resource::{OwnResource, OwnRules};
use super::{Call, CommandHandler, OwnKeys, OwnKeysAction, OwnKeysRequest, Reply, ServedPath, said_json};
use rotogate_core::api_key::{ApiKey, NewApiKey};
use rotogate_core::credential::ACCESS_COOKIE;
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;
use rotogate_core::session::Scope;

/// The name of this dialect.
pub(crate) const NAME: &str = "my-keys";
const ALL: &str = "keys";
const ONE: &str = "key";
const ROTATE: &str = "rotate";

/// The dialect `my-keys`, with its options.
///
/// ```
/// use rotogate::dialect::my_keys::MyKeys;
/// use rotogate::gate::Endpoint;
///
/// let builder = rotogate::Gate::builder().endpoint(Endpoint::new(MyKeys::default()));
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MyKeys {
    /// The maximum age of an access token with which a user makes, replaces or revokes an API key. A refresh issues a
    /// newer token. For a session cookie, the limit is the time since the user logged in.
    pub max_age: Duration,
    /// Whether the access token must have the scope [`Self::SCOPE`].
    pub needs_scope: bool,
    /// The cookie with a browser's access token.
    pub cookie: &'static str,
}

impl Default for MyKeys {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(600), needs_scope: false, cookie: ACCESS_COOKIE }
    }
}

impl MyKeys {
    /// The scope that [`Self::needs_scope`] requires.
    pub const SCOPE: &str = "keys";

    fn request(&self, call: &Call<'_>) -> Result<OwnKeysRequest, Denial> {
        let access = self.presented(call)?;
        let id = || call.param("id").map(str::to_owned).ok_or(Denial::UnknownApiKey);
        let action = match (call.operation, call.method) {
            (ALL, &Method::GET) => OwnKeysAction::List,
            (ALL, _) => OwnKeysAction::Create(Box::new(body::<NewOwnKey>(call, NEW_KEY)?.read()?)),
            (ROTATE, _) if call.body.is_empty() => OwnKeysAction::Rotate(id()?, None),
            (ROTATE, _) => {
                OwnKeysAction::Rotate(id()?, body::<KeyRotation>(call, ROTATION)?.overlap.map(Duration::from_secs))
            }
            (_, _) => OwnKeysAction::Revoke(id()?),
        };
        let rules = self.rules();
        Ok(OwnKeysRequest { access, scope: rules.scope, max_age: rules.max_age, action })
    }
}

#[async_trait]
impl OwnResource for MyKeys {
    const NAME: &str = NAME;
    const PATH: &str = "/keys";

    fn paths(base: &str) -> Vec<ServedPath> {
        vec![
            ServedPath::new(ALL, base.to_owned(), &[Method::GET, Method::POST]),
            ServedPath::new(ONE, format!("{base}/{{id}}"), &[Method::DELETE]),
            ServedPath::new(ROTATE, format!("{base}/{{id}}/rotate"), &[Method::POST]),
        ]
    }

    fn rules(&self) -> OwnRules {
        OwnRules::new(self.cookie, self.needs_scope.then_some(Self::SCOPE), self.max_age)
    }

    fn presented(&self, call: &Call<'_>) -> Result<SecretString, Denial> {
        if call.query.is_some() {
            return Err(Denial::MalformedRequest("the query has an unexpected parameter"));
        }
        self.rules().presented(call)
    }

    fn max_login_age(&self) -> Option<Duration> {
        Some(self.max_age)
    }

    async fn execute(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Result<Reply, Error> {
        Ok(written(&gate.own_keys(self.request(call)?).await?))
    }
}

const NEW_KEY: &str = "the body must be a JSON object with `name` (a string) and, optionally, `scopes` and \
                       `audience` (strings), `networks` (a list) and `lifetime` (seconds)";
const ROTATION: &str = "the body must be a JSON object, which may have only the member `overlap` (seconds)";

fn body<T: DeserializeOwned>(call: &Call<'_>, expected: &'static str) -> Result<T, Denial> {
    if said_json(call.headers) != Some(true) {
        return Err(Denial::MalformedRequest("the body must be application/json"));
    }
    serde_json::from_slice(call.body).map_err(|_| Denial::MalformedRequest(expected))
}

/// `lifetime` is in seconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOwnKey {
    name: String,
    scopes: Option<String>,
    audience: Option<String>,
    #[serde(default)]
    networks: Vec<String>,
    lifetime: Option<u64>,
}

impl NewOwnKey {
    fn read(self) -> Result<NewApiKey, Denial> {
        let scopes = self.scopes.map(|text| Scope::parse(&text)).transpose();
        let networks = self.networks.iter().map(|text| text.parse::<IpNet>()).collect::<Result<_, _>>();
        Ok(NewApiKey {
            name: self.name,
            scopes: scopes.map_err(|_| {
                Denial::MalformedRequest("`scopes` must be scope names that are separated by single spaces")
            })?,
            audience: self.audience,
            networks: networks
                .map_err(|_| Denial::MalformedRequest("`networks` must be a list such as [\"10.0.0.0/8\"]"))?,
            lifetime: self.lifetime.map(Duration::from_secs),
            ..NewApiKey::default()
        })
    }
}

/// `overlap` is in seconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRotation {
    overlap: Option<u64>,
}

// Requirement K8.
fn written(done: &OwnKeys) -> Reply {
    match done {
        OwnKeys::Listed(keys) => {
            json(StatusCode::OK, &OwnKeyList { keys: keys.iter().map(|key| OwnKeyEntry::new(key, None)).collect() })
        }
        OwnKeys::Made(text, key) => json(StatusCode::CREATED, &OwnKeyEntry::new(key, Some(text.expose_secret()))),
        OwnKeys::Revoked => json(StatusCode::OK, &json!({ "ended": 1 })),
    }
}

#[derive(Serialize)]
struct OwnKeyList<'a> {
    keys: Vec<OwnKeyEntry<'a>>,
}

/// Times are seconds since 1970.
#[derive(Serialize)]
struct OwnKeyEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    id: &'a str,
    name: &'a str,
    scopes: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    networks: &'a [Box<str>],
    created: u64,
    expires: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    successor: Option<&'a str>,
}

impl<'a> OwnKeyEntry<'a> {
    fn new(key: &'a ApiKey, text: Option<&'a str>) -> Self {
        Self {
            key: text,
            id: &key.id,
            name: &key.name,
            scopes: key.scopes.as_str(),
            audience: key.audience.as_deref(),
            networks: &key.networks,
            created: key.created.as_secs(),
            expires: key.expires.as_secs(),
            last_used: key.last_used.map(|at| at.as_secs()),
            successor: key.successor.as_deref(),
        }
    }
}
