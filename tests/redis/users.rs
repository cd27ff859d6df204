//! Users of several gates, each with its own file.

use std::fs;

use http::StatusCode;
use support::redis::Redis;
use support::{CONFIG, Place, until};

use super::{node_beside, place_on, store_of};

#[tokio::test]
async fn a_changed_password_ends_the_sessions_of_the_old_one_at_every_gate_and_no_login_by_the_new_one() {
    let server = Redis::start(&[]);
    let here = place_on(&server);
    let a = here.start();
    let there = node_beside(&here, &server);
    let b = there.start();
    let before = a.login().await;
    let (old, new) = (a.password.clone(), "another horse battery");
    here.point_commands_at(&a);
    here.done(&["user", "passwd", "demo", "--stdin"], &format!("{new}\n"));
    a.until_refused(&before.access).await;
    b.until_refused(&before.access).await;
    // The file of b is still the old one.
    let by_new = a.log_in("demo", new).await.tokens();
    let by_old = b.log_in("demo", &old).await.tokens();
    assert_eq!(a.get("/hello", &by_old.access).await.status, StatusCode::OK, "a session of b");
    fs::copy(here.path("data/users.toml"), there.path("data/users.toml")).unwrap();
    b.until_refused(&by_old.access).await;
    a.until_refused(&by_old.access).await;
    for gate in [&a, &b] {
        assert_eq!(gate.get("/hello", &by_new.access).await.status, StatusCode::OK, "the new password stays");
        assert_eq!(gate.refresh(&by_old.refresh).await.status, StatusCode::BAD_REQUEST);
    }
    let next = b.refresh(&by_new.refresh).await;
    assert_eq!(next.status, StatusCode::OK);
    until("the new password is known everywhere", async || b.log_in("demo", new).await.status == StatusCode::OK).await;
    // A user who is disabled at one gate is refused at all gates.
    here.done(&["user", "disable", "demo"], "");
    fs::copy(here.path("data/users.toml"), there.path("data/users.toml")).unwrap();
    a.until_refused(&next.tokens().access).await;
    b.until_refused(&next.tokens().access).await;
}

#[tokio::test]
async fn r31_a_change_of_the_users_file_while_the_store_is_away_is_owed_and_a_stop_says_that_it_is_lost() {
    let mut server = Redis::start(&["--appendonly yes", "--appendfsync always"]);
    let place = Place::new(&format!("{CONFIG}{}staleness = \"30s\"\n", store_of(&server)));
    let [a, b] = [place.start(), place.start()];
    let first = a.login().await;
    assert_eq!(b.get("/hello", &first.access).await.status, StatusCode::OK);
    server.kill();
    place.point_commands_at(&a);
    assert_ne!(place.run(&["user", "disable", "demo"], "").code, Some(0), "it is not durable");
    for gate in [&a, &b] {
        gate.until_refused(&first.access).await;
        let ready = gate.admin_get("/readyz").await;
        let said = String::from_utf8_lossy(&ready.body);
        assert!(said.contains("the gate loses 1 of them if it stops"), "{said}");
    }
    let log = a.log.clone();
    assert_eq!(a.stop(), Some(1));
    let said = fs::read_to_string(log).unwrap();
    assert!(said.contains("revocations lost with this process") && said.contains("subject"), "{said}");
    // The other gate still runs, and learns the moment.
    server.start_again();
    until("nothing is owed", async || {
        let ready = b.admin_get("/readyz").await;
        ready.status == StatusCode::OK && !String::from_utf8_lossy(&ready.body).contains("of them if it stops")
    })
    .await;
    assert_eq!(b.stop(), Some(0));
    let next = place.start();
    assert_eq!(next.get("/hello", &first.access).await.status, StatusCode::UNAUTHORIZED);
}
