//! One cell in one round.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use tokio::runtime::Handle;

use crate::client::{Speech, Target};
use crate::contender::{Running, Setup};
use crate::crew::Crew;
use crate::flood::Clients;
use crate::load::{Chain, Load, Picker, refresh_all};
use crate::prepare::Ready;
use crate::process::usage;
use crate::run::Options;
use crate::sets::{Cell, Work};
use crate::statistics::Sample;
use crate::tokens::Bad;
use crate::{check, serve, tls};

/// How long a gateway is driven before it is measured, at least.
const WARM_UP: Duration = Duration::from_millis(300);

/// How many idle connections are opened together.
const AT_A_TIME: usize = 1000;

/// Starts an upstream on each of its threads.
fn upstreams(crew: &Crew, speech: Speech) -> Result<Vec<SocketAddr>> {
    let start = |thread: &Handle| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        thread.spawn(async move { serve::upstream(tokio::net::TcpListener::from_std(listener)?, speech).await });
        Ok(address)
    };
    crew.upstream.iter().map(start).collect()
}

/// Opens connections that are used once and stay open, some at a time: each handshake has a limit.
async fn hold<'a>(crew: &'a Crew, target: &Arc<Target>, number: usize, picker: &Picker) -> Result<Vec<Load<'a>>> {
    let mut held = Vec::new();
    while held.len() * AT_A_TIME < number {
        let mut opened = Load::open(crew, target, AT_A_TIME).await?;
        opened.each_once(picker.known()).await?;
        held.push(opened);
    }
    Ok(held)
}

/// One cell in one round, on a gateway started for it.
pub async fn measure(cell: &Cell, ready: &Ready, crew: &Crew, options: &Options) -> Result<Sample> {
    let tokens = ready.tokens(cell.algorithm)?;
    let template = ready.template(cell.contents(options.scale()))?;
    let upstreams = upstreams(crew, cell.speech)?;
    let setup = Setup {
        algorithm: cell.algorithm,
        template,
        upstreams: &upstreams,
        workers: cell.workers,
        behind: matches!(cell.work, Work::Flooded(_)),
        logs: cell.logs,
        tls: cell.tls,
        speech: cell.speech,
    };
    let mut running = Running::start(&ready.stage, cell.contender, setup)?;
    let address = running.address;
    let tls = cell.tls.then(|| tls::Client::new(&ready.stage.keys)).transpose()?;
    let path = cell.contender.path(cell.speech);
    let target = Arc::new(Target { address, path, speech: cell.speech, tls });
    let good = tokens.good.first().context("a token")?;
    let start = check::until_it_answers(&mut running, &target, good).await?;
    check::check(cell.contender, &target, good, &tokens.bad).await?;

    let chains = template.refresh_tokens.iter().map(|token| Chain::open(address, token));
    let mut chains = try_join_all(chains).await?;
    let picker = Picker::new(Arc::clone(&tokens.good), cell.mix, cell.known);
    let mut load = Load::open(crew, &target, cell.connections).await?;
    match cell.work {
        Work::Requests | Work::ShareOfMost(_) | Work::Rate(_) | Work::Idle(_) | Work::Flooded(_) => {
            load.warm_up(&picker, WARM_UP).await?;
        }
        Work::Beside(_, every) => {
            load.warm_up(&picker, WARM_UP).await?;
            refresh_all(&mut chains, Some(every), WARM_UP).await?;
        }
        Work::Rotations(_) => drop(refresh_all(&mut chains, None, WARM_UP).await?),
    }

    let share = match cell.work {
        Work::ShareOfMost(percent) => {
            load.measure(picker.known(), options.time() / 2).await?.rate() * f64::from(percent) / 100.0
        }
        _ => 0.0,
    };
    let mut held = match cell.work {
        Work::Idle(number) => hold(crew, &target, number, &picker).await?,
        _ => Vec::new(),
    };
    let again = picker.known();
    let (before, time) = (usage(&running.processes())?, options.time());
    let (mut rotations, mut forged) = (0.0, 0.0);
    let driven = match cell.work {
        Work::Requests => load.measure(picker, time).await?,
        Work::ShareOfMost(_) => load.measure_at(share, picker, time).await?,
        Work::Idle(_) => load.measure_at(100.0, picker, time).await?,
        Work::Rate(rate) => load.measure_at(rate.into(), picker, time).await?,
        Work::Rotations(_) => refresh_all(&mut chains, None, time).await?,
        Work::Flooded(flood) => {
            let false_one = tokens.bad.iter().find(|(bad, _)| *bad == Bad::Signature);
            let token = false_one.and_then(|(_, token)| token.as_deref()).context("a forged token")?;
            let (driven, answered) =
                Clients::open(address).await?.measure(&target.path, &picker, token, flood, time).await?;
            forged = answered;
            driven
        }
        Work::Beside(_, every) => {
            let (driven, beside) =
                tokio::try_join!(load.measure(picker, time), refresh_all(&mut chains, Some(every), time))?;
            rotations = beside.rate();
            driven
        }
    };
    let after = usage(&running.processes())?;
    for idle in &mut held {
        idle.each_once(again.known()).await?;
    }
    running.check()?;
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    Ok(Sample {
        cpu: cpu * 1e6 / driven.latency.len() as f64,
        rate: driven.rate(),
        p50: driven.milliseconds(0.5),
        p99: driven.milliseconds(0.99),
        p999: driven.milliseconds(0.999),
        busy: cpu / driven.took.as_secs_f64(),
        resident: after.resident as f64 / (1 << 20) as f64,
        start: start.as_secs_f64() * 1e3,
        rotations,
        forged,
    })
}
