use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::token::keyring::RefreshSecret;

fn keys() -> RefreshKeys {
    RefreshKeys::new(2, &[(1, secret(1)), (2, secret(2)), (200, secret(3))]).unwrap()
}

fn secret(n: u8) -> RefreshSecret {
    RefreshSecret::from_text(URL_SAFE_NO_PAD.encode([n; 32]).as_bytes()).unwrap()
}

fn id() -> SessionId {
    SessionId::new(Timestamp::from_millis(1_732_000_000_123), [7; 10])
}

fn own() -> SessionSecret {
    SessionSecret::new([9; 16])
}

fn token() -> String {
    make(&keys(), 2, id(), Generation::new(5), &own(), "web").unwrap().expose().to_owned()
}

#[test]
fn the_format_is_fixed() {
    // A change here ends all sessions.
    let token = token();
    let body = URL_SAFE_NO_PAD.decode(token.strip_prefix("rg1_").unwrap()).unwrap();
    assert_eq!(body.len(), 1 + 16 + 1 + 16 + 16);
    assert_eq!(body[0], 2);
    assert_eq!(body[1..17], *id().as_bytes());
    assert_eq!(body[17], 5);

    let derive = |purpose: &[u8]| {
        let salt = aws_lc_rs::hkdf::Salt::new(aws_lc_rs::hkdf::HKDF_SHA256, b"rotogate refresh keys v1");
        let root = salt.extract(&[2; 32]);
        let mut key = [0; 32];
        root.expand(&[purpose], HMAC_SHA256).unwrap().fill(&mut key).unwrap();
        key
    };
    let signed = [b"rg1_".as_slice(), &body[..18]].concat();
    let tag_a = hmac::sign(&hmac::Key::new(HMAC_SHA256, &derive(b"refresh token tag A")), &signed);
    assert_eq!(body[18..34], tag_a.as_ref()[..16]);
    let tag_b = hmac::sign(&hmac::Key::new(HMAC_SHA256, &[9; 16]), &[&signed, b"web".as_slice()].concat());
    assert_eq!(body[34..], tag_b.as_ref()[..16]);
}

#[test]
fn r5_it_takes_the_server_key_and_the_session_secret() {
    // An attacker with only the store (and so the session's secret) lacks tag A.
    let other_server = RefreshKeys::new(2, &[(2, secret(77))]).unwrap();
    let without_key = make(&other_server, 2, id(), Generation::new(5), &own(), "web").unwrap();
    assert!(authenticate(&keys(), without_key.expose()).is_none());
    // An attacker with only the key file lacks tag B.
    let without_secret = make(&keys(), 2, id(), Generation::new(5), &SessionSecret::new([0; 16]), "web").unwrap();
    let authentic = authenticate(&keys(), without_secret.expose()).unwrap();
    assert!(!authentic.proves(&own(), "web"));
}

#[test]
fn r6_another_client_proves_nothing() {
    let authentic = authenticate(&keys(), &token()).unwrap();
    assert!(authentic.proves(&own(), "web"));
    for client in ["", "we", "web ", "webb", "Web", "other"] {
        assert!(!authentic.proves(&own(), client), "{client:?}");
    }
}

#[test]
fn r7_a_token_of_another_key_is_unknown() {
    let token = token();
    let retired = RefreshKeys::new(1, &[(1, secret(1))]).unwrap();
    assert!(authenticate(&retired, &token).is_none());
    // The same secret under another id is another key, because the id is signed.
    let renamed = RefreshKeys::new(3, &[(3, secret(2))]).unwrap();
    let mut body = URL_SAFE_NO_PAD.decode(&token[4..]).unwrap();
    body[0] = 3;
    assert!(authenticate(&renamed, &format!("rg1_{}", URL_SAFE_NO_PAD.encode(body))).is_none());
    assert!(make(&keys(), 3, id(), Generation::new(5), &own(), "web").is_none());
}

#[test]
fn r7_every_flipped_bit_and_every_other_length_is_refused() {
    let token = token();
    let keys = keys();
    for at in 0..token.len() {
        for bit in 0..7 {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let edited = String::from_utf8(bytes).unwrap();
            let accepted = authenticate(&keys, &edited).is_some_and(|a| a.proves(&own(), "web"));
            assert!(!accepted, "bit {bit} of character {at}");
        }
        assert!(authenticate(&keys, &token[..at]).is_none(), "the first {at} characters");
    }
    for ending in ["A", "=", "==", "AAAA", "\n", " ", "\0", "."] {
        assert!(authenticate(&keys, &format!("{token}{ending}")).is_none());
        assert!(authenticate(&keys, &format!("{ending}{token}")).is_none());
    }
    assert!(authenticate(&keys, &token.repeat(10_000)).is_none());
}

#[test]
fn a_generation_has_one_spelling() {
    let keys = keys();
    // A token with correct tags, made by ourselves, is refused if its number is encoded in more bytes than needed.
    for varint in [
        &[0x85, 0x00][..],
        &[0x80, 0x80, 0x00],
        &[0xff; 10],
        &[0x85],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
    ] {
        let mut message = [b"rg1_".as_slice(), &[2], id().as_bytes(), varint].concat();
        let tag_a = keys.tag(2, &message).unwrap();
        let tag_b = tag_b(&message, &own(), "web");
        message.extend(tag_a);
        message.extend(tag_b);
        let text = format!("rg1_{}", URL_SAFE_NO_PAD.encode(&message[4..]));
        assert!(authenticate(&keys, &text).is_none(), "{varint:x?}");
        assert_eq!(read_varint(varint), None, "{varint:x?}");
    }
    assert_eq!(read_varint(&[]), None);
    assert_eq!(read_varint(&[0]), Some(0));
}

#[test]
fn o3_nothing_prints() {
    let token = make(&keys(), 2, id(), Generation::new(5), &own(), "web").unwrap();
    let authentic = authenticate(&keys(), token.expose()).unwrap();
    let shown = format!("{token:?} {authentic:?} {:?} {:?}", keys(), secret(2));
    assert!(!shown.contains(&token.expose()[4..20]), "{shown}");
    assert!(!shown.contains("tag_b") && shown.contains("RefreshSecret(…)"), "{shown}");
}

proptest! {
    #[test]
    fn a_token_says_what_it_was_made_of(
        key_id in prop::sample::select(vec![1_u8, 2, 200]),
        id: [u8; 16],
        generation: u64,
        secret: [u8; 16],
        client in ".{0,40}",
    ) {
        let id = SessionId::from_bytes(id);
        let secret = SessionSecret::new(secret);
        let token = make(&keys(), key_id, id, Generation::new(generation), &secret, &client).unwrap();
        let again = make(&keys(), key_id, id, Generation::new(generation), &secret, &client).unwrap();
        prop_assert_eq!(token.expose(), again.expose());
        let authentic = authenticate(&keys(), token.expose()).unwrap();
        prop_assert_eq!((authentic.key_id, authentic.session, authentic.generation), (key_id, id, Generation::new(generation)));
        prop_assert!(authentic.proves(&secret, &client));
        let longer = format!("{client}x");
        prop_assert!(!authentic.proves(&secret, &longer));
    }

    #[test]
    fn r5_one_token_gives_no_sibling(generation in 0..u64::MAX, id: [u8; 16]) {
        let keys = keys();
        let id = SessionId::from_bytes(id);
        let body = |generation| {
            let token = make(&keys, 2, id, generation, &own(), "web").unwrap();
            URL_SAFE_NO_PAD.decode(&token.expose()[4..]).unwrap()
        };
        let (mine, next) = (body(Generation::new(generation)), body(Generation::new(generation + 1)));
        let tags = |body: &[u8]| (body[body.len() - 32..body.len() - 16].to_vec(), body[body.len() - 16..].to_vec());
        prop_assert_ne!(tags(&mine).0, tags(&next).0);
        prop_assert_ne!(tags(&mine).1, tags(&next).1);
        // The next generation with the old tags.
        let spliced = [&next[..next.len() - 32], &mine[mine.len() - 32..]].concat();
        let text = format!("rg1_{}", URL_SAFE_NO_PAD.encode(spliced));
        prop_assert!(authenticate(&keys, &text).is_none());
    }

    #[test]
    fn r7_any_edit_is_refused(at in 0_usize..71, to in any::<char>()) {
        let token = token();
        let edited: String = token.chars().enumerate().map(|(i, c)| if i == at { to } else { c }).collect();
        let accepted = authenticate(&keys(), &edited).is_some_and(|a| a.proves(&own(), "web"));
        prop_assert_eq!(accepted, edited == token);
    }

    #[test]
    fn no_text_brings_it_down(text in ".{0,120}", tail in "[A-Za-z0-9_-]{0,90}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert!(authenticate(&keys(), &text).is_none());
        for body in [tail, URL_SAFE_NO_PAD.encode(&bytes)] {
            let token = format!("{PREFIX}{body}");
            prop_assert!(authenticate(&keys(), &token).is_none());
        }
        let _ = read_varint(&bytes);
    }
}
