//! Sessions for the assertions of other issuers: D19, D21.

use super::support::{HOUR, T0, World, denied, scope};
use crate::claim::OwnClaims;
use crate::client::Client;
use crate::denial::Denial;
use crate::engine::used::USED_ASSERTIONS;
use crate::engine::{AccountRule, Arrival, AssertedLogin, IssuedTokens, Origin};
use crate::fault::Error;
use crate::session::{Generation, RevokedBecause, Status, VouchedBy};
use crate::store::{
    MemoryStore,
    rows::{Row, RowStore},
};
use crate::token::verify::{JagSubject, ProvedGrant, ProvedUser, UsableOnce};

fn grant(jti: &str) -> ProvedGrant {
    let user = ProvedUser {
        by: JagSubject::Issuer,
        subject: "okta|u-1".into(),
        at_issuer: "u-1".into(),
        account: None,
        scope: scope("read"),
        claims: OwnClaims::new(),
        resources: Vec::new(),
    };
    ProvedGrant {
        client: "wiki".into(),
        user: Some(user),
        once: UsableOnce { kind: "grant", issuer: "https://idp.test".into(), id: jti.into(), until: T0.plus(HOUR) },
        issued_at: T0,
        bound_to: None,
        vouched_by: VouchedBy::new("https://idp.test", "u-1"),
    }
}

impl World {
    async fn present(&self, jti: &str) -> Result<IssuedTokens, Error> {
        let login = AssertedLogin {
            client: &Client::public("wiki"),
            grant: &grant(jti),
            account: AccountRule::Any,
            scope: None,
            resource: None,
            profile: &self.profile,
            dialect: "oauth2",
            proof: None,
            certificate: None,
            arrived: Arrival::default(),
            origin: &Origin::default(),
        };
        self.engine.asserted(login).await
    }
}

#[tokio::test]
async fn d21_an_ended_record_refuses_its_assertion_at_a_gate_whose_list_does_not_have_the_end_yet() {
    let w = World::new().await;
    let session = w.present("one").await.unwrap().session.unwrap();
    assert_eq!(w.present("one").await.unwrap().session, Some(session), "it has its session already");
    // Another gate on the same store ends the session.
    let other = w.second_node().await;
    other.revoke_session(&w.record(session).await, RevokedBecause::Logout).await.unwrap();
    assert_eq!(w.engine.revocations().minimum(session), Generation::NONE);
    assert_eq!(w.record(session).await.status, Status::Revoked(RevokedBecause::Logout));
    assert!(matches!(denied(w.present("one").await), Denial::GrantAssertion(_)));
    assert!(matches!(denied(w.engine.foresee_asserted(&grant("one")).await), Denial::GrantAssertion(_)));
    assert_ne!(w.present("two").await.unwrap().session, Some(session), "another assertion has a session of its own");
}

const REPLAYED: Denial = Denial::ClientAssertion("it was used before");

fn used(kind: &'static str) -> UsableOnce {
    UsableOnce { kind, ..grant("one").once }
}

#[tokio::test]
async fn d26_an_id_in_an_assertion_of_a_client_and_in_a_grant_are_two() {
    let (w, store) = (World::new().await, MemoryStore::new("https://gate.test", HOUR));
    for kind in ["client assertion", "grant"] {
        w.engine.use_once(&store, (&used(kind), "orders"), REPLAYED).await.unwrap();
        let again = w.engine.use_once(&store, (&used(kind), "orders"), REPLAYED).await;
        assert_eq!(denied(again), REPLAYED);
    }
}

#[tokio::test]
async fn d22_d26_a_used_assertion_that_no_gate_of_the_keyring_wrote_is_a_fault() {
    let (w, store) = (World::new().await, MemoryStore::new("https://gate.test", HOUR));
    let use_once = async |kind| w.engine.use_once(&store, (&used(kind), "orders"), REPLAYED).await;
    use_once("grant").await.unwrap();
    let keys = async || store.row_keys(USED_ASSERTIONS, None, 9).await.unwrap();
    let key = keys().await[0];
    let own = store.load_row(USED_ASSERTIONS, key).await.unwrap().unwrap();
    use_once("client assertion").await.unwrap();
    let other = keys().await.into_iter().find(|other| *other != key).unwrap();
    let other = store.load_row(USED_ASSERTIONS, other).await.unwrap().unwrap();
    // A seal that is empty, of the right length, or of another row.
    for bytes in [Vec::new(), vec![7; own.bytes.len()], other.bytes] {
        assert!(store.remove_row(USED_ASSERTIONS, key, None).await.unwrap());
        store.insert_row(USED_ASSERTIONS, key, Row { bytes, ..own.clone() }, T0).await.unwrap();
        let met = use_once("grant").await;
        assert!(matches!(met, Err(Error::Failed(_))), "neither good nor used: {met:?}");
    }
    assert!(store.remove_row(USED_ASSERTIONS, key, None).await.unwrap());
    store.insert_row(USED_ASSERTIONS, key, own, T0).await.unwrap();
    assert_eq!(denied(use_once("grant").await), REPLAYED);
}
