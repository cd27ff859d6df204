use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::support::*;
use crate::{Proxy, Reuse, Settings, Upstream};
use rotogate_kit::worker_id::WorkerId;

/// The events of numbered connections, as an upstream sees them.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Asked(usize),
    Closed(usize),
}

use Event::{Asked, Closed};

/// An upstream that answers once `together` requests have arrived.
async fn watched(together: usize) -> (SocketAddr, UnboundedReceiver<Event>) {
    let (tell, events) = mpsc::unbounded_channel();
    let all_there = std::sync::Arc::new(tokio::sync::Barrier::new(together));
    let address = raw(move |number, mut stream| {
        let (tell, all_there) = (tell.clone(), std::sync::Arc::clone(&all_there));
        async move {
            while read_head(&mut stream).await.ends_with("\r\n\r\n") {
                tell.send(Asked(number)).unwrap();
                all_there.wait().await;
                answer_empty(&mut stream).await;
            }
            tell.send(Closed(number)).unwrap();
        }
    })
    .await;
    (address, events)
}

async fn next(events: &mut UnboundedReceiver<Event>) -> Event {
    tokio::time::timeout(Duration::from_secs(30), events.recv()).await.expect("nothing happens").unwrap()
}

fn proxy_to(address: SocketAddr, settings: Settings) -> Proxy {
    proxy_with(&[&format!("http://{address}")], settings)
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed_after_a_time() {
    let (address, mut events) = watched(1).await;
    let proxy = proxy_to(address, Settings { pool_idle: Duration::from_millis(50), ..Settings::default() });
    for number in 0..2 {
        text(forward(&proxy, get("/", &[])).await).await;
        assert_eq!(next(&mut events).await, Asked(number));
        assert_eq!(next(&mut events).await, Closed(number));
    }
}

#[tokio::test]
async fn no_more_connections_are_kept_than_may_be() {
    let (address, mut events) = watched(2).await;
    let proxy = proxy_to(address, Settings { pool_size: 1, ..Settings::default() });
    let both = || async { tokio::join!(forward(&proxy, get("/", &[])), forward(&proxy, get("/", &[]))) };
    let (first, second) = both().await;
    tokio::join!(text(first), text(second));
    let mut seen = [next(&mut events).await, next(&mut events).await];
    seen.sort_by_key(|event| matches!(event, Asked(1)));
    assert_eq!(seen, [Asked(0), Asked(1)]);
    // The other connection is used again, and a new one is opened.
    let Closed(gone) = next(&mut events).await else { panic!("both are kept") };
    both().await;
    let mut seen = [next(&mut events).await, next(&mut events).await];
    seen.sort_by_key(|event| matches!(event, Asked(2)));
    assert_eq!(seen, [Asked(1 - gone), Asked(2)]);
}

#[tokio::test]
async fn each_lane_has_connections_of_its_own() {
    let (address, mut events) = watched(1).await;
    let workers = NonZeroUsize::new(2).unwrap();
    let proxy = proxy_to(address, Settings { workers: workers.get(), ..Settings::default() });
    for worker in WorkerId::ids(workers) {
        let proxy = proxy.clone();
        let there = move || {
            worker.enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for _ in 0..2 {
                runtime.block_on(async { text(forward(&proxy, get("/", &[])).await).await });
            }
        };
        tokio::task::spawn_blocking(there).await.unwrap();
    }
    // The connections of a thread end with its runtime.
    let mut seen = Vec::new();
    while seen.len() < 6 {
        seen.push(next(&mut events).await);
    }
    assert_eq!(
        seen.iter().filter(|event| matches!(event, Asked(_))).collect::<Vec<_>>(),
        [&Asked(0), &Asked(0), &Asked(1), &Asked(1)]
    );
}

/// A proxy whose upstream has these rules for the reuse of connections.
fn proxy_reusing(address: SocketAddr, reuse: Reuse, most: u32) -> Proxy {
    let url = format!("http://{address}");
    let upstream = Upstream { reuse, max_requests_per_connection: NonZeroU32::new(most).unwrap(), ..upstream(&[&url]) };
    Proxy::new(vec![upstream], Settings::default()).unwrap()
}

#[tokio::test]
async fn t27_a_connection_carries_no_more_requests_than_it_may() {
    let (address, mut events) = watched(1).await;
    let proxy = proxy_reusing(address, Reuse::Safe, 2);
    for number in [0, 0, 1, 1, 2] {
        text(forward(&proxy, get("/", &[])).await).await;
        // A connection that closed meanwhile may be reported in between.
        let asked = match next(&mut events).await {
            Closed(_) => next(&mut events).await,
            asked => asked,
        };
        assert_eq!(asked, Asked(number));
    }
}

#[tokio::test]
async fn t27_a_connection_that_is_never_reused_carries_one_request() {
    let (address, mut events) = watched(1).await;
    let proxy = proxy_reusing(address, Reuse::Never, 1000);
    for number in 0..3 {
        text(forward(&proxy, get("/", &[])).await).await;
        assert_eq!(next(&mut events).await, Asked(number));
        assert_eq!(next(&mut events).await, Closed(number));
    }
}

#[tokio::test]
async fn t51_no_request_follows_one_that_authenticated_its_connection() {
    let (address, mut events) = watched(1).await;
    let proxy = proxy_reusing(address, Reuse::Safe, 1000);
    for (credential, number) in
        [("Basic YTpi", 0), ("Negotiate YWxpY2U=", 0), ("Bearer a", 1), ("ntlm TlRMTVNTUAAB", 1), ("Bearer a", 2)]
    {
        text(forward(&proxy, get("/", &[("authorization", credential)])).await).await;
        // A connection that closed meanwhile may be reported in between.
        let asked = match next(&mut events).await {
            Closed(_) => next(&mut events).await,
            asked => asked,
        };
        assert_eq!(asked, Asked(number), "{credential}");
    }
}

/// An upstream that answers each request twice. The second answer arrives with the next request, and nothing
/// distinguishes it from that request's own answer.
async fn answering_twice() -> SocketAddr {
    raw(|_, mut stream| async move {
        let mut seen = 0;
        while read_head(&mut stream).await.ends_with("\r\n\r\n") {
            seen += 1;
            let body = format!("{}", seen.max(2) - 1);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn t27_an_upstream_that_answers_late_and_twice_reaches_no_other_request_where_none_is_reused() {
    let address = answering_twice().await;
    let (kept, fresh) = (proxy_reusing(address, Reuse::Safe, 1000), proxy_reusing(address, Reuse::Never, 1000));
    let mut seen = Vec::new();
    for proxy in [&kept, &kept, &kept, &fresh, &fresh, &fresh] {
        seen.push(text(forward(proxy, get("/", &[])).await).await);
    }
    // The third request of a connection gets the answer to the second. A request with its own connection gets its own
    // answer.
    assert_eq!(seen, ["1", "1", "2", "1", "1", "1"]);
}
