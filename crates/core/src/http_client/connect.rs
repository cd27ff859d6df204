//! Resolves names and opens connections to permitted addresses.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};

use super::address::Allowed;
use super::error::{FetchError, FetchErrorKind};
use super::proxy::Proxy;
use super::target::FetchTarget;

/// The result of [`Lookup::addresses`].
pub type LookupFuture = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Resolves names.
pub trait Lookup: Send + Sync {
    /// The addresses of a host name.
    fn addresses(&self, name: &str) -> LookupFuture;
}

#[derive(Debug)]
pub(super) struct System;

impl Lookup for System {
    fn addresses(&self, name: &str) -> LookupFuture {
        let name = name.to_owned();
        Box::pin(async move {
            // `lookup_host` requires a port, but ignores it.
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

#[derive(Clone)]
struct Guarded {
    lookup: Arc<dyn Lookup>,
    allowed: Allowed,
}

#[derive(Debug, thiserror::Error)]
enum NoAddress {
    #[error("the name cannot be resolved: {0}")]
    Unresolved(io::Error),
    #[error("the name resolves to {0}, an address that the gate must not connect to")]
    Refused(IpAddr),
}

impl Service<Name> for Guarded {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = NoAddress;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NoAddress>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoAddress>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.lookup.addresses(name.as_str());
        let allowed = self.allowed;
        Box::pin(async move {
            let found = found.await.map_err(NoAddress::Unresolved)?;
            let Some(first) = found.first().copied() else {
                return Err(NoAddress::Unresolved(io::Error::other("it has no address")));
            };
            let permitted: Vec<_> =
                found.into_iter().filter(|address| allowed.permits(*address)).map(|ip| (ip, 0).into()).collect();
            if permitted.is_empty() { Err(NoAddress::Refused(first)) } else { Ok(permitted.into_iter()) }
        })
    }
}

pub(super) async fn connect(
    target: &FetchTarget,
    proxy: Option<&Proxy>,
    lookup: Arc<dyn Lookup>,
    tls: Arc<ClientConfig>,
) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, FetchError> {
    // An IP address bypasses the resolver, but `FetchTarget::parse` has already checked it.
    let tcp = |allowed| {
        let mut tcp = HttpConnector::new_with_resolver(Guarded { lookup, allowed });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp
    };
    // An `http` URL always leads to this machine, so it does not use the proxy.
    let connected = match proxy.filter(|_| target.uri().scheme() == Some(&Scheme::HTTPS)) {
        None => HttpsConnector::from((tcp(target.allowed()), tls)).oneshot(target.uri().clone()).await,
        Some(proxy) => {
            let tunnel = Tunnel::new(proxy.uri().clone(), tcp(Allowed::by_operator()));
            HttpsConnector::from((tunnel, tls)).oneshot(target.uri().clone()).await
        }
    };
    connected.map_err(|error| {
        let (kind, cause) = judge(&*error);
        FetchError::new(kind, target.shown(), cause)
    })
}

fn judge(error: &(dyn std::error::Error + 'static)) -> (FetchErrorKind, String) {
    let causes = std::iter::successors(Some(error), |error| error.source());
    if let Some(cause) = causes.clone().find_map(|cause| cause.downcast_ref::<NoAddress>()) {
        let kind = match cause {
            NoAddress::Unresolved(_) => FetchErrorKind::Dns,
            NoAddress::Refused(_) => FetchErrorKind::RefusedAddress,
        };
        return (kind, cause.to_string());
    }
    // A plain I/O error comes from TLS, because TCP errors have another type.
    let tls = error.is::<io::Error>();
    let last = causes.last().unwrap_or(error);
    match tls {
        true => (FetchErrorKind::Tls, format!("TLS: {last}")),
        false => (FetchErrorKind::Connect, format!("cannot connect: {last}")),
    }
}

/// Records whether anything was written after the TLS handshake.
pub(super) struct Watched {
    stream: MaybeHttpsStream<TokioIo<TcpStream>>,
    written: Arc<AtomicBool>,
}

impl Watched {
    pub(super) const fn new(stream: MaybeHttpsStream<TokioIo<TcpStream>>, written: Arc<AtomicBool>) -> Self {
        Self { stream, written }
    }
}

impl Read for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}
