//! The flaws of a login at a provider.

/// Why a browser that comes back from a provider is not logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderFlaw {
    /// The browser began no login with this `state`, or began it too long ago.
    NotBegun,
    /// The parameters of the callback violate the protocol.
    Callback(&'static str),
    /// The answer is not from the provider that was asked (RFC 9207).
    Issuer(&'static str),
    /// The user or the provider refused the login: `access_denied`.
    Denied,
    /// The provider answered with another error.
    Answer,
    /// The provider refused the code.
    Code,
    /// The ID token is not good.
    IdToken(&'static str),
    /// The route asked for another `acr`, or a later `auth_time`, than the provider answered with (RFC 9470).
    StepUp,
    /// The target of a login asked for the same login right after it, or for one login after another.
    Repeated,
}

impl ProviderFlaw {
    /// The flaw in words.
    pub const fn what(self) -> &'static str {
        match self {
            Self::NotBegun => "this browser began no such login, or began it too long ago",
            Self::Callback(what) | Self::Issuer(what) | Self::IdToken(what) => what,
            Self::Denied => "the login was refused at the provider",
            Self::Answer => "the provider answered with an error",
            Self::Code => "the provider refused the code",
            Self::StepUp => "the provider did not ask for the login that this page needs",
            Self::Repeated => "the page asks again for a login that was just made",
        }
    }
}

/// An error of a provider and its description, for the log: escaped, and at most 64 and 256 characters of them.
pub fn provider_words(error: &str, description: Option<&str>) -> String {
    let cut = |text: &str, most| text.chars().take(most).flat_map(char::escape_debug).collect::<String>();
    let description = description.filter(|text| !text.is_empty());
    let description = description.map(|text| format!(": {}", cut(text, 256))).unwrap_or_default();
    format!("{}{description}", cut(error, 64))
}
