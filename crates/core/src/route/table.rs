//! The table in which the route of a request is looked up. The precedence is fixed and does not depend on the order in
//! the configuration:
//!
//! 1. The **host** is compared without regard to letter case. If any route names the host, only such routes are
//!    considered. Otherwise, only routes without a host are considered.
//! 2. The most specific **path** pattern applies. Plain segments take precedence over `{name}`, and `{name}` over
//!    `{*rest}`.
//! 3. The **method** selects among the routes with this pattern. If none of them serves the method, the response is
//!    405, even if a less specific pattern matches. Thus a request with another method cannot evade a strict route.
//!
//! A path that lax servers read as a path of a stricter route is rejected (requirement T20, see [`loose`]).

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::Method;

use super::authority::{host_of, is_host};
use super::calls::CallPattern;
use super::loose::{self, FoldedTree, PathReading};
use super::methods::{self, is_default};
use super::path::CanonicalPath;
use super::pattern::{self, Segment, Tree};
use super::{Route, RoutePolicy};
use crate::claim::condition::Conditions;

/// All routes, prepared for look-ups.
#[derive(Debug)]
pub struct RouteTable {
    by_host: HashMap<Box<str>, Site, foldhash::fast::RandomState>,
    other_hosts: Site,
    escapes: bool,
}

/// The result of a look-up.
///
/// ```
/// use rotogate_core::route::Match;
///
/// fn refusal(found: &Match<'_>) -> Option<u16> {
///     match found {
///         Match::Found(_) => None,
///         Match::MethodNotAllowed(_) => Some(405),
///         _ => Some(404),
///     }
/// }
/// assert_eq!(refusal(&Match::None), Some(404));
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Match<'t> {
    /// The request matches this route.
    Found(&'t Arc<Route>),
    /// Lax servers may read the path as a path of a stricter route. The response is 404.
    Ambiguous(&'t Arc<Route>),
    /// The path has routes only for these methods. The response is 405 with `Allow`.
    MethodNotAllowed(&'t [Method]),
    /// No route matches. The response is 404.
    None,
}

/// An invalid route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("route {name:?}: {problem}")]
pub struct RouteError {
    /// The index of the route.
    pub route: usize,
    /// The path of the route, or the id of its rule.
    pub name: String,
    /// The problem.
    pub problem: RouteProblem,
}

/// The problem of a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteProblem {
    /// A host has a port or a wildcard, or is not a host name.
    #[error("{0:?} is not a host name, or has a port")]
    Host(String),
    /// The pattern cannot be parsed, or cannot match any canonical path.
    #[error("the path pattern {pattern:?} is wrong: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with the pattern, and how to correct it.
        reason: String,
    },
    /// Another route serves the same requests.
    #[error("it serves the same host, path and method as another route, {name:?}")]
    SameAs {
        /// The index of the other route.
        other: usize,
        /// The path of the other route.
        name: String,
    },
    /// A condition names a parameter that the path does not have.
    #[error("a condition names the parameter {0:?}, which the route's path does not have")]
    Param(String),
    /// Another route has a rule for the same calls.
    #[error("another rule, {name:?}, already governs {calls} on the same host")]
    SameCalls {
        /// The calls.
        calls: String,
        /// The index of the other route.
        other: usize,
        /// The id of the other route.
        name: String,
    },
}

impl RouteError {
    fn new(routes: &[Arc<Route>], route: usize, problem: RouteProblem) -> Self {
        Self { route, name: named(routes, route), problem }
    }
}

fn named(routes: &[Arc<Route>], place: usize) -> String {
    let name = |route: &Arc<Route>| if route.path.is_empty() { route.id.to_string() } else { route.path.clone() };
    routes.get(place).map(name).unwrap_or_default()
}

#[derive(Debug, Default)]
struct Site {
    paths: Tree<usize>,
    entries: Vec<PatternRoutes>,
    /// `None` if no route is stricter than another.
    folded: Option<FoldedTree>,
    rules: Vec<(CallPattern, Arc<Route>)>,
}

#[derive(Debug, Default)]
struct PatternRoutes {
    listed: Vec<(Method, Arc<Route>)>,
    unlisted: Option<Arc<Route>>,
    allow: Vec<Method>,
    is_one_path: bool,
}

#[derive(Default)]
struct Draft {
    paths: Tree<usize>,
    folded: FoldedTree,
    groups: Vec<Group>,
    rules: Vec<(CallPattern, usize)>,
}

struct Group {
    routes: Vec<usize>,
    is_one_path: bool,
}

/// Returns a parameter of the conditions that is missing in this pattern.
fn missing_param<'c>(conditions: &'c Conditions, pattern: &str) -> Option<&'c str> {
    let route = Route::new(pattern, RoutePolicy::default());
    conditions.params().find(|name| !route.params(pattern).any(|(known, _)| known == *name))
}

fn path_of_all(route: &Route) -> &str {
    if route.kuzzle.is_empty() && route.calls.is_empty() { &route.path } else { "" }
}

impl RouteTable {
    /// Builds the table.
    ///
    /// # Errors
    /// All errors of all routes.
    pub fn build(routes: Vec<Route>) -> Result<Self, Vec<RouteError>> {
        let mut errors = Vec::new();
        let mut drafts: BTreeMap<Option<String>, Draft> = BTreeMap::new();
        let routes: Vec<Arc<Route>> = routes.into_iter().map(Arc::new).collect();
        for (index, route) in routes.iter().enumerate() {
            let is_path = !route.path.is_empty() || (route.kuzzle.is_empty() && route.calls.is_empty());
            let pattern = match is_path.then(|| pattern::parse(&route.path)).transpose() {
                Ok(pattern) => pattern,
                Err(reason) => {
                    let problem = RouteProblem::Pattern { pattern: route.path.clone(), reason };
                    errors.push(RouteError::new(&routes, index, problem));
                    continue;
                }
            };
            let missing = route.policy.conditions.as_ref().and_then(|all| missing_param(all, path_of_all(route)));
            if let Some(name) = missing {
                errors.push(RouteError::new(&routes, index, RouteProblem::Param(name.to_owned())));
            }
            let mut hosts = Vec::new();
            for host in &route.hosts {
                if is_host(host) {
                    hosts.push(Some(normal_host(host)));
                } else {
                    errors.push(RouteError::new(&routes, index, RouteProblem::Host(host.clone())));
                }
            }
            if route.hosts.is_empty() {
                hosts.push(None);
            }
            for host in hosts {
                let draft = drafts.entry(host).or_default();
                if let Some(pattern) = &pattern {
                    draft.add(pattern, index);
                }
                for calls in &route.kuzzle {
                    if let Some(other) = draft.add_rule(calls, index) {
                        let name = named(&routes, other);
                        let problem = RouteProblem::SameCalls { calls: calls.to_string(), other, name };
                        errors.push(RouteError::new(&routes, index, problem));
                    }
                }
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
        let found = site.paths.find(path.as_str());
        let Some((&place, entry)) = found.here.and_then(|place| Some((place, site.entries.get(*place)?))) else {
            return Match::None;
        };
        let found = match entry.find(method) {
            Match::Found(route) if site.folded.is_some() => {
                // Most paths have only one possible reading.
                if (found.beside.is_none() && !path.has_loose_form()) || entry.is_exempt(route) {
                    return Match::Found(route);
                }
                (route, found.beside.copied())
            }
            decided => return decided,
        };
        match site.stricter_reading(method, path, place, found) {
            Some(_) => Match::Ambiguous(found.0),
            None => Match::Found(found.0),
        }
    }

    /// Returns all routes that match the path and the method, for explanations.
    pub fn matching(&self, host: Option<&str>, method: &Method, path: &CanonicalPath<'_>) -> Vec<&Arc<Route>> {
        let site = host.and_then(|host| self.site(host)).unwrap_or(&self.other_hosts);
        let places = RefCell::new(Vec::new());
        site.paths.any(path.as_str(), &|place| {
            places.borrow_mut().push(*place);
            false
        });
        let found = |place: usize| match site.entries.get(place)?.find(method) {
            Match::Found(route) | Match::Ambiguous(route) => Some(route),
            Match::MethodNotAllowed(_) | Match::None => None,
        };
        places.into_inner().into_iter().filter_map(found).collect()
    }

    /// Returns the stricter route that a lax server could select for this path. Ignores exemptions.
    pub fn stricter_reading(&self, host: Option<&str>, method: &Method, path: &str) -> Option<&Arc<Route>> {
        let path = CanonicalPath::parse(path).ok()?;
        let site = host.and_then(|host| self.site(host)).unwrap_or(&self.other_hosts);
        let found = site.paths.find(path.as_str());
        let place = *found.here?;
        match site.entries.get(place)?.find(method) {
            Match::Found(route) | Match::Ambiguous(route) => {
                site.stricter_reading(method, &path, place, (route, found.beside.copied()))
            }
            Match::MethodNotAllowed(_) | Match::None => None,
        }
    }

    /// The rule that names a call, or else the rule that names its controller (requirement T22).
    pub fn named_rule(&self, host: Option<&str>, call: &str) -> Option<&Arc<Route>> {
        let named = self.rules(host).iter().map(|(calls, route)| (calls.names(call), route));
        named.filter(|(closeness, _)| *closeness > 1).max_by_key(|(closeness, _)| *closeness).map(|(_, route)| route)
    }

    /// The rule with the pattern `*`, for calls without a path to which no other rule applies.
    pub fn general_rule(&self, host: Option<&str>) -> Option<&Arc<Route>> {
        self.rules(host).iter().find(|(calls, _)| calls.is_general()).map(|(_, route)| route)
    }

    fn rules(&self, host: Option<&str>) -> &[(CallPattern, Arc<Route>)] {
        &host.and_then(|host| self.site(host)).unwrap_or(&self.other_hosts).rules
    }

    /// Whether any pattern has a percent escape.
    pub fn has_escapes(&self) -> bool {
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

impl Site {
    fn stricter_reading(
        &self,
        method: &Method,
        path: &CanonicalPath<'_>,
        place: usize,
        (route, beside): (&Arc<Route>, Option<usize>),
    ) -> Option<&Arc<Route>> {
        let stricter = |other: &usize| {
            let entry = self.entries.get(*other).filter(|_| *other != place)?;
            // Skip patterns that also match the path itself, because the usual precedence applies to them.
            entry.stricter(method, route).filter(|_| !self.paths.any(path.as_str(), &|known| known == other))
        };
        let exact = |path: &str| {
            let found = self.paths.find(path);
            found.here.into_iter().chain(found.beside).find_map(stricter)
        };
        let folded = |path: &str| {
            let found = self.folded.as_ref()?.find(path);
            // The lower-case path may also match a pattern literally.
            found.here.into_iter().chain(found.beside).flatten().find_map(stricter).or_else(|| exact(path))
        };
        beside.as_ref().and_then(stricter).or_else(|| {
            let readings = if path.has_loose_form() { loose::readings(path.as_str()) } else { Vec::new() };
            readings.iter().find_map(|reading| match reading {
                PathReading::Exact(path) => exact(path),
                PathReading::Folded(path) => folded(path),
            })
        })
    }
}

impl Draft {
    fn add(&mut self, pattern: &[Segment<'_>], route: usize) {
        let next = self.groups.len();
        let place = *self.paths.place(pattern).get_or_insert(next);
        if place == next {
            let is_one_path = pattern.iter().all(|segment| matches!(segment, Segment::Plain(_)));
            self.groups.push(Group { routes: Vec::new(), is_one_path });
            loose::insert(&mut self.folded, pattern, place);
        }
        if let Some(group) = self.groups.get_mut(place) {
            group.routes.push(route);
        }
    }

    fn add_rule(&mut self, calls: &CallPattern, route: usize) -> Option<usize> {
        let other = self.rules.iter().find(|(known, _)| known == calls).map(|(_, other)| *other);
        self.rules.push((calls.clone(), route));
        other
    }

    fn build(self, routes: &[Arc<Route>], errors: &mut Vec<RouteError>) -> Site {
        let mut policies: Vec<&super::RoutePolicy> = Vec::new();
        for route in self.groups.iter().flat_map(|group| &group.routes).filter_map(|&index| routes.get(index)) {
            if !policies.contains(&&route.policy) {
                policies.push(&route.policy);
            }
        }
        let differ = policies.iter().any(|one| policies.iter().any(|other| one.is_stricter_than(other)));
        let entries = self.groups.iter().map(|group| PatternRoutes::build(group, routes, errors)).collect();
        let rules = self.rules.into_iter().filter_map(|(calls, index)| Some((calls, Arc::clone(routes.get(index)?))));
        Site { paths: self.paths, entries, folded: differ.then_some(self.folded), rules: rules.collect() }
    }
}

impl PatternRoutes {
    fn build(group: &Group, routes: &[Arc<Route>], errors: &mut Vec<RouteError>) -> Self {
        let mut entry = Self { is_one_path: group.is_one_path, ..Self::default() };
        let mut owner: HashMap<Option<&Method>, usize> = HashMap::new();
        for (index, route) in group.routes.iter().filter_map(|&i| Some((i, routes.get(i)?))) {
            let methods = route.methods.iter().map(Some).chain(route.methods.is_empty().then_some(None));
            for method in methods {
                match owner.insert(method, index) {
                    Some(other) if other != index => {
                        let problem = RouteProblem::SameAs { other, name: named(routes, other) };
                        errors.push(RouteError::new(routes, index, problem));
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
            entry.allow.extend(methods::defaults());
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
            Some(route) if is_default(method) => Match::Found(route),
            Some(_) | None => Match::MethodNotAllowed(&self.allow),
        }
    }

    /// Returns whether the operator configured this exact path, or declared that the upstream compares paths exactly.
    fn is_exempt(&self, route: &Route) -> bool {
        self.is_one_path || route.policy.compares_exactly
    }

    /// If no route serves the method, all routes are checked. Otherwise another spelling of the path could pass.
    fn stricter(&self, method: &Method, than: &Route) -> Option<&Arc<Route>> {
        let is_stricter = |route: &&Arc<Route>| route.policy.is_stricter_than(&than.policy);
        match self.find(method) {
            Match::Found(route) | Match::Ambiguous(route) => Some(route).filter(is_stricter),
            Match::MethodNotAllowed(_) => self.routes().find(is_stricter),
            Match::None => None,
        }
    }

    fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.listed.iter().map(|(_, route)| route).chain(&self.unlisted)
    }
}

fn normal_host(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
