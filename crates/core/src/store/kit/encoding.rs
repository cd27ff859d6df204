//! The encoding of records: a version byte, then postcard. An unknown version is an error.

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::revocation::Target;
use crate::session::{Session, SessionId};
use crate::store::StoreError;

const VERSION: u8 = 1;

/// Encodes a record, which may contain a session's secret.
///
/// # Errors
/// The encoding never fails for a record that a gate made.
pub fn encode(record: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    postcard::to_extend(record, vec![VERSION])
        .map(Zeroizing::new)
        .map_err(|error| StoreError::caused_by("a record cannot be encoded", error))
}

/// Decodes the result of [`encode`]. `what` names the record in errors.
///
/// # Errors
/// The bytes are damaged or of another version.
pub fn decode<T: DeserializeOwned>(what: impl std::fmt::Display, bytes: &[u8]) -> Result<T, StoreError> {
    let record = match bytes.split_first() {
        Some((&VERSION, record)) => record,
        Some((version, _)) => {
            return Err(StoreError::new(format!(
                "{what} has record version {version}, but this program reads only version {VERSION}: it was written \
                 by another version of rotogate, which can read it"
            )));
        }
        None => return Err(StoreError::new(format!("the store is damaged: {what} is empty"))),
    };
    match postcard::take_from_bytes(record) {
        Ok((record, [])) => Ok(record),
        Ok((_, more)) => Err(StoreError::new(format!("the store is damaged: {what} has {} extra bytes", more.len()))),
        Err(error) => Err(StoreError::caused_by(format!("the store is damaged: {what} cannot be read"), error)),
    }
}

/// Decodes a record, and checks that it has this id. An error concerns only this record.
///
/// # Errors
/// The bytes are damaged, or belong to another session.
pub fn decode_session(id: &[u8; 16], bytes: &[u8]) -> Result<Session, StoreError> {
    let id = SessionId::from_bytes(*id);
    match decode::<Session>(format_args!("session {id}"), bytes) {
        Ok(session) if session.id == id => Ok(session),
        Ok(session) => {
            Err(StoreError::new(format!("the store is damaged: session {} is stored under the id {id}", session.id)))
        }
        Err(error) => Err(error),
    }
    .map_err(StoreError::of_one_record)
}

/// Encodes a target into the database key of its revocation.
///
/// # Errors
/// The encoding never fails for a target that a gate made.
pub fn encode_target(target: &Target) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(target)
        .map_err(|error| StoreError::caused_by("the target of a revocation cannot be encoded", error))
}

/// Decodes the result of [`encode_target`].
///
/// # Errors
/// The bytes are damaged.
pub fn decode_target(key: &[u8]) -> Result<Target, StoreError> {
    match postcard::take_from_bytes(key) {
        Ok((target, [])) => Ok(target),
        Ok(_) | Err(_) => Err(StoreError::new("the store is damaged: the target of a revocation cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::session::{BrowserBinding, DeviceBinding, DeviceKey, Seal, VouchedBy};
    use crate::store::conformance;
    use crate::thumbprint::{CertificateThumbprint, KeyThumbprint};

    #[test]
    fn the_bytes_of_a_version_never_change() {
        // Later versions must read today's records. If this test fails, introduce a new version for the new layout.
        let session = whole();
        let bytes = encode(&session).unwrap();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, GOLDEN_SESSION);
        assert_eq!(decode_session(session.id.as_bytes(), &bytes).unwrap(), session);

        let target = Target::Subject { issuer: "https://i".into(), subject: "alice".into() };
        assert_eq!(encode_target(&target).unwrap(), b"\x01\x09https://i\x05alice");
        assert_eq!(decode_target(b"\x01\x09https://i\x05alice").unwrap(), target);
    }

    const GOLDEN_SESSION: &str = "01018bcfe56800700080000000000000015e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e05616c696365010461636d6503776\
        5620a72656164207772697465066f617574683280e090d3c631c09fbaffbc31010080d095ffbc3180d095ffbc31000472656\
        164c09fbaffbc31056b65792d310100010107612070686f6e650100c0000201137b22726f6c6573223a5b2261646d696e225\
        d7d012b427763484277634842776348427763484277634842776348427763484277634842776348427763484277630114687\
        47470733a2f2f6170692e746573742f6d6370011068747470733a2f2f6964702e7465737403752d310103732d39012b43416\
        7494341674943416749434167494341674943416749434167494341674943416749434167494341670101090909090909090\
        9090909090909090909090909090909090909090909090909000001015a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

    fn whole() -> Session {
        let mut session = conformance::session("alice", 1, Timestamp::from_millis(1_700_000_000_000));
        session.claims.insert("roles", ["admin"]).unwrap();
        session.bound_to = Some(KeyThumbprint::from_bytes([7; 32]));
        session.resource = Some("https://api.test/mcp".into());
        session.vouched_by = Some(Box::new(VouchedBy::new("https://idp.test", "u-1").session("s-9")));
        session.certificate = Some(CertificateThumbprint::from_bytes([8; 32]));
        session.browser = Some(Box::new(BrowserBinding { key: 1, digest: [9; 32], at_provider: false, device: None }));
        session.seal = Seal::new(1, [0x5a; 16]);
        session
    }

    #[test]
    fn n37_n45_a_record_reads_back_the_same_with_whatever_it_has() {
        let plain = conformance::session("alice", 1, Timestamp::from_millis(1_700_000_000_000));
        let whole = whole();
        for session in [
            plain.clone(),
            Session { claims: whole.claims.clone(), ..plain.clone() },
            Session { bound_to: whole.bound_to, ..plain.clone() },
            Session { resource: whole.resource.clone(), ..plain.clone() },
            Session { vouched_by: whole.vouched_by.clone(), ..plain.clone() },
            Session { certificate: whole.certificate, ..plain.clone() },
            Session { browser: whole.browser.clone(), ..plain.clone() },
            Session { seal: whole.seal, ..plain },
            whole,
        ] {
            let bytes = encode(&session).unwrap();
            assert_eq!(bytes[0], VERSION);
            assert_eq!(decode_session(session.id.as_bytes(), &bytes).unwrap(), session);
            for damaged in [bytes[..bytes.len() - 1].to_vec(), [&bytes[..], &[0]].concat(), bytes[..20].to_vec()] {
                let error = decode_session(session.id.as_bytes(), &damaged).unwrap_err();
                assert!(error.is_of_one_record(), "{error}");
            }
            // An application's own store may write JSON.
            let json = serde_json::to_string(&session).unwrap();
            assert_eq!(serde_json::from_str::<Session>(&json).unwrap(), session);
        }
    }

    #[test]
    fn b47_b59_a_cookie_takes_35_bytes_of_a_record_and_a_device_at_most_400() {
        let plain = conformance::session("alice", 1, Timestamp::from_millis(1_700_000_000_000));
        let browser = Session { browser: whole().browser, ..plain.clone() };
        let mut bound = browser.clone();
        let key = DeviceKey::Rs256 { n: [0xff; 256].into(), e: [1, 0, 1].into() };
        let thumbprint = KeyThumbprint::from_bytes([7; 32]);
        let device = Some(Box::new(DeviceBinding { thumbprint, key, bound_at: Timestamp::from_secs(1_800_000_000) }));
        bound.browser.as_mut().unwrap().device = device;
        let bytes = encode(&bound).unwrap();
        assert_eq!(decode_session(bound.id.as_bytes(), &bytes).unwrap(), bound);
        let (plain, browser) = (encode(&plain).unwrap(), encode(&browser).unwrap());
        assert_eq!(browser.len() - plain.len(), 35);
        assert!(bytes.len() - plain.len() <= 400, "{}", bytes.len() - plain.len());
    }

    #[test]
    fn i42_a_record_cannot_hold_a_claim_that_the_gate_itself_sets() {
        let session = conformance::session("alice", 1, Timestamp::from_millis(1_700_000_000_000));
        let bytes = encode(&session).unwrap();
        // Seven zeros: no claims, key, resource, issuer, certificate, cookie or seal.
        let (record, [0, 0, 0, 0, 0, 0, 0]) = bytes.split_last_chunk().unwrap() else { panic!("{bytes:?}") };
        let with = |claims: &[u8]| [record, &[claims.len() as u8], claims, &[0; 6]].concat();
        assert!(decode_session(session.id.as_bytes(), &with(br#"{"tenant":"x"}"#)).is_ok());
        assert!(decode_session(session.id.as_bytes(), &with(br#"{"sub":"root"}"#)).is_err());
    }

    #[test]
    fn o4_an_unknown_record_version_is_an_error_that_names_it() {
        let error = decode::<Session>("session x", &[9, 1, 2, 3]).unwrap_err().to_string();
        assert!(error.contains("session x") && error.contains("version 9"), "{error}");
        assert!(decode::<u64>("x", &[]).is_err());
        assert!(decode::<u64>("x", &[1, 5, 5]).unwrap_err().to_string().contains("1 extra bytes"));
    }
}
