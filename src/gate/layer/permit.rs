//! Steps 5 to 8 of a request: credential, verify, authorise, prepare.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::Uri;

use super::assertion::assertion_for_service;
use super::target::set_target;
use crate::gate::browser::device::shown_device;
use crate::gate::browser_request::session_cookie;
use crate::gate::notice::SetupNotice;
use crate::gate::{Inner, exchange};
use rotogate_core::credential::{self, Credential, Found, Places, Scheme};
use rotogate_core::denial::{Denial, NotGood};
use rotogate_core::dpop::{CheckedProof, UsedProof};
use rotogate_core::headers::{self, Peer};
use rotogate_core::policy::{self, By, Permitted, Undecided};
use rotogate_core::route::authority::Authority;
use rotogate_core::route::{Auth, Route, RoutePolicy};
use rotogate_core::rule::Rule;
use rotogate_core::token::observer::Observer;
use rotogate_core::token::session_cookie::is_of_browser;
use rotogate_core::token::verify::IssuerRules;
use rotogate_core::verify_cache::{Check, Introspected, Verified};

/// A request whose route is known. Its methods perform steps 5 to 7, and each step takes the result of the previous
/// step.
pub(in crate::gate) struct RoutedRequest<'a, O> {
    gate: &'a Inner,
    parts: &'a Parts,
    route: &'a Arc<Route>,
    /// The policy that determines where the token may be.
    places_of: &'a RoutePolicy,
    /// The canonical path, if the rules of the route depend on it.
    path: Option<&'a str>,
    by: By,
    observer: &'a mut O,
}

/// The credential that a request presents.
enum PresentedToken<'a> {
    /// A token that this thread has verified.
    Known(Arc<Verified>),
    Text(Cow<'a, str>),
    /// The value of a session cookie.
    Session(&'a [u8]),
    /// An API key.
    Key(&'a str),
}

impl<'a> From<Cow<'a, str>> for PresentedToken<'a> {
    fn from(token: Cow<'a, str>) -> Self {
        Self::Text(token)
    }
}

/// A verified caller.
struct CheckedCaller {
    verified: Arc<Verified>,
    /// The client's address, if known. It is set only if the token was not in the cache.
    first_sight: Option<Option<IpAddr>>,
    /// The proof that the caller has the key of the token. The proof has been checked, but is not marked as used yet.
    proof: Option<CheckedProof>,
}

impl<'a, O: Observer> RoutedRequest<'a, O> {
    pub(in crate::gate) fn new(
        gate: &'a Inner,
        parts: &'a Parts,
        route: &'a Arc<Route>,
        by: By,
        observer: &'a mut O,
    ) -> Self {
        Self { gate, parts, route, places_of: &route.policy, path: None, by, observer }
    }

    /// Sets the canonical path of the request.
    pub(super) fn on_path(self, path: Option<&'a str>) -> Self {
        Self { path, ..self }
    }

    /// Sets the policy that determines where the token may be.
    pub(super) fn with_places_of(self, places_of: &'a RoutePolicy) -> Self {
        Self { places_of, ..self }
    }

    /// Performs steps 5 to 7. If this gate has already permitted the request, its credential was removed. The request
    /// then keeps its caller and is only authorised again.
    pub(in crate::gate) fn permit(&mut self) -> Result<Permitted, Denial> {
        match self.parts.extensions.get::<Permitted>() {
            None => self.permit_first(),
            Some(known) if known.by().gate == self.gate.id => match known.caller() {
                Some(caller) => self.authorise_again(Arc::clone(caller)),
                None => self.permit_first(),
            },
            Some(_) => {
                let permitted = self.permit_first();
                if O::HAS_EFFECTS
                    && matches!(permitted, Err(Denial::NoCredential))
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

    fn permit_first(&mut self) -> Result<Permitted, Denial> {
        let Self { gate, parts, route, places_of, path, by, .. } = *self;
        match (route.policy.auth, route.policy.ignores_bad_credential) {
            // The route does not require a token, but a request with two `Authorization` headers is refused, because
            // the upstream could choose either.
            (Auth::None, _) => {
                self.observer.judged(Rule::Credential, credential::at_most_one(&parts.headers))?;
                Ok(policy::permit_anonymous(route, by))
            }
            (Auth::Required, _) => self.caller()?.ok_or(Denial::NoCredential),
            (Auth::Optional, false) => {
                let caller = self.observer.attempt(|observer| {
                    match (RoutedRequest { gate, parts, route, places_of, path, by, observer }).caller() {
                        // A cookie of an ended session, a cookie of another gate, or a cookie without its device counts
                        // as missing.
                        Err(Denial::SessionOver(_)) => Ok(Some(policy::permit_anonymous(route, by).after_session())),
                        Err(Denial::UnknownSessionCookie | Denial::DeviceProofMissing) => Ok(None),
                        caller => caller,
                    }
                })?;
                Ok(caller.unwrap_or_else(|| policy::permit_anonymous(route, by)))
            }
            (Auth::Optional, true) => {
                self.observer.judged(Rule::Credential, credential::at_most_one(&parts.headers))?;
                let caller = self
                    .observer
                    .attempt(|observer| RoutedRequest { gate, parts, route, places_of, path, by, observer }.caller());
                match caller {
                    Ok(Some(caller)) => Ok(caller),
                    Err(Denial::TwoCredentials) => Err(Denial::TwoCredentials),
                    Err(Denial::SessionOver(_)) => Ok(policy::permit_anonymous(route, by).after_session()),
                    // A credential that was not examined is not treated as invalid (requirement R15).
                    Err(denial) => NotGood::from_denial(denial).map(|_| policy::permit_anonymous(route, by)),
                    Ok(None) => Ok(policy::permit_anonymous(route, by)),
                }
            }
        }
    }

    /// Returns the permit for the caller, or `None` if the request has no credential.
    pub(super) fn caller(&mut self) -> Result<Option<Permitted>, Denial> {
        let Some(found) = self.credential()? else { return Ok(None) };
        let checked = self.verify(found)?;
        self.authorise(checked).map(Some)
    }

    /// Performs step 5: finds the credential.
    fn credential(&mut self) -> Result<Option<Found<PresentedToken<'a>>>, Denial> {
        let Self { gate, parts, places_of, .. } = *self;
        let found = self.observer.read(Rule::Credential, self.extract())?;
        // The origin is judged first. If the page may not send the request, the reply then does not depend on the
        // token, and the token's generation is not confirmed.
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

    /// Returns the credential, which must be the only one of the kinds that the route accepts. If the request also has
    /// a token or an API key, the session cookie is ignored, because a browser adds the cookie automatically.
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

    /// Performs step 6: verifies the credential.
    fn verify(&mut self, found: Found<PresentedToken<'a>>) -> Result<CheckedCaller, Denial> {
        let Self { gate, parts, route, .. } = *self;
        let observer = &mut *self.observer;
        let mut first_sight = None;
        let mut seen = || {
            let address = if O::HAS_EFFECTS { gate.client_address(parts) } else { gate.address_of(parts) };
            *first_sight.insert(address)
        };
        let shown = || gate.shown(seen()).after(parts.extensions.get::<Introspected>());
        let taken = |rules: &IssuerRules| policy::may_take(&route.policy, rules);
        let verified = match found.token {
            PresentedToken::Known(verified) => gate.checker.check_known(verified, observer)?,
            PresentedToken::Key(key) => {
                let shown = || (gate.shown(seen()), parts.extensions.get());
                gate.checker.check_key(key, || gate.address_of(parts), shown, observer)?
            }
            PresentedToken::Session(value) => {
                gate.checker.check_session(value, || gate.session_miss(seen(), parts.extensions.get()), observer)?
            }
            PresentedToken::Text(token) => {
                let credential = Credential::maybe_bound(&token);
                // For the token in an `Authorization` header, the lookup by bytes has already failed.
                let may_be_at_hand = found.by_cookie || !parts.headers.contains_key(AUTHORIZATION);
                gate.checker.check(Check { credential, may_be_at_hand, taken: Some(&taken) }, shown, observer)?
            }
        };
        let proof = gate.device_proved(|| shown_device(&parts.headers), &verified);
        let proof = self.proved(proof.and_then(|()| gate.possession(parts, found.scheme, verified.token())))?;
        if O::HAS_EFFECTS {
            verified.confirm(gate.engine.confirmations());
        }
        Ok(CheckedCaller { verified, first_sight, proof })
    }

    /// Performs step 7: authorises the caller.
    fn authorise(&mut self, checked: CheckedCaller) -> Result<Permitted, Denial> {
        let CheckedCaller { verified, first_sight, proof } = checked;
        let authorised = policy::authorise(self.route, verified, self.by, self.observer)
            .and_then(|permitted| self.further_judged(permitted));
        // The gate verified a token that it cannot accept, unless a `require()` behind the layer requires this
        // audience. A limit counts such verifications. It counts each token only once, because later requests find the
        // token in the cache.
        if let (Some(address), Err(Denial::WrongAudience), false) = (first_sight, &authorised, self.by.defers)
            && O::HAS_EFFECTS
        {
            self.gate.engine.limits().record_refused(address);
        }
        let permitted = authorised?;
        // The proof is marked as used only after all other checks, so that a request that is refused for another reason
        // does not use up the proof.
        let used = self.use_proof(proof.as_ref())?;
        Ok(permitted.proved_by(used))
    }

    fn authorise_again(&mut self, verified: Arc<Verified>) -> Result<Permitted, Denial> {
        let permitted = policy::authorise_again(self.route, verified, self.by, self.observer)?;
        self.further_judged(permitted)
    }

    /// Returns the permit if the caller meets the conditions of the route and has logged in as the route requires. The
    /// login is checked for each request, because the age of the login grows.
    fn further_judged(&mut self, permitted: Permitted) -> Result<Permitted, Denial> {
        let policy = &self.route.policy;
        let Some(caller) = permitted.caller() else { return Ok(permitted) };
        policy::judge_conditions(self.route, caller, self.path, self.observer)?;
        if policy.step_up.is_some() {
            let now = self.gate.engine.clock().wall();
            self.observer.judged(Rule::StepUp, policy::judge_step_up(policy, caller.token(), now))?;
        }
        Ok(permitted)
    }

    /// Returns the caller if the token meets the route's whole policy except the audience. Also returns the permit for
    /// the request without a caller.
    pub(super) fn undecided(&mut self) -> Result<(Undecided, Permitted), Denial> {
        let found = self.credential()?.ok_or(Denial::NoCredential)?;
        let CheckedCaller { verified, proof, .. } = self.verify(found)?;
        let caller = self.authorise_again(verified)?;
        let used = self.use_proof(proof.as_ref())?;
        let anonymous = policy::permit_anonymous(self.route, self.by).proved_by(used);
        let caller = caller.caller().ok_or(Denial::NoCredential)?;
        Ok((Undecided::new(Arc::clone(caller), self.by), anonymous))
    }

    /// Marks a proof as used at this gate. With an observer that must not have effects, only checks whether the proof
    /// was used here before.
    fn use_proof(&mut self, proof: Option<&CheckedProof>) -> Result<Option<Box<UsedProof>>, Denial> {
        let Some(proof) = proof else { return Ok(None) };
        let used = if O::HAS_EFFECTS {
            self.gate.use_proof(proof)
        } else {
            self.gate.running.dpop.was_used(proof).map(|()| None)
        };
        self.proved(used)
    }

    /// Returns the result of a proof, or `None` if the proof is invalid but the observer continues.
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

/// Performs step 8: removes credentials and the client's copies of identity headers, then sets the gate's own headers.
///
/// # Errors
/// [`Denial::AssertionUnavailable`]. The errors of [`token_for_service`]. [`Denial::ProofsUnavailable`] if the permit
/// has not been [completed](Inner::completed) yet. After an error the request is unchanged.
pub(in crate::gate) fn prepare(gate: &Arc<Inner>, parts: &mut Parts, permitted: &Permitted) -> Result<(), Denial> {
    let route = permitted.route();
    let policy = &route.policy;
    if permitted.owes_proof() || permitted.owes_count() {
        return Err(Denial::ProofsUnavailable(Duration::from_secs(1)));
    }
    let assertion = assertion_for_service(gate, permitted)?;
    let token = exchange::token_for_upstream(gate, parts, permitted)?;
    gate.strip(|names| names.strip_untrusted(&mut parts.headers, policy));
    gate.withhold_key(parts, policy.credentials.key);
    let places = gate.places(policy);
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

/// Removes the tokens in these places, and the cookies of browser sessions and logins. They are removed whatever the
/// destination of the request is.
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

/// Removes an `X-Forwarded-Host` that names a host which the gate does not serve, because a trusted proxy may pass on a
/// client's header. The upstream then gets the host by which the gate has judged the request.
// Requirement T23.
fn withhold_unserved_host(gate: &Inner, received: &mut HeaderMap) {
    let Some(hosts) = gate.hosts.as_ref().filter(|_| !gate.trusted_proxies.is_empty()) else { return };
    let host = |value: &HeaderValue| Authority::parse(value.to_str().ok()?).map(|named| hosts.admit(named.host()));
    if received.get_all(&headers::FORWARDED_HOST).iter().any(|value| host(value) != Some(true)) {
        received.remove(&headers::FORWARDED_HOST);
    }
}

/// Returns whether the query contains a token, whether or not the route accepts it there.
pub(in crate::gate) fn has_token_in_query(uri: &Uri, places: Places<'_>) -> bool {
    uri.query().is_some_and(|query| without_token(query, places.query).is_some())
}

/// Returns the query without its tokens, or `None` if the query does not contain tokens.
fn without_token(query: &str, parameter: Option<&str>) -> Option<String> {
    let rest = credential::strip_query_token(query);
    let stripped = parameter.and_then(|name| credential::strip_parameter(rest.as_deref().unwrap_or(query), name));
    stripped.or(rest)
}

/// Removes tokens from the query, because they are never forwarded (requirement T2).
fn withhold_query_token(parts: &mut Parts, parameter: Option<&str>) {
    let rest = parts.uri.query().and_then(|query| without_token(query, parameter));
    if let Some(rest) = rest {
        let path = parts.uri.path();
        let target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{rest}") };
        if !set_target(parts, target) {
            // A part of a valid target is also valid, so this cannot fail. If it failed nevertheless, only the path
            // would be forwarded.
            let path = parts.uri.path().to_owned();
            set_target(parts, path);
        }
    }
}

impl Inner {
    /// The places in which a route accepts a token, in addition to `Authorization`.
    pub(in crate::gate) fn places<'a>(&self, policy: &'a RoutePolicy) -> Places<'a> {
        let sources = self.dialect(policy).map(|dialect| dialect.sources()).unwrap_or_default();
        Places {
            query: sources.query,
            cookies: [policy.cookie.as_deref(), sources.cookie],
            dpop: self.dpop().is_some(),
        }
    }

    /// Returns the client's address, which is the peer's address or the address that trusted proxies state. Logs setup
    /// mistakes.
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

    /// Returns the client's address without logging setup mistakes.
    pub(in crate::gate) fn address_of(&self, parts: &Parts) -> Option<IpAddr> {
        let peer = parts.extensions.get::<Peer>()?;
        let trusted: &[_] = if peer.may_forward() { &self.trusted_proxies } else { &[] };
        Some(headers::client_ip(&parts.headers, peer.address(), trusted))
    }
}
