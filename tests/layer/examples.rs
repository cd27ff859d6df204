//! The programs of `examples/`, on ports that the system chooses.

use http::StatusCode;
use tokio::net::TcpListener;

use crate::client::{Server, send};

#[allow(dead_code, reason = "the tests do not call main")]
#[path = "../../examples/axum.rs"]
mod axum_example;
#[allow(dead_code, reason = "the tests do not call main")]
#[path = "../../examples/chat.rs"]
mod chat_example;
#[allow(dead_code, reason = "the tests do not call main")]
#[path = "../../examples/hyper.rs"]
mod hyper_example;
#[allow(dead_code, reason = "the tests do not call main")]
#[path = "../../examples/readme.rs"]
mod readme_example;
#[cfg(feature = "remote-keys")]
#[allow(dead_code, reason = "the tests do not call main")]
#[path = "../../examples/resource_server.rs"]
mod resource_server_example;
#[allow(dead_code, reason = "the tests do not call main")]
#[path = "../../examples/spa.rs"]
mod spa_example;
#[allow(dead_code, reason = "the tests do not call main")]
#[path = "../../examples/store.rs"]
mod store_example;
#[cfg(feature = "grpc")]
#[allow(dead_code, reason = "the tests do not call main")]
#[path = "../../examples/tonic.rs"]
mod tonic_example;
#[allow(dead_code, reason = "the tests do not call main")]
#[path = "../../examples/users.rs"]
mod users_example;

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
async fn the_documentation_has_the_program_to_the_letter_and_it_logs_in() {
    let program = include_str!("../../examples/readme.rs").split_once("\n\n").unwrap().1;
    assert!(include_str!("../../docs/layer.md").contains(&format!("```rust,no_run\n{program}```\n")));
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
    use rotogate_core::store::conformance::run;
    let folder = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicU32::new(0);
    run(|issuer, leeway| {
        let file = format!("{}.sqlite", number.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let store = store_example::SqliteStore::open(&folder.path().join(file), issuer, leeway).unwrap();
        std::sync::Arc::new(store)
    })
    .await;
}

#[tokio::test]
async fn the_users_example_logs_in_from_sqlite_and_takes_up_roles_at_a_refresh() {
    let users = users_example::Users::new(rusqlite::Connection::open_in_memory().unwrap()).unwrap();
    users.add("u-1", "ada", "pass word", "clerk").unwrap();
    let users = std::sync::Arc::new(users);
    let server = Server::axum(users_example::app(users.clone()).await.unwrap().0).await;
    let login = |name, password| {
        let form = [("grant_type", "password"), ("client_id", "web"), ("username", name), ("password", password)];
        async move { server.post("/token", &form).await }
    };
    assert_eq!(login("ada", "wrong").await.member("error"), "invalid_grant");
    assert_eq!(login("bob", "pass word").await.member("error"), "invalid_grant");
    let first = login("ada", "pass word").await;
    let access = first.member("access_token");
    assert_eq!(server.get_with("/me", &access).await.body, "u-1");
    assert_eq!(server.get_with("/accounts", &access).await.status, StatusCode::FORBIDDEN);
    users.set_roles("u-1", "clerk admin").unwrap();
    let second = server.refresh("/token", &first.member("refresh_token")).await;
    assert_eq!(server.get_with("/accounts", &second.member("access_token")).await.body, "all accounts");
}

#[tokio::test]
async fn b52_the_spa_example_has_a_session_and_no_token() {
    const ORIGIN: &str = "http://127.0.0.1:3000";
    let (app, _) = spa_example::app(ORIGIN, "pass word").await.unwrap();
    let server = Server::axum(app).await;
    // The request of the page: from its own origin, with the header of its scripts.
    let ask = async |method: &str, path: &str, cookie: &str, (media, body): (&str, &str)| {
        let request = server.request(path).method(method).header("cookie", cookie).header("origin", ORIGIN);
        let request = request.header("content-type", media).header("x-csrf", "1");
        send(request.body(body.to_owned()).unwrap()).await
    };
    let none = ("text/plain", "");
    let page = server.get("/").await;
    assert!(page.body.contains("<script>") && !page.body.contains("token"));
    let refused = ask("GET", "/api/notes", "", none).await;
    assert_eq!((refused.status, refused.member("login").as_str()), (StatusCode::UNAUTHORIZED, "/auth/login"));
    // A tab that opens another page than the public one is led to the login.
    let tab = server.request("/x?y").header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document");
    let led = send(tab.body(String::new()).unwrap()).await;
    assert_eq!(
        (led.status, &led.headers["location"]),
        (StatusCode::SEE_OTHER, &http::HeaderValue::from_static("http://127.0.0.1:3000/auth/login?to=%2Fx%3Fy"),)
    );
    let form = "application/x-www-form-urlencoded";
    let wrong = ask("POST", "/auth/login", "", (form, "username=ada&password=wrong")).await;
    assert!(wrong.status == StatusCode::UNAUTHORIZED && wrong.body.contains("<form"));
    let foreign = server.post("/auth/login", &[("username", "ada"), ("password", "pass word")]).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN, "no page of ours says that it asked");
    let login = ask("POST", "/auth/login", "", (form, "username=ada&password=pass+word&to=%2F%23notes")).await;
    assert_eq!(
        (login.status, &login.headers["location"]),
        (StatusCode::SEE_OTHER, &http::HeaderValue::from_static("http://127.0.0.1:3000/#notes"),)
    );
    let cookie = login.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let added = ask("POST", "/api/notes", &cookie, ("application/json", "\"buy milk\"")).await;
    assert_eq!(added.body, "[\"buy milk\"]");
    assert_eq!(ask("GET", "/api/notes", &cookie, none).await.body, "[\"buy milk\"]");
    let state = ask("GET", "/auth/session", &cookie, none).await.json();
    assert_eq!((&state["authenticated"], &state["subject"]), (&true.into(), &"ada".into()));
    // A request without the header is not from a script of ours.
    let bare = server.request("/api/notes").method("POST").header("cookie", &cookie).header("origin", ORIGIN);
    assert_eq!(send(bare.body(String::new()).unwrap()).await.status, StatusCode::FORBIDDEN);
    assert_eq!(ask("POST", "/auth/logout", &cookie, none).await.status, StatusCode::OK);
    assert_eq!(ask("GET", "/api/notes", &cookie, none).await.status, StatusCode::UNAUTHORIZED);
}

#[cfg(feature = "remote-keys")]
#[tokio::test]
async fn the_resource_server_example_takes_the_tokens_of_its_issuer_alone() {
    let provider = crate::provider::Provider::start(1).await;
    let server = Server::axum(resource_server_example::app(&provider.issuer).await.unwrap()).await;
    let (boss, clerk) = (provider.token("ada", "read write", "boss"), provider.token("ada", "", "clerk"));
    assert_eq!(server.get("/health").await.body, "ok");
    assert_eq!(server.get("/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.get_with("/me", &boss).await.body, "ada (Ada)");
    assert_eq!(server.get_with("/read", &boss).await.body, "the text");
    assert_eq!(server.get_with("/admin", &boss).await.body, "the office");
    assert_eq!(server.get_with("/read", &clerk).await.status, StatusCode::FORBIDDEN);
    assert_eq!(server.get_with("/admin", &clerk).await.status, StatusCode::FORBIDDEN);
    let (other, _) = crate::tokens(&crate::gate().await, "read").await;
    assert_eq!(server.get_with("/me", &other).await.status, StatusCode::UNAUTHORIZED, "of another issuer");
}

#[tokio::test]
async fn the_chat_example_closes_the_socket_with_the_session() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (app, gate) = chat_example::app().await.unwrap();
    let server = Server::axum(app).await;
    let issued = gate.sessions().start(rotogate::gate::NewSession::new("ada", "chat")).await.unwrap();
    let access = issued.access_token.expose();
    let mut stream = tokio::net::TcpStream::connect(server.0).await.unwrap();
    let ask = format!(
        "GET /chat HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {access}\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    // A masked text frame, with a mask of zeros.
    stream.write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
    let mut said = [0; 9];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"\x81\x07ada: hi");
    let logout = server.request("/logout").method("POST").header("authorization", format!("Bearer {access}"));
    assert_eq!(send(logout.body(String::new()).unwrap()).await.status, StatusCode::NO_CONTENT);
    let mut rest = Vec::new();
    let reading = stream.read_to_end(&mut rest);
    tokio::time::timeout(std::time::Duration::from_secs(60), reading).await.expect("the socket goes on").unwrap();
}

#[cfg(feature = "grpc")]
#[tokio::test]
async fn the_tonic_example_asks_each_method_for_its_scope_and_none_for_health_and_reflection() {
    use http_body_util::{BodyExt, Full};
    use tower::{Layer, ServiceExt};
    let gate = tonic_example::gate().await.unwrap();
    let service = gate.layer().layer(tonic_example::services().await.unwrap());
    let session = rotogate::gate::NewSession::new("ada", "cli").scope("greet").unwrap();
    let issued = gate.sessions().start(session).await.unwrap();
    let token = Some(issued.access_token.expose());
    // The message of one frame, and `grpc-status`; a refusal has it in the head.
    let call = async |path: &str, token: Option<&str>, message: &[u8]| {
        let mut request = http::Request::post(format!("http://localhost:3000{path}")).version(http::Version::HTTP_2);
        request = request.header("content-type", "application/grpc").header("te", "trailers");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let frame = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message].concat();
        let body = tonic::body::Body::new(Full::from(bytes::Bytes::from(frame)));
        let answer = service.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap();
        let status = head.headers.get("grpc-status").or_else(|| body.trailers()?.get("grpc-status")).cloned();
        (status.unwrap().to_str().unwrap().to_owned(), String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    // Field 1 with a text.
    let hello = b"\x0a\x05Hello";
    let (status, said) = call("/example.Greeter/Greet", token, hello).await;
    assert!(status == "0" && said.ends_with("Hello, ada!"), "{status}: {said}");
    for (path, token, refused) in [
        ("/example.Greeter/Dismiss", token, "7"),
        ("/example.Greeter/Greet", None, "16"),
        ("/example.Greeter/Greet", Some("x"), "16"),
        ("/example.Greeter/Unknown", token, "12"),
    ] {
        assert_eq!(call(path, token, hello).await, (refused.to_owned(), String::new()), "{path}");
    }
    let (status, said) = call("/grpc.health.v1.Health/Check", None, b"\x0a\x0fexample.Greeter").await;
    // Field 1 is 1: SERVING.
    assert!(status == "0" && said.ends_with("\x08\x01"), "{status}: {said:?}");
    // `list_services`.
    let (status, said) = call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", None, b"\x3a\x01*").await;
    assert!(status == "0" && said.contains("example.Greeter"), "{status}: {said}");
}
