//! The origin of the requests of a connection, and the servers for which they may be.

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
    /// The minimum rate of the connection's requests and responses.
    pub(crate) min_rate: MinRate,
    /// The client whose limits the requests of this connection count for. `None` for a trusted proxy, where
    /// each request names its client.
    pub(crate) holder: Option<Holder>,
    /// When a request was last rejected for overload.
    pub(crate) last_rejection: LastRejection,
    /// Whether an HTTP/1.1 client is owed an answer.
    pub(crate) owed: Arc<OwedAnswer>,
    /// The TLS version.
    pub(crate) tls: Option<&'static str>,
    /// One for each log format, because a reload may change the format.
    log_fields: [OnceLock<ConnectionFields>; 2],
    requested: Option<RequestedServer>,
}

/// The server that the client asked for at the start of the connection (SNI, RFC 6066 §3).
#[derive(Clone, Debug)]
pub(crate) struct RequestedServer {
    /// `None`: the client sent no SNI and got the first certificate.
    pub(crate) name: Option<String>,
    /// The certificates of the listener at that moment.
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

    /// The origin of a request that a proxy asks about. The peer of this connection, the proxy, names the
    /// client.
    pub(crate) fn asked_for(&self, client: &Peer) -> Self {
        Self {
            proxied_by: Some(self.peer.address()),
            tls: self.tls,
            ..Self::clear(client.clone(), false, self.min_rate)
        }
    }

    /// The fields of the access log that all requests of this connection have in common.
    pub(crate) fn log_fields(&self, log: &AccessLog) -> &ConnectionFields {
        let [json, text] = &self.log_fields;
        let fields = if log.is_json() { json } else { text };
        fields.get_or_init(|| log.connection(&self.peer, self.proxied_by, self.tls))
    }

    /// Whether a request is for another server than the one whose certificate the client saw (RFC 9110 §15.5.20,
    /// requirement T16). Names that share a certificate may share a connection (RFC 9113 §9.1.1). A client without SNI
    /// may address the names of the first certificate (requirement T23). A malformed host is refused by the gate.
    pub(crate) fn is_misdirected<B>(&self, request: &Request<B>) -> bool {
        let Some(requested) = &self.requested else { return false };
        authority::check_head(request.method(), request.uri(), request.version(), request.headers())
            .is_ok_and(|host| !requested.certificates.share_certificate(requested.name.as_deref(), host.host()))
    }
}
