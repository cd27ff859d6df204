//! An attacker writes to the store without a key of the gates.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::Value;
use support::redis::Redis;
use support::{Gate, Tokens};

use super::nodes;

/// A change of the records that hold some bytes. All bytes are written in hexadecimal digits.
pub(crate) struct Forgery {
    /// The record of this session.
    pub(crate) session: String,
    pub(crate) from: String,
    /// The replacement, as long as `from`.
    pub(crate) to: String,
    /// The digest of subject and client that the store compares.
    pub(crate) whose: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn claim(tokens: &Tokens, name: &str) -> String {
    let payload = URL_SAFE_NO_PAD.decode(tokens.access.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&payload).unwrap()[name].as_str().unwrap().to_owned()
}

/// Another subject of the same length.
fn other(subject: &str) -> String {
    subject.chars().rev().collect()
}

fn id(tokens: &Tokens) -> String {
    claim(tokens, "sid").replace('-', "")
}

/// Writes another subject into the record of a session, like a writer of the store.
fn other_subject(tokens: &Tokens) -> Forgery {
    let subject = claim(tokens, "sub");
    let to = other(&subject);
    assert_ne!(to, subject);
    let message = [&(to.len() as u64).to_be_bytes(), to.as_bytes(), b"web".as_slice()].concat();
    let whose = hex(&digest(&SHA256, &message).as_ref()[..8]);
    Forgery { session: id(tokens), from: hex(subject.as_bytes()), to: hex(to.as_bytes()), whose }
}

/// Damages of the record of a session.
pub(crate) enum Damage {
    /// The record is cut to this many bytes.
    CutTo(usize),
    /// The first byte, which names the version, is changed.
    OtherVersion,
}

/// A forged record causes a fault of only its session at each gate that reads it, and a revocation ends the session.
/// `forge` changes the store, `gate` has not read the sessions, `first` has begun them. `copy` puts the record of one
/// session under the id of another.
pub(crate) async fn forgeries([first, gate]: [&Gate; 2], forge: impl Fn(&Forgery), copy: impl Fn(&str, &str)) {
    let (tokens, good) = (first.login().await, first.login().await);
    forge(&other_subject(&tokens));
    for _ in 0..2 {
        let answer = gate.refresh(&tokens.refresh).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
    assert_eq!(gate.metric("rotogate_session_events_total{event=\"broken_seal\"}").await, 2);
    assert!(gate.log().contains("session record: the seal is missing or invalid"), "{}", gate.log());
    // The other sessions continue.
    assert_eq!(gate.refresh(&good.refresh).await.status, StatusCode::OK);
    // The end of the session needs no record.
    assert_eq!(gate.revoke(&tokens.refresh).await.status, StatusCode::OK);
    gate.until_refused(&tokens.access).await;
    first.until_refused(&tokens.access).await;

    // A good record of another session is not good under this id.
    let (own, others) = (first.login().await, first.login().await);
    copy(&id(&others), &id(&own));
    let answer = gate.refresh(&own.refresh).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(gate.metric("rotogate_session_events_total{event=\"broken_seal\"}").await, 4, "the revocation read one");
    assert_eq!(gate.refresh(&others.refresh).await.status, StatusCode::OK);
}

async fn broken(gate: &Gate) -> u64 {
    gate.metric("rotogate_session_events_total{event=\"broken_seal\"}").await
}

/// An unreadable record gets the same answer.
pub(crate) async fn damages([first, gate]: [&Gate; 2], damage: impl Fn(&str, &Damage)) {
    for how in [0, 1, 20, 41, 42, 90].map(Damage::CutTo).iter().chain([&Damage::OtherVersion]) {
        let (tokens, good) = (first.login().await, first.login().await);
        let before = broken(gate).await;
        damage(&id(&tokens), how);
        let answer = gate.refresh(&tokens.refresh).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
        assert_eq!(broken(gate).await, before + 1);
        assert!(gate.log().contains("session record cannot be read"), "{}", gate.log());
        assert_eq!(gate.refresh(&good.refresh).await.status, StatusCode::OK);
        // The store works: the end is written, and reaches the other gate.
        assert_eq!(gate.revoke(&tokens.refresh).await.status, StatusCode::OK);
        gate.until_refused(&tokens.access).await;
        first.until_refused(&tokens.access).await;
    }
}

const UNHEX: &str = "local function unhex(h) return (h:gsub('..', function(c) return string.char(tonumber(c, 16)) end)) end \
    local function put(r, from, to) local at = r:find(from, 1, true) \
      if not at then error('not there') end return r:sub(1, at - 1) .. to .. r:sub(at + #from) end ";

#[tokio::test]
async fn j23_a_record_that_was_forged_in_redis_is_a_fault_of_its_session_alone() {
    let server = Redis::start(&[]);
    let (_place, [first, second]) = nodes(&server);
    forgeries(
        [&first, &second],
        |forgery| {
            let script = format!(
                "{UNHEX} local key = '{{rg:0}}:s:' .. unhex(ARGV[1]) local r = redis.call('GET', key) \
                 r = put(r, unhex(ARGV[2]), unhex(ARGV[3])) r = r:sub(1, 10) .. unhex(ARGV[4]) .. r:sub(19) \
                 return redis.call('SET', key, r, 'KEEPTTL')"
            );
            let Forgery { session, from, to, whose } = forgery;
            assert_eq!(server.cli(&["EVAL", &script, "0", session, from, to, whose]), "OK");
        },
        |from, to| {
            let script = format!(
                "{UNHEX} local from, to = unhex(ARGV[1]), unhex(ARGV[2]) local r = redis.call('GET', '{{rg:0}}:s:' .. from) \
                 return redis.call('SET', '{{rg:0}}:s:' .. to, put(r, from, to), 'KEEPTTL')"
            );
            assert_eq!(server.cli(&["EVAL", &script, "0", from, to]), "OK");
        },
    )
    .await;
}

#[tokio::test]
async fn j27_a_record_that_was_damaged_in_redis_is_a_fault_of_its_session_alone() {
    let server = Redis::start(&[]);
    let (_place, [first, second]) = nodes(&server);
    damages([&first, &second], |session, damage| {
        let change = match damage {
            Damage::CutTo(length) => format!("r:sub(1, {length})"),
            Damage::OtherVersion => "'\\9' .. r:sub(2)".to_owned(),
        };
        let script = format!(
            "{UNHEX} local key = '{{rg:0}}:s:' .. unhex(ARGV[1]) local r = redis.call('GET', key) \
             return redis.call('SET', key, {change}, 'KEEPTTL')"
        );
        assert_eq!(server.cli(&["EVAL", &script, "0", session]), "OK");
    })
    .await;
}
