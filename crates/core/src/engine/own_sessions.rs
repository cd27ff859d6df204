//! Lets users list and end their own live sessions (requirement P55).

use std::collections::VecDeque;
use std::time::Duration;

use secrecy::SecretString;

use super::{Engine, HeldUp, Origin};
use crate::clock::Timestamp;
use crate::context::{Actor, Context};
use crate::denial::Denial;
use crate::fault::Error;
use crate::session::{RevokedBecause, Scope, Session, SessionId, Status};
use crate::store::Filter;
use crate::token::claims::OwnChecked;

/// A list contains at most this many sessions, the newest ones.
const MOST: usize = 1000;
const AT_ONCE: usize = 1000;
/// The value of `rotogate.actor.role` and `rotogate.actor.via`.
const ROLE: &str = "user";

/// A user's request about their own sessions.
#[derive(Debug)]
pub struct OwnSessionsRequest {
    /// The user's access token or session cookie.
    pub access: SecretString,
    /// The scope that the token must have.
    pub scope: Scope,
    /// The maximum age of the token for a request that ends a session. The age of a session cookie does not matter.
    pub max_age: Duration,
    /// The action.
    pub action: OwnSessionsAction,
}

/// A user's action on their own sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnSessionsAction {
    /// Lists the live sessions.
    List,
    /// Ends the session with this id.
    End(SessionId),
    /// Ends all sessions except the one that the caller uses.
    EndOthers,
}

/// A live session of the caller.
#[derive(Clone, Debug)]
pub struct OwnSession {
    /// The record of the session.
    pub session: Session,
    /// Whether the caller uses this session.
    pub is_current: bool,
}

/// The result of a request.
#[derive(Clone, Debug)]
pub enum OwnSessions {
    /// The live sessions.
    Listed(Vec<OwnSession>),
    /// The number of sessions that were ended.
    Ended(u64),
}

impl Engine {
    /// Executes a user's request about their own sessions. The token must have been verified.
    ///
    /// # Errors
    /// [`Denial::UnusableCredential`] for a client's own token, [`Denial::InsufficientScope`], [`Denial::TokenTooOld`],
    /// [`Denial::UnknownSession`], [`Denial::RateLimited`] or a fault.
    pub async fn own_sessions(
        &self,
        own: OwnChecked<'_>,
        request: &OwnSessionsRequest,
        origin: &Origin,
    ) -> Result<OwnSessions, Error> {
        let is_ending = request.action != OwnSessionsAction::List;
        let oldest = is_ending.then_some((own.token().issued_at, request.max_age));
        let current = self.admit_own(own, &request.scope, oldest, origin)?;
        let live = || self.live_sessions_of(own.token().token_subject(), |session| self.is_own(own, session));
        let work = async {
            match request.action {
                OwnSessionsAction::List => {
                    let of = |session: Session| OwnSession { is_current: session.id == current, session };
                    Ok(OwnSessions::Listed(live().await?.into_iter().map(of).collect()))
                }
                OwnSessionsAction::End(id) => self.end_own(own, id, origin).await,
                OwnSessionsAction::EndOthers => {
                    let mut ended = 0;
                    for session in live().await?.iter().filter(|session| session.id != current) {
                        self.log_out(session, &session.client, origin).await?;
                        ended += 1;
                    }
                    Ok(OwnSessions::Ended(ended))
                }
            }
        };
        self.acting(own, work).await
    }

    pub(super) fn admit_own(
        &self,
        own: OwnChecked<'_>,
        scope: &Scope,
        oldest: Option<(Option<Timestamp>, Duration)>,
        origin: &Origin,
    ) -> Result<SessionId, Denial> {
        let token = own.token();
        let Some((current, _)) = token.session else { return Err(Denial::UnusableCredential) };
        self.limits().own_sessions(token.token_subject()).inspect_err(|denial| {
            let (session, subject) = (Some(current), Some(token.token_subject().into()));
            let of = || HeldUp { session, subject, client: token.client.clone(), ..HeldUp::default() };
            self.tell_held_up(&(*denial).into(), origin, of);
        })?;
        self.judge_own(own, scope, oldest).map(|()| current)
    }

    /// Checks whether a user's request about their own sessions or keys would be admitted. This call does not count
    /// against the limits.
    ///
    /// # Errors
    /// The errors of [`own_sessions`](Self::own_sessions), except for [`Denial::UnknownSession`].
    pub fn foresee_own(
        &self,
        own: OwnChecked<'_>,
        scope: &Scope,
        oldest: Option<(Option<Timestamp>, Duration)>,
    ) -> Result<(), Denial> {
        own.token().session.ok_or(Denial::UnusableCredential)?;
        self.limits().foresee_own_sessions(own.token().token_subject())?;
        self.judge_own(own, scope, oldest)
    }

    fn judge_own(
        &self,
        own: OwnChecked<'_>,
        scope: &Scope,
        oldest: Option<(Option<Timestamp>, Duration)>,
    ) -> Result<(), Denial> {
        if !scope.is_within(&own.token().scope) {
            return Err(Denial::InsufficientScope);
        }
        let now = self.clock().now();
        let is_old = oldest.is_some_and(|(since, age)| since.is_none_or(|since| since.plus(age) < now));
        if is_old { Err(Denial::TokenTooOld) } else { Ok(()) }
    }

    /// Runs `work` with the token's user as the actor in the audit trail.
    pub(super) async fn acting<T>(&self, own: OwnChecked<'_>, work: impl Future<Output = T>) -> T {
        let actor = Actor { name: own.token().token_subject().into(), role: ROLE, via: ROLE };
        Context::current().unwrap_or_else(Context::without_request).acted_by(actor).scope(work).await
    }

    async fn end_own(&self, own: OwnChecked<'_>, id: SessionId, origin: &Origin) -> Result<OwnSessions, Error> {
        // An unknown session, another user's session and an ended session get the same response.
        let session = self.store().load(id).await?.filter(|session| self.is_own(own, session));
        let session = session.ok_or(Denial::UnknownSession)?;
        self.log_out(&session, &session.client, origin).await?;
        Ok(OwnSessions::Ended(1))
    }

    fn is_own(&self, own: OwnChecked<'_>, session: &Session) -> bool {
        *session.subject == *own.token().token_subject()
            && session.account.as_deref() == own.token().account()
            && self.is_live(session)
    }

    fn is_live(&self, session: &Session) -> bool {
        session.status == Status::Live && self.is_over(session).is_none()
    }

    /// The 1000 newest live sessions of a subject, newest first.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn live_of(&self, subject: &str) -> Result<Vec<Session>, Error> {
        Ok(self.live_sessions_of(subject, |session| self.is_live(session)).await?.into())
    }

    async fn live_sessions_of(
        &self,
        subject: &str,
        is_wanted: impl Fn(&Session) -> bool,
    ) -> Result<VecDeque<Session>, Error> {
        let (mut found, mut after) = (VecDeque::new(), None);
        loop {
            let filter = Filter::Subject(subject.into());
            let page = self.store().list(filter, after, AT_ONCE).await?;
            for session in page.sessions.into_iter().filter(&is_wanted) {
                found.push_front(session);
                found.truncate(MOST);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// Returns why a session has ended, even if its record is still live.
    pub fn is_over(&self, session: &Session) -> Option<&'static str> {
        if let Some(because) = self.owed_end(session.id) {
            return Some(because.word());
        }
        if session.expires <= self.clock().now() {
            return Some("expired");
        }
        if self.ended_elsewhere(session) {
            return Some(RevokedBecause::IssuerLogout.word());
        }
        let not_before = self.revocations().not_before(self.issuer(), &session.subject, Some(&session.client));
        (session.created() <= not_before).then_some("not-before")
    }
}
