//! One exchange for each token, whatever happens to clients, gate and provider: I33 to I35, I39.

use std::io::Write;
use std::net::TcpStream;

use super::provider::{Fault, Provider, silent};
use super::{pair, place, refresh};
use support::{Gate, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i33_many_tabs_at_once_are_one_request_at_the_provider_and_get_one_pair() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    let gate = std::sync::Arc::new(place.start());
    let token = provider.login();
    let held = provider.hold();
    let tabs: Vec<_> = (0..20)
        .map(|_| {
            let (gate, token) = (std::sync::Arc::clone(&gate), token.clone());
            tokio::spawn(async move { refresh(&gate, &token).await })
        })
        .collect();
    until("the provider was asked", async || provider.count() > 0).await;
    held.add_permits(100);
    let mut pairs = Vec::new();
    for tab in tabs {
        pairs.push(pair(&tab.await.unwrap()));
    }
    pairs.dedup();
    assert_eq!(pairs.len(), 1, "all got the same pair");
    assert_eq!((provider.count(), provider.ended()), (1, 0));
    let (_, next) = pairs.remove(0);
    assert_ne!(pair(&refresh(&gate, &next).await).1, next, "and it goes on from there");
    assert_eq!((provider.count(), provider.ended()), (2, 0));
}

/// A client that disconnects as soon as the provider has the request.
async fn ask_and_leave(gate: &Gate, provider: &Provider, token: &str) {
    let body = format!("grant_type=refresh_token&client_id=spa&refresh_token={token}");
    let mut stream = TcpStream::connect(gate.address).unwrap();
    let head = "POST /auth/token HTTP/1.1\r\nHost: gate.test\r\nContent-Type: application/x-www-form-urlencoded";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    until("the provider was asked", async || provider.count() == 1).await;
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i34_a_client_that_disconnects_ends_nothing_and_its_retry_gets_the_pair() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    let gate = place.start();
    let token = provider.login();
    let held = provider.hold();
    ask_and_leave(&gate, &provider, &token).await;
    held.add_permits(100);
    pair(&refresh(&gate, &token).await);
    assert_eq!((provider.count(), provider.ended()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i34_a_gate_killed_after_the_answer_gives_it_again_after_its_start() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    let mut gate = place.start();
    let token = provider.login();
    let first = pair(&refresh(&gate, &token).await);
    gate.kill();
    let gate = place.start();
    assert_eq!(pair(&refresh(&gate, &token).await), first);
    assert_eq!((provider.count(), provider.ended()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i56_a_gate_killed_before_the_answer_sends_the_token_once_more_after_its_start() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    let mut gate = place.start();
    let token = provider.login();
    let held = provider.hold();
    ask_and_leave(&gate, &provider, &token).await;
    gate.kill();
    held.add_permits(100);
    // The lease lasts for another half minute, and no process holds it.
    let gate = place.start();
    assert_ne!(refresh(&gate, &token).await.status, 503, "at once");
    assert_eq!(provider.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i34_a_stop_waits_for_an_exchange_whose_client_went_away() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    let place_again = place.path("gateway.toml");
    let config =
        std::fs::read_to_string(&place_again).unwrap().replace("drain_timeout = \"2s\"", "drain_timeout = \"30s\"");
    place.write_config(&config);
    let gate = place.start();
    let token = provider.login();
    let held = provider.hold();
    ask_and_leave(&gate, &provider, &token).await;
    gate.signal("TERM");
    until("it stops", async || std::fs::read_to_string(&gate.log).unwrap().contains("stopping")).await;
    held.add_permits(100);
    assert_eq!(gate.stop(), Some(0));
    let gate = place.start();
    pair(&refresh(&gate, &token).await);
    assert_eq!((provider.count(), provider.ended()), (1, 0), "the answer was stored before the gate ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i35_i39_after_a_lost_reply_the_gate_repeats_nothing_and_the_clients_retry_is_sent_once() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    let gate = place.start();
    let (processed, dropped) = (provider.login(), provider.login());
    provider.fault(Fault::Dropped);
    let lost = refresh(&gate, &dropped).await;
    assert_eq!((lost.status.as_u16(), lost.headers["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(lost.error(), "temporarily_unavailable");
    assert_eq!(provider.count(), 1, "the gate repeats nothing");
    pair(&refresh(&gate, &dropped).await);
    assert_eq!((provider.count(), provider.ended()), (2, 0), "the provider had not processed it");

    for fault in [Fault::LostReply, Fault::Truncated] {
        let token = if matches!(fault, Fault::LostReply) { processed.clone() } else { provider.login() };
        let before = provider.count();
        provider.fault(fault);
        assert_eq!(refresh(&gate, &token).await.status, 503);
        assert_eq!(provider.count(), before + 1);
        // This provider had processed the token: with a strict provider, the login was lost with the reply.
        assert_eq!(refresh(&gate, &token).await.error(), "invalid_grant");
        assert_eq!(refresh(&gate, &token).await.error(), "invalid_grant");
        assert_eq!(provider.count(), before + 2, "once more, and no more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i39_with_refuse_a_retry_after_a_lost_reply_does_not_reach_the_provider() {
    let provider = Provider::start().await;
    let place = place(&provider, "after_unknown = \"refuse\"");
    let gate = place.start();
    let token = provider.login();
    provider.fault(Fault::LostReply);
    assert_eq!(refresh(&gate, &token).await.status, 503);
    let again = refresh(&gate, &token).await;
    assert_eq!((again.status.as_u16(), again.error().as_str()), (400, "invalid_grant"));
    assert_eq!((provider.count(), provider.ended()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i39_faults_of_the_provider_are_503_without_its_page() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    let gate = place.start();
    for (status, retry_after, is_remembered) in
        [(429, "7", false), (503, "7", false), (501, "7", false), (500, "1", true), (502, "1", true), (504, "1", true)]
    {
        let token = provider.login();
        let before = provider.count();
        provider.fault(Fault::Status(status));
        let answer = refresh(&gate, &token).await;
        assert_eq!(answer.status, 503, "{status}");
        assert_eq!(answer.headers["retry-after"], retry_after, "{status}");
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert!(!String::from_utf8_lossy(&answer.body).contains("html"), "{status}");
        provider.fault(Fault::Status(status));
        assert_eq!(refresh(&gate, &token).await.status, 503);
        assert_eq!(provider.count(), before + 2, "{status}");
        let third = refresh(&gate, &token).await;
        let expected = if is_remembered { (503, before + 2) } else { (200, before + 3) };
        assert_eq!(
            (third.status.as_u16(), provider.count()),
            expected,
            "{status}: sent twice at most, if it may have worked"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i39_a_provider_that_is_not_there_or_silent_is_503() {
    let provider = Provider::start().await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (mute, _task) = silent().await;
    for (address, outcome) in [(free, "provider_unreachable"), (mute, "relay_unknown")] {
        let place = place(&provider, "for_tests.timeout = \"1s\"");
        let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
        place.write_config(&config.replace(&provider.url(), &format!("http://{address}")));
        let gate = place.start();
        assert_eq!(refresh(&gate, &provider.login()).await.status, 503);
        assert!(gate.log().contains(&format!("rotogate.outcome={outcome}")), "{outcome}");
    }
}
