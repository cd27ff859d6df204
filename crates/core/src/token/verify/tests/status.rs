//! The status of a token in a list of its issuer.

use std::sync::Arc;

use super::*;
use crate::token::remote_status::{MAX_LISTS, MissingStatus, RemoteLists, StatusRules};
use crate::token::status_token::{CompressedList, MAX_INFLATED};

const URL: &str = "https://idp.example/status/1";

fn rules(missing: MissingStatus) -> StatusRules {
    StatusRules {
        prefixes: vec!["https://idp.example/status/".into()],
        ttl: (Duration::from_secs(10), Duration::from_secs(900)),
        stale_for: Duration::from_secs(300),
        missing,
    }
}

/// An issuer whose lists are read.
struct Listed {
    key: SigningKey,
    lists: Arc<RemoteLists>,
    keys: Keys,
    verifier: Verifier,
}

fn listed(missing: MissingStatus) -> Listed {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let keys = || IssuerKeys::from_jwks(jwks(std::slice::from_ref(&key)).to_string().as_bytes(), None).unwrap();
    let lists = RemoteLists::new(rules(missing));
    let mut external = IssuerRules::external(IDP, vec!["api".into()], keys());
    external.status_lists = Some(Arc::clone(&lists));
    let keys = Keys::Live(keys().into());
    Listed { key, lists, keys, verifier: Verifier::new(vec![external]).unwrap() }
}

fn lst(bytes: &[u8]) -> Value {
    serde_json::to_value(CompressedList::new(bytes).unwrap()).unwrap()["lst"].clone()
}

fn list(bits: u8, bytes: &[u8]) -> Value {
    json!({
        "iss": IDP, "sub": URL, "iat": 1_800_000_000, "exp": 1_800_000_300, "ttl": 30,
        "status_list": { "bits": bits, "lst": lst(bytes) },
    })
}

impl Listed {
    fn token(&self, status: Value) -> Result<AccessToken, Denial> {
        let changes = serde_json::Map::from_iter([("status".to_owned(), status)]);
        let claims = with(idp_claims(), changes.into());
        self.verifier.verify(&forge(&self.key, own_header(&self.key).to_string(), claims.to_string()), NOW, NOW)
    }

    fn signed(&self, header: Value, claims: &Value) -> String {
        let header = with(with(own_header(&self.key), json!({ "typ": "statuslist+jwt" })), header);
        forge(&self.key, header.to_string(), claims.to_string())
    }

    fn read(&self, text: &str, known: Option<Timestamp>) -> Result<ReadStatusList, Denial> {
        let leeway = Duration::from_secs(30);
        SentStatusList { text, url: URL, issuer: IDP, keys: &self.keys, known, leeway }.read(NOW, NOW)
    }
}

fn at(index: Value) -> Value {
    let mut entry = json!({ "uri": URL });
    entry["idx"] = index;
    json!({ "status_list": entry })
}

#[test]
fn s8_s10_a_status_that_names_no_bit_under_a_prefix_is_refused_and_nothing_is_fetched() {
    let issuer = listed(MissingStatus::Accept);
    for bad in [
        json!(7),
        json!({ "status_list": [] }),
        at(json!(-1)),
        at(json!(1.5)),
        at(json!("1")),
        json!({ "status_list": { "uri": URL } }),
        json!({ "status_list": { "idx": 1 } }),
    ] {
        assert!(bad_claim(&issuer.token(bad.clone())), "{bad}");
    }
    for url in [
        "https://idp.example/other/1",
        "https://idp.example.evil.test/status/1",
        "http://idp.example/status/1",
        "https://idp.example/status/../admin",
        "https://idp.example/status/%2e%2e/admin",
        "https://idp.example/status/1#x",
        "https://idp.example/status/@127.0.0.1",
        "https://idp.example/status/\\x",
        &format!("https://idp.example/status/{}", "x".repeat(512)),
    ] {
        let bad = json!({ "status_list": { "idx": 1, "uri": url } });
        assert!(bad_claim(&issuer.token(bad)), "{url}");
    }
    assert!(issuer.lists.due(NOW).0.is_empty(), "no list is fetched for any of them");
    // Neither for one whose signature is bad.
    let claims = with(idp_claims(), json!({ "status": at(json!(1)) }));
    let other = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let header = with(own_header(&other), json!({ "kid": issuer.key.kid() }));
    let forged = forge(&other, header.to_string(), claims.to_string());
    assert_eq!(issuer.verifier.verify(&forged, NOW, NOW), Err(Denial::BadSignature));
    assert!(issuer.lists.due(NOW).0.is_empty());
}

#[test]
fn s7_a_token_without_a_status_passes_unless_the_operator_refuses_it() {
    let without = json!(null);
    let other = json!({ "other_mechanism": {} });
    let accepting = listed(MissingStatus::Accept);
    assert!(accepting.token(without.clone()).unwrap().check_status(NOW, || NOW).is_ok());
    assert!(accepting.token(other.clone()).unwrap().check_status(NOW, || NOW).is_ok());
    let refusing = listed(MissingStatus::Refuse);
    assert!(bad_claim(&refusing.token(without)) && bad_claim(&refusing.token(other)));
}

#[test]
fn s8_s11_a_list_that_is_not_to_be_had_is_undecided_and_its_bit_decides() {
    let issuer = listed(MissingStatus::Accept);
    let [good, bad, beyond] = [0, 9, 16].map(|index| issuer.token(at(json!(index))).unwrap());
    assert!(matches!(good.check_status(NOW, || NOW), Err(Denial::StatusListUnavailable(_))));
    let (due, _) = issuer.lists.due(NOW);
    assert_eq!((due.len(), due[0].url()), (1, URL));
    due[0].fail(NOW);
    assert!(matches!(good.check_status(NOW, || NOW), Err(Denial::StatusListUnavailable(_))));
    assert!(issuer.lists.due(NOW).0.is_empty(), "the next attempt has a pause");
    let read = issuer.read(&issuer.signed(json!({}), &list(1, &[0, 2])), None).unwrap();
    due[0].take(read, issuer.lists.rules(), NOW, NOW);
    assert_eq!(good.check_status(NOW, || NOW), Ok(()));
    assert_eq!(bad.check_status(NOW, || NOW), Err(Denial::TokenRevoked));
    assert!(matches!(beyond.check_status(NOW, || NOW), Err(Denial::BadClaim(_))));
    assert!(matches!(issuer.token(at(json!(u64::MAX))).unwrap().check_status(NOW, || NOW), Err(Denial::BadClaim(_))));
    // Fetched again after its ttl; without an answer it counts for `stale_for`, and never beyond its `exp`.
    let after = |seconds| NOW.plus(Duration::from_secs(seconds));
    assert!(issuer.lists.due(after(29)).0.is_empty() && issuer.lists.due(after(30)).0.len() == 1);
    assert_eq!(good.check_status(after(299), || NOW), Ok(()));
    assert_eq!(bad.check_status(after(299), || NOW), Err(Denial::TokenRevoked));
    for token in [&good, &bad, &beyond] {
        assert!(matches!(token.check_status(after(300), || NOW), Err(Denial::StatusListUnavailable(_))), "S11");
    }
    // A wall clock that steps back prolongs nothing, and holds up no fetch; one that passes `exp` ends the list.
    assert_eq!(good.check_status(NOW, || Timestamp::ZERO), Ok(()));
    assert!(matches!(good.check_status(after(300), || Timestamp::ZERO), Err(Denial::StatusListUnavailable(_))), "O9");
    assert!(matches!(good.check_status(NOW, || after(300)), Err(Denial::StatusListUnavailable(_))));
    // A token whose suspension is lifted passes.
    let claims = with(list(1, &[0, 0]), json!({ "iat": 1_800_000_001 }));
    due[0].take(issuer.read(&issuer.signed(json!({}), &claims), None).unwrap(), issuer.lists.rules(), NOW, NOW);
    assert_eq!(bad.check_status(NOW, || NOW), Ok(()));
}

#[test]
fn s8_s9_each_rule_for_a_list_alone_refuses_one() {
    let issuer = listed(MissingStatus::Accept);
    let good = list(1, &[0, 2]);
    assert!(issuer.read(&issuer.signed(json!({}), &good), None).is_ok());
    for changes in [
        json!({ "sub": "https://idp.example/status/2" }),
        json!({ "sub": null }),
        json!({ "iss": "https://other.example" }),
        json!({ "iat": null }),
        json!({ "iat": 1_800_000_031 }),
        json!({ "exp": 1_799_999_970 }),
        json!({ "exp": "x" }),
        json!({ "ttl": 0 }),
        json!({ "ttl": 1.5 }),
        json!({ "status_list": null }),
        json!({ "status_list": { "bits": 3, "lst": lst(&[0]) } }),
        json!({ "status_list": { "bits": 1 } }),
        json!({ "status_list": { "bits": 1, "lst": "x" } }),
        json!({ "status_list": { "bits": 1, "lst": format!("{}AA", lst(&[0; 2]).as_str().unwrap()) } }),
        json!({ "status_list": { "bits": 1, "lst": lst(&vec![0; MAX_INFLATED + 1]) } }),
    ] {
        let text = issuer.signed(json!({}), &with(good.clone(), changes.clone()));
        assert!(matches!(issuer.read(&text, None), Err(Denial::MalformedToken(_))), "{changes}");
    }
    for typ in ["JWT", "at+jwt", "statuslist+cwt"] {
        assert!(issuer.read(&issuer.signed(json!({ "typ": typ }), &good), None).is_err(), "{typ}");
    }
    assert!(issuer.read(&issuer.signed(json!({ "typ": "application/statuslist+jwt" }), &good), None).is_ok());
    // Of another key; an earlier list; one that is no JWS.
    let other = Listed { key: SigningKey::generate(Algorithm::EdDsa).unwrap(), ..listed(MissingStatus::Accept) };
    assert!(issuer.read(&other.signed(json!({ "kid": issuer.key.kid() }), &good), None).is_err());
    let text = issuer.signed(json!({}), &good);
    assert!(issuer.read(&text, Some(NOW)).is_ok());
    assert!(issuer.read(&text, Some(NOW.plus(Duration::from_secs(1)))).is_err(), "S9");
    assert!(issuer.read("x", None).is_err() && issuer.read(&text[..text.len() - 4], None).is_err());
    // The list is no access token.
    assert_eq!(issuer.verifier.verify(&text, NOW, NOW).unwrap_err(), Denial::WrongType);
}

#[test]
fn s8_the_vectors_of_the_draft_read_in_their_order_of_bits() {
    let issuer = listed(MissingStatus::Accept);
    // draft-ietf-oauth-status-list §4.1: one bit each, 0xb9 0xa3; and two bits each, 0xc9 0x44 0xf9.
    let [one, two]: [(u8, &str, &[u8]); 2] = [
        (1, "eNrbuRgAAhcBXQ", &[1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]),
        (2, "eNo76fITAAPfAgc", &[1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]),
    ];
    for (bits, lst, values) in [one, two] {
        let claims = with(list(1, &[0]), json!({ "status_list": { "bits": bits, "lst": lst } }));
        let read = issuer.read(&issuer.signed(json!({}), &claims), None).unwrap();
        let found: Vec<_> = (0..values.len() as u64).map(|index| read.value(index).unwrap()).collect();
        assert_eq!(found, values);
        assert_eq!(read.value(values.len() as u64), None);
    }
    for (bits, bytes, values) in [(4, [0x21, 0x43], vec![1, 2, 3, 4]), (8, [7, 255], vec![7, 255])] {
        let read = issuer.read(&issuer.signed(json!({}), &list(bits, &bytes)), None).unwrap();
        assert_eq!((0..values.len() as u64).map(|index| read.value(index).unwrap()).collect::<Vec<_>>(), values);
    }
}

#[test]
fn s8_an_issuer_has_at_most_64_lists_and_those_that_no_token_names_give_way() {
    let issuer = listed(MissingStatus::Accept);
    let token = |number: usize| {
        let url = format!("https://idp.example/status/{number}");
        issuer.token(json!({ "status_list": { "idx": 0, "uri": url } }))
    };
    let held: Vec<_> = (0..MAX_LISTS).map(|number| token(number).unwrap()).collect();
    assert!(matches!(token(MAX_LISTS), Err(Denial::StatusListUnavailable(_))), "undecided, and not refused");
    drop(held);
    assert!(token(MAX_LISTS).is_ok());
}

#[test]
fn s12_d5_a_token_that_was_exchanged_for_one_of_a_list_is_judged_by_the_lists_in_force() {
    let issuer = listed(MissingStatus::Accept);
    let own = Keyring::generate(Algorithm::EdDsa).unwrap();
    let own_rules = || IssuerRules::own(OWN, vec!["api".into()], &own, Duration::ZERO);
    let theirs = || issuer.verifier.rules(IDP).unwrap().clone();
    let with_lists = |lists: Option<Arc<RemoteLists>>| {
        let external = IssuerRules { status_lists: lists, ..theirs() };
        Verifier::new(vec![own_rules(), external]).unwrap()
    };
    let text = |status: Value| {
        let exchanged = json!({
            "sid": null, "gen": null, "act": { "sub": "client:orders" }, "origin_iss": IDP, "origin_sub": "ada",
            "origin_iat": 1_800_000_000, "origin_status": status,
        });
        let claims = with(own_claims(), exchanged).to_string();
        forge(own.signer(), own_header(own.signer()).to_string(), claims)
    };
    let in_force = with_lists(Some(Arc::clone(&issuer.lists)));
    let [good, bad] = [0, 9].map(|index| in_force.verify(&text(at(json!(index))), NOW, NOW).unwrap());
    assert!(matches!(bad.check_status(NOW, || NOW), Err(Denial::StatusListUnavailable(_))));
    assert!(in_force.awaited_status(&text(at(json!(9)))).is_some(), "a request may wait for the list");
    let read = issuer.read(&issuer.signed(json!({}), &list(1, &[0, 2])), None).unwrap();
    issuer.lists.due(NOW).0[0].take(read, issuer.lists.rules(), NOW, NOW);
    assert_eq!([&good, &bad].map(|token| token.check_status(NOW, || NOW)), [Ok(()), Err(Denial::TokenRevoked)]);
    assert_eq!(bad.origin_status().map(|place| place.index), Some(9), "the next exchange carries it along");
    // What names no bit is refused, and so is the token of an issuer that the gate does not know.
    let elsewhere = json!({ "status_list": { "idx": 1, "uri": "https://evil.test/status/1" } });
    for status in [json!(7), at(json!("1")), elsewhere] {
        assert!(bad_claim(&in_force.verify(&text(status.clone()), NOW, NOW)), "{status}");
    }
    let alone = Verifier::new(vec![own_rules()]).unwrap();
    assert_eq!(alone.verify(&text(at(json!(0))), NOW, NOW), Err(Denial::UnknownIssuer));
    assert!(alone.verify(&text(Value::Null), NOW, NOW).is_ok());
    // A reload that replaces the lists ends the use of the old ones; one that reads no lists checks nothing.
    let replaced = with_lists(Some(RemoteLists::new(rules(MissingStatus::Accept))));
    let unread = with_lists(None);
    assert_eq!([&in_force, &replaced, &unread].map(|verifier| verifier.has_status_of(&bad)), [true, false, false]);
    let unchecked = unread.verify(&text(at(json!(9))), NOW, NOW).unwrap();
    assert!(unchecked.check_status(NOW, || NOW).is_ok() && unread.has_status_of(&unchecked));
}
