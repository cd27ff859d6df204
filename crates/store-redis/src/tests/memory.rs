//! C33: the server's memory for a session and for a revocation.

use super::*;
use rotogate_core::revocation::Effect;
use rotogate_core::session::{Generation, LastPair, Scope, Seal, SessionSecret, Status};
use rotogate_core::store::conformance::start;

/// The page that documents these numbers.
const PAGE: &str = include_str!("../../../../docs/scale.md");
const NUMBER: u64 = 4000;
const DAY: Duration = Duration::from_secs(86_400);

/// Bytes in the row of this name.
fn written(name: &str) -> f64 {
    let row =
        PAGE.lines().find_map(|line| line.strip_prefix(&format!("| {name} | "))).unwrap_or_else(|| panic!("{name}"));
    row.split(' ').next().unwrap().parse().unwrap()
}

fn id(number: u64) -> SessionId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    SessionId::new(start(), random)
}

fn session(number: u64) -> Session {
    let scope = || Scope::parse("read write").unwrap();
    let access_expires = start().plus(Duration::from_secs(600));
    Session {
        bound_to: None,
        certificate: None,
        browser: None,
        seal: Seal::new(1, [7; 16]),
        resource: None,
        vouched_by: None,
        id: id(number),
        secret: SessionSecret::new([7; 16]),
        subject: format!("user-{number:06}").into(),
        account: None,
        client: "web".into(),
        scope: scope(),
        dialect: "oauth2".into(),
        expires: start().plus(30 * DAY),
        latest_access_expires: access_expires,
        current: Generation::FIRST,
        previous: Generation::NONE,
        rotated_at: Timestamp::ZERO,
        issued_at: start(),
        confirmed: false,
        last: LastPair { scope: scope(), access_expires, kid: "b7e1f9a0".into(), refresh_key: 1 },
        status: Status::Live,
        revision: 1,
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".into()),
        address: Some([192, 0, 2, 1].into()),
        claims: rotogate_core::claim::OwnClaims::default(),
    }
}

/// The total bytes of all keys that match a pattern, as the server reports them.
fn bytes_of(server: &Server, pattern: &str) -> f64 {
    let script = "local all = 0 \
        for _, key in ipairs(redis.call('KEYS', ARGV[1])) do all = all + redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0) end \
        return all";
    server.cli(&["EVAL", script, "0", pattern]).parse().unwrap()
}

#[tokio::test]
async fn c33_a_session_and_a_revocation_take_the_memory_that_is_written_down() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    for number in 0..NUMBER {
        store.insert(session(number), SubjectBound::NONE).await.unwrap();
        let entry = Revocation {
            target: Target::Session(id(NUMBER + number)),
            effect: Effect::SESSION_REVOKED,
            until: start().plus(DAY),
        };
        store.revoke(entry, RevokedBecause::Operator).await.unwrap();
    }
    for (name, key) in [
        ("a session's record, including the user agent", "{rg:0}:s:*"),
        ("a session's entry in the index of its subject", "{rg:0}:sub:*"),
        ("a revocation", "{rg:0}:r"),
        ("the end of a session", "{rg:0}:u"),
        ("a log entry, which is kept for 15 minutes", "{rg:0}:log"),
    ] {
        let (counted, written) = (bytes_of(&server, key) / NUMBER as f64, written(name));
        println!("{name}: {counted:.0} bytes, {written} written");
        assert!((counted / written - 1.0).abs() <= 0.1, "{name}: {counted} bytes, and docs/scale.md says {written}");
    }
}
