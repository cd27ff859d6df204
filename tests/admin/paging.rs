//! Lists of sessions: pages and filters.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::StatusCode;
use rotogate::session::{Generation, Scope, Session, SessionId, Status};
use rotogate::store::redb::{Options, RedbStore};
use rotogate::store::{Inserted, Store, SubjectBound};
use rotogate::token::Keyring;
use rotogate_core::clock::{Timestamp, wall_micros};
use rotogate_core::session::LastPair;
use rotogate_core::session::Seal;
use rotogate_core::session::SessionSecret;
use rotogate_core::token::seal::sealed;
use serde_json::Value;
use support::{CONFIG, Place, with};

use super::{Ask, admin_token, code};

/// A session that began at this time since 1970.
fn session(number: u64, began: Duration) -> Session {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let id = SessionId::new(Timestamp::ZERO.plus(began), random);
    let scope = || Scope::parse("read").unwrap();
    let access_expires = id.created().plus(Duration::from_secs(300));
    Session {
        bound_to: None,
        certificate: None,
        browser: None,
        seal: Seal::default(),
        resource: None,
        vouched_by: None,
        id,
        secret: SessionSecret::new([7; 16]),
        subject: format!("user-{}", number % 100).into(),
        account: None,
        client: if number % 10 == 3 { "app".into() } else { "web".into() },
        scope: scope(),
        dialect: "oauth2".into(),
        expires: id.created().plus(Duration::from_secs(7 * 24 * 3600)),
        latest_access_expires: access_expires,
        current: Generation::new(1),
        previous: Generation::new(0),
        rotated_at: Timestamp::ZERO,
        issued_at: id.created(),
        confirmed: false,
        last: LastPair { scope: scope(), access_expires, kid: "k".into(), refresh_key: 1 },
        status: Status::Live,
        revision: 1,
        user_agent: None,
        address: None,
        claims: rotogate::claim::OwnClaims::default(),
    }
}

/// A folder whose store has this many sessions, the first an hour old, and their ids.
async fn with_sessions(number: u64) -> (Place, Vec<String>) {
    let config = format!("{CONFIG}[[clients]]\nid = \"app\"\n");
    let place = Place::new(&with(&config, "sessions", "max_sessions_per_subject = 10000"));
    assert_eq!(place.start().stop(), Some(0));
    let keyring = Keyring::load(&place.path("data/keys")).unwrap();
    let store = place.path("data/rotogate.redb");
    let store =
        RedbStore::open(store, Options::new("http://gate.test", keyring.id(), Duration::from_secs(30))).unwrap();
    let first = Duration::from_micros(wall_micros()) - Duration::from_secs(3600);
    // More sessions in one millisecond than a store lists at once.
    let at = |n: u64| first + Duration::from_millis(if (4000..5200).contains(&n) { 400_000 } else { n * 100 });
    let all: Vec<_> = (0..number).map(|n| session(n, at(n))).collect();
    let ids = all.iter().map(|session| session.id.to_string()).collect();
    let insert = async |session: Session| {
        let sealed = sealed(keyring.refresh_keys(), session).unwrap();
        store.insert(sealed, SubjectBound::NONE).await.unwrap()
    };
    let inserted: Vec<_> = stream::iter(all).map(insert).buffer_unordered(1000).collect().await;
    assert!(inserted.iter().all(|inserted| *inserted == Inserted::Inserted(Vec::new())));
    store.close().await.unwrap();
    (place, ids)
}

fn ids(page: &Value) -> Vec<String> {
    page["sessions"].as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn p51_p52_pages_have_each_of_10_000_sessions_once_while_others_begin_and_end() {
    let (place, all) = with_sessions(10_000).await;
    let gate = place.start();
    let token = admin_token(&place);
    let (mut seen, mut next, mut pages) = (BTreeMap::<String, u32>::new(), None::<String>, 0);
    loop {
        let cursor = next.map(|next| format!("&cursor={next}")).unwrap_or_default();
        let page = Ask::with(&gate, &token).get(&format!("/v1/sessions?limit=701{cursor}")).await.json();
        ids(&page).into_iter().for_each(|id| *seen.entry(id).or_default() += 1);
        // Meanwhile a session begins, and a listed session and an unlisted one end.
        gate.login().await;
        for id in [&all[pages * 3], &all[9_999 - pages * 5]] {
            let answer = Ask::with(&gate, &token).post(&format!("/v1/sessions/{id}/revoke"), "").await;
            assert_eq!(answer.json()["ended"], 1, "{answer:?}");
        }
        pages += 1;
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    assert!(pages > 10, "{pages}");
    for id in &all {
        assert_eq!(seen.get(id), Some(&1), "{id}");
    }
    assert!(seen.values().all(|times| *times == 1));

    // Filters, each over all pages.
    let count = async |filter: &str| {
        let (mut found, mut next) = (Vec::new(), None::<String>);
        loop {
            let cursor = next.map(|next| format!("&cursor={next}")).unwrap_or_default();
            let page = Ask::with(&gate, &token).get(&format!("/v1/sessions?limit=1000&{filter}{cursor}")).await.json();
            found.extend(page["sessions"].as_array().unwrap().clone());
            next = page["next"].as_str().map(str::to_owned);
            if next.is_none() {
                return found;
            }
        }
    };
    let of = |found: &[Value], field: &str, value: &str| found.iter().all(|session| session[field] == value);
    let (ended, begun) = (2 * pages, pages);
    for (filter, expected, field, value) in [
        ("client=app", 1000, "client", "app"),
        ("subject=user-42", 100, "subject", "user-42"),
        ("subject=user-43&client=app", 100, "client", "app"),
        ("subject=user-42&client=app", 0, "", ""),
        ("user=demo", begun, "dialect", "oauth2"),
        ("status=operator", ended, "status", "operator"),
        ("status=live", 10_000 - ended + begun, "status", "live"),
        ("status=ended", ended, "status", "operator"),
        ("status=reuse", 0, "", ""),
        ("dialect=knox", 0, "", ""),
        ("account=acme", 0, "", ""),
    ] {
        let found = count(filter).await;
        assert_eq!(found.len(), expected, "{filter}");
        assert!(of(&found, field, value) || expected == 0, "{filter}");
        let mut newest = count(&format!("{filter}&order=newest")).await;
        newest.reverse();
        assert_eq!(newest, found, "the newest first: {filter}");
    }
    // From the moment of one session up to that of another.
    let created = async |id: &str| {
        let shown = Ask::with(&gate, &token).get(&format!("/v1/sessions/{id}")).await.json();
        shown["created"].as_str().unwrap().to_owned()
    };
    let (since, until) = (created(&all[2000]).await, created(&all[3000]).await);
    let found = count(&format!("since={since}&until={until}")).await;
    assert_eq!(found.len(), 1000, "the moments are whole seconds, of ten sessions each");
    let within = |session: &Value| (since.as_str()..until.as_str()).contains(&session["created"].as_str().unwrap());
    assert!(found.iter().all(within));
    let newest = count(&format!("since={since}&until={until}&order=newest")).await;
    assert!(newest.iter().rev().eq(&found));
    for (wrong, said) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
        ("status=dead", "status"),
        ("since=yesterday", "since"),
        ("order=name", "order"),
        ("usr=demo", "unknown field `usr`"),
        ("client=a&client=b", "duplicate field `client`"),
        ("user=demo&subject=x", "at most one"),
    ] {
        let answer = Ask::with(&gate, &token).get(&format!("/v1/sessions?{wrong}")).await;
        assert_eq!((answer.status, code(&answer).as_str()), (StatusCode::BAD_REQUEST, "invalid_parameter"), "{wrong}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(said), "{wrong}: {answer:?}");
    }
    let answer = Ask::with(&gate, &token).get("/v1/sessions?user=nobody").await;
    assert_eq!((answer.status, code(&answer).as_str()), (StatusCode::NOT_FOUND, "unknown_target"));
}
