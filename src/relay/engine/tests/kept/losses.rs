//! A store that loses its last writes, for two gates, one of which is killed now and then. I71, I73.

use super::*;

const SPACES: [Space; 3] = [EXCHANGES, KEPT_REPLIES, TOKEN_USES];

type Rows = Vec<(Space, RowKey, Row)>;

async fn rows(store: &MemoryStore) -> Rows {
    let mut rows = Vec::new();
    for space in SPACES {
        for key in store.row_keys(space, None, usize::MAX).await.unwrap() {
            rows.extend(store.load_row(space, key).await.unwrap().map(|row| (space, key, row)));
        }
    }
    rows
}

/// Everything that was written after `kept` is lost.
async fn go_back_to(store: &MemoryStore, kept: &Rows) {
    for (space, key, _) in rows(store).await {
        store.remove_row(space, key, None).await.unwrap();
    }
    for (space, key, row) in kept {
        store.insert_row(*space, *key, row.clone(), Timestamp::ZERO).await.unwrap();
    }
}

/// Two gates on one store, which loses writes.
struct Gates {
    setting: Setting,
    gates: [Arc<Relay>; 2],
    kept: Rows,
    dice: Random,
}

impl Gates {
    fn new(seed: u64) -> Self {
        let setting = Setting::new();
        let gates = [setting.relay(), setting.relay()];
        Self { setting, gates, kept: Vec::new(), dice: Random::from_seed(seed) }
    }

    fn any(&mut self) -> Arc<Relay> {
        self.gates[usize::from(self.dice.one_in(2))].clone()
    }

    /// Time passes. Returns whether the store lost writes meanwhile.
    async fn pass(&mut self) -> bool {
        self.setting.world.pass([1, 29, 31, HOUR, 23 * HOUR][self.dice.below(5) as usize]);
        if self.dice.one_in(4) {
            self.gates[usize::from(self.dice.one_in(2))] = self.setting.relay();
        }
        let store = &self.setting.world.store.inner;
        let what = self.dice.below(6);
        match what {
            0 => go_back_to(store, &self.kept).await,
            1 | 2 => self.kept = rows(store).await,
            _ => {}
        }
        what == 0
    }
}

#[tokio::test]
async fn i71_a_client_is_logged_out_only_if_the_store_loses_the_reply_that_it_lacks() {
    let (mut lost_replies, mut logged_out) = (0, 0);
    for seed in 0..200 {
        let mut gates = Gates::new(seed);
        // Whether this token was presented before, and whether the store lost writes since.
        let (mut holds, mut was_presented, mut has_lost) = (0, false, false);
        for _ in 0..20 {
            let Some(got) = pair(&gates.any(), refresh(holds)).await else {
                assert!(was_presented && has_lost, "seed {seed}");
                logged_out += 1;
                break;
            };
            (was_presented, has_lost) = (true, was_presented && has_lost);
            if gates.dice.one_in(2) {
                (holds, was_presented, has_lost) = (got, false, false);
                if gates.dice.one_in(2) {
                    use_access(&gates.any(), got).await;
                }
            }
            has_lost |= gates.pass().await && was_presented;
            lost_replies += usize::from(was_presented);
        }
    }
    assert!(logged_out > 0 && lost_replies > 2 * logged_out, "{logged_out} of {lost_replies}");
}

#[tokio::test]
async fn i73_two_holders_who_both_go_on_are_detected_although_the_store_loses_writes() {
    for seed in 0..200 {
        let mut gates = Gates::new(seed);
        let mut holds = [0, 0];
        for _ in 0..10 {
            let who = usize::from(gates.dice.one_in(2));
            if gates.dice.one_in(3) && holds[who] > 0 {
                use_access(&gates.any(), holds[who]).await;
            } else if let Some(got) = pair(&gates.any(), refresh(holds[who])).await {
                holds[who] = got;
            }
            gates.pass().await;
        }
        // Each goes on once more, when the other has used its pair.
        for who in [0, 1, 0] {
            gates.setting.world.pass(HOUR);
            if let Some(got) = pair(&gates.any(), refresh(holds[who])).await {
                holds[who] = got;
                use_access(&gates.any(), got).await;
            }
        }
        let sent = gates.setting.provider.presented();
        assert!(gates.setting.provider.has_ended(), "seed {seed}: {sent:?}");
    }
}
