//! The steps of one refresh. Each attempt reads the record, decides, and executes the decision.

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

/// A refresh in progress.
pub(super) struct RefreshRun<'e, 'r> {
    engine: &'e Engine,
    refresh: Refresh<'r>,
    keyring: Arc<Keyring>,
    presented: PresentedCredential,
    /// Whether the credential is an access token that had expired when the refresh began.
    has_expired: bool,
    /// The refresh's turn on the session. A replay gives its turn up early.
    turn: Option<Turn<'e>>,
    /// The record for the next attempt, or `None` if the record must be read.
    known: Option<ReadRecord>,
    /// The directory's entry for the user, once looked up. The outer `None` means that the directory is not responsible
    /// for the session.
    user: Option<Option<User>>,
    is_proof_used: bool,
    is_counted: bool,
    /// The findings of an explanation, which has no effects. `None` for an actual refresh.
    explained: Option<&'r mut ExplainedRefresh>,
}

/// The findings of an attempt, before it has any effect.
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
        // A token that expires while its refresh waits for its turn is still treated as valid.
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

    /// Returns the user that was found in the directory.
    pub(super) fn into_user(self) -> Option<User> {
        self.user.flatten()
    }

    /// Makes one attempt. Returns `None` if the record changed in the meantime. The next attempt then decides with the
    /// new record.
    pub(super) async fn attempt(&mut self) -> Result<Option<IssuedTokens>, Error> {
        let has_expired = self.has_expired;
        self.attempt_once().await.map_err(|error| match error {
            // A client whose token has expired logs in again, whatever else is wrong with the token.
            Error::Denied(denial) if has_expired && NotGood::from_denial(denial).is_ok() => Denial::TokenExpired.into(),
            error => error,
        })
    }

    async fn attempt_once(&mut self) -> Result<Option<IssuedTokens>, Error> {
        let judged = self.judge().await?;
        let repeats = self.repeats(&judged);
        let JudgedRefresh { read, now, profile, decision } = judged;
        if read.is_recalled && (decision != Decision::Rotate || self.has_expired) {
            // The record has changed. Only the swap of a rotation detects this.
            return Ok(None);
        }
        if self.has_expired && !repeats {
            // The reuse of an expired token does not end a session, but it is logged.
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

    /// Returns whether an attempt would repeat a lost reply. Queries the directory only if the credential is the one
    /// that was exchanged last.
    pub(super) async fn would_repeat(&mut self) -> Result<bool, Error> {
        let read = self.read().await?;
        if read.session.status != Status::Live || self.presented.generation != read.session.previous {
            return Ok(false);
        }
        self.known = Some(read);
        let judged = self.judge().await?;
        Ok(self.repeats(&judged))
    }

    /// Returns whether the decision repeats a lost reply. An expired token is accepted only while its successor is
    /// unused, even within `grace`.
    fn repeats(&self, judged: &JudgedRefresh<'_>) -> bool {
        judged.decision.repeats() && !(self.has_expired && judged.read.session.confirmed)
    }

    /// Reads the record, checks the credential and its presenter, queries the directory, and decides.
    pub(super) async fn judge(&mut self) -> Result<JudgedRefresh<'r>, Error> {
        let mut read = self.read().await?;
        // Confirmations that are not yet written to the store also count.
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

    /// The record for this attempt. Fails unless the credential is authentic for the record.
    async fn read(&mut self) -> Result<ReadRecord, Error> {
        let record = match self.known.take() {
            Some(record) => Some(record),
            None => self.engine.read_for_refresh(self.presented.session).await?,
        };
        let record = record.ok_or(Denial::UnknownRefreshToken)?;
        // A browser session has no refresh token, because only the gate renews the session.
        let is_refreshed = record.session.browser.is_none();
        let is_good = is_refreshed && self.presented.proves(&record.session);
        if is_good { Ok(record) } else { Err(Denial::UnknownRefreshToken.into()) }
    }

    /// Checks key, certificate, client and endpoint, before anything can change or end the session.
    async fn check_presenter(&mut self, session: &Session) -> Result<(), Error> {
        // An explanation has no request that could contain a proof of a key.
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

    /// Ends the session because of a reuse, unless this gate itself exchanged the token and did not get the store's
    /// acknowledgement. In that case the reply to that exchange is repeated.
    async fn judge_reuse(
        &mut self,
        session: &Session,
        reuse: Reuse,
        now: Timestamp,
    ) -> Result<Option<IssuedTokens>, Error> {
        // The client may have continued at another gate in the meantime (requirement C9).
        self.engine.is_recent(self.refresh.arrived)?;
        let Some(own) = self.engine.written_in_doubt(session, self.presented.generation).await? else {
            return Err(self.engine.reused(session, reuse, &self.refresh).await?.into());
        };
        let id = own.id;
        // The replay must keep the turn, so that only one reply is made to a refresh whose outcome was unknown.
        let turn = self.turn.take();
        let issued = self.replay(own, now).await?;
        self.turn = turn;
        if issued.is_some() {
            self.engine.resolved(id);
        }
        Ok(issued)
    }

    /// Returns the current pair again, with the same bytes if the key and the remaining time allow it. Returns `None`
    /// if the session changed in the meantime.
    async fn replay(&mut self, session: Session, now: Timestamp) -> Result<Option<IssuedTokens>, Error> {
        // The pair is bound to the key in the request that first received it.
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
        // Near the session's end, a new token would not live longer than the current one.
        let longest = left * 2 >= life || last.access_expires.as_secs() >= session.expires.as_secs();
        if same_keys && allowed && longest {
            // From here on this refresh only reads, so release the turn. Refreshes that wait for replicas can then wait
            // concurrently instead of one after the other.
            drop(self.turn.take());
            // The rotation may have been read before it was acknowledged, so wait until it is durable (requirement
            // C14).
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

    /// Counts the rotation against the session's limit, only once for all attempts.
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

    /// The record with the new generation and its pair.
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

    /// Swaps in the new record, and signs its pair. Returns `None` if another request changed the session, or the
    /// session ended. The next attempt then decides with the new record.
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
        // Read the minimum generation before the swap. If another request has changed the record, the swap returns the
        // changed record, and the minimum must be read before any record.
        let minimum_known = engine.revocations.minimum(id);
        // The swap is polled first, so that the token is signed while the store writes.
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
                // If signing fails, the session has still rotated, as if the reply were lost.
                Ok(Some(issued?))
            }
            Swap::Changed(now) => {
                self.known = now.map(|session| ReadRecord { session: *session, minimum_known, is_recalled: false });
                Ok(None)
            }
            Swap::NoLongerValid => Ok(None),
        }
    }

    /// Publishes the rotation at this gate, once the store has written it.
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
