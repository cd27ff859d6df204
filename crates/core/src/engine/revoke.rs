//! Ends sessions and tokens. The revocation first applies in this gate's revocation list, is then written to the store,
//! and only then is the reply sent. This gate refuses the tokens from the first step on, even if the store fails.

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
    /// Revokes the session of a token with all its tokens, or a token without a session (RFC 7009). Returns `Ok(false)`
    /// if the token was not issued by this gate.
    ///
    /// # Errors
    /// [`Denial::OtherClient`] if the token belongs to another client, [`Denial::OtherAccount`]; or a fault, after
    /// which the entry applies only at this gate.
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

    /// Ends the session to which a refresh token belongs, whichever client the token was issued to. Returns `Ok(false)`
    /// if the token was not issued by this gate.
    ///
    /// # Errors
    /// The errors of [`Self::revoke_refresh_token`].
    pub async fn log_out_by(&self, token: &str, origin: &Origin) -> Result<bool, Error> {
        match self.session_to_end(token).await? {
            ToEnd::Unknown => Ok(false),
            ToEnd::Ended => Ok(true),
            ToEnd::Record(session) => self.log_out(&session, &session.client, origin).await.map(|()| true),
        }
    }

    /// Finds the session of a refresh token of any generation.
    ///
    /// If the record is missing or cannot be read, the session ends immediately. Without the record, the client and the
    /// account of the session cannot be checked. Ending the session is safe because the token was made with a key of
    /// the gates, so it was issued in the session that it names, and because anyone who has the token could end the
    /// session anyway. Although the record is missing, the session must be ended, because a store that lost the record
    /// may get the record back.
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

    /// The record of the session that an authentic token names. Returns `None` if the record is missing or cannot be
    /// read. In that case this call has ended the session, at least until `expires`.
    ///
    /// # Errors
    /// A fault of the store, after which only this gate refuses the session.
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

    /// Ends a session whose record cannot be read. The end applies at this gate at once, and is written to the store as
    /// soon as the store works. If the store works and only this record is unreadable, the end is durable on return.
    ///
    /// # Errors
    /// The error of the store, unless the end survives a restart of the process.
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

    /// The entry that ends a session without a record. Its expiry is rounded to a whole hour, so that a repeated call
    /// does not write again.
    pub fn end_of(&self, id: SessionId, expires: Timestamp) -> Revocation {
        let last = self.clock.now().plus(MAX_SESSIONLESS_LIFETIME).as_secs().next_multiple_of(3600);
        let until = expires.max(Timestamp::from_secs(last)).plus(self.leeway);
        Revocation { target: Target::Session(id), effect: Effect::SESSION_REVOKED, until }
    }

    /// Ends a session at the request of its client.
    ///
    /// # Errors
    /// The errors of [`Self::revoke_refresh_token`].
    pub async fn log_out(&self, session: &Session, client: &str, origin: &Origin) -> Result<(), Error> {
        if session.client.as_ref() != client {
            return Err(Denial::OtherClient.into());
        }
        if self.revoke_session(session, RevokedBecause::Logout).await? {
            audit::logout(session, origin);
        }
        Ok(())
    }

    /// Ends the session to which one of this gate's access tokens belongs, at the request of the session's client. This
    /// works even if the store has no record of the session. If the token has no session, the token itself is revoked.
    ///
    /// # Errors
    /// The errors of [`Self::revoke_refresh_token`].
    pub async fn log_out_token(&self, own: OwnChecked<'_>, client: &str, origin: &Origin) -> Result<(), Error> {
        let token = own.token();
        if token.client.as_deref() != Some(client) {
            return Err(Denial::OtherClient.into());
        }
        if let Some((session, _)) = token.session {
            // The token names its session and its client, so the session can be ended even without its record.
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

    /// Does the same as [`Self::log_out_token`], and also ends all sessions of the token's subject that have begun so
    /// far.
    ///
    /// # Errors
    /// The errors of [`Self::revoke_refresh_token`].
    pub async fn log_out_everywhere(&self, own: OwnChecked<'_>, client: &str, origin: &Origin) -> Result<(), Error> {
        let everywhere = self.revoke_subject(&own.token().subject, RevokedBecause::Logout).await;
        // End the subject's sessions even if revoking the token failed.
        self.log_out_token(own, client, origin).await?;
        everywhere.map(drop)
    }

    /// Ends a session. Returns false if it had already ended. In that case the call only waits until the end is
    /// durable.
    ///
    /// # Errors
    /// A fault of the store, after which the entry applies only at this gate.
    pub async fn revoke_session(&self, session: &Session, because: RevokedBecause) -> Result<bool, Error> {
        let entry = Revocation {
            target: Target::Session(session.id),
            effect: Effect::SESSION_REVOKED,
            until: session.latest_access_expires.plus(self.leeway),
        };
        match session.status {
            Status::Live => {}
            // After `settle`, the loaded record and its entry are durable. Since then, the entry may have been removed.
            // This happens only after every token that it could match has expired.
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
    /// The errors of [`Self::revoke_session`].
    pub async fn revoke_subject(&self, subject: &str, because: RevokedBecause) -> Result<bool, Error> {
        let target = Target::Subject { issuer: Arc::clone(&self.issuer), subject: subject.into() };
        self.revoke_from_now(target, because).await
    }

    /// The entry that ends all sessions of a subject that began at or before `moment`, and all API keys that were
    /// created by then. Used when the operator ends them or when the user changes.
    pub fn subject_before(&self, subject: &str, moment: Timestamp) -> Revocation {
        let target = Target::Subject { issuer: Arc::clone(&self.issuer), subject: subject.into() };
        self.before(target, moment, RevokedBecause::Operator)
    }

    /// Ends every session of a client that has begun so far.
    ///
    /// # Errors
    /// The errors of [`Self::revoke_session`].
    pub async fn revoke_client(&self, client: &str, because: RevokedBecause) -> Result<bool, Error> {
        let target = Target::Client { issuer: Arc::clone(&self.issuer), client: client.into() };
        self.revoke_from_now(target, because).await
    }

    /// Ends all sessions that have begun so far, and revokes all tokens issued so far.
    ///
    /// # Errors
    /// The errors of [`Self::revoke_session`].
    pub async fn revoke_all(&self, because: RevokedBecause) -> Result<bool, Error> {
        self.revoke_from_now(Target::Global, because).await
    }

    async fn revoke_from_now(&self, target: Target, because: RevokedBecause) -> Result<bool, Error> {
        let Some(shared) = self.store.shared() else {
            return self.revoke(self.before(target, self.clock.stamp_not_before(), because), because).await;
        };
        // Only the store can make the stamp that covers the sessions of all gates. Until it responds, this gate refuses
        // everything that began before the store's last response (requirement C4).
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

    /// The time at which a user changed. Every gate of the store detects the change on its own and gets the same time.
    /// `after` is the current user, or `None` if the user was removed.
    pub async fn moment_of_change(&self, subject: &str, after: Option<&User>) -> Result<Timestamp, Fault> {
        let Some(shared) = self.store.shared() else { return Ok(self.clock.stamp_not_before()) };
        let keyring = self.keyring();
        let named = |message: &[u8]| {
            let name = keyring.refresh_keys().shared_name(message);
            name.ok_or(Fault::Signing("the refresh key that derives the name of a change is missing"))
        };
        let state = after.map(login_state);
        let name = named(format!("changed user {subject}").as_bytes())?;
        Ok(shared.stamp_change(name, named(format!("state of {subject}: {state:?}").as_bytes())?).await?)
    }

    /// The entries that end a user's sessions that began at this gate after `moment` with user data that differs from
    /// the current data. Returns `None` if these logins are no longer known.
    pub fn begun_otherwise(&self, subject: &str, after: Option<&User>, moment: Timestamp) -> Option<Vec<Revocation>> {
        let own = self.own_logins.as_ref()?;
        own.others(subject, after.map(login_state), moment, self.leeway)
    }

    pub(super) fn before(&self, target: Target, moment: Timestamp, because: RevokedBecause) -> Revocation {
        // The store extends the entry's lifetime to the end of the longest session. Tokens without a session are valid
        // for at most a day.
        let longest = if because.ends_keys() { LONGEST_KEY } else { MAX_SESSIONLESS_LIFETIME };
        let until = moment.plus(longest).plus(self.leeway);
        Revocation { target, effect: Effect::not_before(moment, because.ends_keys()), until }
    }

    /// Revokes the target of an entry, such as one token without a session. Returns false if an earlier entry already
    /// revoked the whole target. In that case this entry is not written, and the earlier entry is durable on return.
    ///
    /// # Errors
    /// The errors of [`Self::revoke_session`].
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

    /// Does the first half of [`Self::revoke`]. This gate refuses the target from now on, even if the store fails.
    pub fn refuse(&self, entry: &Revocation, because: RevokedBecause) -> bool {
        let is_news = self.apply(entry, because);
        self.tell_where(entry, because, is_news, false);
        is_news
    }

    /// Does the same as [`Self::refuse`] for an entry that is not written to the store, because a later entry will
    /// replace it. If the process stops before [`Self::let_go`], the entry is lost.
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

    /// Does the second half of [`Self::revoke`]. On return the entry is durable, either in the store or in the file
    /// beside it.
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

/// The result of looking up a refresh token in order to revoke it.
enum ToEnd {
    /// The token was not issued by this gate.
    Unknown,
    /// A session without a record, which has been ended.
    Ended,
    Record(Box<Session>),
}
