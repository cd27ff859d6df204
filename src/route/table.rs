//! All routes, ready for look-ups. The order is fixed and does not depend on the order in the configuration:
//!
//! 1. **host**, exactly and whatever its letter case. A host that some route names is served by the routes that name
//!    it and by no others; every other host by the routes that name none.
//! 2. **path**, the most specific pattern: plain segments before `{name}` before `{*rest}`.
//! 3. **method**, among the routes of that very pattern. If none of them serves it the answer is 405, even where a less
//!    specific pattern would serve it: a request never falls through to a route that asks for less.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::Method;

use super::Route;
use super::authority::{host_of, is_host};
use super::path::CanonicalPath;
use super::pattern::{self, Segment, Tree};

/// What a route serves that lists no methods. `CONNECT`, `TRACE` and unknown methods are served only where a route lists
/// them (T10).
pub const DEFAULT_METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// See the module's order.
#[derive(Debug)]
pub struct RouteTable {
    by_host: HashMap<Box<str>, Site, foldhash::fast::RandomState>,
    other_hosts: Site,
    escapes: bool,
}

/// What a look-up finds.
#[derive(Clone, Copy, Debug)]
pub enum Match<'t> {
    /// This route.
    Found(&'t Arc<Route>),
    /// The path has routes, for these methods only: 405 with `Allow`.
    MethodNotAllowed(&'t [Method]),
    /// No route: 404.
    None,
}

/// A route that cannot stand in the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("route {route}: {problem}")]
pub struct RouteError {
    /// Its place in the list, from 0.
    pub route: usize,
    /// What is wrong with it.
    pub problem: RouteProblem,
}

/// What can be wrong with a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteProblem {
    /// A host with a port, a wildcard or what is no host name.
    #[error("{0:?} is not a host name without port")]
    Host(String),
    /// A pattern that cannot be read, or that no canonical path can match.
    #[error("the path pattern {pattern:?} is wrong: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another route serves the same.
    #[error("it serves the same host, path and method as route {0}")]
    SameAs(usize),
}

#[derive(Debug, Default)]
struct Site {
    paths: Tree<usize>,
    entries: Vec<Entry>,
}

/// The routes of one pattern.
#[derive(Debug, Default)]
struct Entry {
    /// By the methods that routes list.
    listed: Vec<(Method, Arc<Route>)>,
    /// The route that lists none.
    unlisted: Option<Arc<Route>>,
    allow: Vec<Method>,
}

/// The routes of one host before they are built.
#[derive(Default)]
struct Draft {
    paths: Tree<usize>,
    /// For each pattern, the places of its routes in the list.
    groups: Vec<Vec<usize>>,
}

impl RouteTable {
    /// Builds the table.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn build(routes: Vec<Route>) -> Result<Self, Vec<RouteError>> {
        let mut errors = Vec::new();
        let mut drafts: BTreeMap<Option<String>, Draft> = BTreeMap::new();
        let routes: Vec<Arc<Route>> = routes.into_iter().map(Arc::new).collect();
        for (index, route) in routes.iter().enumerate() {
            let pattern = match pattern::parse(&route.path) {
                Ok(pattern) => pattern,
                Err(reason) => {
                    let problem = RouteProblem::Pattern { pattern: route.path.clone(), reason };
                    errors.push(RouteError { route: index, problem });
                    continue;
                }
            };
            let mut add = |host| drafts.entry(host).or_default().add(&pattern, index);
            for host in &route.hosts {
                if is_host(host) {
                    add(Some(normal_host(host)));
                } else {
                    errors.push(RouteError { route: index, problem: RouteProblem::Host(host.clone()) });
                }
            }
            if route.hosts.is_empty() {
                add(None);
            }
        }
        let escapes = routes.iter().any(|route| route.path.contains('%'));
        let mut table = Self { by_host: HashMap::default(), other_hosts: Site::default(), escapes };
        for (host, draft) in drafts {
            let site = draft.build(&routes, &mut errors);
            match host {
                Some(host) => drop(table.by_host.insert(host.into(), site)),
                None => table.other_hosts = site,
            }
        }
        if errors.is_empty() {
            return Ok(table);
        }
        errors.sort_by_key(|e| e.route);
        errors.dedup();
        Err(errors)
    }

    /// The route of a request. A port in `host` is ignored.
    pub fn find(&self, host: Option<&str>, method: &Method, path: &CanonicalPath<'_>) -> Match<'_> {
        let site = host.and_then(|host| self.site(host)).unwrap_or(&self.other_hosts);
        let entry = site.paths.find(path).and_then(|&place| site.entries.get(place));
        entry.map_or(Match::None, |entry| entry.find(method))
    }

    /// Has any pattern a percent escape?
    pub(crate) fn has_escapes(&self) -> bool {
        self.escapes
    }

    fn site(&self, host: &str) -> Option<&Site> {
        if self.by_host.is_empty() {
            return None;
        }
        let host = host_of(host);
        if host.bytes().any(|b| b.is_ascii_uppercase()) || host.ends_with('.') {
            self.by_host.get(normal_host(host).as_str())
        } else {
            self.by_host.get(host)
        }
    }
}

impl Draft {
    fn add(&mut self, pattern: &[Segment<'_>], route: usize) {
        let next = self.groups.len();
        let place = *self.paths.place(pattern).get_or_insert(next);
        if place == next {
            self.groups.push(Vec::new());
        }
        if let Some(group) = self.groups.get_mut(place) {
            group.push(route);
        }
    }

    fn build(self, routes: &[Arc<Route>], errors: &mut Vec<RouteError>) -> Site {
        let entries = self.groups.iter().map(|group| Entry::build(group, routes, errors)).collect();
        Site { paths: self.paths, entries }
    }
}

impl Entry {
    fn build(indices: &[usize], routes: &[Arc<Route>], errors: &mut Vec<RouteError>) -> Self {
        let mut entry = Self::default();
        let mut owner: HashMap<Option<&Method>, usize> = HashMap::new();
        for (index, route) in indices.iter().filter_map(|&i| Some((i, routes.get(i)?))) {
            let methods = route.methods.iter().map(Some).chain(route.methods.is_empty().then_some(None));
            for method in methods {
                match owner.insert(method, index) {
                    Some(other) if other != index => {
                        errors.push(RouteError { route: index, problem: RouteProblem::SameAs(other) });
                    }
                    Some(_) => {}
                    None => match method {
                        Some(method) => entry.listed.push((method.clone(), Arc::clone(route))),
                        None => entry.unlisted = Some(Arc::clone(route)),
                    },
                }
            }
        }
        if !entry.listed.iter().any(|(method, _)| method == Method::HEAD)
            && let Some(route) =
                entry.listed.iter().find(|(method, _)| method == Method::GET).map(|(_, r)| Arc::clone(r))
        {
            entry.listed.push((Method::HEAD, route));
        }
        entry.allow = entry.listed.iter().map(|(method, _)| method.clone()).collect();
        if entry.unlisted.is_some() {
            entry.allow.extend(DEFAULT_METHODS);
        }
        entry.allow.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        entry.allow.dedup();
        entry
    }

    fn find(&self, method: &Method) -> Match<'_> {
        if let Some((_, route)) = self.listed.iter().find(|(listed, _)| listed == method) {
            return Match::Found(route);
        }
        match &self.unlisted {
            Some(route) if DEFAULT_METHODS.contains(method) => Match::Found(route),
            Some(_) | None => Match::MethodNotAllowed(&self.allow),
        }
    }
}

fn normal_host(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::RoutePolicy;

    fn route(id: &str, hosts: &[&str], methods: &[Method], path: &str) -> Route {
        Route {
            id: id.to_owned(),
            hosts: hosts.iter().map(|&h| h.to_owned()).collect(),
            methods: methods.to_vec(),
            path: path.to_owned(),
            policy: RoutePolicy::default(),
            upstream: None,
        }
    }

    fn find(table: &RouteTable, host: Option<&str>, method: &Method, path: &str) -> String {
        match table.find(host, method, &CanonicalPath::parse(path).unwrap()) {
            Match::Found(route) => route.id.clone(),
            Match::MethodNotAllowed(allow) => {
                format!("405 {}", allow.iter().map(Method::as_str).collect::<Vec<_>>().join(","))
            }
            Match::None => "404".to_owned(),
        }
    }

    fn problems(routes: Vec<Route>) -> Vec<(usize, String)> {
        RouteTable::build(routes).unwrap_err().into_iter().map(|e| (e.route, e.problem.to_string())).collect()
    }

    #[test]
    fn the_most_specific_path_wins_in_any_order() {
        let mut routes = vec![
            route("rest", &[], &[], "/{*rest}"),
            route("public", &[], &[], "/public/{*rest}"),
            route("admin", &[], &[], "/public/admin"),
            route("user", &[], &[], "/users/{id}"),
            route("me", &[], &[], "/users/me"),
            route("posts", &[], &[], "/users/{id}/posts"),
            route("any user", &[], &[], "/users/{*rest}"),
            route("top", &[], &[], "/{name}"),
            route("deep", &[], &[], "/users/{id}/posts/{post}/{*rest}"),
        ];
        for _ in 0..2 {
            routes.reverse();
            let table = RouteTable::build(routes.clone()).unwrap();
            let table = |path| find(&table, None, &Method::GET, path);
            assert_eq!(table("/"), "rest");
            assert_eq!(table("/x/y"), "rest");
            assert_eq!(table("/x"), "top");
            assert_eq!(table("/public"), "top");
            assert_eq!(table("/public/"), "public");
            assert_eq!(table("/publicly/"), "rest");
            assert_eq!(table("/public/a/b"), "public");
            assert_eq!(table("/public/admin"), "admin");
            assert_eq!(table("/public/admin/"), "public");
            assert_eq!(table("/public/Admin"), "public");
            assert_eq!(table("/public;x/a"), "rest");
            assert_eq!(table("/users/me"), "me");
            assert_eq!(table("/users/7"), "user");
            assert_eq!(table("/users/me/posts"), "posts");
            assert_eq!(table("/users/7/posts/"), "any user");
            assert_eq!(table("/users/7/posts/1"), "any user");
            assert_eq!(table("/users/7/posts/1/"), "deep");
            assert_eq!(table("/users/me/posts/1/x/y"), "deep");
            assert_eq!(table("/users/me/else"), "any user");
            assert_eq!(table("/users/"), "any user");
        }
    }

    #[test]
    fn t12_an_escaped_slash_does_not_end_a_segment() {
        let table =
            RouteTable::build(vec![route("one", &[], &[], "/x/{id}"), route("two", &[], &[], "/x/{id}/y")]).unwrap();
        assert_eq!(find(&table, None, &Method::GET, "/x/a%2Fy"), "one");
    }

    #[test]
    fn what_no_route_names_is_not_found() {
        let table = RouteTable::build(vec![route("a", &[], &[], "/a")]).unwrap();
        for path in ["/", "/a/", "/A", "/a;x", "/ab", "/a/b"] {
            assert_eq!(find(&table, None, &Method::GET, path), "404", "{path}");
        }
        assert_eq!(find(&RouteTable::build(vec![]).unwrap(), None, &Method::GET, "/"), "404");
    }

    #[test]
    fn a_method_never_falls_through_to_a_less_specific_route() {
        let routes = vec![
            route("lax", &[], &[], "/{*rest}"),
            route("strict", &[], &[Method::POST, Method::GET], "/orders/{id}"),
        ];
        let table = RouteTable::build(routes).unwrap();
        assert_eq!(find(&table, None, &Method::GET, "/orders/1"), "strict");
        assert_eq!(find(&table, None, &Method::HEAD, "/orders/1"), "strict");
        assert_eq!(find(&table, None, &Method::DELETE, "/orders/1"), "405 GET,HEAD,POST");
        assert_eq!(find(&table, None, &Method::DELETE, "/orders"), "lax");
    }

    #[test]
    fn routes_of_one_path_share_out_the_methods() {
        let routes = vec![
            route("read", &[], &[Method::GET], "/x/{*rest}"),
            route("write", &[], &[Method::POST, Method::PUT], "/x/{*rest}"),
            route("others", &[], &[], "/x/{*rest}"),
            route("exact", &[], &[Method::PUT], "/x/"),
        ];
        let table = RouteTable::build(routes).unwrap();
        assert_eq!(find(&table, None, &Method::GET, "/x/1"), "read");
        assert_eq!(find(&table, None, &Method::HEAD, "/x/1"), "read");
        assert_eq!(find(&table, None, &Method::PUT, "/x/1"), "write");
        assert_eq!(find(&table, None, &Method::DELETE, "/x/1"), "others");
        assert_eq!(find(&table, None, &Method::GET, "/x/"), "405 PUT");
    }

    #[test]
    fn t10_unusual_methods_are_served_only_where_they_are_listed() {
        let track = Method::from_bytes(b"TRACK").unwrap();
        let table = RouteTable::build(vec![
            route("all", &[], &[], "/a"),
            route("listed", &[], &[Method::TRACE, track.clone()], "/b"),
        ])
        .unwrap();
        for method in [Method::TRACE, Method::CONNECT, track.clone(), Method::from_bytes(b"get").unwrap()] {
            assert_eq!(find(&table, None, &method, "/a"), "405 DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT", "{method}");
        }
        assert_eq!(find(&table, None, &track, "/b"), "listed");
    }

    #[test]
    fn a_named_host_has_its_own_routes_and_no_others() {
        let routes = vec![
            route("any", &[], &[], "/{*rest}"),
            route("api", &["API.example.com", "[2001:DB8::1]"], &[], "/v1/{*rest}"),
        ];
        let table = RouteTable::build(routes).unwrap();
        for host in ["api.example.com", "Api.Example.COM:8443", "api.example.com.", "[2001:db8::1]:80"] {
            assert_eq!(find(&table, Some(host), &Method::GET, "/v1/x"), "api", "{host}");
            assert_eq!(find(&table, Some(host), &Method::GET, "/x"), "404", "{host}");
        }
        for host in [None, Some("example.com"), Some("xapi.example.com"), Some("api.example.com.evil.test")] {
            assert_eq!(find(&table, host, &Method::GET, "/v1/x"), "any", "{host:?}");
        }
    }

    #[test]
    fn all_bad_routes_are_reported_at_once_by_their_place() {
        let found = problems(vec![
            route("ok", &[], &[], "/ok"),
            route("brace", &[], &[], "/{a"),
            route("relative", &[], &[], "a"),
            route("rest", &[], &[], "/{*rest}/x"),
            route("double", &[], &[], "/a//b"),
            route("escape", &[], &[], "/%7euser"),
            route("dots", &[], &[], "/a/../b"),
            route("host", &["a:80", "*.x"], &[], "/h"),
            route("part", &[], &[], "/a-{b}"),
            route("name", &[], &[], "/{a b}/{}"),
            route("braces", &[], &[], "/{{a}}"),
            route("same", &[], &[], "/ok"),
            route("same2", &[], &[Method::GET], "/p/{a}"),
            route("same3", &[], &[Method::GET], "/p/{b}"),
        ]);
        let places: Vec<usize> = found.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 13], "{found:#?}");
        assert!(found.contains(&(11, "it serves the same host, path and method as route 0".to_owned())));
        assert!(found.contains(&(13, "it serves the same host, path and method as route 12".to_owned())), "{found:#?}");
        assert!(found.iter().any(|(_, text)| text.contains("\"~user\"")));
    }
}
