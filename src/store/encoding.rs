//! The bytes of records: postcard behind one byte that names their version. What this program does not know is an error.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::StoreError;
use crate::revocation::Target;
use crate::session::{Session, SessionId, VouchedBy};
use crate::thumbprint::{CertificateThumbprint, KeyThumbprint};

/// The version of everything that is written, but for those below.
const RECORD_VERSION: u8 = 1;
/// The version of a session's record that ends with claims. A record without claims has the previous version, so that
/// earlier programs can read it.
const WITH_CLAIMS: u8 = 2;
/// The version of the record of a session that is bound to a key: the key's thumbprint, and behind it the record that the
/// session would have without. An earlier program cannot read it, so it never continues such a session unbound.
const BOUND: u8 = 3;
/// The version of the record of a session that has any of [`Extension`]: these, and behind them the record that the session
/// would have without. An earlier program cannot read it, so it never continues such a session as another one.
const EXTENDED: u8 = 4;

/// The version of the record of a session that is bound to a client certificate: the certificate's thumbprint, and behind it
/// the record that the session would have without, as for [`BOUND`].
const CERTIFIED: u8 = 5;

/// What few sessions have.
#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Extension {
    resource: Option<Box<str>>,
    vouched_by: Option<Box<VouchedBy>>,
}

/// Encodes a record. The bytes may contain a session's secret.
pub(super) fn encode(record: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    postcard::to_extend(record, vec![RECORD_VERSION])
        .map(Zeroizing::new)
        .map_err(|error| StoreError::caused_by("a record cannot be encoded", error))
}

/// Encodes the record of a session.
pub(super) fn encode_session(session: &Session) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    if let Some(certificate) = &session.certificate {
        let uncertified = encode_session(&Session { certificate: None, ..session.clone() })?;
        return Ok(Zeroizing::new([&[CERTIFIED], certificate.as_bytes().as_slice(), uncertified.as_slice()].concat()));
    }
    let extension = Extension { resource: session.resource.clone(), vouched_by: session.vouched_by.clone() };
    if extension != Extension::default() {
        let plain = encode_session(&Session { resource: None, vouched_by: None, ..session.clone() })?;
        let mut bytes = Zeroizing::new(
            postcard::to_extend(&extension, vec![EXTENDED])
                .map_err(|error| StoreError::caused_by("a record cannot be encoded", error))?,
        );
        bytes.extend_from_slice(&plain);
        return Ok(bytes);
    }
    if let Some(key) = &session.bound_to {
        let unbound = Session { bound_to: None, ..session.clone() };
        let unbound = encode_session(&unbound)?;
        return Ok(Zeroizing::new([&[BOUND], key.as_bytes().as_slice(), unbound.as_slice()].concat()));
    }
    let mut bytes = encode(session)?;
    if let (false, Some(version)) = (session.claims.is_empty(), bytes.first_mut()) {
        *version = WITH_CLAIMS;
    }
    Ok(bytes)
}

/// Decodes what [`encode`] made; `what` names it in errors.
#[cfg(any(feature = "redb", feature = "relay", test))]
pub(super) fn decode<T: DeserializeOwned>(what: impl std::fmt::Display, bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&RECORD_VERSION, rest)) => read(what, rest),
        Some((version, _)) => Err(unknown_version(what, *version)),
        None => Err(empty(what)),
    }
}

/// Decodes what [`encode_session`] made.
pub(super) fn decode_record(what: impl std::fmt::Display, bytes: &[u8]) -> Result<Session, StoreError> {
    // As if it had the fields at its end that it lacks: the empty text of claims, no key, no resource, no issuer, no
    // certificate, one byte each.
    let with = |rest: &[u8], missing: &[u8]| Zeroizing::new([rest, missing].concat());
    match bytes.split_first() {
        Some((&RECORD_VERSION, rest)) => read(what, &with(rest, &[0, 0, 0, 0, 0])),
        Some((&WITH_CLAIMS, rest)) => read(what, &with(rest, &[0, 0, 0, 0])),
        Some((&BOUND, rest)) => match rest.split_first_chunk() {
            Some((key, unbound)) if unbound.first().is_some_and(|version| *version < BOUND) => {
                Ok(Session { bound_to: Some(KeyThumbprint::from_bytes(*key)), ..decode_record(what, unbound)? })
            }
            Some(_) | None => Err(damaged(what)),
        },
        Some((&EXTENDED, rest)) => match postcard::take_from_bytes(rest) {
            Ok((extension @ Extension { .. }, plain))
                if extension != Extension::default() && plain.first().is_some_and(|version| *version < EXTENDED) =>
            {
                let Extension { resource, vouched_by } = extension;
                Ok(Session { resource, vouched_by, ..decode_record(what, plain)? })
            }
            Ok(_) | Err(_) => Err(damaged(what)),
        },
        Some((&CERTIFIED, rest)) => match rest.split_first_chunk() {
            Some((certificate, uncertified)) if uncertified.first().is_some_and(|version| *version < CERTIFIED) => {
                let certificate = Some(CertificateThumbprint::from_bytes(*certificate));
                Ok(Session { certificate, ..decode_record(what, uncertified)? })
            }
            Some(_) | None => Err(damaged(what)),
        },
        Some((version, _)) => Err(unknown_version(what, *version)),
        None => Err(empty(what)),
    }
}

fn read<T: DeserializeOwned>(what: impl std::fmt::Display, bytes: &[u8]) -> Result<T, StoreError> {
    match postcard::take_from_bytes(bytes) {
        Ok((record, [])) => Ok(record),
        Ok((_, more)) => Err(StoreError::new(format!("the store is damaged: {what} has {} extra bytes", more.len()))),
        Err(error) => Err(StoreError::caused_by(format!("the store is damaged: {what} cannot be read"), error)),
    }
}

fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::new(format!("the store is damaged: {what} cannot be read"))
}

fn unknown_version(what: impl std::fmt::Display, version: u8) -> StoreError {
    StoreError::new(format!(
        "{what} has record version {version}, and this program knows only {RECORD_VERSION} to {CERTIFIED}: it was written by \
          another version of rotogate, which can read it"
    ))
}

fn empty(what: impl std::fmt::Display) -> StoreError {
    StoreError::new(format!("the store is damaged: {what} is empty"))
}

/// Decodes the record under an id, which must be its own.
pub(super) fn decode_session(id: &[u8; 16], bytes: &[u8]) -> Result<Session, StoreError> {
    let id = SessionId::from_bytes(*id);
    let session = decode_record(format_args!("session {id}"), bytes)?;
    if session.id == id {
        Ok(session)
    } else {
        Err(StoreError::new(format!("the store is damaged: session {} is stored under the id {id}", session.id)))
    }
}

/// Encodes a target, which is the key of its revocation.
pub(super) fn encode_target(target: &Target) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(target).map_err(|error| StoreError::caused_by("a target cannot be encoded", error))
}

/// Decodes what [`encode_target`] made.
pub(super) fn decode_target(key: &[u8]) -> Result<Target, StoreError> {
    match postcard::take_from_bytes(key) {
        Ok((target, [])) => Ok(target),
        Ok(_) | Err(_) => Err(StoreError::new("the store is damaged: the target of a revocation cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::store::conformance;

    #[test]
    fn the_bytes_of_version_1_never_change() {
        // Every later program must be able to read a record of today. If this fails, the layout changed: raise
        // RECORD_VERSION, and still read the old layout.
        let session = conformance::session("alice", 1, Timestamp::from_millis(1_700_000_000_000));
        let bytes = encode_session(&session).unwrap();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, GOLDEN_SESSION);
        assert_eq!(decode_session(session.id.as_bytes(), &bytes).unwrap(), session);

        let target = Target::Subject { issuer: "https://i".into(), subject: "alice".into() };
        assert_eq!(encode_target(&target).unwrap(), b"\x01\x09https://i\x05alice");
        assert_eq!(decode_target(b"\x01\x09https://i\x05alice").unwrap(), target);
    }

    const GOLDEN_SESSION: &str = "01018bcfe56800700080000000000000015e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e05616c696365010461636d65037765620a\
        72656164207772697465066f617574683280e090d3c631c09fbaffbc31010080d095ffbc3180d095ffbc31000472656164c0\
        9fbaffbc31056b65792d310100010107612070686f6e650100c0000201";

    #[test]
    fn i42_a_record_with_claims_has_a_version_of_its_own_and_reads_back_the_same() {
        let old = conformance::session("alice", 1, Timestamp::from_millis(1_700_000_000_000));
        let mut session = old.clone();
        session.claims.insert("roles", ["admin"]).unwrap();
        let bytes = encode_session(&session).unwrap();
        let without = encode_session(&old).unwrap();
        assert_eq!((bytes[0], without[0]), (WITH_CLAIMS, RECORD_VERSION));
        // The claims stand behind what every record holds.
        assert_eq!(bytes[1..without.len()], without[1..]);
        assert_eq!(decode_session(session.id.as_bytes(), &bytes).unwrap(), session);
        // A record of before there were claims has none.
        let old_bytes = GOLDEN_SESSION.replace(char::is_whitespace, "");
        let old_bytes: Vec<u8> =
            (0..old_bytes.len()).step_by(2).map(|at| u8::from_str_radix(&old_bytes[at..at + 2], 16).unwrap()).collect();
        assert_eq!(decode_session(old.id.as_bytes(), &old_bytes).unwrap(), old);
        // Neither may be longer or shorter than it is, nor hold a claim that the gate itself sets.
        for bytes in [bytes[..bytes.len() - 1].to_vec(), [&bytes[..], &[0]].concat(), [&without[..], &[0]].concat()] {
            assert!(decode_session(session.id.as_bytes(), &bytes).is_err());
        }
        let mut reserved = without.to_vec();
        reserved[0] = WITH_CLAIMS;
        reserved.push(14);
        reserved.extend_from_slice(br#"{"sub":"root"}"#);
        assert!(decode_session(session.id.as_bytes(), &reserved).is_err());
    }

    #[test]
    fn n37_a_record_with_a_key_has_a_version_of_its_own_and_reads_back_the_same() {
        let unbound = conformance::session("alice", 1, Timestamp::from_millis(1_700_000_000_000));
        let mut with_claims = unbound.clone();
        with_claims.claims.insert("roles", ["admin"]).unwrap();
        for plain in [unbound, with_claims] {
            let session = Session { bound_to: Some(KeyThumbprint::from_bytes([7; 32])), ..plain.clone() };
            assert_is_in_front(BOUND, &session, &plain);
            assert!(!serde_json::to_string(&plain).unwrap().contains("bound_to"));
        }
    }

    /// The record of a session with a thumbprint has this version, the thumbprint, and the record of the session without.
    fn assert_is_in_front(version: u8, session: &Session, without: &Session) {
        let (bytes, without) = (encode_session(session).unwrap(), encode_session(without).unwrap());
        assert_eq!((bytes[0], &bytes[33..]), (version, &without[..]));
        assert_eq!(decode_session(session.id.as_bytes(), &bytes).unwrap(), *session);
        // A cut record, one with more behind it, and one that is bound twice are damaged, never unbound.
        let twice = [&bytes[..33], &bytes[..]].concat();
        for damaged in [bytes[..bytes.len() - 1].to_vec(), [&bytes[..], &[0]].concat(), bytes[..20].to_vec(), twice] {
            assert!(decode_session(session.id.as_bytes(), &damaged).is_err());
        }
        // A store of an application's own may write it as JSON.
        let json = serde_json::to_string(session).unwrap();
        assert_eq!(serde_json::from_str::<Session>(&json).unwrap(), *session);
    }

    #[test]
    fn a_record_with_a_certificate_has_a_version_of_its_own_and_reads_back_the_same() {
        let plain = conformance::session("alice", 1, Timestamp::from_millis(1_700_000_000_000));
        let keyed = Session { bound_to: Some(KeyThumbprint::from_bytes([7; 32])), ..plain.clone() };
        let extended = Session { resource: Some("https://api.test/mcp".into()), ..keyed.clone() };
        for before in [plain, keyed, extended] {
            let session = Session { certificate: Some(CertificateThumbprint::of(b"certificate")), ..before.clone() };
            assert_is_in_front(CERTIFIED, &session, &before);
            assert!(!serde_json::to_string(&before).unwrap().contains("certificate"));
        }
    }

    #[test]
    fn n45_a_record_for_a_resource_has_a_version_of_its_own_and_reads_back_the_same() {
        let plain = conformance::session("alice", 1, Timestamp::from_millis(1_700_000_000_000));
        let bound = Session { bound_to: Some(KeyThumbprint::from_bytes([7; 32])), ..plain.clone() };
        for plain in [plain, bound] {
            let session = Session { resource: Some("https://gate.example/mcp".into()), ..plain.clone() };
            let (bytes, without) = (encode_session(&session).unwrap(), encode_session(&plain).unwrap());
            assert_eq!((bytes[0], &bytes[bytes.len() - without.len()..]), (EXTENDED, &without[..]));
            assert_eq!(decode_session(session.id.as_bytes(), &bytes).unwrap(), session);
            // A cut record, one with more behind it, and one inside another are damaged, never for the usual audience.
            let head = &bytes[..bytes.len() - without.len()];
            let twice = [head, &bytes[..]].concat();
            let in_bound = [&[BOUND], [7; 32].as_slice(), &bytes[..]].concat();
            let empty = [&[EXTENDED, 0, 0], &without[..]].concat();
            for damaged in [bytes[..bytes.len() - 1].to_vec(), [&bytes[..], &[0]].concat(), twice, in_bound, empty] {
                assert!(decode_session(session.id.as_bytes(), &damaged).is_err());
            }
            let json = serde_json::to_string(&session).unwrap();
            assert_eq!(serde_json::from_str::<Session>(&json).unwrap(), session);
            assert!(!serde_json::to_string(&plain).unwrap().contains("resource"));
        }
    }

    #[test]
    fn o4_an_unknown_record_version_is_an_error_that_names_it() {
        let error = decode_record("session x", &[9, 1, 2, 3]).unwrap_err().to_string();
        assert!(error.contains("session x") && error.contains("version 9"), "{error}");
        assert!(decode::<u64>("x", &[]).is_err());
        assert!(decode::<u64>("x", &[1, 5, 5]).unwrap_err().to_string().contains("1 extra bytes"));
    }
}
