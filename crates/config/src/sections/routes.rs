//! `[[routes]]`. Each entry has the type [`Route`].

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::{Table, Value};

use super::super::declare::section;
use super::super::print::{Put, word};
use super::super::value;
use super::clients::scopes;
use super::endpoints::dialect_name;
use super::{
    IdentityConfig, TrustedIssuer, check_known, conditions, credentials, known_names, listeners, log, rate, resources,
    step_up,
};
use crate::logs::{AccessLogConfig, RouteLog};
use rotogate_core::claim::Role;
use rotogate_core::claim::condition::Conditions;
use rotogate_core::route::{
    Auth, CallPattern, Credentials, Implied, McpCalls, RateLimit, Resource, Route, RoutePolicy, UpstreamId,
    all_roles_problem, role_problem,
};
use rotogate_core::session::Scope;
use rotogate_core::session::step_up::StepUp;
use rotogate_core::token::verify::OWN;
use rotogate_kit::config::{Section, Value as Raw, printable};
use rotogate_proxy::Upstream;

/// The values of `dpop` and `certificate_bound`. With `required`, the route accepts only bound tokens.
const PROOFS: [(&str, bool); 2] = [("optional", false), ("required", true)];

/// The values of `auth`.
const AUTHS: [(&str, Auth); 4] = [
    (Auth::Required.word(), Auth::Required),
    (Auth::Optional.word(), Auth::Optional),
    (LENIENT, Auth::Optional),
    (Auth::None.word(), Auth::None),
];
/// This value of `auth` treats an invalid token as missing.
const LENIENT: &str = "lenient";

/// The values of `keep_headers`.
const UNDERSCORE: &str = "underscore";
const OVERRIDE: &str = "override";

const ENCODED_SLASHES: [(&str, bool); 2] = [("refuse", false), ("keep", true)];
const EXPIRIES: [(&str, bool); 2] = [("close", false), ("keep", true)];
const LOGINS: [(&str, bool); 2] = [("auto", false), ("never", true)];
const PREFLIGHTS: [(&str, bool); 2] = [("gate", false), ("upstream", true)];

/// Reads `issuers` of a route.
fn route_issuers(section: &Section<'_>, issuers: &[TrustedIssuer]) -> Vec<String> {
    let known = [OWN].into_iter().chain(issuers.iter().map(|issuer| issuer.name.as_str()));
    let Some(named) = known_names(section, "issuers", "issuer", known) else { return Vec::new() };
    if named.is_empty() && !section.is_bad() {
        section.blame(
            "issuers",
            format!("is empty, so no token would be accepted; expected at least one issuer, such as \"{OWN}\""),
        );
    }
    named
}

fn route_roles(section: &Section<'_>, key: &'static str, named: &[String], trusted: &[TrustedIssuer]) -> Vec<Role> {
    let policy = RoutePolicy { issuers: named.to_vec(), ..RoutePolicy::default() };
    let takes = |issuer: &&TrustedIssuer| policy.takes(&issuer.name, issuer.everywhere);
    let own = policy.takes(OWN, true).then_some(OWN);
    let taken: Vec<&str> =
        own.into_iter().chain(trusted.iter().filter(takes).map(|issuer| issuer.name.as_str())).collect();
    let is_issuer = |name: &str| name == OWN || trusted.iter().any(|issuer| issuer.name == name);
    let listed = section.indexed(key, role).unwrap_or_default();
    let mut roles = Vec::new();
    for (index, text) in listed {
        let role = Role::parse(&text, is_issuer);
        match role_problem(&role, &taken) {
            Some(why) => section.blame_element(key, index, format!("\"{}\" {why}", printable(&text))),
            None => roles.push(role),
        }
    }
    if let Some(issuer) = trusted.iter().filter(takes).find(|issuer| issuer.claims.roles.is_empty())
        && !roles.is_empty()
    {
        let name = printable(&issuer.name);
        let message = format!(
            "the route accepts the tokens of \"{name}\", but that entry of `[[issuers]]` does not name a claim for \
             roles. Write `claims = {{ roles = \"…\" }}` there, or remove the issuer from `issuers`"
        );
        section.blame(key, message);
    }
    roles
}

fn role(v: &Raw) -> Result<String, String> {
    value::text(v).and_then(|role| match role.len() {
        ..=256 => Ok(role),
        _ => Err("is longer than 256 bytes, which is the maximum for a role".to_owned()),
    })
}

pub(super) struct Names<'a> {
    pub(super) upstreams: &'a [Upstream],
    pub(super) issuers: &'a [TrustedIssuer],
    pub(super) identity: &'a IdentityConfig,
    pub(super) resources: &'a [Resource],
    /// The listeners that have a name.
    pub(super) listeners: &'a [&'a str],
    /// Whether there is a browser endpoint.
    pub(super) has_browser: bool,
    /// Whether the configuration has the section `[api_keys]`.
    pub(super) has_keys: bool,
    /// Whether `[[authorizers]]` exist, so that routes do not need an upstream.
    pub(super) are_asked_about: bool,
}

pub(super) fn read(sections: &[Section<'_>], names: &Names<'_>, logs: &mut BTreeMap<Box<str>, RouteLog>) -> Vec<Route> {
    let known: Vec<&str> = names.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    let mut routes: Vec<Route> = Vec::new();
    for section in sections {
        let route = read_route(section, &known, names);
        let same =
            |other: &Route| (&other.path, &other.hosts, &other.methods) == (&route.path, &route.hosts, &route.methods);
        if !route.path.is_empty() && routes.iter().any(same) {
            let message =
                format!("{} is listed twice, for the same hosts and methods; remove one of the two", route.path);
            section.blame("path", message);
        }
        let mut id = route.id.clone();
        if !id.is_empty() && routes.iter().any(|other| other.id == id) {
            if section.has("id") {
                section.blame("id", format!("\"{id}\" is listed twice; rename one of the two"));
            }
            // Append a number, because several routes may have the same path.
            id = (2_usize..)
                .map(|n| format!("{}#{n}", route.id).into())
                .find(|id| routes.iter().all(|r| r.id != *id))
                .unwrap_or(id);
        }
        if let Some(Some(log)) = section.get("access_log", log::read_route) {
            logs.insert((*id).into(), log);
        }
        section.finish();
        let upstream = route.upstream.and_then(|upstream| names.upstreams.get(upstream.position()));
        let assertion_audience = upstream
            .filter(|_| names.identity.assertion.is_some())
            .map(|upstream| upstream.assertion_audience.as_deref().unwrap_or(&upstream.name).into());
        routes.push(Route { id, assertion_audience, ..route });
    }
    routes
}

fn mcp_calls(v: &Raw) -> Result<McpCalls, String> {
    let text = value::text(v)?;
    // All method names except `initialize` and `ping` contain a slash. A tool's name alone would not match any call.
    let method = text.split(':').next().unwrap_or_default();
    if !method.contains('/') && !["*", "initialize", "ping"].contains(&method) {
        let tool = printable(&text);
        return Err(format!(
            "expected a method with a slash, such as \"tools/call:{tool}\" for the tool {tool}, found {}",
            v.describe()
        ));
    }
    McpCalls::parse(&text).map_err(|why| format!("{why}, found {}", v.describe()))
}

/// The configuration keys that a route with `calls` may have.
const OF_CALLS: [&str; 14] = [
    "id",
    "resource",
    "calls",
    "scopes",
    "any_scope",
    "roles",
    "all_roles",
    "issuers",
    "when",
    "when_any",
    "step_up",
    "dpop",
    "certificate_bound",
    "rate",
];

/// A rule for calls applies in addition to the route that serves the path.
fn blame_beside_calls(section: &Section<'_>, names: &Names<'_>) {
    for (key, _) in section.free().iter().filter(|(key, _)| !OF_CALLS.contains(key)) {
        section.blame(key, "cannot be combined with `calls`; set it in the route for the path of the resource");
    }
    let resource = section.get("resource", value::text).unwrap_or_default();
    let known = names.resources.iter().find(|known| known.path == resource);
    if known.is_none_or(|known| known.mcp.is_none()) && !section.is_bad() {
        section.blame("calls", "needs `resource`, which names one of the `[[resources]]` with `mcp = {}`");
    }
}

fn call_pattern(v: &Raw) -> Result<CallPattern, String> {
    CallPattern::parse(&value::text(v)?).map_err(|why| format!("{why}, found {}", v.describe()))
}

/// Which requests a route serves, and the upstream that gets them.
struct Destination {
    path: String,
    kuzzle: Vec<CallPattern>,
    calls: Vec<McpCalls>,
    upstream: String,
    is_path: bool,
}

fn read_destination(section: &Section<'_>, upstreams: &[&str], names: &Names<'_>) -> Destination {
    let kuzzle = section.list("kuzzle", call_pattern).unwrap_or_default();
    let calls = section.list("calls", mcp_calls).unwrap_or_default();
    if section.has("calls") {
        blame_empty(section, "calls", calls.is_empty());
        blame_beside_calls(section, names);
    }
    // A rule with `calls` needs neither a path nor an upstream.
    let is_path = !section.has("calls") && (section.has("path") || !section.has("kuzzle"));
    let require = |key, expected, read: fn(&Raw) -> Result<String, String>| match is_path {
        true => section.require(key, expected, read).unwrap_or_default(),
        false => section.get(key, read).unwrap_or_default(),
    };
    let path = require("path", "a path such as \"/{*rest}\"", value::pattern);
    let upstream = match names.are_asked_about {
        true => section.get("upstream", value::text).unwrap_or_default(),
        false => require("upstream", "the name of an upstream", value::text),
    };
    if !is_path && section.has("upstream") {
        section.blame(
            "upstream",
            "only applies to a route with `path`; a call is forwarded to the upstream of the route for the path of \
             its request",
        );
    }
    if !upstream.is_empty() {
        check_known(section, "upstream", "upstream", &upstream, upstreams.iter().copied());
    }
    Destination { path, kuzzle, calls, upstream, is_path }
}

fn blame_unasked(section: &Section<'_>, policy: &RoutePolicy) {
    let asked = [
        ("scopes", !policy.scopes.is_empty()),
        ("any_scope", !policy.any_scope.is_empty()),
        ("roles", !policy.roles.is_empty()),
        ("all_roles", !policy.all_roles.is_empty()),
        ("audiences", !policy.audiences.is_empty()),
        ("issuers", !policy.issuers.is_empty()),
        ("credentials", policy.credentials != Credentials::default()),
        ("when", section.has("when")),
        ("when_any", section.has("when_any")),
        ("step_up", section.has("step_up")),
        ("cookie", section.has("cookie")),
        ("dpop", policy.dpop_required),
        ("certificate_bound", policy.certificate_required),
    ];
    for (key, _) in asked.iter().filter(|(_, given)| *given) {
        section
            .blame(key, "has no effect, because `auth = \"none\"` does not check credentials; remove one of the two");
    }
}

section! {
    impl RoutePolicy, read by read_policy(section, names: &Names<'_>) {
        reload auth as "-": Auth = get_or(value::word(&AUTHS, &[]), Auth::Required),
        /// Accepted credentials. `"token"`: an access token; `"session"`: the session cookie of an endpoint with the
        /// dialect `browser`; `"key"`: an API key. An access token or an API key takes precedence over a cookie. A
        /// request with both an access token and an API key gets 400.
        reload credentials: Credentials = by { credentials::read(section, names) },
        /// Scopes, of which the token must have at least one.
        reload any_scope as some: Scope = by { self::scopes(section, "any_scope").unwrap_or_default() },
        /// Scopes, all of which the token must have: a list, or a string such as `"read write"`.
        reload scopes: Scope = by { self::scopes(section, "scopes").unwrap_or_default() },
        /// Accepted audiences, of which the token must have one. Empty: the `audience` of `[issuer]`. Set it if a
        /// service has its own audience.
        reload audiences: Vec<String> = list_or_empty(value::text),
        /// Accepted issuers of tokens: `"self"` for the gate, and names of `[[issuers]]`. Unset: the gate, and issuers
        /// with `everywhere = true`.
        reload issuers as some: Vec<String> = by { route_issuers(section, names.issuers) },
        /// Accepted roles, of which the token must have one. The gate reads them from the issuer's `claims.roles`, or
        /// from the claim `roles` in its own tokens. On a route with several issuers, each role names its issuer:
        /// `["self:admin", "kc:boss"]`.
        reload roles as some: Vec<Role> = by {
            let roles = route_roles(section, "roles", &issuers, names.issuers);
            blame_empty(section, "any_scope", any_scope.is_empty());
            blame_empty(section, "roles", roles.is_empty());
            roles
        },
        /// Roles, all of which the token must have, in addition to one of `roles`.
        reload all_roles as some: Vec<Role> = by {
            let all = route_roles(section, "all_roles", &issuers, names.issuers);
            blame_empty(section, "all_roles", all.is_empty());
            if let (Some(role), Some(why)) = (all.first(), all_roles_problem(&all)) {
                section.blame("all_roles", format!("\"{}\" {why}", printable(&role.to_string())));
            }
            all
        },
        reload conditions as "-": Option<Arc<Conditions>> = by {
            conditions::read(section, &issuers, names.issuers).map(Arc::new)
        },
        reload compares_exactly as "-": bool = by { !section.get_or("loose_match", value::boolean, true) },
        reload forward_token as "-": bool = get_or(resources::forward_token, false),
        /// `path` of the resource that the route serves, as in `[[resources]]`. Tokens for the resource's URL are then
        /// accepted, and challenges contain the URL of the resource's metadata.
        reload resource: Option<String> = by { resources::of_route(section, names.resources, auth, forward_token) },
        no_key implied: Option<Arc<Implied>> = by { None },
        reload ignores_bad_credential as "-": bool = by {
            section.get("auth", |v| Ok(v.as_text() == Some(LENIENT))).unwrap_or(false)
        },
        /// `"keep"`: the gate accepts `%2F` as a character within a path segment. Use it only for upstreams that
        /// interpret `%2F` in the same way, such as GitLab.
        reload keeps_encoded_slash as ("encoded_slash" ENCODED_SLASHES): bool = get_or(value::word(&ENCODED_SLASHES, &[]), false),
        reload keep_underscore_headers as "-": bool = by { false },
        reload keep_override_headers as "-": bool = by { false },
        /// Maximum size of a request body. The gate streams bodies and does not buffer them. Unset: no limit. Set it if
        /// the upstream has no limit of its own.
        reload max_body: Option<u64> = get(value::size(0, u64::MAX)),
        /// Protocol (dialect) in which the gate writes error responses. Set it for clients that understand only errors
        /// in this format.
        reload dialect: Option<String> = by { section.get("dialect", dialect_name).map(str::to_owned) },
        /// Name of a cookie that may carry the access token. The gate does not forward the cookie. A request with the
        /// cookie and a method other than GET, HEAD or OPTIONS must come from a page of `public_url` or of `origins` in
        /// `[cors]`; otherwise it gets 403. Set it for pages that keep their access token in a cookie.
        reload cookie: Option<String> = get(value::cookie_name),
        /// true: callers with a credential may open WebSockets and other HTTP/1.1 upgrades. Set it for routes with
        /// WebSockets.
        reload upgrade: bool = get_or(value::boolean, false),
        reload dpop_required as "-": bool = by { section.get_or("dpop", value::word(&PROOFS, &[]), false) },
        reload certificate_required as "-": bool = by {
            section.get_or("certificate_bound", value::word(&PROOFS, &[]), false)
        },
        /// `"close"`: WebSockets and other long responses end when the token expires; `"keep"`: they end only if the
        /// token is revoked. Write `"keep"` for clients that cannot reconnect.
        reload keeps_on_expiry as ("on_expiry" EXPIRIES): bool = get_or(value::word(&EXPIRIES, &[]), false),
        reload preflight_to_upstream as "-": bool = by {
            section.get_or("preflight", value::word(&PREFLIGHTS, &[]), false)
        },
        /// What a browser without a valid session gets on a route that accepts sessions. `"auto"`: a redirect to the
        /// login if a tab opens a page, and 401 for other requests; `"never"`: always 401.
        reload never_leads_to_login as ("login" LOGINS): bool = get_or(value::word(&LOGINS, &[]), false),
        /// Requirements for the caller's login (RFC 9470). A request that does not meet them gets 401.
        reload step_up: Option<StepUp> = by { section.has("step_up").then(|| step_up::of_route(section)) },
        /// Rate limits for callers of the route (docs/limits.md). Requests that exceed them get 429.
        reload rate as some: Vec<RateLimit> = by { rate::of_route(section) },
    }
    with {
        /// Required: Pattern of the paths. `{id}` matches one segment, and `{*rest}` matches the rest of the path,
        /// which may be empty. `/public` and `/public/` are different paths. Not required with `kuzzle` or `calls`.
        reload path: text,
        /// `"required"`: a request needs a credential; `"optional"`: a request may have none; `"lenient"`: like
        /// `"optional"`, but an invalid credential is treated like a missing one; `"none"`: the gate does not read
        /// credentials.
        reload auth: text,
        /// Required: Name of the entry of `[[upstreams]]` that gets the requests. Not required if other proxies send
        /// authorization requests (`[[authorizers]]`), or with `kuzzle` or `calls`.
        reload upstream: text,
        /// Name of the route in logs and metrics. Set it if the path is long, or if an alert uses the name. Default:
        /// the path.
        reload id: text,
        /// Hosts of the route. Empty: all hosts.
        reload hosts: list,
        /// Methods of the route. Empty: all methods registered with IANA, WebDAV included, except CONNECT and
        /// TRACE.
        reload methods: list,
        /// Listeners that serve this route; others respond with 404. Unset: all. Set it for routes of an internal
        /// network.
        reload listeners: list,
        /// Which requests are in the access log. `"errors"`: only requests that the gate refuses, or whose status is
        /// not 2xx or 3xx; false: none; true: all. Set it for routes that probes and monitors call.
        reload access_log: text,
        /// Kuzzle calls in `/_query` and in WebSockets to which this route applies, at any path. `"*"`: all calls that
        /// have no path of their own.
        reload kuzzle: list,
        /// Headers that the gate forwards although they are dangerous for some upstreams. `"underscore"`: headers with
        /// an underscore in their name. They are dangerous if the upstream treats `x_auth_subject` like
        /// `x-auth-subject`. `"override"`: `X-HTTP-Method-Override`, `X-Original-URL` and similar headers. They are
        /// dangerous if the upstream obeys them, because clients can then bypass the rules of routes.
        reload keep_headers: list,
        /// MCP calls to which this route applies, instead of a path: `"method:name"`, `"method:prefix*"`, `"method"`,
        /// or `"*"` for all other calls. Each `resource` with such routes needs one for `"*"`. The most specific
        /// pattern applies. A call must meet the requirements (scopes, roles, login) of this route and of the route for
        /// its path.
        reload calls: list,
        /// true: a path gets 404 if a lenient server could treat it as the path of a stricter route. Write `false` only
        /// for an upstream that compares paths byte for byte.
        reload loose_match: boolean,
        /// Conditions on claims, all of which must be met (docs/conditions.md). Otherwise the request gets 403.
        reload when: table,
        /// List of tables like `when`. The conditions of at least one table must be met.
        reload when_any: list,
        /// true: the gate forwards the bearer token to the upstream. On a route with `resource`, the value must be
        /// `"dangerous"` instead, because the upstream could use the resource's token elsewhere. Default: `false`.
        reload forward_token: boolean,
        /// `"required"`: the route accepts only tokens that are bound to a key, with a DPoP proof (docs/dpop.md).
        reload dpop: text,
        /// `"required"`: the route accepts only tokens that are bound to the client's certificate
        /// (docs/certificates.md).
        reload certificate_bound: text,
        /// `"upstream"`: the gate forwards CORS preflights to the upstream, which responds to them. Set it for an
        /// application with its own CORS rules.
        reload preflight: text,
    }
}

pub(super) fn blame_empty(section: &Section<'_>, key: &str, is_empty: bool) {
    if section.has(key) && is_empty && !section.is_bad() {
        section.blame(key, "is empty; expected at least one value, or remove this configuration key");
    }
}

fn words(patterns: &[impl ToString]) -> String {
    patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn read_route(section: &Section<'_>, upstreams: &[&str], names: &Names<'_>) -> Route {
    section.later(&["max_stream", "websocket"]);
    let Destination { path, kuzzle, calls, upstream, is_path } = read_destination(section, upstreams, names);
    let mut policy = read_policy(section, names);
    let auth = policy.auth;
    let kept = [(UNDERSCORE, UNDERSCORE), (OVERRIDE, OVERRIDE)];
    for word in section.list_or_empty("keep_headers", value::word(&kept, &[])) {
        policy.keep_underscore_headers |= word == UNDERSCORE;
        policy.keep_override_headers |= word == OVERRIDE;
    }
    if auth == Auth::None {
        blame_unasked(section, &policy);
    }
    Route {
        id: section
            .get("id", value::text)
            .unwrap_or_else(|| match is_path {
                true => path.clone(),
                false if kuzzle.is_empty() => format!("calls {}", words(&calls)),
                false => format!("kuzzle {}", words(&kuzzle)),
            })
            .into(),
        path,
        kuzzle,
        calls,
        hosts: section.list("hosts", value::host).unwrap_or_default(),
        methods: section.list("methods", value::method).unwrap_or_default(),
        listeners: listeners::bound_to(section, names.listeners),
        policy,
        upstream: upstreams.iter().position(|known| *known == upstream).map(UpstreamId::new),
        assertion_audience: None,
        exchange: None,
    }
}

pub(super) fn print(route: &Route, upstreams: &[Upstream], access_log: &AccessLogConfig) -> Value {
    // The other fields come from the upstream.
    let Route { id, hosts, methods, path, kuzzle, calls, listeners, policy, upstream, .. } = route;
    let RoutePolicy { auth, ignores_bad_credential, preflight_to_upstream, resource, forward_token, .. } = policy;
    let mut table = Table::new();
    id.put(&mut table, "id");
    Some(hosts.clone()).filter(|hosts| !hosts.is_empty()).put(&mut table, "hosts");
    Some(methods.clone()).filter(|methods| !methods.is_empty()).put(&mut table, "methods");
    Some(path.as_str()).filter(|path| !path.is_empty() || kuzzle.is_empty()).put(&mut table, "path");
    Some(kuzzle.clone()).filter(|kuzzle| !kuzzle.is_empty()).put(&mut table, "kuzzle");
    Some(listeners.clone()).filter(|listeners| !listeners.is_empty()).put(&mut table, "listeners");
    let upstream = upstream.and_then(|upstream| upstreams.get(upstream.position()));
    upstream.map(|upstream| upstream.name.clone()).put(&mut table, "upstream");
    policy.put(&mut table, "..");
    policy.conditions.iter().for_each(|all| conditions::put(all, &mut table));
    let of_auth = if *ignores_bad_credential { LENIENT } else { auth.word() };
    of_auth.put(&mut table, "auth");
    let kept = [(UNDERSCORE, policy.keep_underscore_headers), (OVERRIDE, policy.keep_override_headers)];
    let kept: Vec<_> = kept.into_iter().filter(|(_, is_kept)| *is_kept).map(|(word, _)| word).collect();
    kept.put(&mut table, "keep_headers");
    (!policy.compares_exactly).put(&mut table, "loose_match");
    word(&PREFLIGHTS, *preflight_to_upstream).put(&mut table, "preflight");
    word(&PROOFS, policy.dpop_required).put(&mut table, "dpop");
    word(&PROOFS, policy.certificate_required).put(&mut table, "certificate_bound");
    match (*forward_token, resource) {
        (true, Some(_)) => resources::DANGEROUS.put(&mut table, "forward_token"),
        (is_forwarded, _) => is_forwarded.put(&mut table, "forward_token"),
    }
    if let Some(log) = access_log.routes.get(&**id) {
        table.insert("access_log".to_owned(), log::print_route(*log));
    }
    if !calls.is_empty() {
        calls.put(&mut table, "calls");
        table.retain(|key, _| OF_CALLS.contains(&key));
    }
    table.into()
}
