//! The origin of a connection's requests, and the servers that these requests may address.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use http::Request;

use super::half_close::OwedAnswer;
use super::min_rate::MinRate;
use super::tls::Certificates;
use crate::log::{AccessLog, ConnectionFields};
use rotogate_core::headers::Peer;
use rotogate_core::overload::{Holder, LastRejection};
use rotogate_core::route::authority;

#[derive(Debug)]
pub(crate) struct Origin {
    /// The client, or the trusted proxy in front of the client.
    pub(crate) peer: Peer,
    /// The proxy whose PROXY header named the peer.
    pub(crate) proxied_by: Option<IpAddr>,
    pub(crate) min_rate: MinRate,
    /// The client whose limits apply. `None` for a trusted proxy, because each of its requests names a client.
    pub(crate) holder: Option<Holder>,
    pub(crate) last_rejection: LastRejection,
    pub(crate) owed: Arc<OwedAnswer>,
    pub(crate) tls: Option<&'static str>,
    /// The fields are cached for both log formats, because a reload may change the format.
    log_fields: [OnceLock<ConnectionFields>; 2],
    requested: Option<RequestedServer>,
}

/// The server name from the TLS handshake (SNI, RFC 6066 §3).
#[derive(Clone, Debug)]
pub(crate) struct RequestedServer {
    /// `None` if the client sent no SNI and got the first certificate.
    pub(crate) name: Option<String>,
    pub(crate) certificates: Arc<Certificates>,
}

impl Origin {
    pub(crate) fn clear(peer: Peer, is_proxy: bool, min_rate: MinRate) -> Self {
        let holder = (!is_proxy).then(|| peer.holder());
        Self {
            peer,
            proxied_by: None,
            min_rate,
            holder,
            last_rejection: LastRejection::default(),
            owed: Arc::default(),
            tls: None,
            log_fields: Default::default(),
            requested: None,
        }
    }

    pub(crate) fn tls(peer: Peer, is_proxy: bool, min_rate: MinRate, requested: RequestedServer) -> Self {
        Self { requested: Some(requested), ..Self::clear(peer, is_proxy, min_rate) }
    }

    /// Returns the origin of the request that an authorization request describes.
    pub(crate) fn asked_for(&self, client: &Peer) -> Self {
        Self {
            proxied_by: Some(self.peer.address()),
            tls: self.tls,
            ..Self::clear(client.clone(), false, self.min_rate)
        }
    }

    /// Returns the access-log fields that are the same for all requests of this connection.
    pub(crate) fn log_fields(&self, log: &AccessLog) -> &ConnectionFields {
        let [json, text] = &self.log_fields;
        let fields = if log.is_json() { json } else { text };
        fields.get_or_init(|| log.connection(&self.peer, self.proxied_by, self.tls))
    }

    /// Returns whether the request names a server that the TLS certificate does not cover (RFC 9110 §15.5.20,
    /// requirement T16). Names with the same certificate may share a connection (RFC 9113 §9.1.1). Without SNI, the
    /// first certificate applies (requirement T23).
    pub(crate) fn is_misdirected<B>(&self, request: &Request<B>) -> bool {
        let Some(requested) = &self.requested else { return false };
        authority::check_head(request.method(), request.uri(), request.version(), request.headers())
            .is_ok_and(|host| !requested.certificates.share_certificate(requested.name.as_deref(), host.host()))
    }
}
