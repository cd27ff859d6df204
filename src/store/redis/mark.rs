//! The high-water mark of a gate: which store it last used, and how many writes that had. It is raised at each start and each
//! minute. A store that was emptied, or set back by a back-up, while no gate ran that remembers, is noticed by it.

use std::path::Path;

use redis::{Value, cmd};
use uuid::Uuid;

use super::super::highwater::{HighWater, Mark, Verdict};
use super::super::{StoreError, WriteOutcome};
use super::Keys;
use super::connect::Link;
use super::options::RedisOptions;
use super::script::{bytes, unexpected};

/// Writes the mark, if there is to be one.
pub(super) struct Marker {
    file: Option<HighWater>,
    store: Uuid,
}

impl Marker {
    pub(super) async fn raise(&self, sequence: u64) {
        let Some(file) = self.file.clone() else { return };
        let mark = Mark { store: self.store, sequence };
        let written = tokio::task::spawn_blocking(move || file.raise(mark)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "high-water mark not written; next attempt in a minute");
        }
    }
}

/// Compares the store with the mark, and raises the mark.
pub(super) async fn compare(
    options: &RedisOptions,
    link: &Link,
    keys: &Keys,
    sequence: u64,
) -> Result<Marker, StoreError> {
    let mut asked = cmd("HGET");
    asked.arg(keys.of("h")).arg("store");
    let store = match link.once(&asked).await?.map_err(|error| link.error(&error))? {
        Value::Nil => return Err(unexpected("no store")),
        store => bytes(store).ok_or_else(|| unexpected("no store"))?,
    };
    let mut id = [0; 16];
    id.iter_mut().zip(&store).for_each(|(to, from)| *to = *from);
    let marker = Marker { file: options.high_water.clone().map(HighWater::at), store: Uuid::from_bytes(id) };
    let Some(file) = &marker.file else { return Ok(marker) };
    let now = Mark { store: marker.store, sequence };
    let mark = file.read()?;
    let place = format!("the store {:?} in Redis at {}", options.prefix, options.address());
    match file.alarm(Verdict::of(mark, Some(now)), mark, Path::new(&place)) {
        None => file.raise(now)?,
        Some(alarm) if options.accept_restored => {
            tracing::warn!(alarm, "accepted: accept_restored_store");
            file.write(now)?;
        }
        Some(alarm) => return Err(StoreError::new(alarm).with_outcome(WriteOutcome::Refused)),
    }
    Ok(marker)
}
