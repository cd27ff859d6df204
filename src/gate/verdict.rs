//! What became of a request, for an access log.

use std::sync::Arc;

use crate::denial::Denial;
use crate::policy::Permitted;
use crate::reason::Reason;
use crate::route::Route;
use crate::session::SessionId;
use crate::token::verify;

use super::Identity;

/// What became of a request: in the extensions of the reply, where [`GateLayer::annotated`](super::GateLayer::annotated)
/// asked for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verdict {
    /// How it ended, from a closed set. A layer or an extractor of this crate behind the gate that refuses the request
    /// is heard, too.
    pub reason: Reason,
    /// The route that matched.
    pub route: Option<Arc<Route>>,
    /// The operation of ours that it was for.
    pub operation: Option<Operation>,
    /// The caller, if known.
    pub who: Option<Who>,
}

/// An operation at one of the gate's own endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[doc(hidden)]
pub struct Operation {
    /// The name of the dialect.
    pub dialect: &'static str,
    /// The dialect's name for the operation.
    pub name: &'static str,
}

impl Operation {
    /// The public keys, and the metadata that says where everything is.
    pub(super) const PUBLIC: Self = Self { dialect: "oauth2", name: "metadata" };

    pub(super) const fn new(dialect: &'static str, name: &'static str) -> Self {
        Self { dialect, name }
    }
}

/// The caller of a request.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub enum Who {
    /// The caller, whose token was verified.
    Caller(Identity),
    /// The subject that one of our endpoints gave tokens to.
    Issued(Box<Recipient>),
    /// The claims of a refused token.
    Refused(Box<RefusedToken>),
}

/// The subject that tokens were issued to.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[doc(hidden)]
pub struct Recipient {
    /// `sub`.
    pub subject: Box<str>,
    /// The session, where there is one.
    pub session: Option<SessionId>,
}

/// What a token that was refused says, each text cut at 256 bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[doc(hidden)]
pub struct RefusedToken {
    /// Whether its signature was verified. If not, these claims prove nothing.
    pub is_proved: bool,
    /// What it says.
    pub says: verify::Peeked,
}

impl Verdict {
    /// A verdict without route or caller.
    pub const fn new(reason: Reason) -> Self {
        Self { reason, route: None, operation: None, who: None }
    }

    pub(super) const fn at(operation: Operation, reason: Reason) -> Self {
        Self { reason, route: None, operation: Some(operation), who: None }
    }

    pub(super) fn passed(permitted: Permitted) -> Self {
        let (route, caller) = permitted.into_parts();
        Self {
            route: Some(route),
            who: caller.map(|caller| Who::Caller(Identity::new(caller))),
            ..Self::new(Reason::PASSED)
        }
    }

    /// The session that it is known to be of, by a verified token or by our own hand.
    pub fn session(&self) -> Option<SessionId> {
        match self.who.as_ref()? {
            Who::Caller(identity) => identity.session(),
            Who::Issued(recipient) => recipient.session,
            Who::Refused(_) => None,
        }
    }
}

impl RefusedToken {
    /// What a token says that was refused for this reason; `None` where the reason is not the token, or it does not
    /// parse.
    pub(super) fn of(denial: &Denial, token: &str) -> Option<Who> {
        let is_proved = denial.token_is_proved()?;
        verify::peek(token).map(|says| Who::Refused(Box::new(Self { is_proved, says })))
    }
}
