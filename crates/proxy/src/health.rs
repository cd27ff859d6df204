//! Active health checks.

use std::sync::Arc;

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, Version};
use http_body_util::BodyExt;
use tokio::time::MissedTickBehavior;

use super::address::{Address, ConnectionUse};
use super::body::{LentBody, Progress, RequestBody};
use super::head_timeout::HeadTimeout;
use super::pool::Pool;
use super::upstream::HealthCheck;
use super::url::UpstreamUrl;

/// The maximum number of bytes to read from a response. A connection is reusable only after a complete response.
const MAX_READ_BYTES: usize = 64 * 1024;

impl Pool {
    pub(super) async fn keep_checking(self: &Arc<Self>, check: &HealthCheck) {
        let mut ticks = tokio::time::interval(check.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let all = self.all();
            futures_util::future::join_all(all.iter().map(|address| self.check(address, check))).await;
        }
    }

    async fn check(self: &Arc<Self>, address: &Arc<Address>, check: &HealthCheck) {
        if address.url == UpstreamUrl::Echo {
            return;
        }
        let answer = tokio::time::timeout(check.timeout, ask(address, check)).await;
        if answer.is_ok_and(|answer| answer.is_some()) {
            if address.record_good_check(check.healthy_after) {
                self.readmitted(address);
            }
        } else if address.record_bad_check(check.unhealthy_after) {
            self.eject(address, "health", None);
        }
    }
}

/// Returns `None` unless the response is 2xx.
async fn ask(address: &Address, check: &HealthCheck) -> Option<()> {
    let (clients, url) = (address.clients()?, address.url.address()?);
    let (lent, _) = RequestBody::empty().lend(0);
    let mut request: Request<LentBody> = Request::new(lent);
    *request.uri_mut() = address.url.uri(&check.path)?;
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("rotogate"));
    match address.url {
        UpstreamUrl::Http(_) => drop(request.headers_mut().insert(HOST, url.host().clone())),
        UpstreamUrl::H2c(_) => *request.version_mut() = Version::HTTP_2,
        UpstreamUrl::Https(_) | UpstreamUrl::Echo => {}
    }
    let timeout = HeadTimeout { limit: check.timeout, progress: &Progress::default() };
    let (mut response, _in_use) = clients.send(&mut Some(request), ConnectionUse::Shared, timeout).await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let mut read = 0;
    while read < MAX_READ_BYTES {
        let Some(frame) = response.body_mut().frame().await else { break };
        read += frame.ok()?.data_ref().map_or(0, bytes::Bytes::len);
    }
    Some(())
}
