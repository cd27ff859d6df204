//! What a refresh token would cause: the steps of [`Engine::refresh_from`] that decide, without those that change
//! something.

use secrecy::SecretString;

use super::{PresentedCredential, ReadRecord};
use crate::denial::Denial;
use crate::engine::{APPLICATION, Engine, Exchange};
use crate::fault::Error;
use crate::session::profile::Profile;
use crate::session::rotation::Decision;
use crate::session::{Generation, Session, SessionId};

/// What is known of a refresh token.
pub struct ExplainedRefresh {
    /// The session and generation that it names, if it is one of ours.
    pub named: Option<(SessionId, Generation)>,
    /// The record, if the token proves itself by it.
    pub session: Option<Session>,
    /// The row of the table.
    pub decided: Result<Decision, Error>,
}

impl Engine {
    /// Explains a refresh token, presented under the rules that `profile_of` finds for its session. Of several gates on one
    /// store, a token ahead of the store counts as refused: whether it may go on is asked when it comes.
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
        if !held.proves(&session) {
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

/// The refusal that a row stands for.
pub const fn denial_of(decision: Decision) -> Option<Denial> {
    match decision {
        Decision::Revoked(why) => Some(Denial::SessionRevoked(why)),
        Decision::Expired(which) => Some(Denial::SessionExpired(which)),
        Decision::Ahead { fast_forward: false } => Some(Denial::Ahead),
        Decision::Reuse(reuse) => Some(Denial::Reuse(reuse)),
        Decision::Ahead { fast_forward: true } | Decision::Rotate | Decision::Replay | Decision::Reissue => None,
    }
}
