//! Acknowledged changes survive the death of the process at any moment (requirement R2): the real binary on its real
//! store is killed again and again, at random moments and between commit and reply, under clients that remember exactly
//! the replies that they got. After each restart, everything that follows from those replies must hold:
//!
//! - the last refresh token that a client got still works, even if the reply to its exchange was lost;
//! - an acknowledged revocation stays, for the refresh token and for the access tokens;
//! - one generation has one successor: the previous token gets the acknowledged pair again or nothing, and a token two
//!   generations back ends the session.
//!
//! A test shows that the checker finds a store that answers before it commits. `CRASH_ROUNDS` makes a longer run,
//! `CRASH_SEED` repeats random choices.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use support::chain::{Chain, Http, Wrong, work};
use support::random::Random;
use support::{CONFIG, Gate, Place};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// In each round, the process ends three times: by SIGKILL under load, by SIGKILL at rest, by itself after a commit.
const ROUNDS: u64 = 5;
/// The number of concurrent clients.
const CLIENTS: usize = 24;
/// The number of ended sessions that are checked again after each restart.
const REMEMBERED: usize = 24;
/// The number of crashes within which the checker must find a store that answers too early.
const FOUND_WITHIN: u64 = 10;

/// How a process ends.
#[derive(Clone, Copy, Debug)]
enum Ends {
    /// By SIGKILL, soon after this many replies.
    Killed { replies: u64 },
    /// By a fail point.
    ByItself,
}

#[derive(Default)]
struct Sessions {
    live: Vec<Chain>,
    over: Vec<Chain>,
    /// The number of checked live sessions, and of those whose last request had no reply.
    checked_live: usize,
    in_doubt: usize,
}

impl Sessions {
    fn sort_in(&mut self, chain: Chain, random: &mut Random) {
        if !chain.is_over() {
            self.live.push(chain);
        } else if self.over.len() < REMEMBERED {
            self.over.push(chain);
        } else {
            let place = usize::try_from(random.below(REMEMBERED as u64)).unwrap();
            self.over[place] = chain;
        }
    }
}

/// Lets the clients work until the process ends.
async fn load(gate: &mut Gate, sessions: &mut Sessions, ends: Ends, random: &mut Random) -> Vec<Wrong> {
    let http = Http::new(gate.address, &gate.password);
    let replies = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    let mut waiting = std::mem::take(&mut sessions.live).into_iter();
    for _ in 0..CLIENTS {
        let (http, chain, random, replies) = (http.clone(), waiting.next(), random.fork(), Arc::clone(&replies));
        clients.spawn(async move { work(http, chain, random, &replies).await });
    }
    sessions.live.extend(waiting);
    let mut wrong = Vec::new();
    let mut killed = false;
    let tick = Duration::from_millis(1);
    let later = Duration::from_micros(random.below(4000));
    while !clients.is_empty() {
        if let Ends::Killed { replies: enough } = ends
            && !killed
            && replies.load(Ordering::Relaxed) >= enough
        {
            sleep(later).await;
            gate.kill();
            killed = true;
        }
        if let Ok(Some(worked)) = tokio::time::timeout(tick, clients.join_next()).await {
            let worked = worked.unwrap();
            wrong.extend(worked.wrong);
            worked.chains.into_iter().for_each(|chain| sessions.sort_in(chain, random));
        }
    }
    gate.kill();
    wrong
}

/// Asks a new process about all that its predecessors acknowledged.
async fn check(gate: &Gate, sessions: &mut Sessions, random: &mut Random) -> Vec<Wrong> {
    let http = Http::new(gate.address, &gate.password);
    let mut checks = JoinSet::new();
    let (live, over) = (std::mem::take(&mut sessions.live), std::mem::take(&mut sessions.over));
    sessions.checked_live += live.len();
    sessions.in_doubt += live.iter().filter(|chain| chain.is_in_doubt()).count();
    for mut chain in live.into_iter().chain(over) {
        let http = http.clone();
        checks.spawn(async move { (chain.check(&http).await, chain) });
    }
    let mut wrong = Vec::new();
    while let Some(checked) = checks.join_next().await {
        match checked.unwrap() {
            (Ok(()), chain) => sessions.sort_in(chain, random),
            // The client has no state from which to continue.
            (Err(found), _) => wrong.push(found),
        }
    }
    wrong
}

fn config() -> String {
    // Within grace even on a slow machine: see SURELY_IN_GRACE.
    format!("{CONFIG}\n[sessions]\ngrace = \"60s\"\nmax_sessions_per_subject = 10000\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_what_was_acknowledged_survives_kills_at_any_moment() {
    let rounds = std::env::var("CRASH_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("CRASH_ROUNDS is a number"));
    let mut random = Random::new("crash", "CRASH_SEED");
    let place = Place::new(&config());
    let mut sessions = Sessions::default();
    for round in 0..rounds {
        let mut gate = place.start();
        assert_eq!(
            check(&gate, &mut sessions, &mut random).await,
            [],
            "round {round}: after an end between commit and reply"
        );
        let ends = Ends::Killed { replies: 1 + random.below(300) };
        let wrong = load(&mut gate, &mut sessions, ends, &mut random).await;
        assert_eq!(wrong, [], "round {round}: before {ends:?}");

        let mut gate = place.start();
        assert_eq!(check(&gate, &mut sessions, &mut random).await, [], "round {round}: after {ends:?}");
        // No request is in flight, so the check concerns only acknowledged changes.
        gate.kill();

        let commits = 1 + random.below(60);
        let mut gate = place.start_with(|command| {
            command.env("ROTOGATE_FAILPOINT", format!("after-commit:{commits}"));
        });
        let wrong = load(&mut gate, &mut sessions, Ends::ByItself, &mut random).await;
        assert_eq!(wrong, [], "round {round}: before the end after commit {commits}");
    }
    let gate = place.start();
    assert_eq!(check(&gate, &mut sessions, &mut random).await, [], "at the end");
    // Over all rounds, because the number of live sessions at the end depends on the speed of logins.
    let (live, over, in_doubt) = (sessions.checked_live, sessions.over.len(), sessions.in_doubt);
    println!("{live} times a live session was checked, {over} are over, {in_doubt} times a reply was lost");
    assert!(live > 0 && over > 0 && in_doubt > 0, "every kind of session was there to check");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_answers_before_it_commits_is_found() {
    let mut random = Random::new("planted", "CRASH_SEED");
    let place = Place::new(&config());
    let mut sessions = Sessions::default();
    for crash in 0..FOUND_WITHIN {
        let mut gate = place.start_with(|command| {
            command.env("ROTOGATE_FAILPOINT", "ack-before-commit");
        });
        let ends = Ends::Killed { replies: 1 + random.below(100) };
        // The test looks for promises that a crash breaks, not for faults before the crash.
        let _ = load(&mut gate, &mut sessions, ends, &mut random).await;
        let gate = place.start();
        let wrong = check(&gate, &mut sessions, &mut random).await;
        if wrong.iter().any(|found| matches!(found, Wrong::Lost(_))) {
            println!("found after {} crashes", crash + 1);
            return;
        }
    }
    panic!("{FOUND_WITHIN} crashes of a store that answers before it commits, and nothing was missed");
}
