//! The flaws of a login at a provider.

/// The reason for which a browser that returns from a provider is not logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderFlaw {
    /// The browser did not start a login with this `state`, or started it too long ago.
    NotBegun,
    /// The parameters of the callback violate the protocol.
    Callback(&'static str),
    /// The response comes from a different provider than the one to which the browser was sent (RFC 9207).
    Issuer(&'static str),
    /// The user or the provider refused the login (`access_denied`).
    Denied,
    /// The provider responded with another error.
    Answer,
    /// The provider refused the authorization code.
    Code,
    /// The ID token is not valid.
    IdToken(&'static str),
    /// The provider's `acr` or `auth_time` does not meet the requirement of the route (RFC 9470).
    StepUp,
    /// The page asked for the same login right after it was made, or keeps asking for logins.
    Repeated,
}

impl ProviderFlaw {
    /// A description of the flaw.
    pub const fn what(self) -> &'static str {
        match self {
            Self::NotBegun => "this browser did not start this login, or started it too long ago",
            Self::Callback(what) | Self::Issuer(what) | Self::IdToken(what) => what,
            Self::Denied => "the login was refused at the provider",
            Self::Answer => "the provider returned an error",
            Self::Code => "the provider refused the code",
            Self::StepUp => "the login at the provider does not meet the requirements of this page",
            Self::Repeated => "the page requests another login right after a login",
        }
    }
}

/// A provider's error (at most 64 characters) and its description (at most 256 characters), escaped for the log.
pub fn provider_words(error: &str, description: Option<&str>) -> String {
    let cut = |text: &str, most| text.chars().take(most).flat_map(char::escape_debug).collect::<String>();
    let description = description.filter(|text| !text.is_empty());
    let description = description.map(|text| format!(": {}", cut(text, 256))).unwrap_or_default();
    format!("{}{description}", cut(error, 64))
}
