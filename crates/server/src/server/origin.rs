//! Where the requests of a connection come from, and for whom they may be.

use std::sync::Arc;

use http::Request;

use super::pace::Slowest;
use super::tls::Certificates;
use rotogate::headers::Peer;
use rotogate::overload::{Holder, Told};
use rotogate::route::authority;

/// See the module.
#[derive(Debug)]
pub(super) struct Origin {
    /// The client, or the proxy that it comes through.
    pub(super) peer: Peer,
    /// How slow its requests may come.
    pub(super) slowest: Slowest,
    /// Whose its requests are; `None` for a trusted proxy, where each says it for itself.
    pub(super) holder: Option<Holder>,
    /// When it was last refused because there was too much.
    pub(super) told: Told,
    /// The version of TLS.
    pub(super) tls: Option<&'static str>,
    named: Option<Named>,
}

/// What the client wanted to speak to when the connection began (RFC 6066 §3).
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// `None`: it did not say, and was shown the first certificate.
    pub(super) name: Option<String>,
    /// Those among which one was chosen.
    pub(super) certificates: Arc<Certificates>,
}

impl Origin {
    pub(super) fn clear(peer: Peer, is_proxy: bool, slowest: Slowest) -> Self {
        let holder = (!is_proxy).then(|| peer.holder());
        Self { peer, slowest, holder, told: Told::default(), tls: None, named: None }
    }

    pub(super) fn tls(peer: Peer, is_proxy: bool, slowest: Slowest, named: Named) -> Self {
        Self { named: Some(named), ..Self::clear(peer, is_proxy, slowest) }
    }

    /// Is a request for another server than the one that the client saw the certificate of (RFC 9110 §15.5.20,
    /// requirement T16)? Names that share a certificate may share a connection (RFC 9113 §9.1.1). Who named no server may
    /// speak to those that the first certificate is for (requirement T23). A malformed host is refused further in.
    pub(super) fn is_misdirected<B>(&self, request: Request<B>) -> (bool, Request<B>) {
        let Some(named) = &self.named else { return (false, request) };
        let (parts, body) = request.into_parts();
        let misdirected =
            authority::check(&parts).is_ok_and(|host| !named.certificates.are_one(named.name.as_deref(), host.host()));
        (misdirected, Request::from_parts(parts, body))
    }
}
