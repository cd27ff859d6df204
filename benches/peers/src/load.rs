//! The load: clients that each send their next request when the last was answered, or at a fixed rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;

use crate::client::{Client, Connection, HEAD, PATIENCE, Target};
use crate::crew::Crew;

/// The number of connections, unless a row says otherwise.
pub const CONNECTIONS: usize = 32;

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
    sent: AtomicUsize,
    /// The next unused token.
    fresh: AtomicUsize,
}

impl Picker {
    pub fn new(tokens: Arc<[String]>, mix: Mix, known: usize) -> Self {
        Self { tokens, mix, known, sent: AtomicUsize::new(0), fresh: AtomicUsize::new(known) }
    }

    /// Each token that must count as used, once.
    fn once(&self) -> Self {
        Self::new(self.tokens[..self.known].into(), Mix::New, 0)
    }

    /// Those tokens again and again.
    pub fn known(&self) -> Self {
        Self::new(Arc::clone(&self.tokens), Mix::Cached, self.known)
    }

    /// `None` when all tokens were used.
    pub fn next(&self) -> Option<&str> {
        let sent = self.sent.fetch_add(1, Ordering::Relaxed);
        let fresh = match self.mix {
            Mix::Cached => false,
            Mix::New => true,
            Mix::Half => sent.is_multiple_of(2),
        };
        if fresh {
            return self.tokens.get(self.fresh.fetch_add(1, Ordering::Relaxed)).map(String::as_str);
        }
        // A fixed order would be the worst case of some caches and the best of others.
        Some(&self.tokens[(scattered(sent as u64) % self.known as u64) as usize])
    }
}

/// SplitMix64: what looks like chance, of a number.
const fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
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

/// When a client sends.
#[derive(Clone, Copy)]
enum Pace {
    /// When the last request was answered.
    AtOnce,
    /// When a request is due; all clients together send so many a second. Latencies count from then.
    Rate(f64),
}

/// The clients of one gateway.
pub struct Load<'a> {
    crew: &'a Crew,
    /// Each with the number of the thread that it runs on.
    clients: Vec<(usize, Client)>,
}

impl<'a> Load<'a> {
    /// So many connections, on all threads of the load.
    pub async fn open(crew: &'a Crew, target: &Arc<Target>, connections: usize) -> Result<Self> {
        let open = (0..connections).map(|number| {
            let target = Arc::clone(target);
            let thread = number % crew.load.len();
            let opened = crew.load[thread].spawn(async move { Client::open(&target).await });
            async move { Ok::<_, anyhow::Error>(opened.await??.into_iter().map(move |client| (thread, client))) }
        });
        Ok(Self { crew, clients: try_join_all(open).await?.into_iter().flatten().collect() })
    }

    /// Sends each token that counts as used before, then continues for `at_least`.
    pub async fn warm_up(&mut self, picker: &Picker, at_least: Duration) -> Result<()> {
        self.drive(picker.once(), None, Pace::AtOnce).await?;
        self.drive(picker.known(), Some(at_least), Pace::AtOnce).await.map(drop)
    }

    /// Drives until the time is over or all tokens were used.
    pub async fn measure(&mut self, picker: Picker, time: Duration) -> Result<Driven> {
        self.drive(picker, Some(time), Pace::AtOnce).await
    }

    /// The same at so many requests a second.
    pub async fn measure_at(&mut self, rate: f64, picker: Picker, time: Duration) -> Result<Driven> {
        self.drive(picker, Some(time), Pace::Rate(rate)).await
    }

    /// One request on each connection, within a second.
    pub async fn each_once(&mut self, picker: Picker) -> Result<()> {
        let number = self.clients.len() as f64;
        let asked = self.measure_at(number, picker, Duration::from_secs(1)).await?.latency.len();
        ensure!(asked >= self.clients.len() as u64, "{asked} answers on {number} connections");
        Ok(())
    }

    async fn drive(&mut self, picker: Picker, time: Option<Duration>, pace: Pace) -> Result<Driven> {
        let (began, picker, number) = (Instant::now(), Arc::new(picker), self.clients.len());
        let each = std::mem::take(&mut self.clients).into_iter().enumerate().map(|(turn, (thread, client))| {
            let one = One { client, picker: Arc::clone(&picker), began, time };
            let schedule = match pace {
                Pace::AtOnce => None,
                Pace::Rate(rate) => Some((turn as f64 / rate, number as f64 / rate)),
            };
            let driven = self.crew.load[thread].spawn(one.drive(schedule));
            async move {
                let (client, latency) = driven.await??;
                Ok::<_, anyhow::Error>(((thread, client), latency))
            }
        });
        let limit = time.unwrap_or_default() + 12 * PATIENCE;
        let driven = tokio::time::timeout(limit, try_join_all(each)).await.context("an answer did not come")??;
        let took = began.elapsed();
        let mut latency = Histogram::new(3)?;
        for (client, of_it) in driven {
            self.clients.push(client);
            latency.add(of_it)?;
        }
        Ok(Driven { took, latency })
    }
}

/// A client while it sends.
struct One {
    client: Client,
    picker: Arc<Picker>,
    began: Instant,
    time: Option<Duration>,
}

impl One {
    /// `schedule`: when the first request is due, and the time between two, in seconds.
    async fn drive(mut self, schedule: Option<(f64, f64)>) -> Result<(Client, Histogram<u64>)> {
        let mut latency = Histogram::<u64>::new(3)?;
        let (mut sent, mut turn) = (Instant::now(), 0.0);
        loop {
            if let Some((first, every)) = schedule {
                sent = self.began + Duration::from_secs_f64(first + every * turn);
                turn += 1.0;
            }
            if self.time.is_some_and(|time| sent.saturating_duration_since(self.began) >= time) {
                break;
            }
            if schedule.is_some() {
                wait_until(sent).await;
            }
            let Some(token) = self.picker.next() else { break };
            let status = self.client.ask(Some(token)).await?;
            ensure!(status == 200, "{status} to a good token");
            let now = Instant::now();
            latency.record(u64::try_from((now - sent).as_nanos())?)?;
            sent = now;
        }
        Ok((self.client, latency))
    }
}

/// Polls the clock: timers are too coarse, and the threads of the load never sleep.
pub async fn wait_until(due: Instant) {
    while Instant::now() < due {
        tokio::task::yield_now().await;
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
