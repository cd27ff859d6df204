use std::sync::Arc;

use rotogate_core::denial::Denial;
use rotogate_core::engine::HeldUp;
use rotogate_core::reason::Reason;
use rotogate_core::route::Route;
use rotogate_core::session::SessionId;
use rotogate_core::token::verify;
use rotogate_core::verify_cache::Verified;

use super::Identity;
use crate::dialect::browser::reader::Reader;

/// The outcome of a request. An [`annotated`](super::GateLayer::annotated) layer adds it to each reply.
///
/// ```
/// use rotogate::gate::Verdict;
///
/// /// Writes an access log line, in a layer around `gate.layer().annotated()`.
/// fn line<B>(reply: &http::Response<B>) -> Option<String> {
///     let verdict = reply.extensions().get::<Verdict>()?;
///     let route = verdict.route.as_ref().map_or("-", |route| &*route.id);
///     let user = verdict.subject().unwrap_or("-");
///     Some(format!("{} {route} {user} {}", reply.status().as_u16(), verdict.reason))
/// }
/// # let mut reply = http::Response::new(());
/// # reply.extensions_mut().insert(Verdict::new(rotogate::gate::Reason::PASSED));
/// # assert_eq!(line(&reply).as_deref(), Some("200 - - passed"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verdict {
    /// The outcome, from a fixed set of values. Layers and extractors of this crate behind the gate can also refuse a
    /// request.
    pub reason: Reason,
    /// The route that matched.
    pub route: Option<Arc<Route>>,
    pub(in crate::gate) named: Option<Operation>,
    pub(in crate::gate) who: Option<Who>,
    pub(in crate::gate) reader: Option<Reader>,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::gate) struct Operation {
    pub(in crate::gate) dialect: &'static str,
    pub(in crate::gate) name: &'static str,
}

impl Operation {
    pub(in crate::gate) const PUBLIC: Self = Self { dialect: "oauth2", name: "metadata" };

    pub(in crate::gate) const fn new(dialect: &'static str, name: &'static str) -> Self {
        Self { dialect, name }
    }
}

/// Who sent a request.
#[derive(Clone, Debug)]
pub enum Who {
    /// The caller, whose token was verified.
    Caller(Identity),
    /// The party that got tokens at an endpoint of the gate.
    Issued(Box<Recipient>),
    /// The claims of a refused token. Use them only for a log, never for a decision.
    Refused(Box<RefusedToken>),
    /// The client whose request an endpoint refused. Use it only for a log.
    HeldUp(Box<HeldUp>),
}

/// The recipient of tokens: see [`Who`].
#[derive(Clone, Debug)]
pub struct Recipient {
    /// The `sub` claim.
    pub subject: Box<str>,
    /// The session, if the tokens belong to one.
    pub session: Option<SessionId>,
    /// The client, if a client requested the tokens.
    pub client: Option<Box<str>>,
}

/// The claims of a refused token. Use them only for a log, never for a decision. Strings are truncated at 256 bytes.
#[derive(Clone, Debug)]
pub struct RefusedToken {
    /// Whether the signature was verified. Otherwise the claims are unverified.
    pub is_proved: bool,
    /// The token's claims.
    pub says: verify::Peeked,
}

impl Verdict {
    /// A verdict without a route or caller.
    pub const fn new(reason: Reason) -> Self {
        Self { reason, route: None, named: None, who: None, reader: None }
    }

    pub(in crate::gate) const fn at(operation: Operation, reason: Reason) -> Self {
        Self { reason, route: None, named: Some(operation), who: None, reader: None }
    }

    pub(super) fn passed((route, caller): (Arc<Route>, Option<Arc<Verified>>)) -> Self {
        Self {
            route: Some(route),
            who: caller.map(|caller| Who::Caller(Identity::new(caller))),
            ..Self::new(Reason::PASSED)
        }
    }

    /// For endpoint requests: the names of the dialect and the operation.
    pub fn operation(&self) -> Option<(&'static str, &'static str)> {
        self.named.map(|Operation { dialect, name }| (dialect, name))
    }

    /// The caller, if a token was verified.
    pub fn caller(&self) -> Option<&Identity> {
        match self.who.as_ref()? {
            Who::Caller(identity) => Some(identity),
            Who::Issued(_) | Who::Refused(_) | Who::HeldUp(_) => None,
        }
    }

    /// The subject of the caller, or of the tokens that an endpoint issued.
    pub fn subject(&self) -> Option<&str> {
        match self.who.as_ref()? {
            Who::Caller(identity) => Some(identity.subject()),
            Who::Issued(recipient) => Some(&recipient.subject),
            Who::Refused(_) | Who::HeldUp(_) => None,
        }
    }

    /// Who sent the request, if known.
    #[doc(hidden)]
    pub fn who(&self) -> Option<&Who> {
        self.who.as_ref()
    }

    /// The session of a verified or newly issued token.
    pub fn session(&self) -> Option<SessionId> {
        match self.who.as_ref()? {
            Who::Caller(identity) => identity.session(),
            Who::Issued(recipient) => recipient.session,
            Who::HeldUp(held_up) => held_up.session,
            Who::Refused(_) => None,
        }
    }
}

impl RefusedToken {
    /// Returns `None` if the refusal is not about the token, or if the token cannot be parsed.
    pub(super) fn peek(denial: &Denial, token: &str) -> Option<Who> {
        let is_proved = denial.token_is_proved()?;
        verify::peek(token).map(|says| Who::Refused(Box::new(Self { is_proved, says })))
    }
}
