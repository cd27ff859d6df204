//! HTTP/1.1.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::either::Either;

use super::{PATIENCE, Speech, Target, Wire};
use crate::serve::{BODY, is_of_the_pattern, pattern};

/// The headers of a request of a client of an API.
pub const HEAD: &str = " HTTP/1.1\r\nhost: api.example.com\r\nuser-agent: bench/1\r\naccept: application/json\r\n\
                        accept-encoding: gzip, br\r\n";
/// What nginx adds to them when it asks.
const FACTS: &str = "x-forwarded-method: GET\r\nx-forwarded-proto: http\r\nx-forwarded-host: api.example.com\r\n\
                     x-forwarded-for: 127.0.0.1\r\nx-forwarded-uri: ";

/// A keep-alive connection.
pub struct Connection {
    wire: Wire,
    /// The next request.
    pub request: Vec<u8>,
    answer: Vec<u8>,
}

/// An answer.
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(Either::Left(stream)))
    }

    pub(super) fn over(wire: Wire) -> Self {
        Self { wire, request: Vec::new(), answer: Vec::with_capacity(16 * 1024) }
    }

    /// A request as a client of an API sends it.
    pub fn get(&mut self, path: &str, token: Option<&str>) {
        self.write(&["GET ", path, HEAD], token);
    }

    /// The same through a proxy that adds the client's address.
    pub fn get_from(&mut self, path: &str, token: &str, from: Ipv4Addr) {
        self.write(&["GET ", path, HEAD, "x-forwarded-for: ", &from.to_string(), "\r\n"], Some(token));
    }

    /// The question of nginx about that request.
    fn question(&mut self, path: &str, token: Option<&str>) {
        self.write(&["GET /", HEAD, FACTS, path, "\r\n"], token);
    }

    fn write(&mut self, parts: &[&str], token: Option<&str>) {
        self.request.clear();
        for part in parts {
            self.request.extend(part.as_bytes());
        }
        if let Some(token) = token {
            for part in ["authorization: Bearer ", token, "\r\n"] {
                self.request.extend(part.as_bytes());
            }
        }
        self.request.extend(b"\r\n");
    }

    pub(super) fn into_wire(self) -> Wire {
        self.wire
    }

    /// Sends the request and reads the whole answer.
    pub async fn exchange(&mut self) -> Result<Answer<'_>> {
        self.exchange_with(&[]).await
    }

    /// The same with the body of the request.
    async fn exchange_with(&mut self, body: &[u8]) -> Result<Answer<'_>> {
        self.wire.write_all(&self.request).await?;
        self.wire.write_all(body).await?;
        self.wire.flush().await?;
        self.answer.clear();
        loop {
            if self.wire.read_buf(&mut self.answer).await? == 0 {
                bail!("the connection was closed in place of an answer");
            }
            if let Some((status, head, length)) = head(&self.answer)? {
                ensure!(self.answer.len() <= head + length, "more than one answer to one request");
                if self.answer.len() == head + length {
                    return Ok(Answer { status, body: &self.answer[head..] });
                }
            }
        }
    }

    pub async fn exchange_in_time(&mut self) -> Result<Answer<'_>> {
        tokio::time::timeout(PATIENCE, self.exchange()).await.context("no answer")?
    }
}

/// Status, length of the head and of the body, if the head is complete.
fn head(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = head.parse(bytes)? else { return Ok(None) };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.context("an answer without a length")?;
    Ok(Some((head.code.context("a status")?, end, std::str::from_utf8(length.value)?.parse()?)))
}

/// A connection that asks for the same again and again.
pub struct Client {
    connection: Connection,
    target: Arc<Target>,
    /// Of the requests.
    body: Vec<u8>,
}

impl Client {
    pub async fn open(target: &Arc<Target>) -> Result<Self> {
        let body = match target.speech {
            Speech::Upload(length) => pattern(length),
            _ => Vec::new(),
        };
        Ok(Self { connection: Connection::over(target.wire().await?), target: Arc::clone(target), body })
    }

    pub async fn ask(&mut self, token: Option<&str>) -> Result<u16> {
        let Self { connection, target, body } = self;
        let Target { path, speech, .. } = &**target;
        let mut sent: &[u8] = &[];
        match speech {
            Speech::Questions => connection.question(path, token),
            Speech::Upload(length) => {
                sent = body;
                connection.write(&["POST ", path, HEAD, "content-length: ", &length.to_string(), "\r\n"], token);
            }
            _ => connection.get(path, token),
        }
        let answer = connection.exchange_with(sent).await?;
        let is_whole = match speech {
            Speech::Questions => answer.body.is_empty(),
            Speech::Download(length) => answer.body.len() == *length && is_of_the_pattern(answer.body, 0),
            _ => answer.body == BODY,
        };
        ensure!((answer.status == 200) == is_whole, "{} with another body", answer.status);
        Ok(answer.status)
    }
}
