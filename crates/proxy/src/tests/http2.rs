//! Upstreams that speak HTTP/2: requests that they did not process, and responses that they cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;
use crate::{ProxyError, Settings};

/// How an upstream says that it did not process a request, or may have.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sign {
    /// `RST_STREAM` with this reason.
    Reset(Reason),
    /// `GOAWAY` whose last stream is this one, and then the end of the connection.
    GoAway(u32),
}

/// Reads the frames of a request to its end.
async fn read_request(stream: &mut TcpStream) {
    stream.read_exact(&mut [0; 24]).await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut head = [0; 9];
    // Of DATA and HEADERS, the last one has END_STREAM.
    while head[3] > 1 || head[4] & 1 == 0 || head[8] == 0 {
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
    }
}

/// An upstream that gives `sign` to the first requests, and answers all others with their body.
async fn refusing(sign: Sign, first: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let answered = Arc::new(AtomicUsize::new(0));
    let (counted, refused) = (Arc::clone(&answered), Arc::new(AtomicUsize::new(0)));
    let address = raw(move |number, mut stream| {
        let (answered, refused) = (Arc::clone(&counted), Arc::clone(&refused));
        async move {
            if let Sign::GoAway(last) = sign
                && number < first
            {
                read_request(&mut stream).await;
                let head = [0, 0, 8, 7, 0, 0, 0, 0, 0];
                stream.write_all(&[&head[..], &last.to_be_bytes(), &[0; 4]].concat()).await.unwrap();
                // Otherwise the connection stays open: the frame alone says that nothing was processed.
                while last == 0 && stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
                return;
            }
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let (answered, refused) = (Arc::clone(&answered), Arc::clone(&refused));
                tokio::spawn(async move {
                    let (mut body, mut whole) = (request.into_body(), Vec::new());
                    while let Some(Ok(data)) = body.data().await {
                        body.flow_control().release_capacity(data.len()).unwrap();
                        whole.extend_from_slice(&data);
                    }
                    if let Sign::Reset(reason) = sign
                        && refused.fetch_add(1, Ordering::SeqCst) < first
                    {
                        return respond.send_reset(reason);
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                    let mut stream = respond.send_response(Response::new(()), false).unwrap();
                    stream.send_data(whole.into(), true).unwrap();
                });
            }
        }
    })
    .await;
    (address, answered)
}

#[tokio::test]
async fn t45_what_an_http2_upstream_did_not_process_is_sent_again_once_whatever_the_method() {
    let small = "x".repeat(16 << 10);
    let large = "x".repeat((16 << 10) + 1);
    let bodies = [(Method::GET, ""), (Method::HEAD, ""), (Method::DELETE, ""), (Method::POST, ""), (Method::POST, "a")];
    let more = [(Method::PATCH, &*small), (Method::POST, &*large)];
    for sign in [Sign::Reset(Reason::REFUSED_STREAM), Sign::GoAway(0)] {
        for (method, body) in bodies.iter().chain(&more) {
            for first in [1, 2] {
                let (address, answered) = refusing(sign, first).await;
                let proxy = proxy_with(&[&format!("h2c://{address}")], Settings::default());
                let full = Full::new(Bytes::copy_from_slice(body.as_bytes()));
                let answer = forward(&proxy, request(method.clone(), "/", &[], full)).await;
                let context = format!("{sign:?} {first} {method} {}", body.len());
                // Once, and only what is kept of the body.
                if first == 1 && *body != large {
                    assert_eq!(answer.status(), StatusCode::OK, "{context}");
                    assert_eq!(answer.into_body().sent().1, 2, "{context}");
                } else {
                    assert_eq!(answer.extensions().get(), Some(&ProxyError::UpstreamReset), "{context}");
                }
                assert_eq!(answered.load(Ordering::SeqCst), usize::from(first == 1 && *body != large), "{context}");
            }
        }
    }
}

#[tokio::test]
async fn t45_a_body_that_is_sent_again_is_whole() {
    let (address, _) = refusing(Sign::Reset(Reason::REFUSED_STREAM), 1).await;
    let proxy = proxy_with(&[&format!("h2c://{address}")], Settings::default());
    let frames =
        ["one ", "two ", "three"].map(|text| Ok::<_, std::convert::Infallible>(http_body::Frame::data(text.into())));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
    assert_eq!(text(forward(&proxy, request(Method::POST, "/", &[], body)).await).await, "one two three");
}

#[tokio::test]
async fn t45_what_may_have_been_processed_is_sent_again_only_if_it_is_idempotent_and_has_no_body() {
    for (sign, repeated) in
        [(Sign::Reset(Reason::CANCEL), false), (Sign::Reset(Reason::INTERNAL_ERROR), false), (Sign::GoAway(1), true)]
    {
        for (method, is_idempotent) in [(Method::GET, true), (Method::POST, false)] {
            let (address, answered) = refusing(sign, 1).await;
            let proxy = proxy_with(&[&format!("h2c://{address}")], Settings::default());
            let answer = forward(&proxy, request(method.clone(), "/", &[], Full::<Bytes>::default())).await;
            let again = repeated && is_idempotent;
            assert_eq!(answer.status() == StatusCode::OK, again, "{sign:?} {method}");
            assert_eq!(answered.load(Ordering::SeqCst), usize::from(again), "{sign:?} {method}");
        }
    }
}

#[tokio::test]
async fn t46_a_response_that_any_reset_cuts_is_cut_for_the_client() {
    let reasons = [
        None,
        Some(Reason::NO_ERROR),
        Some(Reason::CANCEL),
        Some(Reason::INTERNAL_ERROR),
        Some(Reason::REFUSED_STREAM),
        Some(Reason::ENHANCE_YOUR_CALM),
    ];
    for (reason, has_trailers) in reasons.iter().flat_map(|reason| [(*reason, false), (*reason, true)]) {
        let address = raw(move |_, stream| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let is_last = reason.is_none() && !has_trailers;
            stream.send_data("line 1\n".into(), is_last).unwrap();
            tokio::spawn(async move {
                // The data is on its way before the reset drops what waits.
                for _ in 0..64 {
                    tokio::task::yield_now().await;
                }
                match reason {
                    Some(reason) => stream.send_reset(reason),
                    None if has_trailers => stream.send_trailers(HeaderMap::new()).unwrap(),
                    None => {}
                }
            });
            while connection.accept().await.is_some() {}
        })
        .await;
        let proxy = proxy_with(&[&format!("h2c://{address}")], Settings::default());
        let answer = forward(&proxy, get("/", &[])).await;
        if answer.status() == StatusCode::OK {
            let read = answer.into_body().collect().await;
            assert_eq!(read.is_ok(), reason.is_none(), "{reason:?} {has_trailers}");
        } else {
            assert!(reason.is_some(), "{reason:?}");
        }
    }
}
