//! The methods of a route without a list of methods (requirement T10).

use http::Method;

/// The common HTTP methods.
pub const DEFAULT_METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// The other methods of IANA's registry, including WebDAV.
///
/// `CONNECT` and `TRACE` are never forwarded, and clients do not send `PRI`. A route must list any unregistered method.
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

pub(super) fn is_default(method: &Method) -> bool {
    DEFAULT_METHODS.contains(method) || REGISTERED_METHODS.contains(&method.as_str())
}

pub(super) fn defaults() -> impl Iterator<Item = Method> {
    let registered = REGISTERED_METHODS.iter().filter_map(|name| Method::from_bytes(name.as_bytes()).ok());
    DEFAULT_METHODS.into_iter().chain(registered)
}
