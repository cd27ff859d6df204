//! The load: connections that each send their next request when the last was answered. Every answer is checked.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::serve::BODY;

/// The number of connections.
pub const CONNECTIONS: usize = 32;
/// No answer takes longer on this machine, however busy it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
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
        Ok(Self { stream, request: Vec::new(), answer: Vec::with_capacity(16 * 1024) })
    }

    /// A request as a client of an API sends it.
    pub fn get(&mut self, path: &str, token: Option<&str>) {
        self.request.clear();
        for part in ["GET ", path, HEAD] {
            self.request.extend(part.as_bytes());
        }
        if let Some(token) = token {
            for part in ["authorization: Bearer ", token, "\r\n"] {
                self.request.extend(part.as_bytes());
            }
        }
        self.request.extend(b"\r\n");
    }

    /// The same through a proxy that adds the client's address.
    pub fn get_from(&mut self, path: &str, token: &str, from: std::net::Ipv4Addr) {
        self.get(path, Some(token));
        self.request.truncate(self.request.len() - 2);
        self.request.extend(format!("x-forwarded-for: {from}\r\n\r\n").as_bytes());
    }

    /// Sends the request and reads the whole answer.
    pub async fn exchange(&mut self) -> Result<Answer<'_>> {
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
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

    async fn exchange_in_time(&mut self) -> Result<Answer<'_>> {
        tokio::time::timeout(PATIENCE, self.exchange()).await.context("no answer")?
    }
}

const HEAD: &str = " HTTP/1.1\r\nhost: api.example.com\r\nuser-agent: bench/1\r\naccept: application/json\r\n\
                    accept-encoding: gzip, br\r\n";

/// Status, length of the head and of the body, if the head is complete.
fn head(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = head.parse(bytes)? else { return Ok(None) };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.context("an answer without a length")?;
    Ok(Some((head.code.context("a status")?, end, std::str::from_utf8(length.value)?.parse()?)))
}

/// One request on a new connection.
pub async fn ask(address: SocketAddr, path: &str, token: Option<&str>) -> Result<(u16, Vec<u8>)> {
    let mut connection = Connection::open(address).await?;
    connection.get(path, token);
    let answer = connection.exchange_in_time().await?;
    Ok((answer.status, answer.body.to_vec()))
}

/// The choice of the next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mix {
    /// Any token that was used before.
    Cached,
    /// An unused one.
    New,
    /// Both in turn.
    Half,
}

/// The tokens in the order in which they are sent.
pub struct Picker {
    tokens: Arc<[String]>,
    mix: Mix,
    /// The number of tokens used before; they come first in `tokens`.
    known: usize,
    sent: Cell<usize>,
    /// The next unused token.
    fresh: Cell<usize>,
    random: Cell<u64>,
}

impl Picker {
    pub fn new(tokens: Arc<[String]>, mix: Mix, known: usize) -> Self {
        Self {
            tokens,
            mix,
            known,
            sent: Cell::new(0),
            fresh: Cell::new(known),
            random: Cell::new(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// Before the measurement: each token that must count as used, once.
    fn warm_up(&self) -> Option<&str> {
        let next = self.sent.replace(self.sent.get() + 1);
        (next < self.known).then(|| self.tokens[next].as_str())
    }

    /// `None` when all tokens were used.
    pub fn next(&self) -> Option<&str> {
        let sent = self.sent.replace(self.sent.get() + 1);
        let fresh = match self.mix {
            Mix::Cached => false,
            Mix::New => true,
            Mix::Half => sent.is_multiple_of(2),
        };
        if fresh {
            return self.tokens.get(self.fresh.replace(self.fresh.get() + 1)).map(String::as_str);
        }
        // xorshift64: a fixed order would be the worst case of some caches and the best of others.
        let mut random = self.random.get();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.set(random);
        Some(&self.tokens[(random % self.known as u64) as usize])
    }
}

/// The result of a measurement.
pub struct Driven {
    pub took: Duration,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
}

impl Driven {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.latency.len() as f64 / self.took.as_secs_f64()
    }

    pub fn milliseconds(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }
}

/// The connections to one gateway.
pub struct Load {
    connections: Vec<Connection>,
    path: &'static str,
}

impl Load {
    pub async fn open(address: SocketAddr, path: &'static str) -> Result<Self> {
        let connections = try_join_all((0..CONNECTIONS).map(|_| Connection::open(address))).await?;
        Ok(Self { connections, path })
    }

    /// Sends each token that counts as used before, then continues for `at_least`.
    pub async fn warm_up(&mut self, picker: &Picker, at_least: Duration) -> Result<()> {
        self.drive(|| picker.warm_up(), None).await?;
        let known = Picker::new(Arc::clone(&picker.tokens), Mix::Cached, picker.known);
        self.drive(|| known.next(), Some(at_least)).await.map(drop)
    }

    /// Drives until the time is over or all tokens were used.
    pub async fn measure(&mut self, picker: &Picker, time: Duration) -> Result<Driven> {
        self.drive(|| picker.next(), Some(time)).await
    }

    async fn drive<'a>(&mut self, next: impl Fn() -> Option<&'a str>, time: Option<Duration>) -> Result<Driven> {
        let (began, path, next) = (Instant::now(), self.path, &next);
        let each = self.connections.iter_mut().map(|connection| async move {
            let mut latency = Histogram::<u64>::new(3)?;
            let mut sent = Instant::now();
            while time.is_none_or(|time| sent - began < time)
                && let Some(token) = next()
            {
                connection.get(path, Some(token));
                let answer = connection.exchange().await?;
                ensure!(
                    answer.status == 200 && answer.body == BODY,
                    "{} to a good token, or another body",
                    answer.status
                );
                let now = Instant::now();
                latency.record(u64::try_from((now - sent).as_nanos())?)?;
                sent = now;
            }
            Ok(latency)
        });
        let limit = time.unwrap_or_default() + 12 * PATIENCE;
        let latencies = tokio::time::timeout(limit, try_join_all(each)).await.context("an answer did not come")??;
        let took = began.elapsed();
        let mut latency = Histogram::new(3)?;
        for one in latencies {
            latency.add(one)?;
        }
        Ok(Driven { took, latency })
    }
}

/// A client that refreshes again and again, each time with the token that it got last.
pub struct Chain {
    connection: Connection,
    refresh_token: String,
}

impl Chain {
    pub async fn open(address: SocketAddr, refresh_token: &str) -> Result<Self> {
        Ok(Self { connection: Connection::open(address).await?, refresh_token: refresh_token.to_owned() })
    }

    pub async fn refresh(&mut self) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Pair {
            refresh_token: String,
        }
        let form = format!(
            "grant_type=refresh_token&client_id={}&refresh_token={}",
            crate::tokens::CLIENT,
            self.refresh_token
        );
        self.connection.request = format!(
            "POST /connect/token{HEAD}content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            form.len()
        )
        .into();
        let answer = self.connection.exchange_in_time().await?;
        ensure!(answer.status == 200, "{} to a refresh: {}", answer.status, String::from_utf8_lossy(answer.body));
        let pair: Pair = serde_json::from_slice(answer.body)?;
        ensure!(pair.refresh_token != self.refresh_token, "a refresh that changed nothing");
        self.refresh_token = pair.refresh_token;
        Ok(())
    }
}

/// Refreshes on `chains`, each at this interval or without a pause, until the time is over. Returns the latencies.
pub async fn refresh_all(chains: &mut [Chain], every: Option<Duration>, time: Duration) -> Result<Driven> {
    let began = Instant::now();
    let each = chains.iter_mut().enumerate().map(|(number, chain)| async move {
        let mut latency = Histogram::<u64>::new(3)?;
        // Staggered starts.
        let mut due = began + every.unwrap_or_default().mul_f64(number as f64 / CONNECTIONS as f64);
        while began.elapsed() < time {
            if let Some(every) = every {
                tokio::time::sleep_until(due.into()).await;
                due += every;
            }
            let sent = Instant::now();
            chain.refresh().await?;
            latency.record(u64::try_from(sent.elapsed().as_nanos())?)?;
        }
        Ok::<_, anyhow::Error>(latency)
    });
    let latencies = try_join_all(each).await?;
    let took = began.elapsed();
    let mut latency = Histogram::new(3)?;
    for one in latencies {
        latency.add(one)?;
    }
    Ok(Driven { took, latency })
}
