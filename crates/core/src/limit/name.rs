//! The names of limits.

#[cfg(doc)]
use super::Rates;

/// The name of a [`Rates`] field in the section `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitName {
    /// [`Rates::login_per_address`].
    LoginPerAddress,
    /// [`Rates::login_per_account`].
    LoginPerAccount,
    /// [`Rates::login_per_client`].
    LoginPerClient,
    /// [`Rates::refresh_per_address`].
    RefreshPerAddress,
    /// [`Rates::refresh_per_session`].
    RefreshPerSession,
    /// [`Rates::forged_per_address`].
    ForgedPerAddress,
    /// [`Rates::refused_per_address`].
    RefusedPerAddress,
    /// [`Rates::forged_overall`].
    ForgedOverall,
}

impl LimitName {
    /// All limits.
    pub const ALL: [Self; 8] = [
        Self::LoginPerAddress,
        Self::LoginPerAccount,
        Self::LoginPerClient,
        Self::RefreshPerAddress,
        Self::RefreshPerSession,
        Self::ForgedPerAddress,
        Self::RefusedPerAddress,
        Self::ForgedOverall,
    ];

    /// The name of the configuration key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LoginPerAddress => "login_per_address",
            Self::LoginPerAccount => "login_per_account",
            Self::LoginPerClient => "login_per_client",
            Self::RefreshPerAddress => "refresh_per_address",
            Self::RefreshPerSession => "refresh_per_session",
            Self::ForgedPerAddress => "forged_per_address",
            Self::RefusedPerAddress => "refused_per_address",
            Self::ForgedOverall => "forged_overall",
        }
    }
}
