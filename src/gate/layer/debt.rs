//! What a request owes before step 6 can verify its credential: keys, an introspection, a session or an API key.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;

use crate::gate::Inner;
use rotogate_core::denial::Denial;
use rotogate_core::engine::{Engine, RenewWhen};
use rotogate_core::overload::{Holder, PoolPermit};
use rotogate_core::policy::may_take;
use rotogate_core::route::{Route, RoutePolicy};
use rotogate_core::token::live_keys::KeysWait;
use rotogate_core::token::verify::IssuerRules;
use rotogate_core::verify_cache::{Introspected, IntrospectionWait, SessionAnswer, TakenIssuers};

/// Why steps 5 to 7 do not permit a request.
pub(in crate::gate) enum Unpermitted {
    Refused(Denial),
    /// A check cannot decide yet. It is boxed, because few requests wait.
    Owes(Box<Debt>),
}

/// A request whose steps 1 to 4 are done. It goes on with step 5 when the debt is paid.
pub(in crate::gate) struct OwedCheck {
    pub(in crate::gate) debt: Box<Debt>,
    pub(super) route: Arc<Route>,
    /// The canonical path, if the route has conditions on it.
    pub(super) path: Option<String>,
}

/// An event that decides a check, with the place that the waiting request takes in the overload bounds.
pub(in crate::gate) struct Debt {
    wait: Wait,
    /// The refusal of a request that cannot wait.
    denial: Denial,
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

/// What a paid debt brought. The same check gets it, and cannot owe again. The default is for a request that must not wait.
#[derive(Default)]
pub(in crate::gate) struct Receipt {
    /// Whether the issuer responded after the request had arrived. If the key is still unknown after this response, the
    /// issuer does not have it.
    is_final: bool,
    introspected: Option<Introspected>,
    session: Option<SessionAnswer>,
}

impl From<Denial> for Unpermitted {
    fn from(denial: Denial) -> Self {
        Self::Refused(denial)
    }
}

impl Unpermitted {
    /// The refusal of a request that does not wait.
    pub(in crate::gate) fn denial(&self) -> Denial {
        match self {
            Self::Refused(denial) => *denial,
            Self::Owes(debt) => debt.denial,
        }
    }
}

impl Debt {
    /// What the denial of a session cookie waits for. `None` if no pending event could change the decision, or if too
    /// many requests wait.
    pub(super) fn of_session(gate: &Arc<Inner>, parts: &Parts, value: &[u8], denial: Denial) -> Option<Box<Self>> {
        let Denial::SessionUnavailable(_) = denial else { return None };
        let value = std::str::from_utf8(value).ok()?;
        let place = gate.running.overload.unverified.enter(gate.holder(parts)).ok()?;
        let wait = Wait::Session(Arc::clone(gate), value.into(), gate.renewal_of(parts), gate.client_address(parts));
        Some(Box::new(Self { wait, denial, place }))
    }

    /// What the denial of an API key waits for, as in [`Self::of_session`].
    pub(super) fn of_key(gate: &Arc<Inner>, parts: &Parts, key: &str, denial: Denial) -> Option<Box<Self>> {
        let Denial::ApiKeyUnavailable(_) = denial else { return None };
        let place = gate.running.overload.unverified.enter(gate.holder(parts)).ok()?;
        let wait = Wait::Key(Arc::clone(gate), key.into(), gate.client_address(parts));
        Some(Box::new(Self { wait, denial, place }))
    }

    /// What the denial of a token waits for, as in [`Self::of_session`].
    pub(super) fn of_token(
        gate: &Inner,
        parts: &Parts,
        token: &str,
        policy: &RoutePolicy,
        denial: Denial,
    ) -> Option<Box<Self>> {
        let taken = |rules: &IssuerRules| may_take(policy, rules);
        Self::pending(gate, token, denial, gate.holder(parts), gate.client_address(parts), Some(&taken))
    }

    /// What the denial of a token at an endpoint waits for. The endpoint accepts the tokens of every issuer.
    pub(in crate::gate) fn at_endpoint(
        gate: &Inner,
        token: &str,
        denial: Denial,
        address: Option<IpAddr>,
    ) -> Option<Box<Self>> {
        if !is_awaited(denial) {
            return None;
        }
        Self::pending(gate, token, denial, address.map(Holder::address), address, None)
    }

    fn pending(
        gate: &Inner,
        token: &str,
        denial: Denial,
        holder: Option<Holder>,
        address: Option<IpAddr>,
        taken: TakenIssuers<'_>,
    ) -> Option<Box<Self>> {
        let place = gate.running.overload.unverified.enter(holder).ok()?;
        let wait = if matches!(denial, Denial::IntrospectionUnavailable(_)) {
            let wait = gate.checker.awaited_introspection(token, taken, gate.engine.limits().knows(address.into()))?;
            Wait::Introspection(wait, Arc::clone(&gate.engine), address)
        } else {
            Wait::Keys(gate.checker.awaited(token)?)
        };
        Some(Box::new(Self { wait, denial, place }))
    }

    pub(in crate::gate) const fn denial(&self) -> Denial {
        self.denial
    }

    /// Waits for the event. The place in the overload bounds is free afterwards.
    pub(in crate::gate) async fn paid(self) -> Receipt {
        match self.wait {
            Wait::Keys(keys) => Receipt { is_final: keys.ended().await, introspected: None, session: None },
            Wait::Session(gate, cookie, when, address) => {
                let answer = gate.loaded_session(cookie, when).await;
                answer.record(gate.engine.limits(), address.into());
                Receipt { is_final: false, introspected: None, session: Some(answer) }
            }
            Wait::Key(gate, key, address) => {
                let answer = gate.loaded_key(key).await;
                match &answer.outcome {
                    Err(Denial::ApiKeyRefused(_)) => gate.engine.limits().record_forged(address),
                    _ => answer.record(gate.engine.limits(), address.into()),
                }
                Receipt { is_final: false, introspected: None, session: Some(answer) }
            }
            Wait::Introspection(wait, engine, address) => {
                let introspected = wait.ended().await;
                if let Some(answer) = &introspected {
                    answer.record(engine.limits(), address.into());
                }
                Receipt { is_final: false, introspected, session: None }
            }
        }
    }
}

pub(super) const fn is_awaited(denial: Denial) -> bool {
    matches!(denial, Denial::KeysUnavailable(_) | Denial::IntrospectionUnavailable(_))
}

impl Receipt {
    /// The receipt of a question that was answered without a wait: an explanation reads the session first.
    pub(super) fn of_session(session: SessionAnswer) -> Self {
        Self { is_final: false, introspected: None, session: Some(session) }
    }

    pub(in crate::gate) fn introspected(&self) -> Option<&Introspected> {
        self.introspected.as_ref()
    }

    pub(in crate::gate) fn session(&self) -> Option<&SessionAnswer> {
        self.session.as_ref()
    }

    /// The refusal of a request whose check could not decide with this receipt. A route that ignores invalid tokens must
    /// not see it, because an issuer without the key may be one that does not publish it yet.
    pub(in crate::gate) fn refusal(&self, denial: Denial) -> Denial {
        match denial {
            Denial::KeysUnavailable(_) if self.is_final => Denial::UnknownKey,
            other => other,
        }
    }
}
