//! The certificates of a listener, and the choice of a certificate by server name.

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

#[derive(Debug)]
pub(crate) struct Certificates(Vec<Arc<CertifiedKey>>);

impl Certificates {
    /// `table` is the configuration key of the table, such as `server.tls`.
    pub(super) fn load(
        table: &str,
        files: &[CertificateFiles],
        provider: &CryptoProvider,
        warnings: &mut Vec<KeyFault>,
    ) -> Result<Self, KeyFault> {
        files.iter().map(|files| load(table, files, provider, warnings)).collect::<Result<_, _>>().map(Self)
    }

    /// Returns two Unix times for each chain: when the first certificate becomes valid, and the earliest expiry.
    pub(super) fn periods(&self) -> Vec<(Option<u64>, Option<u64>)> {
        let period = |pair: &Arc<CertifiedKey>| {
            (pair.cert.first().and_then(begin_of), pair.cert.iter().filter_map(end_of).min())
        };
        self.0.iter().map(period).collect()
    }

    /// Returns the index of the first certificate that matches the name, or 0.
    fn position(&self, name: &str) -> usize {
        // A trailing dot marks a fully qualified name, and does not change its meaning.
        let name = name.strip_suffix('.').unwrap_or(name);
        let Ok(name) = ServerName::try_from(name) else { return 0 };
        let is_for = |key: &Arc<CertifiedKey>| {
            let certificate = key.cert.first().and_then(|certificate| EndEntityCert::try_from(certificate).ok());
            certificate.is_some_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        };
        self.0.iter().position(is_for).unwrap_or(0)
    }

    /// Returns whether both names get the same certificate, and may therefore share a connection. `None` means that the
    /// client sent no SNI.
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

pub(crate) fn end_of(certificate: &CertificateDer<'_>) -> Option<u64> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    // webpki reports `not_after` only for an expired certificate.
    match judge(&certificate, Duration::from_secs(u64::MAX)).err()? {
        webpki::Error::CertExpired { not_after, .. } => Some(not_after.as_secs()),
        _ => None,
    }
}

/// Returns the Unix time at which a certificate becomes valid. No certificate is valid at the Unix epoch.
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
        // rustls cannot compare keys of this type.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(pair)),
        Err(_) => Err(at("key")(format!(
            "{shown_key}: is not the private key of the first certificate in {shown}. The first certificate must be \
             the server's own, followed by the certificates that issued it"
        ))),
    }
}

/// Returns a warning if a certificate is outside its validity period. The listener still uses the certificate, because
/// this machine's clock may be wrong.
fn wrong_time(certificate: &EndEntityCert<'_>) -> Option<String> {
    let now = Duration::from_millis(SystemTime::new().wall().as_millis());
    let shown = |time: UnixTime| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    match judge(certificate, now).err()? {
        webpki::Error::CertExpired { not_after, .. } => Some(format!("expired at {}", shown(not_after))),
        webpki::Error::CertNotValidYet { not_before, .. } => Some(format!("is not valid before {}", shown(not_before))),
        _ => None,
    }
}

/// Checks the validity period of a certificate. webpki checks the period before the certification path, so an invalid
/// period determines the error.
fn judge(certificate: &EndEntityCert<'_>, at: Duration) -> Result<(), webpki::Error> {
    let at = UnixTime::since_unix_epoch(at);
    certificate.verify_for_usage(&[], &[], &[], at, KeyUsage::server_auth(), None, None).map(drop)
}
