//! What ends × what was derived: each way to end something ends what came of it, and nothing else (R34).

use super::*;
use crate::gate::Inner;
use rotogate_core::client::ExchangeRules;
use rotogate_core::credential::Credential;
use rotogate_core::engine::{AccountRule, TokenExchange};
use rotogate_core::lease::Lease;
use rotogate_core::session::expiry::OnExpiry;
use rotogate_core::session::profile::Profile;
use rotogate_core::verify_cache::Verified;

const IDP: &str = "https://idp.test";

/// What can end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The session that made the key.
    Session,
    /// All of the user, by an operator.
    User,
    /// All of the user, by a logout everywhere.
    Everywhere,
    /// All of the client of the session.
    Client,
    /// All of the client that exchanged the token.
    Actor,
    /// Everything.
    All,
    /// The session at the issuer that vouched for the user.
    SessionThere,
    /// The sessions of the user there.
    UserThere,
    /// The user there, with API keys.
    AccountThere,
    /// The access tokens of the user there, which must be refreshed.
    RefreshThere,
    /// The key.
    Key,
    /// The key, by one that replaces it at once.
    KeyReplaced,
}

/// What is derived from one login: its access token, a token that was exchanged for that, a key, and a stream of each.
struct Derived {
    token: String,
    exchanged: String,
    key: (String, ApiKey),
    streams: [Lease; 3],
}

fn checked(gate: &Inner, token: &str) -> Result<Arc<Verified>, Denial> {
    gate.checker.check(Credential::new(token), || gate.shown(None::<std::net::IpAddr>), &mut ())
}

async fn derived(world: &World) -> Derived {
    let gate = &world.gate.0;
    let by = VouchedBy::new(IDP, "u-1").session("s-1");
    let new = NewSession::new("ada", "web").scope("read").unwrap().vouched_by(by);
    let token = world.gate.sessions().start(new).await.unwrap().access_token.expose().to_owned();
    let audiences = gate.engine.audience().to_vec();
    let rules = ExchangeRules { audiences: audiences.clone(), to: audiences, ..ExchangeRules::default() };
    let subject = checked(gate, &token).unwrap();
    let asked = TokenExchange {
        client: &Client::public("orders"),
        rules: &rules,
        subject: AccountRule::Any.admit(subject.token()).unwrap(),
        audience: None,
        scope: None,
        profile: &Profile::default(),
        proof: None,
        certificate: None,
        origin: &Origin::default(),
    };
    let exchanged = gate.engine.exchange_token(asked).await.unwrap().access_token.expose().to_owned();
    let (status, made) = mine(world, &token, CREATE, NAMED).await;
    assert_eq!(status, 201, "{made}");
    let text = made["key"].as_str().unwrap().to_owned();
    let keys = gate.running.api_keys.as_ref().unwrap();
    let of_key = keys.load_verified(&gate.engine, &gate.checker, &Arc::from(&*text), &|_| None).await.unwrap();
    let callers = [subject, checked(gate, &exchanged).unwrap(), of_key];
    let streams = callers.map(|caller| Lease::for_caller(&gate.leases, Some(&caller), OnExpiry::Keep));
    let record = world.keys().get(made["id"].as_str().unwrap()).await.unwrap().unwrap();
    Derived { token, exchanged, key: (text, record), streams }
}

async fn end(world: &World, end: End, derived: &Derived) {
    let (engine, sessions) = (&world.gate.0.engine, world.gate.sessions());
    let now = engine.clock().now();
    let there = |target, with_keys| {
        let entry = Revocation { target, effect: Effect::not_before(now, with_keys), until: now.plus(DAY) };
        engine.revocations().apply(&entry);
    };
    let user = || Target::Subject { issuer: IDP.into(), subject: "u-1".into() };
    match end {
        End::Session => {
            let (session, _) = checked(&world.gate.0, &derived.token).unwrap().token().session.unwrap();
            assert!(sessions.revoke(session).await.unwrap());
        }
        End::User => sessions.revoke_all(Whose::Subject("ada")).await.unwrap(),
        End::Everywhere => {
            let token = checked(&world.gate.0, &derived.token).unwrap();
            let own = AccountRule::Any.admit(token.token()).unwrap().own().unwrap();
            engine.log_out_everywhere(own, "web", &Origin::default()).await.unwrap();
        }
        End::Client => sessions.revoke_all(Whose::Client("web")).await.unwrap(),
        End::Actor => sessions.revoke_all(Whose::Client("orders")).await.unwrap(),
        End::All => sessions.revoke_all(Whose::Everyone).await.unwrap(),
        End::SessionThere => there(Target::session_of(IDP, "s-1"), false),
        End::UserThere => there(user(), false),
        End::AccountThere => there(user(), true),
        End::RefreshThere => {
            there(Target::Subject { issuer: format!("{IDP}#refreshed").into(), subject: "u-1".into() }, false);
        }
        End::Key => drop(world.keys().revoke(&derived.key.1.id).await.unwrap().unwrap()),
        End::KeyReplaced => {
            drop(world.keys().rotate(&derived.key.1.id, Some(Duration::ZERO)).await.unwrap().unwrap().unwrap());
        }
    }
}

/// Whether each derived thing is good: the token, the exchanged token, the key, and their streams.
async fn are_good(world: &World, derived: &Derived) -> [bool; 6] {
    let good = |token: &str| checked(&world.gate.0, token).is_ok();
    let [token, exchanged, key] = derived.streams.each_ref().map(|stream| stream.check().is_ok());
    let of_key = world.status("/keys", &derived.key.0).await == 200;
    [good(&derived.token), good(&derived.exchanged), of_key, token, exchanged, key]
}

#[tokio::test]
async fn r34_each_end_ends_what_was_derived_and_nothing_else() {
    const ALL: [bool; 3] = [false; 3];
    const KEY_STAYS: [bool; 3] = [false, false, true];
    const KEY_ALONE: [bool; 3] = [true, true, false];
    for (what, wanted) in [
        (End::Session, KEY_STAYS),
        (End::User, ALL),
        (End::Everywhere, KEY_STAYS),
        (End::Client, KEY_STAYS),
        (End::Actor, [true, false, true]),
        (End::All, ALL),
        (End::SessionThere, KEY_STAYS),
        (End::UserThere, KEY_STAYS),
        (End::AccountThere, ALL),
        (End::RefreshThere, KEY_STAYS),
        (End::Key, KEY_ALONE),
        (End::KeyReplaced, KEY_ALONE),
    ] {
        let world = World::new().await;
        let ended = derived(&world).await;
        assert_eq!(are_good(&world, &ended).await, [true; 6], "{what:?}");
        end(&world, what, &ended).await;
        let [a, b, c] = wanted;
        assert_eq!(are_good(&world, &ended).await, [a, b, c, a, b, c], "{what:?}");
        // A later login, and what comes of it, is good.
        world.time.advance(Duration::from_secs(2));
        assert_eq!(are_good(&world, &derived(&world).await).await, [true; 6], "{what:?}: later");
    }
}
