//! Browser sessions: one cookie represents the session, and the browser does not receive a token.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::builder::error::BuildError;
use super::endpoint::Endpoint;
use super::origin::{SessionRules, origin_of};
use crate::dialect::browser::device::{REGISTRATION, set_cookie};
use crate::dialect::browser::look::{Look, PageSettings};
use crate::dialect::browser::target::{LoginTarget, LoginTargets};
use crate::dialect::browser::{BrowserDialect, CALLBACK, LOGIN, LoginPage, NAME};
use rotogate_core::denial::Class;
use rotogate_core::engine::{BrowserLogin, Engine};
use rotogate_core::fault::Error;
use rotogate_core::route::authority;
use rotogate_core::route::hosts::is_loopback;
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::session::Binding;
use rotogate_core::session::profile::ProfileOverride;
use rotogate_core::token::session_cookie;
#[cfg(feature = "browser-oidc")]
use rotogate_issuers::login::LoginProvider;

#[cfg(feature = "browser-oidc")]
pub(super) mod client_refusals;
pub(super) mod device;
pub(super) mod given;
mod sessions;
#[cfg(feature = "browser-oidc")]
pub(super) mod transaction;
#[cfg(feature = "browser-oidc")]
pub(super) mod vault;

pub use sessions::BrowserSessions;
pub(super) use sessions::{keep_cookie, presented, presented_to_handler};

/// The login of browsers. The browser gets one cookie per session instead of tokens, so scripts cannot read tokens.
///
/// A route accepts the session with [`RoutePolicy::session`](rotogate_core::route::RoutePolicy::session). Requests from
/// pages of other sites are refused for every `SameSite` value.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use rotogate::Gate;
/// use rotogate::gate::Browser;
/// use rotogate::token::Keyring;
///
/// let gate = Gate::builder()
///     .issuer("https://app.example.com")
///     .keys(Keyring::ephemeral()?)
///     .browser(Browser::own("/auth"))
///     .build()
///     .await?;
/// # let _ = gate;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Browser {
    /// The endpoint's `dialect` is set once the public URL is known.
    endpoint: Endpoint,
    dialect: BrowserDialect,
    cookie: CookieAttributes,
    sessions: SessionRules,
    device: Binding,
    look: PageSettings,
    #[cfg(feature = "browser-oidc")]
    provider: Option<LoginProvider>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CookieAttributes {
    is_strict: bool,
    is_persistent: bool,
}

impl CookieAttributes {
    // Requirement B1.
    fn cookie(self, value: &str, seconds: Option<u64>) -> HeaderValue {
        let same_site = if self.is_strict { "Strict" } else { "Lax" };
        let age = seconds.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
        let name = session_cookie::NAME;
        let cookie = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite={same_site}{age}");
        // The conversion cannot fail, because the value is base64url and the other parts are fixed.
        let mut cookie = HeaderValue::try_from(cookie).unwrap_or_else(|_| HeaderValue::from_static(""));
        cookie.set_sensitive(true);
        cookie
    }
}

impl Browser {
    /// A login at `path` with users of the gate's [directory](super::GateBuilder::directory). For example, `"/auth"`
    /// serves `/auth/login`, `/auth/session` and `/auth/logout`.
    pub fn own(path: impl Into<String>) -> Self {
        let dialect = BrowserDialect::default();
        Self {
            endpoint: Endpoint::new(dialect.clone()).path(path),
            dialect,
            cookie: CookieAttributes { is_strict: false, is_persistent: true },
            sessions: SessionRules::default(),
            device: Binding::Off,
            look: PageSettings::default(),
            #[cfg(feature = "browser-oidc")]
            provider: None,
        }
    }

    /// A login at an OpenID provider. If `path` is `"/auth"`, `/auth/login` redirects the browser to the provider, and
    /// the provider redirects it back to `/auth/callback`. Register this callback at the provider. The issuer must be a
    /// [trusted issuer](super::GateBuilder::trusted_issuer), whose rules map the user's claims. The gate keeps the
    /// provider's tokens in its [store of rows](super::GateBuilder::row_store), encrypted with a key from the browser's
    /// cookie: see [`ProviderToken`](super::ProviderToken).
    #[cfg(feature = "browser-oidc")]
    pub fn provider(path: impl Into<String>, provider: LoginProvider) -> Self {
        let mut browser = Self { provider: Some(provider), ..Self::own(path) };
        browser.dialect.has_provider = true;
        browser
    }

    /// Sets the path of the application's own login page. The page gets the parameter `to`, and `error` after a failed
    /// login. The page's form posts to `/auth/login`.
    #[must_use]
    pub fn page(mut self, path: impl Into<String>) -> Self {
        self.dialect.page = LoginPage::At(path.into());
        self
    }

    /// Sets the looks and the texts of the gate's own pages.
    #[doc(hidden)]
    #[must_use]
    pub fn look(mut self, look: PageSettings) -> Self {
        self.look = look;
        self
    }

    /// Disables the login page: `GET /auth/login` returns 404, and pages without a session get 401.
    #[must_use]
    pub fn without_page(mut self) -> Self {
        self.dialect.page = LoginPage::None;
        self
    }

    /// Sets the redirect target after a logout form: a path of the gate, or a URL of an [allowed
    /// origin](super::GateBuilder::allowed_origins). By default, a page says that the user is logged out.
    #[must_use]
    pub fn after_logout(mut self, to: impl Into<String>) -> Self {
        self.dialect.after_logout = Some(to.into());
        self
    }

    /// Sets the cookie with `SameSite=Strict` instead of `Lax`, so links from other sites open without a session.
    #[must_use]
    pub const fn strict(mut self) -> Self {
        self.cookie.is_strict = true;
        self
    }

    /// Sets the cookie without `Max-Age`, so that the browser deletes it when it closes.
    #[must_use]
    pub const fn until_closed(mut self) -> Self {
        self.cookie.is_persistent = false;
        self
    }

    /// Sets a header that every request from a script must have. Navigations, WebSockets, event streams and images do
    /// not need the header.
    // Requirement B24.
    #[must_use]
    pub fn csrf_header(mut self, name: HeaderName) -> Self {
        self.sessions.csrf_header = Some(name);
        self
    }

    /// Sets whether sessions are bound to a key of the browser's device (Device Bound Session Credentials). The default
    /// is [`Binding::Off`].
    // Requirement B47.
    #[must_use]
    pub const fn device_bound(mut self, bound: Binding) -> Self {
        self.device = bound;
        self
    }

    /// Overrides settings of the session profile. By default, sessions are renewed every 10 minutes, and end after 8
    /// hours without use or after 7 days.
    #[must_use]
    pub fn profile(mut self, profile: ProfileOverride) -> Self {
        self.endpoint = self.endpoint.profile(profile);
        self
    }

    /// Sets the client of the sessions. The default is `browser`.
    #[must_use]
    pub fn client(mut self, client: impl Into<Box<str>>) -> Self {
        self.endpoint = self.endpoint.client(client);
        self
    }

    /// Binds the login to one account.
    #[must_use]
    pub fn account(mut self, account: impl Into<Box<str>>) -> Self {
        self.endpoint = self.endpoint.account(account);
        self
    }

    /// Restricts the login to these listeners: see [`Endpoint::listeners`].
    #[must_use]
    pub fn listeners<I>(mut self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Box<str>>,
    {
        self.endpoint = self.endpoint.listeners(names);
        self
    }

    /// Refuses sessions in requests from pages of [allowed origins](super::GateBuilder::allowed_origins). CORS does not
    /// let these pages send credentials.
    #[must_use]
    pub const fn refuse_allowed_origins(mut self) -> Self {
        self.sessions.admits_listed = false;
        self
    }

    #[cfg_attr(not(feature = "browser-oidc"), expect(clippy::unused_self, reason = "for a provider"))]
    pub(super) fn issuer(&self) -> Option<&str> {
        #[cfg(feature = "browser-oidc")]
        return self.provider.as_ref().map(LoginProvider::url);
        #[cfg(not(feature = "browser-oidc"))]
        None
    }

    #[cfg(feature = "browser-oidc")]
    pub(super) fn relay(&self) -> Option<(&str, super::RelayConfig)> {
        self.provider.as_ref().map(|provider| (self.endpoint.base(), vault::relay_config(provider)))
    }

    pub(super) fn session_rules(&self) -> SessionRules {
        self.sessions.clone()
    }

    pub(super) fn ready(
        self,
        public_url: &str,
        allowed: &[Box<str>],
    ) -> Result<(Endpoint, Arc<BrowserEndpoint>), BuildError> {
        let Self { mut endpoint, mut dialect, sessions, device, cookie, .. } = self;
        let path = endpoint.base().to_owned();
        let failed = |problem: &str| BuildError::endpoint(NAME, &path, problem);
        let is_path = !path.ends_with('/')
            && !path.contains(['{', '}', '?', '#'])
            && CanonicalPath::parse(&path).is_ok_and(|path| !path.is_rewritten());
        if !is_path {
            return Err(failed(
                "the path of a browser endpoint must be canonical and below the root, without parameters and without \
                 a slash at the end",
            ));
        }
        let Some((origin, host)) = origin_of(public_url).zip(secure_host(public_url)) else {
            return Err(failed(
                "browsers keep the session cookie only over https or on loopback, so the public URL must begin with \
                 https://",
            ));
        };
        let listed = if sessions.admits_listed { allowed.to_vec() } else { Vec::new() };
        dialect.targets = LoginTargets { origin, path: path.clone(), listed };
        dialect.look = Arc::new(Look::new(self.look, &dialect.targets));
        let is_good = |to: &str| to == "/" || dialect.targets.admit(to) != LoginTarget::ROOT;
        if dialect.after_logout.as_deref().is_some_and(|to| !is_good(to)) {
            return Err(failed("`after_logout` must be a path of the gate or a URL of an allowed origin"));
        }
        if let LoginPage::At(page) = &dialect.page
            && !(page.starts_with('/') && is_good(page) && !page.contains('#'))
        {
            return Err(failed("`page` must be a path of the gate, outside the paths of the endpoint"));
        }
        if dialect.has_provider && (endpoint.account.is_some() || dialect.page != LoginPage::BuiltIn) {
            return Err(failed(
                "`page` and `account` apply only to a login at the gate, but browsers log in at a provider here",
            ));
        }
        dialect.binds_devices = device != Binding::Off;
        endpoint.dialect = Arc::new(dialect.clone());
        let browser = Arc::new(BrowserEndpoint {
            dialect,
            host,
            cookie,
            device,
            #[cfg(feature = "browser-oidc")]
            provider: self.provider,
            #[cfg(feature = "browser-oidc")]
            refusals: client_refusals::ClientRefusals::default(),
        });
        endpoint.browser = Some(Arc::clone(&browser));
        Ok((endpoint, browser))
    }
}

#[derive(Debug, Default)]
pub(crate) struct BrowserLogins([AtomicU64; LOGIN_RESULTS.len()]);

const LOGIN_RESULTS: [&str; 7] = [
    "ok",
    "invalid_credentials",
    "cross_origin",
    "too_many_requests",
    "too_many_sessions",
    "unavailable",
    "invalid_request",
];

impl BrowserLogins {
    // Requirement B56.
    pub(super) fn count(&self, error: Option<&Error>) {
        let at = match error {
            None => 0,
            Some(Error::Failed(_)) => 5,
            Some(Error::Denied(denial)) => match denial.class() {
                Class::Login => 1,
                Class::CrossOrigin => 2,
                Class::Limited(_) => 3,
                Class::TooManySessions => 4,
                Class::Unavailable(_) => 5,
                _ => 6,
            },
        };
        if let Some(count) = self.0.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + use<'_> {
        LOGIN_RESULTS.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// Returns the host of the URL, if browsers accept a `Secure` cookie from this URL.
fn secure_host(public_url: &str) -> Option<String> {
    let uri = public_url.parse::<Uri>().ok()?;
    let host = authority::host_of(uri.authority()?.as_str()).to_ascii_lowercase();
    (uri.scheme_str() == Some("https") || is_loopback(&host)).then_some(host)
}

#[derive(Debug)]
pub(crate) struct BrowserEndpoint {
    pub(super) dialect: BrowserDialect,
    /// The public URL's host. Other hosts do not serve the endpoint.
    pub(super) host: String,
    cookie: CookieAttributes,
    pub(super) device: Binding,
    /// `None` if browsers log in at the gate itself.
    #[cfg(feature = "browser-oidc")]
    pub(super) provider: Option<LoginProvider>,
    #[cfg(feature = "browser-oidc")]
    refusals: client_refusals::ClientRefusals,
}

impl BrowserEndpoint {
    #[cfg_attr(not(feature = "browser-oidc"), expect(clippy::unused_self, reason = "for a provider"))]
    pub(super) fn issuer(&self) -> Option<&str> {
        #[cfg(feature = "browser-oidc")]
        return self.provider.as_ref().map(LoginProvider::url);
        #[cfg(not(feature = "browser-oidc"))]
        None
    }

    pub(super) fn put_begun(&self, engine: &Engine, login: &BrowserLogin, headers: &mut HeaderMap) {
        let BrowserLogin { session, cookie, .. } = login;
        let seconds = session.expires.as_secs().saturating_sub(session.created().as_secs());
        headers.append(SET_COOKIE, self.set_cookie(&cookie.value(), seconds));
        if self.device != Binding::Off {
            let asked = engine.device_challenge(cookie).and_then(|challenge| self.dialect.registration(&challenge));
            headers.extend(asked.map(|asked| (REGISTRATION, asked)));
        }
    }

    /// A browser clears a cookie only if the attributes are the same as when it was set.
    pub(super) fn clear_cookies(&self, headers: &mut HeaderMap) {
        headers.append(SET_COOKIE, self.clear_cookie());
        if self.device != Binding::Off {
            headers.append(SET_COOKIE, set_cookie("", 0));
        }
    }

    fn set_cookie(&self, value: &str, seconds: u64) -> HeaderValue {
        self.cookie.cookie(value, self.cookie.is_persistent.then_some(seconds))
    }

    /// A request with a safe method may set cookies only during a login at a provider. The transaction cookie proves
    /// that the browser began this login.
    // Requirement T25.
    pub(super) fn sets_cookies_at(&self, operation: &str) -> bool {
        self.dialect.has_provider && [LOGIN, CALLBACK].contains(&operation)
    }

    /// The URL does not depend on the host in a request.
    #[cfg(feature = "browser-oidc")]
    pub(super) fn redirect_uri(&self) -> String {
        format!("{}{}", self.dialect.targets.origin, self.dialect.path_of(CALLBACK))
    }

    #[cfg(feature = "browser-oidc")]
    pub(super) const fn is_strict(&self) -> bool {
        self.cookie.is_strict
    }

    #[cfg_attr(not(feature = "browser-oidc"), expect(unused_variables, reason = "for a provider"))]
    pub(super) fn logout_at_provider(&self, hint: Option<&str>) -> Option<String> {
        #[cfg(feature = "browser-oidc")]
        if let Some(provider) = &self.provider {
            let after = self.dialect.target(self.dialect.after_logout.as_deref());
            return provider.logout_url(&self.dialect.targets.url(after), hint);
        }
        None
    }

    fn clear_cookie(&self) -> HeaderValue {
        self.cookie.cookie("", Some(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(browser: Browser) -> Result<Arc<BrowserEndpoint>, BuildError> {
        browser.ready("https://gate.example", &["https://app.example".into()]).map(|(_, endpoint)| endpoint)
    }

    #[test]
    fn b1_the_cookie_has_exactly_the_documented_attributes_at_each_set_and_clear() {
        let endpoint = ready(Browser::own("/auth")).unwrap();
        assert_eq!(
            endpoint.set_cookie("rc1_x", 604_800),
            "__Host-Http-rg=rc1_x; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=604800"
        );
        assert_eq!(endpoint.clear_cookie(), "__Host-Http-rg=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
        assert!(endpoint.set_cookie("rc1_x", 1).is_sensitive());
        let strict = ready(Browser::own("/auth").strict().until_closed()).unwrap();
        assert_eq!(strict.set_cookie("rc1_x", 1), "__Host-Http-rg=rc1_x; Path=/; Secure; HttpOnly; SameSite=Strict");
        assert_eq!(strict.clear_cookie(), "__Host-Http-rg=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0");
    }

    #[test]
    fn b54_an_endpoint_whose_cookie_or_pages_could_not_work_is_refused() {
        for path in ["/", "", "auth", "/auth/", "/a//b", "/{account}/auth", "/auth?x", "/../auth"] {
            assert!(ready(Browser::own(path)).is_err(), "{path}");
        }
        for url in ["http://gate.example", "http://10.0.0.1:8080", "gate.example", ""] {
            assert!(Browser::own("/auth").ready(url, &[]).is_err(), "{url}");
        }
        for url in ["http://localhost:5173", "http://127.0.0.1:8080", "http://[::1]:8080", "https://gate.example:8443"]
        {
            assert!(Browser::own("/auth").ready(url, &[]).is_ok(), "{url}");
        }
        for to in ["//evil", "https://evil.example/", "/auth/logout", "x"] {
            assert!(ready(Browser::own("/auth").after_logout(to)).is_err(), "{to}");
            assert!(ready(Browser::own("/auth").page(to)).is_err(), "{to}");
        }
        assert!(ready(Browser::own("/auth").after_logout("https://app.example/bye")).is_ok());
        assert!(ready(Browser::own("/auth").after_logout("https://app.example/").refuse_allowed_origins()).is_err());
        assert!(ready(Browser::own("/auth").page("/signin?lang=en")).is_ok());
        assert!(ready(Browser::own("/auth").page("https://app.example/in")).is_err());
    }
}
