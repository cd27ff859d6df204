//! Long random histories with real durations and any valid profile, and the invariants of each step.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use rotogate::clock::Timestamp;
use rotogate::session::profile::Profile;
use rotogate::session::{Generation, RevokedBecause, Scope, Session, SessionId, Status};
use rotogate_core::session::LastPair;
use rotogate_core::session::Seal;
use rotogate_core::session::SessionSecret;
use rotogate_core::session::rotation::{Decision, Facts, REVOKED, apply_decision, decide};

const CREATED: Timestamp = Timestamp::from_millis(1_732_000_000_123);
const DAY: u64 = 86_400_000;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A profile within its bounds, more often at the bounds than by chance.
fn profile() -> impl Strategy<Value = Profile> {
    let grace = prop_oneof![Just(0), Just(1), Just(60_000), 0..=60_000u64];
    let idle = prop_oneof![1..10_000u64, 1..14 * DAY];
    let after = prop_oneof![Just(None), Just(Some(0)), (1..600_000u64).prop_map(Some)];
    (grace, idle, 0..20 * DAY, any::<Index>(), 0..DAY, 0..DAY, after).prop_map(
        |(grace, idle, beyond, window, access, max, after)| {
            let access = access.max(1000).max(grace * 2);
            let widest = if grace == 0 { 0 } else { idle.min(7 * DAY) };
            let profile = Profile {
                access_ttl: ms(access),
                max_access_ttl: ms(access + max),
                session_ttl: ms(idle + beyond),
                idle_ttl: ms(idle),
                grace: ms(grace),
                lost_response_window: ms(window.index(widest as usize + 1) as u64),
                revoke_previous_after: after.map(ms),
                ..Profile::default()
            };
            assert_eq!(profile.problems(), []);
            profile
        },
    )
}

#[derive(Clone, Copy, Debug)]
enum Token {
    Current,
    Previous,
    Older(u64),
    Newer(u64),
    Any(u64),
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Present(Token),
    Confirm,
    /// Time passes: this duration, or a window of the profile and a millisecond less or more.
    Pass(u64),
    PassWindow(Index, i8),
    Known(u64),
    Forget,
    Broken(bool),
    UserInactive,
    NotBefore(u64),
    Revoke,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let token = prop_oneof![
        8 => Just(Token::Current),
        6 => Just(Token::Previous),
        2 => (1..4u64).prop_map(Token::Older),
        1 => (1..4u64).prop_map(Token::Newer),
        1 => prop_oneof![Just(0), Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()].prop_map(Token::Any),
    ];
    let one = prop_oneof![
        240 => token.prop_map(Move::Present),
        40 => Just(Move::Confirm),
        60 => (0..2000u64).prop_map(Move::Pass),
        90 => (any::<Index>(), -1..=1i8).prop_map(|(which, off)| Move::PassWindow(which, off)),
        10 => (0..4u64).prop_map(Move::Known),
        10 => Just(Move::Forget),
        10 => any::<bool>().prop_map(Move::Broken),
        1 => Just(Move::UserInactive),
        1 => (0..3u64).prop_map(Move::NotBefore),
        1 => Just(Move::Revoke),
    ];
    proptest::collection::vec(one, 1..200)
}

struct Run {
    s: Session,
    now: Timestamp,
    facts: Facts,
    profile: Profile,
    /// Some refresh was answered `Reuse`.
    reused: BTreeSet<Generation>,
    /// The expiry of the longest access token issued.
    longest: Timestamp,
}

impl Run {
    fn new(profile: Profile) -> Self {
        let access_expires = CREATED.plus(profile.access_ttl).min(CREATED.plus(profile.session_ttl));
        let s = Session {
            bound_to: None,
            certificate: None,
            browser: None,
            seal: Seal::default(),
            resource: None,
            vouched_by: None,
            id: SessionId::new(CREATED, [7; 10]),
            secret: SessionSecret::new([9; 16]),
            subject: "ada".into(),
            account: Some("acme".into()),
            client: "web".into(),
            scope: Scope::parse("read write").unwrap(),
            dialect: "oauth2".into(),
            expires: CREATED.plus(profile.session_ttl),
            latest_access_expires: access_expires,
            current: Generation::FIRST,
            previous: Generation::NONE,
            rotated_at: CREATED,
            issued_at: CREATED,
            confirmed: false,
            last: LastPair { scope: Scope::default(), access_expires, kid: "k1".into(), refresh_key: 1 },
            status: Status::Live,
            revision: 1,
            user_agent: None,
            address: None,
            claims: rotogate::claim::OwnClaims::default(),
        };
        let facts = Facts {
            user_active: true,
            sessions_valid_from: Timestamp::ZERO,
            minimum_known: Generation::NONE,
            unbroken_revocations: true,
        };
        Self { s, now: CREATED, facts, profile, reused: BTreeSet::new(), longest: access_expires }
    }

    fn play(&mut self, one: Move) -> Result<(), TestCaseError> {
        match one {
            Move::Present(token) => return self.present(token),
            Move::Confirm => self.s.confirmed = true,
            Move::Pass(by) => self.now = self.now.plus(ms(by)),
            Move::PassWindow(which, off) => {
                let p = &self.profile;
                let windows = [p.grace, p.grace, p.lost_response_window, p.lost_response_window, p.idle_ttl];
                let to = self.now.plus(windows[which.index(windows.len())]);
                self.now = match off {
                    1 => to.plus(ms(1)),
                    -1 => to.minus(ms(1)).max(self.now),
                    _ => to,
                };
            }
            Move::Known(beyond) => {
                self.facts.minimum_known =
                    self.facts.minimum_known.max(Generation::new(self.s.current.get().saturating_add(beyond)));
            }
            Move::Forget => self.facts.minimum_known = Generation::NONE,
            Move::Broken(broken) => self.facts.unbroken_revocations = !broken,
            Move::UserInactive => self.facts.user_active = false,
            Move::NotBefore(off) => self.facts.sessions_valid_from = CREATED.minus(ms(1)).plus(ms(off)),
            Move::Revoke => self.s.status = Status::Revoked(RevokedBecause::Operator),
        }
        Ok(())
    }

    fn present(&mut self, token: Token) -> Result<(), TestCaseError> {
        let presented = match token {
            Token::Current => self.s.current,
            Token::Previous => self.s.previous,
            Token::Older(by) => Generation::new(self.s.previous.get().saturating_sub(by)),
            Token::Newer(by) => Generation::new(self.s.current.get().saturating_add(by)),
            Token::Any(generation) => Generation::new(generation),
        };
        let decision = decide(&self.s, presented, self.facts, self.now, &self.profile);
        prop_assert_eq!(decide(&self.s, presented, self.facts, self.now, &self.profile), decision);
        self.judge(decision, presented)?;
        let access_expires = self.now.plus(self.profile.access_ttl).min(self.s.expires);
        let pair = LastPair { access_expires, ..self.s.last.clone() };
        let Some(made) = apply_decision(&self.s, decision, presented, pair, self.now, &self.profile) else {
            let used_up = presented.get() >= REVOKED.get() - 1;
            prop_assert!(used_up || !matches!(decision, Decision::Rotate | Decision::Reissue));
            let forward = Decision::Ahead { fast_forward: true };
            prop_assert!(used_up || decision != forward);
            return Ok(());
        };
        prop_assert!(
            matches!(decision, Decision::Rotate | Decision::Reissue | Decision::Ahead { fast_forward: true }),
            "{:?} changes the record",
            decision
        );
        let (old, new) = (&self.s, &made.record);
        prop_assert!(new.current > old.current && new.current > presented && new.current < REVOKED);
        prop_assert!(new.previous < new.current && new.previous >= old.previous && new.previous == presented);
        prop_assert!(new.rotated_at >= old.rotated_at && new.issued_at >= old.issued_at);
        prop_assert!(new.issued_at == self.now && new.rotated_at <= self.now);
        prop_assert_eq!((new.confirmed, new.revision), (false, old.revision + 1));
        // No access token outlives the record's expiry, and no token that the raised minimum refuses outlives the
        // entry.
        prop_assert!(new.latest_access_expires >= self.longest.max(access_expires));
        if let Some(raised) = made.raised {
            prop_assert!(
                raised.until >= self.longest && raised.minimum == new.current && raised.before == Generation::NONE
            );
            prop_assert!(raised.effective_from >= self.now);
            prop_assert!(decision != Decision::Reissue || raised.effective_from == self.now);
        } else {
            prop_assert!(decision != Decision::Reissue && self.profile.revoke_previous_after.is_none());
        }
        // Nothing else changes.
        let same = Session {
            current: old.current,
            previous: old.previous,
            rotated_at: old.rotated_at,
            issued_at: old.issued_at,
            confirmed: old.confirmed,
            latest_access_expires: old.latest_access_expires,
            last: old.last.clone(),
            revision: old.revision,
            ..new.clone()
        };
        prop_assert_eq!(&same, old);
        self.longest = self.longest.max(access_expires);
        self.s = made.record;
        Ok(())
    }

    /// The rows of the table in reverse: the implications of a decision.
    fn judge(&mut self, decision: Decision, generation: Generation) -> Result<(), TestCaseError> {
        let (s, p, now, facts) = (&self.s, &self.profile, self.now, self.facts);
        let ended = s.status != Status::Live
            || facts.minimum_known == REVOKED
            || !facts.user_active
            || facts.sessions_valid_from >= CREATED;
        let expired = now >= s.expires || now.since(s.issued_at) >= p.idle_ttl;
        let ahead = generation > s.current || facts.minimum_known > s.current;
        match decision {
            Decision::Revoked(_) => prop_assert!(ended),
            Decision::Expired(_) => prop_assert!(!ended && expired),
            Decision::Ahead { fast_forward } => {
                prop_assert!(!ended && !expired && ahead);
                let safe = facts.unbroken_revocations && generation > s.current && generation >= facts.minimum_known;
                prop_assert!(!fast_forward || safe);
            }
            Decision::Rotate | Decision::Replay | Decision::Reissue | Decision::Reuse(_) => {
                prop_assert!(!ended && !expired && !ahead);
            }
        }
        let in_grace = generation == s.previous && generation != Generation::NONE && now.since(s.issued_at) < p.grace;
        let in_window = generation == s.previous
            && generation != Generation::NONE
            && !s.confirmed
            && now.since(s.rotated_at) < p.lost_response_window;
        match decision {
            Decision::Rotate => prop_assert_eq!(generation, s.current),
            Decision::Replay => prop_assert!(in_grace),
            Decision::Reissue => prop_assert!(in_window && !in_grace),
            Decision::Reuse(how) => {
                prop_assert!(generation < s.current && !in_grace && !in_window);
                prop_assert_eq!(how.generations_old, s.current.get() - generation.get());
                self.reused.insert(generation);
            }
            Decision::Revoked(_) | Decision::Expired(_) | Decision::Ahead { .. } => {}
        }
        // The windows never open again: a token that was a reuse is never served again.
        if !matches!(decision, Decision::Revoked(_) | Decision::Expired(_) | Decision::Ahead { fast_forward: false }) {
            let reuse = matches!(decision, Decision::Reuse(_));
            prop_assert!(reuse || !self.reused.contains(&generation), "{:?} of {}", decision, generation);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn every_step_of_a_long_history_keeps_the_rules(profile in profile(), moves in moves()) {
        let mut run = Run::new(profile);
        for one in moves {
            run.play(one)?;
        }
    }
}
