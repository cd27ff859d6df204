//! The origin of the requests on a connection, and the servers that these requests may address.

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

/// The origin of a connection.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The client, or the trusted proxy in front of it.
    pub(crate) peer: Peer,
    /// The proxy whose PROXY header named the peer.
    pub(crate) proxied_by: Option<IpAddr>,
    /// The minimum rate for requests and responses on this connection.
    pub(crate) min_rate: MinRate,
    /// The client whose limits apply to the requests of this connection. `None` for a trusted proxy, because each of
    /// its requests names its own client.
    pub(crate) holder: Option<Holder>,
    /// When a request was last rejected for overload.
    pub(crate) last_rejection: LastRejection,
    /// The state of the pending response to an HTTP/1.1 client.
    pub(crate) owed: Arc<OwedAnswer>,
    /// The TLS version.
    pub(crate) tls: Option<&'static str>,
    /// The cached fields for each of the two log formats, because a reload may change the format.
    log_fields: [OnceLock<ConnectionFields>; 2],
    requested: Option<RequestedServer>,
}

/// The server name that the client requested when it connected (SNI, RFC 6066 §3).
#[derive(Clone, Debug)]
pub(crate) struct RequestedServer {
    /// `None` if the client sent no SNI and got the first certificate.
    pub(crate) name: Option<String>,
    /// The certificates of the listener at the time of the handshake.
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

    /// Returns the origin of the request that an authorization request describes. The proxy that sent the authorization
    /// request is the peer of this connection, and names the client.
    pub(crate) fn asked_for(&self, client: &Peer) -> Self {
        Self {
            proxied_by: Some(self.peer.address()),
            tls: self.tls,
            ..Self::clear(client.clone(), false, self.min_rate)
        }
    }

    /// Returns the access-log fields that all requests of this connection have in common.
    pub(crate) fn log_fields(&self, log: &AccessLog) -> &ConnectionFields {
        let [json, text] = &self.log_fields;
        let fields = if log.is_json() { json } else { text };
        fields.get_or_init(|| log.connection(&self.peer, self.proxied_by, self.tls))
    }

    /// Returns whether a request is for another server than the one whose certificate the client saw (RFC 9110
    /// §15.5.20, requirement T16). Names that share a certificate may share a connection (RFC 9113 §9.1.1). A client
    /// without SNI may address the names of the first certificate (requirement T23). Another check refuses a malformed
    /// host.
    pub(crate) fn is_misdirected<B>(&self, request: &Request<B>) -> bool {
        let Some(requested) = &self.requested else { return false };
        authority::check_head(request.method(), request.uri(), request.version(), request.headers())
            .is_ok_and(|host| !requested.certificates.share_certificate(requested.name.as_deref(), host.host()))
    }
}
