//! Lists sessions in pages.
//!
//! An index lists each subject's sessions. To list all sessions, the first page scans the Redis keys, and the following
//! pages use the ids that the scan found.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use redis::{Value, pipe};
use tokio::time::Instant;

use super::RedisInner;
use super::cluster::{Cluster, Primaries};
use super::connect::{Link, Request};
use super::script::{bytes, unexpected};
use rotogate_core::session::SessionId;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::network::not_done;

const SCANNED_AT_ONCE: usize = 1000;
/// The maximum number of scans. A scan starts again if partitions have moved.
const MAX_SCANS: u32 = 3;
/// How long the following pages may use the ids that a scan found.
const SCAN_KEPT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Listing(Mutex<Option<ScannedIds>>);

#[derive(Clone)]
struct ScannedIds {
    at: Instant,
    ids: Arc<[SessionId]>,
}

impl RedisInner {
    pub(super) async fn all(&self, goes_on: bool) -> Result<Arc<[SessionId]>, StoreError> {
        if goes_on {
            let known = self.listing.0.lock().clone();
            if let Some(scan) = known.filter(|scan| scan.at.elapsed() < SCAN_KEPT) {
                return Ok(scan.ids);
            }
        }
        let ids: Arc<[SessionId]> = self.scan().await?.into();
        let scan = ScannedIds { at: Instant::now(), ids: Arc::clone(&ids) };
        *self.listing.0.lock() = Some(scan);
        Ok(ids)
    }

    async fn scan(&self) -> Result<Vec<SessionId>, StoreError> {
        let mut ids = match &self.commands {
            Primaries::One(link) => self.scan_server(link).await?,
            Primaries::Cluster(cluster) => self.scan_cluster(cluster).await?,
        };
        // Checks that the ids belong to the expected history.
        try_join_all(self.partitions.iter().map(|partition| self.read(&self.commands, partition, |_| ()))).await?;
        // A scan may return a key more than once.
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    async fn scan_cluster(&self, cluster: &Cluster) -> Result<Vec<SessionId>, StoreError> {
        for _ in 0..MAX_SCANS {
            let (number, links) = cluster.primaries();
            let parts = try_join_all(links.iter().map(|link| self.scan_server(link))).await;
            // The scan may have missed a moved partition.
            if cluster.primaries().0 == number {
                return Ok(parts?.into_iter().flatten().collect());
            }
        }
        Err(not_done("partitions repeatedly moved to other Redis servers while the gate listed the sessions"))
    }

    async fn scan_server(&self, link: &Link) -> Result<Vec<SessionId>, StoreError> {
        let prefixes: Vec<_> = self.partitions.iter().map(|partition| partition.keys.named("s:")).collect();
        let pattern = match &*prefixes {
            [one] => [one, &b"*"[..]].concat(),
            _ => format!("{{{}:*}}:s:*", self.options.prefix).into_bytes(),
        };
        let (mut ids, mut cursor) = (Vec::new(), b"0".to_vec());
        loop {
            let mut pipeline = pipe();
            let scan = pipeline.cmd("SCAN").arg(cursor).arg("MATCH").arg(&pattern);
            scan.arg("COUNT").arg(SCANNED_AT_ONCE);
            let Value::Array(replies) = link.ask(&Request::Pipeline(pipeline)).await? else {
                return Err(unexpected("no list"));
            };
            let Some(Value::Array(parts)) = replies.into_iter().next() else { return Err(unexpected("no scan")) };
            let [next, Value::Array(keys)] = <[Value; 2]>::try_from(parts).map_err(|_| unexpected("a short scan"))?
            else {
                return Err(unexpected("no keys"));
            };
            let id = |key: Vec<u8>| prefixes.iter().find_map(|prefix| key.strip_prefix(&**prefix)?.try_into().ok());
            ids.extend(keys.into_iter().filter_map(|key| id(bytes(key)?)).map(SessionId::from_bytes));
            cursor = bytes(next).ok_or_else(|| unexpected("no cursor"))?;
            if cursor == b"0" {
                return Ok(ids);
            }
        }
    }
}
