//! When browser sessions are renewed.

use std::time::Duration;

use super::super::Engine;
use super::PresentedDevice;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::session::Session;
use crate::session::profile::Profile;

/// When a session is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewWhen {
    /// Never. The request does not count as activity.
    Never,
    /// The session is renewed if its access token has expired.
    Over,
    /// Like [`Over`](Self::Over), for a request with this device cookie. The session is not renewed if its device must
    /// first prove possession of its key.
    OverBy(PresentedDevice),
    /// The session is renewed after four fifths of the access token's lifetime.
    Due,
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
    pub(super) fn new(session: &Session, profile: &Profile) -> Self {
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

impl Engine {
    /// Somebody who stole only the cookie must not keep the session alive, or use up the provider's refresh token.
    // Requirements B21 and B48.
    pub(super) fn renewal_of(&self, session: &Session, when: RenewWhen) -> (RenewWhen, Denial) {
        match when {
            RenewWhen::OverBy(device) if self.admits_device(session, device) => {
                (RenewWhen::Over, Denial::SessionNotRenewed)
            }
            RenewWhen::OverBy(_) => (RenewWhen::Never, Denial::DeviceProofMissing),
            RenewWhen::Never | RenewWhen::Over | RenewWhen::Due => (when, Denial::SessionNotRenewed),
        }
    }
}
