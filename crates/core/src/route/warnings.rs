//! Warnings about valid routes that are probably not intended (requirement T21).

use http::Method;

use super::path::CanonicalPath;
use super::pattern::{self, Segment};
use super::{Match, Route, RouteTable};

/// A warning about a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteWarning {
    /// The index of the route.
    pub route: usize,
    /// The kind of the warning.
    pub kind: WarningKind,
    /// The problem and the remedy.
    pub message: String,
}

/// Each literal states whether the kind warns of wider access.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $is_wider_access:literal,)*) => {
        /// The subject of a warning about the configuration. `tests/cli/remedies.rs` tests the remedies for each kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum WarningKind {
            $($(#[$doc])* $kind,)*
        }

        impl WarningKind {
            /// All kinds of warnings.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Whether the kind warns of wider access.
            pub const fn is_wider_access(self) -> bool {
                match self {
                    $(Self::$kind => $is_wider_access,)*
                }
            }
        }
    };
}

kinds! {
    /// Another handler serves the path, so the route is never reached.
    NeverReached: false,
    /// Lax servers treat a path of the route as a path of a stricter route.
    Beside: true,
    /// Lax servers treat some spellings as a path of a stricter route. `loose_match = false` allows these spellings.
    AnySpelling: true,
    /// The gate rejects a path of the route, because lax servers would treat it as a path of a stricter route.
    NeverServed: false,
    /// A less strict route serves the parent path.
    Uncovered: true,
    /// Requests for the parent path are rejected.
    UncoveredRefused: false,
    /// Under other hosts, a less strict route serves the same paths.
    OtherHosts: true,
    /// A route outside a resource accepts tokens for the resource.
    OfResource: true,
    /// An issuer serves the general public, and the accepted users are not restricted.
    Everybody: true,
    /// A condition uses a claim whose value the users can choose.
    ClaimOfUsers: true,
    /// A setting has no effect, so it does not widen access.
    NoAccess: false,
}

/// A segment that patterns rarely contain.
const SAMPLE: &str = "0-sample";

/// All warnings, in the order of the routes. `taken` returns the name of the handler that serves a path instead of the
/// routes.
///
/// Invalid routes give no warnings, because their errors are reported elsewhere.
pub fn warnings(routes: &[Route], taken: impl Fn(&str) -> Option<String>) -> Vec<RouteWarning> {
    let Ok(table) = RouteTable::build(routes.to_vec()) else { return Vec::new() };
    let mut found = Vec::new();
    for (place, route) in routes.iter().enumerate() {
        let Ok(pattern) = pattern::parse(&route.path) else { continue };
        let mut warn = |(kind, message)| found.push(RouteWarning { route: place, kind, message });
        let sample = sample(&pattern);
        if !matches!(pattern.last(), Some(Segment::Rest))
            && let Some(by) = taken(&sample)
        {
            warn((WarningKind::NeverReached, format!("is never reached, because {by} serves {sample}")));
            continue;
        }
        let method = route.methods.first().unwrap_or(&Method::GET);
        let examined = ExaminedRoute { table: &table, route, pattern: &pattern, sample: &sample, method };
        for host in hosts(route) {
            let of_host = [examined.beside(host), examined.uncovered(host), examined.other_hosts(host)];
            of_host.into_iter().flatten().for_each(&mut warn);
        }
    }
    found.dedup();
    found
}

struct ExaminedRoute<'a> {
    table: &'a RouteTable,
    route: &'a Route,
    pattern: &'a [Segment<'a>],
    sample: &'a str,
    method: &'a Method,
}

impl ExaminedRoute<'_> {
    fn beside(&self, host: Option<&str>) -> Option<(WarningKind, String)> {
        let stricter = self.table.stricter_reading(host, self.method, self.sample)?;
        if stricter.id == self.route.id {
            return None;
        }
        let than = &stricter.id;
        let is_one_path = self.pattern.iter().all(|segment| matches!(segment, Segment::Plain(_)));
        Some(match (is_one_path, self.route.policy.compares_exactly) {
            (true, _) => (
                WarningKind::Beside,
                format!(
                    "is less strict than {than}, but servers that ignore case or strip parameters, dots and slashes \
                     treat both paths as the same. The gate serves it because exactly this path is configured: remove \
                     it, or write the rules of {than} here"
                ),
            ),
            (false, true) => (
                WarningKind::AnySpelling,
                format!(
                    "is less strict than {than}, and loose_match = false lets every spelling of that path pass: \
                     remove loose_match, unless the upstream compares paths byte by byte"
                ),
            ),
            (false, false) => (
                WarningKind::NeverServed,
                format!(
                    "is never served, because {than} is stricter, and servers that ignore case or strip parameters and \
                     dots treat both paths as the same. Its requests get 404 (ambiguous_path): remove it"
                ),
            ),
        })
    }

    fn uncovered(&self, host: Option<&str>) -> Option<(WarningKind, String)> {
        let (Segment::Rest, before) = self.pattern.split_last()? else { return None };
        if before.is_empty() {
            return None;
        }
        let (other, is_served) = look_up(self.table, host, self.method, &sample(before))?;
        if !self.route.policy.is_stricter_than(&other.policy) {
            return None;
        }
        let bare = shown(before);
        Some(match is_served {
            true => (
                WarningKind::Uncovered,
                format!(
                    "does not cover {bare}, which the less strict route {} serves: {} for {bare} with the same rules",
                    other.id,
                    if other.path == bare { "replace it by a route" } else { "write a route" },
                ),
            ),
            false => (
                WarningKind::UncoveredRefused,
                format!(
                    "does not cover {bare}, which the less strict route {} would serve, so requests for {bare} get \
                     404 (ambiguous_path); write a route for {bare}",
                    other.id
                ),
            ),
        })
    }

    fn other_hosts(&self, host: Option<&str>) -> Option<(WarningKind, String)> {
        let (route, _) = (self.route, host?);
        let (other, true) = look_up(self.table, None, self.method, self.sample)? else { return None };
        let shares_upstream = route.upstream.is_some() && other.upstream == route.upstream;
        if !shares_upstream || !route.policy.is_stricter_than(&other.policy) {
            return None;
        }
        let message = format!(
            "serves only {}, but under any other host the less strict route {} serves the same path of the same \
             upstream: remove hosts here",
            route.hosts.join(", "),
            other.id
        );
        Some((WarningKind::OtherHosts, message))
    }
}

fn hosts(route: &Route) -> Vec<Option<&str>> {
    match route.hosts.is_empty() {
        true => vec![None],
        false => route.hosts.iter().map(|host| Some(host.as_str())).collect(),
    }
}

/// The flag is true if the route serves the path.
fn look_up<'t>(table: &'t RouteTable, host: Option<&str>, method: &Method, path: &str) -> Option<(&'t Route, bool)> {
    let path = CanonicalPath::parse(path).ok()?;
    match table.find(host, method, &path) {
        Match::Found(route) => Some((route, true)),
        Match::Ambiguous(route) => Some((route, false)),
        Match::MethodNotAllowed(_) | Match::None => None,
    }
}

fn sample(pattern: &[Segment<'_>]) -> String {
    written(pattern, SAMPLE, SAMPLE)
}

fn shown(pattern: &[Segment<'_>]) -> String {
    written(pattern, "{…}", "{*…}")
}

fn written(pattern: &[Segment<'_>], named: &str, rest: &str) -> String {
    let texts = pattern.iter().map(|segment| match segment {
        Segment::Plain(text) => *text,
        Segment::Named => named,
        Segment::Rest => rest,
    });
    texts.fold(String::new(), |path, text| path + "/" + text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::RoutePolicy;
    use crate::route::UpstreamId;
    use crate::session::Scope;

    fn admin() -> RoutePolicy {
        RoutePolicy { scopes: Scope::parse("admin").unwrap(), ..RoutePolicy::default() }
    }

    fn route(path: &str, policy: RoutePolicy) -> Route {
        Route { upstream: Some(UpstreamId::new(0)), ..Route::new(path, policy) }
    }

    fn warned(routes: &[Route]) -> Vec<(usize, String)> {
        let taken = |path: &str| (path == "/connect/token").then(|| "an endpoint".to_owned());
        warnings(routes, taken).into_iter().map(|warning| (warning.route, warning.message)).collect()
    }

    #[test]
    fn t21_the_shape_that_most_configurations_have_is_not_strange() {
        let quiet = [
            route("/public/{*rest}", RoutePolicy::public()),
            route("/{*rest}", RoutePolicy::default()),
            route("/admin", admin()),
            route("/admin/{*rest}", admin()),
            route("/orders/{id}", RoutePolicy::default()),
            route("/orders/{id}/items", RoutePolicy::default()),
        ];
        assert_eq!(warned(&quiet), []);
    }

    #[test]
    fn t21_what_a_stricter_route_does_not_cover_is_said() {
        let found = warned(&[route("/{*rest}", RoutePolicy::default()), route("/admin/{*rest}", admin())]);
        let [(1, message)] = found.as_slice() else { panic!("{found:?}") };
        assert!(message.contains("which the less strict route /{*rest} would serve"), "{message}");
        let exempt = warned(&[route("/admin", RoutePolicy::default()), route("/admin/{*rest}", admin())]);
        assert!(
            exempt
                .iter()
                .any(|(place, text)| (*place, text.contains("which the less strict route /admin serves")) == (1, true))
        );
        let named = warned(&[route("/{a}", RoutePolicy::public()), route("/{a}/{*rest}", RoutePolicy::default())]);
        assert!(named.iter().any(|(place, text)| (*place, text.contains("/{…}")) == (1, true)), "{named:?}");
    }

    #[test]
    fn t21_a_laxer_route_around_a_stricter_one_is_said() {
        let strict = route("/admin/{*rest}", admin());
        let bare = route("/admin", admin());
        let around = |lax: Route| warned(&[lax, strict.clone(), bare.clone()]);
        let exact = around(route("/Admin/help", RoutePolicy::public()));
        let [(0, message)] = exact.as_slice() else { panic!("{exact:?}") };
        assert!(message.contains("is less strict than /admin/{*rest}, but servers"), "{message}");
        let dead = around(route("/Admin/{*rest}", RoutePolicy::public()));
        assert!(dead.iter().any(|(place, text)| (*place, text.contains("is never served")) == (0, true)), "{dead:?}");
        let policy = RoutePolicy { compares_exactly: true, ..RoutePolicy::public() };
        let open = around(route("/Admin/{*rest}", policy));
        assert!(
            open.iter().any(|(place, text)| (*place, text.contains("lets every spelling")) == (0, true)),
            "{open:?}"
        );
        let mut named = route("/admin/{*rest}", admin());
        named.hosts = vec!["a.test".to_owned()];
        let mut all = route("/admin", admin());
        all.hosts = vec!["a.test".to_owned()];
        let host = warned(&[named, all, route("/{*rest}", RoutePolicy::default())]);
        assert!(
            host.iter().any(|(place, text)| (*place, text.contains("under any other host")) == (0, true)),
            "{host:?}"
        );
    }

    #[test]
    fn t21_a_route_behind_an_endpoint_is_said() {
        let found =
            warned(&[route("/connect/token", RoutePolicy::public()), route("/{*rest}", RoutePolicy::default())]);
        assert_eq!(found, [(0, "is never reached, because an endpoint serves /connect/token".to_owned())]);
    }
}
