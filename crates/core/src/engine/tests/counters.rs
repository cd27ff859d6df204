//! Counters that gates share, while a refresh secret is added and retired.

use std::sync::Arc;
use std::time::Duration;

use super::support::{HOUR, ISSUER, Keys, LEEWAY, T0};
use crate::clock::{ManualTime, TimeSource};
use crate::engine::StoreCounters;
use crate::limit::Rate;
use crate::limit::shared::{Admission, RateCounters, Use};
use crate::store::Store;
use crate::store::conformance::nodes::MemoryNode;

const GUESSES: &[u8] = b"guesses at ada";

/// Two gates on one store, and the secrets of refresh tokens that they may have.
struct Gates {
    gates: [StoreCounters; 2],
    keys: Keys,
}

impl Gates {
    fn new() -> Self {
        let keys = Keys::new();
        let time = ManualTime::at(T0);
        let first = MemoryNode::first(ISSUER, LEEWAY, Arc::clone(&time) as Arc<dyn TimeSource>);
        let gate = |node: MemoryNode| StoreCounters::new(Arc::new(node) as Arc<dyn Store>, keys.ring(&["a"], &[1]));
        Self { gates: [gate(first.another()), gate(first)], keys }
    }

    /// Reloads one gate with these secrets, the current one first.
    fn reload(&self, gate: usize, secrets: &[u8]) {
        self.gates[gate].set_keyring(self.keys.ring(&["a"], secrets));
    }

    async fn admit(&self, gate: usize, caller: Option<&[u8]>, names: &[(&[u8], Use)]) -> Admission {
        let rate = Rate::new(3, HOUR);
        let steps: Vec<_> = names.iter().map(|(name, how)| (name.to_vec(), rate, *how)).collect();
        self.gates[gate].admit(caller.map(|name| (name, rate)), &steps).await.unwrap()
    }

    /// How many of four attempts pass.
    async fn passes(&self, gate: usize, name: &[u8]) -> usize {
        let mut passed = 0;
        for _ in 0..4 {
            passed += usize::from(self.admit(gate, None, &[(name, Use::Take)]).await.refused.is_none());
        }
        passed
    }
}

#[tokio::test]
async fn c29_a_used_up_limit_stays_used_up_when_the_oldest_refresh_secret_is_retired() {
    let gates = Gates::new();
    // The new secret is added at one gate after the other, promoted, and then the old one is retired likewise.
    for (gate, secrets) in [(0, &[1, 2][..]), (1, &[1, 2]), (0, &[2, 1]), (1, &[2, 1])] {
        gates.reload(gate, secrets);
    }
    assert_eq!((gates.passes(0, GUESSES).await, gates.passes(1, GUESSES).await), (3, 0));
    assert_eq!(gates.passes(1, b"others").await, 3, "each name of a counter has the whole burst");
    gates.reload(0, &[2]);
    assert_eq!((gates.passes(0, GUESSES).await, gates.passes(1, GUESSES).await), (0, 0), "one gate has retired it");
    // Between two gates of which one has retired it, one budget counts.
    assert_eq!((gates.passes(0, b"between").await, gates.passes(1, b"between").await), (3, 0));
    assert_eq!((gates.passes(1, b"as well").await, gates.passes(0, b"as well").await), (3, 0));
    gates.reload(1, &[2]);
    for name in [GUESSES, b"others", b"between", b"as well"] {
        assert_eq!((gates.passes(0, name).await, gates.passes(1, name).await), (0, 0));
    }
}

#[tokio::test]
async fn c29_a_refusal_names_its_step_and_takes_nothing_also_with_two_secrets() {
    let gates = Gates::new();
    gates.reload(0, &[2, 1]);
    assert_eq!(gates.passes(0, GUESSES).await, 3);
    let refused = gates.admit(0, None, &[(b"free", Use::Take), (GUESSES, Use::Take)]).await.refused;
    assert!(refused.is_some_and(|(place, wait)| place == 1 && wait <= HOUR), "{refused:?}");
    assert_eq!(gates.passes(0, b"free").await, 3);
    // A debt, too.
    for _ in 0..4 {
        gates.admit(0, None, &[(b"failures", Use::Charge)]).await;
    }
    for secrets in [&[2, 1][..], &[2]] {
        gates.reload(0, secrets);
        let steps: [(&[u8], Use); 3] = [(b"f2", Use::Look), (b"f3", Use::Look), (b"failures", Use::Look)];
        assert_eq!(gates.admit(0, None, &steps).await.refused.map(|(place, _)| place), Some(2), "{secrets:?}");
    }
}

#[tokio::test]
async fn c29_a_known_caller_stays_known_and_gets_no_second_budget_by_a_retirement() {
    let gates = Gates::new();
    gates.reload(0, &[2, 1]);
    let (caller, steps): (&[u8], [(&[u8], Use); 1]) = (b"ada at home", [(b"all", Use::Take)]);
    gates.gates[0].remember(caller).await.unwrap();
    for secrets in [&[2, 1][..], &[2]] {
        gates.reload(0, secrets);
        assert!(gates.gates[0].remembers(caller).await.unwrap(), "{secrets:?}");
        assert!(!gates.gates[0].remembers(b"mallory").await.unwrap());
    }
    gates.reload(0, &[2, 1]);
    for _ in 0..3 {
        let said = gates.admit(0, Some(caller), &steps).await;
        assert!(said.is_known && said.refused.is_none(), "{said:?}");
    }
    for secrets in [&[2, 1][..], &[2]] {
        gates.reload(0, secrets);
        let said = gates.admit(0, Some(caller), &steps).await;
        assert!(said.is_known && said.refused.is_some_and(|(_, wait)| wait > Duration::ZERO), "{secrets:?}: {said:?}");
    }
    assert_eq!(gates.passes(0, b"all").await, 3, "the caller used only its own");
}
