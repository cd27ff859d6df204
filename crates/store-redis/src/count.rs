//! Counters that all nodes share, and the shared moment of a change that each node finds by itself.

use std::time::Duration;

use super::RedisInner;
use super::partitions::Partition;
use super::record::{Op, new_op};
use super::script::{CHANGE, COUNT, unexpected};
use rotogate_core::clock::Timestamp;
use rotogate_core::store::{Admitted, CounterUse, SharedCounter, StoreError};

/// How long the moment of a change is kept.
const CHANGE_KEPT: Duration = Duration::from_secs(86_400);

/// The longest time. In microseconds it stays below 2^53, up to which Lua's numbers are exact.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

impl RedisInner {
    pub(super) async fn stamp_change(&self, name: [u8; 16], state: [u8; 16]) -> Result<Timestamp, StoreError> {
        let args = vec![state.to_vec(), CHANGE_KEPT.as_millis().to_string().into_bytes(), self.leeway()];
        // The first partition issues all stamps.
        let first = self.partitions.first();
        // The moment is for a revocation, so it uses the connection for revocations.
        let (run, keys) = ((new_op()?, first.history()), vec![first.keys.with("c:", &name)]);
        let mut answer = self.run_as(&self.revokes, first, run, &CHANGE, keys, args).await?;
        if answer.status != "stamp" {
            return Err(answer.unknown());
        }
        answer.text()?.parse().map(Timestamp::from_millis).map_err(|_| unexpected("no stamp"))
    }

    pub(super) async fn count(
        &self,
        op: Op,
        counter: SharedCounter,
        how: CounterUse,
    ) -> Result<Option<Duration>, StoreError> {
        let partition = self.partitions.of_target(&counter.name);
        let admitted = self.admit_in(partition, op, None, &[(counter, how)]).await?;
        Ok(admitted.refused.map(|(_, wait)| wait))
    }

    /// Takes from several counters: in one round trip if all are in one partition, otherwise one after the other. If a
    /// counter refuses, gives back what was taken.
    pub(super) async fn admit(
        &self,
        op: Op,
        caller: Option<SharedCounter>,
        counters: Vec<(SharedCounter, CounterUse)>,
    ) -> Result<Admitted, StoreError> {
        if self.partitions.count() == 1 {
            return self.admit_in(self.partitions.first(), op, caller, &counters).await;
        }
        let own = match caller {
            Some(caller) => {
                let taken = self.admit_in(self.partitions.of_target(&caller.name), op, Some(caller), &[]).await?;
                if taken.is_known {
                    return Ok(taken);
                }
                counters
            }
            None => counters,
        };
        let mut taken = Vec::new();
        for (place, (counter, how)) in own.into_iter().enumerate() {
            if let Some(wait) = self.count(op, counter, how).await? {
                for counter in taken {
                    self.count(new_op()?, counter, CounterUse::GiveBack).await?;
                }
                return Ok(Admitted { is_known: false, refused: Some((place, wait)) });
            }
            if how == CounterUse::Take {
                taken.push(counter);
            }
        }
        Ok(Admitted { is_known: false, refused: None })
    }

    /// Takes from several counters of one partition.
    pub(super) async fn admit_in(
        &self,
        partition: &Partition,
        op: Op,
        caller: Option<SharedCounter>,
        counters: &[(SharedCounter, CounterUse)],
    ) -> Result<Admitted, StoreError> {
        let micros = |time: Duration| time.min(LONGEST).as_micros().max(1).to_string().into_bytes();
        let mut keys: Vec<_> = caller.iter().map(|caller| partition.keys.with("k:", &caller.name)).collect();
        let mut args = vec![b"count".to_vec(), if caller.is_some() { b"1".to_vec() } else { b"0".to_vec() }];
        let own = caller.map(|caller| (caller, CounterUse::Take));
        for (counter, how) in own.iter().chain(counters) {
            keys.push(partition.keys.with("l:", &counter.name));
            let word = match how {
                CounterUse::Take => "take",
                CounterUse::Charge => "charge",
                CounterUse::Look => "look",
                CounterUse::GiveBack => "give-back",
            };
            args.extend([word.as_bytes().to_vec(), micros(counter.every), micros(counter.depth())]);
        }
        let (wait, place, is_known) = self.counted(partition, op, keys, args).await?;
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        Ok(Admitted { is_known, refused: (wait > 0).then(|| (place, Duration::from_micros(wait))) })
    }

    pub(super) async fn remember(&self, name: [u8; 16], lifetime: Duration) -> Result<(), StoreError> {
        let millis = lifetime.min(LONGEST).as_millis().max(1).to_string();
        self.named("remember", name, millis).await.map(drop)
    }

    pub(super) async fn remembers(&self, name: [u8; 16]) -> Result<bool, StoreError> {
        self.named("remembers", name, String::new()).await
    }

    async fn named(&self, what: &str, name: [u8; 16], millis: String) -> Result<bool, StoreError> {
        let partition = self.partitions.of_target(&name);
        let args = vec![what.into(), millis.into()];
        let (_, _, is_known) = self.counted(partition, new_op()?, vec![partition.keys.with("k:", &name)], args).await?;
        Ok(is_known)
    }

    /// Runs the counting script. Returns how long to wait, the index of the counter that requires it, and
    /// whether the name is remembered.
    async fn counted(
        &self,
        partition: &Partition,
        op: Op,
        keys: Vec<Vec<u8>>,
        args: Vec<Vec<u8>>,
    ) -> Result<(u64, u64, bool), StoreError> {
        let run = (op, partition.history());
        let mut answer = self.run_as(&self.commands, partition, run, &COUNT, keys, args).await?;
        if answer.status != "counted" {
            return Err(answer.unknown());
        }
        Ok((answer.number()?, answer.number()?, answer.number()? > 0))
    }
}
