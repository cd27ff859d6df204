//! The browser data in a session's record: the cookie, and the key of the device.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::thumbprint::KeyThumbprint;

/// The grace period for requests sent before the device cookie arrived.
const UNDER_WAY: Duration = Duration::from_secs(60);

/// The stored data about the cookie of a browser session. It does not reveal the cookie.
// Requirement B4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrowserBinding {
    /// The id of the refresh secret that authenticates the cookie. Never changes during the session.
    pub key: u8,
    /// A keyed digest of the cookie.
    pub digest: [u8; 32],
    /// Whether the user logged in at a provider. The session then has a vault with the provider's tokens.
    pub at_provider: bool,
    /// The key of the browser's device, once the session is bound to a device.
    #[serde(default)]
    pub device: Option<Box<DeviceBinding>>,
}

impl BrowserBinding {
    pub(crate) fn bound_device(&self) -> Option<(u8, Timestamp)> {
        self.device.as_ref().map(|device| (self.key, device.bound_at))
    }
}

/// The key of a browser's device (Device Bound Session Credentials). Never changes during the session.
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

/// The public key of a device, at most 300 bytes in the session's record.
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
    pub(crate) fn parts(&self) -> (u8, [&[u8]; 2]) {
        match self {
            Self::Es256 { x, y } => (1, [x, y]),
            Self::Rs256 { n, e } => (2, [n, e]),
        }
    }
}

/// Whether credentials are bound to a key of their holder.
///
/// A browser session can be bound to a key of its device. A client's tokens can be bound to a DPoP key (RFC 9449), or
/// to the client certificate of the connection (RFC 8705 §3).
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
    /// Credentials are not bound, and proofs and certificates have no effect.
    #[default]
    Off,
    /// Credentials are bound if the client or browser supports binding.
    ///
    /// A request with a proof or a client certificate gets bound tokens. Any other request gets bearer tokens. A
    /// session is bound if its browser supports binding.
    Optional,
    /// Credentials must be bound.
    ///
    /// A request without a proof or certificate is refused. A session must be bound within a minute after login.
    Required,
}

impl Binding {
    /// `device` contains the key id of the session's cookies and the binding time. `is_proved` checks the device
    /// cookie.
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
