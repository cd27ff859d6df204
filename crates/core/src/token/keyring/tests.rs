use super::*;
use crate::clock::Timestamp;
use crate::session::{Generation, SessionId};
use crate::token::algorithm::Family;

mod wycheproof;

fn id() -> SessionId {
    SessionId::new(Timestamp::from_millis(1_732_000_000_123), [7; 10])
}

fn secret(n: u8) -> RefreshSecret {
    RefreshSecret::from_text(URL_SAFE_NO_PAD.encode([n; 32]).as_bytes()).unwrap()
}

#[test]
fn a_key_ring_of_every_algorithm_signs_what_it_verifies() {
    for algorithm in Algorithm::ALL {
        let ring = Keyring::generate(algorithm).unwrap();
        assert_eq!(ring.signer().algorithm(), algorithm);
        assert_eq!(ring.signing_key(ring.signer().kid()).unwrap().kid(), ring.signer().kid());
        let signature = ring.signer().sign(b"message").unwrap();
        assert_eq!(signature.len(), ring.signer().verifying_key().signature_len());
        assert!(ring.signer().verifying_key().verifies(b"message", &signature));
        assert!(!ring.signer().verifying_key().verifies(b"massage", &signature));
    }
}

#[test]
fn j2_the_published_set_has_public_keys_only() {
    let ring = Keyring::from_parts(
        new_id().unwrap(),
        SigningKey::generate(Algorithm::Hs256).unwrap(),
        [Algorithm::EdDsa, Algorithm::Es384, Algorithm::Rs256, Algorithm::Hs512]
            .map(|a| SigningKey::generate(a).unwrap())
            .into(),
        RefreshKeys::new(1, &[(1, secret(1))]).unwrap(),
    )
    .unwrap();
    let jwks = ring.jwks();
    let keys = jwks["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 3);
    for key in keys {
        assert_eq!(key["use"], "sig");
        assert!(key["kty"] != "oct" && key.get("k").is_none() && key.get("d").is_none() && key.get("p").is_none());
        let own = ring.signing_key(key["kid"].as_str().unwrap()).unwrap();
        assert_eq!(key["alg"], own.algorithm().name());
    }
}

#[test]
fn j2_a_pem_file_is_refused_as_a_secret_whatever_it_contains() {
    for tag in ["PUBLIC KEY", "RSA PUBLIC KEY"] {
        let pem = pem::encode(&pem::Pem::new(tag, vec![1; 64]));
        for algorithm in Algorithm::ALL.into_iter().filter(|a| a.family() == Family::Hmac) {
            let refused = VerifyingKey::from_public_pem(pem.as_bytes(), algorithm);
            assert!(matches!(refused, Err(KeyError::PublicAsSecret(_))), "{algorithm} {tag}");
        }
    }
}

#[test]
fn a_kid_is_the_thumbprint() {
    // RFC 8037 appendix A.1 and A.3.
    let mut pkcs8 =
        vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    pkcs8.extend(URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap());
    let pem = pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8));
    let key = SigningKey::from_material(Algorithm::EdDsa, &KeyMaterial::new(pem.into_bytes())).unwrap();
    assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let jwk = key.verifying_key().published().unwrap();
    assert_eq!(serde_json::to_value(&jwk).unwrap()["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    // The signature of appendix A.4.
    let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    assert_eq!(
        URL_SAFE_NO_PAD.encode(key.sign(message).unwrap()),
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

#[test]
fn the_hmac_example_of_rfc_7515_holds() {
    // Appendix A.1.
    let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let key = SigningKey::from_material(Algorithm::Hs256, &KeyMaterial::new(secret.into())).unwrap();
    let message = b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                    eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    assert_eq!(URL_SAFE_NO_PAD.encode(key.sign(message).unwrap()), signature);
    assert!(key.verifying_key().verifies(message, &URL_SAFE_NO_PAD.decode(signature).unwrap()));
}

#[test]
fn a_secret_gets_a_kid_that_says_nothing_of_it() {
    let material = KeyMaterial::generate(Algorithm::Hs256).unwrap();
    let one = SigningKey::from_material(Algorithm::Hs256, &material).unwrap();
    let two = SigningKey::from_material(Algorithm::Hs256, &material).unwrap();
    assert_ne!(one.kid(), two.kid());
}

#[test]
fn j1_a_key_of_another_kind_is_refused_for_an_algorithm() {
    let materials = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Es384, Algorithm::Rs256, Algorithm::Hs512]
        .map(|a| (a, KeyMaterial::generate(a).unwrap()));
    for (of, material) in &materials {
        for algorithm in Algorithm::ALL {
            let fits = of.family() == algorithm.family() && (of.family() != Family::Ecdsa || *of == algorithm);
            let parsed = SigningKey::from_material(algorithm, material);
            assert_eq!(parsed.is_ok(), fits, "{of} key for {algorithm}");
        }
    }
}

/// An independent library has the same points.
#[test]
fn j13_every_ed25519_key_of_small_order_is_refused_in_every_encoding() {
    let refused = |x: &[u8; 32]| {
        let json = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(x) });
        let key = VerifyingKey::from_jwk(&serde_json::from_value(json).unwrap(), Algorithm::EdDsa);
        key.err().is_some_and(|error| error.to_string().contains("small order"))
    };
    let mut found = 0;
    for low in 0..=u8::MAX {
        // Near zero and near the prime: the encodings that no rule forbids.
        for fill in [0, 0xff] {
            for sign in [0x00, 0x7f, 0x80, 0xff] {
                let mut x = [fill; 32];
                (x[0], x[31]) = (low, if fill == 0 { sign & 0x80 } else { sign | 0x7f });
                let Ok(point) = ed25519_dalek::VerifyingKey::from_bytes(&x) else { continue };
                found += usize::from(point.is_weak());
                assert_eq!(refused(&x), point.is_weak(), "{x:?}");
            }
        }
    }
    assert!(found >= 10, "{found}");
}

#[test]
fn j13_weak_keys_are_refused() {
    let jwk = |json| VerifyingKey::from_jwk(&serde_json::from_value(json).unwrap(), Algorithm::EdDsa);
    // Points of small order: 0, 1 and -1 as y, and one of order 8.
    for weak in [
        [0_u8; 32],
        *b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        *b"\xec\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
    ] {
        let x = URL_SAFE_NO_PAD.encode(weak);
        let error = jwk(serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": x })).unwrap_err();
        assert!(error.to_string().contains("small order"), "{error}");
    }
    assert!(jwk(serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" })).is_err());
    // RSA of 2040 bits, one bit short, and padded with zeros.
    for n in [vec![0xff; 255], [vec![0x7f], vec![0xff; 255]].concat(), [vec![0; 8], vec![0xff; 255]].concat()] {
        let n = URL_SAFE_NO_PAD.encode(n);
        let json = serde_json::json!({ "kty": "RSA", "n": n, "e": "AQAB" });
        let error = VerifyingKey::from_jwk(&serde_json::from_value(json).unwrap(), Algorithm::Rs256).unwrap_err();
        assert!(error.to_string().contains("2048"), "{error}");
    }
    // A point that is not on P-256.
    let json = serde_json::json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode([1; 32]), "y": URL_SAFE_NO_PAD.encode([1; 32]) });
    assert!(VerifyingKey::from_jwk(&serde_json::from_value(json).unwrap(), Algorithm::Es256).is_err());
}

#[test]
fn a_key_file_with_something_else_in_it_says_so() {
    for (tag, hint) in [
        ("RSA PRIVATE KEY", "openssl pkcs8"),
        ("EC PRIVATE KEY", "openssl pkcs8"),
        ("ENCRYPTED PRIVATE KEY", "decrypt"),
        ("PUBLIC KEY", "not a private key"),
        ("CERTIFICATE", "not a private key"),
        ("PRIVATE KEY", "another kind"),
    ] {
        let text = pem::encode(&pem::Pem::new(tag, vec![1; 40])).into_bytes();
        let error = SigningKey::from_material(Algorithm::EdDsa, &KeyMaterial::new(text)).unwrap_err().to_string();
        assert!(error.contains(hint), "{error}");
    }
    for text in ["", "garbage", "-----BEGIN PRIVATE KEY-----"] {
        assert!(SigningKey::from_material(Algorithm::EdDsa, &KeyMaterial::new(text.into())).is_err());
    }
}

#[test]
fn a_jti_does_not_change_when_a_refresh_key_is_added() {
    let exp = Timestamp::from_secs(1_800_000_000);
    let old = RefreshKeys::new(1, &[(1, secret(1))]).unwrap();
    let new = RefreshKeys::new(2, &[(2, secret(2)), (1, secret(1))]).unwrap();
    let jti = old.derive_jti(1, id(), Generation::new(3), exp).unwrap();
    assert_eq!(jti.len(), 22);
    assert_eq!(new.derive_jti(1, id(), Generation::new(3), exp).as_ref(), Some(&jti));
    for other in [
        new.derive_jti(2, id(), Generation::new(3), exp),
        new.derive_jti(1, id(), Generation::new(4), exp),
        new.derive_jti(1, SessionId::new(exp, [7; 10]), Generation::new(3), exp),
        new.derive_jti(1, id(), Generation::new(3), Timestamp::from_secs(1_800_000_001)),
    ] {
        assert_ne!(other.unwrap(), jti);
    }
    assert_eq!(old.derive_jti(9, id(), Generation::new(3), exp), None);
}

#[test]
fn a_set_that_contradicts_itself_is_refused() {
    assert!(RefreshKeys::new(1, &[(1, secret(1)), (1, secret(2))]).is_err());
    assert!(RefreshKeys::new(2, &[(1, secret(1))]).is_err());
    assert!(RefreshKeys::new(1, &[]).is_err());
    let material = KeyMaterial::generate(Algorithm::EdDsa).unwrap();
    let key = || SigningKey::from_material(Algorithm::EdDsa, &material).unwrap();
    let refresh = RefreshKeys::new(1, &[(1, secret(1))]).unwrap();
    assert!(Keyring::from_parts(new_id().unwrap(), key(), vec![key()], refresh).is_err());
    for kid in ["", "a b", "a\n", &"x".repeat(129), "\u{e4}"] {
        assert!(SigningKey::from_material_named(Algorithm::EdDsa, &material, kid).is_err(), "{kid:?}");
    }
    assert!(SigningKey::from_material_named(Algorithm::EdDsa, &material, "our\"key").is_ok());
}

#[test]
fn o3_no_key_prints() {
    let material = KeyMaterial::generate(Algorithm::Hs256).unwrap();
    let key = SigningKey::from_material(Algorithm::Hs256, &material).unwrap();
    let text = String::from_utf8(material.expose().to_vec()).unwrap();
    let shown = format!("{material:?} {key:?} {:?} {:?}", key.verifying_key(), Keyring::ephemeral().unwrap());
    assert!(!shown.contains(&text[..8]), "{shown}");
    assert!(shown.starts_with("KeyMaterial(…) SigningKey"), "{shown}");
}
