//! The fate of a connection when its token expires.

use super::RoutePolicy;

/// The fate of a connection when its token expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// The connection ends, unless the token was exchanged before.
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
