//! What happens to a connection when its token expires.

use super::RoutePolicy;

/// What happens to a connection when its token expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// The connection ends, unless the token was exchanged for a new one before.
    #[default]
    Close,
    /// The connection continues until its session is revoked.
    Keep,
}

impl OnExpiry {
    /// What happens on a route with this policy.
    pub const fn for_policy(policy: &RoutePolicy) -> Self {
        if policy.keeps_on_expiry { Self::Keep } else { Self::Close }
    }
}
