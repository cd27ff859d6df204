//! The gate as an OpenID Connect client (OpenID Connect Core §3.1). Logins always use PKCE with S256. A code is sent
//! only once, and redirects are not followed.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Response, StatusCode};
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::remote_keys::client::FetchClient;
use crate::remote_keys::{Metadata, RemoteIssuer, RemoteKeys, revocation_target, token_target};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::denial::provider_words;
use rotogate_core::http_client::{ClientAssertions, ClientCredentials, FetchError, FetchTarget, SecretPlace};
use rotogate_core::oauth_error::OAuthError;
use rotogate_core::pause::ServicePauses;
use rotogate_core::strict_json::object_of_depth;

mod ask;

use ask::declined;

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_DEPTH: usize = 16;
/// The maximum length of a logout URL, in bytes. Many servers reject longer URLs.
const MAX_LOGOUT_URL: usize = 4 << 10;
const OPENID: &str = "openid";

/// Authorization request parameters that only the gate may set.
pub const OWN_PARAMETERS: [&str; 13] = [
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "id_token_hint",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

/// A function that returns the last discovery document, or `None` if none has been read.
pub type MetadataSource = Arc<dyn Fn() -> Option<Arc<Metadata>> + Send + Sync>;

/// A provider for browser logins, with the gate's client registration.
///
/// ```no_run
/// # async fn example(secret: rotogate::SecretString) -> Result<(), Box<dyn std::error::Error>> {
/// use rotogate::gate::{Browser, LoginProvider};
/// use rotogate::remote_keys::{RemoteIssuer, RemoteKeys};
///
/// let remote = RemoteKeys::start(RemoteIssuer::new("kc", "https://id.example.com/realms/x"))?;
/// let provider = LoginProvider::new(&remote, "web").secret(secret).scopes(["profile"]);
/// let builder = rotogate::Gate::builder()
///     .trusted_issuer(remote.rules(["api"]))
///     // With the gate's own store: `.row_store(store)`.
///     .browser(Browser::provider("/auth", provider));
/// # let _ = builder;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct LoginProvider {
    name: Arc<str>,
    url: Arc<str>,
    metadata: MetadataSource,
    /// The client's files are read again for each request.
    http: Arc<Mutex<FetchClient>>,
    client: ClientCredentials,
    scopes: Vec<String>,
    parameters: Vec<(String, String)>,
    is_pushed: bool,
    keeps_access_token: bool,
    pauses: Arc<ServicePauses>,
    time: Arc<dyn TimeSource>,
}

rotogate_core::debug_with!(LoginProvider { name, client.id });

/// The secrets of a login. `Debug` hides them.
#[derive(Clone, Copy)]
pub struct LoginSecrets<'a> {
    /// The `state` parameter.
    pub state: &'a str,
    /// The `nonce` parameter.
    pub nonce: &'a str,
    /// The PKCE verifier (RFC 7636).
    pub verifier: &'a str,
}

/// The response to a code exchange. `Debug` hides the tokens.
pub struct ExchangedTokens {
    /// The ID token.
    pub id_token: Zeroizing<String>,
    /// The access token.
    pub access_token: Zeroizing<String>,
    /// The granted scope, or the requested scope if the response has none (RFC 6749 §5.1).
    pub scope: String,
    /// The refresh token and the lifetime of the access token.
    pub further: FurtherTokens,
}

/// The optional part of a token response. `Debug` hides the token.
#[derive(Default)]
pub struct FurtherTokens {
    /// The refresh token.
    pub refresh_token: Option<Zeroizing<String>>,
    /// The lifetime of the access token.
    pub lifetime: Option<Duration>,
}

/// The response to a refresh. `Debug` hides the tokens.
pub struct RefreshedTokens {
    /// The access token.
    pub access_token: Zeroizing<String>,
    /// The new ID token, if the provider returned one.
    pub id_token: Option<Zeroizing<String>>,
    /// The new refresh token, if the provider returned one, and the lifetime of the access token.
    pub further: FurtherTokens,
}

rotogate_core::debug_with!(RefreshedTokens);

impl FurtherTokens {
    fn read(answer: &Map<String, Value>) -> Self {
        let seconds = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        Self {
            refresh_token: kept_text(answer, "refresh_token"),
            lifetime: answer.get("expires_in").and_then(seconds).map(Duration::from_secs),
        }
    }
}

impl RefreshedTokens {
    /// Parses a successful response.
    pub fn read(body: &[u8]) -> Option<Self> {
        let answer = object_of_depth(body, MAX_DEPTH).ok()?;
        Some(Self {
            access_token: kept_text(&answer, "access_token")?,
            id_token: kept_text(&answer, "id_token"),
            further: FurtherTokens::read(&answer),
        })
    }
}

fn kept_text(answer: &Map<String, Value>, name: &str) -> Option<Zeroizing<String>> {
    text(answer, name).filter(|text| !text.is_empty()).map(|text| text.to_owned().into())
}

rotogate_core::debug_with!(ExchangedTokens);

/// Why a login at a provider failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginFailure {
    /// The discovery document is unknown or lacks an endpoint.
    #[error("the discovery document of {0} is not known, or does not name a usable {1}")]
    Unknown(Arc<str>, &'static str),
    /// The configuration of the gate's client is unusable.
    #[error("{0}")]
    Client(String),
    /// There was no complete response.
    #[error(transparent)]
    Unreachable(#[from] FetchError),
    /// The provider requested a pause.
    #[error("the provider asked the gate to wait {} s before the next request", .0.as_secs())]
    Busy(Duration),
    /// The provider rejected the code.
    #[error("the provider refused the code")]
    Code,
    /// The provider rejected the gate's client.
    #[error(
        "the provider rejects the gate's client: {0}; compare `client.id`, the client secret and `client.secret_in` \
         with the client's entry at the provider"
    )]
    Refused(&'static str),
    /// The token response is invalid.
    #[error("{0}")]
    Unusable(&'static str),
}

impl LoginProvider {
    /// Creates a provider from an issuer with discovery. The gate is a public client with this id.
    pub fn new(remote: &RemoteKeys, client: impl Into<String>) -> Self {
        let of_document = remote.clone();
        Self::with_metadata(remote.issuer(), client, Arc::new(move || of_document.metadata()))
    }

    /// Creates a provider that gets the discovery document from `metadata`.
    #[doc(hidden)]
    pub fn with_metadata(issuer: &RemoteIssuer, client: impl Into<String>, metadata: MetadataSource) -> Self {
        Self {
            name: issuer.name.as_str().into(),
            url: issuer.issuer.as_str().into(),
            metadata,
            http: Arc::new(Mutex::new(FetchClient::new(issuer))),
            client: ClientCredentials::public(client),
            scopes: vec![OPENID.to_owned()],
            parameters: Vec::new(),
            is_pushed: false,
            keeps_access_token: true,
            pauses: Arc::default(),
            time: Arc::new(SystemTime::new()),
        }
    }

    /// Sets a client secret that is sent in `Authorization` (`client_secret_basic`).
    #[must_use]
    pub fn secret(mut self, secret: SecretString) -> Self {
        self.client.secret = Some((secret, SecretPlace::Basic));
        self
    }

    /// Sets a client secret that is sent in the request body (`client_secret_post`).
    #[must_use]
    pub fn secret_in_form(mut self, secret: SecretString) -> Self {
        self.client.secret = Some((secret, SecretPlace::Form));
        self
    }

    /// Sets the key that signs client assertions.
    #[doc(hidden)]
    #[must_use]
    pub fn key(mut self, key: Arc<dyn ClientAssertions>) -> Self {
        self.client.assertions = Some(key);
        self
    }

    /// Sets the scopes to request in addition to `openid`.
    #[must_use]
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.scopes = vec![OPENID.to_owned()];
        self.scopes.extend(scopes.into_iter().map(Into::into).filter(|scope| scope != OPENID));
        self
    }

    /// Adds a parameter to the authorization request. Parameters that the gate sets itself are ignored.
    // Requirement B28.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        if !OWN_PARAMETERS.contains(&name.as_str()) {
            self.parameters.push((name, value.into()));
        }
        self
    }

    /// Discards access tokens. Use this if no route or handler needs access tokens.
    #[must_use]
    pub const fn identity_only(mut self) -> Self {
        self.keeps_access_token = false;
        self
    }

    /// Always uses pushed authorization requests (RFC 9126).
    #[must_use]
    pub const fn pushed(mut self) -> Self {
        self.is_pushed = true;
        self
    }
}

#[doc(hidden)]
impl LoginProvider {
    /// The short name of the issuer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The issuer's URL (`iss`).
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The client id.
    pub fn client_id(&self) -> &str {
        &self.client.id
    }

    /// Returns whether the provider adds `iss` to responses, or `None` if this is unknown.
    pub fn names_itself(&self) -> Option<bool> {
        Some((self.metadata)()?.names_itself)
    }

    /// Returns the URL of a login at the provider. A route's `step_up` requirements override configured parameters.
    ///
    /// # Errors
    /// The provider is unreachable, or rejects the pushed request.
    // Requirements B28, B37.
    pub async fn login_url(
        &self,
        redirect_uri: &str,
        secrets: LoginSecrets<'_>,
        step_up: &[(&str, &str)],
    ) -> Result<String, LoginFailure> {
        const WHAT: &str = "authorization_endpoint";
        let metadata = self.document(WHAT)?;
        let endpoint = metadata.authorization_endpoint.as_deref().filter(|url| metadata.target(url).is_some());
        let endpoint = endpoint.ok_or_else(|| self.unknown(WHAT))?;
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, secrets.verifier.as_bytes()));
        let scope = self.scopes.join(" ");
        let own = [
            ("response_type", "code"),
            ("redirect_uri", redirect_uri),
            ("scope", &scope),
            ("state", secrets.state),
            ("nonce", secrets.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let is_asked = |name: &str| step_up.iter().any(|(asked, _)| *asked == name);
        let further = self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let further = step_up.iter().copied().chain(further.filter(|(name, _)| !is_asked(name)));
        let client = ("client_id", self.client.id.as_str());
        let asked = own.into_iter().chain(further);
        let query = if self.is_pushed || metadata.requires_pushed_requests {
            // A pushed request needs `client_id`. If the client's credentials are sent in the form, they include it.
            let in_header = !self.client.is_in_form();
            let request_uri =
                self.push(&metadata, encoded(in_header.then_some(client).into_iter().chain(asked))).await?;
            encoded([client, ("request_uri", request_uri.as_str())])
        } else {
            encoded([client].into_iter().chain(asked))
        };
        Ok(with_query(endpoint, &query))
    }

    async fn push(&self, metadata: &Metadata, form: String) -> Result<String, LoginFailure> {
        const WHAT: &str = "pushed_authorization_request_endpoint";
        let url = metadata.pushed_authorization_request_endpoint.as_deref();
        let target = url.and_then(|url| metadata.target(url)).ok_or_else(|| self.unknown(WHAT))?;
        match self.post(&target, form).await? {
            (StatusCode::CREATED | StatusCode::OK, answer) => match text(&answer, "request_uri") {
                Some(uri) if !uri.is_empty() => Ok(uri.to_owned()),
                _ => Err(LoginFailure::Unusable(
                    "the response to a pushed authorization request has no \
                                                 `request_uri`",
                )),
            },
            (_, answer) => Err(refusal(&answer)),
        }
    }

    /// Exchanges a code for tokens. The request is sent only once.
    ///
    /// # Errors
    /// The provider rejects the code, or there is no usable response.
    // Requirement B34.
    pub async fn exchange(
        &self,
        redirect_uri: &str,
        code: &str,
        verifier: &str,
    ) -> Result<ExchangedTokens, LoginFailure> {
        const WHAT: &str = "token_endpoint";
        let metadata = self.document(WHAT)?;
        let target = token_target(&metadata).ok_or_else(|| self.unknown(WHAT))?;
        let form = encoded([
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ]);
        let (status, answer) = self.post(&target, form).await?;
        if status != StatusCode::OK {
            let error = text(&answer, "error");
            if let Some(error) = error {
                let said = provider_words(error, text(&answer, "error_description"));
                tracing::warn!(issuer = self.name(), said, "the provider refused an authorization code");
            }
            let error = error.map(OAuthError::read);
            return Err(if error == Some(OAuthError::Grant) { LoginFailure::Code } else { refusal(&answer) });
        }
        let token = |name, missing| text(&answer, name).map(str::to_owned).ok_or(LoginFailure::Unusable(missing));
        Ok(ExchangedTokens {
            id_token: token(
                "id_token",
                "the token response has no `id_token`: check that the scopes include `openid`",
            )?
            .into(),
            access_token: token("access_token", "the token response has no `access_token`")?.into(),
            scope: text(&answer, "scope").map_or_else(|| self.scopes.join(" "), str::to_owned),
            further: FurtherTokens::read(&answer),
        })
    }

    /// Returns whether access tokens are kept.
    pub const fn keeps_access_token(&self) -> bool {
        self.keeps_access_token
    }

    /// Sends a form once to the token endpoint.
    ///
    /// # Errors
    /// There was no complete response.
    pub async fn ask_for_tokens(&self, form: &[u8], within: Duration) -> Result<Response<Bytes>, LoginFailure> {
        const WHAT: &str = "token_endpoint";
        let metadata = self.document(WHAT)?;
        let target = token_target(&metadata).ok_or_else(|| self.unknown(WHAT))?;
        self.ask(&target, form, within).await
    }

    /// Revokes a refresh token (RFC 7009), if the provider supports it.
    ///
    /// # Errors
    /// There was no complete response.
    // Requirement B43.
    pub async fn revoke(&self, refresh_token: &str, within: Duration) -> Result<StatusCode, LoginFailure> {
        const WHAT: &str = "revocation_endpoint";
        let metadata = self.document(WHAT)?;
        let target = revocation_target(&metadata).ok_or_else(|| self.unknown(WHAT))?;
        let form = Zeroizing::new(encoded([("token", refresh_token), ("token_type_hint", "refresh_token")]));
        Ok(self.send(&target, form.as_bytes(), within).await?.status())
    }

    /// Returns the provider's logout URL, or `None` if no usable logout endpoint is known. A `hint` that would make the
    /// URL too long is omitted.
    // Requirement B43.
    pub fn logout_url(&self, back_to: &str, hint: Option<&str>) -> Option<String> {
        let metadata = (self.metadata)()?;
        let endpoint = metadata.end_session_endpoint.as_deref().filter(|url| metadata.target(url).is_some())?;
        let own = [("client_id", self.client.id.as_str()), ("post_logout_redirect_uri", back_to)];
        let url = |hint: Option<&str>| {
            let hint = hint.map(|hint| ("id_token_hint", hint));
            with_query(endpoint, &encoded(own.into_iter().chain(hint)))
        };
        Some(url(hint)).filter(|url| url.len() <= MAX_LOGOUT_URL).or_else(|| Some(url(None)))
    }

    fn document(&self, what: &'static str) -> Result<Arc<Metadata>, LoginFailure> {
        (self.metadata)().ok_or_else(|| self.unknown(what))
    }

    fn unknown(&self, what: &'static str) -> LoginFailure {
        LoginFailure::Unknown(Arc::clone(&self.name), what)
    }

    async fn post(&self, target: &FetchTarget, form: String) -> Result<(StatusCode, Map<String, Value>), LoginFailure> {
        let answer = self.ask(target, form.as_bytes(), TIMEOUT).await?;
        let (parts, body) = answer.into_parts();
        if let Some(wait) = declined(parts.status, &parts.headers) {
            return Err(LoginFailure::Busy(wait));
        }
        let body = Zeroizing::new(body.to_vec());
        let object = object_of_depth(&body, MAX_DEPTH);
        Ok((parts.status, object.map_err(|_| LoginFailure::Unusable("the response is not a JSON object"))?))
    }
}

fn encoded<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn with_query(url: &str, query: &str) -> String {
    format!("{url}{}{query}", if url.contains('?') { '&' } else { '?' })
}

fn text<'a>(answer: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    answer.get(name).and_then(Value::as_str)
}

/// Maps an OAuth error (RFC 6749 §5.2) to a failure, without the provider's text.
// Requirement B44.
fn refusal(answer: &Map<String, Value>) -> LoginFailure {
    match text(answer, "error") {
        Some("invalid_client") => LoginFailure::Refused("invalid_client"),
        Some("unauthorized_client") => LoginFailure::Refused("unauthorized_client"),
        Some(_) => LoginFailure::Unusable("the provider refused the request"),
        None => LoginFailure::Unusable("the provider failed to process the request"),
    }
}

#[cfg(test)]
mod tests;
