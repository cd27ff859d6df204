//! Several addresses, over real sockets.

use rotogate_core::route::UpstreamId;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ::support::until;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::support::*;
use crate::{HealthCheck, Proxy, ProxyError, Settings, Upstream};

/// An address that no socket listens on.
fn dead() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn urls(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(|address| format!("http://{address}")).collect()
}

fn proxy_to(addresses: &[SocketAddr], change: impl FnOnce(&mut Upstream)) -> Proxy {
    let urls = urls(addresses);
    let mut upstream = upstream(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    change(&mut upstream);
    Proxy::new(vec![upstream], Settings::default()).unwrap()
}

/// Advances the time at once, and lets the tasks that wait for it run.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::task::yield_now().await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_request_of_which_nothing_was_written_goes_to_another_address_whatever_it_is() {
    let (address, seen) = mirror().await;
    fastrand::seed(7);
    let proxy = proxy_to(&[dead(), address, dead()], |_| {});
    for _ in 0..30 {
        let body = Full::new(Bytes::from("hello"));
        let response = forward(&proxy, request(Method::POST, "/", &[], body)).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(response).await, "hello");
    }
    assert_eq!(seen.lock().unwrap().len(), 30);
    let aside: Vec<bool> =
        proxy.0.pool(UpstreamId::new(0)).unwrap().all().iter().map(|address| address.is_ejected()).collect();
    assert_eq!(aside, [true, false, true]);
}

#[tokio::test]
async fn a_request_that_was_written_is_sent_again_only_if_it_may_be_repeated() {
    let lost = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lost);
    let breaks = raw(move |_, mut stream| {
        let count = Arc::clone(&count);
        async move {
            read_head(&mut stream).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let (good, seen) = mirror().await;
    let proxy = proxy_to(&[breaks, good], |upstream| upstream.max_failures = 1000);
    for _ in 0..20 {
        assert_eq!(forward(&proxy, get("/", &[])).await.status(), StatusCode::OK);
    }
    assert_eq!(seen.lock().unwrap().len(), 20);
    let before = lost.load(Ordering::SeqCst);
    assert!(before > 0, "it was never asked");
    let mut refused = 0;
    for _ in 0..40 {
        let response = forward(&proxy, request(Method::POST, "/", &[], Full::new(Bytes::new()))).await;
        refused += usize::from(response.status() == StatusCode::BAD_GATEWAY);
    }
    assert!(refused > 0);
    assert_eq!((lost.load(Ordering::SeqCst) - before, seen.lock().unwrap().len()), (refused, 60 - refused));
}

#[tokio::test]
async fn an_address_that_breaks_every_connection_is_put_aside() {
    let breaks = raw(|_, mut stream| async move { drop(read_head(&mut stream).await) }).await;
    let (good, _) = mirror().await;
    let proxy = proxy_to(&[breaks, good], |_| {});
    for _ in 0..100 {
        assert_eq!(forward(&proxy, get("/", &[])).await.status(), StatusCode::OK);
    }
    assert!(proxy.0.pool(UpstreamId::new(0)).unwrap().all()[0].is_ejected());
    assert!(!proxy.0.pool(UpstreamId::new(0)).unwrap().all()[1].is_ejected());
}

#[tokio::test]
async fn what_an_upstream_answers_is_no_failure_of_its_address() {
    let fails = http(|_| async {
        Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR).body(Full::<Bytes>::default()).unwrap()
    })
    .await;
    let proxy = proxy_to(&[fails, dead()], |_| {});
    for _ in 0..50 {
        assert_eq!(forward(&proxy, get("/", &[])).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert!(!proxy.0.pool(UpstreamId::new(0)).unwrap().all()[0].is_ejected());
}

#[tokio::test]
async fn a_request_counts_until_its_answer_ends_or_is_dropped_and_beyond_the_bound_is_a_503() {
    let address = http(|_| async { Response::new(Full::new(Bytes::from("hello"))) }).await;
    let proxy = proxy_to(&[address], |upstream| {
        (upstream.max_requests, upstream.queue_timeout) = (1, Duration::from_millis(20));
    });
    let load = || proxy.0.pool(UpstreamId::new(0)).unwrap().all()[0].load();
    let mut first = forward(&proxy, get("/", &[])).await;
    assert_eq!(load(), 1);
    let second = forward(&proxy, get("/", &[])).await;
    assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(second.headers()["retry-after"], "1");
    assert_eq!(second.extensions().get(), Some(&ProxyError::Overloaded));
    let grpc =
        forward(&proxy, request(Method::POST, "/", &[("content-type", "application/grpc")], Full::<Bytes>::default()));
    assert_eq!(grpc.await.headers()["grpc-status"], "14");
    while first.body_mut().frame().await.is_some() {}
    assert_eq!(load(), 0, "the body is at its end");
    let third = forward(&proxy, get("/", &[])).await;
    assert_eq!((third.status(), load()), (StatusCode::OK, 1));
    drop(third);
    assert_eq!(load(), 0);
}

#[tokio::test]
async fn an_old_connection_takes_no_new_request_and_ends_with_what_it_carries() {
    let (opened, rest_is_due) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, due) = (Arc::clone(&opened), Arc::clone(&rest_is_due));
    let address = raw(move |_, mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        let due = Arc::clone(&due);
        async move {
            while read_head(&mut stream).await.ends_with("\r\n\r\n") {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na").await.unwrap();
                due.notified().await;
                stream.write_all(b"b").await.unwrap();
            }
        }
    })
    .await;
    let age = Duration::from_secs(5);
    let proxy = proxy_to(&[address], |upstream| upstream.max_connection_age = age);
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let mut response = forward(&proxy, get("/", &[])).await;
        assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        pass(2 * age).await;
        rest_is_due.notify_one();
        assert_eq!(text(response).await, "b");
        numbers.push(opened.load(Ordering::SeqCst));
    }
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn checks_put_an_address_aside_and_bring_it_back() {
    let well = Arc::new(AtomicBool::new(true));
    let says = Arc::clone(&well);
    let checked = http(move |request: http::Request<_>| {
        let well = says.load(Ordering::SeqCst) || request.uri().path() != "/healthz";
        let status = if well { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE };
        async move { Response::builder().status(status).body(Full::<Bytes>::default()).unwrap() }
    })
    .await;
    let other = http(|_| async { Response::new(Full::<Bytes>::default()) }).await;
    let check = HealthCheck { interval: Duration::from_millis(10), ..HealthCheck::new("/healthz".parse().unwrap()) };
    let proxy = proxy_to(&[checked, other], |upstream| upstream.health = Some(check));
    let address = Arc::clone(&proxy.0.pool(UpstreamId::new(0)).unwrap().all()[0]);
    assert!(!address.is_ejected());
    well.store(false, Ordering::SeqCst);
    until("it is put aside", async || address.is_ejected()).await;
    for _ in 0..20 {
        assert_eq!(forward(&proxy, get("/", &[])).await.status(), StatusCode::OK, "only the other is asked");
    }
    well.store(true, Ordering::SeqCst);
    until("it is back", async || !address.is_ejected()).await;
}

#[tokio::test]
async fn a_check_that_is_not_answered_in_time_is_a_bad_one() {
    let hangs = raw(|_, mut stream| async move { while stream.read_u8().await.is_ok() {} }).await;
    let tick = Duration::from_millis(10);
    let check = HealthCheck { interval: tick, timeout: tick, ..HealthCheck::new("/".parse().unwrap()) };
    let proxy = proxy_to(&[hangs], |upstream| upstream.health = Some(check));
    let address = Arc::clone(&proxy.0.pool(UpstreamId::new(0)).unwrap().all()[0]);
    until("it is put aside", async || address.is_ejected()).await;
}
