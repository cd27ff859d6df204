//! Ends sessions and tokens in this order: *the list of this gate → the store → the reply*. From the first step on,
//! this gate refuses the tokens, whatever happens in the store.

use std::sync::Arc;

use super::{AccountRule, Engine, Event, Origin, audit};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::directory::{User, login_state};
use crate::fault::{Error, Fault};
use crate::revocation::{Effect, LONGEST_KEY, Revocation, Target};
use crate::session::{RevokedBecause, Session, SessionId, Status};
use crate::store::StoreError;
use crate::token::claims::OwnChecked;
use crate::token::{MAX_SESSIONLESS_LIFETIME, refresh};
use crate::trace;

impl Engine {
    /// Revokes the session of a token with everything issued in it, or a token without a session (RFC 7009).
    /// `Ok(false)` if the token is not ours.
    ///
    /// # Errors
    /// [`Denial::OtherClient`] if the token belongs to another client, [`Denial::OtherAccount`]; a fault, after which
    /// the entry holds on this node.
    pub async fn revoke_refresh_token(
        &self,
        token: &str,
        client: &str,
        account: AccountRule<'_>,
        origin: &Origin,
    ) -> Result<bool, Error> {
        let session = match self.session_to_end(token).await? {
            ToEnd::Unknown => return Ok(false),
            ToEnd::Ended => return Ok(true),
            ToEnd::Record(session) => session,
        };
        if session.client.as_ref() == client && !account.has(session.account.as_deref()) {
            return Err(Denial::OtherAccount.into());
        }
        self.log_out(&session, client, origin).await?;
        Ok(true)
    }

    /// Ends the session of a refresh token, whatever its client is. `Ok(false)` if the token is not ours.
    ///
    /// # Errors
    /// As [`Self::revoke_refresh_token`].
    pub async fn log_out_by(&self, token: &str, origin: &Origin) -> Result<bool, Error> {
        match self.session_to_end(token).await? {
            ToEnd::Unknown => Ok(false),
            ToEnd::Ended => Ok(true),
            ToEnd::Record(session) => self.log_out(&session, &session.client, origin).await.map(|()| true),
        }
    }

    /// The session of a refresh token of any generation.
    ///
    /// If there is no record, or it cannot be read, the session ends here and now: a key of the gates made the token,
    /// so it was issued in the session that it names. A store that lost the record may get it back. Client and account
    /// are only in the record, so without a record they are not compared. Any holder of the token can end the session
    /// in any case.
    // Requirement R26.
    async fn session_to_end(&self, token: &str) -> Result<ToEnd, Error> {
        let keyring = self.keyring();
        let Some(authentic) = refresh::authenticate(keyring.refresh_keys(), token) else { return Ok(ToEnd::Unknown) };
        let id = authentic.session;
        let record = self.record_to_end(id, Timestamp::ZERO, RevokedBecause::Logout).await?;
        Ok(match record {
            Some(session) if authentic.proves(&session.secret, &session.client) => ToEnd::Record(Box::new(session)),
            Some(_) => ToEnd::Unknown,
            None => ToEnd::Ended,
        })
    }

    /// The record of a session that an authentic token names, until `expires` at least. `None`: there is no record, or
    /// it cannot be read, and the session has ended without it.
    ///
    /// # Errors
    /// A fault of the store, after which the session is refused on this node.
    pub async fn record_to_end(
        &self,
        id: SessionId,
        expires: Timestamp,
        because: RevokedBecause,
    ) -> Result<Option<Session>, Error> {
        match self.load_to_revoke(id).await {
            Ok(Some(session)) => return Ok(Some(session)),
            Ok(None) => self.revoke(self.end_of(id, expires), because).await?,
            Err(error) => self.end_unread(id, expires, because, error).await?,
        };
        Ok(None)
    }

    /// Ends a session whose record cannot be read: at this gate at once, and in the store as soon as the store works.
    /// If only this record is at fault, the store works, and the end is durable when this returns.
    ///
    /// # Errors
    /// The error of the store, unless the end outlives the process.
    pub async fn end_unread(
        &self,
        id: SessionId,
        expires: Timestamp,
        because: RevokedBecause,
        error: StoreError,
    ) -> Result<bool, Error> {
        let entry = self.end_of(id, expires);
        if error.is_of_one_record() {
            return self.revoke(entry, because).await;
        }
        let is_news = self.apply(&entry, because);
        let owed = self.owe(entry.clone(), because, error).await;
        self.tell_where(&entry, because, is_news, owed.is_ok());
        owed.map(|()| is_news)
    }

    /// The entry that ends a session without a record at this gate. Its time is rounded to a whole hour, so that a
    /// repeated call writes nothing.
    pub fn end_of(&self, id: SessionId, expires: Timestamp) -> Revocation {
        let last = self.clock.now().plus(MAX_SESSIONLESS_LIFETIME).as_secs().next_multiple_of(3600);
        let until = expires.max(Timestamp::from_secs(last)).plus(self.leeway);
        Revocation { target: Target::Session(id), effect: Effect::SESSION_REVOKED, until }
    }

    /// Ends a session on its client's request.
    ///
    /// # Errors
    /// As [`Self::revoke_refresh_token`].
    pub async fn log_out(&self, session: &Session, client: &str, origin: &Origin) -> Result<(), Error> {
        if session.client.as_ref() != client {
            return Err(Denial::OtherClient.into());
        }
        if self.revoke_session(session, RevokedBecause::Logout).await? {
            audit::logout(session, origin);
        }
        Ok(())
    }

    /// Ends the session of our access token on its client's request, with or without a record in the store, or the
    /// token itself if it has no session.
    ///
    /// # Errors
    /// As [`Self::revoke_refresh_token`].
    pub async fn log_out_token(&self, own: OwnChecked<'_>, client: &str, origin: &Origin) -> Result<(), Error> {
        let token = own.token();
        if token.client.as_deref() != Some(client) {
            return Err(Denial::OtherClient.into());
        }
        if let Some((session, _)) = token.session {
            // The token names its session and its client, so the session ends without its record, too.
            return match self.record_to_end(session, token.expires, RevokedBecause::Logout).await? {
                Some(session) => self.log_out(&session, client, origin).await,
                None => Ok(()),
            };
        }
        // Every token of this gate has a session or a jti.
        let target = own.revocable().ok_or(Denial::UnusableCredential)?;
        let until = token.expires.plus(self.leeway);
        self.revoke(Revocation { target, effect: Effect::Gone, until }, RevokedBecause::Logout).await.map(drop)
    }

    /// [`Self::log_out_token`], and ends every session of its subject that has begun so far.
    ///
    /// # Errors
    /// As [`Self::revoke_refresh_token`].
    pub async fn log_out_everywhere(&self, own: OwnChecked<'_>, client: &str, origin: &Origin) -> Result<(), Error> {
        let everywhere = self.revoke_subject(&own.token().subject, RevokedBecause::Logout).await;
        // Both ends are tried, even if one fails.
        self.log_out_token(own, client, origin).await?;
        everywhere.map(drop)
    }

    /// Ends a session. False if it had already ended: the call then waits for durability, and changes nothing.
    ///
    /// # Errors
    /// A fault of the store, after which the entry holds on this node.
    pub async fn revoke_session(&self, session: &Session, because: RevokedBecause) -> Result<bool, Error> {
        let entry = Revocation {
            target: Target::Session(session.id),
            effect: Effect::SESSION_REVOKED,
            until: session.latest_access_expires.plus(self.leeway),
        };
        match session.status {
            Status::Live => {}
            // After `settle` the loaded record is durable, and so is its entry. The entry may have been removed since,
            // when every token that it could match had expired.
            Status::Revoked(_) if entry.until <= self.clock.now() => {
                self.settle().await?;
                return Ok(false);
            }
            Status::Revoked(_) => {
                let is_news = self.apply(&entry, because);
                let under_way = self.under_way(&entry, because, is_news);
                let settled = self.settle().await;
                under_way.end();
                let kept = match settled {
                    Ok(()) => Ok(()),
                    Err(error) => self.owe(entry.clone(), because, error).await,
                };
                self.tell_where(&entry, because, is_news, kept.is_ok());
                return kept.map(|()| is_news);
            }
        }
        self.revoke(entry, because).await
    }

    /// Ends every session of a subject that has begun so far.
    ///
    /// # Errors
    /// As [`Self::revoke_session`].
    pub async fn revoke_subject(&self, subject: &str, because: RevokedBecause) -> Result<bool, Error> {
        let target = Target::Subject { issuer: Arc::clone(&self.issuer), subject: subject.into() };
        self.revoke_from_now(target, because).await
    }

    /// The entry that ends every session of a subject that began at or before `moment`, and every API key that was made
    /// by then. Used for ends by the operator or by a change of the user.
    pub fn subject_before(&self, subject: &str, moment: Timestamp) -> Revocation {
        let target = Target::Subject { issuer: Arc::clone(&self.issuer), subject: subject.into() };
        self.before(target, moment, RevokedBecause::Operator)
    }

    /// Ends every session of a client that has begun so far.
    ///
    /// # Errors
    /// As [`Self::revoke_session`].
    pub async fn revoke_client(&self, client: &str, because: RevokedBecause) -> Result<bool, Error> {
        let target = Target::Client { issuer: Arc::clone(&self.issuer), client: client.into() };
        self.revoke_from_now(target, because).await
    }

    /// Ends every session that has begun so far, and every token issued so far.
    ///
    /// # Errors
    /// As [`Self::revoke_session`].
    pub async fn revoke_all(&self, because: RevokedBecause) -> Result<bool, Error> {
        self.revoke_from_now(Target::Global, because).await
    }

    async fn revoke_from_now(&self, target: Target, because: RevokedBecause) -> Result<bool, Error> {
        let Some(shared) = self.store.shared() else {
            return self.revoke(self.before(target, self.clock.stamp_not_before(), because), because).await;
        };
        // Only the store has the stamp that covers the sessions of all gates. Until it answers, or if it does not, this
        // gate refuses everything that began before the store's last answer (requirement C4).
        let so_far = self.before(target.clone(), self.following.store_time(), because);
        self.revocations.apply(&so_far);
        let under_way = self.under_way(&so_far, because, true);
        let stamped = shared.stamp_not_before().await;
        under_way.end();
        match stamped {
            Ok(moment) => self.revoke(self.before(target, moment, because), because).await,
            Err(error) => {
                self.counts.add(Event::Revoked);
                let owed = self.owe(so_far.clone(), because, error).await;
                self.tell_where(&so_far, because, true, owed.is_ok());
                owed.map(|()| true)
            }
        }
    }

    /// The moment of a change of a user that every gate of the store detects on its own: the same for all gates.
    /// `after` is the user now, `None` if the user was removed.
    pub async fn moment_of_change(&self, subject: &str, after: Option<&User>) -> Result<Timestamp, Fault> {
        let Some(shared) = self.store.shared() else { return Ok(self.clock.stamp_not_before()) };
        let keyring = self.keyring();
        let named = |message: &[u8]| {
            let name = keyring.refresh_keys().shared_name(message);
            name.ok_or(Fault::Signing("there is no refresh key for the name of the change"))
        };
        let state = after.map(login_state);
        let name = named(format!("changed user {subject}").as_bytes())?;
        Ok(shared.stamp_change(name, named(format!("state of {subject}: {state:?}").as_bytes())?).await?)
    }

    /// The ends for a user's sessions that began at this gate after `moment` with user data that differs from the
    /// current data. `None` if these logins are no longer known.
    pub fn begun_otherwise(&self, subject: &str, after: Option<&User>, moment: Timestamp) -> Option<Vec<Revocation>> {
        let own = self.own_logins.as_ref()?;
        own.others(subject, after.map(login_state), moment, self.leeway)
    }

    pub(super) fn before(&self, target: Target, moment: Timestamp, because: RevokedBecause) -> Revocation {
        // The store extends the entry's life to the end of the longest session. Tokens without a session live a day at
        // most.
        let longest = if because.ends_keys() { LONGEST_KEY } else { MAX_SESSIONLESS_LIFETIME };
        let until = moment.plus(longest).plus(self.leeway);
        Revocation { target, effect: Effect::not_before(moment, because.ends_keys()), until }
    }

    /// Revokes one token without a session, or the target of a given entry. False if all of it was already refused:
    /// nothing is then written, but an earlier entry is durable when this returns.
    ///
    /// # Errors
    /// As [`Self::revoke_session`].
    pub async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<bool, Error> {
        if let Target::Token { .. } = &entry.target
            && entry.until <= self.clock.now()
        {
            return Ok(false);
        }
        let is_news = self.apply(&entry, because);
        self.write(entry, because, is_news).await?;
        Ok(is_news)
    }

    /// The first half of [`Self::revoke`]: this gate refuses the target from now on, whatever happens in the store.
    pub fn refuse(&self, entry: &Revocation, because: RevokedBecause) -> bool {
        let is_news = self.apply(entry, because);
        self.tell_where(entry, because, is_news, false);
        is_news
    }

    /// [`Self::refuse`] for an entry that the store does not get, because another entry, not known yet, will replace
    /// it. If the process stops before [`Self::let_go`], the entry is lost.
    pub fn refuse_for_now(&self, entry: &Revocation, because: RevokedBecause) {
        self.hold(entry);
        self.refuse(entry, because);
    }

    fn apply(&self, entry: &Revocation, because: RevokedBecause) -> bool {
        let is_news = self.revocations.apply(entry);
        if is_news {
            self.counts.add(Event::Revoked);
            if let Target::Session(_) = entry.target {
                self.counts.session_ended(because);
            }
        }
        is_news
    }

    /// The second half: the entry is durable when this returns, in the store or beside it.
    pub async fn keep(&self, entry: Revocation, because: RevokedBecause) -> Result<(), Error> {
        self.write(entry, because, false).await
    }

    async fn write(&self, entry: Revocation, because: RevokedBecause, is_news: bool) -> Result<(), Error> {
        let under_way = self.under_way(&entry, because, is_news);
        let revoking = self.measured(self.store.revoke(entry.clone(), because));
        let revoked = trace::step("rotogate.store.commit", "revoke", revoking).await;
        under_way.end();
        let kept = match revoked {
            Ok(merged) => {
                self.taken(&merged, because);
                Ok(())
            }
            Err(error) => self.owe(entry.clone(), because, error).await,
        };
        self.tell_where(&entry, because, is_news, kept.is_ok());
        kept
    }
}

/// The target of a refresh token that is to be revoked.
enum ToEnd {
    /// The token is not ours.
    Unknown,
    /// A session without a record, which has ended.
    Ended,
    Record(Box<Session>),
}
