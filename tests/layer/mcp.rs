//! Calls of the Model Context Protocol through the layer, in front of a server that answers with the received call.

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::any;
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioExecutor;
use rotogate::Gate;
use rotogate::gate::NewSession;
use rotogate::route::{Condition, Mcp, Resource, Route, RoutePolicy, StepUp};
use rotogate::session::Scope;
use serde_json::{Value, json};

use crate::client::{Answer, Server, send};
use crate::{builder, tokens};

const METADATA: &str = "https://api.test/.well-known/oauth-protected-resource/mcp";

fn policy(scopes: &str) -> RoutePolicy {
    RoutePolicy {
        scopes: Scope::parse(scopes).unwrap(),
        audiences: vec!["https://api.test".into()],
        resource: Some("/mcp".into()),
        ..RoutePolicy::default()
    }
}

/// A policy for callers with this plan.
fn of_plan(plan: &str) -> RoutePolicy {
    policy("").when([Condition::equals("plan", plan).unwrap()]).unwrap()
}

fn rule(calls: &str, policy: RoutePolicy) -> Route {
    Route::mcp_rule([calls], policy).unwrap()
}

async fn gate(mcp: Mcp) -> Gate {
    let resource = Resource::new("/mcp").implying([("files.write", Scope::parse("files.read").unwrap())]).unwrap();
    let step_up = StepUp { acr: vec!["gold".into()], max_age: None };
    builder()
        .resource(Resource { mcp: Some(mcp), ..resource })
        .route(Route::new("/mcp", policy("mcp")))
        .route(rule("tools/call:delete_*", policy("files.write")))
        .route(rule("tools/call:read_file", policy("files.read")))
        .route(rule("tools/call:pay", RoutePolicy { step_up: Some(step_up), ..policy("") }))
        .route(rule("prompts/get", policy("").role("boss")))
        .route(rule("tools/call:export", of_plan("pro")))
        .route(rule("*", policy("")))
        .build()
        .await
        .unwrap()
}

/// The server behind the gate, which answers with the received call.
async fn echo(method: Method, headers: HeaderMap, body: Bytes) -> String {
    let length = headers.get("content-length").and_then(|length| length.to_str().ok()).unwrap_or("none");
    let params = headers.iter().filter(|(name, _)| name.as_str().starts_with("mcp-param-"));
    let params: String = params.map(|(name, value)| format!("{name}={} ", value.to_str().unwrap())).collect();
    format!("{method} {length} {params}{}", String::from_utf8(body.to_vec()).unwrap())
}

struct Client {
    gate: Gate,
    server: Server,
    token: String,
}

impl Client {
    async fn new(mcp: Mcp, scope: &str) -> Self {
        let gate = gate(mcp).await;
        let (token, _) = tokens(&gate, scope).await;
        let app = Router::new().route("/mcp", any(echo)).layer(gate.layer().forward_buffered());
        Self { server: Server::axum(app).await, gate, token }
    }

    async fn post(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        let request = self.server.request("/mcp").method(Method::POST);
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let has_type = headers.iter().any(|(name, _)| *name == "content-type");
        let json = [("content-type", "application/json")];
        let all = headers.iter().chain(json.iter().filter(|_| !has_type));
        let request = all.fold(request, |request, (name, value)| request.header(*name, *value));
        send(request.body(body.to_owned()).unwrap()).await
    }

    /// A call with its headers.
    async fn call(&self, method: &str, name: Option<&str>) -> Answer {
        let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        headers.extend(name.map(|name| ("mcp-name", name)));
        self.post(&headers, &message(method, name)).await
    }
}

fn message(method: &str, name: Option<&str>) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": name, "arguments": {"b": 1, "a": [1.10]}}})
        .to_string()
}

fn error(answer: &Answer) -> (u16, Value) {
    (answer.status.as_u16(), answer.json()["error"]["code"].clone())
}

fn challenge(answer: &Answer) -> String {
    answer.headers["www-authenticate"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn m5_a_call_is_forwarded_byte_for_byte_in_both_ways_to_judge_it() {
    for check in [false, true] {
        let client = Client::new(Mcp { headers_alone: check, ..Mcp::default() }, "mcp files.read").await;
        let body = message("tools/call", Some("read_file")).replace(':', " : ");
        let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "read_file")];
        let passed = client.post(&headers, &body).await;
        assert_eq!((passed.status, passed.body), (StatusCode::OK, format!("POST {} {body}", body.len())));
    }
}

#[tokio::test]
async fn m5_a_header_of_an_argument_is_forwarded_and_decides_nothing() {
    for check in [false, true] {
        let client = Client::new(Mcp { headers_alone: check, ..Mcp::default() }, "mcp files.read").await;
        let call = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call")];
        let param = ("mcp-param-authorization", "Bearer x");
        let (read, delete) = (("mcp-name", "read_file"), ("mcp-name", "delete_all"));
        let body = message("tools/call", Some("read_file"));
        let passed = client.post(&[&call[..], &[read, param]].concat(), &body).await;
        let forwarded = format!("POST {} mcp-param-authorization=Bearer x {body}", body.len());
        assert_eq!((passed.status, passed.body), (StatusCode::OK, forwarded));
        let params = [param, ("mcp-param-name", "read_file"), ("mcp-param-method", "tools/list")];
        let (headers, body) = ([&call[..], &[delete], &params].concat(), message("tools/call", Some("delete_all")));
        assert_eq!(client.post(&headers, &body).await.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn m8_m9_m10_m11_a_call_needs_what_its_path_and_its_rule_ask_for_and_one_challenge_names_both() {
    let client = Client::new(Mcp::default(), "mcp files.read").await;
    assert_eq!(client.call("tools/list", None).await.status, StatusCode::OK);
    assert_eq!(client.call("tools/call", Some("read_file")).await.status, StatusCode::OK);
    let refused = client.call("tools/call", Some("delete_all")).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let asked =
        format!("Bearer error=\"insufficient_scope\", resource_metadata=\"{METADATA}\", scope=\"mcp files.write\"");
    assert_eq!(challenge(&refused), asked);
    // The path's own scope is missing: the same challenge.
    let stranger = Client::new(Mcp::default(), "other").await;
    assert_eq!(challenge(&stranger.call("tools/call", Some("delete_all")).await), asked);
    // M10: the wide scope is enough.
    let writer = Client::new(Mcp::default(), "mcp files.write").await;
    assert_eq!(writer.call("tools/call", Some("read_file")).await.status, StatusCode::OK);
    // M11: no scope would help.
    let prompt = writer.call("prompts/get", Some("x")).await;
    assert_eq!(prompt.status, StatusCode::FORBIDDEN);
    let denied = format!("Bearer error=\"access_denied\", resource_metadata=\"{METADATA}\"");
    assert_eq!(challenge(&prompt), denied);
    let pay = writer.call("tools/call", Some("pay")).await;
    assert_eq!(pay.status, StatusCode::UNAUTHORIZED);
    assert!(challenge(&pay).contains("acr_values=\"gold\""), "{}", challenge(&pay));
    let nobody = Client { token: String::new(), ..client };
    let refused = nobody.call("tools/call", Some("delete_all")).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(challenge(&refused), format!("Bearer resource_metadata=\"{METADATA}\", scope=\"mcp files.write\""));
}

#[tokio::test]
async fn m10_a_requirement_of_an_application_knows_the_scopes_that_imply_others() {
    let gate = gate(Mcp::default()).await;
    let require = || gate.require().audience("https://api.test").resource("/mcp");
    let app = Router::new()
        .route("/scope", any(echo).layer(require().scope("files.read")))
        .route("/any", any(echo).layer(require().any_scope(["x", "files.read"])))
        .route("/other", any(echo).layer(require().scope("files.list")))
        .route("/unknown", any(echo).layer(gate.require().resource("/none")))
        .route("/elsewhere", any(echo).layer(gate.require().scope("files.read")));
    let server = Server::axum(app).await;
    let ask = async |scope: &str, path: &str| {
        let bearer = format!("Bearer {}", tokens(&gate, scope).await.0);
        let request = server.request(path).header("authorization", bearer);
        let answer = send(request.body(String::new()).unwrap()).await;
        (
            answer.status.as_u16(),
            answer.headers.get("www-authenticate").map_or("", |it| it.to_str().unwrap()).to_owned(),
        )
    };
    for path in ["/scope", "/any"] {
        assert_eq!(ask("files.write", path).await.0, 200, "{path}");
        assert_eq!(ask("mcp", path).await.0, 403, "{path}");
    }
    let (status, challenge) = ask("files.write", "/other").await;
    assert!(status == 403 && challenge.contains(METADATA) && challenge.contains("scope=\"files.list\""), "{challenge}");
    assert_eq!((ask("files.write", "/unknown").await.0, ask("files.write", "/elsewhere").await.0), (403, 403));
}

#[tokio::test]
async fn m23_calls_never_go_through_a_tunnel() {
    let of = |upgrade| {
        let resource = Resource { mcp: Some(Mcp::default()), ..Resource::new("/mcp") };
        let policy = RoutePolicy { upgrade, ..policy("mcp") };
        builder().resource(resource).route(Route::new("/mcp", policy)).route(rule("*", self::policy(""))).build()
    };
    let error = of(true).await.unwrap_err().to_string();
    assert!(error.contains("upgrade"), "{error}");
    of(false).await.unwrap();
}

#[tokio::test]
async fn k20_a_call_needs_what_the_conditions_of_its_rule_ask_for() {
    for check in [false, true] {
        let mut client = Client::new(Mcp { headers_alone: check, ..Mcp::default() }, "mcp").await;
        let refused = client.call("tools/call", Some("export")).await;
        assert_eq!((refused.status, refused.status.as_u16()), (StatusCode::FORBIDDEN, 403));
        assert!(!refused.headers.get("www-authenticate").is_some_and(|it| it.to_str().unwrap().contains(" scope=")));
        for (plan, status) in [("pro", StatusCode::OK), ("free", StatusCode::FORBIDDEN)] {
            let session = NewSession::new("ada", "web").scope("mcp").unwrap().claim("plan", plan).unwrap();
            client.token = client.gate.sessions().start(session).await.unwrap().access_token.expose().to_owned();
            assert_eq!(client.call("tools/call", Some("export")).await.status, status, "{plan}");
        }
    }
}

#[tokio::test]
async fn m1_m2_what_the_headers_hide_or_do_not_say_never_reaches_the_server() {
    let client = Client::new(Mcp::default(), "mcp").await;
    let version = ("mcp-protocol-version", "2026-07-28");
    let list = ("mcp-method", "tools/list");
    let body = message("tools/list", None);
    let delete = message("tools/call", Some("delete_all"));
    assert_eq!(error(&client.post(&[version, list], &delete).await), (400, json!(-32020)));
    let read = [version, ("mcp-method", "tools/call"), ("mcp-name", "list_files")];
    let mismatch = client.post(&read, &delete).await;
    assert_eq!((error(&mismatch), &mismatch.json()["id"]), ((400, json!(-32020)), &json!(1)));
    for headers in [&[version, list, list][..], &[version], &[list], &[version, ("mcp-method", "tools/call")]] {
        let flawed = client.post(headers, &body).await;
        assert_eq!((error(&flawed), &flawed.json()["id"]), ((400, json!(-32020)), &json!(1)), "{headers:?}");
        // Of a body that cannot be read nobody knows the id.
        let unread = client.post(headers, "x").await;
        assert_eq!((error(&unread), unread.json().get("id")), ((400, json!(-32020)), None), "{headers:?}");
    }
    let old = client.post(&[("mcp-protocol-version", "2025-11-25")], &body).await;
    assert_eq!((error(&old), &old.json()["id"]), ((400, json!(-32022)), &json!(1)));
    assert_eq!(old.json()["error"]["data"], json!({"supported": ["2026-07-28"], "requested": "2025-11-25"}));
    for scalar in ["\"text\"", "7", "-7", "1.5", "true", "null"] {
        assert_eq!(error(&client.post(&[version, list], scalar).await), (400, json!(-32600)), "{scalar}");
    }
    for (bad, code) in [("[]", -32600), ("x", -32700), ("", -32700), (r#"{"jsonrpc":"2.0","Method":"a"}"#, -32600)] {
        assert_eq!(error(&client.post(&[version, list], bad).await), (400, json!(code)), "{bad}");
    }
    let others = ["text/plain", "application/json-rpc", "multipart/form-data"].map(str::to_owned);
    let parameters =
        ["charset=utf-7", "charset=UTF-16LE", "charset=utf-8; charset=utf-7", "a=\";\"; charset=utf-7", "a=b"];
    for other in others.into_iter().chain(parameters.map(|parameter| format!("application/json; {parameter}"))) {
        let other = &*other;
        assert_eq!(client.post(&[version, list, ("content-type", other)], &body).await.status.as_u16(), 415, "{other}");
    }
    assert_eq!(client.post(&[version, list, ("content-encoding", "gzip")], &body).await.status.as_u16(), 415);
    for spelled in ["Application/JSON; charset=utf-8", "application/json ;Charset=\"UTF-8\""] {
        assert_eq!(client.post(&[version, list, ("content-type", spelled)], &body).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn m7_older_versions_are_judged_by_the_body_where_they_are_listed() {
    let versions = vec!["2026-07-28".into(), "2025-11-25".into()];
    let client = Client::new(Mcp { versions, ..Mcp::default() }, "mcp other").await;
    for headers in [&[][..], &[("mcp-protocol-version", "2025-11-25")]] {
        assert_eq!(client.post(headers, &message("tools/list", None)).await.status, StatusCode::OK);
        let refused = client.post(headers, &message("tools/call", Some("delete_all"))).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        // These clients forget the scopes that they had.
        assert!(challenge(&refused).ends_with("scope=\"mcp files.write other\""), "{}", challenge(&refused));
        let answer = client.post(headers, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await;
        assert_eq!(answer.status, StatusCode::OK, "an answer to a question of the server");
    }
    let dressed = client.post(&[("mcp-method", "tools/list")], &message("tools/call", Some("read_file"))).await;
    assert_eq!(error(&dressed), (400, json!(-32020)));
    let unlisted = client.post(&[("mcp-protocol-version", "2025-06-18")], &message("tools/list", None)).await;
    assert_eq!(error(&unlisted), (400, json!(-32022)));
}

#[tokio::test]
async fn m12_m13_other_methods_and_pages_of_others_are_refused() {
    let method = async |client: &Client, method: Method, origin: Option<&str>| {
        let request = client.server.request("/mcp").method(method).header("mcp-protocol-version", "2026-07-28");
        let request = request.header("mcp-method", "tools/list").header("content-type", "application/json");
        let request = origin.into_iter().fold(request, |request, origin| request.header("origin", origin));
        let request = request.header("authorization", format!("Bearer {}", client.token));
        send(request.body(message("tools/list", None)).unwrap()).await
    };
    let client = Client::new(Mcp::default(), "mcp").await;
    for other in [Method::GET, Method::DELETE, Method::PUT] {
        let refused = method(&client, other, None).await;
        assert_eq!(
            (refused.status, &refused.headers["allow"]),
            (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap())
        );
    }
    let origins = vec!["https://inspector.test".into()];
    let client = Client::new(Mcp { origins, versions: vec!["2025-11-25".into()], ..Mcp::default() }, "mcp").await;
    assert_eq!(method(&client, Method::GET, None).await.status, StatusCode::OK, "the stream of an older version");
    for (origin, status) in [
        (None, 400),
        (Some("https://api.test"), 400),
        (Some("https://inspector.test"), 400),
        (Some("https://evil.test"), 403),
        (Some("null"), 403),
    ] {
        // 400, because this version is not listed here.
        assert_eq!(method(&client, Method::POST, origin).await.status.as_u16(), status, "{origin:?}");
    }
}

#[tokio::test]
async fn m17_a_long_body_is_refused_and_frees_its_bytes() {
    let client = Client::new(Mcp { max_message: 2048, ..Mcp::default() }, "mcp").await;
    let long = message("tools/list", None).replace("1.1", &"1".repeat(3000));
    let head = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];
    assert_eq!(client.post(&head, &long).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(client.call("tools/list", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn m8_rules_without_one_for_all_other_calls_do_not_start() {
    let build = async |mcp: Option<Mcp>, calls: &str| {
        let resource = Resource { mcp, ..Resource::new("/mcp") };
        let gate = builder().resource(resource).route(Route::new("/mcp", policy(""))).route(rule(calls, policy("")));
        gate.build().await.map(drop).map_err(|error| error.to_string())
    };
    assert!(build(Some(Mcp::default()), "*").await.is_ok());
    assert!(build(Some(Mcp::default()), "tools/call").await.unwrap_err().contains("calls = [\"*\"]"));
    assert!(build(None, "*").await.unwrap_err().contains("Resource::mcp"));
}

#[tokio::test]
async fn m20_an_explanation_names_the_rule_that_refuses_a_call() {
    let gate = gate(Mcp::default()).await;
    let (token, _) = tokens(&gate, "mcp").await;
    let explained = async |headers: &[(&str, &str)]| {
        let request = http::Request::post("/mcp").header("host", "api.test");
        let request = request.header("authorization", format!("Bearer {token}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let said = gate.layer().explain(request.body(()).unwrap().into_parts().0).await;
        let scopes = said.rules.iter().find(|verdict| verdict.rule == rotogate::gate::Rule::Scope).unwrap();
        assert!(said.outcome != "insufficient_scope" || scopes.detail.contains("for the call files.write"), "{said:?}");
        (said.outcome.to_owned(), said.status, said.detail)
    };
    let version = ("mcp-protocol-version", "2026-07-28");
    assert_eq!(explained(&[version, ("mcp-method", "tools/list")]).await.0, "passed");
    let delete = [version, ("mcp-method", "tools/call"), ("mcp-name", "delete_all")];
    assert_eq!(explained(&delete).await, ("insufficient_scope".to_owned(), Some(403), None));
    let unnamed = explained(&delete[..2]).await;
    assert_eq!(unnamed, ("bad_call".to_owned(), Some(400), Some("Mcp-Name is missing")));
    assert_eq!(
        gate.mcp_calls().iter().map(|(_, counts)| counts.iter().sum::<u64>()).sum::<u64>(),
        0,
        "nothing is counted"
    );
}

#[tokio::test]
async fn m16_the_stream_of_a_call_ends_with_its_session_and_the_server_sees_its_client_leave() {
    let gate = gate(Mcp::default()).await;
    let (token, _) = tokens(&gate, "mcp").await;
    let (sender, mut gone) = tokio::sync::mpsc::channel::<()>(1);
    let sender = std::sync::Arc::new(std::sync::Mutex::new(Some(sender)));
    let stream = move || {
        // Only the stream holds the permit.
        let sender = sender.lock().unwrap().take();
        async move {
            let events = futures_util::stream::unfold(sender, |sender| async {
                std::future::pending::<()>().await;
                Some((Ok::<_, std::io::Error>(Bytes::new()), sender))
            });
            let first = futures_util::stream::once(async { Ok(Bytes::from_static(b"data: 1\n\n")) });
            axum::body::Body::from_stream(futures_util::StreamExt::chain(first, events))
        }
    };
    let app = Router::new().route("/mcp", any(stream)).layer(gate.layer().forward_buffered());
    let request =
        Server::axum(app).await.request("/mcp").method(Method::POST).header("content-type", "application/json");
    let request = request.header("authorization", format!("Bearer {token}"));
    let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "subscriptions/listen");
    let body = Full::from(message("subscriptions/listen", None));
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut listening = client.request(request.body(body).unwrap()).await.unwrap();
    let first = listening.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "data: 1\n\n");
    gate.sessions().revoke_all(rotogate::gate::Whose::Subject("ada")).await.unwrap();
    assert!(listening.frame().await.unwrap().is_err(), "the reply is cut off, with nothing added");
    assert_eq!(gone.recv().await, None, "the server's stream is dropped");
}

#[tokio::test]
async fn a_layer_that_does_not_buffer_says_so() {
    let gate = gate(Mcp::default()).await;
    let (token, _) = tokens(&gate, "mcp").await;
    let app = Router::new().route("/mcp", any(echo)).layer(gate.layer());
    let client = Client { server: Server::axum(app).await, gate, token };
    let refused = client.call("tools/list", None).await;
    assert_eq!(refused.status, StatusCode::NOT_IMPLEMENTED);
    assert!(refused.body.contains("forward_buffered()"), "{}", refused.body);
}
