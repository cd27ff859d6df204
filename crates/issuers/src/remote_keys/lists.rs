//! Fetches the status lists that the tokens of an issuer name.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::answer::FetchFailure;
use super::client::FetchClient;
use super::settings::RemoteIssuer;
use rotogate_core::counters::Seldom;
use rotogate_core::denial::Denial;
use rotogate_core::http_client::{Allowed, Document, FetchTarget};
use rotogate_core::token::remote_status::{InForce, RemoteList, RemoteLists};
use rotogate_core::token::verify::{MAX_STATUS_LIST, SentStatusList};

/// How long the task sleeps at most: the gate's clock may run ahead of its timer.
const IDLE: Duration = Duration::from_secs(60);

/// Why a list was not accepted.
enum NoList {
    Fetch(FetchFailure),
    Refused(Denial),
}

/// Fetches these lists with the client of the issuer, until the last owner drops them. Needs a tokio runtime.
pub fn follow_status_lists(lists: &Arc<RemoteLists>, issuer: &RemoteIssuer, leeway: Duration) {
    let mut issuer = issuer.clone();
    issuer.fetch.max_size = MAX_STATUS_LIST;
    tokio::spawn(follow(Arc::downgrade(lists), issuer, leeway));
}

async fn follow(lists: Weak<RemoteLists>, issuer: RemoteIssuer, leeway: Duration) {
    let mut client = FetchClient::new(&issuer);
    let mut failing = Seldom::default();
    loop {
        let Some(known) = lists.upgrade() else { return };
        let wants = known.wants();
        let Some(in_force) = known.in_force() else {
            drop(known);
            pause(&wants, IDLE).await;
            continue;
        };
        let clock = &in_force.clock;
        let (due, next) = known.due(clock.now());
        for (list, failure) in fetch(&mut client, &due, (&known, &issuer), (&in_force, leeway)).await {
            list.fail(clock.now());
            if failing.is_due(clock.source().monotonic()) {
                let (cause, error) = match failure {
                    NoList::Fetch(failure) => (failure.cause, failure.message),
                    NoList::Refused(denial) => ("refused", denial.to_string()),
                };
                let url = list.url();
                tracing::error!(issuer = %issuer.name, url, cause, error, "status list not taken; retrying");
            }
        }
        if !due.is_empty() {
            continue;
        }
        drop((due, known, in_force));
        pause(&wants, next.unwrap_or(IDLE)).await;
    }
}

/// Waits until a request wants a list, or a gate uses the lists, for a bounded time.
async fn pause(wants: &Notify, time: Duration) {
    // After a timeout, the lists are looked at again.
    let _ = tokio::time::timeout(time.min(IDLE), wants.notified()).await;
}

/// Fetches lists concurrently. Returns the lists that failed.
async fn fetch<'l>(
    client: &mut FetchClient,
    due: &'l [Arc<RemoteList>],
    (lists, issuer): (&RemoteLists, &RemoteIssuer),
    (InForce { keys, clock }, leeway): (&InForce, Duration),
) -> Vec<(&'l Arc<RemoteList>, NoList)> {
    let (client, authorization) = match client.current() {
        Ok(current) => current,
        Err(failure) => return due.iter().map(|list| (list, NoList::Fetch(failure.clone()))).collect(),
    };
    let one = async |list: &'l Arc<RemoteList>| {
        let target = FetchTarget::parse(list.url(), Allowed::by_operator())
            .map_err(|why| NoList::Fetch(FetchFailure::refused_address(why.to_string())))?;
        let document = client.get_document(&target, None, authorization.as_ref()).await;
        let body = match document.map_err(|error| NoList::Fetch(error.into()))? {
            Document::New { body, .. } => body,
            Document::Unchanged { .. } => bytes::Bytes::new(),
        };
        let text = std::str::from_utf8(&body).map_err(|_| NoList::Refused(Denial::MalformedToken("no text")))?;
        let known = list.current().map(|list| list.issued_at);
        let sent = SentStatusList { text: text.trim(), url: list.url(), issuer: &issuer.issuer, keys, known, leeway };
        let (now, wall) = (clock.now(), clock.wall());
        let read = sent.read(now, wall).map_err(NoList::Refused)?;
        list.take(read, lists.rules(), now, wall);
        Ok(())
    };
    let results = join_all(due.iter().map(one)).await;
    due.iter().zip(results).filter_map(|(list, result)| Some((list, result.err()?))).collect()
}
