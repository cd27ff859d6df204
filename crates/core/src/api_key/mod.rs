//! API keys: the text of a key, and the record of a key.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::session::{Scope, VouchedBy};

mod text;

pub use text::KeyPrefix;

/// A record of a key. The record contains no secret, because it does not contain the key itself.
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
    /// The name that the owner gave the key.
    pub name: Box<str>,
    /// The `sub` of the owner: a user, or `client:` and the id of a client.
    pub subject: Box<str>,
    /// The account of its owner.
    pub account: Option<Box<str>>,
    /// The scopes of the key. A request has those of these scopes that the owner has at that time.
    pub scopes: Scope,
    /// The only audience of the key; `None` for the gate's audience.
    pub audience: Option<Box<str>>,
    /// The networks from which the key is accepted; all networks if empty.
    pub networks: Vec<Box<str>>,
    /// When it was made.
    pub created: Timestamp,
    /// The time from which on the key is refused.
    pub expires: Timestamp,
    /// When the key was last used, to the hour; `None` if the key was never used.
    pub last_used: Option<Timestamp>,
    /// The key that it replaces.
    pub predecessor: Option<Box<str>>,
    /// The key that replaces it.
    pub successor: Option<Box<str>>,
    /// Has the successor been used?
    pub is_replaced: bool,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// When the session began that made the key, or the key if no session made it. An end of everything that its owner
    /// has begun by then ends the key.
    pub(crate) began: Timestamp,
    /// The issuers that vouched for the users who made the key and its predecessors, with the users' names there. If one
    /// of them ends everything of its user, the key ends.
    pub(crate) vouched_by: Vec<VouchedBy>,
    /// The id of the first predecessor, by which requests of a key and its successors are counted together.
    pub(crate) lineage: Box<str>,
    /// The id of the keyring's secret under which `digest` was computed.
    pub(crate) kid: u8,
    /// The HMAC of the key.
    pub(crate) digest: [u8; 32],
}

impl ApiKey {
    /// Its networks.
    pub(crate) fn networks(&self) -> Option<Vec<IpNet>> {
        self.networks.iter().map(|network| network.parse().ok()).collect()
    }

    /// The id of the keyring's secret that verifies the key.
    pub const fn kid(&self) -> u8 {
        self.kid
    }

    /// Is the key neither revoked nor expired?
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
    /// 1 to 100 characters.
    pub name: String,
    /// The owner.
    pub subject: String,
    /// The owner's account.
    pub account: Option<String>,
    /// The scopes of the key; `None` for all scopes of the owner.
    pub scopes: Option<Scope>,
    /// The only audience of the key; `None` for the gate's audience.
    pub audience: Option<String>,
    /// The networks from which the key is accepted.
    pub networks: Vec<IpNet>,
    /// The lifetime of the key; `None` for 90 days, or for the maximum if it is shorter.
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
    /// How keys begin.
    pub prefix: KeyPrefix,
    /// The header that may contain a key, besides `Authorization: Bearer`.
    pub header: Option<http::HeaderName>,
    /// The longest lifetime of a key.
    pub max_lifetime: Duration,
    /// How long a replaced key stays valid at most.
    pub overlap: Duration,
}

impl ApiKeySettings {
    /// The lifetime of a key whose creator names no lifetime.
    pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

    /// The upper bound for [`max_lifetime`](Self::max_lifetime).
    pub const LONGEST_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

    /// Settings with the header `x-api-key`, a maximum lifetime of a year, and an overlap of seven days. `None` if the
    /// prefix is not 2 to 12 characters of a-z and 0-9.
    pub fn new(prefix: &str) -> Option<Self> {
        Some(Self {
            prefix: KeyPrefix::new(prefix)?,
            header: Some(http::HeaderName::from_static("x-api-key")),
            max_lifetime: Self::LONGEST_LIFETIME,
            overlap: Duration::from_secs(7 * 86_400),
        })
    }
}

// An entry that ends a key must be kept longer than the key lives.
const _: () = assert!(ApiKeySettings::LONGEST_LIFETIME.as_secs() < crate::revocation::LONGEST_KEY.as_secs());

/// The data of a cached key that a cached token does not have.
#[derive(Debug)]
pub(crate) struct CachedKey {
    /// The text of the key, which is also its key in the caches.
    pub(crate) text: std::sync::Arc<str>,
    /// When the record is read again.
    pub(crate) read_again: Timestamp,
    pub(crate) networks: Vec<IpNet>,
}

impl CachedKey {
    /// The memory of its texts.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.networks)
    }

    /// Is the key accepted from this address?
    pub(crate) fn is_good_at(&self, address: Option<IpAddr>) -> bool {
        self.networks.is_empty()
            || address.is_some_and(|address| self.networks.iter().any(|network| network.contains(&address)))
    }
}

/// The `client_id` of a request with an API key: `key:` and the id of the key.
pub(crate) struct KeyClient<'a>(pub(crate) &'a str);

impl fmt::Display for KeyClient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key:{}", self.0)
    }
}
