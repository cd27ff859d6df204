//! Good clients at a fixed rate, with forged tokens beside them: how the flood affects the good clients.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;

use crate::client::Connection;
use crate::load::{Driven, Picker, wait_until};
use crate::serve::BODY;

/// Connections of the good clients, and as many of the attackers.
const CLIENTS: usize = 16;
/// The requests a second of all good clients together.
const GOOD: u32 = 2000;

/// What is sent besides what good clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// Forged tokens a second; fewer, if the gateway does not answer in time.
    pub forged: u32,
    /// Does each come from a different address?
    pub everywhere: bool,
}

/// The connections of good clients and attackers.
pub struct Clients {
    good: Vec<Connection>,
    bad: Vec<Connection>,
}

impl Clients {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let open = || try_join_all((0..CLIENTS).map(|_| Connection::open(address)));
        Ok(Self { good: open().await?, bad: open().await? })
    }

    /// Runs for this time. Returns the latencies of good clients, counted from when each request was due, and the
    /// forged tokens answered a second.
    pub async fn measure(
        self,
        path: &str,
        picker: &Picker,
        forged: &str,
        flood: Flood,
        time: Duration,
    ) -> Result<(Driven, f64)> {
        let Self { mut good, mut bad } = self;
        let (driven, answered) = tokio::try_join!(
            send_good(&mut good, path, picker, time),
            send_forged(&mut bad, path, forged, flood, time)
        )?;
        let rate = answered as f64 / driven.took.as_secs_f64();
        Ok((driven, rate))
    }
}

/// The times at which requests of one of `CLIENTS` are due; all together send `rate` a second.
fn schedule(began: Instant, client: usize, rate: u32) -> impl Iterator<Item = Instant> {
    let every = Duration::from_secs(1) / rate.max(1);
    (0_u32..).map(move |turn| began + every * (turn * CLIENTS as u32 + client as u32))
}

async fn send_good(connections: &mut [Connection], path: &str, picker: &Picker, time: Duration) -> Result<Driven> {
    let began = Instant::now();
    let each = connections.iter_mut().enumerate().map(|(client, connection)| async move {
        let mut latency = Histogram::<u64>::new(3)?;
        for due in schedule(began, client, GOOD).take_while(|due| *due - began < time) {
            wait_until(due).await;
            connection.get(path, picker.next());
            let answer = connection.exchange().await?;
            ensure!(answer.status == 200 && answer.body == BODY, "{} to a good token", answer.status);
            latency.record(u64::try_from(due.elapsed().as_nanos())?)?;
        }
        Ok(latency)
    });
    let latencies: Vec<_> = try_join_all(each).await?;
    let took = began.elapsed();
    let mut latency = Histogram::new(3)?;
    for one in latencies {
        latency.add(one)?;
    }
    Ok(Driven { took, latency })
}

/// Returns the number of answers.
async fn send_forged(
    connections: &mut [Connection],
    path: &str,
    token: &str,
    flood: Flood,
    time: Duration,
) -> Result<u64> {
    if flood.forged == 0 {
        return Ok(0);
    }
    let began = Instant::now();
    let each = connections.iter_mut().enumerate().map(|(client, connection)| async move {
        let mut answered = 0;
        for due in schedule(began, client, flood.forged) {
            wait_until(due).await;
            if began.elapsed() >= time {
                break;
            }
            // 198.18.0.0/15 is there for benchmarks (RFC 2544).
            let number =
                if flood.everywhere { (answered as u32 * CLIENTS as u32 + client as u32) & 0x1_ffff } else { 0 };
            let from = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() | number);
            connection.get_from(path, token, from);
            let status = connection.exchange().await?.status;
            ensure!(matches!(status, 401 | 429 | 503), "{status} to a forged token");
            answered += 1;
        }
        Ok::<u64, anyhow::Error>(answered)
    });
    Ok(try_join_all(each).await?.into_iter().sum())
}
