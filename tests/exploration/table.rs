//! The record of the model, and the production table behind it.

use std::collections::HashMap;
use std::time::Duration;

use rotogate::clock::Timestamp;
use rotogate::session::profile::Profile;
use rotogate::session::{Generation, RevokedBecause, Scope, Session, SessionId, Status};
use rotogate_core::session::LastPair;
use rotogate_core::session::Seal;
use rotogate_core::session::SessionSecret;
use rotogate_core::session::rotation::{self, Decision, Facts, RecordChange};

/// One unit of the model's time.
const UNIT: Duration = Duration::from_millis(300);
/// In units of [`UNIT`].
pub(crate) const GRACE: u8 = 1;
/// In units of [`UNIT`].
pub(crate) const WINDOW: u8 = 4;
/// A minimum that no token of the model reaches.
pub(crate) const REVOKED: u8 = u8::MAX;

const CREATED: Timestamp = Timestamp::from_secs(1_732_000_000);
const NOW: Timestamp = CREATED.plus(Duration::from_secs(3600));

/// The parts of the record that a decision reads. Times are ages in units, capped where they make no further
/// difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) current: u8,
    pub(crate) previous: u8,
    pub(crate) rotated: u8,
    pub(crate) issued: u8,
    pub(crate) confirmed: bool,
    pub(crate) live: bool,
}

impl Record {
    /// A fresh login.
    pub(crate) const FIRST: Self =
        Self { current: 1, previous: 0, rotated: WINDOW, issued: GRACE, confirmed: false, live: true };

    pub(crate) fn tick(&mut self) {
        self.rotated = (self.rotated + 1).min(WINDOW);
        self.issued = (self.issued + 1).min(GRACE);
    }
}

/// A [`Decision`], without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Revoked,
    Refused,
    Forward,
    Rotate,
    Replay,
    Reissue,
    Reuse,
}

impl Verdict {
    /// Does the holder of such a token get a successor?
    pub(crate) fn serves(self) -> bool {
        match self {
            Self::Forward | Self::Rotate | Self::Replay | Self::Reissue => true,
            Self::Revoked | Self::Refused | Self::Reuse => false,
        }
    }

    /// Does such a token stand for the session's present state, and not for a predecessor that is still served?
    pub(crate) fn is_live(self) -> bool {
        self == Self::Rotate || self == Self::Forward
    }
}

/// The outcome of a presented token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// The record after it, and the minimum it raises, when a generation is issued.
    pub(crate) next: Option<(Record, Option<u8>)>,
}

type Decide = fn(&Session, Generation, Facts, Timestamp, &Profile) -> Decision;
type Steps = fn(&Session, Decision, Generation, LastPair, Timestamp, &Profile) -> Option<RecordChange>;

/// The functions of production, or faulty ones.
pub(crate) struct Table {
    pub(crate) decide: Decide,
    pub(crate) step: Steps,
    profile: Profile,
    session: Session,
    /// A cache: the same question has the same answer, because both functions are pure.
    known: HashMap<(Record, u8, u8, bool), Outcome, foldhash::fast::RandomState>,
}

impl Table {
    /// The functions of production.
    pub(crate) fn new(revoke_previous: bool) -> Self {
        let profile = Profile {
            grace: UNIT * u32::from(GRACE),
            lost_response_window: UNIT * u32::from(WINDOW),
            revoke_previous_after: revoke_previous.then_some(Duration::ZERO),
            ..Profile::default()
        };
        assert_eq!(profile.problems(), []);
        let session = Session {
            bound_to: None,
            certificate: None,
            browser: None,
            seal: Seal::default(),
            resource: None,
            vouched_by: None,
            id: SessionId::new(CREATED, [7; 10]),
            secret: SessionSecret::new([9; 16]),
            subject: "ada".into(),
            account: None,
            client: "web".into(),
            scope: Scope::default(),
            dialect: "oauth2".into(),
            expires: CREATED.plus(profile.session_ttl),
            latest_access_expires: NOW.plus(profile.access_ttl),
            current: Generation::NONE,
            previous: Generation::NONE,
            rotated_at: NOW,
            issued_at: NOW,
            confirmed: false,
            last: pair(&profile),
            status: Status::Live,
            revision: 0,
            user_agent: None,
            address: None,
            claims: rotogate::claim::OwnClaims::default(),
        };
        Self { decide: rotation::decide, step: rotation::apply_decision, profile, session, known: HashMap::default() }
    }

    /// The outcome of presenting this generation, given the record and the revocation list.
    pub(crate) fn ask(&mut self, record: Record, generation: u8, minimum: u8, unbroken: bool) -> Outcome {
        let key = (record, generation, minimum, unbroken);
        if let Some(outcome) = self.known.get(&key) {
            return *outcome;
        }
        let outcome = self.work_out(record, generation, minimum, unbroken);
        self.known.insert(key, outcome);
        outcome
    }

    fn work_out(&mut self, record: Record, generation: u8, minimum: u8, unbroken: bool) -> Outcome {
        let s = &mut self.session;
        s.current = Generation::new(record.current.into());
        s.previous = Generation::new(record.previous.into());
        s.rotated_at = NOW.minus(UNIT * u32::from(record.rotated));
        s.issued_at = NOW.minus(UNIT * u32::from(record.issued));
        s.confirmed = record.confirmed;
        s.status = if record.live { Status::Live } else { Status::Revoked(RevokedBecause::Logout) };
        let presented = Generation::new(generation.into());
        let facts = Facts {
            user_active: true,
            sessions_valid_from: Timestamp::ZERO,
            minimum_known: if minimum == REVOKED { rotation::REVOKED } else { Generation::new(minimum.into()) },
            unbroken_revocations: unbroken,
        };
        let decision = (self.decide)(s, presented, facts, NOW, &self.profile);
        let verdict = match decision {
            Decision::Revoked(_) => Verdict::Revoked,
            Decision::Expired(_) => unreachable!("lifetimes are not in the small world"),
            Decision::Ahead { fast_forward: false } => Verdict::Refused,
            Decision::Ahead { fast_forward: true } => Verdict::Forward,
            Decision::Rotate => Verdict::Rotate,
            Decision::Replay => Verdict::Replay,
            Decision::Reissue => Verdict::Reissue,
            Decision::Reuse(_) => Verdict::Reuse,
        };
        let next = (self.step)(s, decision, presented, pair(&self.profile), NOW, &self.profile).map(|step| {
            let age = |at: Timestamp| u8::try_from(NOW.since(at).as_millis() / UNIT.as_millis()).unwrap();
            let record = Record {
                current: small(step.record.current.get()),
                previous: small(step.record.previous.get()),
                rotated: age(step.record.rotated_at),
                issued: age(step.record.issued_at),
                confirmed: step.record.confirmed,
                live: step.record.status == Status::Live,
            };
            let raised = step.raised.map(|raised| {
                assert_eq!((raised.effective_from, raised.before), (NOW, Generation::NONE));
                small(raised.minimum.get())
            });
            (record, raised)
        });
        assert_eq!(next.is_some(), verdict.serves() && verdict != Verdict::Replay);
        Outcome { verdict, next }
    }
}

fn pair(profile: &Profile) -> LastPair {
    LastPair { scope: Scope::default(), access_expires: NOW.plus(profile.access_ttl), kid: "k1".into(), refresh_key: 1 }
}

fn small(generation: u64) -> u8 {
    u8::try_from(generation).unwrap()
}
