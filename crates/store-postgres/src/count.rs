//! Counters that all nodes share, and the shared moment of a change that each node finds by itself.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::PostgresInner;
use super::call::Arg;
use super::record::time;
use rotogate_core::clock::Timestamp;
use rotogate_core::store::kit::fields::Op;
use rotogate_core::store::{Admitted, CounterUse, SharedCounter, StoreError};

/// How long the moment of a change is kept.
const CHANGE_KEPT: Duration = Duration::from_secs(86_400);
/// The longest time. In microseconds, two such times can be added to a time without overflow.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

fn micros(time: Duration) -> i64 {
    i64::try_from(time.min(LONGEST).as_micros().max(1)).unwrap_or(i64::MAX)
}

fn millis(time: Duration) -> Arg {
    Arg::Big(i64::try_from(time.min(LONGEST).as_millis().max(1)).unwrap_or(i64::MAX))
}

impl PostgresInner {
    pub(super) async fn stamp_change(&self, name: [u8; 16], state: [u8; 16]) -> Result<Timestamp, StoreError> {
        let args = vec![Arg::bytes(&name), Arg::bytes(&state), millis(CHANGE_KEPT)];
        // The moment is for a revocation, so it uses the connections for revocations.
        let answer = self.one_by(&self.revocations, "rg_change", args).await?;
        if answer.status()? == "stamp" { Ok(time(answer.get("o_stamp")?)) } else { Err(answer.unknown()) }
    }

    pub(super) async fn admit(
        &self,
        op: Op,
        caller: Option<SharedCounter>,
        counters: Vec<(SharedCounter, CounterUse)>,
    ) -> Result<Admitted, StoreError> {
        let caller_name = match &caller {
            Some(caller) => Arg::bytes(&caller.name),
            None => Arg::Null(Type::BYTEA),
        };
        let all: Vec<_> = caller.map(|caller| (caller, CounterUse::Take)).into_iter().chain(counters).collect();
        let how = |how: &CounterUse| match how {
            CounterUse::Take => 0,
            CounterUse::Charge => 1,
            CounterUse::Look => 2,
            CounterUse::GiveBack => 3,
        };
        let args = vec![
            Arg::bytes(&op),
            caller_name,
            Arg::byte_list(all.iter().map(|(counter, _)| counter.name.to_vec())),
            Arg::Bigs(all.iter().map(|(_, of)| how(of)).collect()),
            Arg::Bigs(all.iter().map(|(counter, _)| micros(counter.every)).collect()),
            Arg::Bigs(all.iter().map(|(counter, _)| micros(counter.depth())).collect()),
        ];
        let answer = self.one("rg_admit", args).await?;
        if answer.status()? != "counted" {
            return Err(answer.unknown());
        }
        let wait = u64::try_from(answer.get::<i64>("o_wait")?).unwrap_or_default();
        let place = usize::try_from(answer.get::<Option<i64>>("o_place")?.unwrap_or_default()).unwrap_or_default();
        let refused = (wait > 0).then(|| (place, Duration::from_micros(wait)));
        Ok(Admitted { is_known: answer.get("o_is_known")?, refused })
    }

    pub(super) async fn remember(&self, name: [u8; 16], lifetime: Duration) -> Result<(), StoreError> {
        let answer = self.one("rg_remember", vec![Arg::bytes(&name), millis(lifetime)]).await?;
        if answer.status()? == "remembered" { Ok(()) } else { Err(answer.unknown()) }
    }

    pub(super) async fn remembers(&self, name: [u8; 16]) -> Result<bool, StoreError> {
        let answer = self.one("rg_remembers", vec![Arg::bytes(&name)]).await?;
        if answer.status()? == "remembers" { answer.get("o_is_known") } else { Err(answer.unknown()) }
    }
}
