use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

const URL: &str = "https://id.example/token";
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

impl Proofs {
    /// Fills the memory with proofs, each with a different key.
    pub(in crate::relay) fn fill(&self, now: Timestamp) {
        for n in 0..MAX_SEEN {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            let key = rotogate_core::thumbprint::KeyThumbprint::from_bytes(key);
            let _ = self.seen.record(&self.seen.name(&key, "a", now), now);
        }
    }

    pub(in crate::relay) fn held(&self) -> u64 {
        self.seen.held()
    }
}

pub(in crate::relay) struct Client {
    key: Ed25519KeyPair,
}

impl Client {
    pub(in crate::relay) fn new() -> Self {
        Self { key: Ed25519KeyPair::generate().unwrap() }
    }

    fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref())})
    }

    fn signed(&self, header: &Value, claims: &str) -> String {
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.as_bytes()));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()).as_ref()))
    }

    pub(in crate::relay) fn proof(&self, claims: &Value) -> String {
        let header = json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": self.jwk()});
        self.signed(&header, &claims.to_string())
    }
}

fn claims(jti: &str) -> Value {
    json!({"jti": jti, "htm": "POST", "htu": URL, "iat": NOW.as_secs()})
}

#[test]
fn i38_a_good_proof_counts_once_and_names_its_key() {
    let (proofs, client) = (Proofs::new(), Client::new());
    let proof = client.proof(&claims("a"));
    let first = proofs.check(&proof, URL, NOW).unwrap();
    assert_eq!(first.jkt.len(), 43, "a SHA-256 thumbprint");
    let again = proofs.check(&proof, URL, NOW).unwrap();
    assert_eq!(proofs.held(), 0, "it is not used by being good");
    assert_eq!(proofs.use_once(&first, NOW), Ok(()));
    assert_eq!(proofs.use_once(&again, NOW), Err(NotRecorded::Seen), "of two at once, one");
    assert_eq!(proofs.check(&proof, URL, NOW).map(|_| ()), Err(ProofFlaw::Replayed), "the same proof again");
    let key = |proof: &str| proofs.check(proof, URL, NOW).map(|proof| proof.jkt);
    assert_eq!(key(&client.proof(&claims("b"))), Ok(first.jkt.clone()), "another proof of the key");
    assert_ne!(key(&Client::new().proof(&claims("a"))), Ok(first.jkt), "another key");
}

#[test]
fn i38_no_other_proof_is_good() {
    let (proofs, client) = (Proofs::new(), Client::new());
    let with = |name: &str, value: Value| {
        let mut claims = claims("x");
        claims[name] = value;
        client.proof(&claims)
    };
    let header = |name: &str, value: Value| {
        let mut header = json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": client.jwk()});
        header[name] = value;
        client.signed(&header, &claims("x").to_string())
    };
    let good = client.proof(&claims("x"));
    let forged = {
        let (head, signature) = good.rsplit_once('.').unwrap();
        format!("{head}.{}", URL_SAFE_NO_PAD.encode([0; 64].as_slice())).replace(signature, "")
    };
    let bad = [
        with("htm", json!("GET")),
        with("htu", json!("https://gate.example/token")),
        with("htu", json!("https://id.example/token/")),
        with("iat", json!(NOW.as_secs() - 61)),
        with("iat", json!(NOW.as_secs() + 61)),
        with("iat", json!("now")),
        with("jti", json!("")),
        with("jti", json!("j".repeat(257))),
        with("jti", Value::Null),
        header("typ", json!("JWT")),
        header("alg", json!("HS256")),
        header("alg", json!("none")),
        header("jwk", Client::new().jwk()),
        header("jwk", json!({"kty": "oct", "k": "c2VjcmV0"})),
        header("jwk", Value::Null),
        client.signed(
            &json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": client.jwk()}),
            &format!(r#"{{"jti":"x","jti":"y","htm":"POST","htu":"{URL}","iat":{}}}"#, NOW.as_secs()),
        ),
        forged,
        good.replace('.', ""),
        format!("{good}.x"),
        "x".repeat(MAX_RELAYED_PROOF + 1),
        String::new(),
    ];
    for proof in bad {
        assert!(proofs.check(&proof, URL, NOW).is_err(), "{proof}");
    }
    assert!(proofs.check(&with("htu", json!(format!("{URL}?a=b#c"))), URL, NOW).is_ok(), "RFC 9449 §4.3");
}
