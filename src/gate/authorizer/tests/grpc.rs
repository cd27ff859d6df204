//! Checks over gRPC.

use http_body_util::{BodyExt, Full};
use prost::Message;

use super::*;
use crate::gate::authorizer::grpc::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use crate::gate::authorizer::grpc::proto::envoy::config::core::v3::{
    Address, HeaderMap, HeaderValue, SocketAddress, address,
};
use crate::gate::authorizer::grpc::proto::envoy::service::auth::v3::attribute_context::http_request::HeadersEntry;
use crate::gate::authorizer::grpc::proto::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use crate::gate::authorizer::grpc::proto::envoy::service::auth::v3::check_response::HttpResponse;
use crate::gate::authorizer::grpc::proto::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use crate::gate::authorizer::grpc::{Allowed, Checks};

pub(in crate::gate) fn check(change: impl FnOnce(&mut HttpRequest)) -> CheckRequest {
    let mut http = HttpRequest {
        method: "GET".into(),
        host: "gate.test".into(),
        path: "/public/a?b=c".into(),
        scheme: "https".into(),
        ..HttpRequest::default()
    };
    change(&mut http);
    let socket = SocketAddress { address: "192.0.2.7".into() };
    let address = Some(Address { address: Some(address::Address::SocketAddress(socket)) });
    let attributes = AttributeContext { source: Some(Peer { address }), request: Some(Request { http: Some(http) }) };
    CheckRequest { attributes: Some(attributes) }
}

fn merged<const N: usize>(pairs: [(&'static str, &'static str); N]) -> Vec<HeadersEntry> {
    pairs.into_iter().map(|(key, value)| HeadersEntry { key: key.into(), value: value.into() }).collect()
}

pub(in crate::gate) fn raw(pairs: &[(&str, &[u8])]) -> Option<HeaderMap> {
    let one = |(key, value): &(&str, &[u8])| HeaderValue {
        key: bytes::Bytes::copy_from_slice(key.as_bytes()),
        raw_value: bytes::Bytes::copy_from_slice(value),
        value: bytes::Bytes::new(),
    };
    Some(HeaderMap { headers: pairs.iter().map(one).collect() })
}

#[tokio::test]
async fn n21_n22_n27_attributes_are_the_facts_and_headers_never() {
    let authorizer = Authorizer::new(&gate().await, Neighbour::Envoy);
    let head = authorizer.head_of_check(check(|http| {
        let forged = [
            (":path", "/other"),
            ("x-envoy-original-path", "/other"),
            ("x-forwarded-for", "10.9.9.9"),
            (":authority", "other.test"),
            ("x-forwarded-uri", "/other"),
            (":method", "DELETE"),
        ];
        http.headers = merged(forged);
    }));
    let head = head.unwrap();
    assert_eq!((head.method.as_str(), head.uri.path(), head.uri.query()), ("GET", "/public/a", Some("b=c")));
    assert_eq!(head.headers[HOST], "gate.test");
    assert_eq!(head.extensions.get::<rotogate_core::headers::Peer>().unwrap().address().to_string(), "192.0.2.7");
    let empty: [fn(&mut HttpRequest); 4] =
        [|http| http.method.clear(), |http| http.host.clear(), |http| http.path.clear(), |http| http.scheme.clear()];
    for clear in empty {
        assert!(authorizer.head_of_check(check(clear)).is_err());
    }
    assert!(authorizer.head_of_check(CheckRequest::default()).is_err());
    let mut sourceless = check(|_| {});
    sourceless.attributes.as_mut().unwrap().source = None;
    assert!(authorizer.head_of_check(sourceless).is_err());
    assert!(authorizer.head_of_check(check(|http| http.path = "/a#b".into())).is_err());
}

#[tokio::test]
async fn n13_n23_merged_and_raw_headers_have_one_verdict() {
    let authorizer = Authorizer::new(&gate().await, Neighbour::Envoy);
    let two = authorizer.head_of_check(check(|http| {
        http.path = "/private".into();
        http.headers = merged([("authorization", "Bearer a,Bearer b")]);
    }));
    assert_eq!(two.unwrap_err(), Denial::TwoCredentials);
    let two = authorizer.head_of_check(check(|http| {
        http.path = "/private".into();
        // If there is a list, the map has no effect.
        http.headers = merged([("authorization", "Bearer one")]);
        http.header_map = raw(&[("authorization", b"Bearer a"), ("authorization", b"Bearer b")]);
    }));
    assert_eq!(authorizer.decide(two).await.status(), 400);
    let binary = authorizer.head_of_check(check(|http| http.header_map = raw(&[("x-name", b"\xff")])));
    assert_eq!(binary.unwrap().headers["x-name"].as_bytes(), b"\xff");
    // A map has each name once. Other readers of a message with a repeated name take the last value, or both.
    for spelling in ["authorization", "Authorization"] {
        let twice = authorizer.head_of_check(check(|http| {
            http.headers = merged([("authorization", "Bearer one"), (spelling, "Bearer two")]);
        }));
        assert_eq!(twice.unwrap_err(), Denial::BadFact("a header is repeated"), "{spelling}");
    }
    let pseudo = check(|http| http.headers = merged([(":path", "/a"), (":path", "/b"), ("x-name", "1")]));
    assert_eq!(authorizer.head_of_check(pseudo).unwrap().headers["x-name"], "1");
}

#[tokio::test]
async fn a24_a_question_has_so_many_headers_and_as_many_as_that_are_read() {
    let authorizer = Authorizer::new(&gate().await, Neighbour::Envoy);
    let key = |n: usize| bytes::Bytes::from(format!("x-{n}"));
    for (count, is_good) in [(1024, true), (1025, false)] {
        let merged = check(|http| {
            http.headers = (0..count).map(|n| HeadersEntry { key: key(n), value: "v".into() }).collect();
        });
        let one = |n| HeaderValue { key: key(n), value: "v".into(), ..HeaderValue::default() };
        let listed = check(|http| http.header_map = Some(HeaderMap { headers: (0..count).map(one).collect() }));
        for question in [merged, listed] {
            assert_eq!(authorizer.head_of_check(question).is_ok(), is_good, "{count}");
        }
    }
}

#[tokio::test]
async fn n22_n26_text_that_is_not_utf_8_is_refused() {
    let authorizer = Authorizer::new(&gate().await, Neighbour::Envoy);
    let not_text = || bytes::Bytes::from_static(b"/\xff");
    let changes: [fn(&mut HttpRequest, bytes::Bytes); 6] = [
        |http, text| http.method = text,
        |http, text| http.host = text,
        |http, text| http.path = text,
        |http, text| http.scheme = text,
        |http, value| http.headers = vec![HeadersEntry { key: "x-name".into(), value }],
        |http, value| {
            let header = HeaderValue { key: "x-name".into(), value, ..HeaderValue::default() };
            http.header_map = Some(HeaderMap { headers: vec![header] });
        },
    ];
    for change in changes {
        let question = check(|http| change(http, not_text()));
        assert!(authorizer.head_of_check(question.clone()).is_err(), "{:?}", question.encode_to_vec());
        // A failed call would be no refusal: a filter with `failure_mode_allow` lets the request pass.
        assert_eq!(verdict(&authorizer, &question).await.status.unwrap().code, 7);
    }
}

#[test]
fn n21_a_message_has_the_fields_of_the_protocol_on_the_wire() {
    // Field 1 of the question, its fields 4 and 2, and of this a map and a list of headers (fields 3 and 13).
    let question = check(|http| {
        *http =
            HttpRequest { headers: merged([("a", "b")]), header_map: raw(&[("c", b"d")]), ..HttpRequest::default() };
    });
    let map = [0x1a, 6, 0x0a, 1, b'a', 0x12, 1, b'b'];
    let list = [0x6a, 8, 0x0a, 6, 0x0a, 1, b'c', 0x1a, 1, b'd'];
    let wire = [&[0x22, 20, 0x12, 18][..], &map, &list].concat();
    let bytes = question.encode_to_vec();
    assert!(bytes.windows(wire.len()).any(|window| window == wire), "{bytes:x?}");
}

/// The reply to a call, with its whole body.
async fn called(authorizer: &Authorizer, path: &str, message: &[u8]) -> (http::StatusCode, Vec<u8>) {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let framed = bytes::Bytes::from([&[0], &length[..], message].concat());
    let peer = rotogate_core::headers::Peer::new([127, 0, 0, 1].into(), false);
    let call = http::Request::post(path).header("content-type", "application/grpc").extension(peer);
    let (call, ()) = call.body(()).unwrap().into_parts();
    let checks = Checks::default();
    let reply = checks.answer(authorizer, &call, Full::new(framed), |head| authorizer.decide(head)).await;
    let (parts, body) = reply.into_parts();
    let bytes = match body.stream {
        Some(stream) => stream.collect().await.unwrap().to_bytes(),
        None => body.data,
    };
    (parts.status, bytes.get(5..).unwrap_or_default().to_vec())
}

fn spoken(reply: &mut Reply) -> CheckResponse {
    CheckResponse::decode(crate::gate::authorizer::grpc::spoken(reply)).unwrap()
}

pub(super) async fn verdict(authorizer: &Authorizer, question: &CheckRequest) -> CheckResponse {
    let path = "/envoy.service.auth.v3.Authorization/Check";
    let (_, bytes) = called(authorizer, path, &question.encode_to_vec()).await;
    CheckResponse::decode(bytes.as_slice()).unwrap()
}

#[tokio::test]
async fn n25_n21_an_allowed_request_loses_what_only_the_gate_sets_by_the_spelling_it_came_in() {
    let authorizer = Authorizer::new(&gate().await, Neighbour::Envoy);
    let sent = ["x_auth_subject", "x-auth-subject", "authorization", "x-http-method-override", "x-original-url"];
    let question = check(|http| {
        let pairs: Vec<(&str, &[u8])> = sent.iter().map(|name| (*name, b"root".as_slice())).collect();
        http.header_map = raw(&pairs);
        http.headers = merged([("x-kept", "1")]);
    });
    let answered = verdict(&authorizer, &question).await;
    assert_eq!(answered.status.unwrap().code, 0);
    let Some(HttpResponse::OkResponse(ok)) = answered.http_response else { panic!("denied") };
    for name in sent {
        assert!(ok.headers_to_remove.iter().any(|removed| removed == name), "{name}: {:?}", ok.headers_to_remove);
    }
    assert!(!ok.headers_to_remove.iter().any(|removed| removed == "x-kept"));
    assert!(ok.headers.is_empty() && answered.dynamic_metadata.is_none(), "the request has no caller");
}

#[tokio::test]
async fn n69_each_cookie_header_of_a_check_loses_the_credential() {
    let authorizer = Authorizer::new(&gate_with_a_cookie().await, Neighbour::Envoy);
    let question = check(|http| {
        http.header_map = raw(&[("cookie", b"theme=dark"), ("cookie", b"token=a.b.c"), ("dpop", b"a.b.c")]);
    });
    let Some(HttpResponse::OkResponse(ok)) = verdict(&authorizer, &question).await.http_response else {
        panic!("denied")
    };
    let set = ok.headers.into_iter().filter_map(|option| option.header);
    let set: Vec<_> = set.filter(|header| header.key == "cookie").map(|header| header.value).collect();
    assert_eq!(set, ["theme=dark"]);
    assert!(ok.headers_to_remove.iter().any(|name| name == "dpop"), "{:?}", ok.headers_to_remove);
}

#[tokio::test]
async fn n24_a_permit_tells_the_caller_in_headers_and_in_metadata_that_others_read() {
    let gate = Gate::builder().issuer("https://gate.test").keys(Keyring::ephemeral().unwrap());
    let gate =
        gate.client(rotogate_core::client::Client::public("web")).route(Route::catch_all(RoutePolicy::default()));
    let gate = gate.trusted_proxies(vec!["127.0.0.1/32".parse().unwrap()]).build().await.unwrap();
    let session = crate::gate::NewSession::new("ann", "web").scope("read write").unwrap();
    let tokens = gate.sessions().start(session).await.unwrap();
    let bearer = format!("Bearer {}", tokens.access_token.expose());
    let question = check(|http| {
        http.header_map = raw(&[("authorization", bearer.as_bytes()), ("cookie", b"a=1"), ("x-auth-subject", b"root")]);
    });
    let answered = verdict(&Authorizer::new(&gate, Neighbour::Envoy), &question).await;
    // The library's type, which has a map.
    let metadata = answered.dynamic_metadata.unwrap().encode_to_vec();
    let metadata = prost_types::Struct::decode(metadata.as_slice()).unwrap().fields;
    assert_eq!(
        metadata.keys().map(String::as_str).collect::<Vec<_>>(),
        ["client", "expires", "issuer", "scope", "session", "subject"]
    );
    let string = |name: &str| match metadata[name].kind.as_ref().unwrap() {
        prost_types::value::Kind::StringValue(text) => text.as_str(),
        other => panic!("{other:?}"),
    };
    assert_eq!([string("subject"), string("issuer"), string("client")], ["ann", "https://gate.test", "web"]);
    let scope = ["read", "write"].map(prost_types::Value::from).to_vec();
    assert_eq!(metadata["scope"], prost_types::Value::from(scope));
    let Some(HttpResponse::OkResponse(ok)) = answered.http_response else { panic!("denied") };
    let set: Vec<_> = ok.headers.iter().map(|option| option.header.as_ref().unwrap()).collect();
    assert!(set.iter().any(|header| header.key == "x-auth-subject" && header.value == "ann"));
    for header in set {
        assert!(!header.value.is_empty() && header.raw_value.is_empty(), "{}", header.key.escape_ascii());
        assert!(!ok.headers_to_remove.contains(&header.key), "{}", header.key.escape_ascii());
    }
    assert!(ok.headers_to_remove.iter().any(|name| name == "authorization"));
}

#[tokio::test]
async fn n24_n25_an_answer_that_is_kept_is_of_its_caller_and_route_and_decides_nothing() {
    let gate = Gate::builder().issuer("https://gate.test").keys(Keyring::ephemeral().unwrap());
    let own = RoutePolicy { forward_token: true, ..RoutePolicy::default() };
    let gate = gate.client(rotogate_core::client::Client::public("web")).route(Route::new("/own/{*rest}", own));
    let gate = gate.route(Route::catch_all(RoutePolicy::default()));
    let gate = gate.trusted_proxies(vec!["127.0.0.1/32".parse().unwrap()]).build().await.unwrap();
    let authorizer = Authorizer::new(&gate, Neighbour::Envoy);
    let mut tokens = Vec::new();
    for name in ["ann", "bob"] {
        tokens.push(gate.sessions().start(crate::gate::NewSession::new(name, "web")).await.unwrap());
    }
    let asks = |path: &'static str, caller: usize, more: &[(&str, &[u8])]| {
        let bearer = format!("Bearer {}", tokens[caller].access_token.expose());
        let headers = [&[("authorization", bearer.as_bytes()), ("x-kept", b"1")], more].concat();
        check(|http| {
            http.path = path.into();
            http.header_map = raw(&headers);
        })
    };
    let is_kept = async |question: CheckRequest| {
        let head = authorizer.head_of_check(question);
        let reply = authorizer.decide(head).await;
        matches!(reply.extensions().get::<Allowed>(), Some(Allowed::Kept(_)))
    };
    let changes = async |question: &CheckRequest| {
        let answered = verdict(&authorizer, question).await;
        let Some(HttpResponse::OkResponse(ok)) = answered.http_response else { panic!("denied") };
        let subject = ok.headers.into_iter().filter_map(|option| option.header);
        let subject = subject.filter(|header| header.key == "x-auth-subject").map(|header| header.value);
        (subject.collect::<Vec<_>>(), ok.headers_to_remove)
    };
    let has = |removed: &[bytes::Bytes], name: &str| removed.iter().any(|removed| removed == name);

    assert!(!is_kept(asks("/a", 0, &[])).await);
    let first = changes(&asks("/a", 0, &[])).await;
    assert!(is_kept(asks("/a", 0, &[])).await && is_kept(asks("/b?c", 0, &[])).await);
    assert_eq!(changes(&asks("/a", 0, &[])).await, first);
    assert!(first.0 == ["ann"] && has(&first.1, "authorization"), "{first:?}");
    // The kept answer does not have the headers of the client that must be removed.
    for (name, value) in
        [("x-auth-subject", b"root".as_slice()), ("x_auth_subject", b"root"), ("x-http-method-override", b"PUT")]
    {
        let spoofed = asks("/a", 0, &[(name, value)]);
        let (subject, removed) = changes(&spoofed).await;
        assert_eq!(subject, ["ann"]);
        assert!(name == "x-auth-subject" || has(&removed, name), "{name}: {removed:?}");
        assert!(!is_kept(spoofed).await, "{name}");
    }
    // Another route and another caller have answers of their own.
    let (subject, removed) = changes(&asks("/own/a", 0, &[])).await;
    assert!(subject == ["ann"] && !has(&removed, "authorization"), "{removed:?}");
    assert_eq!(changes(&asks("/a", 1, &[])).await.0, ["bob"]);
    assert_eq!(changes(&asks("/a", 0, &[])).await, first);
    // The end of the session counts at once.
    gate.sessions().revoke(tokens[0].session.unwrap()).await.unwrap();
    let answered = verdict(&authorizer, &asks("/a", 0, &[])).await;
    assert_eq!(answered.status.unwrap().code, 16);
    assert_eq!(changes(&asks("/a", 1, &[])).await.0, ["bob"]);
}

#[tokio::test]
async fn n24_n25_n57_an_answer_with_an_assertion_is_not_kept() {
    let gate = Gate::builder().issuer("https://gate.test").keys(Keyring::ephemeral().unwrap());
    let gate = gate.assertion(HeaderName::from_static("x-asserted"), std::time::Duration::from_secs(60));
    let gate =
        gate.client(rotogate_core::client::Client::public("web")).route(Route::catch_all(RoutePolicy::default()));
    let gate = gate.trusted_proxies(vec!["127.0.0.1/32".parse().unwrap()]).build().await.unwrap();
    let tokens = gate.sessions().start(crate::gate::NewSession::new("ann", "web")).await.unwrap();
    let bearer = format!("Bearer {}", tokens.access_token.expose());
    let question = || check(|http| http.header_map = raw(&[("authorization", bearer.as_bytes())]));
    let asserts = async |authorizer: &Authorizer| {
        let answered = verdict(authorizer, &question()).await;
        let Some(HttpResponse::OkResponse(ok)) = answered.http_response else { panic!("denied") };
        ok.headers.iter().any(|option| option.header.as_ref().unwrap().key == "x-asserted")
    };
    let (asserting, plain) =
        (Authorizer::new(&gate, Neighbour::Envoy).asserting_to("app"), Authorizer::new(&gate, Neighbour::Envoy));
    for _ in 0..2 {
        assert!(asserts(&asserting).await);
        assert!(!asserts(&plain).await);
    }
    let kept = async |authorizer: &Authorizer| {
        let reply = authorizer.decide(authorizer.head_of_check(question())).await;
        matches!(reply.extensions().get::<Allowed>(), Some(Allowed::Kept(_)))
    };
    assert!(!kept(&asserting).await && kept(&plain).await);
}

#[tokio::test]
async fn n24_a_kept_answer_is_found_by_its_caller_and_its_route_alone() {
    // More callers than slots, so that some share a slot.
    const MANY: usize = 1100;
    let keys = Keyring::generate(rotogate_core::token::Algorithm::Hs256).unwrap();
    let gate = Gate::builder().issuer("https://gate.test").keys(keys);
    let gate =
        gate.client(rotogate_core::client::Client::public("web")).route(Route::catch_all(RoutePolicy::default()));
    let gate = gate.trusted_proxies(vec!["127.0.0.1/32".parse().unwrap()]).build().await.unwrap();
    let authorizer = Authorizer::new(&gate, Neighbour::Envoy);
    let mut callers = Vec::new();
    for number in 0..MANY {
        let session = crate::gate::NewSession::new(format!("user-{number}"), "web");
        let tokens = gate.sessions().start(session).await.unwrap();
        let bearer = format!("Bearer {}", tokens.access_token.expose());
        let head = authorizer.head_of_check(check(|http| {
            http.header_map = raw(&[("authorization", bearer.as_bytes())]);
        }));
        let mut reply = authorizer.decide(head).await;
        let Some(Allowed::Made { caller, .. }) = reply.extensions_mut().remove() else { panic!("not permitted") };
        callers.push(caller.unwrap());
    }
    let routes = (0..MANY).map(|_| std::sync::Arc::new(Route::catch_all(RoutePolicy::default()))).collect::<Vec<_>>();
    let pairs = (0..MANY).map(|caller| (caller, 0)).chain((1..MANY).map(|route| (0, route)));
    let pairs: Vec<_> = pairs.map(|(caller, route)| (&callers[caller], &routes[route])).collect();
    let answer = |pair: usize| bytes::Bytes::from(pair.to_string());
    for (number, (caller, route)) in pairs.iter().enumerate() {
        assert_eq!(kept::find(caller, route), None, "{number}");
        kept::keep(caller, route, &answer(number));
        assert_eq!(kept::find(caller, route), Some(answer(number)));
    }
    let found = pairs.iter().enumerate().filter_map(|(number, (caller, route))| {
        let kept = kept::find(caller, route)?;
        assert_eq!(kept, answer(number));
        Some(())
    });
    let found = found.count();
    assert!((300..=1024).contains(&found), "{found}");
    let long = bytes::Bytes::from(vec![0; 1 << 20]);
    kept::keep(&callers[0], &routes[0], &long);
    assert_ne!(kept::find(&callers[0], &routes[0]), Some(long));
}

#[tokio::test]
async fn n26_n24_a_refusal_and_a_fault_are_denials_with_a_status_and_headers_overwrite() {
    let authorizer = Authorizer::new(&gate().await, Neighbour::Envoy);
    let stranger = Authorizer::new(&gate().await, Neighbour::Envoy).trusting(Vec::new());
    let private = check(|http| {
        http.path = "/private".into();
        http.headers = merged([("content-type", "application/grpc")]);
    });
    for (authorizer, question, code, status) in [
        (&authorizer, private.clone(), 16, 401),
        (&authorizer, check(|http| http.host.clear()), 7, 400),
        (&authorizer, CheckRequest::default(), 7, 400),
        (&stranger, check(|_| {}), 7, 403),
    ] {
        let answered = verdict(authorizer, &question).await;
        assert_eq!(answered.status.unwrap().code, code);
        let Some(HttpResponse::DeniedResponse(denied)) = answered.http_response else { panic!("allowed") };
        assert_eq!(denied.status.unwrap().code, status);
        for header in &denied.headers {
            assert_eq!(header.append_action, HeaderAppendAction::OverwriteIfExistsOrAdd as i32);
        }
        let has = |name: &str| denied.headers.iter().any(|header| header.header.as_ref().unwrap().key == name);
        assert_eq!(has("www-authenticate"), status == 401);
    }
    let mut fault = rotogate_core::reply::problem(http::StatusCode::SERVICE_UNAVAILABLE, None);
    let Some(HttpResponse::DeniedResponse(denied)) = spoken(&mut fault).http_response else { panic!("allowed") };
    assert_eq!(denied.status.unwrap().code, 503);
    // Both challenges of a route that takes both schemes arrive, in their order.
    let mut both = rotogate_core::reply::problem(http::StatusCode::UNAUTHORIZED, None);
    for challenge in ["Bearer", "DPoP algs=\"ES256\""] {
        both.headers_mut().append("www-authenticate", challenge.parse().unwrap());
    }
    let Some(HttpResponse::DeniedResponse(denied)) = spoken(&mut both).http_response else { panic!("allowed") };
    let challenges: Vec<_> = denied
        .headers
        .iter()
        .filter_map(|header| Some((header.header.as_ref()?, header.append_action)))
        .filter(|(header, _)| header.key == "www-authenticate")
        .map(|(header, action)| (std::str::from_utf8(&header.value).unwrap(), action))
        .collect();
    let [overwrite, append] = [HeaderAppendAction::OverwriteIfExistsOrAdd, HeaderAppendAction::AppendIfExistsOrAdd];
    assert_eq!(challenges, [("Bearer", overwrite as i32), ("DPoP algs=\"ES256\"", append as i32)]);
    // Only a verdict makes a permit; a status does not.
    let passing = spoken(&mut Reply::default());
    assert_ne!(passing.status.unwrap().code, 0);
}

#[tokio::test]
async fn n28_health_and_reflection_are_served() {
    let authorizer = Authorizer::new(&gate().await, Neighbour::Envoy);
    let health = |service: &str| tonic_health::pb::HealthCheckRequest { service: service.into() }.encode_to_vec();
    let path = "/grpc.health.v1.Health/Check";
    // Field 1, the status, is SERVING.
    for service in ["", "envoy.service.auth.v3.Authorization"] {
        assert_eq!(called(&authorizer, path, &health(service)).await.1, [8, 1], "{service}");
    }
    assert!(called(&authorizer, path, &health("other")).await.1.is_empty());
    let list = [0x3a, 1, b'*'];
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let (_, services) = called(&authorizer, path, &list).await;
    let services = String::from_utf8_lossy(&services).into_owned();
    assert!(services.contains("envoy.service.auth.v3.Authorization"), "{services}");
}
