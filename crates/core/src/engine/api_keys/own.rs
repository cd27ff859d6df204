//! Requests of users about their own API keys.

use std::time::Duration;

use secrecy::SecretString;

use super::write::Maker;
use super::{ApiKeys, KeyRefusal};
use crate::api_key::{ApiKey, NewApiKey};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::engine::{Engine, MAX_TRIES, Origin};
use crate::fault::{Error, Fault};
use crate::session::{Scope, Session, VouchedBy};
use crate::store::Swap;
use crate::token::claims::OwnChecked;

/// A user's request about their own API keys.
#[derive(Debug)]
pub struct OwnKeysRequest {
    /// The user's access token or session cookie.
    pub access: SecretString,
    /// The scope that the token must have.
    pub scope: Scope,
    /// The maximum age of the credential for actions that change keys.
    pub max_age: Duration,
    /// The action.
    pub action: OwnKeysAction,
}

/// A user's action on their own API keys.
#[derive(Clone, Debug)]
pub enum OwnKeysAction {
    /// Lists the live keys.
    List,
    /// Creates a key for the caller. The default scopes are the caller's scopes.
    Create(Box<NewApiKey>),
    /// Replaces the key with this id. The old key stays valid for the given time. The default is the longest permitted
    /// time.
    Rotate(String, Option<Duration>),
    /// Revokes a key by its id.
    Revoke(String),
}

/// The result of a request.
#[derive(Debug)]
pub enum OwnKeys {
    /// The listed keys, newest first.
    Listed(Vec<ApiKey>),
    /// The new key, which is shown only once, and its record.
    Made(SecretString, Box<ApiKey>),
    /// The key is revoked.
    Revoked,
}

impl ApiKeys {
    /// Executes a user's request about their own API keys. The token must have been verified. `by_cookie` is set if the
    /// credential is a session cookie.
    ///
    /// # Errors
    /// [`Denial::UnusableCredential`] for a client's own token, [`Denial::InsufficientScope`],
    /// [`Denial::WrongAudience`], [`Denial::TokenTooOld`], [`Denial::UnknownApiKey`], [`Denial::RateLimited`],
    /// [`Denial::MalformedRequest`] or a fault.
    // Requirement K5: a key has no more rights than the credential that created it.
    pub async fn own(
        &self,
        engine: &Engine,
        own: OwnChecked<'_>,
        request: OwnKeysRequest,
        by_cookie: bool,
        origin: &Origin,
    ) -> Result<OwnKeys, Error> {
        let token = own.token();
        let since = match (by_cookie, token.session) {
            (true, Some((session, _))) => Some(session.created()),
            (true, None) => None,
            (false, _) => token.issued_at,
        };
        let is_change = !matches!(request.action, OwnKeysAction::List);
        let oldest = is_change.then_some((since, request.max_age));
        engine.admit_own(own, &request.scope, oldest, origin)?;
        let done = engine.acting(own, self.act(engine, own, request.action)).await?;
        done.map_err(|refusal| Denial::MalformedRequest(refusal.text()).into())
    }

    async fn act(
        &self,
        engine: &Engine,
        own: OwnChecked<'_>,
        action: OwnKeysAction,
    ) -> Result<Result<OwnKeys, KeyRefusal>, Error> {
        let token = own.token();
        match action {
            OwnKeysAction::List => {
                let mut keys = self.of_owner(engine, token.token_subject()).await?;
                keys.retain(|key| key.account.as_deref() == token.account());
                keys.sort_by_key(|key| std::cmp::Reverse(key.created));
                Ok(Ok(OwnKeys::Listed(keys)))
            }
            OwnKeysAction::Create(new) => {
                let scopes = new.scopes.clone().unwrap_or_else(|| token.scope.clone());
                is_no_more(engine, own, &scopes, new.audience.as_deref())?;
                let (subject, account) = (token.token_subject().to_owned(), token.account().map(str::to_owned));
                let new = NewApiKey { subject, account, scopes: Some(scopes), ..*new };
                let by = Self::maker(engine, own).await?;
                let made = self.make(engine, new, &|_| None, Some(by)).await?;
                Ok(made.map(|(text, key)| OwnKeys::Made(text, Box::new(key))))
            }
            OwnKeysAction::Rotate(id, overlap) => {
                let key = self.own_key(engine, own, &id).await?;
                is_no_more(engine, own, &key.scopes, key.audience.as_deref())?;
                let key = Some(key).filter(|key| Self::is_in_force(engine, key)).ok_or(Denial::UnknownApiKey)?;
                let by = Self::maker(engine, own).await?;
                let made = self.replace(engine, &key.id, overlap, Some(by)).await?.ok_or(Denial::UnknownApiKey)?;
                Ok(made.map(|(text, key)| OwnKeys::Made(text, Box::new(key))))
            }
            OwnKeysAction::Revoke(id) => {
                self.own_key(engine, own, &id).await?;
                self.revoke(engine, &id).await?;
                Ok(Ok(OwnKeys::Revoked))
            }
        }
    }

    /// Omits the issuer's session, because the API key may outlive it.
    // Requirement K33.
    async fn maker(engine: &Engine, own: OwnChecked<'_>) -> Result<Maker, Error> {
        let vouched_by = own.token().vouched_by().map(|by| VouchedBy::new(&*by.issuer, &*by.subject));
        Ok(Maker { began: Self::live_since(engine, own).await?, vouched_by })
    }

    /// Checks the store, because another gate may have just ended the session.
    // Requirement K5.
    async fn live_since(engine: &Engine, own: OwnChecked<'_>) -> Result<Timestamp, Error> {
        let (id, _) = own.token().session.ok_or(Denial::UnusableCredential)?;
        for _ in 0..MAX_TRIES {
            let session = engine.store.load(id).await?.filter(|session| !session.is_revoked());
            let session = session.ok_or(Denial::TokenRevoked)?;
            // This write makes the store check the session against the revocations.
            let same = Session { revision: session.revision + 1, ..session };
            match engine.swap(same.revision - 1, same.clone(), None).await? {
                Swap::Swapped => {
                    engine.keep_written(&same);
                    return Ok(id.created());
                }
                Swap::NoLongerValid => return Err(Denial::TokenRevoked.into()),
                Swap::Changed(_) => {}
            }
        }
        Err(Fault::Contention.into())
    }

    /// Unknown, inactive and other users' keys get the same denial.
    async fn own_key(&self, engine: &Engine, own: OwnChecked<'_>, id: &str) -> Result<ApiKey, Error> {
        let token = own.token();
        let key = self.get(engine, id).await?.filter(|key| {
            *key.subject == *token.token_subject()
                && key.account.as_deref() == token.account()
                && key.is_live(engine.clock.now())
        });
        Ok(key.ok_or(Denial::UnknownApiKey)?)
    }
}

/// The key must not permit more than the token.
fn is_no_more(engine: &Engine, own: OwnChecked<'_>, scopes: &Scope, audience: Option<&str>) -> Result<(), Denial> {
    let token = own.token();
    let is_for = |audience: &str| token.audience.iter().any(|known| **known == *audience);
    let is_for_all = audience.map_or_else(|| engine.audience.iter().all(|audience| is_for(audience)), is_for);
    if !is_for_all {
        return Err(Denial::WrongAudience);
    }
    if scopes.is_within(&token.scope) { Ok(()) } else { Err(Denial::InsufficientScope) }
}
