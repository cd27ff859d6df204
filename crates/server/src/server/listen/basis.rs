//! What the set-up of a connection relied on and time or a reload may take back: the certificate of its client, and the
//! trust in the proxy that carries it (requirements T36, T43).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rotogate_core::clock::{SystemTime, TimeSource};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tokio::time::Instant;

use super::limits::Limits;
use super::tls::{Tls, end_of};

/// The certificate that a client showed at a listener.
struct Shown {
    tls: Arc<Tls>,
    changes: watch::Receiver<()>,
    chain: Vec<CertificateDer<'static>>,
    /// Its end, after which it proves nothing.
    until: Option<Instant>,
}

/// A proxy that was trusted to carry connections of others.
struct Trusted {
    limits: Arc<Limits>,
    changes: watch::Receiver<()>,
    proxy: IpAddr,
}

/// What a connection relies on. The default relies on nothing that can be taken back.
#[derive(Default)]
pub(crate) struct Basis {
    certificate: Option<Box<Shown>>,
    proxy: Option<Box<Trusted>>,
}

impl Basis {
    /// Relies on this chain, which the listener has accepted. `changes` are those since then.
    pub(super) fn add_certificate(
        &mut self,
        tls: &Arc<Tls>,
        changes: watch::Receiver<()>,
        chain: &[CertificateDer<'_>],
    ) {
        // It is valid up to and including that second.
        let end = chain.first().and_then(end_of);
        let until = end.map(|last| at_unix_time(last.saturating_add(1)));
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        self.certificate = Some(Box::new(Shown { tls: Arc::clone(tls), changes, chain, until }));
    }

    /// Relies on the trust in this proxy.
    pub(super) fn add_proxy(&mut self, limits: &Arc<Limits>, proxy: IpAddr) {
        let mut changes = limits.changes();
        // A reload may have come since the trust was looked up.
        changes.mark_changed();
        self.proxy = Some(Box::new(Trusted { limits: Arc::clone(limits), changes, proxy }));
    }

    /// Resolves when the connection may serve no further request.
    pub(super) async fn ended(&mut self) {
        if self.certificate.is_none() && self.proxy.is_none() {
            return std::future::pending().await;
        }
        // Boxed: most connections rely on neither, and each would have room for it.
        Box::pin(async {
            tokio::select! {
                () = refused(&mut self.certificate) => {}
                () = distrusted(&mut self.proxy) => {}
            }
        })
        .await;
    }
}

/// Resolves when the listener accepts the certificate no longer.
async fn refused(certificate: &mut Option<Box<Shown>>) {
    let Some(shown) = certificate else { return std::future::pending().await };
    let Shown { tls, changes, chain, until } = &mut **shown;
    let ends = async {
        match until {
            None => std::future::pending().await,
            Some(until) => tokio::time::sleep_until(*until).await,
        }
    };
    let taken_back = async {
        while changes.changed().await.is_ok() {
            let now = Duration::from_millis(SystemTime::new().wall().as_millis());
            if !tls.now().accepts(chain, UnixTime::since_unix_epoch(now)) {
                return;
            }
        }
        // The listener is gone, and its connections end with the gate.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = ends => {}
        () = taken_back => {}
    }
}

/// Resolves when the proxy is no longer in `trusted_proxies`.
async fn distrusted(proxy: &mut Option<Box<Trusted>>) {
    let Some(trusted) = proxy else { return std::future::pending().await };
    while trusted.changes.changed().await.is_ok() {
        if !trusted.limits.bounds.load().trusts(trusted.proxy) {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// The moment at which the wall clock, as it goes now, will show this Unix time; at the latest in a year, which is longer
/// than a timer can last.
fn at_unix_time(seconds: u64) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let now = Duration::from_millis(SystemTime::new().wall().as_millis());
    Instant::now() + Duration::from_secs(seconds).saturating_sub(now).min(YEAR)
}
