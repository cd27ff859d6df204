//! Steps 1 to 7 of request processing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{AUTHORIZATION, HeaderMap};
use http::request::Parts;
use http::{Method, Uri};

use super::GateLayer;
use super::debt::{OwedCheck, Receipt, Unpermitted};
use super::permit::RoutedRequest;
use super::target::set_path;
use crate::dialect::Reply;
use crate::gate::endpoint::Hit;
use crate::gate::mcp::{HeadVerdict, ReadyMcp};
#[cfg(feature = "axum")]
use crate::gate::nested;
use crate::gate::notice::SetupNotice;
use crate::gate::{Inner, preflight, respond, tunnel};
use rotogate_core::denial::{CallFlaw, Denial};
use rotogate_core::headers::{self, Peer};
use rotogate_core::policy::{self, By, Due, Owing, Permit, Permitted, Settled, Undecided};
use rotogate_core::reply;
use rotogate_core::route::hosts::is_loopback;
use rotogate_core::route::path::{CanonicalPath, PathError};
use rotogate_core::route::{Match, Route, RoutePolicy, admits_path, authority, depends_on_path};
use rotogate_core::rule::Rule;
use rotogate_core::token::observer::Observer;

/// What steps 1 to 7 say of a request.
pub(in crate::gate) enum Admission {
    /// The request goes to the service once its permit is settled.
    In(Permit<Owing>),
    /// The same without a caller. A `require()` in the service accepts or refuses the token.
    Undecided(Box<Undecided>, Permit<Owing>),
    /// Step 6 must wait.
    Owes(Box<OwedCheck>),
    Endpoint(Hit),
    Refused(Denial, Option<Arc<Route>>),
    /// No route at this path serves the method. The reply is boxed because it is large, and every admission is moved.
    WrongMethod(Box<Reply>),
}

/// An [`Admission`] that owes nothing but its body.
pub(in crate::gate) enum Settlement {
    In(Permit<Settled>),
    Undecided(Box<Undecided>, Permit<Settled>),
    /// The request goes to the service once its body has been checked.
    Body(Permit<Owing>),
    Endpoint(Hit),
    Refused(Denial, Option<Arc<Route>>),
    WrongMethod(Box<Reply>),
}

impl Admission {
    /// The permit of a request on a route.
    ///
    /// # Errors
    /// The denial, and the route that refuses.
    pub(in crate::gate) fn permit(self) -> Result<Permit<Owing>, (Denial, Option<Arc<Route>>)> {
        match self {
            Self::In(permit) if permit.owes(Due::Body) => Err((Denial::BadCall(CallFlaw::NoBody), None)),
            Self::In(permit) => Ok(permit),
            Self::Owes(check) => Err((check.debt.denial(), Some(check.route))),
            Self::Refused(denial, route) => Err((denial, route)),
            Self::Undecided(..) => Err((Denial::WrongAudience, None)),
            Self::WrongMethod(_) => Err((Denial::MethodNotAllowed, None)),
            Self::Endpoint(_) => Err((Denial::NoRoute, None)),
        }
    }
}

impl Settlement {
    #[inline]
    pub(super) fn passed(permit: Permit<Settled>, undecided: Option<Box<Undecided>>) -> Self {
        match undecided {
            None => Self::In(permit),
            Some(undecided) => Self::Undecided(undecided, permit),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::gate) enum EndpointMatch {
    Serve,
    /// Endpoints are ignored, because an endpoint itself needs the decision of the path's route.
    Skip,
    /// Requests for endpoints are refused, because another proxy would ignore the response.
    Refuse,
}

/// Other upgrades do not count, because clients that offer HTTP/2 send `Upgrade: h2c` with ordinary requests.
fn asks_for_websocket(headers: &HeaderMap) -> bool {
    tunnel::protocol(headers).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

impl<M> GateLayer<M> {
    /// Decides on a request by steps 1 to 7. All data are in memory, so this function is not `async`.
    pub(in crate::gate) fn admit(&self, parts: &mut Parts, endpoints: EndpointMatch) -> Admission {
        self.admit_observed(parts, endpoints, None, &mut ())
    }

    /// Like [`Self::admit`], for a request that must not wait: step 6 owes nothing.
    #[cfg(feature = "kuzzle")]
    pub(in crate::gate) fn admit_at_once(&self, parts: &mut Parts, endpoints: EndpointMatch) -> Admission {
        self.admit_observed(parts, endpoints, Some(&Receipt::default()), &mut ())
    }

    /// Like [`Self::admit`], with an observer, and with the session that an explanation read before. If the observer continues after a refusal, ignore the returned
    /// admission: the first refusal decides.
    pub(super) fn admit_observed<O: Observer>(
        &self,
        parts: &mut Parts,
        endpoints: EndpointMatch,
        receipt: Option<&Receipt>,
        observer: &mut O,
    ) -> Admission {
        let gate = &self.gate.0;
        // 1. Framing and host.
        let host = gate.host(parts);
        if let Err(denial) = observer.judged(Rule::Request, host.map(drop)) {
            return Admission::Refused(denial, None);
        }
        // 2. Canonical path. The later steps match exactly the path that the gate forwards.
        let whole = self.whole::<O>(parts);
        let raw = whole.as_ref().unwrap_or(&parts.uri).path();
        let path = match observer.read(Rule::Path, CanonicalPath::parse(raw).map_err(Denial::from)) {
            Ok(path) => path,
            Err(denial) => return Admission::Refused(denial, None),
        };
        // An observer may continue after a refused host, but routes cannot be found without a valid host.
        let host = match host {
            Ok(host) => host,
            Err(denial) => return Admission::Refused(denial, None),
        };
        // 3. Endpoint. Endpoints come before routes, so that a route cannot shadow or forward an endpoint.
        if let Some(admission) = self.at_endpoint(parts, &path, raw, endpoints) {
            return admission;
        }
        // 4. Route. The route's policy has the requirements of steps 5 to 7.
        let preflight = preflight::requested_method(&parts.method, &parts.headers);
        let method = preflight.as_ref().unwrap_or(&parts.method);
        let route = match self.route(parts, host, method, &path, observer) {
            Ok(route) => route,
            Err(admission) => return admission,
        };
        // The path is copied, because the request's path is replaced below.
        let judged_path = depends_on_path(&route.policy).then(|| path.as_str().to_owned());
        if path.is_rewritten() {
            let may_stay = self.may_stay(&path, raw);
            let canonical = (self.options.rewrite && whole.is_none()).then(|| path.as_str().to_owned());
            let is_right = canonical.map_or(may_stay, |path| set_path(parts, &path));
            let judged = if is_right { Ok(()) } else { Err(PathError::NotCanonical.into()) };
            if let Err(denial) = observer.judged(Rule::Path, judged) {
                return Admission::Refused(denial, Some(Arc::clone(route)));
            }
        }
        if preflight.is_some() && route.policy.preflight_to_upstream {
            // Browsers send preflights without credentials. A credential in a preflight is unverified, and a route
            // could forward it.
            parts.headers.remove(AUTHORIZATION);
            return Admission::In(policy::permit_anonymous(route, self.by()).counted(None));
        }
        self.permitted(parts, route, judged_path.as_deref(), receipt, observer)
    }

    /// Steps 5 to 7. A `require()` may check the audience instead.
    pub(super) fn permitted<O: Observer>(
        &self,
        parts: &Parts,
        route: &Arc<Route>,
        path: Option<&str>,
        receipt: Option<&Receipt>,
        observer: &mut O,
    ) -> Admission {
        let (gate, by) = (&self.gate.0, self.by());
        let permitted = observer.attempt(|observer| {
            RoutedRequest::new(gate, parts, route, by, observer).on_path(path).with_receipt(receipt).permit()
        });
        let refused = match permitted {
            Ok(permit) => {
                if let Some(caller) = permit.caller().filter(|_| O::HAS_EFFECTS) {
                    gate.renew_ahead(caller, parts);
                }
                return match gate.mcp(&route.policy) {
                    None => Admission::In(permit),
                    Some(mcp) => self.at_call(mcp, parts, permit, observer),
                };
            }
            Err(Unpermitted::Refused(Denial::WrongAudience))
                if self.options.defer_audience && route.policy.audiences.is_empty() =>
            {
                let request = RoutedRequest::new(gate, parts, route, by, observer).on_path(path);
                match request.with_receipt(receipt).undecided() {
                    Ok((undecided, anonymous)) => return Admission::Undecided(Box::new(undecided), anonymous),
                    Err(refused) => refused,
                }
            }
            Err(Unpermitted::Refused(denial)) => {
                if O::HAS_EFFECTS {
                    self.report(parts, denial, &route.policy);
                }
                denial.into()
            }
            Err(owes) => owes,
        };
        let route = Arc::clone(route);
        match refused {
            Unpermitted::Refused(denial) => {
                Admission::Refused(receipt.map_or(denial, |receipt| receipt.refusal(denial)), Some(route))
            }
            Unpermitted::Owes(debt) => Admission::Owes(Box::new(OwedCheck { debt, route, path: path.map(Into::into) })),
        }
    }

    /// The last part of step 7, for resources whose MCP calls are authorised.
    fn at_call<O: Observer>(
        &self,
        mcp: &ReadyMcp,
        parts: &Parts,
        permit: Permit<Owing>,
        observer: &mut O,
    ) -> Admission {
        let gate = &self.gate.0;
        let permit = if mcp.has_limits() { permit.owing(Due::Count) } else { permit };
        match gate.judge_head(mcp, parts, permit.caller(), observer) {
            Ok(HeadVerdict::Decided) => Admission::In(permit),
            Ok(HeadVerdict::NeedsBody) => Admission::In(permit.owing(Due::Body)),
            Ok(HeadVerdict::WrongMethod) => {
                Admission::WrongMethod(Box::new(reply::method_not_allowed(&[Method::POST])))
            }
            Err(denial) => Admission::Refused(denial, Some(Arc::clone(permit.route()))),
        }
    }

    fn report(&self, parts: &Parts, denial: Denial, policy: &RoutePolicy) {
        let gate = &self.gate.0;
        if denial == Denial::WrongAudience
            && policy.audiences.is_empty()
            && gate.running.asks_audience.load(Ordering::Relaxed)
            && gate.running.notices.first(SetupNotice::Audience)
        {
            tracing::warn!(
                "token for another audience refused by `gate.layer()`: a `require().audience(…)` behind it never sees the \
                 token. Use `gate.layer().deferring_audience()`, or add the audience to a route of the gate \
                 (`RoutePolicy::audiences`). Logged once"
            );
        }
        gate.tell_limited(&denial, || gate.client_address(parts));
    }

    /// Step 3.
    pub(super) fn at_endpoint(
        &self,
        parts: &Parts,
        path: &CanonicalPath<'_>,
        raw: &str,
        endpoints: EndpointMatch,
    ) -> Option<Admission> {
        let table = &self.gate.0.endpoints;
        if endpoints == EndpointMatch::Skip {
            return None;
        }
        let hit = table.find(path, raw)?;
        if endpoints == EndpointMatch::Refuse {
            let denial = match hit {
                Hit::NearMiss(_) => Denial::NearMiss,
                Hit::Operation(_) | Hit::Jwks | Hit::Metadata(_) | Hit::Resource(_) => Denial::EndpointElsewhere,
            };
            return Some(Admission::Refused(denial, None));
        }
        if let Hit::Operation(operation) = &hit {
            if !Peer::is_on(parts.extensions.get(), table.listeners(operation)) {
                return Some(Admission::Refused(Denial::NoRoute, None));
            }
            if table.upgrades(operation) && !asks_for_websocket(&parts.headers) {
                return None;
            }
        }
        Some(Admission::Endpoint(hit))
    }

    /// The gate ignores an upgrade (RFC 9110 §7.8) if an endpoint opens the WebSockets for the path or for the route's
    /// dialect. The gate authorises calls only on the endpoint's own WebSockets, but Kuzzle opens a WebSocket at any
    /// path. MCP routes also ignore upgrades, because calls in a tunnel cannot be authorised.
    pub(super) fn ignores_upgrade(&self, parts: &Parts, policy: &RoutePolicy) -> bool {
        let table = &self.gate.0.endpoints;
        if self.gate.0.mcp(policy).is_some() {
            return true;
        }
        if policy.dialect.as_deref().is_some_and(|dialect| table.opens_sockets_of(dialect)) {
            return true;
        }
        let whole = self.whole::<()>(parts);
        let raw = whole.as_ref().unwrap_or(&parts.uri).path();
        let hit = CanonicalPath::parse(raw).ok().and_then(|path| table.find(&path, raw));
        matches!(hit, Some(Hit::Operation(operation)) if table.upgrades(&operation))
    }

    /// Step 4.
    fn route<'g, O: Observer>(
        &'g self,
        parts: &Parts,
        host: &str,
        method: &Method,
        path: &CanonicalPath<'_>,
        observer: &mut O,
    ) -> Result<&'g Arc<Route>, Admission> {
        let (route, found) = match self.gate.0.routes.find(Some(host), method, path) {
            Match::Found(route) => (route, Ok(())),
            Match::Ambiguous(route) => (route, Err(Denial::AmbiguousPath)),
            Match::MethodNotAllowed(allowed) => return Err(self.wrong_method(parts, host, path, allowed)),
            Match::None => return Err(Admission::Refused(Denial::NoRoute, None)),
        };
        let refused = |denial| Err(Admission::Refused(denial, Some(Arc::clone(route))));
        if let Err(denial) = observer.judged(Rule::Route, found) {
            return refused(denial);
        }
        if !Peer::is_on(parts.extensions.get(), &route.listeners)
            && let Err(denial) = observer.judged(Rule::Route, Err(Denial::NoRoute))
        {
            return refused(denial);
        }
        match observer.judged(Rule::Path, admits_path(&route.policy, path)) {
            Ok(()) => Ok(route),
            Err(denial) => refused(denial),
        }
    }

    fn wrong_method(&self, parts: &Parts, host: &str, path: &CanonicalPath<'_>, allowed: &[Method]) -> Admission {
        let gate = &self.gate.0;
        let here = self.served_here(parts, host, path, allowed);
        let allowed = here.as_slice();
        if allowed.is_empty() {
            return Admission::Refused(Denial::NoRoute, None);
        }
        Admission::WrongMethod(Box::new(if reply::is_grpc(&parts.headers) {
            respond::denied_grpc(Denial::MethodNotAllowed)
        } else {
            // The routes at this path differ only in their methods, so any of these routes can determine the dialect.
            let route = allowed.iter().find_map(|method| match gate.routes.find(Some(host), method, path) {
                Match::Found(route) | Match::Ambiguous(route) => Some(route),
                Match::MethodNotAllowed(_) | Match::None => None,
            });
            let dialect = route.and_then(|route| gate.dialect(&route.policy));
            let (denial, plain) = (Denial::MethodNotAllowed, reply::method_not_allowed(allowed));
            respond::worded(dialect, &parts.headers, denial, &plain)
                .unwrap_or_else(|| gate.worded(parts, route.map(|route| &route.policy), denial, plain))
        }))
    }

    /// Returns whether the path may keep the client's spelling. The case of hex digits matters only to patterns with
    /// escapes.
    fn may_stay(&self, path: &CanonicalPath<'_>, raw: &str) -> bool {
        path.equals_but_for_hex_case(raw) && !self.gate.0.routes.has_escapes()
    }

    fn served_here(&self, parts: &Parts, host: &str, path: &CanonicalPath, methods: &[Method]) -> Vec<Method> {
        let is_here = |method: &&Method| match self.gate.0.routes.find(Some(host), method, path) {
            Match::Found(route) | Match::Ambiguous(route) => Peer::is_on(parts.extensions.get(), &route.listeners),
            Match::MethodNotAllowed(_) | Match::None => false,
        };
        methods.iter().filter(is_here).cloned().collect()
    }

    /// Like [`Self::admit`], and waits for what step 6 owes.
    pub(in crate::gate) async fn admit_waiting(&self, parts: &mut Parts, endpoints: EndpointMatch) -> Admission {
        let admission = self.admit(parts, endpoints);
        self.resumed(admission, parts).await
    }

    /// Returns the permit from an outer layer of the same gate. The outer layer saw the whole path, so this layer does
    /// not repeat the steps.
    pub(super) fn permitted_before<'a>(&self, parts: &'a Parts) -> Option<&'a Permitted> {
        let permitted = if self.options.edge { None } else { parts.extensions.get::<Permitted>() }?;
        let by = permitted.by();
        (by.gate == self.gate.0.id && by.layer).then_some(permitted)
    }

    /// Returns the whole path if this layer is inside a nest (axum's `Router::nest`). Routes match whole paths.
    #[cfg(feature = "axum")]
    pub(super) fn whole<O: Observer>(&self, parts: &Parts) -> Option<Uri> {
        let whole = if self.options.edge { None } else { nested::whole(parts) }?;
        if O::HAS_EFFECTS && self.gate.0.running.notices.first(SetupNotice::Nested) {
            tracing::error!(
                "`gate.layer()` is inside a nested router, which removes the prefix of the path. Routes and \
                 endpoints of the gate match the whole path nevertheless. Put `gate.layer()` around the outermost \
                 router, and `gate.require()` into nested routers. Logged once"
            );
        }
        Some(whole)
    }

    #[cfg(not(feature = "axum"))]
    #[expect(clippy::extra_unused_type_parameters, reason = "with the feature `axum`, the parameter is used")]
    pub(super) fn whole<O: Observer>(&self, _: &Parts) -> Option<Uri> {
        None
    }

    fn by(&self) -> By {
        By { gate: self.gate.0.id, layer: true, defers: self.options.defer_audience }
    }
}

impl Inner {
    /// Step 1. Returns the host without the port. Refuses ambiguous body framing. Also refuses CONNECT, because the
    /// gate would not see the tunnel's bytes.
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
