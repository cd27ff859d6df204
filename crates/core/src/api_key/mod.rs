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

/// The stored record of an API key. The record is not secret, because it does not contain the key itself.
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
    /// The API key's id, which is the first twelve characters after the prefix.
    pub id: Box<str>,
    /// The name that the owner gave the API key.
    pub name: Box<str>,
    /// The owner's `sub`. For a client, it is `client:` followed by the client's id.
    pub subject: Box<str>,
    /// The owner's account.
    pub account: Option<Box<str>>,
    /// The scopes of the API key. A request gets only those scopes that the owner also has at the time of the request.
    pub scopes: Scope,
    /// The only audience of the API key, or `None` for the gate's audience.
    pub audience: Option<Box<str>>,
    /// The networks from which the key is accepted. If the list is empty, the key is accepted from everywhere.
    pub networks: Vec<Box<str>>,
    /// When the key was created.
    pub created: Timestamp,
    /// When the key expires.
    pub expires: Timestamp,
    /// When the key was last used, to the hour, or `None` if it was never used.
    pub last_used: Option<Timestamp>,
    /// The id of the API key that this key replaces.
    pub predecessor: Option<Box<str>>,
    /// The id of the API key that replaces this key.
    pub successor: Option<Box<str>>,
    /// Whether the successor has been used.
    pub is_replaced: bool,
    /// When the key was revoked.
    pub revoked: Option<Timestamp>,
    /// When the session that created the API key began. If the key was not created in a session, this is the key's
    /// creation time. A revocation of the owner's sessions and API keys also ends this key, if the revocation covers
    /// sessions that began at this time.
    pub(crate) began: Timestamp,
    /// The issuers that authenticated the users who created the API key and its predecessors, with the users' subjects
    /// at these issuers. If one of the issuers ends all sessions of its user, the API key also ends.
    pub(crate) vouched_by: Vec<VouchedBy>,
    /// The id of the first predecessor. Requests with an API key and requests with its successors are counted together
    /// under this id.
    pub(crate) lineage: Box<str>,
    /// The id of the keyring's secret that was used to compute `digest`.
    pub(crate) kid: u8,
    /// The HMAC of the API key.
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

// An API key's revocation entry must be kept longer than the key can be valid.
const _: () = assert!(ApiKeySettings::LONGEST_LIFETIME.as_secs() < crate::revocation::LONGEST_KEY.as_secs());

/// Properties of a cached key that a cached token does not have.
#[derive(Debug)]
pub(crate) struct CachedKey {
    /// The API key itself, which also identifies it in the caches.
    pub(crate) text: std::sync::Arc<str>,
    /// When the API key's record must be read from the store again.
    pub(crate) read_again: Timestamp,
    pub(crate) networks: Vec<IpNet>,
}

impl CachedKey {
    /// The memory that the strings take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.networks)
    }

    /// Returns whether the API key is accepted from this address.
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
