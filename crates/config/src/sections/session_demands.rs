//! Warns about routes that accept browser sessions, but whose requirements browser sessions cannot meet.

use super::{Config, DirectoryConfig, UsersConfig};
use rotogate::program::BROWSER;
use rotogate_core::claim::Role;
use rotogate_core::route::{Auth, Route, RoutePolicy, WarningKind};
use rotogate_core::session::Scope;
use rotogate_core::token::verify::OWN;
use rotogate_kit::config::Section;

struct SessionFacts<'a> {
    config: &'a Config,
    issuer: &'a str,
    /// The scopes that a session can have, or `None` for any scope.
    scopes: Option<&'a Scope>,
}

/// Warns about routes that refuse all sessions.
// Requirement B54.
pub(super) fn check(config: &Config, sections: &[Section<'_>]) {
    let Some(facts) = SessionFacts::new(config) else { return };
    for (route, section) in config.routes.iter().zip(sections).filter(|(_, section)| !section.is_bad()) {
        let Some(takers) = takers(config, route) else { continue };
        for (key, what, remedy) in facts.unmet(route) {
            let message = format!(
                "{what}, so every request with a browser session is refused; {remedy}, or remove \"session\" from \
                 {takers}"
            );
            section.warn(WarningKind::NoAccess, key, message);
        }
    }
}

/// Describes the setting that makes a route accept sessions.
fn takers(config: &Config, route: &Route) -> Option<&'static str> {
    if route.policy.auth == Auth::None {
        return None;
    }
    if route.calls.is_empty() {
        return route.policy.credentials.session.then_some("`credentials`");
    }
    let is_path = |other: &&Route| other.calls.is_empty() && other.policy.resource == route.policy.resource;
    let mut paths = config.routes.iter().filter(is_path).map(|path| path.policy.credentials).peekable();
    paths.peek()?;
    paths.all(|taken| taken.session && !taken.token && !taken.key).then_some("`credentials` of the route for its path")
}

impl<'a> SessionFacts<'a> {
    fn new(config: &'a Config) -> Option<Self> {
        let (endpoint, browser) = config.endpoints.iter().find_map(|one| Some((one, one.browser.as_ref()?)))?;
        let Some(provider) = browser.provider.as_deref() else {
            let mut clients = config.clients.iter().map(|client| &client.client);
            let id = endpoint.client.as_deref().unwrap_or(BROWSER);
            let client = clients.find(|client| *client.id == *id);
            return Some(Self { config, issuer: OWN, scopes: client.and_then(|client| client.scopes.as_ref()) });
        };
        let issuer = config.issuers.iter().find(|issuer| issuer.name == provider)?;
        Some(Self { config, issuer: provider, scopes: issuer.scopes.listed() })
    }

    /// Lists the key, reason and remedy of each requirement that sessions never meet.
    fn unmet(&self, route: &Route) -> Vec<(&'static str, String, String)> {
        let (issuer, policy) = (self.issuer, &route.policy);
        let mut unmet = Vec::new();
        let mut lacks = |key, what: String, remedy: String| unmet.push((key, what, remedy));
        if !policy.takes(issuer, true) {
            let message = format!("does not name \"{issuer}\", where browser users log in");
            lacks("issuers", message, format!("add \"{issuer}\""));
        } else if !policy.roles.is_empty() && !policy.roles.iter().any(|role| self.may_have(policy, role)) {
            let remedy = format!(
                "write `issuers = [\"{issuer}\"]` if no other issuer's tokens are used here, or add a role of that \
                 issuer"
            );
            lacks("roles", format!("does not name a role of \"{issuer}\", where browser users log in"), remedy);
        }
        if policy.takes(issuer, true) && !policy.all_roles.iter().all(|role| self.may_have(policy, role)) {
            let what = format!("names a role of another issuer than \"{issuer}\", where browser users log in");
            lacks("all_roles", what, format!("write roles of \"{issuer}\""));
        }
        for (key, is_required, what) in [
            ("dpop", policy.dpop_required, "DPoP key"),
            ("certificate_bound", policy.certificate_required, "client certificate"),
        ] {
            if is_required {
                let message = format!("is \"required\", but a session is not bound to a {what}");
                lacks(key, message, "write \"optional\"".to_owned());
            }
        }
        if route.calls.is_empty() {
            self.lacks_audience(policy, &mut lacks);
        }
        if let Some(scopes) = self.scopes.filter(|scopes| policy.resource.is_none() && !policy.grants(scopes)) {
            let key = if policy.scopes.is_within(scopes) { "any_scope" } else { "scopes" };
            let (what, place) = match issuer {
                OWN => ("the client of the endpoint", "`scopes` of that client"),
                _ => ("the provider", "`scopes` of its `[[issuers]]` entry"),
            };
            lacks(key, format!("requires a scope that {what} may not grant"), format!("add the scope to {place}"));
        }
        self.lacks_login(policy, &mut lacks);
        unmet
    }

    /// Whether a session may have this role. A role without an issuer belongs to the route's only issuer. If the route
    /// does not name exactly one issuer, the role belongs to the gate.
    fn may_have(&self, policy: &RoutePolicy, role: &Role) -> bool {
        let of = match (&role.issuer, policy.issuers.as_slice()) {
            (Some(issuer), _) => issuer,
            (None, [only]) => only.as_str(),
            (None, _) => OWN,
        };
        *of == *self.issuer
    }

    /// Reports required audiences that sessions lack. The tokens of sessions have only the audience of the gate.
    fn lacks_audience(&self, policy: &RoutePolicy, lacks: &mut impl FnMut(&'static str, String, String)) {
        let resource = self.config.resources.iter().find(|known| Some(&known.path) == policy.resource.as_ref());
        let url = resource.map(|resource| resource.url(&self.config.server.public_url.to_string()));
        let own = &self.config.issuer.audience;
        let is_asked = url.is_some() || !policy.audiences.is_empty();
        if is_asked && !policy.audiences.iter().chain(&url).any(|asked| own.contains(asked)) {
            let remedy = format!("write `audiences = [\"{}\"]`", own.first().map_or("", String::as_str));
            let (key, asks) = match policy.audiences.is_empty() {
                true => ("resource", "requires tokens for the resource"),
                false => ("audiences", "does not contain an audience of `issuer.audience`"),
            };
            lacks(key, asks.to_owned(), remedy);
        }
    }

    /// A login with a password has an `acr` only if the directory returns one.
    fn lacks_login(&self, policy: &RoutePolicy, lacks: &mut impl FnMut(&'static str, String, String)) {
        let asks = policy.step_up.as_ref().is_some_and(|step_up| !step_up.acr.is_empty());
        if asks && self.issuer == OWN && !self.config.directories.iter().any(may_give_acr) {
            let message = "requires `acr`, which a login with a password does not set".to_owned();
            lacks("step_up", message, "set `provider` in the endpoint for browsers, or remove `acr`".to_owned());
        }
    }
}

fn may_give_acr(directory: &DirectoryConfig) -> bool {
    match &directory.users {
        UsersConfig::File { .. } => true,
        UsersConfig::Remote { source, .. } => source.claims().is_none_or(|names| names.contains(&"acr")),
    }
}
