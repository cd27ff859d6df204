//! Many callers at once, at several gates.

use std::sync::Arc;
use std::time::Duration;

use support::history::{Recorder, Reply, Rules, judge};
use tokio::task::JoinSet;

use super::fleet::{Fleet, GATES};
use super::servers::Servers;

const CALLERS: usize = 200;
/// `NODES_ROUNDS` sets another number.
const ROUNDS: usize = 3;
/// How many rounds are of one session: a longer history takes longer to judge.
const ROUNDS_OF_ONE: usize = 10;

const RULES: Rules = Rules {
    grace: Duration::from_secs(10),
    staleness: Duration::from_secs(2),
    held: Duration::from_secs(60),
    ..Rules::STRICT
};

/// In each round, callers at all gates present one token.
async fn one_successor(servers: Servers) {
    let rounds = std::env::var("NODES_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let fleet = Fleet::start(servers, "grace = \"10s\"\nlost_response_window = \"0s\"", "").await;
    let recorder = Arc::new(Recorder::new(&fleet.password));
    let entry = fleet.entry();
    let mut held = recorder.log_in(entry.at(0)).await.unwrap();
    for round in 0..rounds {
        if round > 0 && round % ROUNDS_OF_ONE == 0 {
            held = recorder.log_in(entry.at(round % GATES)).await.unwrap();
        }
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (recorder, at, held) = (Arc::clone(&recorder), entry.at(caller % GATES), held.clone());
            callers.spawn(async move { recorder.refresh(at, &held).await });
        }
        let mut successor = None;
        for (issued, reply) in callers.join_all().await {
            let Some(issued) = issued else { panic!("round {round}: {reply:?}") };
            assert!(successor.get_or_insert_with(|| issued.clone()) == &issued, "round {round}: byte for byte");
        }
        let successor = successor.unwrap();
        assert_ne!(successor.pair, held.pair);
        for gate in 0..GATES {
            assert_eq!(recorder.access(entry.at(gate), &successor).await, Reply::Accepted);
        }
        held = successor;
    }
    let rotated: u64 = {
        let mut sum = 0;
        for gate in 0..GATES {
            sum += fleet.gate(gate).metric("rotogate_session_events_total{event=\"rotated\"}").await;
        }
        sum
    };
    assert_eq!(rotated, rounds as u64, "each round rotated once");
    judge(&recorder.history(), &RULES).unwrap_or_else(|verdict| panic!("{:?}\n{}", verdict.rule, verdict.text));
    println!("{rounds} rounds of {CALLERS} callers: one successor each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_two_hundred_callers_at_three_gates_get_one_successor() {
    one_successor(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_c14_two_hundred_callers_get_one_successor_that_a_replica_has() {
    one_successor(Servers::redis_with_replica().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_two_hundred_callers_at_three_gates_on_postgresql_get_one_successor() {
    one_successor(Servers::postgres()).await;
}
