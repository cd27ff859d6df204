//! Answers of another issuer: its key set and its discovery document.

use rotogate::remote_keys::Metadata;
use rotogate::token::{Algorithm, IssuerKeys};
use serde_json::Value;

use crate::input::target;
use crate::json::names_members_once;

const ISSUER: &str = "https://id.example.com";

target!(
    /// Of a published set that is taken, each usable key is that of an entry for signatures without secret or private
    /// members, and no two have one name and algorithm (I5, I7, I46).
    published_jwks,
    &[
        "{\"keys\":[", "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"", "\"kid\":\"a\"",
        "\"kid\":\"b\"", "\"alg\":\"EdDSA\"", "\"alg\":null", "\"use\":\"sig\"", "\"use\":\"enc\"", "\"key_ops\":[\"verify\"]",
        "\"kty\":\"oct\"", "\"kty\":\"RSA\"", "\"kty\":\"EC\"", "\"crv\":\"P-256\"", "\"d\":", "\"k\":", "\"n\":", "\"e\":\"AQAB\"",
        "\"y\":", "null", "}", "]", "]}", "{", "[", ",", ":", "\"", "\\u0061",
    ],
    |input| {
        let Ok(keys) = IssuerKeys::from_published_jwks(input, &[]) else { return };
        assert!(names_members_once(input), "J11");
        let said: Value = serde_json::from_slice(input).unwrap();
        let entries = said["keys"].as_array().expect("I5");
        assert!(entries.len() <= 100 && (1..=entries.len()).contains(&keys.len()), "I5");
        assert!(keys.len() + keys.ignored().len() <= entries.len(), "I7");
        let named = keys.describe();
        assert!(named.windows(2).all(|two| two[0] != two[1]), "I7: {named:?}");
        for key in &named {
            let (kid, algorithm) = key.rsplit_once(" (").unwrap();
            let algorithm: Algorithm = algorithm.trim_end_matches(')').parse().unwrap();
            let fits = |entry: &&Value| {
                let kid_fits = entry["kid"].as_str().map_or(kid == "without kid", |own| own == kid);
                kid_fits && entry["alg"].as_str().is_none_or(|own| own == algorithm.name())
            };
            let clean = |entry: &Value| {
                let secret = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| entry.get(name).is_some());
                !secret && entry["kty"] != "oct" && entry["use"].as_str().is_none_or(|usage| usage == "sig")
            };
            assert!(entries.iter().filter(fits).any(clean), "I7: {key}");
        }
        // No key is of an algorithm that is not accepted.
        assert!(IssuerKeys::from_published_jwks(input, &[Algorithm::Hs256]).is_err(), "J1");
    }
);

target!(
    /// A discovery document that is taken is that of the issuer, byte for byte, and names where the keys are (I8, I46).
    discovery,
    &[
        "{\"issuer\":\"https://id.example.com\"", "\"issuer\":\"https://id.example.com/\"", ",\"jwks_uri\":\"https://a.example/k\"",
        ",\"token_endpoint\":", "\"revocation_endpoint\":", "\"introspection_endpoint\":", "null", "7", "[", "]", "{", "}", ",", ":", "\"",
        "\\u0000", "\\/",
    ],
    |input| {
        let Ok(metadata) = Metadata::parse(input, ISSUER) else { return };
        assert!(names_members_once(input), "I8");
        let said: Value = serde_json::from_slice(input).unwrap();
        assert_eq!(said["issuer"], ISSUER, "I8");
        assert_eq!(said["jwks_uri"], *metadata.jwks_uri, "I8");
        for (endpoint, member) in [
            (&metadata.token_endpoint, "token_endpoint"),
            (&metadata.introspection_endpoint, "introspection_endpoint"),
            (&metadata.revocation_endpoint, "revocation_endpoint"),
        ] {
            assert!(endpoint.as_ref().is_none_or(|endpoint| said[member] == **endpoint), "I8: {member}");
        }
    }
);
