//! Edits of good tokens, and arbitrary input.

use proptest::prelude::*;

use super::*;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{1,4}", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// One world for all the cases of a property: making keys is slow.
static SHARED: std::sync::LazyLock<World> = std::sync::LazyLock::new(world);

#[test]
fn j14_every_one_byte_edit_of_a_valid_token_is_refused() {
    // ECDSA's mirrored signature (r, n - s) is another valid token, but never one byte away.
    let tokens = [
        SHARED.good(),
        forge(&SHARED.idp[1], own_header(&SHARED.idp[1]).to_string(), idp_claims().to_string()),
        forge(&SHARED.idp[0], own_header(&SHARED.idp[0]).to_string(), idp_claims().to_string()),
    ];
    for token in tokens {
        assert!(SHARED.verify(&token).is_ok());
        for at in 0..token.len() {
            for to in ["A", "B", "z", "_", "-", ".", "=", "+", " ", "\0", "e"] {
                if &token[at..=at] != to {
                    let edited = format!("{}{to}{}", &token[..at], &token[at + 1..]);
                    assert!(SHARED.verify(&edited).is_err(), "{to:?} at {at}");
                }
            }
            assert!(SHARED.verify(&format!("{}{}", &token[..at], &token[at + 1..])).is_err(), "without {at}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_brings_it_down(text in ".{0,200}", token in "[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,90}") {
        prop_assert!(SHARED.verify(&text).is_err());
        prop_assert!(SHARED.verify(&token).is_err());
    }

    #[test]
    fn no_signed_bytes_bring_it_down(header in prop::collection::vec(any::<u8>(), 0..80), claims in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(SHARED.raw_header(&header).is_err());
        prop_assert!(SHARED.raw_claims(&claims).is_err());
    }

    #[test]
    fn no_signed_json_brings_it_down(
        name in prop::sample::select(vec!["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "gen", "scope", "client_id", "account"]),
        member in prop::sample::select(vec!["alg", "kid", "typ", "crit", "x"]),
        value in any_json(),
    ) {
        let key = SHARED.own.signer();
        let mut claims = own_claims();
        claims[name] = value.clone();
        let _ = SHARED.own(&own_header(key), &claims);
        let mut header = own_header(key);
        header[member] = value;
        let _ = SHARED.own(&header, &own_claims());
    }

    #[test]
    fn j14_any_edit_of_a_valid_token_is_refused(at in any::<prop::sample::Index>(), to in any::<char>()) {
        let token = SHARED.good();
        let at = at.index(token.len());
        let edited: String = token.chars().enumerate().map(|(i, c)| if i == at { to } else { c }).collect();
        prop_assert_eq!(SHARED.verify(&edited).is_ok(), edited == token);
    }
}
