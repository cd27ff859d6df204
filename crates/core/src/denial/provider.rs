//! The flaws of a login at a provider.

/// Why a browser that returns from a provider is not logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderFlaw {
    /// The browser did not start a login with this `state`, or started it too long ago.
    NotBegun,
    /// The parameters of the callback violate the protocol.
    Callback(&'static str),
    /// The response comes from another provider (RFC 9207).
    Issuer(&'static str),
    /// The user or the provider refused the login (`access_denied`).
    Denied,
    /// The provider responded with another error.
    Answer,
    /// The provider refused the authorization code.
    Code,
    /// The ID token is not valid.
    IdToken(&'static str),
    /// The login at the provider is too weak or too old for the route (RFC 9470).
    StepUp,
    /// The page repeats the same login too often.
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
            Self::Repeated => "the page requested the same login again, right after that login",
        }
    }
}

/// A provider's error and its description, shortened and escaped for the log.
pub fn provider_words(error: &str, description: Option<&str>) -> String {
    let cut = |text: &str, most| text.chars().take(most).flat_map(char::escape_debug).collect::<String>();
    let description = description.filter(|text| !text.is_empty());
    let description = description.map(|text| format!(": {}", cut(text, 256))).unwrap_or_default();
    format!("{}{description}", cut(error, 64))
}
