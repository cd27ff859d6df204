use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use super::support::*;
use crate::{ProxyError, Settings};

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn an_upstream_that_is_down_is_a_502_without_detail() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let response = forward(&proxy(address), get("/", &[])).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.extensions().get(), Some(&ProxyError::Unreachable));
    assert_eq!(text(response).await, r#"{"type":"about:blank","title":"Bad Gateway","status":502}"#);
}

#[tokio::test]
async fn an_upstream_that_does_not_speak_http_is_a_502() {
    let address = raw(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await.unwrap();
    })
    .await;
    let response = forward(&proxy(address), get("/", &[])).await;
    assert_eq!(response.extensions().get(), Some(&ProxyError::UpstreamProtocol));
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_a_504() {
    let address = raw(|_, mut stream| async move { while stream.read_u8().await.is_ok() {} }).await;
    let settings = Settings { head_timeout: SHORT, ..Settings::default() };
    let proxy = proxy_with(&[&format!("http://{address}")], settings);
    let response = forward(&proxy, get("/", &[])).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    let response = forward(&proxy, request(Method::POST, "/", &[], Full::new(Bytes::from("x")))).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

/// Answers the first request of each connection. Closes the first `dying` connections after reading their second
/// request. To the sender, they appear to have died while idle.
async fn forgetful(dying: usize) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let address = raw(move |number, mut stream| {
        let count = Arc::clone(&count);
        async move {
            for served in 0.. {
                if !read_head(&mut stream).await.ends_with("\r\n\r\n") {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                if served > 0 && number < dying {
                    return;
                }
                answer_empty(&mut stream).await;
            }
        }
    })
    .await;
    (address, requests)
}

#[tokio::test]
async fn a_request_that_may_be_repeated_survives_a_connection_that_died() {
    let (address, requests) = forgetful(1).await;
    let proxy = proxy(address);
    for _ in 0..2 {
        let response = forward(&proxy, get("/", &[])).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_request_that_may_not_be_repeated_is_sent_once() {
    for body in ["", "x"] {
        let (address, requests) = forgetful(1).await;
        let proxy = proxy(address);
        forward(&proxy, get("/", &[])).await.into_body().collect().await.unwrap();
        let method = if body.is_empty() { Method::POST } else { Method::PUT };
        let response = forward(&proxy, request(method, "/", &[], Full::new(Bytes::from(body)))).await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(requests.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn a_request_is_repeated_only_once() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let address = raw(move |_, mut stream| {
        let count = Arc::clone(&count);
        async move {
            read_head(&mut stream).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let response = forward(&proxy(address), get("/", &[])).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn connections_are_used_again() {
    let (opened, mut connections) = mpsc::unbounded_channel();
    let address = raw(move |number, mut stream| {
        let _ = opened.send(number);
        async move {
            while read_head(&mut stream).await.ends_with("\r\n\r\n") {
                answer_empty(&mut stream).await;
            }
        }
    })
    .await;
    let proxy = proxy(address);
    for _ in 0..5 {
        forward(&proxy, get("/", &[])).await.into_body().collect().await.unwrap();
    }
    assert_eq!(connections.try_recv(), Ok(0));
    assert!(connections.try_recv().is_err());
}

#[tokio::test]
async fn t8_a_connection_with_an_answer_that_was_not_read_is_not_used_again() {
    let (opened, mut connections) = mpsc::unbounded_channel();
    let address = raw(move |number, mut stream| {
        let _ = opened.send(number);
        async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
            assert!(stream.read_u8().await.is_err(), "a second request came");
        }
    })
    .await;
    let proxy = proxy(address);
    for number in 0..3 {
        let response = forward(&proxy, get("/", &[])).await;
        assert_eq!(response.status(), StatusCode::OK);
        drop(response);
        assert_eq!(connections.recv().await, Some(number));
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_to_the_upstream() {
    let (arrived, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell_arrived, tell_gone) = (Arc::clone(&arrived), Arc::clone(&gone));
    let upstream = raw(move |_, mut stream| {
        let (arrived, gone) = (Arc::clone(&tell_arrived), Arc::clone(&tell_gone));
        async move {
            read_head(&mut stream).await;
            arrived.notify_one();
            while stream.read_u8().await.is_ok() {}
            gone.notify_one();
        }
    })
    .await;
    let gate = serve(proxy(upstream)).await;
    let mut client = TcpStream::connect(gate).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    arrived.notified().await;
    drop(client);
    gone.notified().await;
}

#[tokio::test]
async fn head_and_framing_come_through_a_real_connection() {
    let upstream = http(|request: Request<_>| async move {
        let length = request.headers().get("content-length").cloned();
        let mut response = Response::new(Full::from("hello"));
        if let Some(length) = length {
            response.headers_mut().insert("x-length", length);
        }
        response
    })
    .await;
    let gate = serve(proxy(upstream)).await;
    let mut client = TcpStream::connect(gate).await.unwrap();
    client.write_all(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 5"), "{head}");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200") && rest.ends_with("\r\n\r\nhello"), "{rest}");
    assert!(!rest.contains("x-length"));
}

#[tokio::test]
async fn the_answer_to_a_request_without_a_body_needs_no_timer_of_it() {
    let settings = Settings { idle_timeout: Duration::ZERO, ..Settings::default() };
    let (address, _) = mirror().await;
    let proxy = proxy_with(&[&format!("http://{address}")], settings);
    let response = forward(&proxy, request(Method::DELETE, "/", &[], Empty::new())).await;
    assert_eq!(response.status(), StatusCode::OK);
}
