//! The connections of an admin listener (requirements A25, A26). Each is taken at once: none waits behind others for a
//! seat. Those of strangers have so many seats; where one more comes, the oldest of the network that has most gives
//! way. A connection whose peer has shown an admin token has a seat of another kind, which no stranger takes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use rotogate::network::{Network, networks};

/// The most connections of each kind: enough for some scrapers, probes and commands, and few of the process's file
/// descriptors.
const MAX_STRANGERS: usize = 64;
const MAX_HOLDERS: usize = 64;

/// The seats of one listener.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// In the order in which they came.
    strangers: BTreeMap<u64, Stranger>,
    holders: HashSet<u64>,
    /// Whether the log has said that connections give way, and since then there were always many.
    is_logged: bool,
}

#[derive(Debug)]
struct Stranger {
    network: Option<Network>,
    leaves: Arc<Notify>,
}

/// The seat of one connection, until dropped.
#[derive(Debug)]
pub(super) struct Seat {
    of: Arc<Seats>,
    number: u64,
    leaves: Arc<Notify>,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a connection from this address.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Arc<Seat> {
        let network = networks(address).next().map(|(network, _)| network);
        let leaves = Arc::new(Notify::new());
        let mut taken = self.taken();
        let number = taken.next;
        taken.next += 1;
        taken.strangers.insert(number, Stranger { network, leaves: Arc::clone(&leaves) });
        if taken.strangers.len() > MAX_STRANGERS {
            taken.give_way(address);
        }
        Arc::new(Seat { of: Arc::clone(self), number, leaves })
    }
}

impl Taken {
    /// Ends the oldest connection of the network with most.
    fn give_way(&mut self, newest: IpAddr) {
        let mut counts: HashMap<Option<Network>, usize> = HashMap::new();
        for stranger in self.strangers.values() {
            *counts.entry(stranger.network).or_default() += 1;
        }
        let most = counts.values().max().copied();
        let oldest = self.strangers.iter().find(|(_, stranger)| counts.get(&stranger.network).copied() == most);
        let Some(stranger) = oldest.map(|(number, _)| *number).and_then(|number| self.strangers.remove(&number)) else {
            return;
        };
        stranger.leaves.notify_one();
        if !self.is_logged {
            self.is_logged = true;
            // Once for each flood.
            tracing::warn!(%newest, most = MAX_STRANGERS, "admin connections without a token at their bound; the oldest close");
        }
    }
}

impl Seat {
    /// Its peer has shown an admin token. Without a free seat of the other kind, it keeps what it has.
    pub(super) fn hold(&self) {
        let mut taken = self.of.taken();
        if taken.holders.len() < MAX_HOLDERS && taken.strangers.remove(&self.number).is_some() {
            taken.holders.insert(self.number);
        }
    }

    /// Resolves when the connection gives way to another.
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

    fn has_left(seat: &Seat) -> bool {
        seat.left().now_or_never().is_some()
    }

    #[test]
    fn a25_who_has_most_gives_way_the_oldest_first_and_who_has_few_never() {
        let seats = Arc::new(Seats::default());
        let take = |last: u8| seats.take([203, 0, 113, last].into());
        // A probe came first, and has one connection.
        let probe = take(1);
        let flood: Vec<_> = (0..500).map(|_| take(2)).collect();
        assert!(!has_left(&probe));
        let gone = flood.iter().filter(|seat| has_left(seat)).count();
        assert_eq!(gone, 500 - (MAX_STRANGERS - 1));
        assert!(flood.iter().rev().take(MAX_STRANGERS - 1).all(|seat| !has_left(seat)), "the newest stay");
        let another = take(3);
        assert!(!has_left(&probe) && !has_left(&another));
        drop((probe, another, flood));
        assert!(seats.taken().strangers.is_empty() && !seats.taken().is_logged, "nothing is remembered");
    }

    #[test]
    fn a25_a_64_counts_as_one_and_one_address_alone_has_every_place() {
        let seats = Arc::new(Seats::default());
        let other = seats.take("2001:db8:1::1".parse().unwrap());
        let of_one: Vec<_> = (1..=64).map(|n| seats.take(format!("2001:db8::{n:x}").parse().unwrap())).collect();
        assert!(!has_left(&other) && has_left(&of_one[0]) && !has_left(&of_one[1]));
        let alone = Arc::new(Seats::default());
        let all: Vec<_> = (0..MAX_STRANGERS).map(|_| alone.take([127, 0, 0, 1].into())).collect();
        assert!(all.iter().all(|seat| !has_left(seat)));
    }

    #[test]
    fn a26_a_holder_of_a_token_gives_way_to_no_stranger() {
        let seats = Arc::new(Seats::default());
        let take = || seats.take([127, 0, 0, 1].into());
        let held: Vec<_> = (0..MAX_HOLDERS).map(|_| take()).collect();
        held.iter().for_each(|seat| seat.hold());
        let strangers: Vec<_> = (0..500).map(|_| take()).collect();
        assert!(held.iter().all(|seat| !has_left(seat)));
        // One more is let in, and is one of the strangers.
        let more = take();
        more.hold();
        more.hold();
        let after: Vec<_> = (0..MAX_STRANGERS).map(|_| take()).collect();
        assert!(has_left(&more) && held.iter().all(|seat| !has_left(seat)));
        // One that gave way is none of them any more, whatever it shows.
        strangers[0].hold();
        drop(held);
        strangers[1].hold();
        assert!(seats.taken().holders.is_empty());
        drop((strangers, after, more));
        assert!(seats.taken().strangers.is_empty());
    }
}
