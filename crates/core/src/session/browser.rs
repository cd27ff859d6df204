//! The additional parts of a browser session's record: its cookie, and the key of its device.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::thumbprint::KeyThumbprint;

/// How long after a login or a registration requests pass without a device cookie, because they were under way then.
const UNDER_WAY: Duration = Duration::from_secs(60);

/// The cookie of a browser session, as a store keeps it: the cookie cannot be computed from this record.
// Requirement B4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrowserBinding {
    /// The id of the refresh secret that made the cookie. It stays for as long as the session.
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
    /// The key of the session's cookies, and the time of the binding; `None` if the session is not bound to a device.
    pub(crate) fn bound_device(&self) -> Option<(u8, Timestamp)> {
        self.device.as_ref().map(|device| (self.key, device.bound_at))
    }
}

/// The key of a browser's device (Device Bound Session Credentials). The first key to which a session is bound stays.
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

/// A public key of a device: at most 300 bytes of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeviceKey {
    /// A point of P-256.
    Es256 {
        /// The first coordinate.
        x: [u8; 32],
        /// The second coordinate.
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
    /// A number for the kind of key, and the bytes of the key, as a record's seal covers them.
    pub(crate) fn parts(&self) -> (u8, [&[u8]; 2]) {
        match self {
            Self::Es256 { x, y } => (1, [x, y]),
            Self::Rs256 { n, e } => (2, [n, e]),
        }
    }
}

/// Whether something is bound to a key of its holder: a browser's session to a key of its device, a client's tokens to
/// a key that it proves (RFC 9449) or to the client certificate of its connection (RFC 8705 §3). A thief of what is
/// bound needs the key, too.
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
    /// Nothing is bound: a proof or a certificate has no effect.
    #[default]
    Off,
    /// Bound if the holder shows a key: a request with a proof, or on a connection with a client certificate, gets bound
    /// tokens, any other request gets bearer tokens; a session is bound if its browser supports binding.
    Optional,
    /// A request without a proof or certificate is refused; a session that the browser does not bind is refused from a
    /// minute after its login.
    Required,
}

impl Binding {
    /// Does a request pass whose session began at `created`? `device` is the key of the session's cookies and the time
    /// of its binding, if the session is bound. `is_proved` checks whether the request has a good device cookie under
    /// this key.
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
