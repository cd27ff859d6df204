//! `PUT /api/v2/auth/token` and the call that creates the first pair, line by line as in the document.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use support::{Answer, Gate, Place, Tokens};

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
public_url = "http://gate.test"
drain_timeout = "0s"
[admin]
listen = "127.0.0.1:0"
[issuer]
audience = ["api"]
for_tests = { leeway = "0s" }
[store]
kind = "memory"
[limits]
login_per_address = "1000/1s"
login_per_account = "1000/1s"
for_tests.login_per_client = "1000/1s"
[[endpoints]]
dialect = "envelope"
path = "/api/v2/auth/token"
[[upstreams]]
name = "app"
urls = ["echo:"]
[[routes]]
path = "/private/{*rest}"
upstream = "app"
[[routes]]
path = "/{*rest}"
auth = "none"
upstream = "app"
"#;

const PATH: &str = "/api/v2/auth/token";
const INVALID_TOKEN: &str = r#"{"errorCode":"AUTH_1002","errorMessage":"Invalid token","content":"","pageable":""}"#;

async fn ask(gate: &Gate, method: Method, path: &str, body: &Value) -> Answer {
    gate.call(method, path, &[("content-type", "application/json")], &body.to_string()).await
}

async fn login(gate: &Gate) -> Tokens {
    let body = json!({ "username": "demo", "password": gate.password });
    pair(&ask(gate, Method::POST, PATH, &body).await)
}

async fn refresh_at(gate: &Gate, path: &str, access: &str, refresh: &str) -> Answer {
    ask(gate, Method::PUT, path, &json!({ "token": access, "refreshToken": refresh })).await
}

async fn refresh(gate: &Gate, tokens: &Tokens) -> Answer {
    refresh_at(gate, PATH, &tokens.access, &tokens.refresh).await
}

/// The pair of a success, whose bytes are the documented ones.
fn pair(answer: &Answer) -> Tokens {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let json = answer.json();
    let field = |name: &str| json["content"][0][name].as_str().unwrap().to_owned();
    let tokens = Tokens { access: field("token"), refresh: field("refreshToken") };
    let seconds = json["content"][0]["validityTime"].as_u64().unwrap();
    let expected = format!(
        "{{\"errorCode\":\"\",\"errorMessage\":\"\",\"content\":[{{\"token\":\"{}\",\"refreshToken\":\"{}\",\
         \"validityTime\":{seconds}}}],\"pageable\":{{\"page\":0,\"size\":10,\"totalPages\":1,\"totalElements\":1}}}}",
        tokens.access, tokens.refresh
    );
    assert!(answer.body == expected, "the bytes are not those of the document");
    tokens
}

fn assert_invalid_token(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.body, INVALID_TOKEN);
}

async fn passes(gate: &Gate, access: &str) -> bool {
    gate.get("/private/x", access).await.status == StatusCode::OK
}

#[tokio::test]
async fn the_document_runs_line_by_line() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let first = login(&gate).await;
    assert!(passes(&gate, &first.access).await);
    let second = pair(&refresh(&gate, &first).await);
    assert!(second.access != first.access && second.refresh != first.refresh, "both are new");
    assert!(passes(&gate, &second.access).await);

    assert_invalid_token(&refresh_at(&gate, PATH, "nonsense", &second.refresh).await);
    assert_invalid_token(&refresh_at(&gate, PATH, &second.access, "nonsense").await);
    let wrong = ask(&gate, Method::POST, PATH, &json!({ "username": "demo", "password": "wrong" })).await;
    assert_eq!((wrong.status, &wrong.json()["errorCode"]), (StatusCode::UNAUTHORIZED, &json!("AUTH_1001")));
    let nobody = ask(&gate, Method::POST, PATH, &json!({ "username": "nobody", "password": "wrong" })).await;
    assert_eq!((nobody.status, nobody.body), (wrong.status, wrong.body));
    let empty = refresh_at(&gate, PATH, "", &second.refresh).await;
    assert_eq!((empty.status, &empty.json()["errorCode"]), (StatusCode::BAD_REQUEST, &json!("AUTH_1000")));
    // These refusals did not change the session.
    pair(&refresh(&gate, &second).await);
}

/// As in the document, with line breaks.
const DOCUMENTED_REQUEST: &str = r#"{
"token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ1aWQiOjE1NSwiZW1haWwiOiJzaGF1bC5jb2hlbkBmb...",
"refreshToken":
"eyJhbGciOiJIUzI1NiIsInR5cCIgOiAiSldUIiwia2lkIiA6ICI4NzlmN2I0Yy1hZjU3LTQ4Y2ItYTc2Mi1kY2Ew..."
}"#;
const DOCUMENTED_SUCCESS: &str = r#"{
"errorCode": "",
"errorMessage": "",
"content": [
{
"token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ1aWQiOjE1NSwiZW1haWwiOiJzaGF1bC5jb2hlbkBmb...",
"refreshToken":
"eyJhbGciOiJIUzI1NiIsInR5cCIgOiAiSldUIiwia2lkIiA6ICI4NzlmN2I0Yy1hZjU3LTQ4Y2ItYTc2Mi1kY2Ew...",
"validityTime": 3600
}
],
"pageable": {
"page": 0,
"size": 10,
"totalPages": 1,
"totalElements": 1
}
}"#;

#[tokio::test]
async fn the_documents_own_example_is_a_wrong_token_here_and_its_answers_are_ours_in_shape() {
    let place = Place::new(&CONFIG.replace("[store]", "[sessions]\naccess_ttl = \"1h\"\n[store]"));
    let gate = place.start();
    let json = [("content-type", "application/json")];
    assert_invalid_token(&gate.call(Method::PUT, PATH, &json, DOCUMENTED_REQUEST).await);

    let held = login(&gate).await;
    let mut request: Value = serde_json::from_str(DOCUMENTED_REQUEST).unwrap();
    request["token"] = held.access.into();
    request["refreshToken"] = held.refresh.into();
    let mut answer = gate.call(Method::PUT, PATH, &json, &serde_json::to_string_pretty(&request).unwrap()).await.json();
    let expected: Value = serde_json::from_str(DOCUMENTED_SUCCESS).unwrap();
    for name in ["token", "refreshToken"] {
        let theirs = &mut answer["content"][0][name];
        assert!(theirs.is_string());
        *theirs = expected["content"][0][name].clone();
    }
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn both_tokens_are_of_one_session_and_one_generation_or_the_access_token_of_the_one_before() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let (mine, other) = (login(&gate).await, login(&gate).await);
    let second = pair(&refresh(&gate, &mine).await);
    let refused = |access: &str, refresh: &str| {
        let (access, refresh) = (access.to_owned(), refresh.to_owned());
        let gate = &gate;
        async move { assert_invalid_token(&refresh_at(gate, PATH, &access, &refresh).await) }
    };
    refused(&other.access, &second.refresh).await;
    refused(&second.access, &other.refresh).await;
    refused(&second.refresh, &second.access).await;
    refused(&second.access, &second.access).await;
    // An access token of a later generation than the refresh token, which alone would pass within the grace.
    refused(&second.access, &mine.refresh).await;
    // A client that kept its old access token.
    let third = pair(&refresh_at(&gate, PATH, &mine.access, &second.refresh).await);
    // Two generations back is too old.
    refused(&mine.access, &third.refresh).await;
    for tokens in [&third, &other] {
        pair(&refresh(&gate, tokens).await);
    }
}

#[tokio::test]
async fn a_repeat_gets_the_identical_pair_and_a_reuse_ends_the_session() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let first = login(&gate).await;
    let second = pair(&refresh(&gate, &first).await);
    assert_eq!(pair(&refresh(&gate, &first).await), second);
    let third = pair(&refresh(&gate, &second).await);
    assert_invalid_token(&refresh(&gate, &first).await);
    assert_invalid_token(&refresh(&gate, &third).await);
    assert!(!passes(&gate, &third.access).await);
}

#[tokio::test]
async fn an_expired_access_token_is_taken_only_as_long_as_the_configuration_says() {
    let endpoint = |path: &str, window: &str| {
        format!(
            "[[endpoints]]\ndialect = \"envelope\"\npath = \"{path}\"\nallow_expired_access_token = \"{window}\"\n\
             [[upstreams]]"
        )
    };
    let config = CONFIG
        .replace(
            "path = \"/api/v2/auth/token\"",
            "path = \"/api/v2/auth/token\"\nprofile = { access_ttl = \"1s\", grace = \"100ms\" }",
        )
        .replacen("[[upstreams]]", &endpoint("/narrow", "1ms"), 1)
        .replacen("[[upstreams]]", &endpoint("/wide", "1h"), 1);
    let place = Place::new(&config);
    let gate = place.start();
    let first = login(&gate).await;
    let expired = async {
        while passes(&gate, &first.access).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // After the narrow window, too.
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    tokio::time::timeout(Duration::from_secs(60), expired).await.unwrap();
    assert_invalid_token(&refresh(&gate, &first).await);
    assert_invalid_token(&refresh_at(&gate, "/narrow", &first.access, &first.refresh).await);
    let second = pair(&refresh_at(&gate, "/wide", &first.access, &first.refresh).await);
    assert!(passes(&gate, &second.access).await);
    // The access token may be expired, but not invalid in another way.
    let mut forged = first.access.clone().into_bytes();
    let last = forged.len() - 8;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    assert_invalid_token(&refresh_at(&gate, "/wide", &forged, &second.refresh).await);
}

#[tokio::test]
async fn a_failure_is_a_200_where_the_configuration_says_so() {
    let config = CONFIG.replace("path = \"/api/v2/auth/token\"", "path = \"/api/v2/auth/token\"\nfailure_status = 200");
    let place = Place::new(&config);
    let gate = place.start();
    let answer = refresh_at(&gate, PATH, "x", "y").await;
    assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, INVALID_TOKEN.as_bytes()));
}

#[tokio::test]
async fn r12_near_misses_are_404_and_never_forwarded() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    for path in [
        "/api/v2/auth/token/",
        "/API/v2/auth/token",
        "/api/V2/auth/token",
        "/api/v2/auth/Token",
        "//api/v2/auth/token",
        "/api//v2/auth/token",
        "/api/v2/auth//token",
        "/api/v2/auth/token;x",
        "/api/v2;x/auth/token",
        "/api/v2/auth/%74oken",
        "/api/v2/auth%2Ftoken",
        "/api/v2/auth/token%20",
    ] {
        for method in [Method::PUT, Method::POST, Method::GET] {
            let answer = gate.call(method.clone(), path, &[], "").await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
        }
    }
    for method in [Method::GET, Method::DELETE, Method::PATCH] {
        let answer = gate.call(method.clone(), PATH, &[], "").await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.headers["allow"], "POST, PUT");
    }
    // A path that does not resemble an endpoint's is forwarded, because the route matches every path.
    assert_eq!(gate.call(Method::PUT, "/api/v2/auth/tokens", &[], "").await.status, StatusCode::OK);
}
