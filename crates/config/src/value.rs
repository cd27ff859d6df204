//! Functions that read URLs, hosts, paths and headers from the configuration.

use std::net::{IpAddr, Ipv4Addr};

use http::uri::{Scheme, Uri};
use http::{HeaderName, Method};
use ipnet::IpNet;

use super::print::Words;
use rotogate_core::http_client::{Allowed, FetchTarget};
use rotogate_core::route::{Hosts, check_pattern};
use rotogate_core::token::verify::host_of;
pub use rotogate_kit::config::value::*;
use rotogate_kit::config::{Value, printable};
use rotogate_proxy::UpstreamUrl;

/// Reads a word of `T`.
pub fn word_of<T: Words>(value: &Value) -> Result<T, String> {
    word(T::WORDS, &[])(value)
}

/// Reads an address or a network. A network that contains all addresses is rejected.
pub fn network(value: &Value) -> Result<IpNet, String> {
    let net = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    match parsed(value, "an address or network such as \"10.0.0.7\" or \"10.0.0.0/8\"", net)? {
        net if net.prefix_len() == 0 => {
            Err("would let every caller claim any client address; list the networks of your proxies".to_owned())
        }
        net => Ok(net.trunc()),
    }
}

fn http_url(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let scheme_fits = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
    let authority = uri.authority()?;
    let plain = !authority.as_str().contains('@') && !authority.host().is_empty() && uri.query().is_none();
    (scheme_fits && plain && !text.contains('#') && port_is_sound(&uri)).then_some(uri)
}

/// The crate `http` accepts `host:` and `host:99999` as authorities without a port.
fn port_is_sound(uri: &Uri) -> bool {
    let Some(authority) = uri.authority() else { return false };
    let rest = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    rest.is_empty() || authority.port_u16().is_some_and(|port| port != 0)
}

/// Whether this URL is unencrypted and not loopback.
pub fn is_in_clear(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    let is_here = host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    url.scheme() == Some(&Scheme::HTTP) && !is_here
}

/// Reads a URL with only a scheme and an authority.
pub fn origin_url(value: &Value) -> Result<Uri, String> {
    let origin = |text: &str| http_url(text).filter(|uri| uri.path() == "/");
    parsed(value, "http://host[:port] or https://host[:port] without a path", origin)
}

/// Reads an issuer URL without query and fragment (RFC 8414 §2). Issuers are compared byte for byte, so the URL is not
/// normalized.
pub fn issuer_url(value: &Value) -> Result<String, String> {
    let url = matching(value, "an http or https URL without user, query and fragment", |s| http_url(s).is_some())?;
    no_issuer(&url).map_or(Ok(url), Err)
}

fn no_issuer(url: &str) -> Option<String> {
    if let Some((issuer, _)) = url.split_once("/.well-known/") {
        return Some(format!("is the URL of the issuer's metadata; write the issuer, \"{issuer}\""));
    }
    let (host, path) = url.split_once("://")?.1.split_once('/').unwrap_or((host_of(url), ""));
    match (host, path.split('/').next()?) {
        ("login.microsoftonline.com", word @ ("common" | "organizations" | "consumers")) => Some(format!(
            "no token has this issuer; write an entry for each tenant, with the tenant's id instead of {word}"
        )),
        (host, "") if host.ends_with(".auth0.com") && !url.ends_with('/') => {
            Some(format!("no token has this issuer, because Auth0's issuers end with a slash; write \"{url}/\""))
        }
        _ => None,
    }
}

/// Reads a URL to which the gate may send requests.
pub fn asked_url(value: &Value) -> Result<String, String> {
    let url = text(value)?;
    match FetchTarget::parse(&url, Allowed::by_operator()) {
        Ok(_) => Ok(url),
        Err(error) => Err(format!("{error}, found {}", value.describe())),
    }
}

/// Reads the URL of an endpoint for browsers, which must not have a fragment (RFC 6749 §3.1).
pub fn endpoint_url(value: &Value) -> Result<String, String> {
    let fits = |url: &str| !url.contains('#') && http_url(url.split('?').next().unwrap_or_default()).is_some();
    matching(value, "an http or https URL without a user name or a fragment", fits)
}

/// Reads an origin in the form that browsers send: lower case, without path and default port.
pub fn cors_origin(value: &Value) -> Result<String, String> {
    let (Value::String(found) | Value::Env(found)) = value else {
        return unexpected("an origin such as \"https://app.example.com\"", value);
    };
    if found == "*" || found == "null" {
        return Err(format!("{} allows every website; list the origins", value.describe()));
    }
    let canonical = http_url(found).filter(|uri| uri.path() == "/").and_then(|uri| {
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        let port = authority.port_u16().filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{scheme}://{}{port}", authority.host().to_ascii_lowercase()))
    });
    match canonical {
        Some(canonical) if canonical == *found => Ok(canonical),
        Some(canonical) => Err(format!("a browser sends this origin as \"{canonical}\"; write it in this form")),
        None => unexpected("an origin such as \"https://app.example.com\"", value),
    }
}

/// Reads the URL of an upstream, or `echo:`.
///
/// # Errors
/// A message that states what is expected.
pub fn upstream_url(value: &Value) -> Result<UpstreamUrl, String> {
    const EXPECTED: &str = "\"echo:\", or http://, https:// or h2c:// with host[:port], without a path";
    let (Value::String(found) | Value::Env(found)) = value else { return unexpected(EXPECTED, value) };
    if found == "echo:" {
        return Ok(UpstreamUrl::Echo);
    }
    if found.starts_with("unix:") {
        return Err(format!("{} comes in a later version; expected {EXPECTED}", value.describe()));
    }
    // `h2c` URLs have the same form as `http` URLs.
    let as_http = found.strip_prefix("h2c://").map(|rest| format!("http://{rest}"));
    let uri = http_url(as_http.as_deref().unwrap_or(found));
    let Some(uri) = uri.filter(|uri| uri.path() == "/" && !found.ends_with('/')) else {
        return unexpected(EXPECTED, value);
    };
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).to_ascii_lowercase();
    // `127.1` and `0x7f000001` also reach loopback, so reject these forms.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let numeric = !last.is_empty() && (last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x"));
    if numeric && !host.contains(':') && host.parse::<Ipv4Addr>().is_err() {
        return unexpected("a full IPv4 address with four decimal numbers", value);
    }
    found.parse().or_else(|_| unexpected(EXPECTED, value))
}

/// Reads a host name in lower case, without port and wildcards.
pub fn host(value: &Value) -> Result<String, String> {
    let fits = |s: &str| {
        let bare = s.strip_prefix('[').and_then(|s| s.strip_suffix(']'));
        let is_v6 = bare.is_some_and(|s| s.parse::<std::net::Ipv6Addr>().is_ok());
        let is_known = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        is_v6 || ((1..=253).contains(&s.len()) && s.bytes().all(is_known))
    };
    matching(value, "a host name without a port or wildcards", fits).map(|host| host.to_ascii_lowercase())
}

/// Reads a host that the gate serves. A wildcard is allowed.
pub fn served_host(value: &Value) -> Result<String, String> {
    let host = text(value)?;
    match Hosts::default().add(&host) {
        Ok(()) => Ok(host),
        Err(_) => unexpected("a host name without a port, such as \"example.com\", \"*.example.com\" or \"*\"", value),
    }
}

/// Reads the name of a response header that pages may read (Fetch §3.3.2).
pub fn exposed_header(value: &Value) -> Result<HeaderName, String> {
    let name = text(value)?;
    if name == "*" {
        return Err("\"*\" has no effect for requests with credentials; list the names of the headers".to_owned());
    }
    name.parse().or_else(|_| unexpected("the name of a header, such as \"x-request-id\"", value))
}

/// Reads a cookie name (RFC 6265 §4.1.1).
pub fn cookie_name(value: &Value) -> Result<String, String> {
    let is_known = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    fitting(value, "the name of a cookie", |name| name.bytes().all(is_known))
}

/// Reads an HTTP method.
///
/// # Errors
/// A message that states what is expected.
pub fn method(value: &Value) -> Result<Method, String> {
    let name = text(value)?;
    match Method::from_bytes(name.as_bytes()) {
        Ok(Method::CONNECT | Method::TRACE) => Err(format!("the gate never forwards {name} requests")),
        Ok(_) if name.bytes().any(|b| b.is_ascii_lowercase()) => {
            Err(format!("methods are case-sensitive; did you mean {}?", printable(&name.to_ascii_uppercase())))
        }
        Ok(method) => Ok(method),
        Err(_) => unexpected("a method such as \"GET\"", value),
    }
}

/// Reads the path of a route or an endpoint.
pub fn pattern(value: &Value) -> Result<String, String> {
    let path = text(value)?;
    if !path.starts_with('/') || !path.is_ascii() || path.contains(['?', '#', ' ', '\\']) {
        return unexpected("a path that begins with /", value);
    }
    match check_pattern(&path) {
        Ok(()) => Ok(path),
        Err(why) => Err(format!("{} is not a valid path pattern: {why}", value.describe())),
    }
}

/// Reads the name of an identity header, or an empty string for `None`.
pub fn identity_header(value: &Value) -> Result<Option<HeaderName>, String> {
    match value {
        Value::String(s) | Value::Env(s) if s.is_empty() => Ok(None),
        Value::String(s) | Value::Env(s) => header(s).map(Some),
        other => unexpected("a header name, or \"\" for none", other),
    }
}

/// Parses the name of a header that the gate may set.
pub fn header(name: &str) -> Result<HeaderName, String> {
    const TAKEN: [&str; 20] = [
        "accept-encoding",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let shown = printable(name);
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        return Err(format!("expected a header name such as \"x-auth-subject\", found \"{shown}\""));
    };
    if TAKEN.contains(&header.as_str()) || header.as_str().starts_with("x-forwarded-") {
        return Err(format!("\"{shown}\" has a standard meaning; choose another name, such as \"x-auth-subject\""));
    }
    if name.contains(['_', '.']) {
        return Err(format!(
            "many servers drop or rename a header such as \"{shown}\"; write it with - instead of _ and ."
        ));
    }
    Ok(header)
}

#[cfg(test)]
mod tests;
