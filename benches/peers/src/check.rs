//! A gateway counts only if it lets the good pass and refuses the bad, in the run in which it is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::{Target, ask_once};
use crate::contender::{Contender, Running};
use crate::tokens::Bad;

/// How long a gateway may take to start, a million revocations included.
const START: Duration = Duration::from_secs(60);

/// Waits until it lets a good token through; says how long that took.
pub async fn until_it_answers(running: &mut Running, target: &Arc<Target>, good: &str) -> Result<Duration> {
    let began = Instant::now();
    // Until then the gateway, or its auth server, may not listen yet.
    loop {
        let answer = ask_once(target, Some(good)).await;
        if matches!(answer, Ok(200)) {
            return Ok(began.elapsed());
        }
        running.check()?;
        if began.elapsed() > START {
            let status = answer.with_context(|| format!("{} does not answer", running.contender.name()))?;
            anyhow::bail!("{} answers {status} to a good token", running.contender.name());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The good and the bad, in the way in which the load speaks.
pub async fn check(
    contender: Contender,
    target: &Arc<Target>,
    good: &str,
    bad: &[(Bad, Option<String>)],
) -> Result<()> {
    let name = contender.name();
    let status = ask_once(target, Some(good)).await.with_context(|| format!("{name}, a good token"))?;
    ensure!(status == 200, "{name} answers {status} to a good token");
    if contender.checks() {
        for (what, token) in bad {
            let status =
                ask_once(target, token.as_deref()).await.with_context(|| format!("{name}, a bad token ({what:?})"))?;
            let expected = contender.refuses_with(*what);
            ensure!(status == expected, "{name} answers {status} to a bad token ({what:?}); {expected} is expected");
        }
    }
    Ok(())
}
