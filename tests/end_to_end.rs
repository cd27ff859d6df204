//! A login's whole life on the real binary: call, refresh, replay, theft, revocation, and the same after a restart.

mod support;

use http::StatusCode;
use support::{CONFIG, Place};

#[tokio::test]
async fn a_user_logs_in_calls_refreshes_and_is_refused_after_revocation() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let first = gate.login().await;

    let answer = gate.get("/hello?a=1", &first.access).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.echoed("x-auth-client"), ["web"]);
    assert_eq!(answer.echoed("x-auth-scope"), ["read write"]);
    assert_eq!(answer.echoed("authorization"), Vec::<String>::new());
    assert_eq!(answer.json()["query"], "a=1");

    let second = gate.refresh(&first.refresh).await.tokens();
    let again = gate.refresh(&first.refresh).await.tokens();
    assert_eq!(second, again, "a repeat at once gets the identical pair");
    assert_ne!(first, second);
    // Without revoke_previous_after the first access token lives to its own end.
    assert_eq!(gate.get("/", &first.access).await.status, StatusCode::OK);

    assert_eq!(gate.revoke(&second.refresh).await.status, StatusCode::OK);
    for access in [&first.access, &second.access] {
        let answer = gate.get("/hello", access).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    }
    let refused = gate.refresh(&second.refresh).await;
    assert_eq!((refused.status, refused.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
}
