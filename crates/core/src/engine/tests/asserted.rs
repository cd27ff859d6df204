//! Sessions for the assertions of other issuers: D19, D21.

use super::support::{HOUR, T0, World, denied, scope};
use crate::claim::OwnClaims;
use crate::client::Client;
use crate::denial::Denial;
use crate::engine::{Arrival, AssertedLogin, IssuedTokens, Origin};
use crate::fault::Error;
use crate::session::{Generation, RevokedBecause, Status, VouchedBy};
use crate::token::verify::{JagSubject, ProvedGrant, ProvedUser, UsableOnce};

fn grant(jti: &str) -> ProvedGrant {
    let user = ProvedUser {
        by: JagSubject::Issuer,
        subject: "okta|u-1".into(),
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
