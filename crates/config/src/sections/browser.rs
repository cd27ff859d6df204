//! `[[endpoints]]` with `dialect = "browser"`, and checks of the routes that accept its sessions.

use std::collections::BTreeMap;
use std::path::Path;

use http::HeaderName;

use super::super::declare::section;
use super::super::value;
use super::clients::is_text;
use super::endpoints::Surroundings;
use super::identity::HeaderOrNone;
use super::page::{self, PageKey};
use super::provider_client::{self, ProviderClientSettings};
use super::remote::RemoteSource;
use super::sessions::read_override;
use super::{Config, CorsConfig, EndpointConfig, TrustedIssuer, check_known};
use rotogate::gate::{Browser, LoginProvider};
use rotogate::program::{BROWSER_PROFILE, LoginPage, OWN_PARAMETERS};
use rotogate::session::Binding;
use rotogate_core::route::hosts::is_loopback;
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::route::{Auth, Match, RouteTable, WarningKind};
use rotogate_core::session::Scope;
use rotogate_core::session::profile::ProfileOverride;
use rotogate_core::token::verify::VOUCHED_IDLE;
use rotogate_kit::config::{Section, Value as Raw};

section! {
    /// The keys of `dialect = "browser"`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BrowserConfig, read by read_keys(section, around: &Surroundings<'_>) {
        /// Name of the entry of `[[issuers]]`, with `discovery`, for the OpenID provider where users log in. Unset:
        /// users of `[directory]` log in at the gate with a password.
        reload provider: Option<String> = by { read_provider(section, around.issuers) },
        /// The gate's client at the provider, such as `{ id = "web", secret_file = "web.secret" }`; `secret_in` is
        /// `"basic"` or `"form"`. Instead of a secret, the client may have `key_file` and `assertion_audience`
        /// (docs/clients-without-secrets.md). If it has neither a secret nor a `key_file`, it is a public client.
        reload client: Option<ProviderClientSettings> = by { read_client(section, around.dir) },
        /// Scopes to request in addition to `openid`. Set it if you need claims that the provider returns only for a
        /// further scope, such as `email`.
        reload scopes as some: Vec<String> = by { read_scopes(section) },
        /// Further parameters for the authorization request (`{ prompt = "consent" }`).
        reload parameters as some: BTreeMap<String, String> = by { read_parameters(section) },
        /// true: the gate pushes the authorization parameters (RFC 9126) even if the provider does not require that.
        /// Set it if the provider requires pushed requests only for the gate's client, because the provider's metadata
        /// do not show that.
        reload par: bool = get_or(value::boolean, false),
        /// What `GET /auth/login` returns. `"built-in"`: the gate's login form; a path: a redirect to your own page, which
        /// posts to `/auth/login`; `"none"`: 404. A table sets the looks and texts of all pages that the gate itself
        /// shows. Default: `"built-in"`.
        reload page: PageKey = by { page::read(section, around.dir) },
        /// Page to which the browser is redirected after a logout by form: a path, or a URL with an origin in `origins`
        /// of `[cors]`. Default: a page that says that the user is logged out.
        reload after_logout: Option<String> = get(value::text),
        /// `SameSite` of the session cookie: `"lax"`, or `"strict"` for a public page that calls an API. With
        /// `"strict"`, the browser does not send the cookie when the user follows a link from another site.
        reload is_strict as ("same_site" SAME_SITES): bool = get_or(value::word(&SAME_SITES, &[]), false),
        /// Header that each request from a script must have (`"x-csrf"`). Empty: none. Set it if a policy demands a
        /// CSRF header in addition to the gate's checks of the origin.
        reload csrf_header: HeaderOrNone = get_or(csrf_header, HeaderOrNone(None)),
        /// Whether sessions are bound to a key pair on the browser's device (Device Bound Session Credentials):
        /// `"off"`; `"optional"`: if the browser supports it; `"required"`: a session that is not bound ends a minute
        /// after its login.
        reload device_bound: Binding = get_or(value::word_of, Binding::Off),
        /// false: the browser deletes the session cookie when it closes. Write `false` for shared computers.
        reload persistent: bool = get_or(value::boolean, true),
    }
}

/// The values of `same_site`.
const SAME_SITES: [(&str, bool); 2] = [("lax", false), ("strict", true)];

/// Rejects headers that a page of another origin can send without a preflight.
fn csrf_header(v: &Raw) -> Result<HeaderOrNone, String> {
    if v.as_text() == Some("") {
        return Ok(HeaderOrNone(None));
    }
    let name = value::text(v)?.to_ascii_lowercase().parse::<HeaderName>().ok();
    match name.filter(|name| name.as_str().starts_with("x-")) {
        Some(name) => Ok(HeaderOrNone(Some(name))),
        None => value::unexpected("the name of a header that begins with x-, such as \"x-csrf\"", v),
    }
}

/// Reads the `profile` of an endpoint, with the defaults of this dialect.
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
    let config = read_keys(section, around);
    if config.provider.is_none() {
        for (key, says) in [("scopes", true), ("parameters", true), ("par", config.par)] {
            if section.has(key) && says {
                section.blame(key, "only applies to a login at a provider; set `provider` in this endpoint");
            }
        }
    } else {
        let message = "only applies to a login with a password, but this endpoint has a `provider`; remove one of \
                       the two";
        section.blame_present(&["account"], message);
        match &config.page {
            PageKey::Form(_) => section.blame_present(&["page"], message),
            PageKey::BuiltIn(page) if page.account => section.section("page").blame("account", message),
            PageKey::BuiltIn(_) => {}
        }
    }
    if let PageKey::BuiltIn(page) = &config.page
        && page.account
        && section.has("account")
    {
        let message =
            "conflicts with `account` of this endpoint, which already names the account; remove one of the two";
        section.section("page").blame("account", message);
    }
    let host = around.public_url.host().unwrap_or_default();
    // An invalid `public_url` was already reported.
    if !around.is_https() && !host.is_empty() && !is_loopback(host) {
        let message = "needs a `server.public_url` that begins with https://, because a browser accepts a session \
                       cookie only over https or from a loopback address";
        section.blame("dialect", message);
    }
    if config.device_bound == Binding::Required && !around.is_https() {
        let message = "is \"required\", but `server.public_url` does not begin with https://. Browsers bind sessions \
                       only over https, so every session would end one minute after its login";
        section.blame("device_bound", message);
    }
    if section.is_bad() {
        return config;
    }
    if config.after_logout.as_deref().is_some_and(|to| !leads(to, path, around.cors)) {
        section.blame(
            "after_logout",
            "expected a path that this gate serves outside of this endpoint, or a URL whose origin is in \
             `cors.origins`",
        );
    }
    if let LoginPage::At(page) = config.page.form()
        && (!leads(page, path, around.cors) || page.contains('#'))
    {
        section.blame("page", "expected a path that this gate serves outside of this endpoint");
    }
    config
}

fn read_provider(section: &Section<'_>, issuers: &[TrustedIssuer]) -> Option<String> {
    let name = section.get("provider", value::text)?;
    match issuers.iter().find(|issuer| issuer.name == name) {
        None => check_known(section, "provider", "issuer", &name, issuers.iter().map(|one| one.name.as_str())),
        Some(issuer) if !issuer.keys.remote().is_some_and(RemoteSource::is_discovered) => {
            section.blame(
                "provider",
                "expected an issuer with `discovery`, because the login needs the endpoints that the discovery \
                 document names",
            );
        }
        Some(_) => {}
    }
    Some(name)
}

fn read_client(section: &Section<'_>, dir: &Path) -> Option<ProviderClientSettings> {
    if !section.has("provider") {
        return None;
    }
    let client = section.table("client", |section| provider_client::read_keys(section, dir));
    if client.is_none() && !section.is_bad() {
        section.blame(
            "client",
            "is missing; expected the gate's client at the provider, such as { id = \"web\", secret_file = \
             \"web.secret\" }",
        );
    }
    client
}

fn read_scopes(section: &Section<'_>) -> Vec<String> {
    if is_text(section, "scopes") {
        let all = section.get("scopes", value::scope).unwrap_or_default();
        return all.iter().map(str::to_owned).collect();
    }
    let scope = |v: &Raw| {
        let text = value::text(v)?;
        let is_one = !text.contains(' ') && Scope::parse(&text).is_ok();
        if is_one { Ok(text) } else { value::unexpected("a scope such as \"profile\"", v) }
    };
    section.list("scopes", scope).unwrap_or_default()
}

fn read_parameters(section: &Section<'_>) -> BTreeMap<String, String> {
    let table = section.section("parameters");
    let mut parameters = BTreeMap::new();
    for (name, v) in table.free() {
        if OWN_PARAMETERS.contains(&name) {
            table.blame(name, "is a parameter that the gate sets itself; remove it");
        }
        match value::text(v) {
            Ok(text) => drop(parameters.insert(name.to_owned(), text)),
            Err(message) => table.blame(name, message),
        }
    }
    parameters
}

/// Whether a login or a logout may redirect to `to`.
fn leads(to: &str, path: &str, cors: &CorsConfig) -> bool {
    let listed = cors.origins.iter().filter(|_| cors.allow_credentials).map(String::as_str);
    rotogate::program::is_login_target(to, path, listed)
}

impl BrowserConfig {
    /// Builds the browser endpoint.
    pub fn browser(&self, endpoint: &EndpointConfig, cors: &CorsConfig, provider: Option<LoginProvider>) -> Browser {
        let Self {
            page,
            after_logout,
            is_strict,
            csrf_header: HeaderOrNone(csrf_header),
            persistent,
            device_bound,
            // These settings are in the parameter `provider`.
            provider: _,
            client: _,
            scopes: _,
            parameters: _,
            par: _,
        } = self;
        let mut browser = match provider {
            Some(provider) => Browser::provider(endpoint.path.as_str(), provider),
            None => Browser::own(endpoint.path.as_str()),
        };
        browser = match page.form() {
            LoginPage::BuiltIn => browser,
            LoginPage::At(path) => browser.page(path.as_str()),
            LoginPage::None => browser.without_page(),
        };
        if let Some(to) = after_logout {
            browser = browser.after_logout(to.as_str());
        }
        browser = browser
            .look(page.settings())
            .device_bound(*device_bound)
            .profile(endpoint.profile.clone())
            .listeners(endpoint.listeners.iter().cloned());
        if *is_strict {
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

// Requirement B54.
pub(super) fn check(config: &Config, endpoints: &[Section<'_>], routes: &[Section<'_>]) {
    let mut found =
        config.endpoints.iter().zip(endpoints).filter_map(|(one, section)| Some((one, one.browser.as_ref()?, section)));
    let first = found.next();
    for (_, _, section) in found {
        section.blame(
            "dialect",
            "another endpoint also has `dialect = \"browser\"`, but the session cookie can belong to only one \
             endpoint; remove one of the two",
        );
    }
    let taking = || config.routes.iter().zip(routes).filter(|(route, _)| route.policy.credentials.session);
    // Without a browser endpoint, reading `credentials` already reported the routes.
    let Some((endpoint, browser, section)) = first else { return };
    if !config.routes.is_empty() && taking().next().is_none() && !section.is_bad() {
        let message = "is \"browser\", but no route accepts its sessions, so every request after the login would be \
                       refused. Write `credentials = [\"session\"]` in the `[[routes]]` of your pages and their API";
        section.warn(WarningKind::NoAccess, "dialect", message);
    }
    if browser.is_strict {
        for (_, section) in taking().filter(|(route, _)| !route.policy.never_leads_to_login) {
            section.blame(
                "login",
                "is \"auto\", but the route accepts sessions of an endpoint with `same_site = \"strict\"`. Browsers \
                 do not send its cookie after a click on a link from another site, so these users would be \
                 redirected to the login again and again. Write \"never\"",
            );
        }
    }
    let profile = endpoint.profile.over(&config.sessions.profile);
    if profile.idle_ttl < profile.access_ttl * 2 && !section.is_bad() {
        section.section("profile").blame(
            "idle_ttl",
            "must be at least twice `access_ttl`, because a session is renewed only once per `access_ttl`",
        );
    }
    check_page(config, browser, section);
    match &browser.provider {
        Some(_) => check_provider(config, endpoint, section),
        None if config.directories.is_empty() && !section.is_bad() => section.blame(
            "dialect",
            "\"browser\" logs in users of the directory, but `directory.kind` is \"none\", so every login would \
             fail. Name a `provider`, or configure a `[directory]`",
        ),
        None => {}
    }
}

fn check_provider(config: &Config, endpoint: &EndpointConfig, section: &Section<'_>) {
    let profile = endpoint.profile.over(&config.sessions.profile);
    if profile.idle_ttl > VOUCHED_IDLE && !section.is_bad() {
        let message = "must be at most 3d, because the gate remembers a logout at the provider only for that time";
        section.section("profile").blame("idle_ttl", message);
    }
}

/// Checks that the login page itself does not require a login. Otherwise the page would redirect to itself.
fn check_page(config: &Config, browser: &BrowserConfig, section: &Section<'_>) {
    let LoginPage::At(page) = browser.page.form() else { return };
    let path = page.split('?').next().unwrap_or_default();
    let (Ok(path), Ok(routes)) = (CanonicalPath::parse(path), RouteTable::build(config.routes.clone())) else { return };
    let host = config.server.public_url.host();
    if let Match::Found(route) = routes.find(host, &http::Method::GET, &path)
        && route.policy.auth == Auth::Required
    {
        section.blame(
            "page",
            format!(
                "leads to the route {}, which requires a login; give the login page a route with `auth = \"none\"`",
                route.id
            ),
        );
    }
}
