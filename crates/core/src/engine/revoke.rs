//! Revokes sessions and tokens. A revocation applies at this gate first, and is then written to the store. The response
//! follows. Even if the store fails, this gate refuses the revoked tokens.

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
    /// Revokes a token and its session (RFC 7009). Returns `Ok(false)` if this gate did not issue the token.
    ///
    /// # Errors
    /// [`Denial::OtherClient`], [`Denial::OtherAccount`] or a fault. After a fault, the revocation applies only at this
    /// gate.
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

    /// Ends the session of a refresh token, regardless of the client. Returns `Ok(false)` if this gate did not issue
    /// the token.
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

    /// Ends the session even without a readable record, because a lost record may be restored later. Anyone with the
    /// token could end the session anyway.
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

    /// Returns the record of a session that the caller wants to end. If the record is missing or unreadable, revokes
    /// the session at least until `expires`, and returns `None`.
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

    /// Revokes a session whose record cannot be read. The revocation applies at this gate at once, and in the store as
    /// soon as the store works.
    ///
    /// # Errors
    /// The error of the store, unless the revocation survives a restart of the process.
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

    /// Returns an entry that revokes a session without a record. The expiry is rounded up to an hour, so that a
    /// repeated call does not write again.
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

    /// Ends the session of an access token of this gate, if the session's client requests it. The session ends even if
    /// the store does not have its record. A token without a session is revoked individually.
    ///
    /// # Errors
    /// The errors of [`Self::revoke_refresh_token`].
    pub async fn log_out_token(&self, own: OwnChecked<'_>, client: &str, origin: &Origin) -> Result<(), Error> {
        let token = own.token();
        if token.client.as_deref() != Some(client) {
            return Err(Denial::OtherClient.into());
        }
        if let Some((session, _)) = token.session {
            // The session can be ended even without its record.
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

    /// Like [`Self::log_out_token`], and also ends all sessions of the token's subject.
    ///
    /// # Errors
    /// The errors of [`Self::revoke_refresh_token`].
    pub async fn log_out_everywhere(&self, own: OwnChecked<'_>, client: &str, origin: &Origin) -> Result<(), Error> {
        let everywhere = self.revoke_subject(&own.token().subject, RevokedBecause::Logout).await;
        self.log_out_token(own, client, origin).await?;
        everywhere.map(drop)
    }

    /// Revokes a session. If the session is already revoked, waits until the revocation is durable, and returns false.
    ///
    /// # Errors
    /// A fault of the store, after which only this gate refuses the session.
    pub async fn revoke_session(&self, session: &Session, because: RevokedBecause) -> Result<bool, Error> {
        let entry = Revocation {
            target: Target::Session(session.id),
            effect: Effect::SESSION_REVOKED,
            until: session.latest_access_expires.plus(self.leeway),
        };
        match session.status {
            Status::Live => {}
            // After `settle`, the record and its entry are durable. The entry may already be removed, because all
            // matching tokens have expired.
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

    /// Revokes the subject's sessions that began before this call.
    ///
    /// # Errors
    /// The errors of [`Self::revoke_session`].
    pub async fn revoke_subject(&self, subject: &str, because: RevokedBecause) -> Result<bool, Error> {
        let target = Target::Subject { issuer: Arc::clone(&self.issuer), subject: subject.into() };
        self.revoke_from_now(target, because).await
    }

    /// Returns an entry that revokes the subject's sessions and API keys up to `moment`.
    pub fn subject_before(&self, subject: &str, moment: Timestamp) -> Revocation {
        let target = Target::Subject { issuer: Arc::clone(&self.issuer), subject: subject.into() };
        self.before(target, moment, RevokedBecause::Operator)
    }

    /// Revokes the client's sessions that began before this call.
    ///
    /// # Errors
    /// The errors of [`Self::revoke_session`].
    pub async fn revoke_client(&self, client: &str, because: RevokedBecause) -> Result<bool, Error> {
        let target = Target::Client { issuer: Arc::clone(&self.issuer), client: client.into() };
        self.revoke_from_now(target, because).await
    }

    /// Ends all sessions, and revokes all tokens.
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
        // Only the store can provide a timestamp that covers the sessions of all gates. Until the store responds, this
        // gate refuses everything older than the store's last response (requirement C4).
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

    /// Returns the time of a change to a user. All gates of the store get the same time. `after` is the current user,
    /// or `None` if the user was removed.
    pub async fn moment_of_change(&self, subject: &str, after: Option<&User>) -> Result<Timestamp, Fault> {
        let Some(shared) = self.store.shared() else { return Ok(self.clock.stamp_not_before()) };
        let keyring = self.keyring();
        let named = |message: &[u8]| {
            let name = keyring.refresh_keys().shared_name(message);
            name.ok_or(Fault::Signing("the refresh key that derives the id of a user change is missing"))
        };
        let state = after.map(login_state);
        let name = named(format!("changed user {subject}").as_bytes())?;
        Ok(shared.stamp_change(name, named(format!("state of {subject}: {state:?}").as_bytes())?).await?)
    }

    /// Returns revocations for sessions that this gate began after `moment` with outdated user data. Returns `None` if
    /// this gate no longer remembers the logins.
    pub fn begun_otherwise(&self, subject: &str, after: Option<&User>, moment: Timestamp) -> Option<Vec<Revocation>> {
        let own = self.own_logins.as_ref()?;
        own.others(subject, after.map(login_state), moment, self.leeway)
    }

    pub(super) fn before(&self, target: Target, moment: Timestamp, because: RevokedBecause) -> Revocation {
        // The store extends the entry until the last session expires. Tokens without a session are valid for at most a
        // day.
        let longest = if because.ends_keys() { LONGEST_KEY } else { MAX_SESSIONLESS_LIFETIME };
        let until = moment.plus(longest).plus(self.leeway);
        Revocation { target, effect: Effect::not_before(moment, because.ends_keys()), until }
    }

    /// Revokes the target of an entry. Returns false if an earlier, durable entry already revoked the whole target.
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

    /// Makes this gate refuse the target, even if the store fails. [`Self::keep`] must follow.
    pub fn refuse(&self, entry: &Revocation, because: RevokedBecause) -> bool {
        let is_news = self.apply(entry, because);
        self.tell_where(entry, because, is_news, false);
        is_news
    }

    /// Like [`Self::refuse`], until a later entry replaces this one. If the process stops before [`Self::let_go`], the
    /// entry is lost.
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

    /// Makes an entry durable, in the store or in the file beside the store. Call [`Self::refuse`] first.
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

enum ToEnd {
    Unknown,
    Ended,
    Record(Box<Session>),
}
