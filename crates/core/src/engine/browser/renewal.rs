//! Determines when a browser session is renewed.

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
    /// Never, because the request does not count as activity. A session whose access token has expired is refused.
    Never,
    /// If the session's access token has expired.
    Over,
    /// The same as [`Over`](Self::Over), for a request that presents this device cookie. If the session needs a new
    /// proof of its device, the session is not renewed.
    OverBy(PresentedDevice),
    /// When four fifths of the access token's lifetime have passed.
    Due,
}

/// The lifetimes of a browser session, as of its last renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTerms {
    /// The last renewal.
    pub renewed_at: Timestamp,
    /// From this time on, a request renews the session.
    pub renew_from: Timestamp,
    /// How long the session lasts without a renewal.
    pub idle_ttl: Duration,
    /// The absolute end of the session, which activity does not move.
    pub ends: Timestamp,
}

impl SessionTerms {
    pub(super) fn new(session: &Session, profile: &Profile) -> Self {
        let last = &session.last;
        let life = last.access_expires.since(session.issued_at);
        // If the token already lasts as long as its session, a renewal could not extend it.
        let is_last = last.access_expires.as_secs() >= session.expires.as_secs();
        Self {
            renewed_at: session.issued_at,
            renew_from: if is_last { Timestamp::MAX } else { session.issued_at.plus(life * 4 / 5) },
            idle_ttl: profile.idle_ttl,
            ends: session.expires.min(session.created().plus(profile.session_ttl)),
        }
    }

    /// The end of the session if no further request arrives.
    pub fn idle_expires(&self) -> Timestamp {
        self.renewed_at.plus(self.idle_ttl).min(self.ends)
    }
}

impl Engine {
    /// Determines when this session is renewed, and the denial for a request that needs a renewal but is not permitted
    /// to cause it. Somebody who stole only the cookie must not be able to keep the session alive or use up the
    /// provider's refresh token.
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
