//! API keys and their records in the store.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::session::{Scope, VouchedBy};

mod text;

pub use text::KeyPrefix;

/// The stored record of an API key, without the secret key.
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
    /// The first twelve characters of the key after its prefix.
    pub id: Box<str>,
    /// The name that the owner chose.
    pub name: Box<str>,
    /// The owner's `sub`. A client's `sub` is `client:<id>`.
    pub subject: Box<str>,
    /// The owner's account.
    pub account: Option<Box<str>>,
    /// The scopes of the API key. A request gets only those scopes that the owner still has.
    pub scopes: Scope,
    /// The audience, or `None` for the gate's audience.
    pub audience: Option<Box<str>>,
    /// The networks from which the key is accepted, or an empty list for all.
    pub networks: Vec<Box<str>>,
    /// When the key was created.
    pub created: Timestamp,
    /// When the key expires.
    pub expires: Timestamp,
    /// When the key was last used, to the hour.
    pub last_used: Option<Timestamp>,
    /// The id of the API key that this key replaces.
    pub predecessor: Option<Box<str>>,
    /// The id of the API key that replaces this key.
    pub successor: Option<Box<str>>,
    /// Whether the successor has been used.
    pub is_replaced: bool,
    /// When the key was revoked.
    pub revoked: Option<Timestamp>,
    /// When the session that created the API key began. A revocation that covers this time also revokes the API key.
    pub(crate) began: Timestamp,
    /// The creators' identities at other issuers. Ending all sessions of one identity also revokes the API key.
    pub(crate) vouched_by: Vec<VouchedBy>,
    /// The id of the first predecessor. Rate limits use this id.
    pub(crate) lineage: Box<str>,
    pub(crate) kid: u8,
    pub(crate) digest: [u8; 32],
}

impl ApiKey {
    pub(crate) fn networks(&self) -> Option<Vec<IpNet>> {
        self.networks.iter().map(|network| network.parse().ok()).collect()
    }

    /// The id of the secret that verifies the key.
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
    /// The scopes, or `None` for all scopes of the owner.
    pub scopes: Option<Scope>,
    /// The audience, or `None` for the gate's audience.
    pub audience: Option<String>,
    /// The networks from which the key is accepted.
    pub networks: Vec<IpNet>,
    /// The lifetime of the key. `None` means 90 days, capped at the maximum lifetime.
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
    /// An additional header for keys.
    pub header: Option<http::HeaderName>,
    /// The maximum lifetime of a key.
    pub max_lifetime: Duration,
    /// How long a replaced key may stay valid.
    pub overlap: Duration,
}

impl ApiKeySettings {
    /// The default lifetime of a key.
    pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

    /// The maximum [`max_lifetime`](Self::max_lifetime).
    pub const LONGEST_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

    /// Creates settings with the header `x-api-key`, a maximum lifetime of a year, and an overlap of seven days.
    /// Returns `None` unless the prefix consists of 2 to 12 characters from a-z and 0-9.
    pub fn new(prefix: &str) -> Option<Self> {
        Some(Self {
            prefix: KeyPrefix::new(prefix)?,
            header: Some(http::HeaderName::from_static("x-api-key")),
            max_lifetime: Self::LONGEST_LIFETIME,
            overlap: Duration::from_secs(7 * 86_400),
        })
    }
}

// The revocation entry must outlive the key.
const _: () = assert!(ApiKeySettings::LONGEST_LIFETIME.as_secs() < crate::revocation::LONGEST_KEY.as_secs());

#[derive(Debug)]
pub(crate) struct CachedKey {
    pub(crate) text: std::sync::Arc<str>,
    pub(crate) read_again: Timestamp,
    pub(crate) networks: Vec<IpNet>,
}

impl CachedKey {
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.networks)
    }

    pub(crate) fn is_good_at(&self, address: Option<IpAddr>) -> bool {
        self.networks.is_empty()
            || address.is_some_and(|address| self.networks.iter().any(|network| network.contains(&address)))
    }
}

pub(crate) struct KeyClient<'a>(pub(crate) &'a str);

impl fmt::Display for KeyClient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key:{}", self.0)
    }
}
