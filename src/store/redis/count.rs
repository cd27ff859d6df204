//! What all nodes count together, and the moment of a change that each of them finds.

use std::time::Duration;

use super::super::StoreError;
use super::super::shared::{CounterUse, SharedCounter};
use super::Inner;
use super::record::{Op, new_op};
use super::script::{CHANGE, COUNT, unexpected};
use crate::clock::Timestamp;

/// How long the moment of a change is kept.
const CHANGE_KEPT: Duration = Duration::from_secs(86_400);

/// Lua computes with numbers that are exact up to 2^53. So many microseconds are a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

impl Inner {
    pub(super) async fn stamp_change(&self, name: [u8; 16], state: [u8; 16]) -> Result<Timestamp, StoreError> {
        let args = vec![state.to_vec(), CHANGE_KEPT.as_millis().to_string().into_bytes()];
        // The stamps are there.
        let first = self.partitions.first();
        // It is for a revocation.
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
        let word = match how {
            CounterUse::Take => "take",
            CounterUse::Charge => "charge",
            CounterUse::Look => "look",
            CounterUse::GiveBack => "give-back",
        };
        let micros = |time: Duration| time.min(LONGEST).as_micros().max(1).to_string();
        let args = [word.to_owned(), micros(counter.every), micros(counter.depth())];
        let wait = self.counted(op, ("l:", counter.name), args).await?;
        Ok((wait > 0).then(|| Duration::from_micros(wait)))
    }

    pub(super) async fn remember(&self, name: [u8; 16], lifetime: Duration) -> Result<(), StoreError> {
        let millis = lifetime.min(LONGEST).as_millis().max(1).to_string();
        let args = ["remember".to_owned(), String::new(), millis];
        self.counted(new_op()?, ("k:", name), args).await.map(drop)
    }

    pub(super) async fn remembers(&self, name: [u8; 16]) -> Result<bool, StoreError> {
        let args = ["remembers".to_owned(), String::new(), String::new()];
        Ok(self.counted(new_op()?, ("k:", name), args).await? > 0)
    }

    /// Each name has one partition, of all nodes.
    async fn counted(&self, op: Op, (kind, name): (&str, [u8; 16]), args: [String; 3]) -> Result<u64, StoreError> {
        let partition = self.partitions.of_target(&name);
        let (keys, args) = (vec![partition.keys.with(kind, &name)], args.map(String::into_bytes).into());
        let run = (op, partition.history());
        let mut answer = self.run_as(&self.commands, partition, run, &COUNT, keys, args).await?;
        if answer.status == "counted" { answer.number() } else { Err(answer.unknown()) }
    }
}
