//! Decides which headers pass the gate, and which headers only the gate may set. Every request passes three steps in
//! this order, on every route:
//!
//! 1. After routing, [`ProtectedNames::strip_untrusted`] removes the client's identity headers, in every spelling. It
//!    also removes headers that override the method or the URL.
//! 2. The gate adds the verified caller's identity, encoded by [`identity_value`]. [`strip_credentials`] removes the
//!    token, so that the upstream does not receive it.
//! 3. The proxy removes hop-by-hop headers ([`remove_hop_by_hop`]), and adds headers with the origin of the request
//!    ([`forwarded`]).
//!
//! Names are compared in a **folded** form: lower case, with `-` for every character that is neither a letter nor a
//! digit. A CGI-like upstream sees `HTTP_X_AUTH_SUBJECT` for both `X-Auth-Subject` and `X-Auth_Subject`.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, COOKIE, HeaderName, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

pub use crate::context::unindexed;
use crate::network::Holder;
use crate::route::RoutePolicy;
use crate::thumbprint::CertificateThumbprint;

/// The credential headers, with a flag for those that accompany a forwarded token (RFC 9449 §4.1).
static CREDENTIALS: [(HeaderName, bool); 3] =
    [(AUTHORIZATION, true), (HeaderName::from_static("dpop"), true), (PROXY_AUTHORIZATION, false)];

mod certificate;
pub(crate) mod encoded;
mod forwarding;
mod framing;
mod hop_by_hop;
mod names;
mod pattern;
mod present;
mod products;
mod trailers;

use certificate::ClientCertificate;
pub use encoded::identity_value;
use encoded::visible;
pub use forwarding::{FORWARDED_HOST, client_ip, forwarded};
pub use forwarding::{is_trusted, named_scheme, says_for_whom, scheme};
pub use framing::is_framed_once;
pub use hop_by_hop::{RemovedHeaders, remove_hop_by_hop};
pub use pattern::HeaderPattern;
pub use present::Present;

/// The peer of a request's connection. The listener inserts it into the request's extensions.
///
/// ```
/// use rotogate::gate::Peer;
///
/// // Your own server inserts it. Rate limits count by its address.
/// let peer = Peer::new("192.0.2.7".parse()?, true);
/// assert_eq!(peer.scheme(), "https");
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(peer);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    address: IpAddr,
    text: HeaderValue,
    secure: bool,
    at_loopback: bool,
    forwards: bool,
    holder: Holder,
    listener: Option<Arc<str>>,
    certificate: Option<Arc<ClientCertificate>>,
}

impl Peer {
    /// A peer with this address. `secure` states whether the connection is encrypted.
    pub fn new(address: IpAddr, secure: bool) -> Self {
        let text = visible(Bytes::from(address.to_canonical().to_string()));
        Self {
            address,
            text,
            secure,
            at_loopback: false,
            forwards: true,
            holder: Holder::address(address),
            listener: None,
            certificate: None,
        }
    }

    /// Sets whether the listener can be reached only from this machine.
    #[must_use]
    pub const fn at_loopback(mut self, is: bool) -> Self {
        self.at_loopback = is;
        self
    }

    /// Sets the name of the listener.
    #[must_use]
    pub fn on_listener(self, name: Arc<str>) -> Self {
        Self { listener: Some(name), ..self }
    }

    /// Sets the client's certificate from the TLS handshake, in DER. The server must have verified that the client has
    /// the private key. Do not set the certificate of a proxy that forwards requests of other clients.
    #[must_use]
    pub fn with_certificate(self, der: &[u8]) -> Self {
        Self { certificate: Some(Arc::new(ClientCertificate::from_der(der))), ..self }
    }

    /// Like [`Self::with_certificate`], but the gate sends the certificate to upstreams in `Client-Cert` (RFC 9440).
    #[must_use]
    pub fn with_certificate_for_upstreams(self, der: &[u8]) -> Self {
        Self { certificate: Some(Arc::new(ClientCertificate::told_to_upstreams(der))), ..self }
    }

    /// Like [`Self::with_certificate`], for a certificate that another program has checked.
    #[must_use]
    pub fn with_certificate_thumbprint(self, thumbprint: CertificateThumbprint) -> Self {
        Self { certificate: Some(Arc::new(ClientCertificate::from_thumbprint(thumbprint))), ..self }
    }

    /// The thumbprint of the client's certificate (RFC 8705 §3.1).
    pub fn certificate(&self) -> Option<CertificateThumbprint> {
        self.certificate.as_deref().map(ClientCertificate::thumbprint)
    }

    /// The name of the listener that the connection arrived on.
    pub fn listener(&self) -> Option<&str> {
        self.listener.as_deref()
    }

    /// Whether the listener can be reached only from this machine.
    pub const fn is_at_loopback(&self) -> bool {
        self.at_loopback
    }

    /// Makes the gate ignore this peer's forwarding headers, even if it is a trusted proxy. Use this if a protocol
    /// other than HTTP supplied the address, because the client may have written the headers.
    #[must_use]
    pub fn without_forwarding(self) -> Self {
        Self { forwards: false, ..self }
    }

    /// Whether the gate uses this peer's forwarding headers if it is a trusted proxy.
    pub const fn may_forward(&self) -> bool {
        self.forwards
    }

    /// The address at the other end of the connection.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The address as a header value.
    pub const fn text(&self) -> &HeaderValue {
        &self.text
    }

    /// Whether the connection is encrypted.
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// The scheme of the connection: `https` or `http`.
    pub const fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

/// Functions for the crates of this project.
#[doc(hidden)]
impl Peer {
    /// The name of the listener, as a shared string.
    pub fn shared_listener(&self) -> Option<Arc<str>> {
        self.listener.clone()
    }

    /// Whether one of these listeners accepted the connection. An empty list means every listener.
    pub fn is_on(peer: Option<&Self>, listeners: &[Box<str>]) -> bool {
        let own = || peer.and_then(Self::listener);
        listeners.is_empty() || own().is_some_and(|own| listeners.iter().any(|name| **name == *own))
    }

    /// The holder that is charged for the resources of this peer.
    pub const fn holder(&self) -> Holder {
        self.holder
    }

    /// The holder for the client of a request. `None` if the request comes from a trusted proxy that does not name the
    /// client.
    pub fn client_of(&self, headers: &HeaderMap, trusted: &[IpNet]) -> Option<Holder> {
        let address = self.address.to_canonical();
        if !self.forwards || !trusted.iter().any(|network| network.contains(&address)) {
            return Some(self.holder);
        }
        let client = client_ip(headers, address, trusted);
        (client != address).then(|| Holder::address(client))
    }
}

/// The names of headers that only the gate may set.
#[derive(Clone, Debug, Default)]
pub struct ProtectedNames {
    configured: Vec<Box<str>>,
    strip: Vec<HeaderPattern>,
    keep: Vec<HeaderPattern>,
    begins: names::Beginnings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeaderVerdict {
    Pass,
    Remove,
    /// Removed unless the route permits override headers.
    Override,
    /// Removed unless the route permits names with `_`.
    Underscore,
}

impl ProtectedNames {
    /// Protects the built-in names and the given names, in any spelling.
    pub fn new<I>(configured: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut configured: Vec<Box<str>> =
            configured.into_iter().map(|name| names::fold(name.as_ref()).into()).collect();
        configured.sort_unstable();
        configured.dedup();
        let mut begins = names::Beginnings::default();
        configured.iter().for_each(|name| begins.add(name));
        Self { configured, strip: Vec::new(), keep: Vec::new(), begins }
    }

    /// Removes the names in `strip` too, and lets the built-in names in `keep` pass (requirement T24). A header that
    /// the gate itself sets never passes.
    #[must_use]
    pub fn with(mut self, strip: Vec<HeaderPattern>, keep: Vec<HeaderPattern>) -> Self {
        (self.strip, self.keep) = (strip, keep);
        self.strip.iter().for_each(|pattern| self.begins.add(pattern.begin()));
        self
    }

    /// Whether only the gate may set a header with this name, in any spelling.
    pub fn protects(&self, name: &str) -> bool {
        self.is_configured(name) || (names::is_identity(name) && !self.keeps(name))
    }

    /// Whether the header overrides the request's method or URL.
    pub fn overrides(&self, name: &HeaderName) -> bool {
        names::is_override(name.as_str())
    }

    /// Whether an upstream could mistake the name for a header that it or the gate interprets (requirement N9).
    pub fn is_disguise(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        let is_binary = name.ends_with("-bin") && self.judge(name) == HeaderVerdict::Remove;
        is_binary
            || names::is_unusually_spelt(name)
                && (self.protects(name) || names::is_override(name) || names::is_disguised(name))
    }

    fn is_configured(&self, name: &str) -> bool {
        self.configured.iter().any(|own| names::folds_to(name, own))
            || self.strip.iter().any(|pattern| pattern.matches(name))
    }

    fn keeps(&self, name: &str) -> bool {
        self.keep.iter().any(|pattern| pattern.is_spelt(name))
    }

    /// Removes the headers that a client must not set (T3, T4, T6), and the headers that `Connection` names. Otherwise
    /// a proxy behind the gate could remove an identity header that the gate adds later (T5).
    ///
    /// Call this function before the gate adds headers.
    pub fn strip_untrusted(&self, headers: &mut HeaderMap, policy: &RoutePolicy) {
        let (mut has_connection, mut all_pass) = (false, true);
        for name in headers.keys() {
            has_connection |= *name == CONNECTION;
            all_pass &= self.passes(name, policy);
        }
        if has_connection {
            hop_by_hop::settle_connection(headers);
        }
        if all_pass {
            return;
        }
        let gone: Vec<HeaderName> = headers.keys().filter(|name| !self.passes(name, policy)).cloned().collect();
        for name in gone {
            headers.remove(name);
        }
    }

    /// Whether a client may send this header to the upstream of this route.
    pub fn passes(&self, name: &HeaderName, policy: &RoutePolicy) -> bool {
        match self.judge(name.as_str()) {
            HeaderVerdict::Pass => true,
            HeaderVerdict::Remove => false,
            HeaderVerdict::Override => policy.keep_override_headers,
            HeaderVerdict::Underscore => policy.keep_underscore_headers,
        }
    }

    fn judge(&self, name: &str) -> HeaderVerdict {
        if !self.begins.may_have(name) {
            let has_underscore = name.bytes().any(|byte| byte == b'_');
            return if has_underscore { HeaderVerdict::Underscore } else { HeaderVerdict::Pass };
        }
        // Some libraries drop the `-bin` of binary gRPC metadata (requirement T17).
        if let Some(stem) = name.strip_suffix("-bin")
            && (self.protects(stem) || names::folds_to(stem, "authorization"))
        {
            return HeaderVerdict::Remove;
        }
        if self.is_configured(name) || (names::is_identity(name) && !self.keeps(name)) {
            HeaderVerdict::Remove
        } else if names::is_override(name) {
            if name.contains('_') { HeaderVerdict::Remove } else { HeaderVerdict::Override }
        } else if names::is_disguised(name) {
            HeaderVerdict::Remove
        } else if name.contains('_') {
            HeaderVerdict::Underscore
        } else {
            HeaderVerdict::Pass
        }
    }
}

/// The credential headers that the upstream of a route does not receive (T14, N40).
pub fn withheld(policy: &RoutePolicy) -> impl Iterator<Item = &'static HeaderName> {
    CREDENTIALS.iter().filter(|(_, is_of_token)| !goes(*is_of_token, policy)).map(|(name, _)| name)
}

const fn goes(is_of_token: bool, policy: &RoutePolicy) -> bool {
    is_of_token && policy.forward_token
}

/// Removes the client's credentials (T14). `Proxy-Authorization` is always removed. `Authorization` and a DPoP proof
/// are removed unless the route forwards the token. Returns whether there are cookies, which the caller must check for
/// credentials.
pub fn strip_credentials(headers: &mut HeaderMap, policy: &RoutePolicy) -> bool {
    // One scan of all names costs less than looking up each credential header.
    let (mut present, mut has_cookies) = ([false; CREDENTIALS.len()], false);
    for name in headers.keys() {
        has_cookies |= *name == COOKIE;
        for (is_there, (credential, _)) in present.iter_mut().zip(&CREDENTIALS) {
            *is_there |= name == credential;
        }
    }
    for (is_there, (credential, is_of_token)) in present.into_iter().zip(&CREDENTIALS) {
        if is_there && !goes(*is_of_token, policy) {
            headers.remove(credential);
        }
    }
    has_cookies
}

/// The headers that clients must not send to an upstream, except the configured ones. The names are in lower case, and
/// a final `*` matches anything.
pub fn not_from_clients() -> impl Iterator<Item = &'static str> {
    names::of_lists().chain(CREDENTIALS.iter().map(|(name, _)| name.as_str()))
}

/// Whether any header overrides the request's method or URL.
pub fn has_override(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| names::is_override(name.as_str()))
}

#[cfg(test)]
mod tests;
