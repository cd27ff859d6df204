//! Explains a refresh token. This runs the steps of a refresh up to the decision, without any effect.

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

/// What the gate knows about a refresh token.
#[derive(Default)]
pub struct ExplainedRefresh {
    /// The session and generation of an authentic token.
    pub named: Option<(SessionId, Generation)>,
    /// The record of the session, if the token is valid for it.
    pub session: Option<Session>,
}

/// The client and the rules that apply to a refresh token.
pub struct RefreshTerms<'a> {
    /// The client.
    pub client: Arc<Client>,
    /// The rules.
    pub profile: Profile,
    /// The dialects whose tokens are accepted. `None` means the session's own dialect.
    pub accepts: Option<&'a [Box<str>]>,
    /// The account that the endpoint serves.
    pub account: AccountRule<'a>,
}

impl Engine {
    /// Explains what a refresh with this token would do. `terms_of` finds the client and the rules for the token's
    /// session. The explanation ignores keys, certificates and rate limits, which depend on the request. With a shared
    /// store, a token that is newer than its session's record is reported as refused.
    pub async fn explain_refresh<'a>(
        &self,
        token: &SecretString,
        terms_of: impl FnOnce(&Session) -> Result<RefreshTerms<'a>, Denial>,
    ) -> (ExplainedRefresh, Result<Decision, Error>) {
        let mut explained = ExplainedRefresh::default();
        let decided = self.decided(token, terms_of, &mut explained).await;
        (explained, decided)
    }

    /// Returns whether this refresh would be a retry after a lost response. The call has no effects.
    ///
    /// # Errors
    /// The errors of [`refresh`](Self::refresh).
    pub async fn would_repeat(&self, refresh: Refresh<'_>) -> Result<bool, Error> {
        let mut explained = ExplainedRefresh::default();
        let mut run = RefreshRun::begin(self, refresh, None, Some(&mut explained)).await?;
        run.would_repeat().await
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

/// Returns whether a decision makes new tokens.
pub const fn rotates(decision: Decision) -> bool {
    matches!(decision, Decision::Rotate | Decision::Reissue | Decision::Ahead { fast_forward: true })
}

/// The denial, if the decision refuses the refresh.
pub const fn denial_of(decision: Decision) -> Option<Denial> {
    match decision {
        Decision::Revoked(why) => Some(Denial::SessionRevoked(why)),
        Decision::Expired(which) => Some(which.denial()),
        Decision::Ahead { fast_forward: false } => Some(Denial::Ahead),
        Decision::Reuse(reuse) => Some(reuse.denial()),
        Decision::Ahead { fast_forward: true } | Decision::Rotate | Decision::Replay | Decision::Reissue => None,
    }
}
