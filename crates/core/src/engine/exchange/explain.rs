//! The explanation of a refresh token: the steps of a refresh up to its decision, without their effects.

use std::sync::Arc;

use secrecy::SecretString;

use super::RefreshRun;
use crate::client::Client;
use crate::denial::Denial;
use crate::engine::{AccountRule, Engine, Exchange, Origin, Refresh};
use crate::fault::Error;
use crate::session::profile::Profile;
use crate::session::rotation::Decision;
use crate::session::{Generation, Session, SessionId};

/// The explanation of a refresh token.
#[derive(Default)]
pub struct ExplainedRefresh {
    /// The session and generation that the token names, if it is ours.
    pub named: Option<(SessionId, Generation)>,
    /// The record of the session, if the token is an authentic token of this session.
    pub session: Option<Session>,
}

/// The client that presents a refresh token, and the rules of the endpoint.
pub struct RefreshTerms<'a> {
    /// The client.
    pub client: Arc<Client>,
    /// The rules.
    pub profile: Profile,
    /// The dialects whose sessions the endpoint accepts; `None` for that of the session.
    pub accepts: Option<&'a [Box<str>]>,
    /// The account that the endpoint serves.
    pub account: AccountRule<'a>,
}

impl Engine {
    /// Explains a refresh token, presented on the terms that `terms_of` finds for its session: the findings of a
    /// refresh on its way to the row of the table, that row, and a store that cannot write now. Keys, certificates and
    /// rates belong to a request, so an explanation leaves them out. If several gates share a store, a token ahead of
    /// the store counts as refused here: whether it may continue is decided when it is used.
    pub async fn explain_refresh<'a>(
        &self,
        token: &SecretString,
        terms_of: impl FnOnce(&Session) -> Result<RefreshTerms<'a>, Denial>,
    ) -> (ExplainedRefresh, Result<Decision, Error>) {
        let mut explained = ExplainedRefresh::default();
        let decided = self.decided(token, terms_of, &mut explained).await;
        (explained, decided)
    }

    /// Would this refresh make good a lost reply? Then its credential was exchanged before, and brings a pair again.
    /// This has no effects.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub async fn would_repeat(&self, refresh: Refresh<'_>) -> Result<bool, Error> {
        let mut explained = ExplainedRefresh::default();
        let mut run = RefreshRun::begin(self, refresh, None, Some(&mut explained)).await?;
        Ok(run.judge().await?.decision.repeats())
    }

    async fn decided<'a>(
        &self,
        token: &SecretString,
        terms_of: impl FnOnce(&Session) -> Result<RefreshTerms<'a>, Denial>,
        explained: &mut ExplainedRefresh,
    ) -> Result<Decision, Error> {
        let begun = self.begin_explained(token, Some(explained)).await?.ok_or(Denial::UnknownRefreshToken)?;
        let RefreshTerms { client, profile, accepts, account } = terms_of(&begun.record.session)?;
        let (own, origin) = ([begun.record.session.dialect.clone()], Origin::default());
        let refresh = Refresh {
            credential: Exchange::Refresh(token),
            client: &client,
            account,
            scope: None,
            access_ttl: None,
            resource: None,
            profile: &profile,
            accepts: accepts.unwrap_or(&own),
            by_access: &[],
            proof: None,
            certificate: None,
            arrived: self.arrival(),
            origin: &origin,
        };
        let mut run = RefreshRun::begin(self, refresh, Some(begun), Some(explained)).await?;
        let decision = run.judge().await?.decision;
        if rotates(decision) {
            self.store().probe().await?;
        }
        Ok(decision)
    }
}

/// Whether a row makes a new pair of tokens, which the store must keep first.
pub const fn rotates(decision: Decision) -> bool {
    matches!(decision, Decision::Rotate | Decision::Reissue | Decision::Ahead { fast_forward: true })
}

/// The refusal that follows from a row.
pub const fn denial_of(decision: Decision) -> Option<Denial> {
    match decision {
        Decision::Revoked(why) => Some(Denial::SessionRevoked(why)),
        Decision::Expired(which) => Some(which.denial()),
        Decision::Ahead { fast_forward: false } => Some(Denial::Ahead),
        Decision::Reuse(reuse) => Some(reuse.denial()),
        Decision::Ahead { fast_forward: true } | Decision::Rotate | Decision::Replay | Decision::Reissue => None,
    }
}
