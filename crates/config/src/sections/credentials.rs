//! `credentials` of a route.

use toml::Value;

use super::super::print::Print;
use super::super::value;
use super::routes::{Names, blame_empty};
use rotogate_core::route::Credentials;
use rotogate_kit::config::Section;

/// The words of `credentials`.
const CREDENTIALS: [(&str, &str); 3] = [(TOKEN, TOKEN), (SESSION, SESSION), (KEY, KEY)];
const TOKEN: &str = "token";
const SESSION: &str = "session";
const KEY: &str = "key";

/// `credentials` of a route.
pub(super) fn read(section: &Section<'_>, names: &Names<'_>) -> Credentials {
    let Some(listed) = section.indexed("credentials", value::word(&CREDENTIALS, &[])) else {
        return Credentials::default();
    };
    blame_empty(section, "credentials", listed.is_empty());
    let has = |kind: &str| listed.iter().any(|(_, listed)| *listed == kind);
    let (token, session, key) = (has(TOKEN), has(SESSION), has(KEY));
    if key && !names.has_keys {
        section.blame("credentials", "contains \"key\", but the section `[api_keys]` is missing");
    }
    if session && !names.has_browser {
        section.blame(
            "credentials",
            "contains \"session\", but there is no entry of `[[endpoints]]` with `dialect = \"browser\"` that starts \
             sessions",
        );
    }
    if session && section.has("cookie") {
        let message = "names the cookie of a token, but `credentials` accepts sessions, which have their own cookie; \
                       remove one of the two";
        section.blame("cookie", message);
    }
    Credentials { token, session, key }
}

impl Print for Credentials {
    fn print(&self) -> Value {
        let kinds = [(TOKEN, self.token), (SESSION, self.session), (KEY, self.key)];
        Value::Array(kinds.iter().filter(|(_, taken)| *taken).map(|(kind, _)| Value::from(*kind)).collect())
    }
}
