//! Each revocation that the gate applies is durable, or owed until it is durable: R24, R25, R26, R30. Each cause of a
//! revocation, on each kind of store, under each fault, with a restart at each moment.

use std::future::Future;
use std::sync::{Arc, LazyLock};

use support::events::{Events, Fields};

use super::KINDS;
use super::support::{Ask, DAY, HOUR, ISSUER, Kind, Mode, Pair, T0, World, denied, secs};
use crate::client::Client;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::engine::{AccountRule, IssueKind, Origin, Unpaid};
use crate::fault::Error;
use crate::revocation::list::TokenFacts;
use crate::revocation::{Effect, Revocation, Target};
use crate::session::profile::OnReuse;
use crate::session::{RevokedBecause, Session, SessionId, Status};
use crate::store::{SharedStore, Store};

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    LogoutByRefresh,
    LogoutByAccess,
    LogoutEverywhere,
    OperatorSession,
    OperatorSubject,
    OperatorClient,
    OperatorAll,
    Reuse,
    ReuseOfSubject,
    UserChanged,
    PasswordChanged,
    Notice,
    OtherClient,
    OwnToken,
    ForeignToken,
    ForeignSubject,
}

impl Cause {
    /// Without its record, and without the time of a store that gates share.
    fn needs_nothing_read(self) -> bool {
        use Cause::{LogoutByAccess, LogoutByRefresh, OperatorSession, PasswordChanged};
        matches!(self, LogoutByRefresh | LogoutByAccess | OperatorSession | PasswordChanged) || self.target().is_some()
    }

    /// The target that the cause ends, if it is not a session of this gate.
    fn target(self) -> Option<Target> {
        let token = |issuer: &str| Target::Token { issuer: issuer.into(), jti: "t-1".into() };
        match self {
            Self::OwnToken => Some(token(ISSUER)),
            Self::ForeignToken => Some(token(PARTNER)),
            Self::Notice | Self::ForeignSubject => {
                Some(Target::Subject { issuer: PARTNER.into(), subject: "eve".into() })
            }
            _ => None,
        }
    }
}

const CAUSES: [Cause; 16] = [
    Cause::LogoutByRefresh,
    Cause::LogoutByAccess,
    Cause::LogoutEverywhere,
    Cause::OperatorSession,
    Cause::OperatorSubject,
    Cause::OperatorClient,
    Cause::OperatorAll,
    Cause::Reuse,
    Cause::ReuseOfSubject,
    Cause::UserChanged,
    Cause::PasswordChanged,
    Cause::Notice,
    Cause::OtherClient,
    Cause::OwnToken,
    Cause::ForeignToken,
    Cause::ForeignSubject,
];
const PARTNER: &str = "https://partner.test";

/// A world with a session of three generations, about to be ended.
struct Case {
    w: World,
    cause: Cause,
    pairs: [Pair; 3],
    record: Session,
}

impl Case {
    async fn new(kind: Kind, cause: Cause) -> Self {
        let mut w = World::on(kind).await;
        if cause == Cause::ReuseOfSubject {
            w.profile.on_reuse = OnReuse::RevokeSubject;
        }
        w.profile.other_client_ends_session = true;
        let first = w.login().await;
        w.check(&first.access).unwrap();
        let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
        w.check(&second.access).unwrap();
        let third = w.refreshed(&second.refresh, IssueKind::Rotated).await;
        w.check(&third.access).unwrap();
        w.engine.flush_confirmations().await.unwrap();
        w.advance(secs(60));
        let record = w.record(first.session).await;
        Self { w, cause, pairs: [first, second, third], record }
    }

    /// `Ok` if the reply confirms the end.
    async fn end(&self) -> Result<(), Error> {
        let (w, engine) = (&self.w, &self.w.engine);
        let [first, _, third] = &self.pairs;
        let own = async |everywhere: bool| {
            // As an endpoint does: a token that is refused now may still end its session.
            let access = w.verify_ignoring_expiry(&third.access, DAY).unwrap();
            match everywhere {
                true => {
                    engine
                        .log_out_everywhere(
                            AccountRule::Any.admit(&access).unwrap().own().unwrap(),
                            "web",
                            &Origin::default(),
                        )
                        .await
                }
                false => {
                    engine
                        .log_out_token(
                            AccountRule::Any.admit(&access).unwrap().own().unwrap(),
                            "web",
                            &Origin::default(),
                        )
                        .await
                }
            }
        };
        // A refusal is the right answer here.
        let refused = |result: Result<_, Error>| match result {
            Ok(_) => panic!("a refresh succeeded"),
            Err(Error::Denied(_)) => Ok(()),
            Err(failed) => Err(failed),
        };
        match self.cause {
            Cause::LogoutByRefresh => {
                let token = &third.refresh;
                engine.revoke_refresh_token(token, "web", AccountRule::Any, &Origin::default()).await.map(drop)
            }
            Cause::LogoutByAccess => own(false).await,
            Cause::LogoutEverywhere => own(true).await,
            Cause::OperatorSession => engine.revoke_session(&self.record, RevokedBecause::Operator).await.map(drop),
            Cause::OperatorSubject => engine.revoke_subject("ada", RevokedBecause::Operator).await.map(drop),
            Cause::OperatorClient => engine.revoke_client("web", RevokedBecause::Operator).await.map(drop),
            Cause::OperatorAll => engine.revoke_all(RevokedBecause::Operator).await.map(drop),
            Cause::Reuse | Cause::ReuseOfSubject => refused(w.refresh(&first.refresh).await.map(drop)),
            Cause::UserChanged => {
                w.users.change("ada", |user| user.active = false);
                let ended = refused(w.refresh(&third.refresh).await.map(drop));
                w.users.change("ada", |user| user.active = true);
                ended
            }
            Cause::PasswordChanged => {
                let entry = engine.subject_before("ada", engine.clock().now());
                engine.refuse(&entry, RevokedBecause::UserChanged);
                engine.keep(entry, RevokedBecause::UserChanged).await
            }
            Cause::OtherClient => {
                let ask = Ask { client: Client::public("other"), ..Ask::default() };
                refused(w.ask(&third.refresh, ask).await.map(drop))
            }
            Cause::Notice | Cause::OwnToken | Cause::ForeignToken | Cause::ForeignSubject => {
                let (now, target) = (engine.clock().now(), self.cause.target().unwrap());
                let effect = if let Target::Token { .. } = target { Effect::Gone } else { Effect::NotBefore(now) };
                let entry = Revocation { target, effect, until: now.plus(HOUR) };
                match self.cause {
                    Cause::Notice => engine.end_elsewhere(entry, None, now).await,
                    _ => engine.revoke(entry, RevokedBecause::Operator).await.map(drop),
                }
            }
        }
    }

    /// Is everything refused?
    async fn is_refused(&self) -> bool {
        if let Some(target) = self.cause.target() {
            let (issuer, jti) = match &target {
                Target::Token { issuer, jti } => (&**issuer, Some(&**jti)),
                _ => (PARTNER, None),
            };
            let facts = TokenFacts {
                issuer,
                subject: "eve",
                sub: None,
                client: None,
                session: None,
                delegation: None,
                key_vouchers: None,
                issuer_session: None,
                vouched_by: None,
                jti,
                issued_at: Some(Timestamp::from_secs(1)),
            };
            let now = self.w.engine.clock().now();
            return self.w.engine.revocations().judge(facts, now).refuses(now);
        }
        let third = &self.pairs[2];
        let access = self.w.check(&third.access);
        // The refresh of a live session would be a rotation, or fail with its write.
        let refresh = self.w.refresh(&third.refresh).await;
        matches!(access, Err(Denial::TokenRevoked)) && matches!(refresh, Err(Error::Denied(Denial::SessionRevoked(_))))
    }
}

fn each() -> impl Iterator<Item = (Kind, Cause)> {
    KINDS.iter().flat_map(|kind| CAUSES.into_iter().map(move |cause| (*kind, cause)))
}

#[tokio::test]
async fn r24_r25_r30_what_was_refused_is_durable_or_owed_whatever_ended_it() {
    for (kind, cause) in each() {
        for fault in [Mode::Good, Mode::WritesFail, Mode::AllFails, Mode::Refuses, Mode::Unanswered] {
            let about = format!("{kind:?} {cause:?} {fault:?}");
            if fault == Mode::AllFails && !cause.needs_nothing_read() {
                continue;
            }
            let mut case = Case::new(kind, cause).await;
            case.w.store.set(fault);
            let answer = case.end().await;
            case.w.store.set(Mode::Good);
            let survives = fault == Mode::Good || !matches!(kind, Kind::Alone | Kind::FullFile | Kind::Shared);
            let unpaid = case.w.engine.unpaid();
            match &answer {
                Ok(()) => assert!(survives, "{about}: acknowledged, and not durable"),
                Err(Error::Failed(_)) => assert!(!survives, "{about}: {answer:?}"),
                Err(Error::Denied(denial)) => panic!("{about}: {denial:?}"),
            }
            assert_eq!(unpaid.total > 0, fault != Mode::Good, "{about}");
            assert_eq!(unpaid.lost_at_end > 0, !survives, "{about}: {unpaid:?}");
            // Reads work again, so no refusal comes from a store that fails.
            assert!(case.is_refused().await, "{about}: here");
            if survives {
                case.w.restart().await;
                assert!(case.is_refused().await, "{about}: after a crash");
            }
            case.w.engine.pay().await.unwrap();
            assert_eq!(case.w.engine.unpaid(), Unpaid::default(), "{about}");
            case.w.restart().await;
            assert_eq!(case.w.engine.unpaid(), Unpaid::default(), "{about}: what the store has is owed no more");
            assert!(case.is_refused().await, "{about}: once it was paid");
        }
    }
}

#[tokio::test]
async fn r24_what_a_file_keeps_holds_over_any_number_of_restarts_while_the_store_fails() {
    for cause in CAUSES {
        let mut case = Case::new(Kind::WithFile, cause).await;
        case.w.store.set(Mode::WritesFail);
        case.end().await.unwrap();
        for _ in 0..3 {
            case.w.restart_while(Mode::WritesFail).await;
            case.w.engine.pay().await.unwrap_err();
            assert!(case.w.engine.unpaid().total > 0, "{cause:?}");
            case.w.store.set(Mode::Good);
            assert!(case.is_refused().await, "{cause:?}");
            case.w.store.set(Mode::WritesFail);
        }
    }
}

#[tokio::test]
async fn r25_a_session_ended_while_the_store_is_away_does_not_come_back_with_it_after_days() {
    for &kind in KINDS {
        for cause in [Cause::LogoutByRefresh, Cause::OperatorSubject, Cause::PasswordChanged] {
            let case = Case::new(kind, cause).await;
            case.w.store.set(Mode::WritesFail);
            let _ = case.end().await;
            let w = &case.w;
            for _ in 0..6 {
                w.advance(DAY / 2);
                w.engine.pay().await.unwrap_err();
                w.engine.revocations().sweep(w.engine.clock().now());
            }
            w.store.set(Mode::Good);
            let refresh = &case.pairs[2].refresh;
            assert!(matches!(denied(w.refresh(refresh).await), Denial::SessionRevoked(_)), "{kind:?} {cause:?}");
        }
    }
}

#[tokio::test]
async fn r25_a_request_that_is_dropped_while_the_store_writes_leaves_its_revocation_owed() {
    let audit = Events::collect(|metadata| metadata.target() == "rotogate::audit");
    let w = World::new().await;
    let first = w.login().await;
    w.store.set(Mode::Hangs);
    {
        let mut dropped = Box::pin(w.engine.revoke_refresh_token(&first.refresh, "web", AccountRule::Any, &ORIGIN));
        assert!(futures_util::poll!(&mut dropped).is_pending());
        assert_eq!(w.engine.unpaid(), Unpaid::default());
    }
    assert_eq!(w.engine.unpaid().total, 1);
    assert_eq!(revocations(&audit), [(Some("memory".to_owned()), Some("unknown".to_owned()))]);
    w.store.set(Mode::Good);
    assert_eq!(w.engine.pay().await.unwrap(), 1);
    assert_eq!(revocations(&audit), [(None, None)], "the store has it");
    assert_eq!(w.record(first.session).await.status, Status::Revoked(RevokedBecause::Logout));
}

#[tokio::test]
async fn r25_a_fault_of_one_revocation_spares_no_other() {
    let case = Case::new(Kind::Alone, Cause::ReuseOfSubject).await;
    let other = case.w.login().await;
    case.w.store.set(Mode::WritesFail);
    case.end().await.unwrap_err();
    case.w.store.set(Mode::Good);
    assert_eq!(case.w.check(&other.access).unwrap_err(), Denial::TokenRevoked, "another session of the subject");
}

/// The result of a logout with this token.
type LogOut<'a> = std::pin::Pin<Box<dyn Future<Output = Result<bool, Error>> + 'a>>;

#[tokio::test]
async fn r26_a_logout_ends_a_session_whose_record_the_store_lost_and_that_another_gate_writes_back() {
    let ways: [for<'a> fn(&'a World, &'a Pair) -> LogOut<'a>; 3] = [
        |w, pair| Box::pin(w.engine.revoke_refresh_token(&pair.refresh, "web", AccountRule::Any, &ORIGIN)),
        |w, pair| Box::pin(w.engine.log_out_by(&pair.refresh, &ORIGIN)),
        |w, pair| {
            Box::pin(async move {
                let access = w.verify_ignoring_expiry(&pair.access, DAY)?;
                w.engine.log_out_token(AccountRule::Any.admit(&access)?.own()?, "web", &ORIGIN).await.map(|()| true)
            })
        },
    ];
    for (nth, log_out) in ways.into_iter().enumerate() {
        let w = World::on(Kind::Shared).await;
        let node = Arc::clone(w.store.node.as_ref().unwrap());
        let other = w.login().await;
        let backup = node.back_up().unwrap();
        let first = w.login().await;
        let record = w.record(first.session).await;
        node.lose(&backup).unwrap();
        node.adopt().await.unwrap();
        assert!(node.load(first.session).await.unwrap().is_none());

        let edited = Pair { refresh: format!("{}A", first.refresh), ..first.clone() };
        if nth < 2 {
            assert!(!log_out(&w, &edited).await.unwrap(), "no key of ours made it");
            w.check(&first.access).unwrap();
        }
        assert!(log_out(&w, &first).await.unwrap(), "{nth}");
        assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked, "{nth}");
        node.restore(vec![record]).await.unwrap();
        let back = node.load(first.session).await.unwrap();
        assert!(back.is_none_or(|back| back.status != Status::Live), "{nth}: it lives again");
        w.refresh(&first.refresh).await.unwrap_err();
        w.check(&other.access).unwrap();
        let entries = node.revocations_since(Default::default()).await.unwrap().0;
        assert!(
            entries.iter().any(|entry| entry.target == Target::Session(first.session)),
            "{nth}: the others hear of it"
        );
    }
}

static ORIGIN: LazyLock<Origin> = LazyLock::new(Origin::default);

#[tokio::test]
async fn r26_a_record_that_is_there_still_says_whose_its_token_is() {
    let w = World::new().await;
    let first = w.login().await;
    let before = w.record(first.session).await;
    let by = |client| w.engine.revoke_refresh_token(&first.refresh, client, AccountRule::Any, &ORIGIN);
    assert_eq!(denied(by("other").await), Denial::OtherClient);
    assert_eq!(w.record(first.session).await, before);
    w.check(&first.access).unwrap();
}

#[tokio::test]
async fn r30_a_revocation_that_fails_again_and_again_keeps_no_other_from_the_store() {
    let w = World::new().await;
    w.store.set(Mode::WritesFail);
    // These revocations come first, and one round does not try all of them.
    for n in 0..100 {
        let entry = w.engine.end_of(SessionId::new(T0, [n; 10]), Timestamp::ZERO);
        w.engine.revoke(entry, RevokedBecause::Operator).await.unwrap_err();
    }
    w.engine.revoke_all(RevokedBecause::Operator).await.unwrap_err();
    w.store.set(Mode::NoSessionEnds);
    for _ in 0..2 {
        w.engine.pay().await.unwrap_err();
    }
    assert_eq!(w.engine.unpaid().total, 100, "the one for all is written");
    w.store.set(Mode::Good);
    assert_eq!(w.engine.pay().await.unwrap(), 100, "from the first again, wherever the last round ended");
    assert_eq!(w.engine.unpaid(), Unpaid::default());
}

#[tokio::test]
async fn r31_what_another_entry_will_take_the_place_of_is_not_written_and_a_stop_loses_it_until_it_is_let_go() {
    let w = World::on(Kind::Shared).await;
    let first = w.login().await;
    let so_far = w.engine.subject_before("ada", w.engine.clock().now());
    w.engine.refuse_for_now(&so_far, RevokedBecause::Operator);
    for _ in 0..6 {
        w.advance(DAY / 2);
        assert_eq!(w.engine.pay().await.unwrap(), 0);
        w.engine.revocations().sweep(w.engine.clock().now());
    }
    assert!(matches!(denied(w.refresh(&first.refresh).await), Denial::SessionRevoked(_)), "for days");
    let lost = Unpaid { total: 1, lost_at_end: 1, named: so_far.target.to_string() };
    assert_eq!(w.engine.unpaid(), lost);
    // An owed entry of the same target is no second one.
    w.store.set(Mode::WritesFail);
    w.engine.revoke(so_far.clone(), RevokedBecause::Operator).await.unwrap_err();
    assert_eq!(w.engine.unpaid(), lost);
    w.store.set(Mode::Good);
    assert_eq!(w.engine.pay().await.unwrap(), 1);
    assert_eq!(w.engine.unpaid(), lost);
    w.engine.let_go(&so_far);
    assert_eq!(w.engine.unpaid(), Unpaid::default());
}

/// `owed` and `event.outcome` of each revocation in the audit trail.
fn revocations(audit: &Events) -> Vec<(Option<String>, Option<String>)> {
    let of_a_revocation = |line: &Fields| line["event"] == "revocation";
    let part = |line: &mut Fields| (line.remove("owed"), line.remove("event.outcome"));
    audit.taken().iter_mut().filter(|line| of_a_revocation(line)).map(part).collect()
}

#[tokio::test]
async fn r33_the_audit_trail_says_where_a_revocation_is_and_a_second_line_that_the_store_has_it() {
    let audit = Events::collect(|metadata| metadata.target() == "rotogate::audit");
    let text = |text: &str| Some(text.to_owned());
    for (kind, where_it_is) in [
        (Kind::Alone, (text("memory"), text("unknown"))),
        (Kind::FullFile, (text("memory"), text("unknown"))),
        (Kind::Shared, (text("memory"), text("unknown"))),
        (Kind::WithFile, (text("file"), None)),
    ] {
        let case = Case::new(kind, Cause::LogoutByRefresh).await;
        case.w.store.set(Mode::WritesFail);
        let _ = case.end().await;
        let _ = case.end().await;
        assert_eq!(revocations(&audit), [where_it_is], "{kind:?}");
        case.w.store.set(Mode::Good);
        case.w.engine.pay().await.unwrap();
        assert_eq!(revocations(&audit), [(None, None)], "{kind:?}: the second line");
    }
    // The record of the session says that it has ended, but no feed has reported that here.
    let case = Case::new(Kind::Shared, Cause::LogoutByRefresh).await;
    let elsewhere = case.w.second_node().await;
    case.end().await.unwrap();
    assert_eq!(revocations(&audit), [(None, None)]);
    let refresh = &case.pairs[2].refresh;
    elsewhere.revoke_refresh_token(refresh, "web", AccountRule::Any, &ORIGIN).await.unwrap();
    assert_eq!(revocations(&audit), [(None, None)], "nothing is owed of it");
    assert_eq!(elsewhere.unpaid(), Unpaid::default());
}
