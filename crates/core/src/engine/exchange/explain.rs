//! Explains the effect of a refresh token: the deciding steps of [`Engine::refresh_from`], without those that change
//! something.

use secrecy::SecretString;

use super::{PresentedCredential, ReadRecord};
use crate::denial::Denial;
use crate::engine::{APPLICATION, Engine, Exchange};
use crate::fault::Error;
use crate::session::profile::Profile;
use crate::session::rotation::Decision;
use crate::session::{Generation, Session, SessionId};

/// The explanation of a refresh token.
pub struct ExplainedRefresh {
    /// The session and generation that the token names, if it is ours.
    pub named: Option<(SessionId, Generation)>,
    /// The record, if the token is authentic for it.
    pub session: Option<Session>,
    /// The row of the table.
    pub decided: Result<Decision, Error>,
}

impl Engine {
    /// Explains a refresh token, presented under the rules that `profile_of` finds for its session. If several gates
    /// share a store, a token ahead of the store counts as refused here: whether it may continue is decided when it is
    /// used.
    pub async fn explain_refresh(
        &self,
        token: &SecretString,
        profile_of: impl FnOnce(&Session) -> Result<Profile, Denial>,
    ) -> ExplainedRefresh {
        let mut explained =
            ExplainedRefresh { named: None, session: None, decided: Err(Denial::UnknownRefreshToken.into()) };
        let Ok(held) = PresentedCredential::authenticate(Exchange::Refresh(token), &self.keyring()) else {
            return explained;
        };
        explained.named = Some((held.session, held.generation));
        explained.decided = self.decided(&held, &mut explained.session, profile_of).await;
        explained
    }

    async fn decided(
        &self,
        held: &PresentedCredential,
        record: &mut Option<Session>,
        profile_of: impl FnOnce(&Session) -> Result<Profile, Denial>,
    ) -> Result<Decision, Error> {
        self.may_mint()?;
        let Some(ReadRecord { mut session, minimum_known, .. }) = self.read_for_refresh(held.session).await? else {
            return Err(Denial::UnknownRefreshToken.into());
        };
        if !held.proves(&session) || session.browser.is_some() {
            return Err(Denial::UnknownRefreshToken.into());
        }
        let session = record.insert({
            session.confirmed |= self.confirmations.has(session.id, session.current);
            session
        });
        let profile = profile_of(session)?;
        let user = match &self.directory {
            Some(directory) if session.dialect.as_ref() != APPLICATION => {
                Some(directory.lookup_in(session.account.as_deref(), &session.subject).await?)
            }
            Some(_) | None => None,
        };
        let facts = self.facts(session, user.as_ref(), minimum_known);
        Ok(match super::decide(session, held.generation, facts, self.clock.now(), &profile) {
            Decision::Revoked(why) => Decision::Revoked(self.cause_of(session, user.as_ref(), why)),
            other => other,
        })
    }
}

/// The refusal that follows from a row.
pub const fn denial_of(decision: Decision) -> Option<Denial> {
    match decision {
        Decision::Revoked(why) => Some(Denial::SessionRevoked(why)),
        Decision::Expired(which) => Some(Denial::SessionExpired(which)),
        Decision::Ahead { fast_forward: false } => Some(Denial::Ahead),
        Decision::Reuse(reuse) => Some(Denial::Reuse(reuse)),
        Decision::Ahead { fast_forward: true } | Decision::Rotate | Decision::Replay | Decision::Reissue => None,
    }
}
