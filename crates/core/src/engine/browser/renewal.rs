//! When the session of a browser is renewed.

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
    /// Never: the request does not count as activity. A session whose token has expired is refused.
    Never,
    /// If the session's access token has expired.
    Over,
    /// As [`Over`](Self::Over), by a request that presents this device. A session that needs another proof of its
    /// device is never renewed.
    OverBy(PresentedDevice),
    /// As soon as four fifths of the life of its access token have passed.
    Due,
}

/// The times of a browser session, as of its last renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTerms {
    /// The last renewal.
    pub renewed_at: Timestamp,
    /// From this time on, a request renews the session.
    pub renew_from: Timestamp,
    /// How long the session lives without a renewal.
    pub idle_ttl: Duration,
    /// The absolute end of the session, which no activity moves.
    pub ends: Timestamp,
}

impl SessionTerms {
    pub(super) fn new(session: &Session, profile: &Profile) -> Self {
        let last = &session.last;
        let life = last.access_expires.since(session.issued_at);
        // A token that lives as long as its session would not live longer after a renewal.
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
    /// When this session is renewed, and the refusal of a request that needs a renewal but may not cause one. A thief of
    /// the cookie alone must not keep the session alive, nor use up the provider's refresh token.
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
