//! API keys: their text, and the record of one.

#[cfg(feature = "relay")]
use std::fmt;
#[cfg(feature = "relay")]
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::session::Scope;

mod text;

pub use text::KeyPrefix;

/// A record of a key. Nothing in it is secret: the key itself is not in it.
///
/// ```
/// use rotogate_core::api_key::ApiKey;
///
/// fn is_old(key: &ApiKey) -> bool {
///     key.successor.is_some()
/// }
/// # let _ = is_old;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// The first twelve characters behind the prefix.
    pub id: Box<str>,
    /// What its owner calls it.
    pub name: Box<str>,
    /// The `sub` of its owner: a user, or `client:` and a client.
    pub subject: Box<str>,
    /// The account of its owner.
    pub account: Option<Box<str>>,
    /// The scopes that a request may have, as far as the owner has them.
    pub scopes: Scope,
    /// The one audience that it is for; `None`: that of the gate.
    pub audience: Option<Box<str>>,
    /// The networks from which it is good. Empty: all.
    pub networks: Vec<Box<str>>,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is refused.
    pub expires: Timestamp,
    /// When it was used, within an hour. `None`: not yet.
    pub last_used: Option<Timestamp>,
    /// The key that it replaces.
    pub predecessor: Option<Box<str>>,
    /// The key that replaces it.
    pub successor: Option<Box<str>>,
    /// Was the key that replaces it used?
    pub is_replaced: bool,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// The secret of the keyring by which `digest` was made.
    pub(crate) kid: u8,
    /// The HMAC of the key.
    pub(crate) digest: [u8; 32],
}

impl ApiKey {
    /// Its networks.
    #[cfg(feature = "relay")]
    pub(crate) fn networks(&self) -> Option<Vec<IpNet>> {
        self.networks.iter().map(|network| network.parse().ok()).collect()
    }

    /// Which secret of the keyring knows it.
    pub const fn kid(&self) -> u8 {
        self.kid
    }

    /// Is it neither revoked nor expired?
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && now < self.expires
    }
}

/// What a new key is to be.
///
/// ```
/// use rotogate::gate::NewApiKey;
///
/// let nightly = NewApiKey { name: "nightly".into(), subject: "ada".into(), ..NewApiKey::default() };
/// assert_eq!(nightly.account, None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct NewApiKey {
    /// 1 to 100 characters.
    pub name: String,
    /// The owner.
    pub subject: String,
    /// The owner's account.
    pub account: Option<String>,
    /// All of the owner's, if `None`.
    pub scopes: Option<Scope>,
    /// The one audience that it is for.
    pub audience: Option<String>,
    /// Where it is good.
    pub networks: Vec<IpNet>,
    /// How long it lives; `None`: 90 days, or as long as a key may.
    pub lifetime: Option<Duration>,
}

/// The settings of API keys.
///
/// ```
/// use rotogate::gate::ApiKeySettings;
///
/// let keys = ApiKeySettings::new("acme").ok_or("2 to 12 characters of a-z and 0-9")?;
/// assert_eq!(keys.prefix.to_string(), "acme_k1_");
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeySettings {
    /// How keys begin.
    pub prefix: KeyPrefix,
    /// The header of a key, besides `Authorization: Bearer`.
    pub header: Option<http::HeaderName>,
    /// The longest that a key lives.
    pub max_lifetime: Duration,
    /// The longest that a rotated key lives on.
    pub overlap: Duration,
}

impl ApiKeySettings {
    /// How long a key lives unless it is made for less or more.
    pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

    /// The longest that a key may live.
    pub const LONGEST_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

    /// With the header `x-api-key`, for a year, and seven days after a rotation. `None` for a prefix that is not 2 to 12
    /// characters of a-z and 0-9.
    pub fn new(prefix: &str) -> Option<Self> {
        Some(Self {
            prefix: KeyPrefix::new(prefix)?,
            header: Some(http::HeaderName::from_static("x-api-key")),
            max_lifetime: Self::LONGEST_LIFETIME,
            overlap: Duration::from_secs(7 * 86_400),
        })
    }
}

// What ended a key outlives it.
const _: () = assert!(ApiKeySettings::LONGEST_LIFETIME.as_secs() < crate::revocation::LONGEST_KEY.as_secs());

/// The part of a cached key that a token does not have.
#[derive(Debug)]
pub(crate) struct CachedKey {
    /// The key: that of the caches, too.
    pub(crate) text: std::sync::Arc<str>,
    /// When the record is read again.
    #[cfg_attr(not(feature = "relay"), expect(dead_code, reason = "records are in the store of relays"))]
    pub(crate) read_again: Timestamp,
    pub(crate) networks: Vec<IpNet>,
}

impl CachedKey {
    /// The memory of its texts.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.networks)
    }

    /// Is the key good for a request from there?
    #[cfg(feature = "relay")]
    pub(crate) fn is_good_at(&self, address: Option<IpAddr>) -> bool {
        self.networks.is_empty()
            || address.is_some_and(|address| self.networks.iter().any(|network| network.contains(&address)))
    }
}

/// The subject of the client that owns the key, `client_id` of the request.
#[cfg(feature = "relay")]
pub(crate) struct KeyClient<'a>(pub(crate) &'a str);

#[cfg(feature = "relay")]
impl fmt::Display for KeyClient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key:{}", self.0)
    }
}
