//! Readers of single values. Each returns the value, or a message that says what was expected.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use http::uri::{Scheme, Uri};
use http::{HeaderName, Method};
use ipnet::IpNet;

use super::print::Words;
use super::raw::{Value, nearest, printable};
use rotogate_core::limit::Rate;
use rotogate_core::route::{Hosts, check_pattern};
use rotogate_core::session::Scope;
use rotogate_proxy::UpstreamUrl;

/// Longer than any sensible time, and far from overflow.
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 86_400);

fn unexpected<T>(expected: &str, found: &Value) -> Result<T, String> {
    Err(format!("expected {expected}, found {}", found.describe()))
}

/// A non-empty text without control characters.
pub(crate) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(s) | Value::Env(s) if !s.is_empty() && !s.contains(char::is_control) => Ok(s.clone()),
        other => unexpected("a text without control characters that is not empty", other),
    }
}

pub(crate) fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(b) => Ok(*b),
        Value::Env(s) if s == "true" => Ok(true),
        Value::Env(s) if s == "false" => Ok(false),
        other => unexpected("true or false", other),
    }
}

/// A number within inclusive bounds.
pub(crate) fn count<T: TryFrom<usize>>(min: usize, max: usize) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let n = match value {
            Value::Integer(n) => usize::try_from(*n).ok(),
            Value::Env(s) => s.parse().ok(),
            _ => None,
        };
        let within = n.filter(|n| (min..=max).contains(n)).and_then(|n| T::try_from(n).ok());
        within.map_or_else(|| unexpected(&format!("a whole number from {min} to {max}"), value), Ok)
    }
}

/// A number from 1 to a bound.
pub(crate) fn nonzero(max: usize) -> impl Fn(&Value) -> Result<NonZeroU32, String> {
    move |value| count::<u32>(1, max)(value).map(|n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN))
}

/// A number from 0 to 1.
pub(crate) fn fraction(value: &Value) -> Result<f64, String> {
    let n = match value {
        Value::Integer(n) => i32::try_from(*n).ok().map(f64::from),
        Value::OtherNumber(s) | Value::Env(s) => s.parse().ok(),
        _ => None,
    };
    match n {
        Some(n) if (0.0..=1.0).contains(&n) => Ok(n),
        _ => unexpected("a number from 0 to 1, such as 0.1", value),
    }
}

/// An amount, or a percentage of something.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Share {
    Amount(u64),
    Percent(u64),
}

impl Share {
    /// As an amount; at least 1.
    pub(crate) fn to_amount(self, whole: usize) -> usize {
        let amount = match self {
            Self::Amount(amount) => amount,
            Self::Percent(percent) => (whole as u64).saturating_mul(percent).div_ceil(100),
        };
        usize::try_from(amount).unwrap_or(usize::MAX).max(1)
    }
}

/// A number, a size, or a percentage.
pub(crate) fn share(value: &Value) -> Result<Share, String> {
    let parsed = match value {
        Value::Integer(n) => u64::try_from(*n).ok().map(Share::Amount),
        Value::String(s) | Value::Env(s) => match s.strip_suffix('%') {
            Some(percent) => percent.trim().parse().ok().filter(|percent| *percent <= 100).map(Share::Percent),
            None => parse_size(s).map(Share::Amount),
        },
        _ => None,
    };
    let is_some = |share: &Share| !matches!(share, Share::Amount(0) | Share::Percent(0));
    match parsed.filter(is_some) {
        Some(share) => Ok(share),
        None => unexpected("a number above 0, or a part such as \"10%\"", value),
    }
}

/// A size in bytes, with or without a unit.
pub(crate) fn size<T: TryFrom<u64>>(min: u64, max: u64) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let n = match value {
            Value::Integer(n) => u64::try_from(*n).ok(),
            Value::String(s) | Value::Env(s) => parse_size(s),
            _ => None,
        };
        match n.map(|n| T::try_from(n).ok().filter(|_| (min..=max).contains(&n))) {
            Some(Some(n)) => Ok(n),
            Some(None) => unexpected(&format!("between {min} and {max} bytes"), value),
            None => unexpected("a size such as 16384, \"16KiB\" or \"10MiB\"", value),
        }
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text.get(digits.len()..)?.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

pub(crate) fn duration(value: &Value) -> Result<Duration, String> {
    const EXPECTED: &str = "a duration such as \"30s\", \"10m\" or \"1h 30m\"";
    match value {
        Value::String(s) | Value::Env(s) => match humantime::parse_duration(s) {
            Ok(d) if d <= MAX_DURATION => Ok(d),
            Ok(_) => unexpected("a duration of at most 100 years", value),
            Err(_) => unexpected(EXPECTED, value),
        },
        Value::Integer(n) => Err(format!("expected {EXPECTED}, found {n}; write the unit too, as in \"{n}s\"")),
        other => unexpected(EXPECTED, other),
    }
}

/// A duration within inclusive bounds.
pub(crate) fn duration_within(min: Duration, max: Duration) -> impl Fn(&Value) -> Result<Duration, String> {
    move |value| {
        let d = duration(value)?;
        let show = rotogate_core::clock::written;
        if d < min {
            return unexpected(&format!("at least {}", show(min)), value);
        }
        if d > max {
            return unexpected(&format!("at most {}", show(max)), value);
        }
        Ok(d)
    }
}

/// `"10/1m"`: a burst of ten, refilled at ten a minute.
pub(crate) fn rate(value: &Value) -> Result<Rate, String> {
    let parsed = match value {
        Value::String(s) | Value::Env(s) => parse_rate(s),
        _ => None,
    };
    match parsed {
        Some(rate) => Ok(rate),
        None => unexpected("a rate such as \"10/1m\": ten at once, and ten more every minute", value),
    }
}

fn parse_rate(text: &str) -> Option<Rate> {
    let (burst, period) = text.split_once('/')?;
    let burst: NonZeroU32 = burst.trim().parse().ok()?;
    let period = humantime::parse_duration(period.trim()).ok().filter(|d| *d <= Duration::from_secs(7 * 86_400))?;
    let every = period.checked_div(burst.get()).filter(|d| !d.is_zero())?;
    Some(Rate { burst, every })
}

/// One of several words. Those in `later` are known but not available yet.
pub(crate) fn word<T: Copy>(words: &[(&str, T)], later: &[&str]) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let expected = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ");
        let (Value::String(found) | Value::Env(found)) = value else { return unexpected(&expected, value) };
        if let Some((_, meaning)) = words.iter().find(|(name, _)| name == found) {
            return Ok(*meaning);
        }
        let shown = value.describe();
        if later.contains(&found.as_str()) {
            return Err(format!("{shown} comes in a later version; expected {expected}"));
        }
        Err(match nearest(found, &names) {
            Some(near) => format!("unknown value {shown}; did you mean \"{near}\"?"),
            None => format!("expected {expected}, found {shown}"),
        })
    }
}

/// One of the words of a type.
pub(crate) fn word_of<T: Words>(value: &Value) -> Result<T, String> {
    word(T::WORDS, &[])(value)
}

/// A word that this build has, or one that needs a feature: `(word, feature)`.
pub(crate) fn word_of_build<T: Copy>(
    words: &[(&str, T)],
    features: &[(&str, &str)],
) -> impl Fn(&Value) -> Result<T, String> {
    let known = word(words, &[]);
    move |value| {
        let (Value::String(found) | Value::Env(found)) = value else { return known(value) };
        let is_missing = |(word, _): &&(&str, &str)| word == found && !words.iter().any(|(known, _)| known == word);
        match features.iter().find(is_missing) {
            Some((_, feature)) => Err(needs_feature(&value.describe(), feature)),
            None => known(value),
        }
    }
}

/// The message for a setting that this build cannot serve.
pub(crate) fn needs_feature(setting: &str, feature: &str) -> String {
    format!(
        "{setting} needs the feature {feature}, which this program is built without: install a package of rotogate, which \
         has all features, or build with `--features {feature}`"
    )
}

pub(crate) fn address(value: &Value) -> Result<SocketAddr, String> {
    match value {
        Value::String(s) | Value::Env(s) => s.parse().ok(),
        _ => None,
    }
    .map_or_else(|| unexpected("an address and port such as \"127.0.0.1:8080\" or \"[::1]:8080\"", value), Ok)
}

/// An address or a network. A network of all addresses is refused.
pub(crate) fn network(value: &Value) -> Result<IpNet, String> {
    let parsed: Option<IpNet> = match value {
        Value::String(s) | Value::Env(s) => s.parse().ok().or_else(|| s.parse::<IpAddr>().ok().map(IpNet::from)),
        _ => None,
    };
    match parsed {
        Some(net) if net.prefix_len() == 0 => {
            Err("would trust every caller's word about its own address; name the proxies".to_owned())
        }
        Some(net) => Ok(net.trunc()),
        None => unexpected("an address or network such as \"10.0.0.7\" or \"10.0.0.0/8\"", value),
    }
}

fn http_url(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let scheme_fits = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
    let authority = uri.authority()?;
    let plain = !authority.as_str().contains('@') && !authority.host().is_empty() && uri.query().is_none();
    (scheme_fits && plain && !text.contains('#') && port_is_sound(&uri)).then_some(uri)
}

/// `http` accepts `host:` and `host:99999` as authorities without a port.
fn port_is_sound(uri: &Uri) -> bool {
    let Some(authority) = uri.authority() else { return false };
    let rest = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    rest.is_empty() || authority.port_u16().is_some_and(|port| port != 0)
}

/// Scheme and authority only.
pub(crate) fn origin_url(value: &Value) -> Result<Uri, String> {
    match value {
        Value::String(s) | Value::Env(s) => http_url(s).filter(|uri| uri.path() == "/"),
        _ => None,
    }
    .map_or_else(|| unexpected("http://host[:port] or https://host[:port] without a path", value), Ok)
}

/// An issuer: an absolute URL without query and fragment (RFC 8414 §2). Kept byte for byte, because it is compared so.
pub(crate) fn issuer_url(value: &Value) -> Result<String, String> {
    match value {
        Value::String(s) | Value::Env(s) if http_url(s).is_some() => Ok(s.clone()),
        other => unexpected("an http or https URL without user, query and fragment", other),
    }
}

/// An origin as a browser sends it: lower case, no path, no default port.
pub(crate) fn cors_origin(value: &Value) -> Result<String, String> {
    let (Value::String(found) | Value::Env(found)) = value else {
        return unexpected("an origin such as \"https://app.example.com\"", value);
    };
    if found == "*" || found == "null" {
        return Err(format!("{} allows every site; list the origins", value.describe()));
    }
    let canonical = http_url(found).filter(|uri| uri.path() == "/").and_then(|uri| {
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        let port = authority.port_u16().filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{scheme}://{}{port}", authority.host().to_ascii_lowercase()))
    });
    match canonical {
        Some(canonical) if canonical == *found => Ok(canonical),
        Some(canonical) => Err(format!("a browser writes this origin as \"{canonical}\"; write it so")),
        None => unexpected("an origin such as \"https://app.example.com\"", value),
    }
}

pub(crate) fn upstream_url(value: &Value) -> Result<UpstreamUrl, String> {
    const EXPECTED: &str = "\"echo:\", or http://, https:// or h2c:// with host[:port], without a path";
    let (Value::String(found) | Value::Env(found)) = value else { return unexpected(EXPECTED, value) };
    if found == "echo:" {
        return Ok(UpstreamUrl::Echo);
    }
    if found.starts_with("unix:") {
        return Err(format!("{} comes in a later version; expected {EXPECTED}", value.describe()));
    }
    // `h2c` URLs have the same form.
    let as_http = found.strip_prefix("h2c://").map(|rest| format!("http://{rest}"));
    let uri = http_url(as_http.as_deref().unwrap_or(found));
    let Some(uri) = uri.filter(|uri| uri.path() == "/" && !found.ends_with('/')) else {
        return unexpected(EXPECTED, value);
    };
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).to_ascii_lowercase();
    // `127.1` and `0x7f000001` reach loopback too, in a form that the checks would not recognise.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let numeric = !last.is_empty() && (last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x"));
    if numeric && !host.contains(':') && host.parse::<Ipv4Addr>().is_err() {
        return unexpected("an IPv4 address in full, four decimal numbers", value);
    }
    found.parse().or_else(|_| unexpected(EXPECTED, value))
}

/// A host name in lower case, without port and wildcards.
pub(crate) fn host(value: &Value) -> Result<String, String> {
    let fits = |s: &str| {
        !s.is_empty() && s.len() <= 253 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    match value {
        Value::String(s) | Value::Env(s) => {
            let bare = s.strip_prefix('[').and_then(|s| s.strip_suffix(']'));
            let is_v6 = bare.is_some_and(|s| s.parse::<std::net::Ipv6Addr>().is_ok());
            (is_v6 || fits(s)).then(|| s.to_ascii_lowercase())
        }
        _ => None,
    }
    .map_or_else(|| unexpected("a host name without port and wildcards", value), Ok)
}

/// A host that the gate serves; may have a wildcard.
pub(crate) fn served_host(value: &Value) -> Result<String, String> {
    let host = text(value)?;
    match Hosts::default().add(&host) {
        Ok(()) => Ok(host),
        Err(_) => unexpected("a host name without port, such as \"example.com\", \"*.example.com\" or \"*\"", value),
    }
}

/// A response header that pages may read (Fetch §3.3.2).
pub(crate) fn exposed_header(value: &Value) -> Result<HeaderName, String> {
    let name = text(value)?;
    if name == "*" {
        return Err(
            "\"*\" exposes every header, and means no header at all with credentials; list the names".to_owned()
        );
    }
    name.parse().or_else(|_| unexpected("the name of a header, such as \"x-request-id\"", value))
}

/// A cookie name (RFC 6265 §4.1.1).
pub(crate) fn cookie_name(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if fits { Ok(name) } else { unexpected("the name of a cookie", value) }
}

pub(crate) fn method(value: &Value) -> Result<Method, String> {
    let name = text(value)?;
    match Method::from_bytes(name.as_bytes()) {
        Ok(Method::CONNECT | Method::TRACE) => Err(format!("{name} is never forwarded")),
        Ok(_) if name.bytes().any(|b| b.is_ascii_lowercase()) => {
            Err(format!("methods are case-sensitive; did you mean {}?", printable(&name.to_ascii_uppercase())))
        }
        Ok(method) => Ok(method),
        Err(_) => unexpected("a method such as \"GET\"", value),
    }
}

/// One scope token, or several separated by spaces.
pub(crate) fn scope(value: &Value) -> Result<Scope, String> {
    Scope::parse(&text(value)?).map_err(|e| format!("{}: {e}", value.describe()))
}

/// The path of a route or an endpoint.
pub(crate) fn pattern(value: &Value) -> Result<String, String> {
    let path = text(value)?;
    if !path.starts_with('/') || !path.is_ascii() || path.contains(['?', '#', ' ', '\\']) {
        return unexpected("a path that begins with /", value);
    }
    match check_pattern(&path) {
        Ok(()) => Ok(path),
        Err(why) => Err(format!("{} is not a pattern: {why}", value.describe())),
    }
}

/// A header that names the caller to an upstream. Empty: it is not sent.
pub(crate) fn identity_header(value: &Value) -> Result<Option<HeaderName>, String> {
    match value {
        Value::String(s) | Value::Env(s) if s.is_empty() => Ok(None),
        Value::String(s) | Value::Env(s) => header(s).map(Some),
        other => unexpected("a header name, or \"\" for none", other),
    }
}

/// A header name that the gate may set.
pub(crate) fn header(name: &str) -> Result<HeaderName, String> {
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
        return Err(format!("\"{shown}\" has a meaning of its own; take another name, such as \"x-auth-subject\""));
    }
    if name.contains(['_', '.']) {
        return Err(format!("\"{shown}\" is dropped or folded by many servers; write it with -"));
    }
    Ok(header)
}

#[cfg(test)]
mod tests;
