//! The steps of one refresh.

use std::borrow::Cow;
use std::sync::Arc;

use super::presented::{PresentedCredential, belongs, names_resource, presents_certificate, proves_key};
use super::{ExplainedRefresh, ReadRecord, StartedRefresh, bounded, claims_now, successor_token};
use crate::clock::Timestamp;
use crate::denial::{Denial, NotGood};
use crate::directory::User;
use crate::dpop::OnceProof;
use crate::engine::grant::{access_expiry, granted_at_refresh, still_granted};
use crate::engine::turn::Turn;
use crate::engine::{Engine, Event, HeldUp, IssueKind, IssuedTokens, Refresh, audit};
use crate::fault::{Error, Fault};
use crate::revocation::{Revocation, raised_minimum};
use crate::session::profile::Profile;
use crate::session::rotation::{self, Decision, RecordChange, Reuse, decide};
use crate::session::{LastPair, Session, Status};
use crate::store::Swap;
use crate::token::keyring::Keyring;
use crate::trace;

pub(super) struct RefreshRun<'e, 'r> {
    engine: &'e Engine,
    refresh: Refresh<'r>,
    keyring: Arc<Keyring>,
    presented: PresentedCredential,
    /// Whether the credential is an access token that had already expired.
    has_expired: bool,
    /// The lock against other refreshes of the session. A replay releases the lock early.
    turn: Option<Turn<'e>>,
    /// The session's record. `None` if it must be read from the store.
    known: Option<ReadRecord>,
    /// The user's entry in the directory. The outer `None` means that the directory did not log the user in.
    user: Option<Option<User>>,
    is_proof_used: bool,
    is_counted: bool,
    /// If set, the run only fills the explanation.
    explained: Option<&'r mut ExplainedRefresh>,
}

/// An attempt's decision, which has no effect yet.
pub(super) struct JudgedRefresh<'r> {
    read: ReadRecord,
    now: Timestamp,
    profile: Cow<'r, Profile>,
    pub(super) decision: Decision,
}

impl<'e, 'r> RefreshRun<'e, 'r> {
    pub(super) async fn begin(
        engine: &'e Engine,
        refresh: Refresh<'r>,
        begun: Option<StartedRefresh<'e>>,
        explained: Option<&'r mut ExplainedRefresh>,
    ) -> Result<Self, Error> {
        let keyring = engine.keyring();
        let presented = PresentedCredential::authenticate(refresh.credential, &keyring)?;
        // A token that expires while the refresh waits is treated as valid.
        let has_expired = presented.has_expired(engine.clock.latest());
        let (known, turn) = match begun.filter(|begun| begun.record.session.id == presented.session) {
            Some(StartedRefresh { record, turn }) => (Some(record), Some(turn)),
            None if explained.is_some() => (None, None),
            None => {
                let turn = engine.turns.take(presented.session).await;
                (engine.recall_for_refresh(presented.session, presented.generation), Some(turn))
            }
        };
        Ok(Self {
            engine,
            refresh,
            keyring,
            presented,
            has_expired,
            turn,
            known,
            user: None,
            is_proof_used: false,
            is_counted: false,
            explained,
        })
    }

    pub(super) fn into_user(self) -> Option<User> {
        self.user.flatten()
    }

    /// Returns `None` if the record changed, so that another attempt is necessary.
    pub(super) async fn attempt(&mut self) -> Result<Option<IssuedTokens>, Error> {
        let has_expired = self.has_expired;
        self.attempt_once().await.map_err(|error| match error {
            // A client whose token has expired must log in again.
            Error::Denied(denial) if has_expired && NotGood::from_denial(denial).is_ok() => Denial::TokenExpired.into(),
            error => error,
        })
    }

    async fn attempt_once(&mut self) -> Result<Option<IssuedTokens>, Error> {
        let judged = self.judge().await?;
        let repeats = self.repeats(&judged);
        let JudgedRefresh { read, now, profile, decision } = judged;
        if read.is_recalled && (decision != Decision::Rotate || self.has_expired) {
            // The record may be outdated, which only a rotation's compare-and-swap detects.
            return Ok(None);
        }
        if self.has_expired && !repeats {
            // The reuse of an expired token is logged, but does not end a session.
            if let Decision::Reuse(reuse) = decision {
                self.engine.tell_reuse(&read.session, reuse, &self.refresh);
            }
            return Err(Denial::TokenExpired.into());
        }
        let how = match decision {
            Decision::Revoked(why) => {
                let why = self.engine.end_revoked(&read.session, self.user.as_ref(), why).await?;
                return Err(Denial::SessionRevoked(why).into());
            }
            Decision::Expired(which) => return Err(which.denial().into()),
            Decision::Ahead { fast_forward: false } => {
                self.engine.counts.add(Event::Ahead);
                audit::ahead(&read.session, self.presented.generation, self.refresh.origin);
                return Err(Denial::Ahead.into());
            }
            Decision::Reuse(reuse) => return self.judge_reuse(&read.session, reuse, now).await,
            Decision::Replay => {
                if self.has_expired {
                    audit::repeated(&read.session, self.refresh.origin);
                }
                return self.replay(read.session, now).await;
            }
            Decision::Rotate => IssueKind::Rotated,
            Decision::Reissue => IssueKind::Reissued,
            Decision::Ahead { fast_forward: true } => IssueKind::FastForwarded,
        };
        names_resource(&read.session, &self.refresh)?;
        self.count_rotation(&read.session)?;
        let change = self.next_record(&read.session, decision, now, &profile)?;
        self.write(&read, change, how, now).await
    }

    /// Returns whether an attempt would be a retry after a lost response. Queries the directory only if the credential
    /// belongs to the previous generation.
    pub(super) async fn would_repeat(&mut self) -> Result<bool, Error> {
        let read = self.read().await?;
        if read.session.status != Status::Live || self.presented.generation != read.session.previous {
            return Ok(false);
        }
        self.known = Some(read);
        let judged = self.judge().await?;
        Ok(self.repeats(&judged))
    }

    /// An expired token is accepted only while its successor is unused.
    fn repeats(&self, judged: &JudgedRefresh<'_>) -> bool {
        judged.decision.repeats() && !(self.has_expired && judged.read.session.confirmed)
    }

    pub(super) async fn judge(&mut self) -> Result<JudgedRefresh<'r>, Error> {
        let mut read = self.read().await?;
        read.session.confirmed |= self.engine.confirmations.has(read.session.id, read.session.current);
        if let Some(explained) = &mut self.explained {
            explained.session = Some(read.session.clone());
        }
        self.refresh.origin.note.set_session(&read.session);
        self.check_presenter(&read.session).await?;
        self.look_up_user(&read.session).await?;
        let now = self.engine.clock.now();
        let profile = bounded(&read.session, self.refresh.profile);
        let decision = self.decide(&read, now, &profile).await?;
        Ok(JudgedRefresh { read, now, profile, decision })
    }

    async fn read(&mut self) -> Result<ReadRecord, Error> {
        let record = match self.known.take() {
            Some(record) => Some(record),
            None => self.engine.read_for_refresh(self.presented.session).await?,
        };
        let record = record.ok_or(Denial::UnknownRefreshToken)?;
        let is_refreshed = record.session.browser.is_none();
        let is_good = is_refreshed && self.presented.proves(&record.session);
        if is_good { Ok(record) } else { Err(Denial::UnknownRefreshToken.into()) }
    }

    /// Only a legitimate presenter may change or end the session.
    async fn check_presenter(&mut self, session: &Session) -> Result<(), Error> {
        if self.explained.is_none() {
            proves_key(session, &self.refresh)?;
            presents_certificate(session, &self.refresh)?;
            if let (Some(proof), false) = (&self.refresh.proof, self.is_proof_used) {
                proof.use_once(self.engine.clock.now(), &*self.engine.store).await?;
                self.is_proof_used = true;
            }
        }
        let judged = belongs(session, &self.refresh);
        if judged == Err(Denial::OtherClient) && self.explained.is_none() && !self.has_expired {
            self.engine.judge_other_client(session, &self.refresh).await?;
        }
        Ok(judged?)
    }

    async fn look_up_user(&mut self, session: &Session) -> Result<(), Error> {
        if self.user.is_none() {
            self.user = self.engine.user_of(session).await?;
        }
        Ok(())
    }

    async fn decide(&self, read: &ReadRecord, now: Timestamp, profile: &Profile) -> Result<Decision, Error> {
        let (engine, session, presented) = (self.engine, &read.session, self.presented.generation);
        let mut facts = engine.facts(session, self.user.as_ref(), read.minimum_known);
        let mut decision = decide(session, presented, facts, now, profile);
        let is_ahead = decision == (Decision::Ahead { fast_forward: false });
        if is_ahead && !read.is_recalled && self.explained.is_none() && engine.may_continue(session).await? {
            facts.unbroken_revocations = true;
            decision = decide(session, presented, facts, now, profile);
        }
        Ok(match decision {
            Decision::Revoked(why) => Decision::Revoked(engine.cause_of(session, self.user.as_ref(), why)),
            other => other,
        })
    }

    /// Repeats the response if the store did not acknowledge this gate's last rotation of the token. Otherwise the
    /// session ends.
    async fn judge_reuse(
        &mut self,
        session: &Session,
        reuse: Reuse,
        now: Timestamp,
    ) -> Result<Option<IssuedTokens>, Error> {
        // The client may have refreshed at another gate in the meantime (requirement C9).
        self.engine.is_recent(self.refresh.arrived)?;
        let Some(own) = self.engine.written_in_doubt(session, self.presented.generation).await? else {
            return Err(self.engine.reused(session, reuse, &self.refresh).await?.into());
        };
        let id = own.id;
        // Keep the turn during the replay, so that a refresh with an unknown outcome gets only one response.
        let turn = self.turn.take();
        let issued = self.replay(own, now).await?;
        self.turn = turn;
        if issued.is_some() {
            self.engine.resolved(id);
        }
        Ok(issued)
    }

    /// Returns the current pair again, with the same bytes if possible. Returns `None` if the session changed in the
    /// meantime.
    async fn replay(&mut self, session: Session, now: Timestamp) -> Result<Option<IssuedTokens>, Error> {
        if session.bound_to.is_some() && session.bound_to != self.refresh.proof.as_ref().map(OnceProof::key) {
            return Err(Denial::OtherSessionKey.into());
        }
        if session.certificate.is_some() && session.certificate != self.refresh.certificate {
            return Err(Denial::OtherSessionCertificate.into());
        }
        names_resource(&session, &self.refresh)?;
        let (engine, refresh_keys) = (self.engine, self.keyring.refresh_keys());
        let last = &session.last;
        let life = last.access_expires.since(session.issued_at);
        let left = last.access_expires.since(now);
        let has_refresh_key = refresh_keys.contains(last.refresh_key);
        let same_keys = self.keyring.signing_key(&last.kid).is_some() && has_refresh_key;
        let scope = still_granted(&last.scope, self.refresh.client, self.user.as_ref().and_then(Option::as_ref));
        let claims = claims_now(&session, self.user.as_ref());
        let allowed = scope == last.scope && claims == session.claims;
        // Near the session's expiry, a new token would not expire later than the current one.
        let longest = left * 2 >= life || last.access_expires.as_secs() >= session.expires.as_secs();
        if same_keys && allowed && longest {
            // Release the turn, because the rest of the refresh only reads.
            drop(self.turn.take());
            // The rotation may not be durable yet (requirement C14).
            engine.settle().await?;
            let issued = engine.pair(&self.keyring, &session, now, IssueKind::Replayed)?;
            engine.count_replay(&session);
            return Ok(Some(issued));
        }
        let fresh = LastPair {
            scope,
            access_expires: access_expiry(now, session.expires, self.refresh.access_ttl, self.refresh.profile),
            kid: self.keyring.signer().kid().into(),
            refresh_key: if has_refresh_key { last.refresh_key } else { refresh_keys.current() },
        };
        let expected = session.revision;
        let record = Session {
            latest_access_expires: session.latest_access_expires.max(fresh.access_expires),
            last: fresh,
            claims,
            revision: expected + 1,
            ..session
        };
        let issued = engine.pair(&self.keyring, &record, now, IssueKind::Replayed)?;
        let swapping = engine.measured(engine.store.compare_and_swap(expected, record.clone(), None));
        match trace::step("rotogate.store.commit", "swap", swapping).await? {
            Swap::Swapped => {
                engine.keep_written(&record);
                engine.count_replay(&record);
                if let Some(successor) = successor_token(&self.keyring, &record) {
                    engine.live_sessions.advance(record.id, record.current, successor);
                }
                Ok(Some(issued))
            }
            Swap::Changed(_) | Swap::NoLongerValid => Ok(None),
        }
    }

    /// Counts a rotation against the rate limit, but only once if the rotation takes several attempts.
    fn count_rotation(&mut self, session: &Session) -> Result<(), Denial> {
        if !self.is_counted {
            self.engine.limits.rotation(session.id).inspect_err(|denial| {
                let (subject, client) = (Some(session.subject.clone()), Some(session.client.clone()));
                let of = || HeldUp { session: Some(session.id), subject, client, ..HeldUp::default() };
                self.engine.tell_held_up(&(*denial).into(), self.refresh.origin, of);
            })?;
            self.is_counted = true;
        }
        Ok(())
    }

    fn next_record(
        &self,
        session: &Session,
        decision: Decision,
        now: Timestamp,
        profile: &Profile,
    ) -> Result<RecordChange, Error> {
        let (refresh, user) = (&self.refresh, self.user.as_ref());
        let pair = LastPair {
            scope: granted_at_refresh(session, refresh, user.and_then(Option::as_ref))?,
            access_expires: access_expiry(now, session.expires, refresh.access_ttl, refresh.profile),
            kid: self.keyring.signer().kid().into(),
            refresh_key: self.keyring.refresh_keys().current(),
        };
        let presented = self.presented.generation;
        let mut change = rotation::apply_decision(session, decision, presented, pair, now, profile)
            .ok_or(Error::from(Fault::Contention))?;
        change.record.claims = claims_now(session, user);
        if let (Some(_), Some(proof)) = (session.bound_to, &refresh.proof) {
            // A confidential client may change its key, because its refresh tokens are bound to its secret.
            change.record.bound_to = Some(proof.key());
        }
        if session.certificate.is_some() {
            // A confidential client may also change its certificate.
            change.record.certificate = refresh.certificate;
        }
        Ok(change)
    }

    /// Returns `None` if the record has changed and the decision must be repeated.
    async fn write(
        &mut self,
        read: &ReadRecord,
        change: RecordChange,
        how: IssueKind,
        now: Timestamp,
    ) -> Result<Option<IssuedTokens>, Error> {
        let RecordChange { record, raised } = change;
        let (engine, id) = (self.engine, read.session.id);
        let raised = raised.map(|raised| raised_minimum(id, raised, engine.leeway));
        engine.is_recent(self.refresh.arrived)?;
        // Read the minimum before the swap, because the swap may return a record that another request changed.
        let minimum_known = engine.revocations.minimum(id);
        // Poll the swap first, so that the token is signed while the store writes.
        let (swapped, issued) =
            tokio::join!(engine.swap(read.session.revision, record.clone(), raised.clone()), async {
                engine.pair(&self.keyring, &record, now, how)
            });
        let swapped = swapped?;
        if read.is_recalled {
            match swapped {
                Swap::Swapped => engine.written.count_right(),
                Swap::Changed(_) | Swap::NoLongerValid => engine.written.count_wrong(),
            }
        }
        match swapped {
            Swap::Swapped => {
                self.publish(&record, raised.as_ref(), how);
                // Even if signing fails, the session has rotated. The client can retry, as after a lost response.
                Ok(Some(issued?))
            }
            Swap::Changed(now) => {
                self.known = now.map(|session| ReadRecord { session: *session, minimum_known, is_recalled: false });
                Ok(None)
            }
            Swap::NoLongerValid => Ok(None),
        }
    }

    /// Publishes a rotation at this gate. The store must have already written the rotation.
    fn publish(&self, record: &Session, raised: Option<&Revocation>, how: IssueKind) {
        let (engine, origin) = (self.engine, self.refresh.origin);
        engine.keep_written(record);
        engine.last_refreshes.remember(record, engine.kept_origin(origin));
        if let Some(successor) = successor_token(&self.keyring, record) {
            engine.live_sessions.advance(record.id, self.presented.generation, successor);
        }
        if let Some(raised) = raised {
            engine.revocations.apply(raised);
        }
        engine.counts.add(if how == IssueKind::Rotated { Event::Rotated } else { Event::Reissued });
        audit::refreshed(record, how, origin);
    }
}
