//! A user's own sessions, with a clock that the test moves.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::{Request, StatusCode};
use rotogate::dialect::my_sessions::MySessions;
use rotogate::gate::{Endpoint, NewSession, Whose};
use rotogate_core::clock::{ManualTime, TimeSource, Timestamp};

use crate::client::{Answer, Server, send};

#[tokio::test]
async fn p55_an_old_access_token_lists_sessions_and_ends_none() {
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let own = MySessions { max_age: Duration::from_secs(60), ..MySessions::default() };
    let gate = crate::builder()
        .endpoint(Endpoint::new(own))
        .time(Arc::clone(&time) as Arc<dyn TimeSource>)
        .build()
        .await
        .unwrap();
    let (access, refresh) = crate::tokens(&gate, "read").await;
    let (other, _) = crate::tokens(&gate, "read").await;
    let server = Server::axum(Router::new().layer(gate.layer())).await;
    let ask = async |method: &str, path: &str, access: &str| -> Answer {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", server.0));
        send(request.header("authorization", format!("Bearer {access}")).body(String::new()).unwrap()).await
    };
    let listed = ask("GET", "/sessions", &other).await.json();
    let is_other = |session: &&serde_json::Value| session["current"] == true;
    let id = listed["sessions"].as_array().unwrap().iter().find(is_other).unwrap()["id"].as_str().unwrap().to_owned();
    time.advance(Duration::from_secs(61));
    for path in [format!("/sessions/{id}"), "/sessions?others".to_owned()] {
        let refused = ask("DELETE", &path, &access).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(refused.challenge().contains("invalid_token"), "{}", refused.challenge());
        assert!(refused.body.contains("too old"), "{}", refused.body);
    }
    let listed = ask("GET", "/sessions", &access).await.json();
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 2, "{listed}");
    // A refresh suffices.
    let fresh = server.refresh("/token", &refresh).await.member("access_token");
    let ended = ask("DELETE", "/sessions?others", &fresh).await;
    assert_eq!(ended.json()["ended"], 1, "{}", ended.body);
    assert_eq!(ask("GET", "/sessions", &other).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn p55_an_application_lists_the_live_sessions_of_a_subject_the_newest_first() {
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let gate = crate::builder().time(Arc::clone(&time) as Arc<dyn TimeSource>).build().await.unwrap();
    let mut begun = Vec::new();
    for subject in ["ada", "bob", "ada", "ada"] {
        time.advance(Duration::from_secs(1));
        begun.extend(gate.sessions().start(NewSession::new(subject, "web")).await.unwrap().session);
    }
    let live = async |subject: &str| -> Vec<_> {
        gate.sessions().live_of(subject).await.unwrap().iter().map(|session| session.id).collect()
    };
    assert_eq!(live("ada").await, [begun[3], begun[2], begun[0]]);
    gate.sessions().revoke(begun[2]).await.unwrap();
    assert_eq!(live("ada").await, [begun[3], begun[0]]);
    // The records of these sessions stay live: a not-before ends them.
    gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    assert_eq!((live("ada").await, live("bob").await), (vec![], vec![begun[1]]));
    time.advance(Duration::from_secs(400 * 86_400));
    assert_eq!(live("bob").await, []);
}
