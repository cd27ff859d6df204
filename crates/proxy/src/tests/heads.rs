use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body_util::{Empty, Full};
use rotogate_core::route::{RoutePolicy, UpstreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;
use crate::pool::RequestHolders;
use crate::{Proxy, ProxyError, Settings, Upstream};

async fn seen_headers(headers: &[(&'static str, &'static str)]) -> HeaderMap {
    let (address, seen) = mirror().await;
    let response = forward(&proxy(address), get("/x", headers)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    seen.remove(0).2
}

#[tokio::test]
async fn t11_the_host_and_the_path_that_were_checked_are_sent() {
    let (address, seen) = mirror().await;
    let app = proxy(address);
    let response = forward(&app, get("/a%2Fb/?q=%7e&x", &[])).await;
    assert_eq!(response.status(), StatusCode::OK);
    {
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0].1, "/a%2Fb/?q=%7e&x");
        assert_eq!(seen[0].2["host"], "api.test");
    }
    for path in ["/a//b", "/a/../b", "/%2e%2e/b", "/%61"] {
        let response = forward(&app, get(path, &[])).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_host_of_the_address_is_sent_where_the_upstream_wants_it() {
    let (address, seen) = mirror().await;
    let upstream = Upstream { preserve_host: false, ..upstream(&[&format!("http://{address}/v1/")]) };
    let proxy = Proxy::new(vec![upstream], Settings::default()).unwrap();
    assert_eq!(proxy.upstream("app"), Some(UpstreamId::new(0)));
    forward(&proxy, get("/x", &[])).await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].1, "/v1/x");
    assert_eq!(seen[0].2["host"], address.to_string().as_str());
    assert_eq!(seen[0].2["x-forwarded-host"], "api.test");
}

#[tokio::test]
async fn t5_connection_cannot_take_away_what_the_gate_set() {
    let headers = seen_headers(&[
        ("connection", "authorization, x-auth-subject, host, x-forwarded-for, x-hop, close"),
        ("authorization", "Bearer a"),
        ("x-auth-subject", "alice"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "websocket"),
        ("proxy-authorization", "Basic x"),
        ("te", "trailers, deflate"),
    ])
    .await;
    assert_eq!(headers["authorization"], "Bearer a");
    assert_eq!(headers["x-auth-subject"], "alice");
    assert_eq!(headers["host"], "api.test");
    assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
    assert_eq!(headers["te"], "trailers");
    assert_eq!(headers["connection"], "te");
    for gone in ["x-hop", "keep-alive", "upgrade", "proxy-authorization"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn t6_the_upstream_learns_where_the_request_came_from() {
    let headers =
        seen_headers(&[("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6"), ("x-real-ip", "6.6.6.6")]).await;
    assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-forwarded-host"], "api.test");
    assert!(!headers.contains_key("forwarded") && !headers.contains_key("x-real-ip"));
}

#[tokio::test]
async fn a_request_that_came_over_http_2_goes_out_as_http_1() {
    let (address, seen) = mirror().await;
    let mut request = get("https://api.test/x", &[("cookie", "a=1"), ("cookie", "b=2")]);
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove("host");
    assert_eq!(forward(&proxy(address), request).await.status(), StatusCode::OK);
    let seen = seen.lock().unwrap();
    assert_eq!((seen[0].1.as_str(), &seen[0].2["host"]), ("/x", &"api.test".parse().unwrap()));
    assert_eq!(seen[0].2["cookie"], "a=1; b=2");
}

#[tokio::test]
async fn hop_by_hop_headers_of_a_response_stay_here() {
    let address = http(|_| async {
        Response::builder()
            .header("keep-alive", "timeout=5")
            .header("connection", "x-hop, content-type, set-cookie")
            .header("x-hop", "1")
            .header("content-type", "text/x")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .header("upgrade", "h2c")
            .body(Full::from("hello"))
            .unwrap()
    })
    .await;
    let response = forward(&proxy(address), get("/", &[])).await;
    let headers = response.headers();
    for gone in ["keep-alive", "connection", "x-hop", "upgrade", "transfer-encoding"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers["content-type"], "text/x");
    assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!(text(response).await, "hello");
}

#[tokio::test]
async fn t50_a_response_head_has_256_fields_and_64_kib_at_most() {
    for (fields, each, is_good) in
        [(100, 10, true), (101, 10, true), (255, 10, true), (256, 10, false), (60, 1000, true), (250, 1000, false)]
    {
        let address = raw(move |_, mut stream| async move {
            read_head(&mut stream).await;
            let more: String = (0..fields).map(|n| format!("set-cookie: c{n}={}\r\n", "v".repeat(each))).collect();
            let head = format!("HTTP/1.1 200 OK\r\n{more}content-length: 2\r\n\r\nok");
            let _ = stream.write_all(head.as_bytes()).await;
        })
        .await;
        let response = forward(&proxy(address), get("/", &[])).await;
        let context = format!("{fields} fields of {each}");
        if is_good {
            assert_eq!(response.headers().get_all("set-cookie").iter().count(), fields, "{context}");
            assert_eq!(text(response).await, "ok", "{context}");
        } else {
            assert_eq!(response.extensions().get(), Some(&ProxyError::UpstreamProtocol), "{context}");
        }
    }
    // Over HTTP/2 the bound of 64 KiB is the same: hyper's own would be 16.
    for (kib, is_good) in [(15, true), (17, true), (60, true), (70, false)] {
        let address = raw(move |_, stream| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let head = Response::builder().header("x-long", "v".repeat(kib << 10)).body(()).unwrap();
                let _ = respond.send_response(head, true);
            }
        })
        .await;
        let response = forward(&proxy_with(&[&format!("h2c://{address}")], Settings::default()), get("/", &[])).await;
        assert_eq!(response.status().is_success(), is_good, "{kib} KiB");
    }
}

#[tokio::test]
async fn t50_a_request_with_a_response_of_many_fields_is_sent_once_and_its_connection_is_not_used_again() {
    let (sent, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let address = raw(move |connection, mut stream| {
        let sent = sent.clone();
        async move {
            loop {
                let head = read_head(&mut stream).await;
                let Some(method) = head.split(' ').next().filter(|method| !method.is_empty()) else { break };
                if method == "POST" {
                    let mut body = [0; 5];
                    stream.read_exact(&mut body).await.unwrap();
                    assert_eq!(&body, b"hello");
                }
                sent.send((connection, method.to_owned())).unwrap();
                let fields: String = (0..150).map(|n| format!("x-field-{n}: v\r\n")).collect();
                let (first, rest) = fields.split_at(fields.len() - 40);
                stream.write_all(format!("HTTP/1.1 200 OK\r\n{first}").as_bytes()).await.unwrap();
                let body = if method == "HEAD" { String::new() } else { "b".repeat(200_000) };
                let rest = format!("{rest}content-length: 200000\r\n\r\n{body}");
                stream.write_all(rest.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let proxy = proxy(address);
    for (number, method) in [Method::GET, Method::HEAD, Method::POST, Method::GET].into_iter().enumerate() {
        let length = if method == Method::HEAD { 0 } else { 200_000 };
        let body = if method == Method::POST { "hello" } else { "" };
        let response = forward(&proxy, request(method.clone(), "/", &[], Full::from(body))).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["x-field-149"], "v");
        assert_eq!(text(response).await.len(), length, "{method}");
        assert_eq!(asked.recv().await, Some((number, method.to_string())));
    }
    assert!(asked.try_recv().is_err(), "a request was sent again");
}

/// The response to `GET /` of an upstream that sends these bytes and closes.
async fn answered_by(bytes: &'static str) -> Response<crate::ProxyBody> {
    let address = raw(move |_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(bytes.as_bytes()).await;
    })
    .await;
    forward(&proxy(address), get("/", &[])).await
}

#[tokio::test]
async fn a_repeated_length_is_written_once_and_two_lengths_are_an_error() {
    for lengths in ["content-length: 2, 2", "content-length: 2\r\ncontent-length: 2", "Content-Length: 2 ,2,2"] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nok");
        let response = answered_by(bytes.leak()).await;
        assert_eq!(response.headers().get_all("content-length").iter().collect::<Vec<_>>(), ["2"], "{lengths}");
        assert_eq!(text(response).await, "ok", "{lengths}");
    }
    for lengths in ["content-length: 2, 3", "content-length: 2\r\ncontent-length: 3", "content-length: 2,"] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nok");
        let response = answered_by(bytes.leak()).await;
        assert_eq!(response.extensions().get(), Some(&ProxyError::UpstreamProtocol), "{lengths}");
    }
}

#[tokio::test]
async fn a_body_in_a_coding_that_the_client_does_not_hear_of_is_an_error() {
    for (coding, is_good) in [("gzip", false), ("gzip, chunked", false), ("chunked", true), ("identity", true)] {
        let body = if coding.ends_with("chunked") { "2\r\nok\r\n0\r\n\r\n" } else { "ok" };
        let response =
            answered_by(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\n\r\n{body}").leak()).await;
        if is_good {
            assert_eq!(text(response).await, "ok", "{coding}");
        } else {
            assert_eq!(response.extensions().get(), Some(&ProxyError::UpstreamProtocol), "{coding}");
        }
    }
}

#[tokio::test]
async fn a_field_of_an_old_server_is_understood() {
    let response = answered_by("HTTP/1.1 200 OK\r\nx-a : 1\r\nx-b: 2\r\n 3\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(response.headers()["x-a"], "1");
    // A folded value becomes one line (RFC 9112 §5.2).
    assert_eq!(response.headers()["x-b"].to_str().unwrap().split_whitespace().collect::<Vec<_>>(), ["2", "3"]);
    assert_eq!(text(response).await, "ok");
}

#[tokio::test]
async fn interim_responses_are_passed_over_and_an_unasked_switch_is_an_error() {
    let address = raw(|_, mut stream| async move {
        let head = read_head(&mut stream).await;
        let answer: &[u8] = if head.starts_with("GET /switch") {
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
        } else {
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
        };
        stream.write_all(answer).await.unwrap();
        read_head(&mut stream).await;
    })
    .await;
    let proxy = proxy(address);
    assert_eq!(forward(&proxy, get("/", &[])).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(forward(&proxy, get("/switch", &[])).await.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_tunnel_is_not_given_and_a_miswired_request_is_refused() {
    let (address, seen) = mirror().await;
    let app = proxy(address);
    let response = forward(&app, request(Method::CONNECT, "/x", &[], Empty::<bytes::Bytes>::new())).await;
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    let mut stranger = get("/", &[]);
    stranger.extensions_mut().clear();
    assert_eq!(forward(&app, stranger).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let Ok(response) =
        app.forward(UpstreamId::new(7), &RoutePolicy::default(), get("/", &[]), None, RequestHolders::default()).await;
    assert_eq!(response.extensions().get(), Some(&ProxyError::Miswired));
    let mut service = app;
    let response = tower::Service::call(&mut service, get("/", &[])).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_service_forwards_to_the_target_of_the_request() {
    let (address, seen) = mirror().await;
    let mut service = proxy(address);
    let mut request = get("/x", &[]);
    let route = rotogate_core::route::Route {
        listeners: Vec::new(),
        kuzzle: Vec::new(),
        calls: Vec::new(),
        id: "r".into(),
        hosts: vec![],
        methods: vec![],
        path: "/x".to_owned(),
        policy: RoutePolicy::default(),
        assertion_audience: None,
        exchange: None,
        upstream: Some(UpstreamId::new(0)),
    };
    let by = rotogate_core::policy::By { gate: rotogate_core::policy::GateId::next(), layer: true, defers: false };
    let permit = rotogate_core::policy::permit_own(&std::sync::Arc::new(route), by);
    request.extensions_mut().insert(permit.into_permitted());
    let response = tower::Service::call(&mut service, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn echo_shows_what_an_upstream_would_receive() {
    let app = proxy_with(&["echo:"], Settings::default());
    let body = Full::new(bytes::Bytes::from("h\u{e9}llo \u{1f980}"));
    let response =
        forward(&app, request(Method::POST, "/a/b?c=d", &[("x-a", "1"), ("x-a", "2"), ("te", "x")], body)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    let echo: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!((&echo["method"], &echo["path"], &echo["query"]), (&"POST".into(), &"/a/b".into(), &"c=d".into()));
    assert_eq!(echo["body"], "h\u{e9}llo \u{1f980}");
    assert_eq!(echo["truncated"], false);
    let headers: Vec<(String, String)> = serde_json::from_value(echo["headers"].clone()).unwrap();
    let of = |name: &str| headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
    assert_eq!((of("x-a"), of("x-forwarded-for"), of("te")), (vec!["1", "2"], vec!["192.0.2.7"], vec![]));

    let long = Full::new(bytes::Bytes::from("x".repeat(70_000)));
    let response = forward(&app, request(Method::PUT, "/", &[], long)).await;
    let echo: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(echo["truncated"], true);
    assert_eq!(echo["body"].as_str().unwrap().len(), 64 * 1024);
}
