//! A request whose token cannot be judged yet: it waits for what decides, and is decided again.

use http::request::Parts;

use crate::credential;
use crate::denial::{Class, Denial};
use crate::gate::Inner;
use crate::overload::{Holder, PoolPermit};
use crate::route::RoutePolicy;
use crate::token::live_keys::KeysWait;

/// What a request waits for.
pub(in crate::gate) struct Awaited {
    keys: KeysWait,
    /// Its place among the requests that wait.
    #[expect(dead_code, reason = "it is held, not looked at")]
    place: PoolPermit,
}

/// The end of a wait.
#[derive(Clone, Copy)]
pub(in crate::gate) struct Settled {
    /// The issuer answered after the request was there: a key that is still missing does not exist.
    is_final: bool,
}

/// What a refused request can wait for; `None` if nothing is under way that could decide it, or too many requests wait.
pub(in crate::gate) fn awaited(gate: &Inner, parts: &Parts, denial: Denial, policy: &RoutePolicy) -> Option<Awaited> {
    if !matches!(denial.class(), Class::Unavailable(_)) {
        return None;
    }
    let found = credential::extract_from(&parts.headers, parts.uri.query(), gate.places(policy)).ok()??;
    awaited_token(gate, &found.token, denial, gate.holder(parts))
}

/// The same for a token that a client of this holder presented.
pub(in crate::gate) fn awaited_token(
    gate: &Inner,
    token: &str,
    denial: Denial,
    holder: Option<Holder>,
) -> Option<Awaited> {
    if !matches!(denial.class(), Class::Unavailable(_)) {
        return None;
    }
    let place = gate.overload.unverified.enter(holder).ok()?;
    Some(Awaited { keys: gate.checker.awaited(token)?, place })
}

impl Awaited {
    /// Waits, for a bounded time.
    pub(in crate::gate) async fn settled(self) -> Settled {
        Settled { is_final: self.keys.ended().await }
    }
}

impl Settled {
    /// The refusal of the request when it was decided again.
    pub(in crate::gate) fn of(self, denial: Denial) -> Denial {
        match denial {
            Denial::KeysUnavailable(_) if self.is_final => Denial::UnknownKey,
            other => other,
        }
    }
}
