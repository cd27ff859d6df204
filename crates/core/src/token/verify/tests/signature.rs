//! J13: the requirements on a signature.

use super::*;

#[test]
fn j13_a_signature_has_exactly_its_length() {
    let world = world();
    for key in [world.own.signer(), &world.idp[0], &world.idp[1]] {
        let claims = if key.kid() == world.own.signer().kid() { own_claims() } else { idp_claims() };
        let good = forge(key, own_header(key).to_string(), claims.to_string());
        let (message, signature) = good.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(world.verify(&good).is_ok());
        let len = signature.len();
        for bad in [
            vec![],
            vec![0; len],
            signature[..len - 1].to_vec(),
            [&signature[..], &[0]].concat(),
            [&[0], &signature[..]].concat(),
            [&signature[..], &signature[..]].concat(),
            vec![0xff; len],
        ] {
            let token = format!("{message}.{}", b64(&bad));
            assert_eq!(world.verify(&token), Err(Denial::BadSignature), "{} of {len}", bad.len());
        }
    }
}

#[test]
fn j13_ecdsa_zeros_the_order_and_der_are_refused() {
    let world = world();
    let key = &world.idp[1];
    let good = forge(key, own_header(key).to_string(), idp_claims().to_string());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (r, s) = signature.split_at(32);
    // The order of P-256.
    let n = URL_SAFE_NO_PAD.decode("_____wAAAAD__________7zm-q2nF56E87nKwvxjJVE").unwrap();
    let zero = [0; 32];
    for (a, b) in [(&zero[..], s), (r, &zero[..]), (&zero, &zero), (&n, s), (r, &n), (&n, &n), (&zero, &n)] {
        assert_eq!(world.verify(&format!("{message}.{}", b64([a, b].concat()))), Err(Denial::BadSignature));
    }
    let mut der = vec![0x30, 0x46, 0x02, 0x21, 0x00];
    der.extend(r);
    der.extend([0x02, 0x21, 0x00]);
    der.extend(s);
    assert_eq!(world.verify(&format!("{message}.{}", b64(&der))), Err(Denial::BadSignature));
}

#[test]
fn j13_an_ed25519_signature_has_one_scalar() {
    let world = world();
    let good = world.good();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    // S + L is the same scalar, and must not be the same signature (RFC 8032 §5.1.7).
    let order: [u8; 32] =
        *b"\xed\xd3\xf5\x5c\x1a\x63\x12\x58\xd6\x9c\xf7\xa2\xde\xf9\xde\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10";
    let mut carry = 0;
    for (byte, add) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    assert_eq!(world.verify(&format!("{message}.{}", b64(signature))), Err(Denial::BadSignature));
}

#[test]
fn the_examples_of_the_standards_hold() {
    // RFC 7515 A.2 (RS256) and A.3 (ES256): signatures over the same claims, which lack those of an access token.
    let rsa = json!({ "keys": [{ "kty": "RSA", "alg": "RS256", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ" }] });
    let ec = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "alg": "ES256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }] });
    let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    for (jwks, header, signature) in [
        (
            rsa,
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            ec,
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
    ] {
        let keys = IssuerKeys::from_jwks(jwks.to_string().as_bytes(), None).unwrap();
        let mut rules = IssuerRules::external("joe", vec![], keys);
        rules.typ = vec!["".into()];
        let verifier = Verifier::new(vec![rules]).unwrap();
        let token = format!("{header}.{payload}.{signature}");
        let then = Timestamp::from_secs(1_300_819_000);
        assert_eq!(verifier.verify(&token, then, then), Err(Denial::BadClaim("no sub")), "the signature held");
        let other = token.replacen("DQog", "DQoh", 1);
        assert_ne!(other, token);
        assert!(matches!(verifier.verify(&other, then, then), Err(Denial::BadSignature | Denial::MalformedToken(_))));
    }
}
