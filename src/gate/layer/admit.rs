//! Steps 1 to 7 of a request: the decision where it goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{AUTHORIZATION, UPGRADE};
use http::request::Parts;
use http::{Method, Uri};

use super::GateLayer;
use super::awaited::{Awaited, awaited};
use super::permit::{permit, set_path, undecided};
use crate::denial::{Denial, NotGood};
use crate::dialect::Reply;
use crate::effects::{Effects, WithEffects};
use crate::gate::Inner;
use crate::gate::endpoint::Hit;
#[cfg(feature = "axum")]
use crate::gate::nested;
use crate::gate::notice::Notice;
use crate::gate::{preflight, respond};
use crate::headers::{self, Peer};
use crate::policy::{self, By, Permitted, Undecided};
use crate::reply;
use crate::route::hosts::is_loopback;
use crate::route::path::{CanonicalPath, PathError};
use crate::route::{Auth, BadCredential, Match, Route, RoutePolicy, authority};
use crate::verify_cache::Introspected;

/// Where a request goes.
pub(in crate::gate) enum Admission {
    /// Into the service, with the permit of its route's policy.
    In(Permitted),
    /// To one of our endpoints.
    Endpoint(Hit),
    /// Into the service, without a caller: a `require()` there decides.
    Undecided(Undecided, Permitted),
    /// Nowhere.
    Refused(Denial, Option<Arc<Route>>),
    /// Nowhere: no route of this path serves the method.
    WrongMethod(Reply),
}

/// Whether a path may match one of our endpoints (step 3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::gate) enum EndpointMatch {
    /// A match is served by the endpoint.
    Serve,
    /// Endpoints are skipped: the endpoint itself asks for the decision of the route.
    Skip,
    /// A match is refused: another proxy would forward the request past the endpoint.
    Refuse,
}

impl Admission {
    /// Is the proof of an admitted request still to be counted in the store that gates share?
    pub(super) fn owes_proof(&self) -> bool {
        match self {
            Self::In(permitted) | Self::Undecided(_, permitted) => permitted.owes_proof(),
            Self::Endpoint(_) | Self::Refused(..) | Self::WrongMethod(_) => false,
        }
    }
}

/// Is a request with a bad credential treated as one without?
fn takes_bad_for_none(policy: &RoutePolicy) -> bool {
    policy.auth == Auth::Optional && policy.bad_credential_on_optional == BadCredential::Anonymous
}

impl<M> GateLayer<M> {
    /// The decision: steps 1 to 7. No await: all that it needs is in memory.
    pub(in crate::gate) fn admit(&self, parts: &mut Parts, endpoints: EndpointMatch) -> Admission {
        self.admit_as::<WithEffects>(parts, endpoints)
    }

    /// The same, with effects or without.
    pub(super) fn admit_as<E: Effects>(&self, parts: &mut Parts, endpoints: EndpointMatch) -> Admission {
        let gate = &self.gate.0;
        // 1. Framing and host.
        let host = match gate.host(parts) {
            Ok(host) => host,
            Err(denial) => return Admission::Refused(denial, None),
        };
        // 2. Canonical path. All later steps match the path that is forwarded.
        let whole = self.whole::<E>(parts);
        let raw = whole.as_ref().unwrap_or(&parts.uri).path();
        let path = match CanonicalPath::parse(raw) {
            Ok(path) => path,
            Err(error) => return Admission::Refused(error.into(), None),
        };
        // 3. Endpoint. Before any route, so that no route, however wide, can shadow or forward one.
        if endpoints == EndpointMatch::Serve
            && let Some(hit) = gate.endpoints.find(&path, raw)
        {
            if let Hit::Operation(operation) = &hit
                && !Peer::is_on(parts.extensions.get(), gate.endpoints.listeners(operation))
            {
                return Admission::Refused(Denial::NoRoute, None);
            }
            let passes = matches!(&hit, Hit::Operation(operation) if gate.endpoints.upgrades(operation))
                && !parts.headers.contains_key(UPGRADE);
            if !passes {
                return Admission::Endpoint(hit);
            }
        }
        if endpoints == EndpointMatch::Refuse
            && let Some(hit) = gate.endpoints.find(&path, raw)
        {
            let denial = match hit {
                Hit::NearMiss(_) => Denial::NearMiss,
                Hit::Operation(_) | Hit::Jwks | Hit::Metadata(_) | Hit::Resource(_) => Denial::EndpointElsewhere,
            };
            return Admission::Refused(denial, None);
        }
        // 4. Route. Its policy says what steps 5 to 7 require.
        let preflight = preflight::requested_method(&parts.method, &parts.headers);
        let route = match gate.routes.find(Some(host), preflight.as_ref().unwrap_or(&parts.method), &path) {
            Match::Found(route) => route,
            Match::Ambiguous(route) => return Admission::Refused(Denial::AmbiguousPath, Some(Arc::clone(route))),
            Match::MethodNotAllowed(allowed) => {
                let here = self.served_here(parts, host, &path, allowed);
                let allowed = here.as_slice();
                if allowed.is_empty() {
                    return Admission::Refused(Denial::NoRoute, None);
                }
                return Admission::WrongMethod(if reply::is_grpc(&parts.headers) {
                    respond::denied_grpc(Denial::MethodNotAllowed)
                } else {
                    // Any route of the path will do for the dialect: they differ in methods.
                    let route = allowed.iter().find_map(|method| match gate.routes.find(Some(host), method, &path) {
                        Match::Found(route) | Match::Ambiguous(route) => Some(route),
                        Match::MethodNotAllowed(_) | Match::None => None,
                    });
                    let dialect = route.and_then(|route| gate.dialect(&route.policy));
                    let (denial, plain) = (Denial::MethodNotAllowed, reply::method_not_allowed(allowed));
                    respond::worded(dialect, &parts.headers, denial, &plain)
                        .unwrap_or_else(|| respond::hooked(gate.refusals.as_ref(), parts, denial, plain))
                });
            }
            Match::None => return Admission::Refused(Denial::NoRoute, None),
        };
        if !Peer::is_on(parts.extensions.get(), &route.listeners) {
            return Admission::Refused(Denial::NoRoute, Some(Arc::clone(route)));
        }
        if let Err(denial) = route.policy.admits(&path) {
            return Admission::Refused(denial, Some(Arc::clone(route)));
        }
        if path.is_rewritten() {
            if self.rewrite && whole.is_none() {
                let canonical = path.as_str().to_owned();
                if !set_path(parts, &canonical) {
                    return Admission::Refused(PathError::NotCanonical.into(), Some(Arc::clone(route)));
                }
            } else if !path.equals_but_for_hex_case(raw) || gate.routes.has_escapes() {
                // A router outside of this layer has matched the path as the client spelt it. Letter case in an escape
                // can change its match only where a pattern has an escape.
                return Admission::Refused(PathError::NotCanonical.into(), Some(Arc::clone(route)));
            }
        }
        if preflight.is_some() && route.policy.preflight_to_upstream {
            // Browsers send preflights without credentials. A credential here was not verified, and a route that
            // forwards tokens would forward it as if it had been.
            parts.headers.remove(AUTHORIZATION);
            return Admission::In(policy::permit_anonymous(route, self.by()));
        }
        // 5. Credential, 6. verify, 7. authorise: each takes what the one before it made.
        match permit::<E>(gate, parts, route, self.by()) {
            Ok(permitted) => Admission::In(permitted),
            Err(Denial::WrongAudience) if self.defer_audience && route.policy.audiences.is_empty() => {
                match undecided::<E>(gate, parts, route, self.by()) {
                    Ok((undecided, anonymous)) => Admission::Undecided(undecided, anonymous),
                    Err(denial) => Admission::Refused(denial, Some(Arc::clone(route))),
                }
            }
            Err(denial) => {
                if denial == Denial::WrongAudience
                    && route.policy.audiences.is_empty()
                    && gate.running.asks_audience.load(Ordering::Relaxed)
                    && gate.running.notices.first_as::<E>(Notice::Audience)
                {
                    tracing::warn!(
                        "token for another audience refused by `gate.layer()`: a `require().audience(…)` behind it \
                         never sees the token. Use `gate.layer().deferring_audience()`, or add the audience to a \
                         route of the gate (`RoutePolicy::audiences`). Logged once"
                    );
                }
                if E::ARE_WANTED {
                    gate.tell_limited(&denial, || gate.client_address(parts));
                }
                Admission::Refused(denial, Some(Arc::clone(route)))
            }
        }
    }

    /// Those of the methods of a path whose route is on the listener of the request.
    fn served_here(&self, parts: &Parts, host: &str, path: &CanonicalPath, methods: &[Method]) -> Vec<Method> {
        let is_here = |method: &&Method| match self.gate.0.routes.find(Some(host), method, path) {
            Match::Found(route) | Match::Ambiguous(route) => Peer::is_on(parts.extensions.get(), &route.listeners),
            Match::MethodNotAllowed(_) | Match::None => false,
        };
        methods.iter().filter(is_here).cloned().collect()
    }

    /// What a request must wait for before it can be decided; `None` if nothing is under way that could decide it, or
    /// too many requests wait.
    pub(super) fn awaited(&self, parts: &Parts, admission: &Admission) -> Option<Awaited> {
        match admission {
            Admission::Refused(denial, Some(route)) => awaited(&self.gate.0, parts, *denial, &route.policy),
            _ => None,
        }
    }

    /// Waits for what is under way, and decides again. Then counts the proof of an admitted request in the store.
    pub(super) async fn admit_after(
        &self,
        mut admission: Admission,
        wait: Option<Awaited>,
        parts: &mut Parts,
        endpoints: EndpointMatch,
    ) -> Admission {
        if let Some(wait) = wait {
            let settled = wait.settled().await;
            settled.give(parts);
            admission = match self.admit(parts, endpoints) {
                Admission::Refused(denial, route) => Admission::Refused(settled.of(denial), route),
                admission => admission,
            };
            parts.extensions.remove::<Introspected>();
        }
        self.proof_counted(admission).await
    }

    async fn proof_counted(&self, admission: Admission) -> Admission {
        if !admission.owes_proof() {
            return admission;
        }
        let (undecided, permitted) = match admission {
            Admission::In(permitted) => (None, permitted),
            Admission::Undecided(undecided, anonymous) => (Some(undecided), anonymous),
            admission => return admission,
        };
        let (route, by) = (Arc::clone(permitted.route()), permitted.by());
        match (self.gate.0.count_proof(permitted).await, undecided) {
            (Ok(permitted), None) => Admission::In(permitted),
            (Ok(anonymous), Some(undecided)) => Admission::Undecided(undecided, anonymous),
            // As where the proof was used at this gate.
            (Err(denial), _) if takes_bad_for_none(&route.policy) => match NotGood::of(denial) {
                Ok(_) => Admission::In(policy::permit_anonymous(&route, by)),
                Err(denial) => Admission::Refused(denial, Some(route)),
            },
            (Err(denial), _) => Admission::Refused(denial, Some(route)),
        }
    }

    /// The decision, after a wait if it takes one.
    pub(in crate::gate) async fn admit_waiting(&self, parts: &mut Parts, endpoints: EndpointMatch) -> Admission {
        let admission = self.admit(parts, endpoints);
        let wait = self.awaited(parts, &admission);
        self.admit_after(admission, wait, parts, endpoints).await
    }

    /// The permit of an outer layer of the same gate. That layer saw the whole path, and has the same endpoints and
    /// routes, so this one repeats nothing.
    pub(super) fn permitted_before<'a>(&self, parts: &'a Parts) -> Option<&'a Permitted> {
        let permitted = if self.edge { None } else { parts.extensions.get::<Permitted>() }?;
        let by = permitted.by();
        (by.gate == self.gate.0.id && by.layer).then_some(permitted)
    }

    /// The whole path of a request, if this layer is inside a nest and sees only a part of it. Routes match whole
    /// paths.
    #[cfg(feature = "axum")]
    pub(super) fn whole<E: Effects>(&self, parts: &Parts) -> Option<Uri> {
        let whole = if self.edge { None } else { nested::whole(parts) }?;
        if self.gate.0.running.notices.first_as::<E>(Notice::Nested) {
            tracing::error!(
                "`gate.layer()` inside a nest, which removes the prefix of a path: routes and endpoints match the whole \
                 path all the same. Put `gate.layer()` around the outermost router, and `gate.require()` into nests. \
                 Logged once"
            );
        }
        Some(whole)
    }

    #[cfg(not(feature = "axum"))]
    pub(super) fn whole<E: Effects>(&self, _: &Parts) -> Option<Uri> {
        None
    }

    fn by(&self) -> By {
        By { gate: self.gate.0.id, layer: true, defers: self.defer_audience }
    }
}

impl Inner {
    /// Step 1: the host, without port. Refuses what no later check can make safe: CONNECT, whose bytes the gate never
    /// sees, and a body with ambiguous framing. Then host and target, before anything that depends on them.
    pub(super) fn host<'a>(&self, parts: &'a Parts) -> Result<&'a str, Denial> {
        if parts.method == Method::CONNECT {
            return Err(Denial::Tunnel);
        }
        if !headers::is_framed_once(&parts.headers) {
            return Err(Denial::BadFraming);
        }
        let host = authority::check(parts)?.host();
        if let Some(hosts) = &self.hosts
            && !hosts.admit(host)
            && !(is_loopback(host) && parts.extensions.get::<Peer>().is_some_and(Peer::is_at_loopback))
        {
            return Err(Denial::UnknownHost);
        }
        Ok(host)
    }
}
