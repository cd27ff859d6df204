//! The rates of a gate, and their defaults.

use std::num::NonZeroU32;
use std::time::Duration;

/// A burst, and the time until one more attempt is allowed.
///
/// ```
/// use std::time::Duration;
/// use rotogate::gate::Rate;
///
/// // Five attempts at once, then one each minute.
/// let rate = Rate::new(5, Duration::from_secs(60));
/// assert_eq!(rate.burst.get(), 5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The number of attempts that are allowed at once.
    pub burst: NonZeroU32,
    /// The time until one more attempt is allowed.
    pub every: Duration,
}

impl Rate {
    /// Allows `burst` attempts at once, and then one more per `every`. Zero counts as the smallest possible value.
    pub const fn new(burst: u32, every: Duration) -> Self {
        let burst = match NonZeroU32::new(burst) {
            Some(burst) => burst,
            None => NonZeroU32::MIN,
        };
        Self { burst, every }
    }
}

/// The rates of a gate.
///
/// ```
/// use std::time::Duration;
/// use rotogate::gate::{Rate, Rates};
///
/// let rates = Rates { login_per_account: Rate::new(5, Duration::from_secs(60)), ..Rates::default() };
/// let builder = rotogate::Gate::builder().rates(rates);
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Logins from one address. Logins of a known user from a known address are counted separately, at the same rate.
    pub login_per_address: Rate,
    /// Logins of one user from unknown addresses.
    pub login_per_account: Rate,
    /// For one client: failed logins, wrong secrets, and tokens for its own account.
    pub login_per_client: Rate,
    /// Refreshes from one address.
    pub refresh_per_address: Rate,
    /// Rotations of one session. Replays do not count.
    pub refresh_per_session: Rate,
    /// Access tokens with an invalid signature from one address.
    pub forged_per_address: Rate,
    /// Refused access tokens with a valid signature from one address.
    pub refused_per_address: Rate,
    /// Forged and refused access tokens from all addresses together. The rate also applies to each introspecting
    /// client.
    pub forged_overall: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            login_per_address: Rate::new(20, Duration::from_secs(3)),
            login_per_account: Rate::new(10, Duration::from_secs(30)),
            login_per_client: Rate::new(200, Duration::from_millis(50)),
            refresh_per_address: Rate::new(200, Duration::from_millis(50)),
            refresh_per_session: Rate::new(10, Duration::from_secs(2)),
            forged_per_address: Rate::new(50, Duration::from_millis(100)),
            refused_per_address: Rate::new(200, Duration::from_millis(50)),
            // Verifying 5000 tokens a second takes a twentieth of a processor with RS256, and a fifth with ES256.
            forged_overall: Rate::new(5000, Duration::from_micros(200)),
        }
    }
}
