//! Events of a gate that an application follows.

use std::sync::Arc;

use http::StatusCode;
use rotogate::denial::Class;
use rotogate::dialect::my_sessions::MySessions;
use rotogate::directory::{Directory, DirectoryError, User};
use rotogate::gate::{Endpoint, GateEvent, GateEvents, Whose};
use rotogate::session::RevokedBecause;
use rotogate::store::Target;
use secrecy::SecretString;
use support::events::Events;

use crate::client::{Server, send};

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
    let GateEvent::Ended { target, because, by, .. } = next(&mut events).await else { panic!() };
    assert_eq!((target, because, by), (Target::Session(session), RevokedBecause::Operator, None));
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

/// Knows one user, whom an administrator has disabled.
#[derive(Debug)]
struct Disabled;

#[async_trait::async_trait]
impl Directory for Disabled {
    async fn authenticate(
        &self,
        _: Option<&str>,
        name: &str,
        _: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        let mut user = User::new(name);
        user.active = false;
        Ok((name == "ada").then_some(user))
    }

    async fn lookup(&self, _: &str) -> Result<Option<User>, DirectoryError> {
        Ok(None)
    }
}

#[tokio::test]
async fn o51_a_refused_login_names_the_user_only_if_the_directory_knows_it() {
    let gate = crate::builder().directory(Arc::new(Disabled)).build().await.unwrap();
    let server = Server::axum(axum::Router::new().layer(gate.layer())).await;
    for (name, known) in [("ada", Some("ada")), ("my password", None)] {
        // The event of the reply itself may follow.
        let mut events = gate.events();
        let form = [("grant_type", "password"), ("client_id", "web"), ("username", name), ("password", "x")];
        assert_eq!(server.post("/token", &form).await.status, StatusCode::BAD_REQUEST);
        let GateEvent::LoginRefused { subject, client, .. } = next(&mut events).await else { panic!() };
        assert_eq!((subject.as_deref(), &*client), (known, "web"));
    }
}

#[tokio::test]
async fn o51_a_reuse_is_told_before_the_end_that_it_causes() {
    let gate = crate::gate().await;
    let server = Server::axum(axum::Router::new().layer(gate.layer())).await;
    let mut events = gate.events();
    let (_, first) = crate::tokens(&gate, "").await;
    let GateEvent::Begun { session: begun, .. } = next(&mut events).await else { panic!() };
    let second = server.refresh("/token", &first).await.member("refresh_token");
    assert_eq!(server.refresh("/token", &second).await.status, StatusCode::OK);
    assert_eq!(server.refresh("/token", &first).await.status, StatusCode::BAD_REQUEST);
    let GateEvent::Reuse { session, subject, client, .. } = next(&mut events).await else { panic!() };
    assert_eq!((session, &*subject, &*client), (begun, "ada", "web"));
    let GateEvent::Ended { target, because, by, .. } = next(&mut events).await else { panic!() };
    assert_eq!((target, because, by), (Target::Session(begun), RevokedBecause::Reuse, None));
}

#[tokio::test]
async fn o51_an_end_says_who_ended_the_session_and_the_audit_trail_has_the_same_events() {
    let gate = crate::builder().endpoint(Endpoint::new(MySessions::default())).build().await.unwrap();
    let server = Server::axum(axum::Router::new().layer(gate.layer())).await;
    let trail = Events::collect(|metadata| metadata.target() == "rotogate::audit");
    let mut events = gate.events();
    let (access, _) = crate::tokens(&gate, "").await;
    crate::tokens(&gate, "").await;
    let request = http::Request::delete(format!("http://{}/sessions?others", server.0));
    let request = request.header("authorization", format!("Bearer {access}")).body(String::new()).unwrap();
    assert_eq!(send(request).await.status, StatusCode::OK);
    for _ in 0..2 {
        assert!(matches!(next(&mut events).await, GateEvent::Begun { .. }));
    }
    let GateEvent::Ended { because, by, .. } = next(&mut events).await else { panic!() };
    assert_eq!((because, by.as_deref()), (RevokedBecause::Logout, Some("ada")));
    let said: Vec<_> = trail.taken().into_iter().map(|line| line["event"].clone()).collect();
    assert_eq!(said.iter().filter(|event| *event == "login").count(), 2, "{said:?}");
    assert_eq!(said.iter().filter(|event| *event == "revocation").count(), 1, "{said:?}");
}

#[tokio::test]
async fn o51_an_application_says_for_whom_it_ends_sessions() {
    let gate = crate::gate().await;
    let (_, tokens) = (crate::tokens(&gate, "").await, gate.sessions().live_of("ada").await.unwrap());
    let session = tokens[0].id;
    let trail = Events::collect(|metadata| metadata.target() == "rotogate::audit");
    let mut events = gate.events();
    let by_ivan = gate.sessions().acting_as("support:ivan");
    let (moment, hour) = (by_ivan.now(), std::time::Duration::from_secs(3600));
    by_ivan.refuse(&by_ivan.subject_before("eve", moment));
    by_ivan.write(by_ivan.subject_before("eve", moment)).await.unwrap();
    by_ivan.revoke(session).await.unwrap();
    by_ivan.revoke_all(Whose::Subject("ada")).await.unwrap();
    by_ivan.revoke_all(Whose::Client("web")).await.unwrap();
    by_ivan.revoke_all(Whose::Everyone).await.unwrap();
    by_ivan.revoke_token("https://idp.test", "j-1", moment.plus(hour)).await.unwrap();
    by_ivan.revoke_foreign_subject("https://idp.test", "bob", hour).await.unwrap();
    for _ in 0..7 {
        let GateEvent::Ended { target, by, .. } = next(&mut events).await else { panic!() };
        assert_eq!(by.as_deref(), Some("support:ivan"), "{target:?}");
    }
    let lines = trail.taken();
    assert_eq!(lines.len(), 8, "the store took one end later, which has a second line");
    for line in lines {
        let of = ["rotogate.actor", "rotogate.actor.role", "rotogate.actor.via"].map(|name| &*line[name]);
        assert_eq!(of, ["support:ivan", "application", "application"], "{line:?}");
    }

    // The other handle has no actor. A name from outside is bounded, and splits no line.
    gate.sessions().revoke_all(Whose::Everyone).await.unwrap();
    assert!(matches!(next(&mut events).await, GateEvent::Ended { by: None, .. }));
    assert!(trail.taken().iter().all(|line| !line.contains_key("rotogate.actor")));
    let name = format!("José \"O'Brien\"\n\u{202e}{}", "x".repeat(1000));
    gate.sessions().acting_as(&name).revoke_all(Whose::Everyone).await.unwrap();
    let GateEvent::Ended { by, .. } = next(&mut events).await else { panic!() };
    let wanted = format!("José \"O'Brien\"\\u{{a}}\\u{{202e}}{}", "x".repeat(240));
    assert_eq!(by.as_deref(), Some(&*wanted));
    assert_eq!(trail.taken()[0]["rotogate.actor"], wanted);
}
