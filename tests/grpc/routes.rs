//! Calls to an upstream behind `h2c://`: forwarded calls, and the form of refusals and failures.

use futures_util::StreamExt;
use http::Request;
use http::uri::PathAndQuery;
use http_body_util::Full;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::Code;
use tonic_prost::ProstCodec;

use super::client::{call, framed, gate, grpc, login, send};
use super::upstream::{self, CHAT, COUNT, MANY, UNARY};

fn route(urls: &str, more: &str) -> String {
    format!(
        "[[upstreams]]\nname = \"rpc\"\nurls = [\"{urls}\"]\n{more}\n\
         [[routes]]\npath = \"/test.Echo/{{method}}\"\nupstream = \"rpc\"\n"
    )
}

fn with_token<M>(message: M, token: &str) -> tonic::Request<M> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn a_unary_call_goes_through_with_the_callers_identity() {
    let upstream = upstream::start().await;
    let (_place, gate) = gate(&route(&format!("h2c://{upstream}"), ""));
    let token = login(&gate).await.token;
    let mut request = with_token("hello".to_owned(), &token);
    request.metadata_mut().insert("x-auth-subject", "mallory".parse().unwrap());
    request.metadata_mut().insert_bin("x-auth-subject-bin", tonic::metadata::MetadataValue::from_bytes(b"mallory"));
    request.metadata_mut().insert_bin("authorization-bin", tonic::metadata::MetadataValue::from_bytes(b"mallory"));
    request.metadata_mut().insert_bin("x-mine-bin", tonic::metadata::MetadataValue::from_bytes(&[0, 1, 255]));
    let answer = call::<_, String>(gate.address, UNARY, request).await.unwrap();
    assert_eq!(answer.metadata().get("x-first").unwrap(), "said");
    assert_eq!(answer.metadata().get_bin("x-first-bin").unwrap().to_bytes().unwrap(), &[0u8, 255][..]);
    let text = answer.into_inner();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "hello");
    for expected in ["te: trailers", "x-auth-client: knox", "x-mine-bin: AAH/"] {
        assert!(lines.contains(&expected), "{expected}: {text}");
    }
    for absent in ["authorization:", "authorization-bin:", "x-auth-subject-bin:", "connection:", "host:"] {
        assert!(!lines.iter().any(|line| line.starts_with(absent)), "{absent} {text}");
    }
    assert!(!text.contains("mallory"));
}

#[tokio::test]
async fn a_server_stream_goes_through_whole() {
    let upstream = upstream::start().await;
    let (_place, gate) = gate(&route(&format!("h2c://{upstream}"), ""));
    let token = login(&gate).await.token;
    let mut grpc = grpc(gate.address);
    grpc.ready().await.unwrap();
    let request = with_token("x".repeat(500), &token);
    let codec = ProstCodec::<String, String>::default();
    let mut stream =
        grpc.server_streaming(request, PathAndQuery::from_static(COUNT), codec).await.unwrap().into_inner();
    for n in 0..MANY {
        assert!(stream.next().await.unwrap().unwrap().starts_with(&format!("{n} x")));
    }
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn both_sides_stream_at_once_and_the_trailers_come_last() {
    let upstream = upstream::start().await;
    let (_place, gate) = gate(&route(&format!("h2c://{upstream}"), ""));
    let token = login(&gate).await.token;
    let (say, mut said) = mpsc::channel(1);
    let requests = futures_util::stream::poll_fn(move |cx| said.poll_recv(cx));
    let mut grpc = grpc(gate.address);
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<String, String>::default();
    let request = with_token(requests, &token);
    let mut answers = grpc.streaming(request, PathAndQuery::from_static(CHAT), codec).await.unwrap().into_inner();
    for n in 0..3 {
        // The answer arrives before the next message is sent: the gate does not buffer the body.
        say.send(format!("{n}")).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), format!("re: {n}"));
    }
    drop(say);
    let end = answers.next().await.unwrap().unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::DataLoss, "100 % über"));
    assert_eq!(end.metadata().get("x-tail").unwrap(), "7");
}

#[tokio::test]
async fn t17_a_stream_whose_session_is_revoked_ends_with_a_status() {
    let upstream = upstream::start().await;
    let (_place, gate) = gate(&route(&format!("h2c://{upstream}"), ""));
    let token = login(&gate).await;
    let (say, mut said) = mpsc::channel(1);
    let requests = futures_util::stream::poll_fn(move |cx| said.poll_recv(cx));
    let mut grpc = grpc(gate.address);
    grpc.ready().await.unwrap();
    let request = with_token(requests, &token.token);
    let codec = ProstCodec::<String, String>::default();
    let mut answers = grpc.streaming(request, PathAndQuery::from_static(CHAT), codec).await.unwrap().into_inner();
    say.send("one".to_owned()).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "re: one");
    let revoked = gate.form("/connect/revocation", &[("client_id", "knox"), ("token", &token.refresh_token)]).await;
    assert_eq!(revoked.status, 200);
    let end = answers.next().await.unwrap().unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::Unauthenticated, "the access token is no longer valid"));
    drop(say);
}

#[tokio::test]
async fn a_method_of_the_upstream_that_the_gate_does_not_know_is_the_upstreams_affair() {
    let upstream = upstream::start().await;
    let (_place, gate) = gate(&route(&format!("h2c://{upstream}"), ""));
    let token = login(&gate).await.token;
    let status = call::<_, String>(gate.address, "/test.Echo/None", with_token(String::new(), &token)).await;
    assert_eq!(status.unwrap_err().message(), "the upstream knows no such method");
}

#[tokio::test]
async fn t17_without_a_token_a_call_is_unauthenticated_in_trailers_with_http_200() {
    let upstream = upstream::start().await;
    let (_place, gate) = gate(&route(&format!("h2c://{upstream}"), ""));
    let request = Request::post(gate.url(UNARY)).header("content-type", "application/grpc").header("te", "trailers");
    let (answer, trailers) = send(request.body(Full::new(framed(&"hello".to_owned()))).unwrap()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "16");
    assert!(answer.body().is_empty() && trailers.is_none());
    let status = call::<_, String>(gate.address, UNARY, tonic::Request::new(String::new())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = call::<_, String>(gate.address, UNARY, with_token(String::new(), "a.b.c")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn t17_a_route_of_the_dialect_refuses_in_its_words() {
    let upstream = upstream::start().await;
    let more = route(&format!("h2c://{upstream}"), "").replace("[[routes]]\n", "[[routes]]\ndialect = \"knox\"\n");
    let (_place, gate) = gate(&more);
    let status = call::<_, String>(gate.address, UNARY, tonic::Request::new(String::new())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "send an access token as metadata: `authorization: Bearer <access token>`");
    let status = call::<_, String>(gate.address, UNARY, with_token(String::new(), "a.b.c")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "the access token is invalid"));
    // gRPC-Web is another protocol, whose clients read the status of HTTP.
    let request = Request::post(gate.url(UNARY)).header("content-type", "application/grpc-web");
    assert_eq!(send(request.body(Full::default()).unwrap()).await.0.status(), 401);
}

#[tokio::test]
async fn an_upstream_that_is_gone_is_unavailable() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for scheme in ["h2c", "http"] {
        let (_place, gate) = gate(&route(&format!("{scheme}://{gone}"), ""));
        let token = login(&gate).await.token;
        let status = call::<_, String>(gate.address, UNARY, with_token(String::new(), &token)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{scheme}: {status:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_was_restarted_is_connected_to_again() {
    // The listener and the connections live in this runtime.
    let first = tokio::runtime::Runtime::new().unwrap();
    let upstream = first.spawn(upstream::start()).await.unwrap();
    let (_place, gate) = gate(&route(&format!("h2c://{upstream}"), ""));
    let token = login(&gate).await.token;
    let ask = || call::<_, String>(gate.address, UNARY, with_token("hello".to_owned(), &token));
    assert!(ask().await.is_ok());
    first.shutdown_background();
    while ask().await.is_ok() {}
    assert_eq!(ask().await.unwrap_err().code(), Code::Unavailable);
    let again = loop {
        // The old server may still be ending.
        match TcpListener::bind(upstream).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    upstream::serve(again);
    assert!(ask().await.is_ok());
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_a_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move { while stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {} });
        }
    });
    let (_place, gate) = gate(&route(&format!("h2c://{address}"), "head_timeout = \"100ms\""));
    let token = login(&gate).await.token;
    let status = call::<_, String>(gate.address, UNARY, with_token(String::new(), &token)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}
