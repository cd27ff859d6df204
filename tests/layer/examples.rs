//! The programs of `examples/`, started on ports of the system's choice.

use http::StatusCode;
use tokio::net::TcpListener;

use crate::client::{Server, send};

#[allow(dead_code, reason = "main is for those who run it")]
#[path = "../../examples/axum.rs"]
mod axum_example;
#[allow(dead_code, reason = "main is for those who run it")]
#[path = "../../examples/hyper.rs"]
mod hyper_example;
#[allow(dead_code, reason = "main is for those who run it")]
#[path = "../../examples/readme.rs"]
mod readme_example;
#[allow(dead_code, reason = "main is for those who run it")]
#[path = "../../examples/store.rs"]
mod store_example;

#[tokio::test]
async fn the_axum_example_does_what_it_prints() {
    let server = Server::axum(axum_example::app("pass word").await.unwrap().0).await;
    assert_eq!(server.get("/hello").await.body, "Hello, stranger!");
    assert_eq!(server.get("/me").await.status, StatusCode::UNAUTHORIZED);
    let login = [("user", "ada"), ("password", "pass word")];
    assert_eq!(server.post("/login", &[login[0], ("password", "wrong")]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.post("/login", &[("user", "bob"), login[1]]).await.status, StatusCode::UNAUTHORIZED);
    let first = server.post("/login", &login).await;
    assert_eq!(first.status, StatusCode::OK);
    let access = first.member("access_token");
    assert_eq!(server.get_with("/me", &access).await.body, "ada with scope \"profile\"");
    assert_eq!(server.get_with("/hello", &access).await.body, "Hello, ada!");
    let refused = server.get_with("/reports", &access).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.challenge(), "Bearer error=\"insufficient_scope\", scope=\"reports\"");

    let second = server.refresh("/token", &first.member("refresh_token")).await;
    assert_eq!(second.status, StatusCode::OK, "{}", second.body);
    let access = second.member("access_token");
    let logout = server.request("/logout").method("POST").header("authorization", format!("Bearer {access}"));
    assert_eq!(send(logout.body(String::new()).unwrap()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.get_with("/me", &access).await.status, StatusCode::UNAUTHORIZED);
    let refused = server.refresh("/token", &second.member("refresh_token")).await;
    assert_eq!((refused.status, refused.member("error").as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
}

#[tokio::test]
async fn the_hyper_example_does_what_it_prints() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server(listener.local_addr().unwrap());
    let gate = hyper_example::gate("pass word").await.unwrap();
    tokio::spawn(hyper_example::serve(listener, gate));
    assert_eq!(server.get("/health").await.body, "Hello, stranger!");
    assert_eq!(server.get("/").await.status, StatusCode::UNAUTHORIZED);
    let login =
        |user, password| [("grant_type", "password"), ("client_id", "web"), ("username", user), ("password", password)];
    for (user, password) in [("ada", "wrong"), ("bob", "pass word")] {
        let refused = server.post("/connect/token", &login(user, password)).await;
        assert_eq!((refused.status, refused.member("error").as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
    }
    let first = server.post("/connect/token", &login("ada", "pass word")).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.body);
    assert_eq!(server.get_with("/", &first.member("access_token")).await.body, "Hello, ada!");
    assert_eq!(server.get_with("//x/%7e", &first.member("access_token")).await.body, "Hello, ada!");

    let second = server.refresh("/connect/token", &first.member("refresh_token")).await;
    assert_eq!(second.status, StatusCode::OK, "{}", second.body);
    let token = second.member("refresh_token");
    assert_eq!(
        server.post("/connect/revocation", &[("client_id", "web"), ("token", &token)]).await.status,
        StatusCode::OK
    );
    for answer in [&first, &second] {
        assert_eq!(server.get_with("/", &answer.member("access_token")).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn the_readme_has_the_program_to_the_letter_and_it_logs_in() {
    let program = include_str!("../../examples/readme.rs").split_once("\n\n").unwrap().1;
    assert!(include_str!("../../README.md").contains(&format!("```rust,no_run\n{program}```\n")));
    assert!(!program.lines().any(|line| line == "#" || line.starts_with("# ")), "GitHub shows such lines");

    let gate = readme_example::gate().await.unwrap();
    let server = Server::axum(readme_example::app(&gate).unwrap()).await;
    let wrong = server.post("/login", &[("user", "ada"), ("password", "wrong")]).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    let login = server.post("/login", &[("user", "ada"), ("password", "correct horse")]).await;
    assert_eq!(login.status, StatusCode::OK);
    let access = login.member("access_token");
    assert_eq!(server.get_with("/me", &access).await.body, "ada");
    assert_eq!(server.get_with("/admin", &access).await.status, StatusCode::FORBIDDEN);
    assert_eq!(server.refresh("/token", &login.member("refresh_token")).await.status, StatusCode::OK);
}

#[cfg(feature = "test-util")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_example_passes_the_conformance_suite() {
    use rotogate::store::conformance::{ISSUER, LEEWAY, run};
    let folder = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicU32::new(0);
    run(|| {
        let file = format!("{}.sqlite", number.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let store = store_example::SqliteStore::open(&folder.path().join(file), ISSUER, LEEWAY).unwrap();
        std::sync::Arc::new(store)
    })
    .await;
}
