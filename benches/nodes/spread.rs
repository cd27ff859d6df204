//! C7: from the acknowledgement of a revocation at one gate to the first request that another gate refuses.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rotogate::gate::{GateService, NewSession};
use tower::{Layer, Service};

use crate::shared::{KINDS, Keys, Kind, gate};
use crate::support::program::goal;
use crate::support::{Heads, Inner, measures, quantile};
use crate::{runtime, say};

pub(crate) fn run() {
    for kind in KINDS {
        measure(kind);
    }
}

/// Sends requests with a cached token until the gate refuses it.
fn refused_after(service: &mut GateService<Inner>, heads: &mut Heads) -> Duration {
    let acknowledged = Instant::now();
    loop {
        let answer = service.call(heads.request()).now_or_never().expect("an answer at once").unwrap();
        if answer.status() == http::StatusCode::UNAUTHORIZED {
            return acknowledged.elapsed();
        }
        assert_eq!(answer.status(), http::StatusCode::OK);
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn measure(kind: &Kind) {
    let number = if measures() { 1000 } else { 3 };
    let (first, second) = (runtime(), runtime());
    let (server, keys) = ((kind.start)(), Keys::new());
    let a = first.block_on(gate(server.connect(&first, &keys), &keys));
    let b = second.block_on(gate(server.connect(&second, &keys), &keys));
    let mut service = b.layer().layer(Inner);
    let (mut took, mut acknowledged) = (Vec::new(), Vec::new());
    for number in 0..number {
        let new = NewSession::new(format!("user-{number}"), "web").scope("read").unwrap();
        let issued = first.block_on(a.sessions().start(new)).unwrap();
        let mut heads = Heads::new([issued.access_token.expose()]);
        let passes = service.call(heads.request()).now_or_never().expect("an answer at once").unwrap();
        assert_eq!(passes.status(), http::StatusCode::OK);
        let asked = Instant::now();
        assert!(first.block_on(a.sessions().revoke(issued.session.unwrap())).unwrap());
        acknowledged.push(asked.elapsed().as_secs_f64() * 1e3);
        took.push(refused_after(&mut service, &mut heads).as_secs_f64() * 1e3);
    }
    println!("{}: {number} revocations, one after the other", kind.name);
    say("until gate A has its acknowledgement, p50", quantile(&acknowledged, 0.5), "ms");
    let (p50, p99) = (quantile(&took, 0.5), quantile(&took, 0.99));
    match kind.spread.0 {
        Some(limit) => goal("from there until gate B refuses, p50", p50, limit, "ms"),
        None => say("from there until gate B refuses, p50", p50, "ms"),
    }
    goal("the same, p99", p99, kind.spread.1, "ms");
    say("the same, longest", quantile(&took, 1.0), "ms");
}
