//! Rejects HMAC secrets that may be public data (requirement J2).
//!
//! In the classic attack, a verifier uses its public RSA key as the secret for HS256 (CVE-2015-9235, CVE-2022-23540).
//! This attack fails against the gate, because each key is bound to its algorithm. But an operator could configure a
//! public key file as the secret.

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use zeroize::Zeroizing;

use super::{Algorithm, KeyError};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);

pub(super) fn check(algorithm: Algorithm, secret: &[u8]) -> Result<(), KeyError> {
    if let Some(what) = public_key_form(secret) {
        return Err(KeyError::PublicAsSecret(what));
    }
    if secret.len() < algorithm.hash_len() {
        return Err(KeyError::ShortSecret { algorithm, length: secret.len() });
    }
    Ok(())
}

/// The text is base64url without padding, and may end with a newline.
pub(super) fn decode(algorithm: Algorithm, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if let Some(what) = public_key_form(text) {
        return Err(KeyError::PublicAsSecret(what));
    }
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let secret = Zeroizing::new(general_purpose::URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Unusable {
        algorithm,
        why: "a secret file must contain base64url without padding (openssl rand 64 | basenc --base64url -w0 | tr -d \
              =)",
    })?);
    check(algorithm, &secret)?;
    Ok(secret)
}

/// Bytes that look like base64 are also checked in decoded form.
pub(super) fn public_key_form(bytes: &[u8]) -> Option<&'static str> {
    if let Some(what) = plain_form(bytes) {
        return Some(what);
    }
    let text: Zeroizing<Vec<u8>> = Zeroizing::new(bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect());
    [&base64::alphabet::STANDARD, &base64::alphabet::URL_SAFE].into_iter().find_map(|alphabet| {
        let decoded = Zeroizing::new(GeneralPurpose::new(alphabet, LENIENT).decode(text.as_slice()).ok()?);
        plain_form(&decoded)
    })
}

fn plain_form(bytes: &[u8]) -> Option<&'static str> {
    let trimmed = bytes.trim_ascii();
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    if holds(b"-----BEGIN") {
        return Some("a PEM file");
    }
    if [b"ssh-".as_slice(), b"ecdsa-sha2-", b"sk-"].iter().any(|p| trimmed.starts_with(p)) {
        return Some("an OpenSSH key");
    }
    if trimmed.starts_with(b"{") || trimmed.starts_with(b"[") {
        // Random bytes may start like JSON, so the whole input is parsed.
        if serde_json::from_slice::<serde::de::IgnoredAny>(trimmed).is_ok() {
            return Some("a JWK or other JSON");
        }
    }
    if is_der_key(bytes) {
        return Some("a DER key or certificate");
    }
    if matches!((bytes.first(), bytes.len()), (Some(4), 65 | 97)) {
        return Some("a public point of an elliptic curve");
    }
    None
}

/// Public keys and certificates are one DER SEQUENCE that starts with a SEQUENCE or an INTEGER. Editors may add
/// newlines.
fn is_der_key(bytes: &[u8]) -> bool {
    let Some((0x30, rest)) = bytes.split_first().map(|(tag, rest)| (*tag, rest)) else { return false };
    let Some((&first, rest)) = rest.split_first() else { return false };
    let (length, contents) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return false;
        }
        let Some((length, contents)) = rest.split_at_checked(count) else { return false };
        (length.iter().fold(0_usize, |sum, b| (sum << 8) | usize::from(*b)), contents)
    };
    let Some((inner, after)) = contents.split_at_checked(length) else { return false };
    after.iter().all(u8::is_ascii_whitespace) && matches!(inner.first(), Some(0x30 | 0x02))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j2_a_public_key_in_any_form_is_never_an_hmac_secret() {
        let key = super::super::SigningKey::generate(Algorithm::Es256).unwrap();
        let jwk = serde_json::to_string(&key.verifying_key().published().unwrap()).unwrap();
        let jwks = format!("{{\"keys\":[{jwk}]}}");
        // A header of 26 bytes precedes the point of a P-256 key.
        let mut spki = vec![
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        let mut point = vec![4_u8];
        point.extend([7; 64]);
        spki.extend(&point);
        let pem = pem::encode(&pem::Pem::new("PUBLIC KEY", spki.clone()));
        let rsa_pkcs1 = [&[0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01][..], &[9; 262]].concat();
        let body = general_purpose::STANDARD.encode(&spki);
        let forms: [(&str, Vec<u8>); 10] = [
            ("PEM", pem.clone().into_bytes()),
            ("PEM without newlines at the end", pem.trim_end().as_bytes().to_vec()),
            ("DER", spki.clone()),
            ("PKCS #1 DER", rsa_pkcs1),
            ("JWK", jwk.into_bytes()),
            ("JWK set", jwks.into_bytes()),
            ("body of a PEM", body.into_bytes()),
            ("PEM in base64", general_purpose::STANDARD.encode(&pem).into_bytes()),
            ("point", point),
            ("OpenSSH", format!("ssh-ed25519 {} somebody", "A".repeat(68)).into_bytes()),
        ];
        for (name, bytes) in forms {
            for ending in ["", "\n", "\r\n"] {
                let mut bytes = bytes.clone();
                // A raw point with a trailing newline is not recognised.
                if name != "point" {
                    bytes.extend(ending.as_bytes());
                }
                assert!(matches!(check(Algorithm::Hs256, &bytes), Err(KeyError::PublicAsSecret(_))), "{name}");
                assert!(matches!(decode(Algorithm::Hs256, &bytes), Err(KeyError::PublicAsSecret(_))), "{name}");
                let text = general_purpose::URL_SAFE_NO_PAD.encode(&bytes);
                let decoded = decode(Algorithm::Hs256, text.as_bytes());
                assert!(matches!(decoded, Err(KeyError::PublicAsSecret(_))), "{name} in base64url");
            }
        }
    }

    #[test]
    fn j2_a_secret_shorter_than_the_hash_is_refused() {
        for (algorithm, least) in [(Algorithm::Hs256, 32), (Algorithm::Hs384, 48), (Algorithm::Hs512, 64)] {
            let short = general_purpose::URL_SAFE_NO_PAD.encode(vec![1; least - 1]);
            assert!(matches!(decode(algorithm, short.as_bytes()), Err(KeyError::ShortSecret { .. })));
            let enough = general_purpose::URL_SAFE_NO_PAD.encode(vec![1; least]);
            assert_eq!(decode(algorithm, format!("{enough}\n").as_bytes()).unwrap().len(), least);
        }
    }

    #[test]
    fn a_secret_file_is_base64url_and_nothing_else() {
        for bad in ["", "correct horse battery staple, thirty-two and more", "AAAA=", "+/+/"] {
            assert!(decode(Algorithm::Hs256, bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
