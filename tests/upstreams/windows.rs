//! A4: clients that do not read do not delay others, although they share an HTTP/2 connection to the upstream.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use support::{CONFIG, Place, until};

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// Answers `/endless` with an endless body, and other paths with `ok`. Counts the sent pieces.
async fn upstream(pieces: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let pieces = Arc::clone(&pieces);
            let service = service_fn(move |request: Request<Incoming>| {
                let pieces = Arc::clone(&pieces);
                async move { Ok::<_, Infallible>(Response::new(body(request.uri().path(), pieces))) }
            });
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

fn body(path: &str, pieces: Arc<AtomicUsize>) -> Body {
    if !path.ends_with("/endless") {
        return Full::from("ok").boxed_unsync();
    }
    let endless = stream::repeat(Bytes::from_static(&[b'x'; 16 * 1024])).map(move |piece| {
        pieces.fetch_add(1, Ordering::Relaxed);
        Ok(Frame::data(piece))
    });
    StreamBody::new(endless).boxed_unsync()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_clients_that_do_not_read_leave_room_for_the_others_on_an_upstream_s_connection() {
    let pieces = Arc::<AtomicUsize>::default();
    let upstream = upstream(Arc::clone(&pieces)).await;
    let config = CONFIG.replace("urls = [\"echo:\"]", &format!("urls = [\"h2c://{upstream}\"]"));
    let place = Place::new(&config);
    let gate = place.start();
    let mut unread = Vec::new();
    // More clients than the connection windows of the workers can hold, if each leaves a stream window unread.
    for _ in 0..32 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        let mut client = socket.connect(gate.address).await.unwrap();
        client.write_all(b"GET /public/endless HTTP/1.1\r\nHost: gate.test\r\n\r\n").await.unwrap();
        let mut begun = [0; 15];
        client.read_exact(&mut begun).await.unwrap();
        assert_eq!(&begun, b"HTTP/1.1 200 OK");
        unread.push(client);
    }
    // Waits until every buffer on the way is full.
    let (mut before, mut same) = (0, 0);
    until("nothing moves any more", async || {
        let now = pieces.load(Ordering::Relaxed);
        same = if now == before { same + 1 } else { 0 };
        before = now;
        same == 10
    })
    .await;
    let asked = gate.call(Method::GET, "/public/x", &[], "");
    let answer =
        tokio::time::timeout(Duration::from_secs(20), asked).await.expect("everybody waits for who does not read");
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"ok"[..]));
    drop(unread);
}
