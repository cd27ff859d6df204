//! The seal of a session's record. Write access to the store is not sufficient to forge a record, because the seal
//! requires the gates' keys.
//!
//! The seal is a truncated HMAC-SHA-256 over all fields that a store does not change in place. A store changes
//! [`status`](Session::status), [`confirmed`](Session::confirmed) and [`revision`](Session::revision). Each refresh
//! secret has its own sealing key, and the seal contains the id of the secret.

use std::net::IpAddr;

use super::keyring::RefreshKeys;
use crate::random::are_equal;
use crate::session::{BrowserBinding, DeviceBinding, LastPair, Seal, Session, VouchedBy};

/// Most records fit into this many bytes.
const ROOM: usize = 512;

/// Why a record's seal is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenSeal {
    /// The record has no seal.
    #[error("it has no seal: another release of rotogate wrote it, or another program changed it")]
    Missing,
    /// The key ring has no refresh secret with this id.
    #[error(
        "its seal was made with refresh secret {0}, which this gate does not have; see `rotogate keys list --refresh`"
    )]
    UnknownKey(u8),
    /// The seal does not match the record's content.
    #[error("its seal does not match its content, because a program without the keys of the gates wrote or changed it")]
    Wrong,
}

/// Seals a record with the current refresh secret.
pub fn sealed(keys: &RefreshKeys, mut record: Session) -> Option<Session> {
    let key = keys.current();
    record.seal = Seal::new(key, tag(keys, key, &record)?);
    Some(record)
}

/// Checks that a gate wrote the record.
///
/// # Errors
/// The reason why a gate cannot have written the record.
pub fn check(keys: &RefreshKeys, record: &Session) -> Result<(), BrokenSeal> {
    let (key, found) = record.seal.parts().ok_or(BrokenSeal::Missing)?;
    let expected = tag(keys, key, record).ok_or(BrokenSeal::UnknownKey(key))?;
    if are_equal(&expected, &found) { Ok(()) } else { Err(BrokenSeal::Wrong) }
}

/// The secret is not copied, because erasing a copy takes as long as the hash.
fn tag(keys: &RefreshKeys, key: u8, record: &Session) -> Option<[u8; 16]> {
    keys.seal(key, &[record.id.as_bytes(), record.secret.expose(), &other_fields(record)])
}

/// Destructured, so that each new field must be handled here.
fn other_fields(record: &Session) -> Vec<u8> {
    let Session {
        id: _,
        secret: _,
        subject,
        account,
        client,
        scope,
        dialect,
        expires,
        latest_access_expires,
        current,
        previous,
        rotated_at,
        issued_at,
        confirmed: _,
        last: LastPair { scope: last_scope, access_expires, kid, refresh_key },
        status: _,
        revision: _,
        user_agent,
        address,
        claims,
        bound_to,
        resource,
        vouched_by,
        certificate,
        browser,
        seal: _,
    } = record;
    let mut fields = Fields(Vec::with_capacity(ROOM));
    for time in [expires, latest_access_expires, rotated_at, issued_at, access_expires] {
        fields.0.extend_from_slice(&time.as_millis().to_be_bytes());
    }
    for generation in [current, previous] {
        fields.0.extend_from_slice(&generation.get().to_be_bytes());
    }
    fields.0.push(*refresh_key);
    for text in [subject, client, scope.as_str(), dialect, last_scope.as_str(), kid, &claims.text()] {
        fields.some(text.as_bytes());
    }
    for text in [account, user_agent, resource] {
        fields.maybe(text.as_deref().map(str::as_bytes));
    }
    fields.maybe(bound_to.as_ref().map(|key| key.as_bytes().as_slice()));
    fields.maybe(certificate.as_ref().map(|certificate| certificate.as_bytes().as_slice()));
    match address {
        None => fields.maybe(None),
        Some(IpAddr::V4(address)) => fields.some(&address.octets()),
        Some(IpAddr::V6(address)) => fields.some(&address.octets()),
    }
    let by = vouched_by.as_deref().map(|VouchedBy { issuer, subject, session }| (issuer, subject, session));
    fields.maybe(by.map(|(issuer, ..)| issuer.as_bytes()));
    fields.maybe(by.map(|(_, subject, _)| subject.as_bytes()));
    fields.maybe(by.and_then(|(.., session)| session.as_deref()).map(str::as_bytes));
    if let Some(BrowserBinding { key, digest, at_provider, device }) = browser.as_deref() {
        fields.0.extend([*key, u8::from(*at_provider)]);
        fields.some(digest);
        if let Some(DeviceBinding { thumbprint, key, bound_at }) = device.as_deref() {
            let (kind, parts) = key.parts();
            fields.0.push(kind);
            parts.into_iter().for_each(|part| fields.some(part));
            fields.some(thumbprint.as_bytes());
            fields.0.extend_from_slice(&bound_at.as_millis().to_be_bytes());
        }
    }
    fields.0
}

/// Each field follows its length, so different lists have different bytes.
struct Fields(Vec<u8>);

impl Fields {
    fn some(&mut self, field: &[u8]) {
        self.0.extend_from_slice(&(field.len() as u64).to_be_bytes());
        self.0.extend_from_slice(field);
    }

    /// The length `u64::MAX` marks a missing field.
    fn maybe(&mut self, field: Option<&[u8]>) {
        match field {
            Some(field) => self.some(field),
            None => self.0.extend_from_slice(&u64::MAX.to_be_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::session::{DeviceKey, Generation, RevokedBecause, Scope, SessionId, SessionSecret, Status};
    use crate::store::conformance;
    use crate::thumbprint::{CertificateThumbprint, KeyThumbprint};
    use crate::token::Keyring;

    const AT: Timestamp = Timestamp::from_secs(1_800_000_000);

    type Forgery = fn(&mut Session);

    /// Each forgery changes one sealed field, or moves bytes to the next field.
    fn forgeries() -> Vec<(&'static str, Forgery)> {
        fn bind(record: &mut Session) {
            record.bound_to = Some(KeyThumbprint::from_bytes([7; 32]));
        }
        vec![
            ("id", |record| record.id = SessionId::new(AT, [9; 10])),
            ("secret", |record| record.secret = SessionSecret::new([1; 16])),
            ("subject", |record| record.subject = "victim".into()),
            ("account", |record| record.account = None),
            ("empty account", |record| record.account = Some("".into())),
            ("client", |record| record.client = "other".into()),
            ("scope", |record| record.scope = Scope::parse("admin read write").unwrap()),
            ("dialect", |record| record.dialect = "kuzzle".into()),
            ("expires", |record| record.expires = Timestamp::MAX),
            ("latest_access_expires", |record| record.latest_access_expires = AT),
            ("current", |record| record.current = Generation::new(2)),
            ("previous", |record| record.previous = Generation::FIRST),
            ("rotated_at", |record| record.rotated_at = Timestamp::ZERO),
            ("issued_at", |record| record.issued_at = Timestamp::MAX),
            ("last scope", |record| record.last.scope = Scope::parse("write").unwrap()),
            ("last expiry", |record| record.last.access_expires = Timestamp::MAX),
            ("last kid", |record| record.last.kid = "key-2".into()),
            ("last refresh key", |record| record.last.refresh_key = 2),
            ("user agent", |record| record.user_agent = None),
            ("address", |record| record.address = None),
            ("claims", |record| record.claims.insert("roles", ["admin"]).unwrap()),
            ("key", bind),
            ("certificate", |record| record.certificate = Some(CertificateThumbprint::from_der(b"another"))),
            ("key as certificate", |record| record.certificate = Some(CertificateThumbprint::from_bytes([7; 32]))),
            ("resource", |record| record.resource = Some("https://api.test".into())),
            ("issuer", |record| record.vouched_by = Some(Box::new(VouchedBy::new("https://idp.test", "u-1")))),
            ("cookie", |record| {
                record.browser =
                    Some(Box::new(BrowserBinding { key: 1, digest: [7; 32], at_provider: false, device: None }));
            }),
            ("subject and client", |record| {
                record.subject = "alicew".into();
                record.client = "eb".into();
            }),
            ("account and user agent", |record| {
                record.account = None;
                record.user_agent = Some("acmea phone".into());
            }),
        ]
    }

    #[test]
    fn j23_a_seal_is_of_every_field_that_a_gate_writes_whole() {
        let keyring = Keyring::ephemeral().unwrap();
        let keys = keyring.refresh_keys();
        let record = sealed(keys, conformance::session("alice", 1, AT)).unwrap();
        assert_eq!(check(keys, &record), Ok(()));
        for (what, forge) in forgeries() {
            let mut forged = record.clone();
            forge(&mut forged);
            assert_ne!(forged, record, "{what}");
            assert_eq!(check(keys, &forged), Err(BrokenSeal::Wrong), "{what}");
        }
        let mut bound = conformance::session("alice", 1, AT);
        bound.bound_to = Some(KeyThumbprint::from_bytes([7; 32]));
        let bound = sealed(keys, bound).unwrap();
        assert_eq!(check(keys, &Session { bound_to: None, ..bound }), Err(BrokenSeal::Wrong));
        let changed = Session {
            status: Status::Revoked(RevokedBecause::Operator),
            confirmed: true,
            revision: 9,
            ..record.clone()
        };
        assert_eq!(check(keys, &changed), Ok(()));
    }

    #[test]
    fn b4_a_writer_to_the_store_can_neither_swap_a_cookie_nor_take_it_away() {
        let keyring = Keyring::ephemeral().unwrap();
        let keys = keyring.refresh_keys();
        let binding = BrowserBinding { key: 1, digest: [7; 32], at_provider: false, device: None };
        let mut session = conformance::session("alice", 1, AT);
        session.browser = Some(Box::new(binding.clone()));
        let record = sealed(keys, session).unwrap();
        assert_eq!(check(keys, &record), Ok(()));
        for forged in [
            None,
            Some(BrowserBinding { key: 2, ..binding.clone() }),
            Some(BrowserBinding { digest: [8; 32], ..binding }),
        ] {
            let forged = Session { browser: forged.map(Box::new), ..record.clone() };
            assert_eq!(check(keys, &forged), Err(BrokenSeal::Wrong));
        }
    }

    #[test]
    fn b47_a_writer_to_the_store_can_neither_swap_the_key_of_a_device_nor_take_it_away() {
        let keyring = Keyring::ephemeral().unwrap();
        let keys = keyring.refresh_keys();
        let thumbprint = KeyThumbprint::from_bytes([4; 32]);
        let device = DeviceBinding { thumbprint, key: DeviceKey::Es256 { x: [1; 32], y: [2; 32] }, bound_at: AT };
        let binding = |device: Option<&DeviceBinding>| {
            let device = device.cloned().map(Box::new);
            Some(Box::new(BrowserBinding { key: 1, digest: [7; 32], at_provider: false, device }))
        };
        let session = Session { browser: binding(Some(&device)), ..conformance::session("alice", 1, AT) };
        let record = sealed(keys, session).unwrap();
        assert_eq!(check(keys, &record), Ok(()));
        for forged in [
            None,
            Some(DeviceBinding { key: DeviceKey::Es256 { x: [1; 32], y: [3; 32] }, ..device.clone() }),
            Some(DeviceBinding { key: DeviceKey::Rs256 { n: [1; 32].into(), e: [2; 32].into() }, ..device.clone() }),
            Some(DeviceBinding { thumbprint: KeyThumbprint::from_bytes([5; 32]), ..device.clone() }),
            Some(DeviceBinding { bound_at: Timestamp::MAX, ..device.clone() }),
        ] {
            let forged = Session { browser: binding(forged.as_ref()), ..record.clone() };
            assert_eq!(check(keys, &forged), Err(BrokenSeal::Wrong));
        }
    }

    #[test]
    fn j23_only_a_key_of_the_gates_makes_a_seal() {
        let (own, other) = (Keyring::ephemeral().unwrap(), Keyring::ephemeral().unwrap());
        let record = conformance::session("alice", 1, AT);
        assert_eq!(check(own.refresh_keys(), &record), Err(BrokenSeal::Missing));
        let foreign = sealed(other.refresh_keys(), record.clone()).unwrap();
        assert_eq!(check(own.refresh_keys(), &foreign), Err(BrokenSeal::Wrong));
        let (_, tag) = foreign.seal.parts().unwrap();
        let of_another_key = Session { seal: Seal::new(9, tag), ..foreign };
        assert_eq!(check(own.refresh_keys(), &of_another_key), Err(BrokenSeal::UnknownKey(9)));
    }
}
