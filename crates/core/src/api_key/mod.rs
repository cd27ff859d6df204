//! API keys: their format, and their records in the store.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::session::{Scope, VouchedBy};

mod text;

pub use text::KeyPrefix;

/// The record of a key. It is not secret, because it does not contain the key itself.
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
    /// The first twelve characters after the prefix.
    pub id: Box<str>,
    /// The name that the owner gave the key.
    pub name: Box<str>,
    /// The `sub` of the owner: a user, or `client:` and the id of a client.
    pub subject: Box<str>,
    /// The account of its owner.
    pub account: Option<Box<str>>,
    /// The scopes of the key. A request gets only those of them that the owner has at that time.
    pub scopes: Scope,
    /// The only audience of the key, or `None` for the gate's audience.
    pub audience: Option<Box<str>>,
    /// The networks from which the key is accepted. If the list is empty, the key is accepted from everywhere.
    pub networks: Vec<Box<str>>,
    /// When the key was created.
    pub created: Timestamp,
    /// When the key expires.
    pub expires: Timestamp,
    /// When the key was last used, to the hour, or `None` if it was never used.
    pub last_used: Option<Timestamp>,
    /// The key that this key replaces.
    pub predecessor: Option<Box<str>>,
    /// The key that replaces this key.
    pub successor: Option<Box<str>>,
    /// Whether the successor has been used.
    pub is_replaced: bool,
    /// When the key was revoked.
    pub revoked: Option<Timestamp>,
    /// When the session that created the key began. If the key was not created in a session, this is the key's creation
    /// time. A revocation of all sessions of its owner that began by this time also ends the key.
    pub(crate) began: Timestamp,
    /// The issuers that vouched for the users who created the key and its predecessors, with the users' subjects there.
    /// If one of the issuers ends all sessions of its user, the key also ends.
    pub(crate) vouched_by: Vec<VouchedBy>,
    /// The id of the first predecessor. Requests of a key and its successors are counted together under this id.
    pub(crate) lineage: Box<str>,
    /// The id of the keyring's secret under which `digest` was computed.
    pub(crate) kid: u8,
    /// The HMAC of the key.
    pub(crate) digest: [u8; 32],
}

impl ApiKey {
    /// The networks from which the key is accepted.
    pub(crate) fn networks(&self) -> Option<Vec<IpNet>> {
        self.networks.iter().map(|network| network.parse().ok()).collect()
    }

    /// The id of the keyring's secret that verifies the key.
    pub const fn kid(&self) -> u8 {
        self.kid
    }

    /// Returns whether the key is neither revoked nor expired.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && now < self.expires
    }
}

/// The properties of a new key.
///
/// ```
/// use std::time::Duration;
/// use rotogate::gate::NewApiKey;
///
/// let lifetime = Some(Duration::from_secs(7 * 86_400));
/// let new = NewApiKey { name: "nightly".into(), subject: "ada".into(), lifetime, ..NewApiKey::default() };
/// # let _ = new;
/// ```
#[derive(Clone, Debug, Default)]
pub struct NewApiKey {
    /// The name, of 1 to 100 characters.
    pub name: String,
    /// The owner.
    pub subject: String,
    /// The owner's account.
    pub account: Option<String>,
    /// The scopes of the key, or `None` for all scopes of the owner.
    pub scopes: Option<Scope>,
    /// The only audience of the key, or `None` for the gate's audience.
    pub audience: Option<String>,
    /// The networks from which the key is accepted.
    pub networks: Vec<IpNet>,
    /// The lifetime of the key. `None` means 90 days, or the maximum lifetime if it is shorter.
    pub lifetime: Option<Duration>,
}

/// The settings of API keys.
///
/// ```
/// use rotogate::gate::ApiKeySettings;
///
/// let settings = ApiKeySettings::new("acme").unwrap();
/// assert!(settings.max_lifetime <= ApiKeySettings::LONGEST_LIFETIME);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeySettings {
    /// The prefix of all keys.
    pub prefix: KeyPrefix,
    /// The header that may contain a key, besides `Authorization: Bearer`.
    pub header: Option<http::HeaderName>,
    /// The maximum lifetime of a key.
    pub max_lifetime: Duration,
    /// The maximum time for which a replaced key stays valid.
    pub overlap: Duration,
}

impl ApiKeySettings {
    /// The default lifetime of a key.
    pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

    /// The upper bound for [`max_lifetime`](Self::max_lifetime).
    pub const LONGEST_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

    /// Settings with the header `x-api-key`, a maximum lifetime of a year, and an overlap of seven days. Returns `None`
    /// unless the prefix consists of 2 to 12 characters from a-z and 0-9.
    pub fn new(prefix: &str) -> Option<Self> {
        Some(Self {
            prefix: KeyPrefix::new(prefix)?,
            header: Some(http::HeaderName::from_static("x-api-key")),
            max_lifetime: Self::LONGEST_LIFETIME,
            overlap: Duration::from_secs(7 * 86_400),
        })
    }
}

// The revocation entry of a key must be kept longer than the key can live.
const _: () = assert!(ApiKeySettings::LONGEST_LIFETIME.as_secs() < crate::revocation::LONGEST_KEY.as_secs());

/// Properties of a cached key that a cached token does not have.
#[derive(Debug)]
pub(crate) struct CachedKey {
    /// The key itself, which also identifies it in the caches.
    pub(crate) text: std::sync::Arc<str>,
    /// When the record is read again.
    pub(crate) read_again: Timestamp,
    pub(crate) networks: Vec<IpNet>,
}

impl CachedKey {
    /// The memory that its strings take.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.networks)
    }

    /// Returns whether the key is accepted from this address.
    pub(crate) fn is_good_at(&self, address: Option<IpAddr>) -> bool {
        self.networks.is_empty()
            || address.is_some_and(|address| self.networks.iter().any(|network| network.contains(&address)))
    }
}

/// The `client_id` of a request with an API key, which is `key:` followed by the key's id.
pub(crate) struct KeyClient<'a>(pub(crate) &'a str);

impl fmt::Display for KeyClient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key:{}", self.0)
    }
}
