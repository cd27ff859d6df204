//! Which methods a route serves that lists none (requirement T10).

use http::Method;

/// The methods of HTTP itself that are forwarded.
pub const DEFAULT_METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// The others of IANA's registry, WebDAV's among them. It has three more: `CONNECT` and `TRACE` are never forwarded, and
/// `PRI` is none that a client sends. What is not registered (`TRACK`, say) is served where a route lists it.
pub const REGISTERED_METHODS: [&str; 30] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PROPFIND",
    "PROPPATCH",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// Does a route serve the method that lists none?
pub(super) fn is_default(method: &Method) -> bool {
    DEFAULT_METHODS.contains(method) || REGISTERED_METHODS.contains(&method.as_str())
}

/// All that such a route serves.
pub(super) fn defaults() -> impl Iterator<Item = Method> {
    let registered = REGISTERED_METHODS.iter().filter_map(|name| Method::from_bytes(name.as_bytes()).ok());
    DEFAULT_METHODS.into_iter().chain(registered)
}
