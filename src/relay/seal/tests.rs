use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use rotogate_core::clock::Timestamp;
use rotogate_core::token::Algorithm;
use rotogate_core::token::keyring::{KeyMaterial, RefreshKeys, RefreshSecret, SigningKey};

/// A keyring of these refresh secrets; the last one is current.
fn keyring(secrets: &[[u8; 32]]) -> Keyring {
    let material = KeyMaterial::generate(Algorithm::EdDsa).unwrap();
    let signer = SigningKey::from_material(Algorithm::EdDsa, &material).unwrap();
    let secrets: Vec<_> = (1..)
        .zip(secrets)
        .map(|(id, secret)| (id, RefreshSecret::from_text(URL_SAFE_NO_PAD.encode(secret).as_bytes()).unwrap()))
        .collect();
    let refresh = RefreshKeys::new(secrets.last().unwrap().0, &secrets).unwrap();
    Keyring::from_parts(Uuid::nil(), signer, Vec::new(), refresh).unwrap()
}

fn counted() -> [u8; 32] {
    std::array::from_fn(|n| n as u8)
}

fn sealer() -> Sealer {
    Sealer::new(&keyring(&[counted()]), "web", "https://id.example/token")
}

fn presenter() -> Presenter {
    Presenter { client: "spa".into(), credential: Some("s3cret".into()), jkt: Some("thumb".into()) }
}

fn keys(sealer: &Sealer, token: &str, presenter: &Presenter) -> RelayKeys {
    sealer.keys(&token.into(), presenter).unwrap().remove(0)
}

fn record() -> RelayRecord {
    RelayRecord {
        state: RelayState::Done,
        attempt: 1,
        owner: [7; 16],
        since: Timestamp::from_millis(1000),
        lease: Timestamp::from_millis(36_000),
        until: Timestamp::from_millis(31_000),
        params: [0; 32],
        sealed: Vec::new(),
        version: RowVersion::default(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Computed by another program, with Python's hmac, hashlib and cryptography.
#[test]
fn the_keys_and_the_sealed_bytes_of_version_1_never_change() {
    let keys = keys(&sealer(), "a refresh token", &presenter());
    assert_eq!(hex(&keys.id().0), "518b92a9543c1944a6fc09b22e1ccd5e702ccbc63823bf4031a9623ee48bc06d");
    assert_eq!(hex(keys.seal.as_slice()), "84b849aee04eb7097fe27d1616c941834c6c10e0db4381d54e2cc8c7e841e017");
    let params = keys.params(&Params {
        scope: vec!["profile".into(), "openid".into(), "openid".into()],
        resource: vec!["https://a".into()],
        audience: Vec::new(),
    });
    assert_eq!(hex(&params), "0fb66f2a6e62870e0e21cb5e8281a0dceffef3f6b9cfa6035e56fd5f2ca5b30a");
    let text = "000102030405060708090a0bb2ec100500e10a3c2b388ae5cbbabfa2da5e3bdfa56f7f788575";
    let sealed = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
    let known = RelayRecord { params, sealed, version: RowVersion([9; 16]), ..record() };
    assert_eq!(keys.open(&known).unwrap().as_slice(), b"the answer");
}

#[test]
fn i37_a_record_opens_only_for_its_token_presenter_endpoint_and_keyring() {
    let sealer = sealer();
    let mine = keys(&sealer, "T", &presenter());
    let sealed = mine.seal(record(), b"answer").unwrap();
    assert_eq!(mine.open(&sealed).unwrap().as_slice(), b"answer");
    let no_credential = Presenter { credential: None, ..presenter() };
    let others = [
        ("token", keys(&sealer, "T2", &presenter())),
        ("client", keys(&sealer, "T", &Presenter { client: "other".into(), ..presenter() })),
        ("credential", keys(&sealer, "T", &Presenter { credential: Some("other".into()), ..presenter() })),
        ("no credential", keys(&sealer, "T", &no_credential)),
        ("an empty credential", keys(&sealer, "T", &Presenter { credential: Some("".into()), ..presenter() })),
        ("DPoP key", keys(&sealer, "T", &Presenter { jkt: Some("other".into()), ..presenter() })),
        ("no DPoP key", keys(&sealer, "T", &Presenter { jkt: None, ..presenter() })),
        ("endpoint", keys(&Sealer::new(&keyring(&[counted()]), "x", "https://id.example/token"), "T", &presenter())),
        ("token URL", keys(&Sealer::new(&keyring(&[counted()]), "web", "https://x/token"), "T", &presenter())),
        ("keyring", keys(&Sealer::new(&keyring(&[[5; 32]]), "web", "https://id.example/token"), "T", &presenter())),
    ];
    for (what, other) in &others {
        // The seal does not open under the id of another row.
        assert!(other.open(&sealed).is_none(), "another {what}");
        assert!(!other.is_same(&mine), "another {what}");
    }
    // Fields do not run into each other.
    let ab = Presenter { client: "ab".into(), credential: None, jkt: Some("c".into()) };
    let a = Presenter { client: "a".into(), credential: None, jkt: Some("bc".into()) };
    assert!(!keys(&sealer, "T", &ab).is_same(&keys(&sealer, "T", &a)));
    let split = Sealer::new(&keyring(&[counted()]), "webhttps:", "//id.example/token");
    assert_ne!(keys(&split, "T", &a).id(), keys(&sealer, "T", &a).id());
    // The id is the token's alone: another presenter finds the record, and cannot open it.
    assert_eq!(others[1].1.id(), mine.id());
}

#[test]
fn i37_no_field_of_a_record_can_be_changed_in_the_store() {
    let mine = keys(&sealer(), "T", &presenter());
    let sealed = mine.seal(record(), b"answer").unwrap();
    let later = Timestamp::from_millis(99_000);
    let changed = [
        RelayRecord { state: RelayState::Dead, ..sealed.clone() },
        RelayRecord { attempt: 2, ..sealed.clone() },
        RelayRecord { owner: [8; 16], ..sealed.clone() },
        RelayRecord { since: later, ..sealed.clone() },
        RelayRecord { lease: later, ..sealed.clone() },
        RelayRecord { until: later, ..sealed.clone() },
        RelayRecord { params: [1; 32], ..sealed.clone() },
        RelayRecord { version: RowVersion::default(), ..sealed.clone() },
        RelayRecord { sealed: Vec::new(), ..sealed.clone() },
        RelayRecord { sealed: sealed.sealed[..NONCE + 3].to_vec(), ..sealed.clone() },
    ];
    for record in changed {
        assert!(mine.open(&record).is_none(), "{record:?}");
    }
    for at in 0..sealed.sealed.len() {
        let mut bytes = sealed.sealed.clone();
        bytes[at] ^= 1;
        assert!(mine.open(&RelayRecord { sealed: bytes, ..sealed.clone() }).is_none(), "byte {at}");
    }
}

#[test]
fn an_added_refresh_key_leaves_the_records_of_the_former_readable() {
    let url = "https://id.example/token";
    let before = keys(&Sealer::new(&keyring(&[counted()]), "web", url), "T", &presenter());
    let sealed = before.seal(record(), b"answer").unwrap();
    let both = Sealer::new(&keyring(&[counted(), [5; 32]]), "web", url).keys(&"T".into(), &presenter()).unwrap();
    assert_eq!(both.len(), 2);
    assert_ne!(both[0].id(), before.id(), "the current key comes first");
    assert_eq!(both[1].id(), before.id());
    assert_eq!(both[1].open(&sealed).unwrap().as_slice(), b"answer");
}

#[test]
fn i37_nothing_of_it_prints() {
    let mine = keys(&sealer(), "T", &presenter());
    let shown = format!("{mine:?} {:?} {:?}", sealer(), presenter());
    assert!(!shown.contains("s3cret") && !shown.contains(&hex(mine.seal.as_slice())), "{shown}");
    assert!(!shown.contains(&hex(&mine.id().0)), "{shown}");
}

proptest! {
    #[test]
    fn what_was_sealed_opens_and_reveals_only_its_length(
        token in ".{0,200}", client in ".{0,20}", answer in prop::collection::vec(any::<u8>(), 0..2000)
    ) {
        let who = Presenter { client, credential: None, jkt: None };
        let mine = keys(&sealer(), &token, &who);
        let (a, b) = (mine.seal(record(), &answer).unwrap(), mine.seal(record(), &answer).unwrap());
        prop_assert_ne!(&a.sealed, &b.sealed, "a nonce is never repeated");
        prop_assert_eq!(a.sealed.len(), NONCE + answer.len() + 16);
        prop_assert_eq!(mine.open(&a).unwrap().to_vec(), answer);
    }

    #[test]
    fn lists_of_fields_are_never_confused(a in lists(), b in lists()) {
        let bytes = |list: &[Vec<u8>]| fields(list.iter().map(Vec::as_slice));
        prop_assert_eq!(bytes(&a) == bytes(&b), a == b);
    }

    #[test]
    fn params_are_sets(mut scope in prop::collection::vec("[a-c]{1,2}", 0..5), other in prop::collection::vec("[a-c]{1,2}", 0..5)) {
        let mine = keys(&sealer(), "T", &presenter());
        let of = |scope: &[String]| mine.params(&Params { scope: scope.to_vec(), ..Params::default() });
        let before = of(&scope);
        let set = |list: &[String]| list.iter().cloned().collect::<std::collections::BTreeSet<_>>();
        prop_assert_eq!(before == of(&other), set(&scope) == set(&other));
        let moved = mine.params(&Params { resource: scope.clone(), ..Params::default() });
        prop_assert_eq!(moved == before, scope.is_empty());
        scope.reverse();
        prop_assert_eq!(of(&scope), before);
    }
}

fn lists() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(0_u8..3, 0..4), 0..4)
}

#[cfg(feature = "browser-oidc")]
#[test]
fn b5_a_vault_opens_for_its_cookie_and_as_it_was_written_alone() {
    let keyring = keyring(&[counted()]);
    let session = |n: u8| rotogate_core::session::SessionId::from_bytes([n; 16]);
    let of_cookie = |n| {
        let cookie = rotogate_core::token::session_cookie::SessionCookie::new(keyring.refresh_keys(), session(n));
        RelayKeys::vault(&cookie.unwrap().unwrap().vault(keyring.refresh_keys()).unwrap()).unwrap()
    };
    let (mine, again, other) = (of_cookie(1), of_cookie(1), of_cookie(2));
    let (space, key) = (crate::gate::maintain::SPACES[0], mine.id());
    let vault = mine.seal_row((space, key), Timestamp::from_millis(31_000), b"tokens").unwrap();
    assert_eq!(mine.open_row((space, key), &vault).unwrap().as_slice(), b"tokens");
    assert!(!vault.bytes.windows(6).any(|window| window == b"tokens"));
    // Attacks 26 and 27: another cookie of this session, the row of another session, an older version under a new number.
    assert!(again.open_row((space, key), &vault).is_none() && other.open_row((space, key), &vault).is_none());
    assert!(mine.open_row((space, RowKey([8; 32])), &vault).is_none());
    assert!(mine.open_row((crate::gate::maintain::SPACES[1], key), &vault).is_none());
    for changed in [
        Row { version: RowVersion::default(), ..vault.clone() },
        Row { until: Timestamp::from_millis(1), ..vault.clone() },
        Row { bytes: vault.bytes[..20].to_vec(), ..vault.clone() },
    ] {
        assert!(mine.open_row((space, key), &changed).is_none());
    }
}
