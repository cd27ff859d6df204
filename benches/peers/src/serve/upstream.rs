//! The upstream, which runs beside the load: a server for each way in which the load speaks, without an HTTP library where
//! that is cheap.

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use hyper::{HeaderMap, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async;

use crate::client::Speech;

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

/// A long body: the same again and again.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut pattern = BODY.repeat(length.div_ceil(BODY.len()));
    pattern.truncate(length);
    pattern
}

/// Is this what a long body has from there on?
pub fn is_of_the_pattern(bytes: &[u8], from: usize) -> bool {
    let (start, rest) = bytes.split_at(bytes.len().min(BODY.len() - from % BODY.len()));
    BODY[from % BODY.len()..].starts_with(start) && rest.chunks(BODY.len()).all(|chunk| BODY.starts_with(chunk))
}

/// Answers what gateways forward when clients speak so.
pub async fn upstream(listener: TcpListener, speech: Speech) -> Result<()> {
    let answer: &'static [u8] = whole(&BODY).leak();
    let long: &'static [u8] = match speech {
        Speech::Download(length) => whole(&pattern(length)).leak(),
        _ => &[],
    };
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A connection that fails shows itself to the client, too.
        tokio::spawn(async move {
            match speech {
                Speech::Upload(length) => swallow(stream, length, answer).await,
                Speech::Download(_) => repeat(stream, long).await,
                Speech::Calls(_) => calls(stream).await,
                Speech::Messages => echo(stream).await,
                _ => repeat(stream, answer).await,
            }
        });
    }
}

fn whole(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Answers every request with the same. Requests have no body and are not pipelined, so the end of a head is the end of a
/// request.
async fn repeat(mut stream: TcpStream, answer: &[u8]) -> Result<()> {
    let mut head = Vec::with_capacity(16 * 1024);
    while stream.read_buf(&mut head).await? > 0 {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            stream.write_all(answer).await?;
        }
    }
    Ok(())
}

/// Answers each body that is as it must be.
async fn swallow(mut stream: TcpStream, length: usize, answer: &[u8]) -> Result<()> {
    let mut bytes = BytesMut::with_capacity(256 * 1024);
    // What was read of a body, once its head is complete.
    let mut read = None;
    while stream.read_buf(&mut bytes).await? > 0 {
        if read.is_none() {
            let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
            drop(bytes.split_to(end + 4));
            read = Some(0);
        }
        let so_far = read.get_or_insert(0);
        ensure!(is_of_the_pattern(&bytes, *so_far), "another body");
        *so_far += bytes.len();
        bytes.clear();
        if *so_far == length {
            read = None;
            stream.write_all(answer).await?;
        }
    }
    Ok(())
}

/// Unary calls of gRPC.
async fn calls(stream: TcpStream) -> Result<()> {
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(BODY.len().try_into()?);
    message.put_slice(&BODY);
    let message = message.freeze();
    let mut connection = h2::server::Builder::new()
        .initial_connection_window_size(16 << 20)
        .max_concurrent_streams(1000)
        .handshake::<_, Bytes>(stream)
        .await?;
    while let Some(call) = connection.accept().await {
        let (call, mut respond) = call?;
        let message = message.clone();
        tokio::spawn(async move {
            let mut body = call.into_body();
            while let Some(data) = body.data().await {
                body.flow_control().release_capacity(data?.len())?;
            }
            let head = Response::builder().header("content-type", "application/grpc").body(())?;
            let mut stream = respond.send_response(head, false)?;
            stream.send_data(message, false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse()?);
            stream.send_trailers(trailers)?;
            Ok::<_, anyhow::Error>(())
        });
    }
    Ok(())
}

/// Sends messages back.
async fn echo(stream: TcpStream) -> Result<()> {
    let mut socket = accept_async(stream).await?;
    loop {
        let message = socket.next().await.context("closed")??;
        if !message.is_close() {
            socket.send(message).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_is_known_from_anywhere() {
        let long = pattern(5000);
        for from in [0, 1, 1023, 1024, 3000, 4999, 5000] {
            assert!(is_of_the_pattern(&long[from..], from), "{from}");
        }
        assert!(!is_of_the_pattern(&long[1..], 0));
        let mut other = long;
        other[4000] ^= 1;
        assert!(!is_of_the_pattern(&other, 0));
    }
}
