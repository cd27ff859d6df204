//! The parts of a session's record that only browser sessions have: the session's cookie, and the key of its device.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::thumbprint::KeyThumbprint;

/// For this long after a login or a device registration, requests pass without a device cookie, because they may have
/// been sent before the browser received the cookie.
const UNDER_WAY: Duration = Duration::from_secs(60);

/// The data that a store keeps about the cookie of a browser session. The cookie cannot be computed from this data.
// Requirement B4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrowserBinding {
    /// The id of the refresh secret that made the cookie. It does not change during the session.
    pub key: u8,
    /// A keyed digest of the cookie.
    pub digest: [u8; 32],
    /// Whether the user logged in at a provider, which is the issuer in `vouched_by`. The session then has a vault with
    /// the provider's tokens.
    pub at_provider: bool,
    /// The key of the browser's device, once the session is bound to a device.
    #[serde(default)]
    pub device: Option<Box<DeviceBinding>>,
}

impl BrowserBinding {
    /// The id of the refresh secret for the session's cookies, and the time of the binding. `None` if the session is
    /// not bound to a device.
    pub(crate) fn bound_device(&self) -> Option<(u8, Timestamp)> {
        self.device.as_ref().map(|device| (self.key, device.bound_at))
    }
}

/// The key of a browser's device (Device Bound Session Credentials). Once a session is bound to a key, the key does not
/// change.
// Requirement B47.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceBinding {
    /// The thumbprint of the key.
    pub thumbprint: KeyThumbprint,
    /// The public key.
    pub key: DeviceKey,
    /// When the session was bound to the key.
    pub bound_at: Timestamp,
}

/// The public key of a device. It takes at most 300 bytes of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeviceKey {
    /// A point on the curve P-256.
    Es256 {
        /// The x coordinate.
        x: [u8; 32],
        /// The y coordinate.
        y: [u8; 32],
    },
    /// An RSA key.
    Rs256 {
        /// The modulus.
        n: Box<[u8]>,
        /// The public exponent.
        e: Box<[u8]>,
    },
}

impl DeviceKey {
    /// A number for the kind of key, and the bytes of the key, as they are included in a record's seal.
    pub(crate) fn parts(&self) -> (u8, [&[u8]; 2]) {
        match self {
            Self::Es256 { x, y } => (1, [x, y]),
            Self::Rs256 { n, e } => (2, [n, e]),
        }
    }
}

/// Whether a credential is bound to a key of its holder. A browser's session can be bound to a key of its device. A
/// client's tokens can be bound to a key of which the client proves possession (RFC 9449), or to the client certificate
/// of its connection (RFC 8705 §3). A thief of a bound credential also needs the key.
///
/// ```
/// use rotogate::client::Client;
/// use rotogate::gate::Browser;
/// use rotogate::session::Binding;
///
/// let browser = Browser::own("/auth").device_bound(Binding::Optional);
/// let mobile = Client { dpop: Binding::Required, ..Client::public("mobile") };
/// let robot = Client { certificate_bound: Binding::Required, ..Client::public("robot") };
/// # let _ = (browser, mobile, robot);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// Credentials are not bound. A proof or a certificate has no effect.
    #[default]
    Off,
    /// Credentials are bound if the holder supports it. A request with a proof, or on a connection with a client
    /// certificate, gets bound tokens, and any other request gets bearer tokens. A session is bound if its browser
    /// supports binding.
    Optional,
    /// Credentials must be bound. A request without a proof or certificate is refused. A session that its browser has
    /// not bound within a minute after login is refused.
    Required,
}

impl Binding {
    /// Returns whether a request may pass if its session began at `created`. `device` contains the id of the refresh
    /// secret for the session's cookies and the time of the session's binding, if the session is bound. `is_proved`
    /// checks whether the request has a valid device cookie that was made with this refresh secret.
    // Requirement B48.
    pub(crate) fn admits(
        self,
        created: Timestamp,
        device: Option<(u8, Timestamp)>,
        now: Timestamp,
        is_proved: impl FnOnce(u8) -> bool,
    ) -> bool {
        match (self, device) {
            (Self::Off, _) | (Self::Optional, None) => true,
            (Self::Required, None) => now < created.plus(UNDER_WAY),
            (Self::Optional | Self::Required, Some((key, bound_at))) => {
                now < bound_at.plus(UNDER_WAY) || is_proved(key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b48_b51_a_bound_session_needs_its_device_and_an_unbound_one_only_where_that_is_required() {
        let at = |seconds: u64| Timestamp::from_secs(1_800_000_000 + seconds);
        for (mode, bound_at, now, alone, proved) in [
            (Binding::Off, Some(0), 9_999, true, true),
            (Binding::Optional, None, 9_999, true, true),
            (Binding::Optional, Some(100), 159, true, true),
            (Binding::Optional, Some(100), 160, false, true),
            (Binding::Required, Some(100), 159, true, true),
            (Binding::Required, Some(100), 160, false, true),
            (Binding::Required, None, 59, true, true),
            (Binding::Required, None, 60, false, false),
        ] {
            let admits = |is_proved| {
                mode.admits(at(0), bound_at.map(|bound_at| (7, at(bound_at))), at(now), |key| key == 7 && is_proved)
            };
            assert_eq!((admits(false), admits(true)), (alone, proved), "{mode:?} {bound_at:?} {now}");
        }
    }
}
