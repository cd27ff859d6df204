//! The content of a store: sessions and revocations as gates write them.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use rotogate::session::{Generation, RevokedBecause, Scope, Session, SessionId, Status};
use rotogate::store::{Inserted, Store, SubjectBound};
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_core::revocation::{Effect, Revocation, Target};
use rotogate_core::session::LastPair;
use rotogate_core::session::Seal;
use rotogate_core::session::SessionSecret;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The number of writes in flight: fewer than a store takes at once.
const AT_ONCE: usize = 512;

fn id(number: usize, now: Timestamp) -> SessionId {
    let mut random = [0; 10];
    // Spread like random bytes, but the same in every run.
    random[2..].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    SessionId::new(now, random)
}

fn session(number: usize, now: Timestamp) -> Session {
    let scope = || Scope::parse("read write").unwrap();
    Session {
        bound_to: None,
        certificate: None,
        browser: None,
        seal: Seal::default(),
        resource: None,
        vouched_by: None,
        id: id(number, now),
        secret: SessionSecret::new([7; 16]),
        subject: format!("user-{number}").into(),
        account: None,
        client: "web".into(),
        scope: scope(),
        dialect: "oauth2".into(),
        expires: now.plus(30 * DAY),
        latest_access_expires: now.plus(Duration::from_secs(600)),
        current: Generation::FIRST,
        previous: Generation::NONE,
        rotated_at: Timestamp::ZERO,
        issued_at: now,
        confirmed: false,
        last: LastPair {
            scope: scope(),
            access_expires: now.plus(Duration::from_secs(600)),
            kid: "b7e1f9a0".into(),
            refresh_key: 1,
        },
        status: Status::Live,
        revision: 1,
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".into()),
        address: Some([192, 0, 2, 1].into()),
        claims: rotogate::claim::OwnClaims::default(),
    }
}

/// Begins this many sessions, each with its own subject.
pub(crate) async fn begin_sessions(store: &impl Store, number: usize) {
    let now = SystemTime::new().wall();
    let begin = |number| async move {
        let inserted = store.insert(session(number, now), SubjectBound::NONE).await.unwrap();
        assert_eq!(inserted, Inserted::Inserted(Vec::new()));
    };
    stream::iter(0..number).map(begin).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
}

/// Ends sessions with these numbers, which the store does not have. Their tokens live for a day.
pub(crate) async fn revoke(store: &impl Store, numbers: std::ops::Range<usize>) {
    let now = SystemTime::new().wall();
    let revoke = |number| async move {
        let target = Target::Session(id(number, now));
        let entry = Revocation { target, effect: Effect::SESSION_REVOKED, until: now.plus(DAY) };
        store.revoke(entry, RevokedBecause::Operator).await.unwrap();
    };
    stream::iter(numbers).map(revoke).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
}
