//! Events of a gate that an application follows.

use http::StatusCode;
use rotogate::denial::Class;
use rotogate::gate::{GateEvent, GateEvents, Whose};
use rotogate::session::RevokedBecause;
use rotogate::store::Target;

use crate::client::Server;

async fn next(events: &mut GateEvents) -> GateEvent {
    let within = std::time::Duration::from_secs(60);
    tokio::time::timeout(within, events.next()).await.expect("an event").expect("the gate lives")
}

#[tokio::test]
async fn o51_an_application_follows_sessions_and_refusals() {
    let gate = crate::gate().await;
    let mut events = gate.events();
    let (access, refresh) = crate::tokens(&gate, "").await;
    let GateEvent::Begun { session, subject, client, .. } = next(&mut events).await else { panic!() };
    assert_eq!((&*subject, &*client), ("ada", "web"));
    let app = axum::Router::new().route("/", axum::routing::get(async || "ok"));
    let app = app.route_layer(gate.require().scope("admin")).layer(gate.layer());
    let server = Server::axum(app).await;
    assert_eq!(server.get("/").await.status, StatusCode::UNAUTHORIZED);
    let GateEvent::Refused { class, reason } = next(&mut events).await else { panic!() };
    assert_eq!((class, reason.word()), (Class::NoCredential, "no_credential"));
    assert_eq!(server.get_with("/", &access).await.status, StatusCode::FORBIDDEN);
    let GateEvent::Refused { reason, .. } = next(&mut events).await else { panic!() };
    assert_eq!(reason.word(), "insufficient_scope");

    // A refresh causes no event. The event of a logout names the session and the reason.
    assert_eq!(server.refresh("/token", &refresh).await.status, StatusCode::OK);
    gate.sessions().revoke(session).await.unwrap();
    let GateEvent::Ended { target, because } = next(&mut events).await else { panic!() };
    assert_eq!((target, because), (Target::Session(session), RevokedBecause::Operator));
    gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    let GateEvent::Ended { target: Target::Subject { subject, .. }, .. } = next(&mut events).await else { panic!() };
    assert_eq!(&*subject, "ada");
    assert_eq!(events.missed(), 0);
    drop((server, gate));
}

#[tokio::test]
async fn o51_one_who_reads_slowly_is_told_how_many_events_are_missing() {
    let gate = crate::gate().await;
    let mut events = gate.events();
    for _ in 0..1500 {
        gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    }
    assert!(matches!(next(&mut events).await, GateEvent::Ended { .. }));
    assert_eq!(events.missed(), 1500 - 1024);
}
