//! Tests of the behaviours that every store must have.
//!
//! Call [`run`] with a function that makes an empty store.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, for stores of this crate and of others")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Inserted, SharedStore, Store, SubjectBound};
use crate::clock::{SystemTime, TimeSource, Timestamp};
use crate::revocation::{Effect, Revocation, Target};
use crate::session::{Generation, LastPair, RevokedBecause, Scope, Seal, Session, SessionId, SessionSecret, Status};

#[cfg(feature = "store-kit")]
pub mod copy;
pub mod loss;
pub mod nodes;
pub mod races;
pub mod revocations;
pub mod rows;
pub mod server;
pub mod sessions;
pub mod shared;
#[cfg(feature = "store-kit")]
mod suite;

/// The issuer of a store under test.
pub const ISSUER: &str = "https://auth.example";
/// The leeway of a store under test.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// The creation time of sessions, for stores that take the time from their caller.
pub const START: Timestamp = Timestamp::from_secs(1_700_000_000);
/// The reason for most revocations in the suite.
pub const BY_OPERATOR: RevokedBecause = RevokedBecause::Operator;
const SECOND: Generation = Generation::new(2);
/// The lifetime of sessions.
pub const SESSION_TTL: Duration = Duration::from_secs(30 * 86_400);
/// The lifetime of access tokens.
pub const ACCESS_TTL: Duration = Duration::from_secs(600);

macro_rules! behaviours {
    ($make:ident: $($module:ident :: $name:ident),+ $(,)?) => {
        $(
            tracing::info!(concat!("conformance: ", stringify!($name)));
            let store: Arc<dyn Store> = $make();
            $module::$name(store).await;
        )+
    };
}

/// Tests every behaviour, each on a new empty store. `make` gets the issuer and the leeway.
///
/// The races need a runtime with several threads.
///
/// ```
/// use std::sync::Arc;
/// use rotogate::store::MemoryStore;
/// use rotogate::store::conformance::run;
///
/// let runtime = tokio::runtime::Runtime::new()?;
/// runtime.block_on(run(|issuer, leeway| Arc::new(MemoryStore::for_a_trial(issuer, leeway))));
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn run<S: Store, F: Fn(&'static str, Duration) -> Arc<S>>(make: F) {
    let make = || make(ISSUER, LEEWAY);
    behaviours!(make:
        sessions::what_was_inserted_is_loaded,
        sessions::claims_are_kept,
        sessions::an_id_is_inserted_once,
        sessions::a_swap_needs_the_expected_revision,
        sessions::a_swap_must_raise_the_revision_and_keep_the_subject,
        sessions::a_revoked_session_is_never_swapped,
        sessions::a_confirmation_touches_one_field_and_only_of_the_current_generation,
        sessions::sessions_are_listed_page_by_page_in_order,
        sessions::a_subject_has_so_many_live_sessions_and_no_more,
        sessions::the_oldest_sessions_of_a_subject_give_way,
        sessions::a_thousand_sessions_give_way_at_once_and_later_the_rest,
        sessions::a_new_store_is_ready,
        sessions::a_check_changes_nothing,
        revocations::a_session_is_revoked_with_its_record_and_its_entry,
        revocations::a_repeated_revocation_changes_nothing_and_keeps_the_first_reason,
        revocations::a_raised_minimum_does_not_end_a_session,
        revocations::an_unknown_session_is_revoked_as_given,
        revocations::an_entry_lives_as_long_as_what_it_matches,
        revocations::other_issuers_do_not_touch_our_sessions,
        revocations::an_effect_that_does_not_fit_is_an_error,
        revocations::an_insert_is_held_against_each_not_before,
        revocations::a_swap_is_held_against_each_not_before,
        revocations::a_swap_brings_its_revocation_or_neither,
        revocations::entries_merge_and_never_weaken,
        revocations::a_cursor_gives_what_came_after_it_once,
        revocations::the_list_for_a_start_has_every_entry,
        races::one_of_many_swaps_wins,
        races::a_rotation_never_undoes_a_revocation,
        races::a_rotation_never_loses_to_a_confirmation,
        races::no_session_slips_past_a_not_before,
        races::a_reader_of_revocations_misses_none,
        races::however_many_begin_at_once_no_more_live_than_may,
    );
    // A shared store uses its own clock.
    if make().shared().is_none() {
        behaviours!(make:
            sessions::the_last_known_time_never_goes_back,
            sessions::a_sweep_removes_what_ended_an_hour_ago_and_nothing_else,
            sessions::a_sweep_goes_on_until_all_is_removed,
            sessions::a_session_outlives_its_last_access_token,
            sessions::a_revoked_session_is_kept_while_its_access_tokens_would_live,
        );
    }
}

/// Tests the additional behaviours of a [`SharedStore`]. `make` returns two handles on one empty store.
pub async fn run_shared<S: SharedStore>(make: impl AsyncFn() -> [Arc<S>; 2]) {
    shared::c4_stamps_of_all_nodes_are_in_one_order(make().await).await;
    shared::a_stamp_too_far_ahead_is_none(make().await).await;
    shared::what_one_node_wrote_the_other_has(make().await).await;
    shared::c4_a_not_before_covers_sessions_of_other_nodes(make().await).await;
    shared::a_feed_brings_what_another_node_wrote(make().await).await;
    shared::c8_a_complete_step_has_all_that_was_acknowledged_before(make().await).await;
    shared::a_change_that_every_node_finds_has_one_moment(make().await).await;
    shared::c28_each_node_sees_what_every_node_says_of_itself(make().await).await;
    shared::c29_nodes_count_attempts_together(make().await).await;
    shared::c29_a_counter_of_what_has_happened_is_in_debt_by_one(make().await).await;
    shared::c29_several_counters_take_all_or_none(make().await).await;
    shared::c29_what_one_node_remembers_another_knows(make().await).await;
    shared::c29_a_remembered_caller_uses_only_its_own_counter(make().await).await;
    shared::what_is_read_for_a_revocation_is_the_record(make().await).await;
    shared::what_was_answered_is_not_in_doubt(make().await).await;
    loss::c15_a_loss_that_one_node_noticed_is_noticed_by_all(make().await).await;
    loss::c16_it_is_over_when_every_node_has_had_its_time(make().await).await;
    loss::c15_only_what_was_lost_is_written_back(make().await).await;
    loss::c37_of_two_nodes_that_write_a_session_back_the_later_record_stays(make().await).await;
    loss::c38_a_node_learns_how_many_records_were_missing(make().await).await;
}

/// Tests the behaviours of a store of rows.
pub async fn run_rows<S: super::rows::RowStore, F: Fn() -> Arc<S>>(make: F) {
    rows::what_was_inserted_is_loaded_and_inserted_once(make()).await;
    rows::a_space_has_its_own_rows(make()).await;
    rows::an_ended_row_gives_way(make()).await;
    rows::a_swap_needs_the_expected_version(make()).await;
    rows::a_row_is_removed_once_and_only_in_its_version(make()).await;
    rows::keys_are_listed_in_pages(make()).await;
    rows::a_sweep_removes_what_ended_to_the_millisecond(make()).await;
    rows::what_does_not_fit_is_refused_and_changes_nothing(make()).await;
    rows::too_many_rows_are_refused_and_change_nothing(make()).await;
    rows::the_room_stays_the_same_whatever_happens_at_once(make()).await;
    rows::one_of_many_inserts_wins(make()).await;
}

/// When the suite's sessions begin: now, because a shared store expires sessions by its own clock.
pub fn start() -> Timestamp {
    static BEGAN: OnceLock<Timestamp> = OnceLock::new();
    *BEGAN.get_or_init(|| Timestamp::from_secs(SystemTime::new().wall().as_secs()))
}

/// Creates a live session of `subject`. `number` distinguishes sessions with the same creation time.
pub fn session(subject: &str, number: u64, created: Timestamp) -> Session {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    let access_expires = created.plus(ACCESS_TTL);
    Session {
        id: SessionId::new(created, random),
        secret: SessionSecret::new([0x5e; 16]),
        subject: subject.into(),
        account: Some("acme".into()),
        client: "web".into(),
        scope: Scope::parse("read write").unwrap(),
        dialect: "oauth2".into(),
        expires: created.plus(SESSION_TTL),
        latest_access_expires: access_expires,
        current: Generation::FIRST,
        previous: Generation::NONE,
        rotated_at: created,
        issued_at: created,
        confirmed: false,
        last: LastPair { scope: Scope::parse("read").unwrap(), access_expires, kid: "key-1".into(), refresh_key: 1 },
        status: Status::Live,
        revision: 1,
        user_agent: Some("a phone".into()),
        address: Some(std::net::Ipv4Addr::new(192, 0, 2, 1).into()),
        claims: crate::claim::OwnClaims::default(),
        bound_to: None,
        certificate: None,
        browser: None,
        seal: Seal::default(),
        resource: None,
        vouched_by: None,
    }
}

/// The record after a rotation at `now`.
pub fn rotated(session: &Session, now: Timestamp) -> Session {
    Session {
        current: session.current.next().unwrap(),
        previous: session.current,
        rotated_at: now,
        issued_at: now,
        confirmed: false,
        latest_access_expires: session.latest_access_expires.max(now.plus(ACCESS_TTL)),
        revision: session.revision + 1,
        ..session.clone()
    }
}

/// An entry that revokes a session, with the shortest valid `until`.
pub fn gone(id: SessionId) -> Revocation {
    Revocation { target: Target::Session(id), effect: Effect::SESSION_REVOKED, until: Timestamp::ZERO }
}

/// An entry that raises a session's minimum generation.
pub fn minimum(id: SessionId, minimum: u64, until: Timestamp) -> Revocation {
    let effect =
        Effect::Minimum { minimum: Generation::new(minimum), effective_from: start(), before: Generation::NONE };
    Revocation { target: Target::Session(id), effect, until }
}

/// A not-before entry with the shortest valid `until`.
pub fn not_before(target: Target, moment: Timestamp) -> Revocation {
    Revocation { target, effect: Effect::NotBefore(moment), until: Timestamp::ZERO }
}

/// The revocation target for a subject of this gate.
pub fn subject(name: &str) -> Target {
    Target::Subject { issuer: ISSUER.into(), subject: name.into() }
}

/// The target for one client of this gate.
pub fn client(name: &str) -> Target {
    Target::Client { issuer: ISSUER.into(), client: name.into() }
}

/// Inserts a session and expects success.
pub async fn insert(store: &dyn Store, session: &Session) {
    assert_eq!(store.insert(session.clone(), SubjectBound::NONE).await.unwrap(), Inserted::Inserted(Vec::new()));
}

/// The time that is `ms` milliseconds after `t`.
pub fn later(t: Timestamp, ms: u64) -> Timestamp {
    t.plus(Duration::from_millis(ms))
}
