//! Requests whose credential cannot be checked yet. Such a request waits for keys, an introspection or a session.

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

pub(in crate::gate) struct Awaited {
    what: Wait,
    #[expect(dead_code, reason = "it is held, not looked at")]
    place: PoolPermit,
}

enum Wait {
    Keys(KeysWait),
    /// The issuer's response about the token.
    Introspection(IntrospectionWait, Arc<Engine>, Option<IpAddr>),
    Session(Arc<Inner>, Arc<str>, RenewWhen, Option<IpAddr>),
    Key(Arc<Inner>, Arc<str>, Option<IpAddr>),
}

#[derive(Clone)]
pub(in crate::gate) struct Settled {
    /// Whether the issuer responded after the request had arrived. If the key is still unknown after this response, the
    /// issuer does not have it.
    is_final: bool,
    introspected: Option<Introspected>,
    session: Option<SessionAnswer>,
}

/// Returns `None` if no pending event could change the decision, or if too many requests wait.
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
    /// Inserts the results into the request, where the next decision reads them.
    pub(in crate::gate) fn give(&self, parts: &mut Parts) {
        if let Some(answer) = &self.introspected {
            parts.extensions.insert(answer.clone());
        }
        if let Some(answer) = &self.session {
            parts.extensions.insert(answer.clone());
        }
    }

    pub(in crate::gate) fn take_back(parts: &mut Parts) {
        parts.extensions.remove::<Introspected>();
        parts.extensions.remove::<SessionAnswer>();
    }

    pub(in crate::gate) fn introspected(&self) -> Option<&Introspected> {
        self.introspected.as_ref()
    }

    pub(in crate::gate) fn refusal(&self, denial: Denial) -> Denial {
        match denial {
            Denial::KeysUnavailable(_) if self.is_final => Denial::UnknownKey,
            other => other,
        }
    }
}
