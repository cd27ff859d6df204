//! Requests whose credential cannot be judged yet: they wait for keys, an introspection or a session, and are then decided
//! again.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;

use crate::gate::Inner;
use crate::gate::browser_request::session_cookie;
use rotogate_core::credential;
use rotogate_core::denial::Denial;
use rotogate_core::engine::{Engine, RenewWhen};
use rotogate_core::overload::{Holder, PoolPermit};
use rotogate_core::policy::may_take;
use rotogate_core::route::RoutePolicy;
use rotogate_core::token::live_keys::KeysWait;
use rotogate_core::token::verify::IssuerRules;
use rotogate_core::verify_cache::{Introspected, IntrospectionWait, SessionAnswer, TakenIssuers};

/// A request's wait.
pub(in crate::gate) struct Awaited {
    what: Wait,
    /// The request's permit among the waiting requests.
    #[expect(dead_code, reason = "it is held, not looked at")]
    place: PoolPermit,
}

enum Wait {
    /// The keys of the token's issuer.
    Keys(KeysWait),
    /// The issuer's answer about the token, with the counters of good and bad tokens of the client's address.
    Introspection(IntrospectionWait, Arc<Engine>, Option<IpAddr>),
    /// The session of a cookie.
    Session(Arc<Inner>, Arc<str>, RenewWhen, Option<IpAddr>),
    /// The record of an API key.
    Key(Arc<Inner>, Arc<str>, Option<IpAddr>),
}

/// The result of a wait.
#[derive(Clone)]
pub(in crate::gate) struct Settled {
    /// The issuer answered after the request arrived: a key that is still missing does not exist.
    is_final: bool,
    introspected: Option<Introspected>,
    /// The answer about a session, or about an API key.
    session: Option<SessionAnswer>,
}

/// The wait of a refused request; `None` if no pending event could decide about it, or if too many requests wait.
pub(in crate::gate) fn awaited(
    gate: &Arc<Inner>,
    parts: &Parts,
    denial: Denial,
    policy: &RoutePolicy,
) -> Option<Awaited> {
    if matches!(denial, Denial::SessionUnavailable(_)) {
        let value = std::str::from_utf8(session_cookie(&parts.headers).ok()??).ok()?;
        let place = gate.running.overload.unverified.enter(gate.holder(parts)).ok()?;
        let address = gate.client_address(parts);
        let what = Wait::Session(Arc::clone(gate), value.into(), gate.renewal_of(parts), address);
        return Some(Awaited { what, place });
    }
    if matches!(denial, Denial::ApiKeyUnavailable(_)) {
        let key = gate.presented_key(parts, gate.places(policy)).ok()??;
        let place = gate.running.overload.unverified.enter(gate.holder(parts)).ok()?;
        return Some(Awaited { what: Wait::Key(Arc::clone(gate), key.into(), gate.client_address(parts)), place });
    }
    if !is_awaited(denial) {
        return None;
    }
    let found = credential::extract_from(&parts.headers, parts.uri.query(), gate.places(policy)).ok()??;
    let taken = |rules: &IssuerRules| may_take(policy, rules);
    wait(gate, &found.token, denial, gate.holder(parts), gate.client_address(parts), Some(&taken))
}

/// The wait for a token that a client of this holder presented.
pub(in crate::gate) fn awaited_token(
    gate: &Inner,
    token: &str,
    denial: Denial,
    address: Option<IpAddr>,
) -> Option<Awaited> {
    if !is_awaited(denial) {
        return None;
    }
    wait(gate, token, denial, address.map(Holder::address), address, None)
}

/// May a pending event decide about a request with this denial?
const fn is_awaited(denial: Denial) -> bool {
    matches!(denial, Denial::KeysUnavailable(_) | Denial::IntrospectionUnavailable(_))
}

fn wait(
    gate: &Inner,
    token: &str,
    denial: Denial,
    holder: Option<Holder>,
    address: Option<IpAddr>,
    taken: TakenIssuers<'_>,
) -> Option<Awaited> {
    let place = gate.running.overload.unverified.enter(holder).ok()?;
    let what = if matches!(denial, Denial::IntrospectionUnavailable(_)) {
        let wait = gate.checker.awaited_introspection(token, taken, gate.engine.limits().knows(address.into()))?;
        Wait::Introspection(wait, Arc::clone(&gate.engine), address)
    } else {
        Wait::Keys(gate.checker.awaited(token)?)
    };
    Some(Awaited { what, place })
}

impl Awaited {
    /// Waits until the answer has arrived or the time limit has passed.
    pub(in crate::gate) async fn settled(self) -> Settled {
        match self.what {
            Wait::Keys(keys) => Settled { is_final: keys.ended().await, introspected: None, session: None },
            Wait::Session(gate, cookie, when, address) => {
                let answer = gate.loaded_session(cookie, when).await;
                answer.record(gate.engine.limits(), address.into());
                Settled { is_final: false, introspected: None, session: Some(answer) }
            }
            Wait::Key(gate, key, address) => {
                let answer = gate.loaded_key(key).await;
                match &answer.outcome {
                    Err(Denial::ApiKeyRefused(_)) => gate.engine.limits().record_forged(address),
                    _ => answer.record(gate.engine.limits(), address.into()),
                }
                Settled { is_final: false, introspected: None, session: Some(answer) }
            }
            Wait::Introspection(wait, engine, address) => {
                let introspected = wait.ended().await;
                if let Some(answer) = &introspected {
                    answer.record(engine.limits(), address.into());
                }
                Settled { is_final: false, introspected, session: None }
            }
        }
    }
}

impl Settled {
    /// Puts the answer into the request, for the decision that follows.
    pub(in crate::gate) fn give(&self, parts: &mut Parts) {
        if let Some(answer) = &self.introspected {
            parts.extensions.insert(answer.clone());
        }
        if let Some(answer) = &self.session {
            parts.extensions.insert(answer.clone());
        }
    }

    /// Takes the answer out of the request, after the decision.
    pub(in crate::gate) fn take_back(parts: &mut Parts) {
        parts.extensions.remove::<Introspected>();
        parts.extensions.remove::<SessionAnswer>();
    }

    /// The issuer's answer.
    pub(in crate::gate) fn introspected(&self) -> Option<&Introspected> {
        self.introspected.as_ref()
    }

    /// The final refusal of the request, from the refusal of the second decision.
    pub(in crate::gate) fn refusal(&self, denial: Denial) -> Denial {
        match denial {
            Denial::KeysUnavailable(_) if self.is_final => Denial::UnknownKey,
            other => other,
        }
    }
}
