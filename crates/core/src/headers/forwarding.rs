//! Where a request comes from. Only headers of trusted proxies are used, and they are rewritten for the upstream (T6).

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::certificate::CLIENT_CERT;
use super::{ClientCertificate, Peer, names, unindexed};
use crate::network::network;
use crate::route::authority::is_authority;

static FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The header with the host that the client requested.
pub static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The address of a request's client. Behind trusted proxies, this is the last address in `X-Forwarded-For` that is not
/// a trusted proxy. Otherwise this is the peer. Entries before the client's address are ignored, because the client may
/// have written them. The list ends at an entry that is not an address.
pub fn client_ip(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    for hop in hops(headers) {
        if !is_trusted(client, trusted) {
            break;
        }
        match hop {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// Whether the request has an `X-Forwarded-For`.
pub fn says_for_whom(headers: &HeaderMap) -> bool {
    headers.contains_key(&FOR)
}

/// The client's scheme, from a trusted proxy's header or else from the connection.
pub fn scheme(headers: &HeaderMap, peer: &Peer, trusted: &[IpNet]) -> HeaderValue {
    let from_proxy = peer.may_forward() && is_trusted(peer.address().to_canonical(), trusted);
    let named =
        from_proxy.then(|| headers.get(&PROTO)).flatten().and_then(|value| value.to_str().ok()).and_then(named_scheme);
    HeaderValue::from_static(named.unwrap_or(peer.scheme()))
}

/// Parses the scheme that a proxy names, in any letter case (RFC 3986 §3.1). In a list, the first entry is the client's
/// scheme. Some proxies use `ws` and `wss` for WebSockets.
pub fn named_scheme(named: &str) -> Option<&'static str> {
    let first = named.split(',').next().unwrap_or(named).trim();
    let is = |scheme: &str| first.eq_ignore_ascii_case(scheme);
    match () {
        () if is("https") || is("wss") => Some("https"),
        () if is("http") || is("ws") => Some("http"),
        () => None,
    }
}

/// Writes the origin of the request for the upstream. Sets `X-Forwarded-For`, `X-Forwarded-Proto` and
/// `X-Forwarded-Host` once each. Also sets `Client-Cert` if upstreams receive the client's certificate (RFC 9440).
/// From a trusted proxy, `X-Forwarded-For` keeps the client's address and all later entries. The proxy's address is
/// appended. Values from all other senders are replaced.
///
/// `Forwarded` and similar headers are always removed.
pub fn forwarded(headers: &mut HeaderMap, peer: &Peer, host: Option<&HeaderValue>, trusted: &[IpNet]) {
    let address = peer.address().to_canonical();
    let from_proxy = peer.may_forward() && is_trusted(address, trusted);
    let chain = if from_proxy && headers.contains_key(&FOR) {
        HeaderValue::try_from(chain(headers, address, trusted)).ok()
    } else {
        Some(peer.text.clone())
    };
    let proto = scheme(headers, peer, trusted);
    let named = from_proxy.then(|| only(headers, &FORWARDED_HOST)).flatten();
    let named = named.filter(|v| v.to_str().is_ok_and(is_authority));
    let host = named.or_else(|| host.cloned());

    let mut others = headers.keys().filter(|name| names::is_other_forwarding(name.as_str())).peekable();
    if others.peek().is_some() {
        let gone: Vec<HeaderName> = others.cloned().collect();
        for name in gone {
            headers.remove(name);
        }
    }
    let said = match chain {
        Some(chain) => headers.insert(FOR.clone(), unindexed(chain)),
        None => headers.remove(&FOR),
    };
    if said.is_some() && !from_proxy && peer.may_forward() {
        report_ignored(address);
    }
    headers.insert(PROTO.clone(), proto);
    if let Some(certificate) = peer.certificate.as_deref().and_then(ClientCertificate::header) {
        headers.insert(CLIENT_CERT.clone(), certificate.clone());
    }
    match host {
        Some(host) => drop(headers.insert(FORWARDED_HOST.clone(), host)),
        None => drop(headers.remove(&FORWARDED_HOST)),
    }
}

/// The networks whose ignored headers were logged. 0 is an empty slot.
static REPORTED: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

/// Logs only the first 16 networks, each once.
fn report_ignored(peer: IpAddr) {
    let network = network(peer);
    for place in &REPORTED {
        match place.compare_exchange(0, network, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {
                tracing::warn!(
                    %peer,
                    "x-forwarded-for ignored, because the peer is not in trusted_proxies. If the peer is your proxy, \
                     add it to that list. Otherwise all of its clients share the limits of one address"
                );
                return;
            }
            Err(known) if known == network => return,
            Err(_) => {}
        }
    }
}

fn chain(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> String {
    let mut addresses = vec![peer];
    for hop in hops(headers) {
        match (hop, addresses.last()) {
            (Some(address), Some(&last)) if is_trusted(last, trusted) => addresses.push(address),
            (Some(_) | None, _) => break,
        }
    }
    let texts: Vec<String> = addresses.iter().rev().map(IpAddr::to_string).collect();
    texts.join(", ")
}

/// Returns the addresses of all hops, nearest first, with `None` for an invalid entry.
fn hops(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines = headers.get_all(&FOR).into_iter().collect::<Vec<_>>().into_iter().rev();
    lines
        .flat_map(|line| line.to_str().unwrap_or("?").rsplit(','))
        .map(|entry| address(entry.trim_matches([' ', '\t'])))
}

fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|a| a.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

/// Whether an address belongs to a trusted proxy.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

fn only(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.clone()),
        (Some(_), Some(_)) | (None, _) => None,
    }
}
