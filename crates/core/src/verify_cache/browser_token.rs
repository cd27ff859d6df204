//! What the engine loads for a session cookie: the session's current access token, and its times.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::session::profile::Profile;
use crate::session::{Session, VouchedBy};
use crate::token::TokenText;

/// The current access token of a browser session.
#[derive(Debug)]
pub struct BrowserToken {
    /// The token.
    pub access_token: TokenText,
    /// The lifetimes of the session.
    pub terms: SessionTerms,
    /// The user's identity at the login provider, or `None` without a provider.
    pub at_provider: Option<Box<VouchedBy>>,
    /// The id of the device cookie's secret, and the time of the binding. `None` if the session is not bound.
    pub device: Option<(u8, Timestamp)>,
    /// The provider's tokens for the session, with their times.
    pub provider: Option<ProviderTerms>,
}

/// The lifetimes of a browser session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTerms {
    /// The last renewal.
    pub renewed_at: Timestamp,
    /// From this time on, a request renews the session.
    pub renew_from: Timestamp,
    /// How long the session lasts without a renewal.
    pub idle_ttl: Duration,
    /// The absolute end of the session.
    pub ends: Timestamp,
}

impl SessionTerms {
    pub(crate) fn new(session: &Session, profile: &Profile) -> Self {
        let last = &session.last;
        let life = last.access_expires.since(session.issued_at);
        let is_last = last.access_expires.as_secs() >= session.expires.as_secs();
        Self {
            renewed_at: session.issued_at,
            renew_from: if is_last { Timestamp::MAX } else { session.issued_at.plus(life * 4 / 5) },
            idle_ttl: profile.idle_ttl,
            ends: session.expires.min(session.created().plus(profile.session_ttl)),
        }
    }

    /// When the session expires if no further request arrives.
    pub fn idle_expires(&self) -> Timestamp {
        self.renewed_at.plus(self.idle_ttl).min(self.ends)
    }
}

/// The provider data that a request needs.
pub struct ProviderTerms {
    /// The provider's access token, if it is kept.
    pub access_token: Option<Arc<Zeroizing<String>>>,
    /// The expiry of the access token.
    pub token_until: Timestamp,
    /// Whether the provider issued a refresh token.
    pub is_refreshable: bool,
    /// From this time on, a request refreshes the access token.
    pub refresh_from: Timestamp,
    /// When the vault must be read again.
    pub good_until: Timestamp,
}

crate::debug_with!(ProviderTerms { token_until });
