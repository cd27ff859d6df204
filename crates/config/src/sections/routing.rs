//! Checks across routes and endpoints.

use http::Method;

use super::Config;
use rotogate::dialect::Dialect;
use rotogate::gate::JWKS_PATH;
use rotogate::program::{envelopes, is_controller, protocol_of};
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::route::{Auth, Route, RouteProblem, RouteTable, ungoverned, warnings};
use rotogate_kit::config::Section;

const UNBOUND: &str = "cannot be combined with `auth = \"none\"`, because the gate closes a WebSocket when the \
                       authorization of its caller ends; remove one of the two";

/// Checks the routes.
pub(super) fn check(config: &Config, sections: &[Section<'_>]) {
    if sections.iter().any(Section::is_bad) {
        return;
    }
    let routes = &config.routes;
    for error in RouteTable::build(routes.clone()).err().into_iter().flatten() {
        let Some(section) = sections.get(error.route) else { continue };
        let named = |position: usize| routes.get(position).map(|route| route.id.to_string()).unwrap_or_default();
        match error.problem {
            RouteProblem::Host(host) => section.blame("hosts", format!("{host:?} is not a host name, or has a port")),
            RouteProblem::Pattern { pattern, reason } => {
                section.blame("path", format!("{pattern:?} is not a valid path pattern: {reason}"));
            }
            RouteProblem::SameAs { other, .. } => {
                section.blame(
                    "path",
                    format!(
                        "serves the same host, path and method as the route {}; remove one of the two",
                        named(other)
                    ),
                );
            }
            RouteProblem::Param(name) => {
                let key = ["when", "when_any"].into_iter().find(|key| section.has(key)).unwrap_or("path");
                section.blame(
                    key,
                    format!(
                        "{name:?} is not a parameter of the route's path; name one, such as {{{name}}} in \
                         /…/{{{name}}}. A rule for calls has no parameters"
                    ),
                );
            }
            RouteProblem::SameCalls { calls, other, .. } => {
                section.blame("kuzzle", format!("{calls} already has a rule in the route {}", named(other)));
            }
        }
    }
    // The gate terminates the WebSockets of Kuzzle clients.
    let is_of_kuzzle = config.endpoints.iter().any(super::EndpointConfig::is_kuzzle);
    let is_open = |route: &&Route| route.policy.auth == Auth::None && route.policy.upgrade && !is_of_kuzzle;
    for (section, _) in sections.iter().zip(routes).filter(|(_, route)| is_open(route)) {
        section.blame("upgrade", UNBOUND);
    }
    if let Some((strict, envelope)) = ungoverned(routes, &all_envelopes(config), is_controller)
        && let (Some(section), Some(envelope)) = (sections.get(strict), routes.get(envelope))
    {
        let envelope = &envelope.id;
        let message = format!(
            "requires more than {envelope}, the route for Kuzzle calls in `/_query` and over WebSockets. A call that \
             has no path in Kuzzle's API, such as a plugin's, is checked only by {envelope} and would bypass this \
             route. Name here the calls that need the same restrictions: `kuzzle = [\"*\"]` for all calls that have \
             no path, or `kuzzle = [\"my-plugin:*\"]` for those of a plugin. In the second case, also write `kuzzle \
             = [\"*\"]` in {envelope} if the other calls do not need these restrictions"
        );
        section.blame("kuzzle", message);
    }
    for warning in warnings(routes, taken(config)) {
        if let Some(section) = sections.get(warning.route) {
            section.warn(warning.kind, "path", warning.message);
        }
    }
}

fn dialects(config: &Config) -> impl Iterator<Item = (&str, Box<dyn Dialect>)> {
    let one = |endpoint: &super::EndpointConfig| {
        if let Some(relay) = &endpoint.relay {
            return Some(relay.dialect());
        }
        rotogate::program::by_name(endpoint.dialect, &endpoint.options())
    };
    config.endpoints.iter().filter_map(move |endpoint| Some((endpoint.path.as_str(), one(endpoint)?)))
}

fn all_envelopes(config: &Config) -> Vec<(Method, String)> {
    dialects(config).flat_map(|(base, dialect)| envelopes(dialect.as_ref(), base)).collect()
}

/// Returns a function from a path to its endpoint. Endpoints take precedence over routes, and
/// also serve near misses of their paths.
fn taken(config: &Config) -> impl Fn(&str) -> Option<String> {
    let mut taken = matchit::Router::new();
    // Conflicts between templates are reported elsewhere.
    let _ = taken.insert(JWKS_PATH, "the gate itself".to_owned());
    for (base, dialect) in dialects(config) {
        for served in dialect.serves(base) {
            let (protocol, operation) = (protocol_of(&*dialect), served.operation);
            if !protocol.is_some_and(|own| own.is_envelope(operation) || own.consults(operation)) {
                let by = format!("the endpoint {base} ({})", dialect.name());
                let _ = taken.insert(served.template.to_ascii_lowercase(), by);
            }
        }
    }
    move |path| {
        let path = CanonicalPath::parse(path).ok()?;
        taken.at(&path.loose()).ok().map(|found| found.value.clone())
    }
}
