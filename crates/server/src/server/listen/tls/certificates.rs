//! The certificates of a listener, and the choice of a certificate by the server name.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage};

use super::{MAX_FILE_BYTES, chain};
use crate::server::error::KeyFault;
use rotogate_config::CertificateFiles;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::private_file::read_private_bytes;

/// The certificates of a listener. The list is not empty.
#[derive(Debug)]
pub(crate) struct Certificates(Vec<Arc<CertifiedKey>>);

impl Certificates {
    /// Loads the certificates. `table` is the configuration key of the table, such as `server.tls`.
    pub(super) fn load(
        table: &str,
        files: &[CertificateFiles],
        provider: &CryptoProvider,
        warnings: &mut Vec<KeyFault>,
    ) -> Result<Self, KeyFault> {
        files.iter().map(|files| load(table, files, provider, warnings)).collect::<Result<_, _>>().map(Self)
    }

    /// Returns two Unix times for each chain: the start of its first certificate's validity, and the earliest expiry of
    /// a certificate in the chain.
    pub(super) fn periods(&self) -> Vec<(Option<u64>, Option<u64>)> {
        let period = |pair: &Arc<CertifiedKey>| {
            (pair.cert.first().and_then(begin_of), pair.cert.iter().filter_map(end_of).min())
        };
        self.0.iter().map(period).collect()
    }

    /// Returns the index of the certificate for a name. This is the first certificate that a client would accept for
    /// this name, including wildcard certificates, or otherwise the first certificate of the listener.
    fn position(&self, name: &str) -> usize {
        // A trailing dot makes a name fully qualified, but does not change its meaning.
        let name = name.strip_suffix('.').unwrap_or(name);
        let Ok(name) = ServerName::try_from(name) else { return 0 };
        let is_for = |key: &Arc<CertifiedKey>| {
            let certificate = key.cert.first().and_then(|certificate| EndEntityCert::try_from(certificate).ok());
            certificate.is_some_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        };
        self.0.iter().position(is_for).unwrap_or(0)
    }

    /// Returns whether both names get the same certificate. If so, a connection for one name may carry requests for the
    /// other name. A `name` of `None` means that the client sent no SNI, and got the first certificate.
    pub(crate) fn share_certificate(&self, name: Option<&str>, other: &str) -> bool {
        self.0.len() == 1
            || name.is_some_and(|name| name.eq_ignore_ascii_case(other))
            || name.map_or(0, |name| self.position(name)) == self.position(other)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let position = hello.server_name().map_or(0, |name| self.position(name));
        self.0.get(position).cloned()
    }
}

/// Returns the Unix time at which a certificate expires.
pub(crate) fn end_of(certificate: &CertificateDer<'_>) -> Option<u64> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    // webpki reports the expiry time in its error about an expired certificate. The time in this call
    // is later than the expiry of every certificate.
    match judge(&certificate, Duration::from_secs(u64::MAX)).err()? {
        webpki::Error::CertExpired { not_after, .. } => Some(not_after.as_secs()),
        _ => None,
    }
}

/// Returns the Unix time at which a certificate becomes valid. At the Unix epoch, no certificate was valid yet.
fn begin_of(certificate: &CertificateDer<'_>) -> Option<u64> {
    match judge(&EndEntityCert::try_from(certificate).ok()?, Duration::ZERO).err()? {
        webpki::Error::CertNotValidYet { not_before, .. } => Some(not_before.as_secs()),
        _ => None,
    }
}

fn load(
    table: &str,
    files: &CertificateFiles,
    provider: &CryptoProvider,
    warnings: &mut Vec<KeyFault>,
) -> Result<Arc<CertifiedKey>, KeyFault> {
    let at = |key: &str| {
        let place = files.place.map(|place| format!("[{place}]")).unwrap_or_default();
        let key = format!("{table}.{key}{place}");
        move |message| KeyFault { key, message }
    };
    let certificates = chain(&files.cert).map_err(at("cert"))?;
    let shown = files.cert.display();
    if let Some(first) = certificates.first() {
        let certificate = EndEntityCert::try_from(first)
            .map_err(|error| format!("{shown}: its first certificate is not a server certificate: {error}"))
            .map_err(at("cert"))?;
        let late =
            wrong_time(&certificate).map(|what| format!("{shown}: the certificate {what}, so clients will refuse it"));
        warnings.extend(late.map(at("cert")));
    }
    let pem = read_private_bytes(&files.key, MAX_FILE_BYTES).map_err(at("key"))?;
    let shown_key = files.key.display();
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| {
            format!("{shown_key}: not a readable private key: {error}; expected an unencrypted private key in PEM")
        })
        .map_err(at("key"))?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| format!("{shown_key}: its private key cannot be used: {error}"))
        .map_err(at("key"))?;
    let pair = CertifiedKey::new(certificates, key);
    match pair.keys_match() {
        // rustls cannot compare this kind of key, so the pair is accepted.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(pair)),
        Err(_) => Err(at("key")(format!(
            "{shown_key}: is not the private key of the first certificate in {shown}. The first certificate must be \
             the server's own, followed by the certificates that issued it"
        ))),
    }
}

/// Describes the problem if a certificate is outside its validity period. The listener serves the certificate anyway.
/// Clients that check the period refuse it, other clients keep working, and the clock of this machine may be wrong.
fn wrong_time(certificate: &EndEntityCert<'_>) -> Option<String> {
    let now = Duration::from_millis(SystemTime::new().wall().as_millis());
    let shown = |time: UnixTime| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    match judge(certificate, now).err()? {
        webpki::Error::CertExpired { not_after, .. } => Some(format!("expired at {}", shown(not_after))),
        webpki::Error::CertNotValidYet { not_before, .. } => Some(format!("is not valid before {}", shown(not_before))),
        _ => None,
    }
}

/// Checks whether a certificate is within its validity period. Without root certificates, webpki does not find a path.
/// But it checks the validity period before the path, so its error shows whether the period is the problem.
fn judge(certificate: &EndEntityCert<'_>, at: Duration) -> Result<(), webpki::Error> {
    let at = UnixTime::since_unix_epoch(at);
    certificate.verify_for_usage(&[], &[], &[], at, KeyUsage::server_auth(), None, None).map(drop)
}
