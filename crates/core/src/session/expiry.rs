//! What happens to a connection when its token expires.

/// What happens to a connection when its token expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// The connection closes, unless the token was refreshed in time.
    #[default]
    Close,
    /// The connection continues until its session is revoked.
    Keep,
}
