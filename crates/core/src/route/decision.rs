//! The question of a route to a decision point: `decision` of a route.

use http::Method;

use super::{Route, RoutePolicy};
use crate::claim::ClaimPath;
use crate::mcp::Call;

/// The method that stands for an answer of an older client (MCP).
const RESPONSE: &str = "response";

/// The question of a route to a decision point.
///
/// ```
/// use std::sync::Arc;
/// use rotogate::decision::RouteDecision;
/// use rotogate::route::{Route, RoutePolicy};
///
/// let read = RouteDecision { action: Some("read".into()), ..RouteDecision::new("pdp", "order", "{id}") };
/// let policy = RoutePolicy { decision: Some(Arc::new(read)), ..RoutePolicy::default() };
/// let route = Route::new("/orders/{id}", policy);
/// # let _ = route;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteDecision {
    /// The name of the decision point.
    pub point: Box<str>,
    /// The action. `None`: the method of the request, or that of its call (MCP).
    pub action: Option<Box<str>>,
    /// The type of the resource.
    pub resource_type: Box<str>,
    /// The id of the resource, with parameters of the path in braces. A rule for calls (MCP) has `{method}` and `{name}`.
    pub resource_id: Box<str>,
    /// The claims that the decision point gets, as properties of the subject.
    pub claims: Vec<ClaimPath>,
}

impl RouteDecision {
    /// Asks about a resource of this type and id.
    pub fn new(point: &str, resource_type: &str, resource_id: &str) -> Self {
        Self {
            point: point.into(),
            action: None,
            resource_type: resource_type.into(),
            resource_id: resource_id.into(),
            claims: Vec::new(),
        }
    }

    /// A parameter of `resource_id` that the requests of a route do not have.
    pub(super) fn missing_param(&self, pattern: &str, is_of_calls: bool) -> Option<&str> {
        let route = Route::new(pattern, RoutePolicy::default());
        let call = Call { method: None, name: None };
        let get = Method::GET;
        let about =
            if is_of_calls { DecisionSubject::Call(&call) } else { DecisionSubject::Request(&get, Some(pattern)) };
        pieces(&self.resource_id).find_map(|piece| match piece {
            Piece::Param(name) if about.param(&route, name).is_none() => Some(name),
            Piece::Param(_) | Piece::Text(_) => None,
        })
    }

    /// The id of the resource, whose parameters have these values. `None` if one is missing.
    pub(crate) fn id_of<'v>(&self, param: impl Fn(&str) -> Option<&'v str>) -> Option<String> {
        let mut id = String::new();
        for piece in pieces(&self.resource_id) {
            id.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Param(name) => param(name)?,
            });
        }
        Some(id)
    }
}

/// The subject of a question to a decision point.
#[derive(Clone, Copy)]
pub enum DecisionSubject<'a> {
    /// A request with this method and canonical path.
    Request(&'a Method, Option<&'a str>),
    /// A call (MCP).
    Call(&'a Call<'a>),
}

impl<'a> DecisionSubject<'a> {
    /// The HTTP method, and the action for a rule that names no action.
    pub(crate) fn method_and_action(self) -> (&'a str, &'a str) {
        match self {
            Self::Request(method, _) => (method.as_str(), method.as_str()),
            Self::Call(call) => ("POST", call.method.as_deref().unwrap_or(RESPONSE)),
        }
    }

    /// A parameter of the path of a request; `method` and `name` of a call.
    pub(crate) fn param(self, route: &'a Route, name: &str) -> Option<&'a str> {
        match self {
            Self::Request(_, path) => route.params(path?).find(|(known, _)| *known == name).map(|(_, value)| value),
            Self::Call(call) => match name {
                "method" => Some(call.method.as_deref().unwrap_or(RESPONSE)),
                // Not every call has a name.
                "name" => Some(call.name.as_deref().unwrap_or_default()),
                _ => None,
            },
        }
    }
}

/// A piece of a resource's id.
enum Piece<'a> {
    Text(&'a str),
    Param(&'a str),
}

/// Braces that do not enclose a name are text.
fn pieces(id: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = id;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let named = rest.strip_prefix('{').and_then(|after| after.split_once('}'));
        if let Some((name, after)) = named {
            rest = after;
            return Some(Piece::Param(name));
        }
        let end = rest.char_indices().skip(1).find(|(_, char)| *char == '{').map_or(rest.len(), |(at, _)| at);
        let (text, after) = rest.split_at(end);
        rest = after;
        Some(Piece::Text(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k23_the_id_of_a_resource_has_parameters_that_the_path_has() {
        let order = |id: &str| RouteDecision::new("pdp", "order", id);
        let missing = |id: &str, pattern: &str| order(id).missing_param(pattern, false).map(str::to_owned);
        assert_eq!(missing("{id}", "/orders/{id}"), None);
        assert_eq!(missing("orders/{id}/{rest}", "/orders/{id}/{*rest}"), None);
        assert_eq!(missing("fixed", "/orders"), None);
        assert_eq!(missing("a{", "/orders"), None);
        assert_eq!(missing("{no}", "/orders/{id}").as_deref(), Some("no"));
        assert_eq!(missing("{id}", "").as_deref(), Some("id"));
        for (id, missing) in [("{method} {name}", None), ("{id}", Some("id"))] {
            assert_eq!(order(id).missing_param("", true), missing, "of a rule for calls");
        }
        let route = Route::new("/orders/{id}/{*rest}", RoutePolicy::default());
        let about = |path| DecisionSubject::Request(&Method::GET, path);
        let id = |text: &str| order(text).id_of(|name| about(Some("/orders/7%20a/x/y")).param(&route, name));
        assert_eq!(id("o:{id}/{rest}!").as_deref(), Some("o:7%20a/x/y!"));
        assert_eq!(id("a{"), Some("a{".to_owned()));
        assert_eq!(order("{id}").id_of(|name| about(None).param(&route, name)), None);
    }
}
