//! The size of a revocation in memory and of a session on disk, counted and not timed, so these tests may fail a build.
//! Times are in the bench `state`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::join_all;
use rotogate::clock::Timestamp;
use rotogate::session::{Generation, RevokedBecause, Scope, Session, SessionId, Status};
use rotogate::store::redb::Options;
use rotogate::store::{RedbStore, Store, SubjectBound};
use rotogate::token::Keyring;
use rotogate_core::revocation::list::ListFilling;
use rotogate_core::revocation::{Effect, Revocation, RevocationList, Target};
use rotogate_core::session::LastPair;
use rotogate_core::session::Seal;
use rotogate_core::session::SessionSecret;
use rotogate_core::token::seal::sealed;
use uuid::Uuid;

const ISSUER: &str = "https://auth.example.com";
const LEEWAY: Duration = Duration::from_secs(30);
const BEGUN: Timestamp = Timestamp::from_secs(1_700_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// The most bytes of memory that an entry of the list may take: 33 for each slot of a map, of which between seven
/// sixteenths and seven eighths are used, with a tenth of the slots as a reserve if a number is expected.
const ENTRY_IN_MEMORY: u64 = 84;
/// As above, for a large store that is loaded, with a suitable number of maps.
const ENTRY_LOADED: u64 = 46;
/// The most bytes of a session in a file with full pages, a tenth above the measured size: its record, with the user
/// agent of its login, and a row in each of two indexes.
const SESSION_ON_DISK: u64 = 405;
/// The most bytes of a revocation: its entry, its place in the log, and a row in the index by its end.
const REVOCATION_ON_DISK: u64 = 173;

static KEYRING: LazyLock<Keyring> = LazyLock::new(|| Keyring::ephemeral().unwrap());

fn id(number: usize) -> SessionId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    SessionId::new(BEGUN.plus(Duration::from_millis(number as u64 / 8)), random)
}

fn revocation(number: usize) -> Revocation {
    Revocation { target: Target::Session(id(number)), effect: Effect::SESSION_REVOKED, until: BEGUN.plus(DAY) }
}

fn session(number: usize) -> Session {
    let scope = || Scope::parse("read write").unwrap();
    let session = Session {
        bound_to: None,
        certificate: None,
        seal: Seal::default(),
        resource: None,
        vouched_by: None,
        browser: None,
        id: id(number),
        secret: SessionSecret::new([7; 16]),
        subject: format!("user-{number}").into(),
        account: None,
        client: "web".into(),
        scope: scope(),
        dialect: "oauth2".into(),
        expires: BEGUN.plus(DAY),
        latest_access_expires: BEGUN.plus(LEEWAY),
        current: Generation::FIRST,
        previous: Generation::NONE,
        rotated_at: Timestamp::ZERO,
        issued_at: BEGUN,
        confirmed: false,
        last: LastPair { scope: scope(), access_expires: BEGUN.plus(LEEWAY), kid: "b7e1f9a0".into(), refresh_key: 1 },
        status: Status::Live,
        revision: 1,
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".into()),
        address: Some([192, 0, 2, 1].into()),
        claims: rotogate::claim::OwnClaims::default(),
    };
    sealed(KEYRING.refresh_keys(), session).unwrap()
}

/// Sizes right before the table doubles, right after, and of many.
const SIZES: [usize; 3] = [110_000, 131_072, 500_000];

#[test]
fn an_entry_of_the_list_takes_so_many_bytes() {
    for number in SIZES {
        let mut list = None;
        let applied = allocation_counter::measure(|| {
            let made = RevocationList::new();
            (0..number).for_each(|n| {
                made.apply(&revocation(n));
            });
            list = Some(made);
        });
        let mut loaded = None;
        let filled = allocation_counter::measure(|| {
            let mut filling = ListFilling::expecting(number);
            (0..number).for_each(|n| filling.add(&revocation(n)));
            loaded = Some(filling.finish());
        });
        assert_eq!((list.unwrap().len(), loaded.unwrap().len()), (number, number));
        let each = |info: allocation_counter::AllocationInfo| info.bytes_current as u64 / number as u64;
        println!("{number} entries: {} bytes each as they came, {} loaded at once", each(applied), each(filled));
        assert!(each(applied) <= ENTRY_IN_MEMORY);
        assert!(each(filled) <= if number < 500_000 { ENTRY_IN_MEMORY } else { ENTRY_LOADED });
        // Loading needs little further memory, for entries that wait for their place.
        let besides = filled.bytes_max - filled.bytes_current as u64;
        assert!(besides < 12 << 20, "{besides} bytes more at its peak, of {number} entries");
        // There is no allocation for each entry.
        assert!(filled.count_total < 1000, "{} allocations", filled.count_total);
    }
}

/// The bytes that each of this many further rows adds to a copy of the file. The pages of a copy do not depend on the
/// grouping of writes.
async fn on_disk(number: usize, write: impl AsyncFn(&RedbStore, usize)) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let store =
        RedbStore::open(folder.path().join("rotogate.redb"), Options::new(ISSUER, Uuid::from_u128(7), LEEWAY)).unwrap();
    let length = async |name: &str| {
        let copy = folder.path().join(name);
        store.backup_to(&copy).await.unwrap();
        copy.metadata().unwrap().len()
    };
    let empty = length("empty.redb").await;
    join_all((0..number).map(|n| write(&store, n))).await;
    (length("full.redb").await - empty) / number as u64
}

#[tokio::test]
async fn a_session_and_a_revocation_take_so_many_bytes_of_the_file() {
    const NUMBER: usize = 20_000;
    let of_session = on_disk(NUMBER, async |store, n| {
        store.insert(session(n), SubjectBound::NONE).await.unwrap();
    })
    .await;
    let of_revocation = on_disk(NUMBER, async |store, n| {
        store.revoke(revocation(n), RevokedBecause::Operator).await.unwrap();
    })
    .await;
    println!("on disk: {of_session} bytes a session, {of_revocation} a revocation");
    assert!(of_session <= SESSION_ON_DISK, "{of_session} bytes a session");
    assert!(of_revocation <= REVOCATION_ON_DISK, "{of_revocation} bytes a revocation");
}
