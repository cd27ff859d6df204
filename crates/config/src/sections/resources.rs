//! `[[resources]]`: protected resources with metadata (RFC 9728). Each entry has the type [`Resource`].

use http::Uri;

use super::super::declare::section;
use super::super::print::Print;
use super::super::value;
use super::clients::scopes;
use super::mapping::scope_map;
use crate::Config;
use rotogate_core::mcp::VERSIONS;
use rotogate_core::route::{Auth, CallRules, Implied, Mcp, Resource, Route, WarningKind};
use rotogate_core::session::Scope;
use rotogate_kit::config::{Section, Value as Raw};

section! {
    impl Resource, read by pub(super) read_keys(section, others: &[Resource]) {
        /// Required: Path of the resource, by which routes refer to it (`resource = "/mcp"`). Its metadata are at
        /// `/.well-known/oauth-protected-resource` followed by the path.
        reload path: String = by { read_path(section, others) },
        /// Issuers of the tokens for the resource. Unset: this gate. Set it if clients get their tokens from an
        /// identity provider, as clients of the Model Context Protocol always do.
        reload authorization_servers as some: Vec<String> = by { read_servers(section) },
        /// Human-readable name of the resource. Set it for clients that show users which resource they grant access to.
        reload name: Option<String> = get(value::text),
        /// Scopes that clients may request. Set it if clients have no other way to learn the scopes.
        reload scopes: Scope = by { self::scopes(section, "scopes").unwrap_or_default() },
        /// Scopes that include other scopes on routes of the resource: `{ "files.write" = ["files.read"] }`. Set it if
        /// the issuer's tokens do not list the included scopes.
        reload implies: Implied = by { implies(section) },
        /// How the gate reads calls of the Model Context Protocol. Set it for an MCP server if the gate should check
        /// its calls.
        reload mcp: Option<Mcp> = table(read_mcp),
    }
}

section! {
    impl Mcp, read by read_mcp(section) {
        /// Where the gate reads the method and the name of a call. `"body"`: from the body, which it buffers and
        /// compares with the headers. `"headers"`: only from the headers, for servers that compare them with the body
        /// themselves, and for `[[authorizers]]`, which do not receive bodies.
        reload headers_alone as ("check" CHECKS): bool = get_or(value::word(&CHECKS, &[]), false),
        // Servers of older versions do not compare the headers with the body.
        no_key versions: Vec<String> = by {
            let known = if headers_alone { &VERSIONS[..1] } else { &VERSIONS[..] };
            let known = || known.iter().map(|version| (*version).to_owned()).collect();
            section.for_tests().list("versions", value::text).unwrap_or_else(known)
        },
        /// Maximum size of a call's body with `check = "body"`.
        fixed max_message: u64 = get_or(value::size(1024, 64 * 1024 * 1024), Mcp::default().max_message),
        /// Origins of pages that may call the resource, besides `public_url` and `origins` of `[cors]`. Pages of other
        /// origins get 403. Set it if the upstream responds to preflights itself.
        reload origins: Vec<Box<str>> = by { section.list_or_empty("origins", value::cors_origin).into_iter().map(Into::into).collect() },
    }
    with {
        /// Accepted versions of the Model Context Protocol. With `check = "headers"`, only the newest version is
        /// accepted.
        fixed versions: text = "2026-07-28, 2025-11-25, 2025-06-18, 2025-03-26",
    }
}

/// The values of `check`.
const CHECKS: [(&str, bool); 2] = [("body", false), ("headers", true)];

impl Print for Implied {
    fn print(&self) -> toml::Value {
        let each = self.given().iter().map(|(wide, narrow)| (wide.clone(), narrow.print()));
        toml::Value::Table(each.collect())
    }
}

fn implies(section: &Section<'_>) -> Implied {
    let given = scope_map(section, "implies").unwrap_or_default();
    Implied::new(given.into_iter().map(|(wide, narrow)| (wide.into(), narrow))).unwrap_or_else(|why| {
        section.blame("implies", why);
        Implied::default()
    })
}

fn read_path(section: &Section<'_>, others: &[Resource]) -> String {
    let path = section.required("path", "a path such as \"/mcp\"", resource_path);
    if !path.is_empty() && others.iter().any(|other| other.path == path) {
        section.blame("path", format!("\"{path}\" is listed twice; remove one of the two"));
    }
    path
}

fn read_servers(section: &Section<'_>) -> Vec<String> {
    let servers = section.list("authorization_servers", authorization_server);
    if servers.as_ref().is_some_and(Vec::is_empty) && !section.is_bad() {
        section.blame(
            "authorization_servers",
            "is empty; expected at least one issuer. To name only this gate, remove `authorization_servers`",
        );
    }
    servers.unwrap_or_default()
}

fn resource_path(v: &Raw) -> Result<String, String> {
    let path = value::text(v)?;
    match Resource::new(path.as_str()).problem() {
        None => Ok(path),
        Some(why) => Err(format!("{why}, found {}", v.describe())),
    }
}

/// Reads an issuer URL (RFC 8414 §2) without normalizing it.
fn authorization_server(v: &Raw) -> Result<String, String> {
    let is_web = |uri: Uri| {
        matches!(uri.scheme_str(), Some("https" | "http")) && uri.host().is_some_and(|host| !host.is_empty())
    };
    let fits = |text: &str| text.parse().is_ok_and(is_web) && !text.contains(['?', '#']);
    value::fitting(v, "the URL of an issuer such as \"https://idp.example.com\"", fits)
}

/// A resource must not require the scope for refresh tokens.
// Requirement M14.
const OFFLINE: &str = "offline_access";

/// Checks resources and their routes. Clients of the Model Context Protocol need an authorization endpoint, which the
/// gate does not have. A resource for these clients must therefore name another issuer.
pub(super) fn check(sections: &[Section<'_>], all: &[Resource], routes: &[Route], issuer: &str, asking: &[&str]) {
    let kind = WarningKind::NoAccess;
    for (section, resource) in sections.iter().zip(all) {
        let is_used = |route: &Route| route.policy.resource.as_ref() == Some(&resource.path);
        if !section.is_bad() && !routes.iter().any(is_used) {
            section.warn(kind, "path", "no route belongs to this resource; add `resource` to the routes for its path");
        }
        let asks_offline = |route: &&Route| is_used(route) && route.policy.asked_scopes().contains(OFFLINE);
        if resource.scopes.contains(OFFLINE) || routes.iter().any(|route| asks_offline(&route)) {
            section.blame(
                "scopes",
                "contains `offline_access`, here or on a route, but clients request that scope from the provider, so \
                 a resource must not require it",
            );
        }
        if let Err(why) = CallRules::new(routes.iter().filter(|route| is_used(route))) {
            section.blame("mcp", why);
        }
        let is_asked = |route: &Route| {
            route.listeners.is_empty() || route.listeners.iter().any(|name| asking.iter().any(|it| **it == **name))
        };
        if resource.mcp.as_ref().is_some_and(|mcp| !mcp.headers_alone)
            && !asking.is_empty()
            && routes.iter().any(|route| is_used(route) && is_asked(route))
        {
            let message = "checks calls by their bodies, but requests from `[[authorizers]]` have no body, so each \
                           of these requests would be refused. Write `mcp.check = \"headers\"`, or name listeners of \
                           `[server]` in the routes of the resource";
            section.blame("mcp", message);
        }
        let servers = &resource.authorization_servers;
        let only_ours = servers.is_empty() || servers.iter().all(|server| server == issuer);
        if !section.is_bad() && only_ours && resource.path.split('/').any(|segment| segment == "mcp") {
            let message = "only this gate issues tokens for this resource, but the gate has no authorization \
                           endpoint, which clients of the Model Context Protocol need. Name a provider: \
                           `authorization_servers = [\"https://…\"]`";
            section.warn(kind, "path", message);
        }
    }
}

/// Warns about pages that may call a resource but cannot read its responses.
pub(super) fn check_origins(config: &Config, sections: &[Section<'_>]) {
    for (section, resource) in sections.iter().zip(&config.resources) {
        let is_here = |route: &&Route| route.policy.resource.as_ref() == Some(&resource.path);
        let origins = resource.mcp.iter().flat_map(|mcp| &mcp.origins);
        let unread = origins.filter(|origin| !config.cors.origins.iter().any(|listed| **listed == ***origin));
        if config.routes.iter().filter(is_here).any(|route| !route.policy.preflight_to_upstream)
            && let Some(origin) = unread.into_iter().next()
            && !section.is_bad()
        {
            let message = format!(
                "allows pages of {origin} to call, but a browser would not let these pages read the responses. Write \
                 the origin into `origins` of `[cors]` instead, or `preflight = \"upstream\"` in the routes"
            );
            section.warn(WarningKind::NoAccess, "mcp", message);
        }
    }
}

/// Checks the routes of resources that have `mcp`.
pub(super) fn check_routes(config: &Config, route_sections: &[Section<'_>]) {
    for (section, route) in route_sections.iter().zip(&config.routes) {
        let resource = route.policy.resource.as_ref();
        let judged = config.resources.iter().any(|known| known.mcp.is_some() && resource == Some(&known.path));
        if judged && route.policy.upgrade {
            let message = "cannot be combined with a resource that has `mcp`, because the gate cannot check calls in \
                           an upgraded connection; remove one of the two";
            section.blame("upgrade", message);
        }
        if judged && route.policy.credentials.key {
            let message = "contains \"key\", but a resource with `mcp` accepts only access tokens, because its \
                           clients find their authorization server through the metadata; remove \"key\"";
            section.blame("credentials", message);
        }
    }
}

/// Warns about routes that probably accept tokens for a resource by accident. Without `resource` and `audiences`, a
/// route accepts all audiences of the issuer, even the URL of a resource.
// Requirement N67.
pub(super) fn check_audiences(config: &Config, route_sections: &[Section<'_>]) {
    let public_url = config.server.public_url.to_string();
    let of_others = config.issuers.iter().enumerate().map(|(index, issuer)| {
        (issuer.name.as_str(), issuer.everywhere, format!("issuers[{index}].audience"), &issuer.audience)
    });
    let own = (rotogate_core::token::verify::OWN, true, "issuer.audience".to_owned(), &config.issuer.audience);
    let issuers: Vec<_> = std::iter::once(own).chain(of_others).collect();
    for (section, route) in route_sections.iter().zip(&config.routes) {
        let policy = &route.policy;
        if section.is_bad() || policy.auth == Auth::None || policy.resource.is_some() || !policy.audiences.is_empty() {
            continue;
        }
        for (name, everywhere, key, audience) in &issuers {
            let opens = |resource: &&Resource| audience.contains(&resource.url(&public_url));
            if let Some(resource) = config.resources.iter().find(opens).filter(|_| policy.takes(name, *everywhere)) {
                let url = resource.url(&public_url);
                section.warn(
                    WarningKind::OfResource,
                    "path",
                    format!(
                        "this route accepts tokens for the resource {}, because `{key}` contains its URL. Remove \
                         {url} there, because the routes of the resource require it anyway, or write `audiences` \
                         here",
                        resource.path
                    ),
                );
            }
        }
    }
}

pub(super) const DANGEROUS: &str = "dangerous";

/// Reads `forward_token`.
pub(super) fn forward_token(v: &Raw) -> Result<bool, String> {
    if v.as_text() == Some(DANGEROUS) { Ok(true) } else { value::boolean(v) }
}

/// Returns the path of the route's resource.
pub(super) fn of_route(section: &Section<'_>, known: &[Resource], auth: Auth, forward_token: bool) -> Option<String> {
    let is_dangerous = section.free().iter().any(|(key, v)| *key == "forward_token" && v.as_text() == Some(DANGEROUS));
    let Some(path) = section.get("resource", value::text) else {
        if is_dangerous {
            let message =
                "\"dangerous\" only applies to a route with `resource`; elsewhere, write `forward_token = true`";
            section.blame("forward_token", message);
        }
        return None;
    };
    super::check_known(section, "resource", "resource", &path, known.iter().map(|resource| resource.path.as_str()));
    if auth == Auth::None {
        section.blame("resource", "requires a token, but `auth = \"none\"` ignores tokens; remove one of the two");
    }
    if forward_token && !is_dangerous {
        let message = "forwards the resource's token to the upstream, which could use it elsewhere (MCP forbids \
                       token passthrough). Use an assertion, or accept the risk with `forward_token = \"dangerous\"`";
        section.blame("forward_token", message);
    }
    Some(path)
}
