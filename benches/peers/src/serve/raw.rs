//! The servers without an HTTP library: the upstream and the byte relay.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The body of the upstream's answers.
pub const BODY: [u8; 1024] = body();

/// A body that no gateway produces itself, and in which a missing or repeated piece is visible.
const fn body() -> [u8; 1024] {
    let mut body = [0; 1024];
    let mut at = 0;
    while at < body.len() {
        body[at] = b'a' + ((at * 7 + at / 26) % 26) as u8;
        at += 1;
    }
    body
}

/// Answers every request with the same 1 KiB. Requests have no body and are not pipelined, so the end of a head is the
/// end of a request.
pub async fn upstream(listener: TcpListener) -> Result<()> {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\n\r\n".to_vec();
    answer.extend(BODY);
    let answer: &'static [u8] = answer.leak();
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut head = Vec::with_capacity(16 * 1024);
            while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    if stream.write_all(answer).await.is_err() {
                        break;
                    }
                }
            }
        });
    }
}

/// Opens an upstream connection for each client connection, and copies bytes.
pub async fn relay(listener: TcpListener, upstream: SocketAddr) -> Result<()> {
    loop {
        let (mut client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut server = TcpStream::connect(upstream).await?;
            server.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
}
