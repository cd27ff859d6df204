//! Credentials and their clients, accounts and endpoints: R1, R5, R6, R7, O5.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use secrecy::SecretString;

use super::support::{Ask, World, denied, refresh_on, scope, secs};
use crate::client::Client;
use crate::denial::Denial;
use crate::engine::{AccountRule, Exchange, IssueKind, Origin, Refresh};
use crate::limit::Rate;
use crate::revocation::{Effect, Revocation, Target};
use crate::session::profile::Profile;
use crate::session::{Generation, RevokedBecause, Status};
use crate::token::refresh;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1_two_hundred_presentations_at_once_make_one_successor_and_count_as_one() {
    let w = World::limited_to(Rate::new(2, secs(3600))).await;
    let first = w.login().await;
    let (w, first) = (Arc::new(w), Arc::new(first));
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let (w, first) = (Arc::clone(&w), Arc::clone(&first));
            tokio::spawn(async move { w.refresh(&first.refresh).await.unwrap() })
        })
        .collect();
    let (mut rotated, mut pairs) = (0, Vec::new());
    for task in tasks {
        let issued = task.await.unwrap();
        rotated += usize::from(issued.how == IssueKind::Rotated);
        pairs.push(super::support::Pair::from(issued));
    }
    assert_eq!(rotated, 1);
    assert!(pairs.iter().all(|pair| *pair == pairs[0]), "one successor, byte for byte");
    let record = w.record(first.session).await;
    assert_eq!((record.current.get(), record.previous.get(), record.revision), (2, 1, 2));

    // Two rotations an hour are allowed: the 199 repeats took none of them.
    let third = w.refreshed(&pairs[0].refresh, IssueKind::Rotated).await;
    assert!(matches!(denied(w.refresh(&third.refresh).await), Denial::RateLimited(..)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1_two_nodes_on_one_store_make_one_successor() {
    let w = Arc::new(World::new().await);
    let other = w.second_node().await;
    let first = Arc::new(w.login().await);
    let tasks: Vec<_> = (0..100)
        .map(|i| {
            let (w, other, first) = (Arc::clone(&w), Arc::clone(&other), Arc::clone(&first));
            tokio::spawn(async move {
                let engine = if i % 2 == 0 { &w.engine } else { &other };
                refresh_on(engine, &first.refresh, Ask::default(), &w.profile).await.unwrap()
            })
        })
        .collect();
    let mut pairs = Vec::new();
    for task in tasks {
        pairs.push(super::support::Pair::from(task.await.unwrap()));
    }
    assert!(pairs.iter().all(|pair| *pair == pairs[0]));
    assert_eq!(w.record(first.session).await.current, Generation::new(2));
}

#[tokio::test]
async fn r1_whoever_loses_the_swap_to_another_node_gets_the_winners_pair() {
    let w = World::new().await;
    let other = w.second_node().await;
    let first = w.login().await;
    let (sender, winner) = tokio::sync::oneshot::channel();
    let (token, profile) = (first.refresh.clone(), w.profile.clone());
    w.store.before_next_write(async move {
        let issued = refresh_on(&other, &token, Ask::default(), &profile).await.unwrap();
        assert_eq!(issued.how, IssueKind::Rotated);
        sender.send(super::support::Pair::from(issued)).unwrap();
    });
    let ours = w.refreshed(&first.refresh, IssueKind::Replayed).await;
    assert_eq!(ours, winner.await.unwrap());
    assert_eq!(w.record(first.session).await.current, Generation::new(2));
}

#[tokio::test]
async fn r6_another_clients_token_is_refused_and_the_session_goes_on() {
    let w = World::new().await;
    let first = w.login().await;
    let before = w.record(first.session).await;
    let stranger = || Ask { client: Client::public("other"), ..Ask::default() };
    assert_eq!(denied(w.ask(&first.refresh, stranger()).await), Denial::OtherClient);
    assert_eq!(w.record(first.session).await, before);
    w.refreshed(&first.refresh, IssueKind::Rotated).await;
}

#[tokio::test]
async fn r6_another_clients_token_ends_the_session_where_the_profile_says_so() {
    let mut w = World::new().await;
    w.profile.other_client_ends_session = true;
    let first = w.login().await;
    w.check(&first.access).unwrap();
    let stranger = Ask { client: Client::public("other"), ..Ask::default() };
    assert_eq!(denied(w.ask(&first.refresh, stranger).await), Denial::OtherClient);
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked);
    assert_eq!(w.record(first.session).await.status, Status::Revoked(RevokedBecause::OtherClient));
    assert!(matches!(denied(w.refresh(&first.refresh).await), Denial::SessionRevoked(_)));
}

#[tokio::test]
async fn r6_a_session_is_refreshed_under_its_own_account() {
    let w = World::new().await;
    let eve = w.login_with("eve", Some("acme"), "web", None).await.unwrap();
    assert_eq!(eve.user.as_ref().unwrap().account.as_deref(), Some("acme"));
    let eve = super::support::Pair::from(eve);
    let before = w.record(eve.session).await;
    for account in [AccountRule::Only(None), AccountRule::Only(Some("other")), AccountRule::Only(Some("ACME"))] {
        let ask = Ask { account, ..Ask::default() };
        assert_eq!(denied(w.ask(&eve.refresh, ask).await), Denial::OtherAccount, "{account:?}");
    }
    assert_eq!(w.record(eve.session).await, before);
    let own = Ask { account: AccountRule::Only(Some("acme")), ..Ask::default() };
    let second = super::support::Pair::from(w.ask(&eve.refresh, own).await.unwrap());
    // An endpoint without an account in its path accepts all of them.
    w.ask(&second.refresh, Ask { account: AccountRule::Any, ..Ask::default() }).await.unwrap();
}

#[tokio::test]
async fn a_session_of_another_dialect_is_refreshed_only_where_it_is_accepted() {
    let w = World::new().await;
    let first = w.login().await;
    let before = w.record(first.session).await;
    let elsewhere = Ask { accepts: vec!["other".into()], ..Ask::default() };
    assert_eq!(denied(w.ask(&first.refresh, elsewhere).await), Denial::OtherDialect);
    assert_eq!(w.record(first.session).await, before);
    let accepted = Ask { accepts: vec!["other".into(), "oauth2".into()], ..Ask::default() };
    w.ask(&first.refresh, accepted).await.unwrap();
}

/// Accepting a session does not make its access token a refresh credential: upstreams and logs may see access tokens.
#[tokio::test]
async fn r17_an_access_token_is_a_refresh_credential_only_where_its_dialect_knows_no_other() {
    let w = World::new().await;
    let first = w.login().await;
    let before = w.record(first.session).await;
    let verified = w.check(&first.access).unwrap();
    let own = verified.token().own().unwrap();
    let (client, profile, origin) = (Client::public("web"), Profile::default(), Origin::default());
    let accepts: [Box<str>; 2] = ["oauth2".into(), "other".into()];
    let ask = |credential, by_access| {
        w.engine.refresh(Refresh {
            proof: None,
            certificate: None,
            credential,
            client: &client,
            account: AccountRule::Any,
            scope: None,
            access_ttl: None,
            resource: None,
            profile: &profile,
            accepts: &accepts,
            by_access,
            arrived: crate::engine::Arrival::default(),
            origin: &origin,
        })
    };
    for by_access in [&accepts[..0], &accepts[1..]] {
        assert_eq!(denied(ask(Exchange::Access(own), by_access).await), Denial::OtherDialect);
    }
    assert_eq!(w.record(first.session).await, before, "and nothing was used up");
    // Beside its refresh token it is only a second proof.
    let token = SecretString::from(first.refresh.clone());
    let second = ask(Exchange::Pair(&token, own), &[]).await.unwrap();
    let verified = w.check(second.access_token.expose()).unwrap();
    ask(Exchange::Access(verified.token().own().unwrap()), &accepts[..1]).await.unwrap();
}

#[tokio::test]
async fn r6_scope_shrinks_and_never_grows() {
    let w = World::new().await;
    let first = w.login().await;
    let before = w.record(first.session).await;
    let asking = |text: &str| Ask { scope: Some(scope(text)), ..Ask::default() };
    assert_eq!(denied(w.ask(&first.refresh, asking("read admin")).await), Denial::InvalidScope);
    assert_eq!(w.record(first.session).await, before, "a refused refresh rotates nothing");

    let less = w.ask(&first.refresh, asking("read")).await.unwrap();
    assert_eq!(less.scope, scope("read"));
    let less = super::support::Pair::from(less);
    assert_eq!(w.check(&less.access).unwrap().token().scope, scope("read"));
    // The scope of the login is still granted (RFC 6749 §6).
    assert_eq!(w.refresh(&less.refresh).await.unwrap().scope, scope("read write"));
}

#[tokio::test]
async fn r7_what_is_no_refresh_token_is_refused_without_asking_the_store() {
    let w = World::new().await;
    let first = w.login().await;
    let loads = w.store.loads.load(Ordering::SeqCst);
    let mut wrong = vec![
        String::new(),
        "rg1_".to_owned(),
        first.access.clone(),
        first.refresh[..first.refresh.len() - 1].to_owned(),
        format!("{}A", first.refresh),
        first.refresh.to_uppercase(),
    ];
    // Every character but those that only tag B covers, changed.
    for at in 0..first.refresh.len() - 24 {
        let mut edited = first.refresh.clone().into_bytes();
        edited[at] = if edited[at] == b'A' { b'B' } else { b'A' };
        wrong.push(String::from_utf8(edited).unwrap());
    }
    for token in &wrong {
        assert_eq!(denied(w.refresh(token).await), Denial::UnknownRefreshToken, "{token}");
    }
    assert_eq!(w.store.loads.load(Ordering::SeqCst), loads);
    w.refreshed(&first.refresh, IssueKind::Rotated).await;
}

#[tokio::test]
async fn r7_a_token_with_a_wrong_second_tag_changes_nothing() {
    let w = World::new().await;
    let first = w.login().await;
    let before = w.record(first.session).await;
    for at in first.refresh.len() - 20..first.refresh.len() {
        let mut edited = first.refresh.clone().into_bytes();
        edited[at] = if edited[at] == b'Q' { b'g' } else { b'Q' };
        let edited = String::from_utf8(edited).unwrap();
        assert_eq!(denied(w.refresh(&edited).await), Denial::UnknownRefreshToken);
    }
    assert_eq!(w.record(first.session).await, before);
}

#[tokio::test]
async fn r5_the_server_key_alone_makes_no_token_of_a_session() {
    let w = World::new().await;
    let first = w.login().await;
    let keyring = w.engine.keyring();
    let guessed = crate::session::SessionSecret::new([7; 16]);
    for generation in [1, 2] {
        let forged =
            refresh::make(keyring.refresh_keys(), 1, first.session, Generation::new(generation), &guessed, "web")
                .unwrap();
        assert_eq!(denied(w.refresh(forged.expose()).await), Denial::UnknownRefreshToken);
    }
    assert_eq!(w.record(first.session).await.status, Status::Live, "no alarm for what proves nothing");
}

#[tokio::test]
async fn r7_a_refresh_token_is_no_access_token() {
    let w = World::new().await;
    let first = w.login().await;
    assert!(matches!(w.check(&first.refresh).unwrap_err(), Denial::MalformedToken(_)));
}

#[tokio::test]
async fn r7_a_token_of_a_session_that_was_swept_is_unknown() {
    use crate::store::Store;

    let w = World::new().await;
    let first = w.login().await;
    w.advance(w.profile.session_ttl + secs(2 * 3600));
    w.store.sweep(w.engine.clock().now()).await.unwrap();
    assert_eq!(denied(w.refresh(&first.refresh).await), Denial::UnknownRefreshToken);
}

#[tokio::test]
async fn o5_a_token_ahead_of_the_store_is_refused_and_the_session_left_alone() {
    let w = World::new().await;
    let first = w.login().await;
    let before = w.record(first.session).await;
    let keyring = w.engine.keyring();
    let ahead =
        refresh::make(keyring.refresh_keys(), 1, first.session, Generation::new(5), &before.secret, "web").unwrap();
    assert_eq!(denied(w.refresh(ahead.expose()).await), Denial::Ahead);
    assert_eq!(w.record(first.session).await, before);
    w.refreshed(&first.refresh, IssueKind::Rotated).await;
}

#[tokio::test]
async fn o5_a_list_ahead_of_the_store_says_that_writes_were_lost() {
    let w = World::new().await;
    let first = w.login().await;
    let before = w.record(first.session).await;
    w.engine.revocations().apply(&Revocation {
        target: Target::Session(first.session),
        effect: Effect::Minimum {
            minimum: Generation::new(4),
            effective_from: w.engine.clock().now().plus(secs(60)),
            before: Generation::NONE,
        },
        until: before.expires,
    });
    assert_eq!(denied(w.refresh(&first.refresh).await), Denial::Ahead);
    assert_eq!(w.record(first.session).await, before);
}
