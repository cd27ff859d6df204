//! Two gates of one store act as one relay: I33 to I36.

use std::sync::Arc;

use super::provider::{Fault, Provider};
use super::{config, pair, refresh};
use support::{Gate, Place, until};

/// A short timeout, so that the lease of a killed gate ends soon.
const SHORT: &str = "for_tests.timeout = \"1s\"";

/// Each of two gates gets ten requests with one token.
async fn one_request_and_one_pair(place: &Place, provider: &Provider) {
    let [a, b] = [place.start(), place.start()].map(Arc::new);
    let token = provider.login();
    let held = provider.hold();
    let tab = |gate: &Arc<Gate>| {
        let (gate, token) = (Arc::clone(gate), token.clone());
        tokio::spawn(async move {
            // A gate waits a while for another gate's exchange, and then answers 503 with `Retry-After`.
            loop {
                let answer = refresh(&gate, &token).await;
                if answer.status != 503 {
                    return answer;
                }
            }
        })
    };
    let tabs: Vec<_> = (0..10).flat_map(|_| [tab(&a), tab(&b)]).collect();
    until("the provider was asked", async || provider.count() > 0).await;
    held.add_permits(100);
    let mut pairs = Vec::new();
    for tab in tabs {
        pairs.push(pair(&tab.await.unwrap()));
    }
    pairs.dedup();
    assert_eq!(pairs.len(), 1, "all got the same pair");
    assert_eq!((provider.count(), provider.ended()), (1, 0), "both gates sent one request");
    // The reply to a client was lost, and the client repeats the request at the other gate.
    let (_, next) = pairs.remove(0);
    let first = pair(&refresh(&a, &next).await);
    for gate in [&b, &a] {
        assert_eq!(pair(&refresh(gate, &next).await), first, "the same pair again");
    }
    assert_eq!((provider.count(), provider.ended()), (2, 0));
    // The provider's reply to one gate was lost: a repeated request is sent once, from either gate.
    provider.fault(Fault::Dropped);
    assert_eq!(refresh(&b, &first.1).await.status, 503);
    let second = pair(&refresh(&a, &first.1).await);
    assert_eq!((provider.count(), provider.ended()), (4, 0));
    assert_eq!(pair(&refresh(&b, &first.1).await), second);
    provider.fault(Fault::LostReply);
    assert_eq!(refresh(&a, &second.1).await.status, 503);
    for gate in [&b, &a, &b] {
        assert_eq!(refresh(gate, &second.1).await.error(), "invalid_grant");
    }
    assert_eq!(provider.count(), 6, "once more, and no more");
}

/// The gate that waited for the provider is killed. The other gate neither sends the token nor treats it as answered: it
/// waits for the end of the lease.
async fn a_killed_gate_leaves_its_exchange_to_the_other(place: &Place, provider: &Provider) {
    let [mut a, b] = [place.start(), place.start()];
    let token = provider.login();
    let done = pair(&refresh(&a, &token).await);
    let held = provider.hold();
    let asking = tokio::spawn({
        let (address, token) = (a.address, done.1.clone());
        async move {
            let body = format!("grant_type=refresh_token&client_id=spa&refresh_token={token}");
            let head =
                "POST /auth/token HTTP/1.1\r\nHost: gate.test\r\nContent-Type: application/x-www-form-urlencoded";
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
            stream
        }
    });
    until("the provider was asked", async || provider.count() == 2).await;
    assert_eq!(refresh(&b, &done.1).await.status, 503, "another gate's exchange is under way");
    assert_eq!(provider.count(), 2, "it sent nothing");
    a.kill();
    drop(asking.await.unwrap());
    assert_eq!(pair(&refresh(&b, &token).await), done, "what was answered before is answered");
    held.add_permits(100);
    let mut last = None;
    until("the lease has ended", async || {
        let answer = refresh(&b, &done.1).await;
        let is_decided = answer.status != 503;
        last = Some(answer);
        is_decided
    })
    .await;
    assert!(provider.count() <= 3, "sent once more at most: {}", provider.count());
    let last = last.unwrap();
    assert!(last.status == 200 || last.error() == "invalid_grant", "{last:?}");
}

fn place_of(provider: &Provider, store: &str, lines: &str) -> Place {
    let place = Place::new(&format!("{}{store}", config(provider, lines)));
    std::fs::write(place.path("ca.pem"), support::pki::Pki::new().root_pem()).unwrap();
    place
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i33_i36_two_gates_on_redis_send_one_request_and_give_one_answer() {
    let (server, provider) = (support::redis::Redis::start(&[]), Provider::start().await);
    one_request_and_one_pair(&place_of(&provider, &crate::redis::store_of(&server), ""), &provider).await;
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i34_a_gate_on_redis_that_is_killed_leaves_its_exchange_to_the_other() {
    let (server, provider) = (support::redis::Redis::start(&[]), Provider::start().await);
    let place = place_of(&provider, &crate::redis::store_of(&server), SHORT);
    a_killed_gate_leaves_its_exchange_to_the_other(&place, &provider).await;
}

#[cfg(feature = "postgres")]
fn place_on_postgres(provider: &Provider, server: &support::postgres::Postgres, lines: &str) -> Place {
    let place = place_of(provider, &crate::postgres::store_of(server), lines);
    support::pki::write_private(&place.path("store.pw"), crate::postgres::PASSWORD);
    place
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i33_i36_two_gates_on_postgresql_send_one_request_and_give_one_answer() {
    let (server, provider) = (crate::postgres::server(), Provider::start().await);
    one_request_and_one_pair(&place_on_postgres(&provider, &server, ""), &provider).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i34_a_gate_on_postgresql_that_is_killed_leaves_its_exchange_to_the_other() {
    let (server, provider) = (crate::postgres::server(), Provider::start().await);
    a_killed_gate_leaves_its_exchange_to_the_other(&place_on_postgres(&provider, &server, SHORT), &provider).await;
}
