//! The replies to browsers: JSON for scripts, pages for forms.

use std::time::Duration;

use http::header::{LOCATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::answer::{empty, json};
use super::super::{Call, Reply};
use super::page::{self, LoginForm, Pages};
use super::reader::{PageCause, Reader, show};
use super::texts::Text;
use super::{BrowserDialect, LOGIN, LOGOUT, LoginPage, SESSION, SentAs};
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
            super::LoginTarget::Listed(_) => self.pages(call.headers).onwards(Text::LoggedIn, &url),
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
            (SentAs::Form, Some(url)) => forgetful(self.pages(call.headers).onwards(Text::LoggedOut, url)),
            (SentAs::Form, None) => forgetful(match &self.after_logout {
                Some(to) => self.pages(call.headers).onwards(Text::LoggedOut, &self.targets.url(self.target(Some(to)))),
                None if self.page == LoginPage::None => self.pages(call.headers).logged_out("/"),
                None => self.pages(call.headers).logged_out(&self.path_of(LOGIN)),
            }),
            (SentAs::Json | SentAs::Other, logout) => {
                forgetful(hardened(json(StatusCode::OK, &json!({ "logout": logout }))))
            }
        }
    }

    pub(crate) fn logout_page(&self, call: &Call<'_>) -> Reply {
        self.pages(call.headers).logout(&self.path_of(LOGOUT))
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
    /// The text for a person.
    fn text(&self) -> Option<Text> {
        Some(match self.error {
            "invalid_credentials" => Text::WrongPassword,
            "too_many_requests" => Text::TooManyAttempts,
            "too_many_sessions" => Text::TooManySessions,
            "temporarily_unavailable" => Text::LoginUnavailable,
            "cross_origin" | "unknown_host" => Text::LoginForeign,
            "invalid_request" => Text::LoginIncomplete,
            _ => return None,
        })
    }

    fn said(&self, pages: &Pages<'_>, text: Text) -> String {
        pages.text(text).replace("{seconds}", &self.wait.map_or(1, seconds).to_string())
    }

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
    let pages = dialect.pages(call.headers);
    let mut reply = match SentAs::of_call(call) {
        SentAs::Form if call.operation == LOGIN => failed_login(dialect, call, &words),
        SentAs::Form => {
            let text =
                pages.text(if words.error == "cross_origin" { Text::ForeignAdvice } else { Text::NotLoggedOutAdvice });
            pages.message(words.status, Text::NotLoggedOut, text, None)
        }
        SentAs::Json | SentAs::Other => problem(&words),
    };
    if let Some(wait) = words.wait {
        retry_after(&mut reply, wait);
    }
    if words.status == StatusCode::UNAUTHORIZED {
        // RFC 9110 §15.5.2.
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return reply;
    }
    match Reader::of_request(call.method, call.headers) {
        Some(reader) if call.method.is_safe() && call.operation != SESSION => {
            let (mut head, _) = reply.into_parts();
            let page = show(pages, reader, PageCause::Status, (head.status, &mut head.headers));
            Response::from_parts(head, page.into())
        }
        _ => reply,
    }
}

/// The page after a failed login at a provider, with a link to start again.
// Requirements B29, B44.
#[cfg(feature = "browser-oidc")]
pub(crate) fn not_logged_in(dialect: &BrowserDialect, call: &Call<'_>, error: &Error) -> Reply {
    let words = Words::of_error(error);
    let (status, text) = match error {
        Error::Denied(Denial::ProviderLogin(flaw)) => match flaw {
            ProviderFlaw::Denied => (StatusCode::FORBIDDEN, Text::LoginCancelled),
            ProviderFlaw::Repeated => (StatusCode::FORBIDDEN, Text::LoginRepeated),
            ProviderFlaw::StepUp => (words.status, Text::LoginRepeated),
            ProviderFlaw::NotBegun | ProviderFlaw::Callback(_) => (words.status, Text::LoginLost),
            _ => (words.status, Text::LoginFailed),
        },
        Error::Failed(Fault::Provider { .. }) => (words.status, Text::ProviderUnavailable),
        _ => (words.status, words.text().unwrap_or(Text::LoginFailed)),
    };
    let (pages, login) = (dialect.pages(call.headers), dialect.path_of(LOGIN));
    let text = words.said(&pages, text);
    let detail = match error {
        Error::Failed(Fault::Provider { .. }) => "the provider is unavailable",
        _ => words.detail,
    };
    let mut reply = pages.begin_again(status, &text, detail, &login);
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
    let pages = dialect.pages(call.headers);
    let text = words.said(&pages, words.text().unwrap_or(Text::BadRequestAdvice));
    if matches!(words.status, StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST)
        && words.error != "too_many_sessions"
    {
        // The reply must not contain data from a cross-origin request, not even the target.
        return pages.message(words.status, Text::NotLoggedIn, &text, None);
    }
    let sent = form::read_with(call, &[]).ok();
    let sent = |name| sent.as_ref().and_then(|form| form.get(name));
    let target = dialect.target(sent("to"));
    match &dialect.page {
        LoginPage::BuiltIn => {
            let [username, account] = ["username", "account"].map(|name| sent(name).unwrap_or_default());
            let action = dialect.path_of(LOGIN);
            let form =
                LoginForm { message: Some(&text), username, account, ..LoginForm::new(&action, target.as_str()) };
            pages.login(words.status, &form)
        }
        LoginPage::At(page) => see_other(&dialect.page_url(page, &[("error", words.error)], target)),
        LoginPage::None => pages.message(words.status, Text::NotLoggedIn, &text, None),
    }
}

/// The reply to a script without a live session: the denial, with the login's path.
pub(crate) fn with_login(plain: Reply, login: &str) -> Reply {
    let Ok(Value::Object(mut body)) = serde_json::from_slice(plain.body().data()) else { return plain };
    body.insert("login".to_owned(), login.into());
    let (head, _) = plain.into_parts();
    Response::from_parts(head, serde_json::to_vec(&body).unwrap_or_default().into())
}
