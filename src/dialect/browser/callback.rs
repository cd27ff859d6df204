//! The parameters with which a browser returns from a provider (RFC 6749 §4.1.2, RFC 9207).

use rotogate_core::bounds::MAX_CALLBACK;
use rotogate_core::denial::{Denial, ProviderFlaw, provider_words};

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Callback {
    pub(crate) state: String,
    pub(crate) answer: ProviderAnswer,
    /// The issuer that the response names as its sender.
    pub(crate) issuer: Option<String>,
    pub(crate) said: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum ProviderAnswer {
    Code(String),
    Error(ProviderError),
}

/// The errors of a provider that the gate distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProviderError {
    Denied,
    Unavailable,
    Other,
}

const fn refused(what: &'static str) -> Denial {
    Denial::ProviderLogin(ProviderFlaw::Callback(what))
}

impl Callback {
    /// Parses a query that contains one `state`, and either a code or an error.
    ///
    /// # Errors
    /// [`Denial::ProviderLogin`].
    // Requirements B29, B44.
    pub(crate) fn read(query: Option<&str>) -> Result<Self, Denial> {
        let query = query.unwrap_or_default();
        if query.len() > MAX_CALLBACK {
            return Err(refused("the query is longer than 8 KiB"));
        }
        let [mut state, mut code, mut error, mut description, mut issuer] = [const { None }; 5];
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let known = match &*name {
                "state" => &mut state,
                "code" => &mut code,
                "error" => &mut error,
                "error_description" => &mut description,
                "iss" => &mut issuer,
                _ => continue,
            };
            if known.replace(value.into_owned()).is_some() {
                return Err(refused("the callback has the same parameter twice"));
            }
        }
        let given = |text: &String| !text.is_empty();
        let state = state.filter(given).ok_or(refused("the callback has no `state`"))?;
        let said = error.as_deref().map(|error| provider_words(error, description.as_deref()));
        let answer = match (code.filter(given), error) {
            (Some(code), None) => ProviderAnswer::Code(code),
            (None, Some(error)) => ProviderAnswer::Error(match &*error {
                "access_denied" => ProviderError::Denied,
                "temporarily_unavailable" | "server_error" => ProviderError::Unavailable,
                _ => ProviderError::Other,
            }),
            (Some(_), Some(_)) => return Err(refused("the callback has both `code` and `error`")),
            (None, None) => return Err(refused("the callback has neither `code` nor `error`")),
        };
        Ok(Self { state, answer, issuer, said })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaw(query: &str) -> &'static str {
        match Callback::read(Some(query)).map(|_| ()).unwrap_err() {
            Denial::ProviderLogin(ProviderFlaw::Callback(what)) => what,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn b29_a_callback_has_one_state_and_a_code_or_an_error() {
        let read = Callback::read(Some("code=a%26b&state=S&iss=https%3A%2F%2Fid.example&session_state=x")).unwrap();
        assert!(read.answer == ProviderAnswer::Code("a&b".to_owned()));
        assert_eq!((&*read.state, read.issuer.as_deref()), ("S", Some("https://id.example")));
        // Attacks 9 and 11, and CVE-2023-27496.
        for (query, expected) in [
            ("", "the callback has no `state`"),
            ("code=a", "the callback has no `state`"),
            ("code=a&state=", "the callback has no `state`"),
            ("state=S", "the callback has neither `code` nor `error`"),
            ("state=S&code=", "the callback has neither `code` nor `error`"),
            ("state=S&code=a&error=x", "the callback has both `code` and `error`"),
            ("state=S&state=S&code=a", "the callback has the same parameter twice"),
            ("state=S&code=a&code=b", "the callback has the same parameter twice"),
            ("state=S&code=a&iss=b&iss=b", "the callback has the same parameter twice"),
        ] {
            assert_eq!(flaw(query), expected, "{query}");
        }
        assert_eq!(flaw(&format!("state=S&code={}", "x".repeat(MAX_CALLBACK))), "the query is longer than 8 KiB");
        assert!(Callback::read(None).is_err());
    }

    #[test]
    fn b44_of_an_error_its_kind_is_known_and_its_words_are_cut_and_escaped() {
        for (error, kind) in [
            ("access_denied", ProviderError::Denied),
            ("temporarily_unavailable", ProviderError::Unavailable),
            ("server_error", ProviderError::Unavailable),
            ("login_required", ProviderError::Other),
            ("%3Cscript%3E", ProviderError::Other),
            ("", ProviderError::Other),
        ] {
            let query = format!("state=S&error={error}&error_description=%3Cb%3E");
            assert!(Callback::read(Some(&query)).unwrap().answer == ProviderAnswer::Error(kind), "{error}");
        }
        let said = |query: &str| Callback::read(Some(query)).unwrap().said;
        assert_eq!(said("state=S&error=a&error_description=b%0Ac").as_deref(), Some("a: b\\nc"));
        assert_eq!(said("state=S&error=a").as_deref(), Some("a"));
        let long = "x".repeat(1000);
        let words = said(&format!("state=S&error={long}&error_description={long}")).unwrap();
        assert_eq!(words.len(), 64 + ": ".len() + 256);
        assert_eq!(said("state=S&code=a&error_description=b"), None);
    }

    #[test]
    fn b29_no_query_brings_the_reader_down() {
        bolero::check!().with_type::<String>().for_each(|query| {
            if let Ok(read) = Callback::read(Some(query)) {
                assert!(!read.state.is_empty());
            }
        });
    }
}
