//! What happens to a connection when its token expires.

use super::RoutePolicy;

/// What happens to a connection when its token expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// The connection closes, unless the token was refreshed in time.
    #[default]
    Close,
    /// The connection continues until its session is revoked.
    Keep,
}

impl OnExpiry {
    /// Returns whether the route's connections close when the token expires.
    pub const fn for_policy(policy: &RoutePolicy) -> Self {
        if policy.keeps_on_expiry { Self::Keep } else { Self::Close }
    }
}
