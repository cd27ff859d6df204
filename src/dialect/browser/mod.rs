//! Browser logins, by the gate's form or by JSON. The session is one cookie, so the browser never receives a token.
//!
//! | request | response |
//! |---|---|
//! | `POST /auth/login`, JSON or a form | sets the session cookie; for a form, 303 to `to` |
//! | `GET /auth/login` | the login form, or 303 to the application's page |
//! | `GET /auth/session` | the state of the session; never fails |
//! | `POST /auth/logout` | ends the session, and clears the cookie |
//! | `GET /auth/logout` | a page with a button |
//! | `POST /auth/device` | binds the session to the browser's device, and proves the device later |
//! | `GET /auth/logo` | the logo of the pages |
//! | `GET /auth/callback` | with a provider: sets the session cookie, and 303 to `to` |
//!
//! This module reads requests and writes replies. `gate/endpoint/browser.rs` executes them.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use secrecy::SecretString;
use serde_json::Value;

use super::call::json_object;
use super::oauth2::form;
use super::{Call, Dialect, Outcome, Reply, ServedPath, said_json, said_media};
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;
use rotogate_core::session::profile::ProfileOverride;

#[cfg(feature = "browser-oidc")]
pub(crate) mod callback;
pub(crate) mod device;
pub(crate) mod long_target;
pub(crate) mod look;
pub(crate) mod navigation;
pub(crate) mod page;
pub(crate) mod reader;
pub(crate) mod step_up;
pub(crate) mod target;
pub(crate) mod texts;
pub(crate) mod words;

#[cfg(test)]
mod tests;

use long_target::NamedTarget;
use look::Look;
use page::{LoginForm, Pages};
use step_up::AskedLogin;
use target::{LoginTarget, LoginTargets};
use texts::Language;

/// The dialect's name in `gateway.toml`.
pub const NAME: &str = "browser";
pub(crate) const DEFAULT_PATH: &str = "/auth";

pub(crate) const LOGIN: &str = "login";
pub(crate) const SESSION: &str = "session";
pub(crate) const LOGOUT: &str = "logout";
pub(crate) const CALLBACK: &str = "callback";
pub(crate) const DEVICE: &str = "device";
pub(crate) const LOGO: &str = "logo";

/// The session rules for browsers. A session in use is renewed once per `access_ttl`.
pub const PROFILE: ProfileOverride = ProfileOverride {
    access_ttl: Some(Duration::from_secs(600)),
    max_access_ttl: None,
    session_ttl: Some(Duration::from_secs(7 * 86_400)),
    idle_ttl: Some(Duration::from_secs(8 * 3600)),
    grace: None,
    // Browsers get no refresh token, so they do not need this window. The default would be longer than `idle_ttl`.
    lost_response_window: Some(Duration::ZERO),
    on_reuse: None,
    other_client_ends_session: None,
    max_sessions_per_subject: None,
    ends_oldest: None,
    revoke_previous_after: None,
};

/// The page that `GET /auth/login` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LoginPage {
    /// The gate's built-in login form.
    #[default]
    BuiltIn,
    /// A page of the application, by its path. The page gets the parameter `to`, and `error` after a failed login.
    At(String),
    /// No page: `GET /auth/login` returns 404, and navigations without a session get 401.
    None,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BrowserDialect {
    pub(crate) targets: LoginTargets,
    pub(crate) page: LoginPage,
    pub(crate) look: Arc<Look>,
    /// `None` shows a page of the gate.
    pub(crate) after_logout: Option<String>,
    pub(crate) has_provider: bool,
    pub(crate) binds_devices: bool,
}

pub(crate) struct SentLogin {
    pub(crate) username: String,
    pub(crate) password: SecretString,
    pub(crate) account: Option<String>,
    /// The unchecked target of the redirect after the login.
    pub(crate) to: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SentAs {
    Json,
    /// A page's form sent the request, so the browser shows the reply as a page.
    Form,
    Other,
}

impl SentAs {
    pub(crate) fn of_call(call: &Call<'_>) -> Self {
        match said_json(call.headers) {
            _ if said_media(call.headers, form::FORM) => Self::Form,
            Some(true) => Self::Json,
            Some(false) | None => Self::Other,
        }
    }
}

impl BrowserDialect {
    /// The gate's own pages, in the language of the request.
    pub(crate) fn pages(&self, headers: &HeaderMap) -> Pages<'_> {
        Pages::new(&self.look, Language::of_headers(headers))
    }

    pub(crate) fn path_of(&self, operation: &str) -> String {
        format!("{}/{operation}", self.targets.path)
    }

    /// Redirects to the login, which then leads back to `to`.
    pub(crate) fn lead_to_login(&self, to: &str, asked: &AskedLogin) -> Reply {
        let login = format!("{}{}", self.targets.origin, self.login_path(asked));
        let target = self.targets.admit(to);
        if target == LoginTarget::ROOT {
            return words::see_other(&login);
        }
        let whole = with_query(&login, &[("to", target.as_str())]);
        if whole.len() <= long_target::LONGEST_URL {
            return words::see_other(&whole);
        }
        let named = NamedTarget::new(target.as_str());
        let mut reply = words::see_other(&with_query(&login, &[("to", &named.page), ("rest", &named.digest)]));
        long_target::put(reply.headers_mut(), target.as_str(), &self.targets.path);
        reply
    }

    /// Returns a login link that leads back to `to`. A very long target is omitted.
    pub(crate) fn login_link(&self, to: &str, asked: &AskedLogin) -> String {
        let login = format!("{}{}", self.targets.origin, self.login_path(asked));
        let target = self.targets.admit(to);
        let whole = with_query(&login, &[("to", target.as_str())]);
        if target == LoginTarget::ROOT || whole.len() > long_target::LONGEST_URL { login } else { whole }
    }

    pub(crate) fn target_of(call: &Call<'_>) -> Option<String> {
        let kept = query_parameter(call.query, "rest").and_then(|digest| long_target::find(call.headers, &digest));
        kept.or_else(|| query_parameter(call.query, "to"))
    }

    /// Returns the application page's URL with parameters and target, or its path if the URL would be too long.
    fn page_url(&self, page: &str, more: &[(&str, &str)], target: LoginTarget<'_>) -> String {
        let page = self.targets.url(LoginTarget::Own(page));
        if target == LoginTarget::ROOT && more.is_empty() {
            return page;
        }
        let url = with_query(&page, &[more, &[("to", target.as_str())]].concat());
        if url.len() <= long_target::LONGEST_URL {
            return url;
        }
        with_query(&page, &[more, &[("to", &NamedTarget::new(target.as_str()).page)]].concat())
    }

    /// Returns the login's path, with a route's requirements.
    pub(crate) fn login_path(&self, asked: &AskedLogin) -> String {
        let login = self.path_of(LOGIN);
        match asked.link().as_slice() {
            [] => login,
            pairs => with_query(&login, pairs),
        }
    }

    /// Returns the target in `to`, or [`LoginTarget::ROOT`] if `to` is missing.
    pub(crate) fn target<'a>(&self, to: Option<&'a str>) -> LoginTarget<'a> {
        to.map_or(LoginTarget::ROOT, |to| self.targets.admit(to))
    }

    /// # Errors
    /// [`Denial::MalformedRequest`].
    pub(crate) fn read_login(&self, call: &Call<'_>) -> Result<SentLogin, Denial> {
        const MISSING: Denial = Denial::MalformedRequest("username or password is missing, empty or not a string");
        match SentAs::of_call(call) {
            SentAs::Form => {
                let form = form::read_with(call, &[])?;
                let text = |name| form.get(name).map(str::to_owned);
                Ok(SentLogin {
                    username: text("username").ok_or(MISSING)?,
                    password: form.secret("password").ok_or(MISSING)?,
                    account: text("account"),
                    to: text("to"),
                })
            }
            SentAs::Json => {
                let mut body = json_object(call)?;
                let mut text = |name| match body.remove(name) {
                    None | Some(Value::Null) => Ok(None),
                    Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
                    Some(_) => Err(Denial::MalformedRequest("a member is not a string")),
                };
                Ok(SentLogin {
                    username: text("username")?.ok_or(MISSING)?,
                    password: text("password")?.ok_or(MISSING)?.into(),
                    account: text("account")?,
                    to: text("to")?,
                })
            }
            SentAs::Other => Err(words::NOT_A_LOGIN),
        }
    }

    pub(crate) fn login_page(&self, call: &Call<'_>) -> Reply {
        let to = Self::target_of(call);
        let target = self.target(to.as_deref());
        match &self.page {
            LoginPage::BuiltIn => {
                let (pages, action) = (self.pages(call.headers), self.path_of(LOGIN));
                pages.login(http::StatusCode::OK, &LoginForm::new(&action, target.as_str()))
            }
            LoginPage::At(page) => words::see_other(&self.page_url(page, &[], target)),
            LoginPage::None => words::denied(self, call, &Denial::NoRoute.into()),
        }
    }
}

/// Returns a query parameter. If the parameter is repeated, returns the first value.
pub(crate) fn query_parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

/// Removes a URL's fragment, and appends parameters to its query.
fn with_query(url: &str, pairs: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("{url}{}{query}", if url.contains('?') { '&' } else { '?' })
}

impl Dialect for BrowserDialect {
    fn name(&self) -> &'static str {
        NAME
    }

    fn default_path(&self) -> &'static str {
        DEFAULT_PATH
    }

    fn client(&self) -> Option<&'static str> {
        Some(NAME)
    }

    fn profile(&self) -> ProfileOverride {
        PROFILE
    }

    fn serves(&self, base: &str) -> Vec<ServedPath> {
        const READ: &[Method] = &[Method::GET, Method::HEAD];
        const BOTH: &[Method] = &[Method::GET, Method::HEAD, Method::POST];
        let login = if self.has_provider { [(LOGIN, READ)] } else { [(LOGIN, BOTH)] };
        let callback = self.has_provider.then_some((CALLBACK, READ));
        let device = self.binds_devices.then_some((DEVICE, &[Method::POST][..]));
        let logo = self.look.settings.logo.as_ref().map(|_| (LOGO, READ));
        let all = login.into_iter().chain([(SESSION, READ), (LOGOUT, BOTH)]).chain(callback).chain(device).chain(logo);
        all.map(|(operation, methods)| ServedPath::new(operation, format!("{base}/{operation}"), methods)).collect()
    }

    fn write(&self, call: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply {
        words::denied(self, call, &outcome.err().unwrap_or_else(|| Denial::NoRoute.into()))
    }
}
