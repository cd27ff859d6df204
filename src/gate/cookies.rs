//! Cookies that carry the tokens of a single-page client. Scripts cannot read them.

use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use secrecy::SecretString;

use super::Gate;
use rotogate_core::credential;
use rotogate_core::denial::Denial;
use rotogate_core::engine::IssuedTokens;
use rotogate_core::fault::Error;

pub use rotogate_core::credential::ACCESS_COOKIE;
/// The cookie with the refresh token.
pub const REFRESH_COOKIE: &str = "__Host-refresh";
/// The length of name plus value that browsers must support, in bytes (RFC 6265 §6.1).
const LONGEST_COOKIE: usize = 4096;

/// Selects which requests carry the cookies (RFC 6265bis §5.4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SameSite {
    #[default]
    Strict,
    Lax,
    /// For a client on another site, whose origin is in
    /// [`GateBuilder::allowed_origins`](super::GateBuilder::allowed_origins).
    None,
}

/// Sets, reads and clears the cookies of a single-page client.
///
/// The access token is in `__Host-access`, and the refresh token in `__Host-refresh`. A login sets both cookies, a
/// refresh replaces both, and a logout clears both. Routes read the access token with
/// [`RoutePolicy::cookie`](rotogate_core::route::RoutePolicy::cookie) or
/// [`require().cookie(…)`](super::RequireLayer::cookie).
///
/// Both cookies are `HttpOnly`, `Secure`, and limited to this host (`__Host-`). The cookies last as long as their
/// tokens, unless [`Self::until_closed`] is set. Chrome and Firefox also accept them from `http://localhost`.
///
/// A request that changes something must come from our own origin or an allowed origin. [`Self::admit`],
/// [`Self::refresh`] and [`Self::log_out`] refuse other requests with [`Denial::CrossOrigin`].
///
/// ```
/// use http::request::Parts;
/// use http::{HeaderMap, StatusCode};
/// use rotogate::Gate;
/// use rotogate::fault::Error;
/// use rotogate::gate::NewSession;
///
/// /// `POST /login`, once the application knows the user.
/// async fn login(gate: &Gate, request: &Parts, user: &str) -> Result<HeaderMap, Error> {
///     gate.cookies().admit(&request.headers)?;
///     let issued = gate.sessions().start(NewSession::new(user, "web")).await?;
///     Ok(gate.cookies().set(&issued))
/// }
///
/// /// `POST /refresh`. 401 means: log in again. The cookies of an ended session are cleared.
/// async fn refresh(gate: &Gate, request: &Parts) -> (StatusCode, HeaderMap) {
///     match gate.cookies().refresh(request).await {
///         Ok(issued) => (StatusCode::NO_CONTENT, gate.cookies().set(&issued)),
///         Err(error) if error.status() == StatusCode::UNAUTHORIZED => (error.status(), gate.cookies().clear()),
///         Err(error) => (error.status(), HeaderMap::new()),
///     }
/// }
///
/// /// `POST /logout`.
/// async fn logout(gate: &Gate, request: &Parts) -> Result<HeaderMap, Error> {
///     gate.cookies().log_out(request).await?;
///     Ok(gate.cookies().clear())
/// }
/// ```
///
/// Without `Max-Age`, the cookies last as long as the browser is open:
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// let cookies = gate.cookies().until_closed();
/// let tokens = gate.sessions().start(NewSession::new("ada", "web")).await?;
/// let mut reply = http::Response::new("welcome");
/// reply.headers_mut().extend(cookies.set(&tokens));
/// assert_eq!(reply.headers().get_all("set-cookie").iter().count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
// Requirement T18.
pub struct Cookies {
    gate: Gate,
    same_site: SameSite,
    until_closed: bool,
}

impl Gate {
    /// Returns the cookies of a single-page client.
    pub fn cookies(&self) -> Cookies {
        Cookies { gate: self.clone(), same_site: SameSite::default(), until_closed: false }
    }
}

impl Cookies {
    /// Also sends the cookies when the user follows a link from another site (`SameSite=Lax`). By default, only
    /// requests from the same site carry them (RFC 6265bis §5.4.7).
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
    /// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
    /// # let gate = gate.client(Client::public("web")).build().await?;
    /// // The reader of a mail who follows a link to the application is logged in.
    /// let cookies = gate.cookies().lax();
    /// let tokens = gate.sessions().start(NewSession::new("ada", "web")).await?;
    /// assert!(cookies.set(&tokens)["set-cookie"].to_str()?.contains("SameSite=Lax"));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[must_use]
    pub const fn lax(mut self) -> Self {
        self.same_site = SameSite::Lax;
        self
    }

    /// Sends the cookies with requests from every page (`SameSite=None`), for a client on another site, whose origin is
    /// in [`GateBuilder::allowed_origins`](super::GateBuilder::allowed_origins).
    #[must_use]
    pub const fn cross_site(mut self) -> Self {
        self.same_site = SameSite::None;
        self
    }

    /// Makes session cookies, which the browser deletes when it closes.
    #[must_use]
    pub const fn until_closed(mut self) -> Self {
        self.until_closed = true;
        self
    }

    /// Returns the headers that set both cookies, with `Cache-Control: no-store`.
    pub fn set(&self, issued: &IssuedTokens) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.put(&mut headers, ACCESS_COOKIE, issued.access_token.expose(), Some(issued.expires_in));
        if let Some(token) = &issued.refresh_token {
            self.put(&mut headers, REFRESH_COOKIE, token.expose(), issued.session_expires_in);
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers
    }

    /// Returns the headers that clear both cookies.
    pub fn clear(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in [ACCESS_COOKIE, REFRESH_COOKIE] {
            self.put(&mut headers, name, "", Some(0));
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers
    }

    fn put(&self, headers: &mut HeaderMap, name: &str, value: &str, seconds: Option<u64>) {
        if name.len() + value.len() > LONGEST_COOKIE {
            tracing::error!(
                cookie = name,
                "the token is too long for a cookie, so browsers drop it. Give the token fewer claims"
            );
        }
        let same_site = match self.same_site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        };
        let age = match seconds {
            Some(seconds) if seconds == 0 || !self.until_closed => format!("; Max-Age={seconds}"),
            _ => String::new(),
        };
        let cookie = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite={same_site}{age}");
        if let Ok(mut cookie) = HeaderValue::try_from(cookie) {
            cookie.set_sensitive(true);
            headers.append(SET_COOKIE, cookie);
        }
    }

    /// Checks by `Origin` or `Sec-Fetch-Site` that a login or a change comes from our own origin or an allowed origin.
    ///
    /// # Errors
    /// [`Denial::CrossOrigin`].
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), Denial> {
        if self.gate.0.origins.asked(headers) { Ok(()) } else { Err(Denial::CrossOrigin) }
    }

    /// Exchanges the refresh token in the request's cookie for new tokens, as
    /// [`Sessions::refresh`](super::Sessions::refresh) does. The rate limits count the refresh for the address in the
    /// request's [`Peer`](super::Peer).
    ///
    /// # Errors
    /// [`Denial::CrossOrigin`]. [`Denial::NoCredential`] if the request has no cookie. The errors of
    /// [`Sessions::refresh`](super::Sessions::refresh).
    pub async fn refresh(&self, request: &Parts) -> Result<IssuedTokens, Error> {
        self.admit(&request.headers)?;
        let token = refresh_token(&request.headers)?.ok_or(Denial::NoCredential)?;
        self.gate.sessions().refresh_at(token, self.gate.0.client_address(request)).await
    }

    /// Ends the session to which the refresh token in the request's cookie belongs. A request without the cookie
    /// succeeds.
    ///
    /// # Errors
    /// [`Denial::CrossOrigin`]. After a fault, this gate already refuses the session.
    pub async fn log_out(&self, request: &Parts) -> Result<(), Error> {
        self.admit(&request.headers)?;
        match refresh_token(&request.headers)? {
            Some(token) => self.gate.sessions().log_out(token, self.gate.0.client_address(request)).await,
            None => Ok(()),
        }
    }
}

fn refresh_token(headers: &HeaderMap) -> Result<Option<SecretString>, Denial> {
    let mut found = credential::cookies(headers, REFRESH_COOKIE);
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(token), None) => {
            let token = std::str::from_utf8(token).map_err(|_| Denial::UnknownRefreshToken)?;
            Ok(Some(SecretString::from(token)))
        }
        (Some(_), Some(_)) => Err(Denial::TwoCredentials),
    }
}
