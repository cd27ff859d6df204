use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::support::*;
use crate::proxy::{Lane, Proxy, Settings};

/// What an upstream sees of its connections, by their numbers.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Asked(usize),
    Closed(usize),
}

use Event::{Asked, Closed};

/// An upstream that answers each request once as many are there as it waits for.
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
    // The other is used again, and one more is opened.
    let Closed(gone) = next(&mut events).await else { panic!("both are kept") };
    both().await;
    let mut seen = [next(&mut events).await, next(&mut events).await];
    seen.sort_by_key(|event| matches!(event, Asked(2)));
    assert_eq!(seen, [Asked(1 - gone), Asked(2)]);
}

#[tokio::test]
async fn each_lane_has_connections_of_its_own() {
    let (address, mut events) = watched(1).await;
    let lanes = NonZeroUsize::new(2).unwrap();
    let proxy = proxy_to(address, Settings { lanes: lanes.get(), ..Settings::default() });
    for lane in Lane::all(lanes) {
        let proxy = proxy.clone();
        let there = move || {
            lane.take();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for _ in 0..2 {
                runtime.block_on(async { text(forward(&proxy, get("/", &[])).await).await });
            }
        };
        tokio::task::spawn_blocking(there).await.unwrap();
    }
    // With its runtime each thread's connections end.
    let mut seen = Vec::new();
    while seen.len() < 6 {
        seen.push(next(&mut events).await);
    }
    assert_eq!(
        seen.iter().filter(|event| matches!(event, Asked(_))).collect::<Vec<_>>(),
        [&Asked(0), &Asked(0), &Asked(1), &Asked(1)]
    );
}
