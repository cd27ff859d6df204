//! An upstream that takes a moment for each answer, like a server with a database, so that requests are in flight.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;

const MOMENT: Duration = Duration::from_millis(10);
/// The answer to a path that ends in `/slow`.
const LONG: Duration = Duration::from_secs(2);
const USUAL: &[u8] = &[b'x'; 1024];
/// More than all buffers between here and a client that does not read.
const BIG: &[u8] = &[b'x'; 4 << 20];

/// Starts the upstream on a separate thread, so that observers do not wait for it.
pub(crate) fn start() -> SocketAddr {
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = TcpSocket::new_v4().unwrap();
            // The listener's setting applies to its connections: no more of a reply than this waits in the system.
            socket.set_send_buffer_size(64 * 1024).unwrap();
            socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
            let listener = socket.listen(4096).unwrap();
            say.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let _ = stream.set_nodelay(true);
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
    });
    said.recv().unwrap()
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let body = if path.ends_with("/big") { BIG } else { USUAL };
    let time = if path.ends_with("/slow") { LONG } else { MOMENT };
    let mut sent = request.into_body();
    while let Some(Ok(_)) = sent.frame().await {}
    tokio::time::sleep(time).await;
    Ok(Response::new(Full::new(Bytes::from_static(body))))
}
