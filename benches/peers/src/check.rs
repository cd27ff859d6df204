//! A gateway counts only if it lets the good pass and refuses the bad, in the run in which it is measured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::contender::{Contender, Running};
use crate::load;
use crate::serve::BODY;
use crate::tokens::Bad;

/// How long a gateway may take to start, a million revocations included.
const START: Duration = Duration::from_secs(60);

/// Waits until it lets a good token through; says how long that took.
pub async fn until_it_answers(running: &mut Running, good: &str) -> Result<Duration> {
    let began = Instant::now();
    // Until then the gateway, or its auth server, may not listen yet.
    while !load::ask(running.address, running.contender.path(), Some(good)).await.is_ok_and(|(status, _)| status == 200)
    {
        running.check()?;
        ensure!(began.elapsed() < START, "{} does not let a good token through", running.contender.name());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(began.elapsed())
}

/// The good and the bad.
pub async fn check(contender: Contender, address: SocketAddr, good: &str, bad: &[(Bad, Option<String>)]) -> Result<()> {
    let name = contender.name();
    let (status, body) = load::ask(address, contender.path(), Some(good)).await?;
    ensure!(status == 200, "{name} answers {status} to a good token");
    ensure!(body == BODY, "{name} answers with another body than the upstream's");
    if contender.checks() {
        for (what, token) in bad {
            let (status, body) = load::ask(address, contender.path(), token.as_deref()).await?;
            let expected = contender.refuses_with(*what);
            ensure!(status == expected, "{name} answers {status} to a bad token ({what:?}); {expected} is expected");
            ensure!(body != BODY, "{name} refuses a bad token ({what:?}) and sends the upstream's answer");
        }
    }
    Ok(())
}
