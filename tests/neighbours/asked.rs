//! Questions over HTTP, byte by byte.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use rotogate::program::grpc::proto::envoy::config::core::v3::{Address, SocketAddress, address};
use rotogate::program::grpc::proto::envoy::service::auth::v3::attribute_context::http_request::HeadersEntry;
use rotogate::program::grpc::proto::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use rotogate::program::grpc::proto::envoy::service::auth::v3::check_response::HttpResponse;
use rotogate::program::grpc::proto::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use support::stub::{HEAD, ROUTES};
use support::wire::Wire;

use super::scene::{NGINX, Scene, bearer, facts, run};
use crate::corpus;
use crate::grpc::client::call;

const CADDY: &str = "kind = \"caddy\"\ntrusted_proxies = [\"127.0.0.1/32\"]";

const MORE: &str = r#"
[[routes]]
path = "/admin/{*rest}"
scopes = ["admin"]
upstream = "app"
[[routes]]
path = "/alone/{*rest}"
[[routes]]
path = "/cors/{*rest}"
preflight = "upstream"
upstream = "app"
[[routes]]
path = "/cookie/{*rest}"
cookie = "session"
upstream = "app"
"#;

fn routes() -> String {
    format!("{ROUTES}{MORE}")
}

#[test]
fn n7_n10_n12_a_verdict_carries_the_identity_until_the_session_is_revoked() {
    let scene = Scene::new(NGINX, &routes());
    let tokens = scene.login();
    let good = bearer(&tokens);
    let allowed = scene.about("GET", "/private/a?b=c", &[&good, "X-Auth-Subject: root", "X-Auth-Expires: 1"]);
    assert_eq!((allowed.status, allowed.text().as_str()), (200, ""), "{allowed:?}");
    assert!(!allowed.header("x-auth-subject").is_empty() && allowed.header("x-auth-subject") != "root");
    assert_eq!((allowed.header("x-auth-client"), allowed.header("cache-control")), ("web", "no-store"));
    assert!(allowed.header("x-auth-expires").parse::<u64>().unwrap() > 1_600_000_000);
    assert!(allowed.all("set-cookie").is_empty());
    let none = scene.about("GET", "/private/a", &[]);
    assert_eq!((none.status, none.header("www-authenticate"), none.header("x-auth-status")), (401, "Bearer", "401"));
    let lacks = scene.about("GET", "/admin/a", &[&good]);
    assert_eq!((lacks.status, lacks.header("x-auth-status")), (403, "403"));
    assert!(lacks.header("www-authenticate").contains("insufficient_scope"), "{lacks:?}");
    run(scene.gate.revoke(&tokens.refresh));
    let revoked = scene.about("GET", "/private/a?b=c", &[&good]);
    assert_eq!(revoked.status, 401, "{revoked:?}");
    assert!(revoked.header("www-authenticate").contains("invalid_token"));
    assert!(scene.stub.take().is_empty(), "a question is never forwarded");
    assert_eq!(
        run(scene.gate.metric("rotogate_authorizer_verdicts_total{kind=\"forward-auth\",verdict=\"allowed\"}")),
        1
    );
    assert_eq!(
        run(scene.gate.metric("rotogate_authorizer_verdicts_total{kind=\"forward-auth\",verdict=\"denied\"}")),
        3
    );
}

#[test]
fn n57_n59_a_verdict_asserts_the_caller_to_the_audience_of_the_authorizer() {
    let identity = "\n[identity]\nassertion = { header = \"x-auth-assertion\" }\n";
    let scene = Scene::new(&format!("{NGINX}\nassertion_audience = \"apps\"{identity}"), &routes());
    let good = bearer(&scene.login());
    let allowed = scene.about("GET", "/private/a", &[&good, "X-Auth-Assertion: forged"]);
    assert_eq!(allowed.status, 200, "{allowed:?}");
    let [assertion] = allowed.all("x-auth-assertion")[..] else { panic!("one assertion: {allowed:?}") };
    support::keep_secret(assertion);
    let said = assertion.split('.').nth(1).expect("a JWT");
    let said = URL_SAFE_NO_PAD.decode(said).unwrap();
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    assert_eq!((&said["aud"], &said["sub"]), (&"apps".into(), &allowed.header("x-auth-subject").into()));
    // Without a caller, the answer overwrites the client's own headers nevertheless.
    let open = scene.about("GET", "/public/a", &["X-Auth-Assertion: forged"]);
    assert_eq!((open.status, open.all("x-auth-assertion")), (200, vec![""]), "{open:?}");
}

#[test]
fn n11_n13_n15_what_is_wrong_with_a_request_is_refused_with_a_status_that_nginx_knows() {
    let scene = Scene::new(NGINX, &routes());
    let tokens = scene.login();
    let good = bearer(&tokens);
    for (real, method, target, headers) in [
        ("400", "GET", "/private/a", vec![good.as_str(), good.as_str()]),
        ("400", "GET", "/private//a", vec![&good]),
        ("400", "GET", "/private/%61", vec![&good]),
        ("400", "GET", "/private/a", vec![&good, "X_Auth_Subject: root"]),
        ("404", "POST", "/acme/connect/token", vec![&good]),
        ("404", "GET", "/.well-known/jwks.json", vec![]),
        ("404", "GET", "/acme/connect/token/", vec![]),
        ("405", "TRACE", "/public/a", vec![]),
        ("400", "CONNECT", "/public/a", vec![]),
    ] {
        let reply = scene.about(method, target, &headers);
        let stated = reply.header("x-auth-status");
        assert!(stated == real || method == "CONNECT", "{method} {target}: {reply:?}");
        assert_eq!(reply.status, 403, "{method} {target}: {reply:?}");
    }
    // A question does not consume a refresh token.
    let shown = scene.about("GET", "/private/a", &[&format!("Authorization: Bearer {}", tokens.refresh)]);
    assert_eq!(shown.status, 401);
    assert_eq!(run(scene.gate.refresh(&tokens.refresh)).status, 200);
    // Other neighbours forward the real status.
    let other = Scene::new(CADDY, &routes());
    assert_eq!(other.about("GET", "/private//a", &[]).status, 400);
    assert_eq!(other.about("GET", "/.well-known/jwks.json", &[]).status, 404);
}

#[test]
fn n3_a_stranger_gets_403_for_an_open_route_too_and_no_listener_starts_without_a_list() {
    let strangers = NGINX.replace("127.0.0.1/32", "192.0.2.0/24");
    let scene = Scene::new(&strangers, &routes());
    let reply = scene.about("GET", "/public/a", &[]);
    assert_eq!((reply.status, reply.all("x-auth-subject").len()), (403, 0), "{reply:?}");
    let config = format!(
        "{}[[authorizers]]\nkind = \"nginx\"\nlisten = \"127.0.0.1:0\"\n{ROUTES}",
        support::stub::HEAD.replace("@upstream@", "127.0.0.1:9")
    );
    let said = support::Place::new(&config).refused();
    assert!(said.contains("authorizers[0].trusted_proxies"), "{said}");
}

#[test]
fn t37_other_trusted_proxies_count_for_questions_from_the_reload_on() {
    let networks = |network: &str| format!("trusted_proxies = [\"{network}\"]");
    let head = support::with(HEAD, "server", &networks("127.0.0.0/8"));
    let scene = Scene::on(&head, "kind = \"nginx\"", &routes());
    let mut open = Wire::open(scene.asked);
    let mut ask = || {
        let lines = facts("GET", "/public/a");
        let lines: Vec<&str> = std::iter::once("Host: authorizer").chain(lines.iter().map(String::as_str)).collect();
        open.head("GET /", &lines);
        (open.reply().status, scene.about("GET", "/public/a", &[]).status)
    };
    assert_eq!(ask(), (200, 200));
    let config = std::fs::read_to_string(scene.place.path("gateway.toml")).unwrap();
    let reload = |network: &str, times| {
        scene.place.write_config(&config.replace(&networks("127.0.0.0/8"), &networks(network)));
        scene.gate.signal("HUP");
        let is_taken = async || scene.gate.log().matches("configuration reloaded").count() == times;
        run(support::until("it is taken up", is_taken));
    };
    reload("10.0.0.0/8", 1);
    assert_eq!(ask(), (403, 403), "on an open connection too");
    reload("127.0.0.0/8", 2);
    assert_eq!(ask(), (200, 200));
}

#[test]
fn n14_a_body_is_neither_read_nor_awaited() {
    let scene = Scene::new(NGINX, &routes());
    let mut wire = Wire::open(scene.asked);
    let lines = facts("POST", "/public/a").join("\r\n");
    wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n{lines}\r\n\r\n"));
    let reply = wire.reply();
    assert_eq!((reply.status, reply.header("connection")), (200, "close"), "{reply:?}");
}

#[test]
fn n16_a_preflight_passes_where_its_route_says_so() {
    let scene = Scene::new(NGINX, &routes());
    let preflight = ["Origin: https://page.test", "Access-Control-Request-Method: POST"];
    let passes = scene.about("OPTIONS", "/cors/a", &preflight);
    assert_eq!((passes.status, passes.header("x-auth-subject")), (200, ""), "{passes:?}");
    assert_eq!(scene.about("OPTIONS", "/private/a", &preflight).status, 401);
    assert_eq!(scene.about("OPTIONS", "/cors/a", &preflight[..1]).status, 401, "not a preflight");
    assert_eq!(scene.about("POST", "/cors/a", &preflight).status, 401);
}

#[test]
fn n16_a_page_of_another_site_opens_no_websocket_with_a_cookie() {
    let scene = Scene::new(NGINX, &routes());
    let cookie = format!("Cookie: session={}", scene.login().access);
    assert_eq!(scene.about("GET", "/cookie/a", &[&cookie, "Origin: https://evil.test"]).status, 200, "a GET is safe");
    let handshake = [cookie.as_str(), "Origin: https://evil.test", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="];
    assert_eq!(scene.about("GET", "/cookie/a", &handshake).status, 403, "nginx drops Upgrade, and keeps the key");
}

#[test]
fn n19_n20_facts_count_for_nothing_on_the_public_listener_and_hosts_are_compared_folded() {
    let scene = Scene::new(NGINX, &routes());
    let mut wire = Wire::open(scene.gate.address);
    let lines = facts("GET", "/public/a").join("\r\n");
    wire.send(format!("GET /private/a HTTP/1.1\r\nHost: gate.test\r\n{lines}\r\n\r\n"));
    assert_eq!(wire.reply().status, 401);
    for (host, status) in
        [("GATE.test", 200), ("gate.test:80", 200), ("other.test", 403), ("gate.test, gate.test", 403)]
    {
        let mut lines = facts("GET", "/public/a");
        lines.retain(|line| !line.starts_with("X-Forwarded-Host"));
        lines.push(format!("X-Forwarded-Host: {host}"));
        assert_eq!(scene.ask("GET /", &lines).status, status, "{host}");
    }
}

#[test]
fn n6_the_verdict_is_that_of_the_public_listener_for_every_path_of_the_corpus() {
    let scene = Scene::new(CADDY, crate::edge::path_corpus::ROUTES);
    let good = bearer(&scene.login());
    scene.stub.take();
    let (mut wrong, mut permitted) = (Vec::new(), 0);
    for spelling in corpus::paths() {
        // No neighbour can ask about a target that no header can carry.
        if spelling.target.iter().any(|byte| !(0x20..0x7f).contains(byte)) {
            continue;
        }
        let target = String::from_utf8(spelling.target).unwrap();
        for headers in [&[][..], &[good.as_str()]] {
            let mut wire = Wire::open(scene.gate.address);
            wire.head(&format!("GET {target}"), &[&["Host: gate.test"], headers].concat());
            let public = wire.reply().status;
            let forwarded = scene.stub.take().pop().map(|received| received.target);
            let verdict = |target: &str| scene.about("GET", target, headers).status;
            let asked = verdict(&target);
            let holds = match &forwarded {
                // The public listener forwards the canonical form. Here the neighbour forwards its own target, so only
                // the canonical form is permitted.
                Some(forwarded) if forwarded.eq_ignore_ascii_case(&target) => asked == public,
                Some(forwarded) => asked == 400 && verdict(forwarded) == public,
                // The gate may refuse the target for its form before any other check.
                None => asked == public || asked == 400,
            };
            permitted += usize::from(asked == 200);
            if !holds {
                wrong.push(format!("{target}: {asked}, public {public}, forwarded as {forwarded:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(permitted > 20, "{permitted}");
}

#[test]
fn n6_a_caller_beyond_its_requests_at_the_public_listener_gets_no_verdict_either() {
    let head = HEAD.replace(
        "[server]\n",
        "[server]\nmax_requests = 2\nfor_tests.max_requests_per_caller = 1\nfor_tests.max_requests_per_address = 2\n",
    );
    let scene = Scene::on(&head, CADDY, &routes());
    let tokens = scene.login();
    let good = bearer(&tokens);
    let mut wire = Wire::open(scene.gate.address);
    // The upstream never answers this request.
    wire.head("GET /private/silent", &["Host: gate.test", &good]);
    while scene.stub.take().is_empty() {
        std::thread::yield_now();
    }
    let refused = scene.about("GET", "/private/a", &[&good]);
    assert_eq!((refused.status, refused.header("x-auth-status"), refused.header("retry-after")), (503, "503", "1"));
    assert_eq!(scene.about("GET", "/public/a", &[]).status, 200, "nobody has no share");
    drop(wire);
    // The request ends with its connection; a verdict gives its place back at once.
    while scene.about("GET", "/private/a", &[&good]).status != 200 {
        std::thread::yield_now();
    }
    for _ in 0..10 {
        assert_eq!(scene.about("GET", "/private/a", &[&good]).status, 200);
    }
}

#[test]
fn n6_an_address_beyond_its_requests_is_the_client_s_not_the_neighbour_s() {
    let head = HEAD.replace("[server]\n", "[server]\nmax_requests = 2\nfor_tests.max_requests_per_address = 1\n");
    let scene = Scene::on(&head, CADDY, &routes());
    let mut wire = Wire::open(scene.gate.address);
    // The upstream never answers this request, which comes from 127.0.0.1.
    wire.head("GET /public/silent", &["Host: gate.test"]);
    while scene.stub.take().is_empty() {
        std::thread::yield_now();
    }
    let from = |client: &str| {
        let mut lines = facts("GET", "/public/a");
        lines.retain(|line| !line.starts_with("X-Forwarded-For"));
        lines.push(format!("X-Forwarded-For: {client}"));
        scene.ask("GET /", &lines).status
    };
    assert_eq!((from("127.0.0.1"), from("192.0.2.8")), (503, 200));
}

#[test]
fn n5_n13_a_token_in_the_query_is_refused_where_the_neighbour_would_forward_it() {
    let scene = Scene::new(CADDY, &routes());
    let tokens = scene.login();
    let (good, token) = (bearer(&tokens), &tokens.access);
    for target in ["/private/a", "/public/a", "/open/a"] {
        for query in [format!("access_token={token}"), "b=c&access_token=x".to_owned(), "%61ccess_token=x".to_owned()] {
            let target = format!("{target}?{query}");
            let refused = scene.about("GET", &target, &[]);
            assert_eq!(refused.status, 401, "{refused:?}");
            assert_ne!(scene.about("GET", &target, &[&good]).status, 200);
        }
        assert_eq!(scene.about("GET", &format!("{target}?token=x"), &[&good]).status, 200);
    }
}

#[test]
fn n15_a_route_without_an_upstream_is_served_to_neighbours_alone() {
    let scene = Scene::new(NGINX, &routes());
    let good = bearer(&scene.login());
    assert_eq!(scene.about("GET", "/alone/a", &[&good]).status, 200);
    let mut wire = Wire::open(scene.gate.address);
    wire.head("GET /alone/a", &["Host: gate.test", &good]);
    assert_eq!(wire.reply().status, 404);
}

/// Calls of a resource, judged by their headers.
fn calls() -> String {
    format!(
        r#"{ROUTES}
[[resources]]
path = "/mcp"
authorization_servers = ["https://idp.test"]
mcp = {{ check = "headers" }}
[[routes]]
path = "/mcp"
resource = "/mcp"
audiences = ["api"]
upstream = "app"
[[routes]]
resource = "/mcp"
calls = ["tools/call:delete_*"]
scopes = ["admin"]
[[routes]]
resource = "/mcp"
calls = ["*"]
"#
    )
}

#[test]
fn m18_a_verdict_on_a_call_comes_from_its_headers() {
    let scene = Scene::new(CADDY, &calls());
    let good = bearer(&scene.login());
    let version = "MCP-Protocol-Version: 2026-07-28";
    let json = "Content-Type: application/json";
    let about = |headers: &[&str]| scene.about("POST", "/mcp", &[&[good.as_str(), version, json], headers].concat());
    assert_eq!(about(&["Mcp-Method: tools/list"]).status, 200);
    let refused = about(&["Mcp-Method: tools/call", "Mcp-Name: delete_all"]);
    assert_eq!(refused.status, 403);
    let named = refused.header("www-authenticate").contains("scope=\"admin\"");
    assert!(named, "{refused:?}");
    assert_eq!(about(&[]).status, 400, "a call without its headers");
}

/// Envoy's question about a call, with these headers.
fn check(headers: &[(&str, &str)]) -> CheckRequest {
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let entry = |(key, value): &(&str, &str)| HeadersEntry { key: text(key), value: text(value) };
    let http = HttpRequest {
        method: text("POST"),
        headers: headers.iter().map(entry).collect(),
        path: text("/mcp"),
        host: text("gate.test"),
        scheme: text("http"),
        header_map: None,
    };
    let address = SocketAddress { address: text("192.0.2.7") };
    let address = address::Address::SocketAddress(address);
    let source = Peer { address: Some(Address { address: Some(address) }) };
    CheckRequest {
        attributes: Some(AttributeContext { source: Some(source), request: Some(Request { http: Some(http) }) }),
    }
}

#[test]
fn m18_envoy_is_told_of_a_call_by_its_headers() {
    const ENVOY: &str = "kind = \"ext-authz\"\ntrusted_proxies = [\"127.0.0.1/32\"]";
    let scene = Scene::new(ENVOY, &calls());
    let good = format!("Bearer {}", scene.login().access);
    let own = [("authorization", &*good), ("mcp-protocol-version", "2026-07-28"), ("content-type", "application/json")];
    // The status and the challenge of a refusal; `None` for a permit.
    let ask = |headers: &[(&str, &str)]| {
        let question = tonic::Request::new(check(&[&own, headers].concat()));
        let answer = run(call::<_, CheckResponse>(scene.asked, "/envoy.service.auth.v3.Authorization/Check", question));
        match answer.unwrap().into_inner().http_response.unwrap() {
            HttpResponse::OkResponse(_) => None,
            HttpResponse::DeniedResponse(denied) => {
                let mut headers = denied.headers.into_iter().filter_map(|one| one.header);
                let challenge = headers.find(|one| one.key == "www-authenticate");
                let challenge = challenge.map(|one| [one.value, one.raw_value].concat()).unwrap_or_default();
                Some((denied.status.unwrap().code, String::from_utf8(challenge).unwrap()))
            }
        }
    };
    let status = |answer: Option<(i32, String)>| answer.map(|(status, _)| status);
    assert_eq!(status(ask(&[("mcp-method", "tools/list")])), None);
    let (refused, said) = ask(&[("mcp-method", "tools/call"), ("mcp-name", "delete_all")]).unwrap();
    assert!(refused == 403 && said.contains("scope=\"admin\""), "{refused} {said}");
    assert_eq!(status(ask(&[])), Some(400), "a call without its headers");
}
