//! Conditions that end a connection when they become false: a valid client certificate and a trusted proxy
//! (requirements T36, T43).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use rotogate_core::clock::{SystemTime, TimeSource};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tokio::time::Instant;

use super::limits::Bounds;
use super::tls::{TlsState, end_of};

#[derive(Default)]
pub(super) struct ConnectionConditions {
    certificate: Option<Box<AcceptedCertificate>>,
    proxy: Option<Box<TrustedProxy>>,
}

/// A client certificate that the listener accepted.
struct AcceptedCertificate {
    chain: Vec<CertificateDer<'static>>,
    end: Option<Instant>,
    tls: watch::Receiver<Arc<TlsState>>,
}

struct TrustedProxy {
    address: IpAddr,
    bounds: watch::Receiver<Arc<Bounds>>,
}

impl ConnectionConditions {
    /// `tls` must not have changed since the certificate was accepted.
    pub(super) fn add_certificate(&mut self, chain: &[CertificateDer<'_>], tls: watch::Receiver<Arc<TlsState>>) {
        // A certificate is valid until the end of its last second.
        let end = chain.first().and_then(end_of).map(|last| at_unix_time(last.saturating_add(1)));
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        self.certificate = Some(Box::new(AcceptedCertificate { chain, end, tls }));
    }

    pub(super) fn add_proxy(&mut self, address: IpAddr, bounds: watch::Receiver<Arc<Bounds>>) {
        self.proxy = Some(Box::new(TrustedProxy { address, bounds }));
    }

    pub(super) async fn ended(&mut self) {
        let Self { certificate, proxy } = self;
        if certificate.is_none() && proxy.is_none() {
            return std::future::pending().await;
        }
        // Boxed to keep the common future small.
        Box::pin(async {
            tokio::select! {
                Some(()) = OptionFuture::from(certificate.as_mut().map(|certificate| certificate.ended())) => {}
                Some(()) = OptionFuture::from(proxy.as_mut().map(|proxy| proxy.ended())) => {}
            }
        })
        .await;
    }
}

impl AcceptedCertificate {
    async fn ended(&mut self) {
        let Self { chain, end, tls } = self;
        let refused = async {
            while tls.changed().await.is_ok() {
                let now = Duration::from_millis(SystemTime::new().wall().as_millis());
                let state = tls.borrow_and_update().clone();
                if !state.accepts(chain, UnixTime::since_unix_epoch(now)) {
                    return;
                }
            }
            // The listener has been dropped, so there are no further reloads.
            std::future::pending::<()>().await;
        };
        match end {
            None => refused.await,
            Some(end) => {
                let _ = tokio::time::timeout_at(*end, refused).await;
            }
        }
    }
}

impl TrustedProxy {
    async fn ended(&mut self) {
        if self.bounds.wait_for(|bounds| !bounds.trusts(self.address)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Converts a Unix time to an instant at most a year ahead, because the range of timers is limited.
fn at_unix_time(seconds: u64) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let now = Duration::from_millis(SystemTime::new().wall().as_millis());
    Instant::now() + Duration::from_secs(seconds).saturating_sub(now).min(YEAR)
}
