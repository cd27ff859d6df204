use rotogate_core::route::{RoutePolicy, UpstreamId};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body, Frame};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;
use crate::body::Progress;
use crate::head_timeout::HeadTimeout;
use crate::pool::RequestHolders;
use crate::{BodyError, Proxy, ProxyError, Settings};

const CHUNK: usize = 64 * 1024;
const CHUNKS: u64 = 1024;
/// More bytes than fit into all buffers of sockets and protocol. The whole body is 32 times as long.
const IN_FLIGHT: u64 = 2 << 20;

/// A body that is always ready, and counts its bytes.
struct Eager {
    left: u64,
    given: Arc<AtomicU64>,
}

impl Body for Eager {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.given.fetch_add(CHUNK as u64, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; CHUNK])))))
    }
}

#[tokio::test]
async fn a_request_body_is_taken_no_faster_than_the_upstream_reads() {
    let given = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&given);
    let address = raw(move |_, mut stream| {
        let given = Arc::clone(&count);
        async move {
            assert!(read_head(&mut stream).await.contains("transfer-encoding: chunked"));
            let (mut read, mut most) = (0u64, 0);
            let mut buffer = vec![0; CHUNK];
            while read < CHUNK as u64 * CHUNKS {
                most = most.max(given.load(Ordering::SeqCst).saturating_sub(read));
                read += stream.read(&mut buffer).await.unwrap() as u64;
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-most: {most}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
        }
    })
    .await;
    let proxy = proxy_with_small_sockets(address);
    let response = forward(&proxy, request(Method::POST, "/", &[], Eager { left: CHUNKS, given })).await;
    assert_eq!(response.status(), StatusCode::OK);
    let most: u64 = response.headers()["x-most"].to_str().unwrap().parse().unwrap();
    assert!(most < IN_FLIGHT, "{most} bytes were held");
}

#[tokio::test]
async fn a_response_body_is_taken_no_faster_than_the_client_reads() {
    let given = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&given);
    let address = http(move |_| {
        let given = Arc::clone(&count);
        async move { http::Response::new(Eager { left: CHUNKS, given }) }
    })
    .await;
    let mut response = forward(&proxy_with_small_sockets(address), get("/", &[])).await;
    let (mut read, mut most) = (0u64, 0);
    while let Some(frame) = response.body_mut().frame().await {
        most = most.max(given.load(Ordering::SeqCst).saturating_sub(read));
        read += frame.unwrap().into_data().unwrap().len() as u64;
    }
    assert_eq!(read, CHUNK as u64 * CHUNKS);
    assert!(most < IN_FLIGHT, "{most} bytes were held");
}

#[tokio::test]
async fn t44_an_answer_before_the_body_was_read_reaches_the_client_whatever_resets_the_connection() {
    // The upstream closes with the body unread, which resets the connection.
    let address = raw(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
    })
    .await;
    // One failure would eject the address, and both would be out of service.
    let mut upstream = upstream(&[&format!("http://{address}")]);
    upstream.max_failures = 1;
    let proxy = Proxy::new(vec![upstream], Settings::default()).unwrap();
    for number in 0..200 {
        let body = Full::new(Bytes::from(vec![7; CHUNK << (number % 5)]));
        let answer = forward(&proxy, request(Method::POST, "/", &[], body)).await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{number}");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "no", "{number}");
    }
    // Without an answer, the reset is the answer.
    let address = raw(|_, mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let body = Full::new(Bytes::from(vec![7; CHUNK << 4]));
    let answer = forward(&self::proxy(address), request(Method::POST, "/", &[], body)).await;
    assert_eq!(answer.extensions().get(), Some(&ProxyError::UpstreamReset));
}

#[tokio::test]
async fn both_bodies_flow_at_once() {
    let address = http(|request| async move { http::Response::new(request.into_body()) }).await;
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    let mut response = forward(&proxy(address), request(Method::POST, "/", &[], body)).await;
    for text in ["one", "two", "three"] {
        sender.send_data(Bytes::from(text)).await.unwrap();
        let back = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(back, text);
    }
    drop(sender);
    assert!(response.body_mut().frame().await.is_none());
}

#[tokio::test]
async fn trailers_come_through_in_both_directions() {
    let address = http(|request: http::Request<hyper::body::Incoming>| async move {
        let trailers = request.into_body().collect().await.unwrap().trailers().cloned().unwrap();
        let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from("x"))), Ok(Frame::trailers(trailers))];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        http::Response::builder().header("trailer", "x-sum").body(body).unwrap()
    })
    .await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("9"));
    let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from("x"))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request = request(Method::POST, "/", &[("trailer", "x-sum"), ("te", "trailers")], body);
    let response = forward(&proxy(address), request).await;
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "9");
}

#[tokio::test]
async fn t7_a_body_has_one_framing_and_the_true_length() {
    let (address, seen) = mirror().await;
    let proxy = proxy(address);
    let full = || Full::new(Bytes::from("hello"));
    let cases = [
        request(Method::POST, "/", &[("content-length", "3"), ("transfer-encoding", "chunked")], full().boxed()),
        request(Method::GET, "/", &[], full().boxed()),
        request(Method::POST, "/", &[("content-length", "9")], Full::<Bytes>::default().boxed()),
        request(Method::GET, "/", &[], Full::<Bytes>::default().boxed()),
    ];
    for case in cases {
        assert_eq!(forward(&proxy, case).await.status(), StatusCode::OK);
    }
    for method in [Method::POST, Method::GET] {
        let frames = ["hel", "lo"].map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        assert_eq!(text(forward(&proxy, request(method, "/", &[("content-length", "2")], body)).await).await, "hello");
    }
    let seen = seen.lock().unwrap();
    let framing = |at: usize| {
        let headers: &HeaderMap = &seen[at].2;
        let of = |name| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap().to_owned());
        (of("content-length"), of("transfer-encoding"))
    };
    let length = |n: &str| (Some(n.to_owned()), None);
    let chunked = (None, Some("chunked".to_owned()));
    assert_eq!((framing(0), framing(1), framing(2), framing(3)), (length("5"), length("5"), length("0"), (None, None)));
    assert_eq!((framing(4), framing(5)), (chunked.clone(), chunked));
}

#[tokio::test]
async fn a_body_longer_than_the_route_allows_is_a_413() {
    let (address, seen) = mirror().await;
    let proxy = proxy(address);
    let policy = RoutePolicy { max_body: Some(5), ..RoutePolicy::default() };
    let send = |body| {
        proxy.forward(
            UpstreamId::new(0),
            &policy,
            request(Method::POST, "/", &[], body),
            None,
            RequestHolders::default(),
        )
    };
    let Ok(response) = send(Full::new(Bytes::from("12345"))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let Ok(response) = send(Full::new(Bytes::from("123456"))).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(seen.lock().unwrap().len(), 1, "the upstream saw nothing of what said its length");

    let frames = ["123", "456"].map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let Ok(response) = proxy
        .forward(UpstreamId::new(0), &policy, request(Method::POST, "/", &[], body), None, RequestHolders::default())
        .await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(response.extensions().get(), Some(&ProxyError::TooLarge));
}

#[tokio::test]
async fn a_client_that_stalls_in_its_body_is_a_408_and_one_that_breaks_off_a_400() {
    let (address, _) = mirror().await;
    let settings = Settings { idle_timeout: Duration::from_millis(50), ..Settings::default() };
    for url in [format!("http://{address}"), "echo:".to_owned()] {
        let proxy = proxy_with(&[&url], settings.clone());
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
        sender.send_data(Bytes::from("x")).await.unwrap();
        let response = forward(&proxy, request(Method::POST, "/", &[], body)).await;
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT, "{url}");
        drop(sender);

        let frames = [Ok(Frame::data(Bytes::from("x"))), Err(std::io::Error::other("gone"))];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let response = forward(&proxy, request(Method::POST, "/", &[], body)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{url}");
    }
}

#[tokio::test]
async fn a16_a_client_that_stalls_is_not_charged_to_the_upstream_that_waits_for_it() {
    let address = raw(|_, mut stream| async move { while stream.read_u8().await.is_ok() {} }).await;
    let short = Duration::from_millis(50);
    let settings = Settings { head_timeout: short, idle_timeout: 5 * short, ..Settings::default() };
    let proxy = proxy_with(&[&format!("http://{address}")], settings);
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    sender.send_data(Bytes::from("x")).await.unwrap();
    let response = forward(&proxy, request(Method::POST, "/", &[], body)).await;
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(response.extensions().get(), Some(&ProxyError::ClientIdle), "no failure of the address");
    // The whole body has arrived: the upstream is late.
    let response = forward(&proxy, request(Method::POST, "/", &[], Full::new(Bytes::from("x")))).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn an_upstream_that_stalls_in_its_body_ends_the_body_with_an_error() {
    let address = raw(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        while stream.read_u8().await.is_ok() {}
    })
    .await;
    let settings = Settings { idle_timeout: Duration::from_millis(50), ..Settings::default() };
    let mut response = forward(&proxy_with(&[&format!("http://{address}")], settings), get("/", &[])).await;
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    assert!(matches!(response.body_mut().frame().await, Some(Err(BodyError::Idle))));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    let address = raw(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await.unwrap();
    })
    .await;
    let response = forward(&proxy(address), get("/", &[])).await;
    assert!(matches!(response.into_body().collect().await, Err(BodyError::Broken(_))));
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_moves_outlives_the_head_timeout() {
    let (limit, step) = (Duration::from_secs(10), Duration::from_secs(9));
    let progress = Progress::counted();
    let moving = async {
        for _ in 0..20 {
            tokio::time::sleep(step).await;
            progress.advance();
        }
    };
    assert_eq!(HeadTimeout { limit, progress: &progress }.within(moving).await, Some(()));
    assert_eq!(HeadTimeout { limit, progress: &progress }.within(tokio::time::sleep(2 * limit)).await, None);
    let moving_once = async {
        tokio::time::sleep(step).await;
        progress.advance();
        std::future::pending::<()>().await;
    };
    assert_eq!(HeadTimeout { limit, progress: &progress }.within(moving_once).await, None);
    progress.await_client();
    assert_eq!(HeadTimeout { limit, progress: &progress }.within(tokio::time::sleep(3 * limit)).await, Some(()));
}
