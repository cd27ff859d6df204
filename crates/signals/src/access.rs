//! The gate's authentication at a transmitter: with a token from a file, or as a client of an authorization server.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use secrecy::SecretString;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::StreamError;
use rotogate_core::http_client::{ClientCredentials, FetchTarget, HttpClient, bearer};
use rotogate_core::private_file::{read_private, trusted};
use rotogate_core::token::verify::strict_object;

/// How long a token with unknown lifetime is used, and the longest time for any token.
const TOKEN_LIFE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// Returns the current URL of a token endpoint; `None` before it is known.
pub type TokenUrl = Arc<dyn Fn() -> Option<FetchTarget> + Send + Sync>;

/// Returns the gate's client credentials, from the current content of their files.
pub type ClientSource = Arc<dyn Fn() -> Result<ClientCredentials, String> + Send + Sync>;

/// How the gate authenticates at a transmitter.
#[derive(Clone)]
pub enum Access {
    /// With the bearer token in this file, which is read for each request.
    File(PathBuf),
    /// With tokens of an authorization server (RFC 6749 §4.4).
    Client {
        /// The gate's client credentials, which are read for each token request.
        credentials: ClientSource,
        /// The token endpoint.
        token_url: TokenUrl,
        /// The requested scope; empty to request no scope.
        scope: String,
    },
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
            Self::Client { scope, .. } => f.debug_struct("Client").field("scope", scope).finish_non_exhaustive(),
        }
    }
}

/// Makes the `Authorization` of requests, and caches its token.
pub(crate) struct Authorizer {
    access: Access,
    kept: Option<(HeaderValue, Instant)>,
}

impl Authorizer {
    pub(crate) const fn new(access: Access) -> Self {
        Self { access, kept: None }
    }

    /// Drops the cached token, because the transmitter refused it.
    pub(crate) fn forget(&mut self) {
        self.kept = None;
    }

    pub(crate) async fn header(&mut self, http: &HttpClient) -> Result<HeaderValue, StreamError> {
        let (credentials, token_url, scope) = match &self.access {
            Access::File(file) => {
                let text = trusted::check_folders(file).and_then(|()| read_private(file));
                let token = SecretString::from(text.map_err(StreamError::Access)?.trim().to_owned());
                let no_token = || StreamError::Access(format!("{}: expected a bearer token", file.display()));
                return bearer(&token).ok_or_else(no_token);
            }
            Access::Client { credentials, token_url, scope } => (credentials, token_url, scope),
        };
        if let Some((header, until)) = &self.kept
            && Instant::now() < *until
        {
            return Ok(header.clone());
        }
        let not_known = || StreamError::Access("the token endpoint is not known yet: write token_url".to_owned());
        let target = token_url().ok_or_else(not_known)?;
        let credentials = credentials().map_err(StreamError::Access)?;
        let (header, life) = granted(http, &target, &credentials, scope).await?;
        self.kept = Some((header.clone(), Instant::now() + life));
        Ok(header)
    }
}

/// Asks for a token.
async fn granted(
    http: &HttpClient,
    target: &FetchTarget,
    credentials: &ClientCredentials,
    scope: &str,
) -> Result<(HeaderValue, Duration), StreamError> {
    let mut headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        (ACCEPT, HeaderValue::from_static("application/json")),
    ]);
    let mut body = Zeroizing::new(form(scope));
    let added = credentials.add_to(&mut headers, &mut body);
    added.ok_or_else(|| StreamError::Access("the client's id, secret or assertion cannot be sent".to_owned()))?;
    let answer = http.send(target, Method::POST, headers, Bytes::copy_from_slice(&body)).await?;
    let refused = |why: String| StreamError::Answer { place: target.to_string(), why };
    if answer.status() != StatusCode::OK {
        return Err(refused(format!("answered {} to the gate as a client", answer.status())));
    }
    let answer = strict_object(answer.body()).map_err(|why| refused(why.to_owned()))?;
    let token = answer.get("access_token").and_then(|token| token.as_str()).unwrap_or_default();
    let is_bearer = answer.get("token_type").and_then(|kind| kind.as_str()).unwrap_or_default();
    let header = bearer(&SecretString::from(token.to_owned()));
    let header = header.filter(|_| !token.is_empty() && is_bearer.eq_ignore_ascii_case("bearer"));
    let header = header.ok_or_else(|| refused("has no bearer token".to_owned()))?;
    let life = answer.get("expires_in").and_then(serde_json::Value::as_u64);
    // The token is not used in the last moments of its life.
    let life = life.map_or(TOKEN_LIFE.0, |seconds| Duration::from_secs(seconds).min(TOKEN_LIFE.1) * 9 / 10);
    Ok((header, life))
}

/// The form of RFC 6749 §4.4.2.
fn form(scope: &str) -> Vec<u8> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if !scope.is_empty() {
        form.append_pair("scope", scope);
    }
    form.finish().into_bytes()
}
