//! Limits the connections of an admin listener (requirements A25, A26, A32). Peers without a token share a fixed number
//! of seats. If no seat is free, a new connection replaces the oldest connection of the busiest network. A connection
//! with a valid token moves to a reserved seat.
//!
//! A new connection counts as young for a short time. Additional seats protect young connections. Otherwise a flood of
//! connections could evict an operator before the operator's first request.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use rotogate_core::network::{Network, networks};

/// The maximum number of connections of each kind.
const MAX_STRANGERS: usize = 64;
const MAX_HOLDERS: usize = 64;
/// The maximum for peers without a token, including young connections. About 2000 new connections per second exceed
/// this maximum.
const MAX_WITH_YOUNG: usize = 512;
/// How long a connection counts as young. Normal peers send their request sooner.
const YOUNG: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// In the order of arrival.
    strangers: BTreeMap<u64, Stranger>,
    holders: HashSet<u64>,
    /// Whether the log already reports that the seats are full. The flag is reset when the number falls below half of
    /// the limit.
    is_logged: bool,
}

#[derive(Debug)]
struct Stranger {
    network: Option<Network>,
    since: Instant,
    leaves: Arc<Notify>,
}

/// Dropping the seat frees it.
#[derive(Debug)]
pub(super) struct Seat {
    of: Arc<Seats>,
    number: u64,
    leaves: Arc<Notify>,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock()
    }

    /// Returns a seat, or `None` if no seat can be freed.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Arc<Seat>> {
        let network = networks(address).next().map(|(network, _)| network);
        let (leaves, since) = (Arc::new(Notify::new()), Instant::now());
        let mut taken = self.taken();
        if taken.strangers.len() >= MAX_STRANGERS {
            taken.is_crowded(address);
            if !taken.make_room(network, since) {
                return None;
            }
        }
        let number = taken.next;
        taken.next += 1;
        taken.strangers.insert(number, Stranger { network, since, leaves: Arc::clone(&leaves) });
        Some(Arc::new(Seat { of: Arc::clone(self), number, leaves }))
    }
}

impl Taken {
    /// Logs that the seats for peers without a token are full. Logs again only after half of the seats were free.
    fn is_crowded(&mut self, newest: IpAddr) {
        if !self.is_logged {
            self.is_logged = true;
            tracing::warn!(%newest, most = MAX_STRANGERS, "admin connections without a token have reached their \
                                                           limit; the gate closes the oldest");
        }
    }

    /// Closes the oldest connections of the busiest network until a seat is free. While additional seats are left,
    /// young connections stay open. Otherwise only another network can replace a young connection. Returns whether a
    /// seat is free.
    fn make_room(&mut self, newcomer: Option<Network>, now: Instant) -> bool {
        while self.strangers.len() >= MAX_STRANGERS {
            let mut counts: HashMap<Option<Network>, usize> = HashMap::from([(newcomer, 1)]);
            for stranger in self.strangers.values() {
                *counts.entry(stranger.network).or_default() += 1;
            }
            let most = counts.values().max().copied();
            let has_most = |network| counts.get(&network).copied() == most;
            let Some((number, oldest)) = self.strangers.iter().find(|(_, stranger)| has_most(stranger.network)) else {
                return false;
            };
            let is_young = now.saturating_duration_since(oldest.since) < YOUNG;
            if is_young && self.strangers.len() < MAX_WITH_YOUNG {
                return true;
            }
            if is_young && has_most(newcomer) {
                return false;
            }
            let number = *number;
            if let Some(stranger) = self.strangers.remove(&number) {
                stranger.leaves.notify_one();
            }
            if is_young {
                return true;
            }
        }
        true
    }
}

impl Seat {
    pub(super) fn hold(&self) {
        let mut taken = self.of.taken();
        if taken.holders.len() < MAX_HOLDERS && taken.strangers.remove(&self.number).is_some() {
            taken.holders.insert(self.number);
        }
    }

    pub(super) async fn left(&self) {
        self.leaves.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        taken.strangers.remove(&self.number);
        taken.holders.remove(&self.number);
        taken.is_logged &= taken.strangers.len() >= MAX_STRANGERS / 2;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const OPERATOR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn has_left(seat: &Seat) -> bool {
        seat.left().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a25_who_has_most_gives_way_the_oldest_first_and_who_has_few_never() {
        let seats = Arc::new(Seats::default());
        let take = |last: u8| seats.take([203, 0, 113, last].into()).unwrap();
        let probe = take(1);
        let mut flood = Vec::new();
        for _ in 0..500 {
            tokio::time::advance(YOUNG).await;
            flood.push(take(2));
        }
        assert!(!has_left(&probe));
        let gone = flood.iter().filter(|seat| has_left(seat)).count();
        assert_eq!(gone, 500 - (MAX_STRANGERS - 1));
        assert!(flood.iter().rev().take(MAX_STRANGERS - 1).all(|seat| !has_left(seat)), "the newest stay");
        let another = take(3);
        assert!(!has_left(&probe) && !has_left(&another));
        drop((probe, another, flood));
        assert!(seats.taken().strangers.is_empty() && !seats.taken().is_logged, "nothing is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn a25_a_64_counts_as_one_and_one_address_alone_has_every_place() {
        let seats = Arc::new(Seats::default());
        let other = seats.take("2001:db8:1::1".parse().unwrap()).unwrap();
        let take = |n: usize| seats.take(format!("2001:db8::{n:x}").parse().unwrap()).unwrap();
        let of_one: Vec<_> = (1..64).map(take).collect();
        tokio::time::advance(YOUNG).await;
        let last = take(64);
        assert!(!has_left(&other) && has_left(&of_one[0]) && !has_left(&of_one[1]) && !has_left(&last));
        let alone = Arc::new(Seats::default());
        let all: Vec<_> = (0..MAX_STRANGERS).map(|_| alone.take(OPERATOR).unwrap()).collect();
        assert!(all.iter().all(|seat| !has_left(seat)));
    }

    #[tokio::test(start_paused = true)]
    async fn a26_a_holder_of_a_token_gives_way_to_no_stranger() {
        let seats = Arc::new(Seats::default());
        let take = || seats.take(OPERATOR);
        let held: Vec<_> = (0..MAX_HOLDERS).filter_map(|_| take()).collect();
        held.iter().for_each(|seat| seat.hold());
        let strangers: Vec<_> = (0..500).filter_map(|_| take()).collect();
        assert!(held.iter().all(|seat| !has_left(seat)));
        let more = take().unwrap();
        more.hold();
        more.hold();
        tokio::time::advance(YOUNG).await;
        let after: Vec<_> = (0..MAX_WITH_YOUNG).filter_map(|_| take()).collect();
        assert!(has_left(&more) && held.iter().all(|seat| !has_left(seat)));
        // A closed connection does not get a reserved seat, even if its peer sends a token.
        strangers[0].hold();
        drop(held);
        strangers[1].hold();
        assert!(seats.taken().holders.is_empty());
        drop((strangers, after, more));
        assert!(seats.taken().strangers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a32_a_crowd_that_connects_again_pushes_no_operator_out_who_sends_a_token_in_time() {
        let seats = Arc::new(Seats::default());
        // The operator's own address opens 1000 connections per second.
        let mut crowd: Vec<Arc<Seat>> = Vec::new();
        let mut connect = async || {
            tokio::time::advance(Duration::from_millis(1)).await;
            crowd.retain(|seat| !has_left(seat));
            crowd.extend(seats.take(OPERATOR));
            crowd.len()
        };
        for _ in 0..600 {
            connect().await;
        }
        for _ in 0..3 {
            let operator = seats.take(OPERATOR).expect("a seat");
            for _ in 1..YOUNG.as_millis() {
                assert!(connect().await <= MAX_WITH_YOUNG);
                assert!(!has_left(&operator));
            }
            operator.hold();
            for _ in 0..600 {
                connect().await;
            }
            assert!(!has_left(&operator));
        }
        assert!(connect().await < MAX_WITH_YOUNG, "and there is room");
    }

    #[tokio::test(start_paused = true)]
    async fn a32_beyond_all_seats_a_newcomer_of_the_crowds_network_is_refused_and_no_other() {
        let seats = Arc::new(Seats::default());
        let mut crowd: Vec<_> = (0..10_000).filter_map(|_| seats.take(OPERATOR)).collect();
        assert_eq!(crowd.len(), MAX_WITH_YOUNG);
        let probe = seats.take([203, 0, 113, 1].into()).unwrap();
        assert!(has_left(&crowd[0]) && !has_left(&crowd[1]) && !has_left(&probe));
        assert!(seats.take(OPERATOR).is_none());
        tokio::time::advance(YOUNG).await;
        crowd.push(seats.take(OPERATOR).unwrap());
        assert!(has_left(&crowd[1]) && !has_left(&probe));
        assert_eq!(seats.taken().strangers.len(), MAX_STRANGERS, "those that are no longer young leave together");
    }
}
