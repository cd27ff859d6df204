//! Sessions for stores that a bench fills.

use std::time::Duration;

use rotogate::clock::Timestamp;
use rotogate::session::{Generation, Scope, Session, SessionId, Status};
use rotogate_core::session::LastPair;
use rotogate_core::session::Seal;
use rotogate_core::session::SessionSecret;

/// The id of a session that began at this time. Its number is spread like random bytes, but the same in every run.
pub(crate) fn numbered_id(number: usize, created: Timestamp) -> SessionId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    SessionId::new(created, random)
}

/// A session after its login, of a week.
pub(crate) fn begun_session(id: SessionId, subject: String) -> Session {
    let scope = || Scope::parse("read write").unwrap();
    let access_expires = id.created().plus(Duration::from_secs(300));
    Session {
        bound_to: None,
        certificate: None,
        browser: None,
        seal: Seal::default(),
        resource: None,
        vouched_by: None,
        id,
        secret: SessionSecret::new([7; 16]),
        subject: subject.into(),
        account: None,
        client: "web".into(),
        scope: scope(),
        dialect: "oauth2".into(),
        expires: id.created().plus(Duration::from_secs(7 * 24 * 3600)),
        latest_access_expires: access_expires,
        current: Generation::new(1),
        previous: Generation::new(0),
        rotated_at: Timestamp::ZERO,
        issued_at: id.created(),
        confirmed: false,
        last: LastPair { scope: scope(), access_expires, kid: "b7e1f9a02c5d4e38".into(), refresh_key: 1 },
        status: Status::Live,
        revision: 1,
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".into()),
        address: Some([192, 0, 2, 1].into()),
        claims: rotogate::claim::OwnClaims::default(),
    }
}
