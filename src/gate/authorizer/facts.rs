//! The facts in a check request: the method, host, target, scheme and client address of the request that the proxy asks
//! about.

use std::net::IpAddr;

use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::Neighbour;
use rotogate_core::denial::Denial;
use rotogate_core::headers::{FORWARDED_HOST, Peer, named_scheme};
use rotogate_core::route::authority;

const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const TARGET: HeaderName = HeaderName::from_static("x-forwarded-uri");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The facts in a check request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) method: Method,
    pub(super) host: HeaderValue,
    pub(super) target: PathAndQuery,
    pub(super) is_secure: bool,
    pub(super) client: IpAddr,
}

/// Reads the facts from the headers in which this proxy states them, and ignores the headers of other proxies.
/// `is_ours` returns whether only the gate sets a header with this name.
pub(super) fn read(neighbour: Neighbour, question: &Parts, is_ours: impl Fn(&str) -> bool) -> Result<Facts, Denial> {
    let headers = &question.headers;
    // `Connection` must not name a fact, because the proxy, or another one between it and the upstream, removes the
    // headers that `Connection` names.
    if headers.get_all(CONNECTION).iter().any(|connection| names_a_fact(connection, &is_ours)) {
        return Err(Denial::BadFact(
            "the Connection header names a header that describes the original request or the caller",
        ));
    }
    match neighbour {
        Neighbour::Nginx | Neighbour::Traefik | Neighbour::Caddy | Neighbour::Haproxy => Ok(Facts {
            method: method(single(headers, &METHOD)?)?,
            host: host(single(headers, &FORWARDED_HOST)?)?,
            target: target(only(headers, &TARGET)?)?,
            is_secure: is_secure(single(headers, &PROTO)?)?,
            client: client(single(headers, &FOR)?)?,
        }),
        Neighbour::Envoy => Ok(Facts {
            method: question.method.clone(),
            host: host(authority::check(question)?.as_str())?,
            target: question.uri.path_and_query().cloned().ok_or(Denial::BadTarget)?,
            is_secure: is_secure(single(headers, &PROTO)?)?,
            client: client(last(headers, &FOR)?)?,
        }),
    }
}

impl Facts {
    /// Makes the head of the original request from the facts and these headers.
    pub(super) fn into_head(self, headers: HeaderMap) -> Result<Parts, Denial> {
        let Self { method, host, target, is_secure, client } = self;
        let (mut parts, ()) = Request::new(()).into_parts();
        let mut uri = Uri::default().into_parts();
        uri.path_and_query = Some(target);
        parts.uri = Uri::from_parts(uri).map_err(|_| Denial::BadTarget)?;
        parts.method = method;
        parts.headers = headers;
        parts.headers.insert(HOST, host);
        // Most proxies drop `Upgrade`. The gate restores it for a WebSocket handshake, so that the rule against
        // cross-site handshakes with a cookie applies.
        if parts.headers.contains_key(SEC_WEBSOCKET_KEY) {
            parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        // The client's address is one of the facts, so a forwarding header in the request must not change it.
        parts.extensions.insert(Peer::new(client, is_secure).without_forwarding());
        Ok(parts)
    }
}

/// Returns whether the header states a fact, or belongs to the check request itself, and is therefore not a header of
/// the original request.
pub(super) fn is_no_header_of_the_request(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "x-forwarded-method"
            | "x-forwarded-host"
            | "x-forwarded-uri"
            | "x-forwarded-proto"
            | "x-forwarded-for"
            | "host"
            | "content-length"
            | "transfer-encoding"
            | "connection"
            | "expect"
            | "te"
            | "trailer"
    )
}

fn names_a_fact(connection: &HeaderValue, is_ours: impl Fn(&str) -> bool) -> bool {
    let options = String::from_utf8_lossy(connection.as_bytes());
    options.split(',').map(|option| option.trim().to_ascii_lowercase()).any(|option| {
        matches!(&*option, "authorization" | "dpop" | "cookie" | "host")
            || option.starts_with("x-forwarded-")
            || is_ours(&option)
    })
}

/// Returns the value of a header that occurs exactly once and is not empty.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, Denial> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (Some(Ok(value)), None) if !value.is_empty() => Ok(value),
        _ => Err(Denial::BadFact(match name.as_str() {
            "x-forwarded-method" => "x-forwarded-method is missing, empty or repeated",
            "x-forwarded-host" => "x-forwarded-host is missing, empty or repeated",
            "x-forwarded-uri" => "x-forwarded-uri is missing, empty or repeated",
            "x-forwarded-proto" => "x-forwarded-proto is missing, empty or repeated",
            "x-forwarded-for" => "x-forwarded-for is missing, empty or repeated",
            _ => "a header that describes the original request is missing, empty or repeated",
        })),
    }
}

/// Returns the value of a header that occurs exactly once and is not a list.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, Denial> {
    match only(headers, name)? {
        list if list.contains(',') => Err(Denial::BadFact(match name.as_str() {
            "x-forwarded-method" => "x-forwarded-method is a list",
            "x-forwarded-host" => "x-forwarded-host is a list",
            "x-forwarded-proto" => "x-forwarded-proto is a list",
            "x-forwarded-for" => "x-forwarded-for is a list",
            _ => "a header that describes the original request contains a list",
        })),
        one => Ok(one),
    }
}

/// Returns the last element of a header's list, which the proxy itself appended.
fn last<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, Denial> {
    let list = only(headers, name)?;
    Ok(list.rsplit(',').next().unwrap_or(list).trim())
}

pub(super) fn method(text: &str) -> Result<Method, Denial> {
    Method::from_bytes(text.as_bytes()).map_err(|_| Denial::BadFact("x-forwarded-method is not a valid method"))
}

pub(super) fn host(text: &str) -> Result<HeaderValue, Denial> {
    if !authority::is_authority(text) {
        return Err(Denial::BadHost);
    }
    HeaderValue::from_str(text).map_err(|_| Denial::BadHost)
}

/// Parses a target in origin form. The target stays unchanged byte for byte, because the proxy forwards exactly the
/// target that the gate judges.
pub(super) fn target(text: &str) -> Result<PathAndQuery, Denial> {
    let target = PathAndQuery::try_from(text).map_err(|_| Denial::BadTarget)?;
    // The parser of `http` cuts off a fragment, but some upstreams do not.
    if !text.starts_with('/') || target.as_str() != text {
        return Err(Denial::BadTarget);
    }
    Ok(target)
}

pub(super) fn is_secure(scheme: &str) -> Result<bool, Denial> {
    let named = named_scheme(scheme).ok_or(Denial::BadFact("the scheme is neither http nor https"))?;
    Ok(named == "https")
}

pub(super) fn client(text: &str) -> Result<IpAddr, Denial> {
    text.parse().map_err(|_| Denial::BadFact("the client's address is not an IP address"))
}
