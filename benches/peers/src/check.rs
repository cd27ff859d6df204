//! A gateway counts only if it lets the good pass and refuses the bad, in the run in which it is measured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::contender::{Contender, Running};
use crate::load;
use crate::serve::BODY;

/// How long a gateway may take to start, a million revocations included.
const START: Duration = Duration::from_secs(60);

/// Waits until it listens; says how long that took.
pub async fn until_it_listens(running: &mut Running) -> Result<Duration> {
    let began = Instant::now();
    while tokio::net::TcpStream::connect(running.address).await.is_err() {
        running.check()?;
        ensure!(began.elapsed() < START, "{} does not listen", running.contender.name());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(began.elapsed())
}

/// The good and the bad.
pub async fn check(
    contender: Contender,
    address: SocketAddr,
    good: &str,
    bad: &[(&'static str, Option<String>)],
) -> Result<()> {
    let name = contender.name();
    let (status, body) = load::ask(address, contender.path(), Some(good)).await?;
    ensure!(status == 200, "{name} answers {status} to a good token");
    ensure!(body == BODY, "{name} answers with another body than the upstream's");
    if contender.checks() {
        for (what, token) in bad {
            let (status, body) = load::ask(address, contender.path(), token.as_deref()).await?;
            ensure!(status == 401, "{name} answers {status} to: {what}; 401 is expected");
            ensure!(body != BODY, "{name} says 401 and sends the upstream's answer: {what}");
        }
    }
    Ok(())
}
