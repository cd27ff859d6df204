use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;

use super::future::ResponseFuture;
use crate::dialect::{Dialect, Reply};
use crate::gate::exchange::ClaimsChallenge;
use crate::gate::limits::OverQuota;
use crate::gate::overloaded::overloaded;
use crate::gate::signed_out::Led;
use crate::gate::verdict::{RefusedToken, Verdict, Who};
use crate::gate::{Inner, respond};
use rotogate_core::credential;
use rotogate_core::denial::Denial;
use rotogate_core::engine::{HeldUp, Origin};
use rotogate_core::overload::Refusal;
use rotogate_core::reason::Reason;
use rotogate_core::route::{Route, RoutePolicy};
use rotogate_core::verify_cache::Verified;

/// Refuses a request in the dialect of its route, or in the dialect that the request indicates. Otherwise the reply is
/// a gRPC status or a problem document.
pub(super) fn refused(
    gate: &Inner,
    parts: &Parts,
    denial: Denial,
    dialect: Option<&dyn Dialect>,
    route: Option<Arc<Route>>,
    annotate: bool,
) -> (Reply, Verdict) {
    let reason = Reason::denied(&denial);
    reason.tell();
    gate.engine.tell_refused(&denial);
    let who = if annotate {
        let claimed = || gate.refused_token(parts, &denial, &route.as_deref()?.policy);
        OverQuota::who(parts, denial).or_else(claimed)
    } else {
        None
    };
    let reply = rendered(gate, parts, denial, dialect, route.as_ref());
    (reply, Verdict { route, who, ..Verdict::new(reason) })
}

pub(super) fn rendered(
    gate: &Inner,
    parts: &Parts,
    denial: Denial,
    dialect: Option<&dyn Dialect>,
    route: Option<&Arc<Route>>,
) -> Reply {
    let mut asked = route.map(|route| gate.asked_by(&route.policy, &parts.headers)).unwrap_or_default();
    if let Some(route) = route {
        if let Denial::BadCall(flaw) = denial {
            return gate.bad_call(flaw, &route.policy, parts);
        }
        gate.ask_of_call(&mut asked, &route.policy, parts);
    }
    let lost = dialect.is_none() && route.is_none();
    let dialect = dialect.or_else(|| lost.then(|| gate.endpoints.dialect_of_client(&parts.headers)).flatten());
    let plain = respond::plain(parts, denial, &asked);
    let led = match route {
        Some(route) => gate.led_to_login(parts, denial, &route.policy, plain),
        None => Led::Plain(plain),
    };
    let mut reply = match led {
        Led::Shown(reply) => reply,
        Led::Plain(plain) => respond::worded(dialect, &parts.headers, denial, &plain)
            .unwrap_or_else(|| gate.worded(parts, route.map(|route| &route.policy), denial, plain)),
    };
    ClaimsChallenge::state(parts, &mut reply);
    gate.give_nonce(denial, &mut reply);
    gate.state_quota(denial, &mut reply);
    gate.clear_session(parts, denial, &mut reply);
    reply
}

pub(super) fn denied<F>(
    gate: &Inner,
    parts: &Parts,
    denial: Denial,
    route: &Arc<Route>,
    annotate: bool,
) -> ResponseFuture<F> {
    let dialect = gate.dialect(&route.policy);
    let (reply, verdict) = refused(gate, parts, denial, dialect, Some(Arc::clone(route)), annotate);
    ResponseFuture::own(reply, annotate.then_some(verdict))
}

pub(super) fn shed<F>(
    gate: &Inner,
    parts: &Parts,
    refusal: Refusal,
    (route, caller): (Arc<Route>, Option<Arc<Verified>>),
    annotate: bool,
) -> ResponseFuture<F> {
    let policy = &route.policy;
    let mut reply = overloaded(refusal, gate.dialect(policy), &parts.headers);
    if policy.dialect.is_none() {
        reply = gate.for_person((&parts.method, &parts.headers), Some(policy), None, reply);
    }
    let reason = Reason::shed(refusal);
    reason.tell();
    ResponseFuture::own(reply, annotate.then(|| Verdict { reason, ..Verdict::passed((route, caller)) }))
}

impl Inner {
    /// Audits a request that a limit refused before its token was checked.
    // Requirement O46.
    pub(in crate::gate) fn tell_limited(&self, denial: &Denial, address: impl FnOnce() -> Option<IpAddr>) {
        if let Denial::RateLimited(..) = denial {
            let origin = Origin { address: address(), ..Origin::default() };
            self.engine.tell_held_up(&(*denial).into(), &origin, HeldUp::default);
        }
    }

    pub(in crate::gate) fn refused_token(&self, parts: &Parts, denial: &Denial, policy: &RoutePolicy) -> Option<Who> {
        let found = credential::extract_from(&parts.headers, parts.uri.query(), self.places(policy)).ok()??;
        RefusedToken::peek(denial, &found.token)
    }

    pub(in crate::gate) fn dialect(&self, policy: &RoutePolicy) -> Option<&dyn Dialect> {
        let name = policy.dialect.as_ref()?;
        // The dialect of an endpoint has priority, because it has the options that its clients expect.
        let own = self.endpoints.dialect_named(name);
        own.or_else(|| self.dialects.iter().find(|dialect| dialect.name() == name).map(AsRef::as_ref))
    }
}
