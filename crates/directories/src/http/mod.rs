//! Users of an application that checks logins itself, through a login hook.
//!
//! The gate posts JSON to `…/authenticate` and `…/lookup`. Only status 200 with the member `active` is a decision about
//! the user (requirement I24). A login is sent only once, because the application may count attempts.

mod answer;
mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Cause, Found, Login, LoginAttempt, Source, SourceError};
use files::{Access, Files};
use rotogate_core::context::Context;
use rotogate_core::directory::{NamedUsers, User, UserName, UserNameForm};
use rotogate_core::http_client::{Allowed, FetchError, FetchErrorKind, FetchTarget};
use rotogate_core::password::MAX_PASSWORD;

const VERSION: u8 = 1;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A subject without a user, for `check --online`.
const UNKNOWN_SUBJECT: &str = "rotogate-check";

/// The settings of `[directory]` with `kind = "http"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// The base URL of the hook. The operation is appended as a path segment.
    pub url: String,
    /// The file with the gate's secret for the hook.
    pub secret_file: Option<PathBuf>,
    /// The file with the accepted CA certificates. `None` means the system's.
    pub ca: Option<PathBuf>,
    /// The PEM files with the client certificate chain and its private key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Whether refusals take as long as the slowest recent login or refusal.
    pub pad_refusals: bool,
}

impl HttpSettings {
    pub(super) fn files(&self) -> Vec<(&'static str, &Path)> {
        let pair = self.client_cert.iter().flat_map(|(cert, key)| [cert.as_path(), key.as_path()]);
        let single = [("secret_file", self.secret_file.as_deref()), ("ca", self.ca.as_deref())];
        let single = single.into_iter().filter_map(|(key, path)| Some((key, path?)));
        single.chain(pair.map(|path| ("client_cert", path))).collect()
    }
}

/// Returns the URL of an operation.
///
/// # Errors
/// Describes why the URL is not allowed.
pub fn target(url: &str, operation: &str) -> Result<FetchTarget, String> {
    if url.contains('?') {
        return Err("expected a URL without a query".to_owned());
    }
    let url = format!("{}/{operation}", url.trim_end_matches('/'));
    FetchTarget::parse(&url, Allowed::by_operator()).map_err(|error| error.to_string())
}

/// A login hook as a source of users.
pub struct HttpSource {
    authenticate: FetchTarget,
    lookup: FetchTarget,
    files: Files,
    pads_refusals: bool,
}

rotogate_core::debug_with!(HttpSource { lookup.host() });

#[derive(Serialize)]
struct Authenticate<'a> {
    v: u8,
    username: &'a str,
    password: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
}

#[derive(Default, Serialize)]
struct Lookup<'a> {
    v: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    /// The issuer of the subject, or `None` for a subject of this gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    /// An email address that the issuer has confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    /// An id that the application has at the issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    opaque: Option<&'a str>,
}

impl HttpSource {
    /// Reads the files named in the settings, without connecting.
    ///
    /// # Errors
    /// Returns the invalid configuration key and a description of the problem.
    pub fn open(settings: &HttpSettings) -> Result<Self, (&'static str, String)> {
        let target = |operation| target(&settings.url, operation).map_err(|error| ("url", error));
        Ok(Self {
            authenticate: target("authenticate")?,
            lookup: target("lookup")?,
            files: Files::open(&Arc::new(settings.clone()))?,
            pads_refusals: settings.pad_refusals,
        })
    }

    async fn look_up<T>(
        &self,
        asked: &Lookup<'_>,
        read: fn(&[u8]) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let body = body(asked)?;
        match self.ask(&self.lookup, body.clone(), read).await {
            // The connection was lost. A lookup changes nothing, so it can be repeated.
            Err(Asked::Unanswered(error)) if error.kind() == FetchErrorKind::Http => {
                Ok(self.ask(&self.lookup, body, read).await?)
            }
            answered => Ok(answered?),
        }
    }

    async fn ask<T>(
        &self,
        target: &FetchTarget,
        body: Bytes,
        read: fn(&[u8]) -> Result<T, SourceError>,
    ) -> Result<T, Asked> {
        let access = self.files.current();
        let Access { client, authorization } =
            access.map_err(|error| SourceError::new(Cause::Credentials, format!("{target}: {error}")))?;
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, json.clone());
        headers.insert(header::ACCEPT, json);
        let id = Context::current().map(|context| context.id().clone());
        let given = [(header::AUTHORIZATION, authorization), (REQUEST_ID, id)];
        headers.extend(given.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let answered = client.send(target, Method::POST, headers, body).await.map_err(Asked::Unanswered)?;
        match answered.status() {
            StatusCode::OK => read(answered.body())
                .map_err(|error| Asked::Failed(SourceError::new(error.cause, format!("{target}: {error}")))),
            status => Err(refused(target, status).into()),
        }
    }
}

enum Asked {
    Unanswered(FetchError),
    Failed(SourceError),
}

impl From<SourceError> for Asked {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

impl From<Asked> for SourceError {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Unanswered(error) => Self::new(cause(error.kind()), error.to_string()),
            Asked::Failed(error) => error,
        }
    }
}

/// Statuses 401 and 403 mean that the hook rejects the gate's secret.
fn refused(target: &FetchTarget, status: StatusCode) -> SourceError {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let message = format!("{target}: returned {status}: the hook does not accept the gate's secret");
            SourceError::new(Cause::Credentials, message)
        }
        // The hook, or a proxy in front of it, is down or overloaded.
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            SourceError::new(Cause::Refused, format!("{target}: returned {status}"))
        }
        // The hook failed only for this user. Status 429 may come from a rate limit for one name.
        status => {
            let message = format!("{target}: returned {status}; a hook must return 200 even for an unknown user");
            SourceError::new(Cause::Entry, message)
        }
    }
}

fn cause(kind: FetchErrorKind) -> Cause {
    match kind {
        FetchErrorKind::Timeout => Cause::Timeout,
        FetchErrorKind::TooLarge | FetchErrorKind::Encoding => Cause::Entry,
        FetchErrorKind::Redirect | FetchErrorKind::Status | FetchErrorKind::Http => Cause::Answer,
        // No connection was opened, or the error is of an unknown kind.
        _ => Cause::Connect,
    }
}

/// Serializes a request into memory that is overwritten on drop.
fn body(members: &impl Serialize) -> Result<Bytes, SourceError> {
    // The serialization of strings and numbers cannot fail.
    let body = serde_json::to_vec(members).map(|bytes| Bytes::from_owner(Zeroizing::new(bytes)));
    body.map_err(|_| SourceError::new(Cause::Answer, "the request cannot be serialized"))
}

#[async_trait]
impl Source for HttpSource {
    fn kind(&self) -> &'static str {
        "http"
    }

    async fn authenticate(&self, login: &LoginAttempt) -> Result<Login, SourceError> {
        let password = login.password.expose_secret();
        // With an empty password, a hook that binds to LDAP would accept every login.
        if password.is_empty() || password.len() > MAX_PASSWORD {
            return Ok(Login::Absent);
        }
        let body = body(&Authenticate {
            v: VERSION,
            username: &login.username,
            password,
            account: login.account.as_deref(),
            client_id: login.client.as_deref(),
            address: login.address.map(|address| address.to_string()),
            user_agent: login.user_agent.as_deref(),
            scope: login.scope.as_deref(),
        })?;
        Ok(Login::Checked(self.ask(&self.authenticate, body, answer::read).await?))
    }

    async fn lookup(&self, account: Option<&str>, subject: &str) -> Result<Option<User>, SourceError> {
        let asked = Lookup { v: VERSION, subject: Some(subject), account, ..Lookup::default() };
        self.look_up(&asked, answer::read).await
    }

    async fn lookup_of_issuer(&self, issuer: &str, subject: &str) -> Result<Option<User>, SourceError> {
        let asked = Lookup { v: VERSION, subject: Some(subject), issuer: Some(issuer), ..Lookup::default() };
        self.look_up(&asked, answer::read).await
    }

    async fn lookup_named(&self, issuer: &str, name: &UserName) -> Result<NamedUsers, SourceError> {
        let asked = Lookup { v: VERSION, issuer: Some(issuer), ..Lookup::default() };
        let text = Some(name.text());
        let asked = match name.form() {
            UserNameForm::Email => Lookup { email: text, ..asked },
            UserNameForm::Opaque => Lookup { opaque: text, ..asked },
            // The hook protocol does not support this form of name, so no user matches.
            _ => return Ok(NamedUsers::None),
        };
        self.look_up(&asked, answer::read_named).await
    }

    fn pads_refusals(&self) -> bool {
        self.pads_refusals
    }

    async fn inspect(&self) -> Result<Found, SourceError> {
        let found = self.lookup(None, UNKNOWN_SUBJECT).await?;
        let said = if found.is_some() { "the hook has a user with this subject" } else { "inactive, as expected" };
        // Only a response with a user shows whether the hook reports accounts.
        Ok(Found { lines: vec![format!("lookup of {UNKNOWN_SUBJECT}: {said}")], lacks_account: None })
    }
}

#[cfg(test)]
mod tests {
    use rotogate_core::directory::LoginRequest;
    use secrecy::SecretString;

    use super::*;

    #[tokio::test]
    async fn i61_a_password_that_is_not_sent_is_none_that_was_checked() {
        // Nothing listens on this port.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}/hook");
        let settings = HttpSettings { url, secret_file: None, ca: None, client_cert: None, pad_refusals: true };
        let source = HttpSource::open(&settings).unwrap();
        let login = async |password: String| {
            let password = SecretString::from(password);
            source.authenticate(&LoginAttempt::from(&LoginRequest::new(None, "demo", &password))).await
        };
        for password in [String::new(), "x".repeat(MAX_PASSWORD + 1)] {
            assert!(matches!(login(password).await, Ok(Login::Absent)));
        }
        assert!(login("x".repeat(MAX_PASSWORD)).await.is_err(), "any other is asked about");
    }
}
