//! The certificates of a listener, and which of them is for which name.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage};

use super::{MAX_LEN, Wrong, chain};
use crate::config::CertificateFiles;
use rotogate::clock::{SystemTime, TimeSource};
use rotogate::private_file::read_private_bytes;

/// See the module. At least one.
#[derive(Debug)]
pub(crate) struct Certificates(Vec<Arc<CertifiedKey>>);

impl Certificates {
    pub(super) fn load(
        files: &[CertificateFiles],
        provider: &CryptoProvider,
        warnings: &mut Vec<Wrong>,
    ) -> Result<Self, Wrong> {
        files.iter().map(|files| load(files, provider, warnings)).collect::<Result<_, _>>().map(Self)
    }

    /// Which is for this name: the first that says so, as a client would judge it, wildcards included. The first of all
    /// is also for those that none is for.
    fn place(&self, name: &str) -> usize {
        // A fully qualified name is the same name.
        let name = name.strip_suffix('.').unwrap_or(name);
        let Ok(name) = ServerName::try_from(name) else { return 0 };
        let is_for = |key: &Arc<CertifiedKey>| {
            let certificate = key.cert.first().and_then(|certificate| EndEntityCert::try_from(certificate).ok());
            certificate.is_some_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        };
        self.0.iter().position(is_for).unwrap_or(0)
    }

    /// Is the same certificate for both names? Then whoever meant to speak to one may speak to the other. Who named none
    /// was shown the first.
    pub(crate) fn are_one(&self, name: Option<&str>, other: &str) -> bool {
        self.0.len() == 1
            || name.is_some_and(|name| name.eq_ignore_ascii_case(other))
            || name.map_or(0, |name| self.place(name)) == self.place(other)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let place = hello.server_name().map_or(0, |name| self.place(name));
        self.0.get(place).cloned()
    }
}

fn load(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    warnings: &mut Vec<Wrong>,
) -> Result<Arc<CertifiedKey>, Wrong> {
    let at = |key: &str| {
        let key = format!("{}.{key}", files.place);
        move |message| Wrong { key, message }
    };
    let certificates = chain(&files.cert).map_err(at("cert"))?;
    let shown = files.cert.display();
    if let Some(first) = certificates.first() {
        let certificate = EndEntityCert::try_from(first)
            .map_err(|error| format!("{shown}: its first certificate is none for a server: {error}"))
            .map_err(at("cert"))?;
        let late = wrong_time(&certificate).map(|what| format!("{shown}: {what}: clients will refuse it"));
        warnings.extend(late.map(at("cert")));
    }
    let pem = read_private_bytes(&files.key, MAX_LEN).map_err(at("key"))?;
    let shown_key = files.key.display();
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| {
            format!("{shown_key}: holds no private key that can be read: {error}; expected an unencrypted key in PEM")
        })
        .map_err(at("key"))?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| format!("{shown_key}: its private key cannot be used: {error}"))
        .map_err(at("key"))?;
    let pair = CertifiedKey::new(certificates, key);
    match pair.keys_match() {
        // What cannot tell its public key cannot be held against it.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(pair)),
        Err(_) => Err(at("key")(format!(
            "{shown_key}: is not the private key of the first certificate in {shown}, which must be the server's own, \
             before those that issued it"
        ))),
    }
}

/// A certificate at the wrong time is served all the same: clients that check refuse it, and those that do not, and
/// everything else, go on. The clock of this machine may be what is wrong.
fn wrong_time(certificate: &EndEntityCert<'_>) -> Option<String> {
    let now = Duration::from_millis(SystemTime::new().wall().as_millis());
    // Without roots there is no path to find; what is asked is whether its time is what it fails by, which comes first.
    let judged = certificate.verify_for_usage(
        &[],
        &[],
        &[],
        UnixTime::since_unix_epoch(now),
        KeyUsage::server_auth(),
        None,
        None,
    );
    let shown = |time: UnixTime| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    match judged.err()? {
        webpki::Error::CertExpired { not_after, .. } => Some(format!("expired at {}", shown(not_after))),
        webpki::Error::CertNotValidYet { not_before, .. } => Some(format!("is not valid before {}", shown(not_before))),
        _ => None,
    }
}
