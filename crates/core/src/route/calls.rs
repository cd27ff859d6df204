//! Rules for calls in Kuzzle's protocol, such as `kuzzle = ["security:*"]` (requirement T22).

use std::fmt;

use http::Method;

use super::path::CanonicalPath;
use super::{Match, Route, RouteTable};

/// The calls to which a rule applies: `controller:action`, `controller:*`, or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallPattern {
    controller: Option<Box<str>>,
    action: Option<Box<str>>,
}

impl CallPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// A message with the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected \"controller:action\", \"controller:*\" or \"*\"";
        if text == "*" {
            return Ok(Self { controller: None, action: None });
        }
        let is_name =
            |name: &str| !name.is_empty() && !name.contains(['*', ':']) && !name.contains(char::is_whitespace);
        let (controller, action) = text.split_once(':').ok_or(EXPECTED)?;
        // Kuzzle has two names for this controller, and uses `ms` in paths.
        let controller = if controller == "memoryStorage" { "ms" } else { controller };
        let action = Some(action).filter(|action| *action != "*");
        if !is_name(controller) || !action.is_none_or(is_name) {
            return Err(EXPECTED.to_owned());
        }
        Ok(Self { controller: Some(controller.into()), action: action.map(Into::into) })
    }

    pub(super) const fn is_general(&self) -> bool {
        self.controller.is_none()
    }

    /// Returns how closely the pattern matches. 3 means the call itself, 2 its controller, 1 any call, and 0 no match.
    pub(super) fn names(&self, call: &str) -> u8 {
        let (controller, action) = call.split_once(':').unwrap_or((call, ""));
        match (self.controller.as_deref(), self.action.as_deref()) {
            (None, _) => 1,
            (Some(known), None) if known == controller => 2,
            (Some(known), Some(own)) if known == controller && own == action => 3,
            (Some(_), _) => 0,
        }
    }
}

impl fmt::Display for CallPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.controller, &self.action) {
            (None, _) => f.write_str("*"),
            (Some(controller), None) => write!(f, "{controller}:*"),
            (Some(controller), Some(action)) => write!(f, "{controller}:{action}"),
        }
    }
}

/// Finds a route that a call could bypass inside a request to a less strict route (the envelope).
///
/// A rule with the pattern `*` prevents the bypass, and so does a strict enough rule for a controller outside Kuzzle's
/// API. Calls of Kuzzle's own API also have HTTP paths, and the routes of those paths apply to the calls.
///
/// Returns the indices of the stricter route and of the envelope's route. `envelopes` lists the requests that can
/// contain arbitrary calls.
pub fn ungoverned(
    routes: &[Route],
    envelopes: &[(Method, String)],
    is_of_api: impl Fn(&str) -> bool,
) -> Option<(usize, usize)> {
    let table = RouteTable::build(routes.to_vec()).ok()?;
    let named = routes.iter().flat_map(|route| &route.hosts).map(|host| Some(host.as_str()));
    for host in named.chain([None]).filter(|host| table.general_rule(*host).is_none()) {
        for (method, path) in envelopes {
            let path = CanonicalPath::parse(path).ok()?;
            let Match::Found(envelope) = table.find(host, method, &path) else { continue };
            let serves = |route: &Route| match host {
                None => route.hosts.is_empty(),
                Some(host) => route.hosts.iter().any(|own| own == host),
            };
            // Ignore the upgrade setting, because the dialect itself handles upgrades.
            let is_stricter = |route: &Route| {
                let policy = super::RoutePolicy {
                    upgrade: envelope.policy.upgrade,
                    // Rate limits restrict how many requests pass, not which ones.
                    rate: envelope.policy.rate.clone(),
                    ..route.policy.clone()
                };
                policy.is_stricter_than(&envelope.policy)
            };
            let says = |route: &Route| {
                let is_as_strict = |rule: &&Route| serves(rule) && !route.policy.is_stricter_than(&rule.policy);
                let is_of_other =
                    |calls: &CallPattern| calls.controller.as_deref().is_none_or(|named| !is_of_api(named));
                routes.iter().filter(is_as_strict).any(|rule| rule.kuzzle.iter().any(is_of_other))
            };
            // A rule for calls has an empty path.
            let is_bypassed =
                |route: &Route| !route.path.is_empty() && serves(route) && is_stricter(route) && !says(route);
            if let Some(strict) = routes.iter().position(is_bypassed) {
                return Some((strict, routes.iter().position(|route| *route == **envelope)?));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::RoutePolicy;
    use crate::session::Scope;

    fn is_of_api(controller: &str) -> bool {
        ["security", "realtime"].contains(&controller)
    }

    #[test]
    fn t22_t42_a_stricter_route_beside_the_envelopes_needs_a_rule() {
        let envelopes = [(Method::POST, "/_query".to_owned()), (Method::GET, "/".to_owned())];
        let admin = RoutePolicy { scopes: Scope::parse("admin").unwrap(), ..RoutePolicy::default() };
        let mut routes =
            vec![Route::new("/users/{*rest}", admin.clone()), Route::new("/{*rest}", RoutePolicy::default())];
        assert_eq!(ungoverned(&routes, &envelopes, is_of_api), Some((0, 1)));
        assert_eq!(ungoverned(&routes, &[], is_of_api), None, "no envelopes");
        routes.push(Route::new("/_query", admin.clone()));
        assert_eq!(ungoverned(&routes, &envelopes, is_of_api), Some((0, 1)), "a WebSocket is still open");
        routes.push(Route::new("/", admin));
        assert_eq!(ungoverned(&routes, &envelopes, is_of_api), None, "the route for the envelopes is as strict");
        routes.truncate(2);
        let calls = |text: &str| vec![CallPattern::parse(text).unwrap()];
        for own in ["security:*", "realtime:subscribe"] {
            routes[0].kuzzle = calls(own);
            assert_eq!(
                ungoverned(&routes, &envelopes, is_of_api),
                Some((0, 1)),
                "{own} does not cover the calls of a plugin"
            );
        }
        routes[0].kuzzle.extend(calls("some-plugin:hello"));
        assert_eq!(ungoverned(&routes, &envelopes, is_of_api), None, "a rule covers the calls of the plugin");
        routes[0].kuzzle = calls("some-plugin:*");
        assert_eq!(ungoverned(&routes, &envelopes, is_of_api), None, "the operator must know the paths of the plugin");
        routes[0].kuzzle.clear();
        routes.push(Route { kuzzle: calls("some-plugin:*"), ..Route::new("", RoutePolicy::default()) });
        assert_eq!(
            ungoverned(&routes, &envelopes, is_of_api),
            Some((0, 1)),
            "a less strict rule does not govern this route's calls"
        );
        routes[2].policy = routes[0].policy.clone();
        assert_eq!(ungoverned(&routes, &envelopes, is_of_api), None, "it is as strict");
        routes.truncate(2);
        for place in [0, 1] {
            routes[place].kuzzle = calls("*");
            assert_eq!(ungoverned(&routes, &envelopes, is_of_api), None, "all calls have a rule");
            routes[place].kuzzle.clear();
        }
        let upgrade = RoutePolicy { upgrade: true, ..RoutePolicy::default() };
        let tunnels = [Route::new("/{*rest}", upgrade), Route::new("/api/{*rest}", RoutePolicy::default())];
        assert_eq!(ungoverned(&tunnels, &envelopes, is_of_api), None);
    }

    #[test]
    fn t22_the_closest_name_of_a_call_counts() {
        let names = |pattern: &str, call| CallPattern::parse(pattern).unwrap().names(call);
        assert_eq!(names("security:createUser", "security:createUser"), 3);
        assert_eq!(names("security:createUser", "security:createRole"), 0);
        assert_eq!(names("security:*", "security:createRole"), 2);
        assert_eq!(names("security:*", "securityx:createRole"), 0);
        assert_eq!(names("*", "anything:at:all"), 1);
        assert_eq!(names("a:b", "a:b:c"), 0);
        assert_eq!(names("memoryStorage:*", "ms:get"), 2, "both names of the controller");
        for text in ["security:createUser", "security:*", "*"] {
            assert_eq!(CallPattern::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", ":", "a", "a:", ":b", "*:*", "*:b", "a:b*", "a:b:c", "a b:c"] {
            assert!(CallPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
