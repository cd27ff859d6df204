//! The TLS of a listener (requirement T16): TLS 1.2 and 1.3, with AEADs and ephemeral keys only. Renegotiation and
//! early data are not supported.
//!
//! After [`Tls::reload`], new connections get the new certificates. An open connection ends if the client's certificate
//! is no longer accepted.

mod certificates;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientCertVerifierBuilder, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

pub(crate) use certificates::{Certificates, end_of};

use crate::server::error::KeyFault;
use rotogate_config::{ClientAuth, ClientRoots, TlsConfig};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::private_file::trusted;

/// The ALPN protocols, in order of preference (RFC 7301). Clients that offer only other protocols are refused, which
/// prevents cross-protocol attacks (ALPACA).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
const MAX_FILE_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub(crate) struct TlsState {
    pub(crate) settings: Arc<ServerConfig>,
    pub(crate) certificates: Arc<Certificates>,
    /// Whether upstreams get the client's certificate.
    pub(super) tells_upstreams: bool,
    /// `None` if the listener does not request client certificates.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl TlsState {
    /// Checks the client's certificate chain again, at the time `now`.
    pub(super) fn accepts(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let (Some(verifier), Some((leaf, rest))) = (&self.verifier, chain.split_first()) else { return false };
        verifier.verify_client_cert(leaf, rest, now).is_ok()
    }
}

#[derive(Debug)]
pub(crate) struct Tls {
    config: ArcSwap<TlsConfig>,
    loaded: watch::Sender<Arc<TlsState>>,
}

impl Tls {
    /// Loads the settings without repeating the warnings.
    pub(crate) fn load(config: &TlsConfig) -> Result<Self, KeyFault> {
        let (loaded, _) = load(config)?;
        Ok(Self { config: ArcSwap::from_pointee(config.clone()), loaded: watch::Sender::new(Arc::new(loaded)) })
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<TlsState>> {
        self.loaded.subscribe()
    }

    pub(crate) fn reload(&self) -> Result<(), KeyFault> {
        // New settings also have new ticket keys, so that no session is resumed under the old rules.
        self.loaded.send_replace(Arc::new(load_and_warn(&self.config.load())?));
        Ok(())
    }

    pub(crate) fn replace(&self, other: Self) {
        self.config.store(other.config.into_inner());
        self.loaded.send_replace(other.loaded.borrow().clone());
    }

    pub(crate) fn periods(&self) -> Vec<(String, Option<u64>, u64)> {
        let config = self.config.load();
        let files = config.certificates.iter().map(|files| files.cert.display().to_string());
        let periods = self.loaded.borrow().certificates.periods();
        files.zip(periods).filter_map(|(file, (begin, end))| Some((file, begin, end?))).collect()
    }

    pub(crate) fn key(&self) -> String {
        self.config.load().key.clone()
    }
}

pub(crate) fn files_of(config: &TlsConfig) -> impl Iterator<Item = &Path> {
    let of_clients = config.client_auth.roots();
    let of_clients = of_clients.into_iter().flat_map(|ClientRoots { ca, crls, .. }| std::iter::once(ca).chain(crls));
    let own = config.certificates.iter().flat_map(|files| [files.cert.as_path(), files.key.as_path()]);
    own.chain(of_clients.map(PathBuf::as_path))
}

fn load_and_warn(config: &TlsConfig) -> Result<TlsState, KeyFault> {
    let (loaded, warnings) = load(config)?;
    for KeyFault { key, message } in warnings {
        tracing::warn!(key, "{message}");
    }
    Ok(loaded)
}

pub(crate) fn load(config: &TlsConfig) -> Result<(TlsState, Vec<KeyFault>), KeyFault> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut warnings = Vec::new();
    let certificates = Arc::new(Certificates::load(&config.key, &config.certificates, &provider, &mut warnings)?);
    let failed = |what: &str| KeyFault::new(&config.key, what);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error.to_string()))?;
    let verifier = config.client_auth.roots().map(|of_clients| client_verifier(config, of_clients, &provider));
    let verifier = verifier.transpose()?.map(|(verifier, late)| {
        warnings.extend(late);
        let is_optional = matches!(config.client_auth, ClientAuth::Optional(_));
        let verifier = if is_optional { verifier.allow_unauthenticated() } else { verifier };
        verifier.build().map_err(|error| failed(&error.to_string()))
    });
    let verifier = verifier.transpose()?;
    let builder = match &verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
    };
    let mut settings = builder.with_cert_resolver(Arc::clone(&certificates) as Arc<_>);
    settings.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Early data can be replayed, and a refresh must not be replayed (RFC 8470 §4).
    settings.max_early_data_size = 0;
    match &config.client_auth {
        ClientAuth::None => {
            settings.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| failed(&error.to_string()))?;
        }
        // A resumed session would skip the verification of a certificate that has expired or was revoked meanwhile
        // (requirement T35).
        ClientAuth::Optional(_) | ClientAuth::Required(_) => {
            settings.session_storage = Arc::new(NoServerSessionStorage {});
            settings.send_tls13_tickets = 0;
        }
    }
    let tells_upstreams = config.client_auth.roots().is_some_and(|roots| roots.header);
    Ok((TlsState { settings: Arc::new(settings), certificates, tells_upstreams, verifier }, warnings))
}

/// Builds a verifier for client certificates, and collects warnings. With revocation lists, each certificate below a
/// root needs a current list from its issuer.
fn client_verifier(
    config: &TlsConfig,
    ClientRoots { ca, crls, header: _ }: &ClientRoots,
    provider: &Arc<CryptoProvider>,
) -> Result<(ClientCertVerifierBuilder, Vec<KeyFault>), KeyFault> {
    let at = |key: &str, message: String| KeyFault::new(format!("{}.{key}", config.key), message);
    let verifier = roots(ca, provider).map_err(|message| at("client_ca", message))?;
    let (mut lists, mut warnings) = (Vec::new(), Vec::new());
    for path in crls {
        let (read, late) = revoked(path).map_err(|message| at("client_crl", message))?;
        lists.extend(read);
        warnings.extend(late.map(|message| at("client_crl", message)));
    }
    let verifier = verifier.with_crls(lists).enforce_revocation_expiration();
    Ok((verifier, warnings))
}

/// Reads the revocation lists of a PEM file, and returns warnings about their validity times.
fn revoked(path: &Path) -> Result<(Vec<CertificateRevocationListDer<'static>>, Option<String>), String> {
    let shown = path.display();
    let pem = trusted::read(path, MAX_FILE_BYTES)?;
    let lists: Vec<CertificateRevocationListDer<'_>> = CertificateRevocationListDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{shown}: is not PEM: {error}"))?;
    if lists.is_empty() {
        return Err(format!("{shown}: contains no certificate revocation list; expected -----BEGIN X509 CRL-----"));
    }
    let now = i64::try_from(SystemTime::new().wall().as_millis() / 1000).unwrap_or(i64::MAX);
    let mut late = None;
    for list in &lists {
        let (_, list) = CertificateRevocationList::from_der(list)
            .map_err(|error| format!("{shown}: a certificate revocation list cannot be read: {error}"))?;
        let Some(next) = list.next_update() else {
            return Err(format!("{shown}: a certificate revocation list has no `nextUpdate`"));
        };
        if next.timestamp() < now {
            let issuer = list.issuer();
            late = Some(format!(
                "{shown}: the certificate revocation list of {issuer} expired at {next}, so certificates of this \
                 issuer are refused"
            ));
        }
    }
    Ok((lists, late))
}

fn roots(path: &Path, provider: &Arc<CryptoProvider>) -> Result<ClientCertVerifierBuilder, String> {
    let mut roots = RootCertStore::empty();
    for root in chain(path)? {
        roots.add(root).map_err(|error| format!("{}: not a root certificate: {error}", path.display()))?;
    }
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let pem = trusted::read(path, MAX_FILE_BYTES)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{shown}: is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err(format!("{shown}: holds no certificate; expected -----BEGIN CERTIFICATE-----"));
    }
    Ok(chain)
}
