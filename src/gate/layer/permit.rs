//! Steps 5 to 8 of a request: credential, verify, authorise, prepare.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::Uri;

use super::assertion::assertion_for_service;
use super::debt::{Debt, Receipt, Unpermitted, is_awaited};
use super::target::set_target;
use crate::gate::browser::device::shown_device;
use crate::gate::browser_request::session_cookie;
use crate::gate::notice::SetupNotice;
use crate::gate::{Inner, exchange};
use rotogate_core::credential::{self, Credential, Found, Places, Scheme};
use rotogate_core::denial::{Denial, NotGood};
use rotogate_core::dpop::{CheckedProof, UsedProof};
use rotogate_core::headers::{self, Peer};
use rotogate_core::policy::{self, By, Owing, Permit, Permitted, Settled, Undecided};
use rotogate_core::route::authority::Authority;
use rotogate_core::route::{Auth, Route, RoutePolicy};
use rotogate_core::rule::Rule;
use rotogate_core::token::observer::Observer;
use rotogate_core::token::session_cookie::is_of_browser;
use rotogate_core::token::verify::IssuerRules;
use rotogate_core::verify_cache::{Check, Verified};

/// A request whose route is known. Its methods perform steps 5 to 7, in order.
pub(in crate::gate) struct RoutedRequest<'a, O> {
    gate: &'a Arc<Inner>,
    parts: &'a Parts,
    route: &'a Arc<Route>,
    /// The policy that lists where the request may contain the token.
    places_of: &'a RoutePolicy,
    path: Option<&'a str>,
    by: By,
    /// What the request has waited for.
    receipt: Option<&'a Receipt>,
    observer: &'a mut O,
}

enum PresentedToken<'a> {
    Known(Arc<Verified>),
    Text(Cow<'a, str>),
    Session(&'a [u8]),
    Key(&'a str),
}

impl<'a> From<Cow<'a, str>> for PresentedToken<'a> {
    fn from(token: Cow<'a, str>) -> Self {
        Self::Text(token)
    }
}

struct CheckedCaller {
    verified: Arc<Verified>,
    first_sight: Option<Option<IpAddr>>,
    /// Proves that the caller has the token's key. The proof is not marked as used yet.
    proof: Option<CheckedProof>,
}

impl<'a, O: Observer> RoutedRequest<'a, O> {
    pub(in crate::gate) fn new(
        gate: &'a Arc<Inner>,
        parts: &'a Parts,
        route: &'a Arc<Route>,
        by: By,
        observer: &'a mut O,
    ) -> Self {
        Self { gate, parts, route, places_of: &route.policy, path: None, by, receipt: None, observer }
    }

    pub(super) fn on_path(self, path: Option<&'a str>) -> Self {
        Self { path, ..self }
    }

    pub(in crate::gate) fn with_receipt(self, receipt: Option<&'a Receipt>) -> Self {
        Self { receipt, ..self }
    }

    pub(super) fn with_places_of(self, places_of: &'a RoutePolicy) -> Self {
        Self { places_of, ..self }
    }

    /// If this gate has already permitted the request, the credential was removed. The gate then authorises the known
    /// caller again.
    pub(in crate::gate) fn permit(&mut self) -> Result<Permit<Owing>, Unpermitted> {
        match self.parts.extensions.get::<Permitted>() {
            None => self.permit_first(),
            Some(known) if known.by().gate == self.gate.id => match known.caller() {
                Some(caller) => Ok(self.authorise_again(Arc::clone(caller))?),
                None => self.permit_first(),
            },
            Some(_) => {
                let permitted = self.permit_first();
                if O::HAS_EFFECTS
                    && matches!(permitted, Err(Unpermitted::Refused(Denial::NoCredential)))
                    && self.gate.running.notices.first(SetupNotice::OtherGate)
                {
                    tracing::error!(
                        "request without a credential: another gate in front removed the Authorization header. Set \
                         `forward_token: true` on its route, or put one gate around both. Logged once"
                    );
                }
                permitted
            }
        }
    }

    fn permit_first(&mut self) -> Result<Permit<Owing>, Unpermitted> {
        let Self { gate, parts, route, places_of, path, by, receipt, .. } = *self;
        match (route.policy.auth, route.policy.ignores_bad_credential) {
            // The route does not require a token. Two `Authorization` headers are refused, because the upstream could
            // choose either.
            (Auth::None, _) => {
                self.observer.judged(Rule::Credential, credential::at_most_one(&parts.headers))?;
                Ok(policy::permit_anonymous(route, by))
            }
            (Auth::Required, _) => self.caller()?.ok_or(Denial::NoCredential.into()),
            (Auth::Optional, false) => {
                let caller = self.observer.attempt(|observer| {
                    match (RoutedRequest { gate, parts, route, places_of, path, by, receipt, observer }).caller() {
                        // An invalid cookie counts as missing.
                        Err(Unpermitted::Refused(Denial::SessionOver(_))) => {
                            Ok(Some(policy::permit_anonymous(route, by).after_session()))
                        }
                        Err(Unpermitted::Refused(Denial::UnknownSessionCookie | Denial::DeviceProofMissing)) => {
                            Ok(None)
                        }
                        caller => caller,
                    }
                })?;
                Ok(caller.unwrap_or_else(|| policy::permit_anonymous(route, by)))
            }
            (Auth::Optional, true) => {
                self.observer.judged(Rule::Credential, credential::at_most_one(&parts.headers))?;
                let caller = self.observer.attempt(|observer| {
                    RoutedRequest { gate, parts, route, places_of, path, by, receipt, observer }.caller()
                });
                let anonymous = || policy::permit_anonymous(route, by);
                match caller {
                    Ok(caller) => Ok(caller.unwrap_or_else(anonymous)),
                    Err(Unpermitted::Refused(Denial::TwoCredentials)) => Err(Denial::TwoCredentials.into()),
                    Err(Unpermitted::Refused(Denial::SessionOver(_))) => Ok(anonymous().after_session()),
                    // A credential that could not be checked does not count as invalid (requirement R15).
                    Err(Unpermitted::Refused(denial)) => Ok(NotGood::from_denial(denial).map(|_| anonymous())?),
                    Err(owes) => Err(owes),
                }
            }
        }
    }

    pub(super) fn caller(&mut self) -> Result<Option<Permit<Owing>>, Unpermitted> {
        let Some(found) = self.credential()? else { return Ok(None) };
        let checked = self.verify(found)?;
        Ok(Some(self.authorise(checked)?))
    }

    fn credential(&mut self) -> Result<Option<Found<PresentedToken<'a>>>, Denial> {
        let Self { gate, parts, places_of, .. } = *self;
        let found = self.observer.read(Rule::Credential, self.extract())?;
        // The origin is checked first, so that the reply to a foreign page does not depend on the token.
        if let Some(found @ Found { by_cookie: true, .. }) = &found {
            let judged = match &found.token {
                PresentedToken::Session(_) => gate.origins.judge_session(parts, places_of),
                _ if gate.origins.admit(parts, places_of) => Ok(()),
                _ => Err(Denial::CrossOrigin),
            };
            self.observer.judged(Rule::Origin, judged)?;
        }
        Ok(found)
    }

    /// If the request also has a token or an API key, the session cookie is ignored, because a browser adds the cookie
    /// automatically.
    // Requirements B16 and B17.
    fn extract(&self) -> Result<Option<Found<PresentedToken<'a>>>, Denial> {
        let Self { gate, parts, places_of, .. } = *self;
        let taken = places_of.credentials;
        if taken.key
            && let Some(key) = gate.presented_key(parts, gate.places(places_of))?
        {
            let token = PresentedToken::Key(key);
            return Ok(Some(Found { token, scheme: Scheme::Bearer, by_cookie: false, by_query: false }));
        }
        let at_hand = |token: &[u8]| gate.checker.at_hand::<O>(token).map(PresentedToken::Known);
        let token = || credential::extract_known(&parts.headers, parts.uri.query(), gate.places(places_of), at_hand);
        if taken.token && !taken.session {
            return token();
        }
        let cookie = if taken.session { session_cookie(&parts.headers)? } else { None };
        let by_session = |value| Found {
            token: PresentedToken::Session(value),
            scheme: Scheme::Bearer,
            by_cookie: true,
            by_query: false,
        };
        match (token()?, cookie) {
            (Some(token), _) if taken.token => Ok(Some(token)),
            (Some(_), _) => Err(Denial::UnusableCredential),
            (None, cookie) => Ok(cookie.map(by_session)),
        }
    }

    fn verify(&mut self, found: Found<PresentedToken<'a>>) -> Result<CheckedCaller, Unpermitted> {
        let Self { gate, parts, route, receipt, .. } = *self;
        let observer = &mut *self.observer;
        let mut first_sight = None;
        let mut seen = || {
            let address = if O::HAS_EFFECTS { gate.client_address(parts) } else { gate.address_of(parts) };
            *first_sight.insert(address)
        };
        let session = receipt.and_then(Receipt::session);
        let shown = || gate.shown(seen()).after(receipt.and_then(Receipt::introspected));
        let taken = |rules: &IssuerRules| policy::may_take(&route.policy, rules);
        let verified = match found.token {
            PresentedToken::Known(verified) => gate
                .checker
                .check_known(verified, observer)
                .map_err(|denial| self.owed(denial, || self.owed_by_token(None, denial)))?,
            PresentedToken::Key(key) => gate
                .checker
                .check_key(key, || gate.address_of(parts), || (gate.shown(seen()), session), observer)
                .map_err(|denial| self.owed(denial, || Debt::of_key(gate, parts, key, denial)))?,
            PresentedToken::Session(value) => gate
                .checker
                .check_session(value, || gate.session_miss(seen(), session), observer)
                .map_err(|denial| self.owed(denial, || Debt::of_session(gate, parts, value, denial)))?,
            PresentedToken::Text(token) => {
                let credential = Credential::maybe_bound(&token);
                // An earlier step has already searched this thread's cache for a token in `Authorization`.
                let may_be_at_hand = found.by_cookie || !parts.headers.contains_key(AUTHORIZATION);
                gate.checker
                    .check(Check { credential, may_be_at_hand, taken: Some(&taken) }, shown, observer)
                    .map_err(|denial| self.owed(denial, || self.owed_by_token(Some(&token), denial)))?
            }
        };
        let proof = gate.device_proved(|| shown_device(&parts.headers), &verified);
        let proof = self.proved(proof.and_then(|()| gate.possession(parts, found.scheme, verified.token())))?;
        if O::HAS_EFFECTS {
            verified.confirm(gate.engine.confirmations());
        }
        Ok(CheckedCaller { verified, first_sight, proof })
    }

    /// The only place where a denial of step 6 becomes a debt. A check that has its receipt owes nothing more.
    #[cold]
    fn owed(&self, denial: Denial, debt: impl FnOnce() -> Option<Box<Debt>>) -> Unpermitted {
        match self.receipt {
            None if O::HAS_EFFECTS => debt().map_or(Unpermitted::Refused(denial), Unpermitted::Owes),
            None | Some(_) => denial.into(),
        }
    }

    /// A token that this thread's cache knew is read from the request again.
    fn owed_by_token(&self, token: Option<&str>, denial: Denial) -> Option<Box<Debt>> {
        let Self { gate, parts, route, places_of, .. } = *self;
        let denial = Some(denial).filter(|denial| is_awaited(*denial))?;
        let found = match token {
            Some(_) => None,
            None => credential::extract_from(&parts.headers, parts.uri.query(), gate.places(places_of)).ok()?,
        };
        let token = token.or_else(|| found.as_ref().map(|found| &*found.token))?;
        Debt::of_token(gate, parts, token, &route.policy, denial)
    }

    fn authorise(&mut self, checked: CheckedCaller) -> Result<Permit<Owing>, Denial> {
        let CheckedCaller { verified, first_sight, proof } = checked;
        let authorised = policy::authorise(self.route, verified, self.by, self.observer)
            .and_then(|permitted| self.further_judged(permitted));
        // The rate limit counts a verified token for another audience, unless a `require()` may still accept it. A
        // cached token is not counted again.
        if let (Some(address), Err(Denial::WrongAudience), false) = (first_sight, &authorised, self.by.defers)
            && O::HAS_EFFECTS
        {
            self.gate.engine.limits().record_refused(address);
        }
        let permitted = authorised?;
        // The proof is marked as used last, so that a request refused for another reason does not consume the proof.
        let used = self.use_proof(proof.as_ref())?;
        Ok(permitted.proved_by(used))
    }

    fn authorise_again(&mut self, verified: Arc<Verified>) -> Result<Permit<Owing>, Denial> {
        let permitted = policy::authorise_again(self.route, verified, self.by, self.observer)?;
        self.further_judged(permitted)
    }

    /// Each request rechecks the age of the login.
    fn further_judged(&mut self, permitted: Permit<Owing>) -> Result<Permit<Owing>, Denial> {
        let policy = &self.route.policy;
        let Some(caller) = permitted.caller() else { return Ok(permitted) };
        policy::judge_conditions(self.route, caller, self.path, self.observer)?;
        if policy.step_up.is_some() {
            let now = self.gate.engine.clock().wall();
            self.observer.judged(Rule::StepUp, policy::judge_step_up(policy, caller.token(), now))?;
        }
        Ok(permitted)
    }

    /// Skips the check of the gate's audience. Returns the caller, and a permit without the caller.
    pub(super) fn undecided(&mut self) -> Result<(Undecided, Permit<Owing>), Unpermitted> {
        let found = self.credential()?.ok_or(Denial::NoCredential)?;
        let CheckedCaller { verified, proof, .. } = self.verify(found)?;
        let caller = self.authorise_again(verified)?;
        let used = self.use_proof(proof.as_ref())?;
        let anonymous = policy::permit_anonymous(self.route, self.by).proved_by(used);
        let caller = caller.caller().ok_or(Denial::NoCredential)?;
        Ok((Undecided::new(Arc::clone(caller), self.by), anonymous))
    }

    /// Marks the proof as used. An observer without effects only checks whether this gate has seen the proof.
    fn use_proof(&mut self, proof: Option<&CheckedProof>) -> Result<Option<Box<UsedProof>>, Denial> {
        let Some(proof) = proof else { return Ok(None) };
        let used = if O::HAS_EFFECTS {
            self.gate.use_proof(proof)
        } else {
            self.gate.running.dpop.was_used(proof).map(|()| None)
        };
        self.proved(used)
    }

    /// Returns `None` if the proof is invalid but the observer continues.
    fn proved<T>(&mut self, proof: Result<Option<T>, Denial>) -> Result<Option<T>, Denial> {
        match proof {
            Ok(proof) => {
                self.observer.judged(Rule::Proof, Ok(()))?;
                Ok(proof)
            }
            Err(denial) => self.observer.judged(Rule::Proof, Err(denial)).map(|()| None),
        }
    }
}

/// Step 8: removes credentials and the client's copies of identity headers, then sets the gate's own headers. Uses the
/// permit up.
///
/// # Errors
/// [`Denial::AssertionUnavailable`], and the errors of [`exchange::token_for_upstream`], with the request's route. After
/// an error the request is unchanged.
pub(in crate::gate) fn prepare(
    gate: &Arc<Inner>,
    parts: &mut Parts,
    permit: Permit<Settled>,
) -> Result<Permitted, (Denial, Arc<Route>)> {
    let permitted = permit.into_permitted();
    match prepared(gate, parts, &permitted) {
        Ok(()) => Ok(permitted),
        Err(denial) => Err((denial, permitted.into_parts().0)),
    }
}

fn prepared(gate: &Arc<Inner>, parts: &mut Parts, permitted: &Permitted) -> Result<(), Denial> {
    let policy = &permitted.route().policy;
    let assertion = assertion_for_service(gate, permitted)?;
    let token = exchange::token_for_upstream(gate, parts, permitted)?;
    gate.strip(|names| names.strip_untrusted(&mut parts.headers, policy));
    gate.withhold_key(parts, policy.credentials.key);
    let places = gate.places(policy);
    let token = token.or_else(|| token_of_dialect(gate, parts, permitted));
    if headers::strip_credentials(&mut parts.headers, policy) {
        withhold_cookies(parts, places);
    }
    withhold_query_token(parts, places.query);
    withhold_unserved_host(gate, &mut parts.headers);
    if let Some(token) = token {
        parts.headers.insert(AUTHORIZATION, token);
    }
    if let Some(hook) = &gate.refusals {
        parts.extensions.insert(hook.clone());
    }
    if let Some(caller) = permitted.caller() {
        for (name, value) in caller.headers() {
            parts.headers.insert(name.clone(), value.clone());
        }
    }
    if let Some((name, value)) = assertion {
        parts.headers.insert(name, value);
    }
    Ok(())
}

/// Returns the caller's token in the cookie or the parameter of the route's dialect, if the route forwards tokens. It is
/// forwarded in `Authorization`.
fn token_of_dialect(gate: &Inner, parts: &Parts, permitted: &Permitted) -> Option<HeaderValue> {
    let (policy, caller) = (&permitted.route().policy, permitted.caller()?);
    if !policy.forward_token || parts.headers.contains_key(AUTHORIZATION) {
        return None;
    }
    let sources = gate.dialect(policy)?.sources();
    let places = Places { query: sources.query, cookies: [sources.cookie, None], dpop: false };
    let found = credential::extract_from(&parts.headers, parts.uri.query(), places).ok()??;
    if !caller.token().has_text(&found.token) {
        return None;
    }
    let mut value = HeaderValue::try_from(format!("Bearer {}", found.token)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Removes the tokens in these places, and the cookies of browser sessions and logins.
// Requirement B15.
pub(in crate::gate) fn withhold(parts: &mut Parts, places: Places<'_>) {
    withhold_cookies(parts, places);
    withhold_query_token(parts, places.query);
}

fn withhold_cookies(parts: &mut Parts, places: Places<'_>) {
    for cookie in places.cookies.into_iter().flatten() {
        credential::remove_cookie(&mut parts.headers, cookie);
    }
    credential::remove_cookies(&mut parts.headers, is_of_browser);
}

/// A trusted proxy may forward a client's `X-Forwarded-Host` with a host that the gate does not serve. The gate removes
/// this header, so the upstream uses the host that the gate has checked.
// Requirement T23.
fn withhold_unserved_host(gate: &Inner, received: &mut HeaderMap) {
    let Some(hosts) = gate.hosts.as_ref().filter(|_| !gate.trusted_proxies.is_empty()) else { return };
    let host = |value: &HeaderValue| Authority::parse(value.to_str().ok()?).map(|named| hosts.admit(named.host()));
    if received.get_all(&headers::FORWARDED_HOST).iter().any(|value| host(value) != Some(true)) {
        received.remove(&headers::FORWARDED_HOST);
    }
}

/// Returns whether the query contains a token, even if the route does not accept tokens in the query.
pub(in crate::gate) fn has_token_in_query(uri: &Uri, places: Places<'_>) -> bool {
    uri.query().is_some_and(|query| without_token(query, places.query).is_some())
}

fn without_token(query: &str, parameter: Option<&str>) -> Option<String> {
    let rest = credential::strip_query_token(query);
    let stripped = parameter.and_then(|name| credential::strip_parameter(rest.as_deref().unwrap_or(query), name));
    stripped.or(rest)
}

/// A token in the query is never forwarded (requirement T2).
fn withhold_query_token(parts: &mut Parts, parameter: Option<&str>) {
    let rest = parts.uri.query().and_then(|query| without_token(query, parameter));
    if let Some(rest) = rest {
        let path = parts.uri.path();
        let target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{rest}") };
        if !set_target(parts, target) {
            // If the new target is invalid, the gate forwards only the path.
            let path = parts.uri.path().to_owned();
            set_target(parts, path);
        }
    }
}

impl Inner {
    pub(in crate::gate) fn places<'a>(&self, policy: &'a RoutePolicy) -> Places<'a> {
        let sources = self.dialect(policy).map(|dialect| dialect.sources()).unwrap_or_default();
        Places {
            query: sources.query,
            cookies: [policy.cookie.as_deref(), sources.cookie],
            dpop: self.dpop().is_some(),
        }
    }

    /// Returns the peer's address, or the client address that trusted proxies report. Logs setup mistakes.
    pub(in crate::gate) fn client_address(&self, parts: &Parts) -> Option<IpAddr> {
        let client = self.address_of(parts);
        match parts.extensions.get::<Peer>() {
            None if self.running.notices.first(SetupNotice::NoPeer) => {
                tracing::warn!(
                    "request without `Peer` in its extensions: logins, refreshes and forged tokens are not limited \
                     by address. Insert a `Peer` where you accept connections: \
                     `request.extensions_mut().insert(Peer::new(address, tls))`. Logged once"
                );
            }
            Some(peer)
                if peer.may_forward()
                    && client == Some(peer.address().to_canonical())
                    && headers::says_for_whom(&parts.headers)
                    && !headers::is_trusted(peer.address().to_canonical(), &self.trusted_proxies)
                    && self.running.notices.first(SetupNotice::UntrustedProxy) =>
            {
                tracing::warn!(
                    peer = %peer.address().to_canonical(),
                    "X-Forwarded-For ignored: the peer is not a trusted proxy, so all clients behind it count as one \
                     address and share its limits. If it is your proxy, list it: `GateBuilder::trusted_proxies`. Logged once"
                );
            }
            None | Some(_) => {}
        }
        client
    }

    pub(in crate::gate) fn address_of(&self, parts: &Parts) -> Option<IpAddr> {
        let peer = parts.extensions.get::<Peer>()?;
        let trusted: &[_] = if peer.may_forward() { &self.trusted_proxies } else { &[] };
        Some(headers::client_ip(&parts.headers, peer.address(), trusted))
    }
}
