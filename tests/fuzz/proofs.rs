//! DPoP proofs.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use rotogate_core::dpop::examine;
use serde_json::{Map, Value};

use crate::input::target;
use crate::json::names_members_once;

/// The key of the corpus.
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));

fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(KEY.sign(message.as_bytes()).to_bytes()))
}

target!(
    /// A proof whose signature is good has one strict header of the right type, with a public key alone, and claims without
    /// repeated members; what is read of them is what any reader reads (N30). Anything else is refused, whatever it is.
    dpop_proof,
    &[
        "\"typ\":\"dpop+jwt\"", "\"alg\":\"EdDSA\"", "\"alg\":\"none\"", "\"alg\":\"HS256\"", "\"jwk\":{", "\"crit\":[\"b64\"]", "\"b64\":false",
        "\"kty\":\"oct\"", "\"k\":\"AA\"", "\"d\":\"AA\"", "\"kid\":\"x\"", "\"x5c\":[]", "\"jti\":\"x\"", "\"jti\":1", "\"htm\":\"GET\"", "\"htu\":",
        "\"https://a/%2e\"", "\"iat\":1", "\"iat\":1e400", "\"iat\":-1", "\"nonce\":\"\"", "\"ath\":null", "\"\\u006ati\":", "}", "{", ",", "\n",
    ],
    |input| {
        // The input itself, which has no valid signature.
        if let Ok(text) = std::str::from_utf8(input) {
            assert!(examine(text).is_err());
        }
        let mut parts = input.splitn(2, |byte| *byte == b'\n');
        let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let Ok(proof) = examine(&signed(header, claims)) else { return };
        assert!(names_members_once(header) && names_members_once(claims), "J11");
        let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
        assert_eq!((&header["typ"], &header["alg"]), (&"dpop+jwt".into(), &"EdDSA".into()));
        let jwk = header["jwk"].as_object().unwrap();
        assert_eq!(jwk["x"], URL_SAFE_NO_PAD.encode(KEY.verifying_key().as_bytes()));
        for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            assert!(!jwk.contains_key(private), "{private}");
        }
        let said: Map<String, Value> = serde_json::from_slice(claims).unwrap();
        let text = |name: &str| said.get(name).and_then(Value::as_str).map(str::to_owned);
        assert_eq!((proof.method, proof.url), (text("htm"), text("htu")));
        assert_eq!(proof.id, text("jti").filter(|id| (1..=256).contains(&id.len())));
        if let Some(issued_at) = proof.issued_at {
            let seconds = said["iat"].as_f64().unwrap();
            assert!((issued_at.as_millis() as f64 / 1000.0 - seconds).abs() <= 0.001 && seconds >= 0.0);
        }
    }
);
