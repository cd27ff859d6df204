//! Certificates for a single test, and their folder.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{CONFIG, Place, keep_secret};

pub struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pair {
    /// Returns the public key's hash, as Chromium expects it (`--ignore-certificate-errors-spki-list`).
    pub fn key_hash(&self) -> String {
        use base64::Engine;
        use rcgen::PublicKeyData;
        let key = KeyPair::from_pem(&self.key).unwrap().subject_public_key_info();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key);
        base64::engine::general_purpose::STANDARD.encode(hash.as_ref())
    }
}

pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Authorities need different names.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, |_| {})
    }

    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let key = key.serialize_pem();
        key.lines().filter(|line| !line.starts_with("-----")).for_each(keep_secret);
        Pair { cert: cert.pem(), key }
    }

    /// Returns a CRL in PEM with these serial numbers. `nextUpdate` is the start of `until_year`.
    pub fn revocations(&self, serials: &[u64], until_year: i32) -> String {
        let begun = date_time_ymd(2000, 1, 1);
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: begun,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: begun,
            next_update: date_time_ymd(until_year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    pub fn root_pem(&self) -> String {
        self.issuer.as_ref().pem()
    }

    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.as_ref().der().clone()).unwrap();
        Arc::new(roots)
    }
}

impl Pair {
    /// Writes `name.pem`, and `name.key` (0600).
    pub fn write(&self, place: &Place, name: &str) {
        fs::write(place.path(&format!("{name}.pem")), &self.cert).unwrap();
        write_private(&place.path(&format!("{name}.key")), &self.key);
    }

    pub fn der(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let cert = CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap();
        (cert, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
    }
}

pub fn write_private(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

/// The configuration of most tests, with these lines in `[server]`.
pub fn with_server(lines: &str) -> String {
    CONFIG.replace("[server]\n", &format!("[server]\n{lines}\n"))
}

/// Makes a gate's folder with a certificate for `gate.test`, and a matching configuration.
pub fn secure_place(pki: &Pki, more: &str) -> Place {
    let place = Place::new(&with_server(&format!("tls = {{ cert = \"server.pem\", key = \"server.key\" }}\n{more}")));
    pki.issue(&["gate.test"]).write(&place, "server");
    place
}
