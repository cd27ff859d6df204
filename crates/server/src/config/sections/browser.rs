//! `[[endpoints]]` with `dialect = "browser"`, and the routes that take its sessions.

use http::HeaderName;
use toml::Value;

use super::super::declare::section;
use super::super::print::{Print, Words};
use super::super::value;
use super::endpoints::Surroundings;
use super::sessions::read_override;
use super::{Config, CorsConfig, EndpointConfig};
use rotogate::gate::{Browser, LoginPage};
use rotogate::program::BROWSER_PROFILE;
use rotogate_core::route::hosts::is_loopback;
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::route::{Auth, LoginLead, Match, RouteTable};
use rotogate_core::session::profile::ProfileOverride;
use rotogate_kit::config::{Section, Value as Raw};

section! {
    /// The keys of `dialect = "browser"`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BrowserConfig, read by read_keys(section) {
        /// The page at `GET /auth/login`: `"built-in"` is a plain form; a path is your own page, which sends to `/auth/login`;
        /// `"none"`: 404.
        reload page: LoginPage = get_or(page, LoginPage::BuiltIn),
        /// Where a logout by a form leads: a path, or a URL of one of `origins` of `[cors]`.
        reload after_logout: String = get_or(value::text, "/".to_owned()),
        /// `"lax"`, or `"strict"` for a public page with an API behind it: links from other sites then open without a session.
        reload same_site: SameSiteRule = get_or(value::word_of, SameSiteRule::Lax),
        /// A header such as `"x-csrf"`, which each request of a script must have. Empty: none.
        reload csrf_header: CsrfHeader = get_or(csrf_header, CsrfHeader(None)),
        /// false: the browser drops the cookie when it closes.
        reload persistent: bool = get_or(value::boolean, true),
    }
}

/// `same_site`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSiteRule {
    /// Also after a link from another site.
    Lax,
    /// From pages of the site alone.
    Strict,
}

impl Words for SameSiteRule {
    const WORDS: &'static [(&'static str, Self)] = &[("lax", Self::Lax), ("strict", Self::Strict)];
}

/// `csrf_header`; an empty text is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrfHeader(pub Option<HeaderName>);

impl Print for CsrfHeader {
    fn print(&self) -> Value {
        self.0.as_ref().map_or("", HeaderName::as_str).into()
    }
}

impl Print for LoginPage {
    fn print(&self) -> Value {
        match self {
            Self::At(path) => path.as_str().into(),
            Self::None => "none".into(),
            _ => "built-in".into(),
        }
    }
}

fn page(v: &Raw) -> Result<LoginPage, String> {
    match value::text(v)?.as_str() {
        "built-in" => Ok(LoginPage::BuiltIn),
        "none" => Ok(LoginPage::None),
        path if path.starts_with('/') => Ok(LoginPage::At(path.to_owned())),
        _ => Err(format!("expected \"built-in\", \"none\" or a path such as \"/signin\", found {}", v.describe())),
    }
}

/// Only a header that no page of another origin can send without a preflight protects.
fn csrf_header(v: &Raw) -> Result<CsrfHeader, String> {
    if matches!(v, Raw::String(text) | Raw::Env(text) if text.is_empty()) {
        return Ok(CsrfHeader(None));
    }
    let name = value::text(v)?.to_ascii_lowercase().parse::<HeaderName>().ok();
    match name.filter(|name| name.as_str().starts_with("x-")) {
        Some(name) => Ok(CsrfHeader(Some(name))),
        None => Err(format!(
            "expected the name of a header that begins with x-, such as \"x-csrf\", found {}",
            v.describe()
        )),
    }
}

/// The `profile` of an endpoint, with the defaults of the dialect.
pub(super) fn profile(section: &Section<'_>) -> ProfileOverride {
    let given = read_override(section);
    ProfileOverride {
        access_ttl: given.access_ttl.or(BROWSER_PROFILE.access_ttl),
        session_ttl: given.session_ttl.or(BROWSER_PROFILE.session_ttl),
        idle_ttl: given.idle_ttl.or(BROWSER_PROFILE.idle_ttl),
        lost_response_window: given.lost_response_window.or(BROWSER_PROFILE.lost_response_window),
        ..given
    }
}

pub(super) fn read(section: &Section<'_>, path: &str, around: &Surroundings<'_>) -> BrowserConfig {
    let config = read_keys(section);
    let host = around.public_url.host().unwrap_or_default();
    // A URL that could not be read is reported where it stands.
    if !around.is_https && !host.is_empty() && !is_loopback(host) {
        let message = "needs a server.public_url that begins with https://: a browser keeps the cookie of a session over \
                       https alone, and from loopback";
        section.blame("dialect", message);
    }
    if section.is_bad() {
        return config;
    }
    if !leads(&config.after_logout, path, around.cors) {
        section.blame(
            "after_logout",
            "expected a path of the gate outside of this endpoint, or a URL of one of cors.origins",
        );
    }
    if let LoginPage::At(page) = &config.page
        && (!leads(page, path, around.cors) || page.contains('#'))
    {
        section.blame("page", "expected a path of the gate outside of this endpoint");
    }
    config
}

/// Whether a login or a logout may lead there.
fn leads(to: &str, path: &str, cors: &CorsConfig) -> bool {
    let listed = cors.origins.iter().filter(|_| cors.allow_credentials).map(String::as_str);
    rotogate::program::is_login_target(to, path, listed)
}

impl BrowserConfig {
    /// The endpoint with these settings, and those that it shares with other endpoints.
    pub(crate) fn browser(&self, endpoint: &EndpointConfig, cors: &CorsConfig) -> Browser {
        let Self { page, after_logout, same_site, csrf_header: CsrfHeader(csrf_header), persistent } = self;
        let mut browser = Browser::own(endpoint.path.as_str())
            .page(page.clone())
            .after_logout(after_logout.as_str())
            .profile(endpoint.profile.clone())
            .listeners(endpoint.listeners.iter().cloned());
        if *same_site == SameSiteRule::Strict {
            browser = browser.strict();
        }
        if !persistent {
            browser = browser.until_closed();
        }
        if let Some(name) = csrf_header {
            browser = browser.csrf_header(name.clone());
        }
        if let Some(client) = &endpoint.client {
            browser = browser.client(client.as_str());
        }
        if let Some(account) = &endpoint.account {
            browser = browser.account(account.as_str());
        }
        if cors.allow_credentials { browser } else { browser.refuse_allowed_origins() }
    }
}

/// Checks the endpoint of browsers and the routes that take its sessions; the sections are their tables.
// Requirement B54.
pub(super) fn check(config: &Config, endpoints: &[Section<'_>], routes: &[Section<'_>]) {
    let mut found =
        config.endpoints.iter().zip(endpoints).filter_map(|(one, section)| Some((one, one.browser.as_ref()?, section)));
    let first = found.next();
    for (_, _, section) in found {
        section.blame("dialect", "\"browser\" is there twice; one cookie is of one endpoint, so remove one of the two");
    }
    let taking = || config.routes.iter().zip(routes).filter(|(route, _)| route.policy.credentials.session);
    // A route without such an endpoint is reported where `credentials` is read.
    let Some((endpoint, browser, section)) = first else { return };
    if browser.same_site == SameSiteRule::Strict {
        for (_, section) in taking().filter(|(route, _)| route.policy.login == LoginLead::Auto) {
            section.blame(
                "login",
                "is \"auto\", and the route takes sessions of an endpoint with same_site = \"strict\", whose cookie does not come with links from other \
                 sites: they would be led to the login again and again; write \"never\"",
            );
        }
    }
    let profile = endpoint.profile.over(&config.sessions.profile);
    if profile.idle_ttl < profile.access_ttl * 2 && !section.is_bad() {
        section
            .section("profile")
            .blame("idle_ttl", "is less than twice access_ttl, and a session is renewed once in access_ttl");
    }
    check_page(config, browser, section);
}

/// A login page that needs a login would lead to itself.
fn check_page(config: &Config, browser: &BrowserConfig, section: &Section<'_>) {
    let LoginPage::At(page) = &browser.page else { return };
    let path = page.split('?').next().unwrap_or_default();
    let (Ok(path), Ok(routes)) = (CanonicalPath::parse(path), RouteTable::build(config.routes.clone())) else { return };
    let host = config.server.public_url.host();
    if let Match::Found(route) = routes.find(host, &http::Method::GET, &path)
        && route.policy.auth == Auth::Required
    {
        section.blame(
            "page",
            format!("leads to {}, which asks for a login; give that page a route with auth = \"none\"", route.id),
        );
    }
}
