//! The replies to browsers: JSON for scripts, pages for forms.

use std::time::Duration;

use http::header::{LOCATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::answer::{empty, json};
use super::super::{Call, Reply};
use super::{BrowserDialect, LOGIN, LOGOUT, LoginPage, SentAs, page};
use crate::dialect::oauth2::form;
use rotogate_core::claim::OwnClaims;
use rotogate_core::clock::Timestamp;
use rotogate_core::denial::{Class, Denial};
use rotogate_core::fault::Error;
use rotogate_core::refusal::cross_origin;
use rotogate_core::reply::{retry_after, seconds};
#[cfg(feature = "browser-oidc")]
use rotogate_core::{denial::ProviderFlaw, fault::Fault};

/// The body is neither JSON nor a form. Any site can make a browser send it without a preflight (requirement T25).
pub(crate) const NOT_A_LOGIN: Denial = Denial::MalformedRequest("the body must be application/json or a form");

#[derive(Serialize)]
struct LoggedIn<'a> {
    authenticated: bool,
    subject: &'a str,
    expires: u64,
}

/// The state of a live session. Times are seconds since 1970.
#[derive(Serialize)]
struct LiveSession<'a> {
    authenticated: bool,
    subject: &'a str,
    claims: &'a OwnClaims,
    expires: u64,
    idle_expires: u64,
    device_bound: bool,
}

/// A problem document (RFC 9457) with an error code for scripts.
#[derive(Serialize)]
struct BrowserProblem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    error: &'static str,
    detail: &'a str,
}

pub(crate) fn see_other(url: &str) -> Reply {
    let mut reply = hardened(empty(StatusCode::SEE_OTHER));
    if let Ok(url) = HeaderValue::try_from(url) {
        reply.headers_mut().insert(LOCATION, url);
    }
    reply
}

pub(super) fn hardened(mut reply: Reply) -> Reply {
    page::harden(reply.headers_mut());
    reply
}

impl BrowserDialect {
    pub(crate) fn logged_in(&self, call: &Call<'_>, to: Option<&str>, subject: &str, expires: Timestamp) -> Reply {
        if SentAs::of_call(call) != SentAs::Form {
            let body = LoggedIn { authenticated: true, subject, expires: expires.as_secs() };
            return hardened(json(StatusCode::OK, &body));
        }
        let target = self.target(to);
        let url = self.targets.url(target);
        match target {
            super::LoginTarget::Own(_) => see_other(&url),
            // The page's policy forbids a redirect to another origin.
            super::LoginTarget::Listed(_) => page::onwards("Logged in", &url),
        }
    }

    pub(crate) fn live(
        &self,
        subject: &str,
        claims: &OwnClaims,
        [expires, idle_expires]: [Timestamp; 2],
        device_bound: bool,
    ) -> Reply {
        let (expires, idle_expires) = (expires.as_secs(), idle_expires.as_secs());
        let live = LiveSession { authenticated: true, subject, claims, expires, idle_expires, device_bound };
        hardened(json(StatusCode::OK, &live))
    }

    pub(crate) fn none(&self) -> Reply {
        hardened(json(StatusCode::OK, &json!({ "authenticated": false, "login": self.path_of(LOGIN) })))
    }

    /// The reply to a logout. The caller clears the cookie. `elsewhere` is the provider's logout page.
    pub(crate) fn logged_out(&self, call: &Call<'_>, elsewhere: Option<&str>) -> Reply {
        match (SentAs::of_call(call), elsewhere) {
            // The page's policy forbids a redirect to another origin.
            (SentAs::Form, Some(url)) => forgetful(page::onwards("Logged out", url)),
            (SentAs::Form, None) => {
                let url = self.targets.url(self.target(Some(&self.after_logout)));
                forgetful(page::onwards("Logged out", &url))
            }
            (SentAs::Json | SentAs::Other, logout) => {
                forgetful(hardened(json(StatusCode::OK, &json!({ "logout": logout }))))
            }
        }
    }

    pub(crate) fn logout_page(&self) -> Reply {
        page::logout(&self.path_of(LOGOUT))
    }
}

/// Makes the browser discard its cache for the site. The Back button then shows no old pages. If a script logs out,
/// Chromium discards only the page of that script.
fn forgetful(mut reply: Reply) -> Reply {
    reply.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\""));
    reply
}

struct Words {
    status: StatusCode,
    error: &'static str,
    detail: &'static str,
    wait: Option<Duration>,
}

impl Words {
    fn of_error(error: &Error) -> Self {
        let said = |status, error, detail| Self { status, error, detail, wait: None };
        let bad = |detail| said(StatusCode::BAD_REQUEST, "invalid_request", detail);
        let unavailable = |wait| Self {
            wait: Some(wait),
            ..said(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", "the result is unknown; try again")
        };
        let denial = match error {
            Error::Denied(denial) => denial,
            Error::Failed(fault) => return unavailable(fault.retry_after()),
        };
        match denial.class() {
            // A 401 would make the browser end the binding to the device.
            Class::BadProof { .. } | Class::Forbidden => {
                said(StatusCode::FORBIDDEN, "device_refused", "the device's key was not verified")
            }
            Class::NoCredential => said(
                StatusCode::UNAUTHORIZED,
                "no_session",
                "the browser has no session that could be bound to the device",
            ),
            Class::Request(what) if *denial == NOT_A_LOGIN => {
                said(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", what)
            }
            Class::Request(what) => bad(what),
            Class::TooLarge => bad("the body is too large"),
            Class::TwoCredentials => bad("the session cookie was sent twice"),
            Class::Login => {
                said(StatusCode::UNAUTHORIZED, "invalid_credentials", "the user name or the password is wrong")
            }
            Class::CrossOrigin => said(StatusCode::FORBIDDEN, "cross_origin", cross_origin(*denial)),
            Class::TooManySessions => said(
                StatusCode::FORBIDDEN,
                "too_many_sessions",
                "you have too many sessions; end one, and log in again",
            ),
            Class::Limited(wait) => Self {
                wait: Some(wait),
                ..said(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "too many attempts; try again later")
            },
            Class::Unavailable(wait) => unavailable(wait),
            Class::NotFound(_) => said(StatusCode::NOT_FOUND, "not_found", "the page does not exist"),
            Class::UnknownHost => said(
                StatusCode::MISDIRECTED_REQUEST,
                "unknown_host",
                "this host has no login; log in at the public URL",
            ),
            Class::WrongMethod => {
                said(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "this page does not support the method")
            }
            // These classes do not occur in this dialect.
            Class::Head { .. }
            | Class::Tunnel
            | Class::UnusableCredential
            | Class::BadToken { .. }
            | Class::InsufficientScope
            | Class::BadGrant { .. }
            | Class::Lifetime
            | Class::Scope
            | Class::Target
            | Class::Client
            | Class::ClientNotAllowed
            | Class::GrantType => bad("this request is not supported here"),
        }
    }
}

/// The reply to a failed request: a page for a form, otherwise a problem document.
pub(crate) fn denied(dialect: &BrowserDialect, call: &Call<'_>, error: &Error) -> Reply {
    let words = Words::of_error(error);
    let mut reply = match SentAs::of_call(call) {
        SentAs::Form if call.operation == LOGIN => failed_login(dialect, call, &words),
        SentAs::Form => page::message(words.status, "Not logged out", words.detail),
        SentAs::Json | SentAs::Other => problem(&words),
    };
    if let Some(wait) = words.wait {
        retry_after(&mut reply, wait);
    }
    if words.status == StatusCode::UNAUTHORIZED {
        // RFC 9110 §15.5.2.
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    reply
}

/// The page after a failed login at a provider, with a link to start again. `further` is an additional sentence.
// Requirements B29, B44.
#[cfg(feature = "browser-oidc")]
pub(crate) fn not_logged_in(dialect: &BrowserDialect, error: &Error, further: Option<&str>) -> Reply {
    let words = Words::of_error(error);
    let (status, detail) = match error {
        Error::Denied(Denial::ProviderLogin(ProviderFlaw::Denied | ProviderFlaw::Repeated)) => {
            (StatusCode::FORBIDDEN, words.detail)
        }
        Error::Failed(Fault::Provider { .. }) => (words.status, "the provider is unavailable; try again later"),
        _ => (words.status, words.detail),
    };
    let text = further.map_or_else(|| detail.to_owned(), |further| format!("{detail}. {further}"));
    let mut reply = page::begin_again(status, &text, &dialect.path_of(LOGIN));
    if let Some(wait) = words.wait {
        retry_after(&mut reply, wait);
    }
    reply
}

#[cfg(feature = "browser-oidc")]
pub(crate) fn nothing() -> Reply {
    hardened(empty(StatusCode::NO_CONTENT))
}

fn problem(words: &Words) -> Reply {
    let Words { status, error, detail, .. } = *words;
    let title = status.canonical_reason().unwrap_or("Error");
    let mut reply =
        json(status, &BrowserProblem { kind: "about:blank", title, status: status.as_u16(), error, detail });
    let headers = reply.headers_mut();
    page::harden(headers);
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    reply
}

fn failed_login(dialect: &BrowserDialect, call: &Call<'_>, words: &Words) -> Reply {
    if matches!(words.status, StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST)
        && words.error != "too_many_sessions"
    {
        // The reply must not contain data from a cross-origin request, not even the target.
        return page::message(words.status, "Not logged in", words.detail);
    }
    let to = form::read_with(call, &[]).ok().and_then(|form| form.get("to").map(str::to_owned));
    let target = dialect.target(to.as_deref());
    match &dialect.page {
        LoginPage::BuiltIn => {
            let text = match words.wait.filter(|_| words.status == StatusCode::TOO_MANY_REQUESTS) {
                Some(wait) => format!("{} (in {} s)", words.detail, seconds(wait)),
                None => words.detail.to_owned(),
            };
            page::login(words.status, &dialect.path_of(LOGIN), target.as_str(), Some(&text))
        }
        LoginPage::At(page) => see_other(&dialect.page_url(page, &[("error", words.error)], target)),
        LoginPage::None => page::message(words.status, "Not logged in", words.detail),
    }
}

/// The reply to a script without a live session: the denial, with the login's path.
pub(crate) fn with_login(plain: Reply, login: &str) -> Reply {
    let Ok(Value::Object(mut body)) = serde_json::from_slice(plain.body().data()) else { return plain };
    body.insert("login".to_owned(), login.into());
    let (head, _) = plain.into_parts();
    Response::from_parts(head, serde_json::to_vec(&body).unwrap_or_default().into())
}
