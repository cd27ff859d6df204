//! Predicts, for an explanation, how an endpoint decides on a request's head.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::request::Parts;
use secrecy::ExposeSecret;

use super::answer::EndpointRequest;
use super::execute::{EndpointCommand, accounts};
use super::table::Ready;
use super::{Hit, MatchedOperation, browser};
use crate::dialect::{OwnAccess, Reply};
use crate::gate::Inner;
use rotogate_core::client::Grant;
use rotogate_core::credential::Credential;
use rotogate_core::denial::Denial;
use rotogate_core::engine::{AccountRule, Origin, RefreshTerms};
use rotogate_core::route::RoutePolicy;
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::rule::Rule;
use rotogate_core::session::Session;
use rotogate_core::token::claims::OfAccount;
use rotogate_core::token::observer::Observer;
use rotogate_core::token::session_cookie;
use rotogate_core::verify_cache::SessionAnswer;

pub(in crate::gate) struct Foreseen {
    pub(in crate::gate) refusal: Option<Reply>,
    pub(in crate::gate) is_open: bool,
    pub(in crate::gate) policy: Option<RoutePolicy>,
}

/// Predicts the decision of [`answer`](super::answer()). `first` records a denial in the observer, and returns the
/// first recorded denial.
pub(in crate::gate) fn foresee<O: Observer>(
    gate: &Arc<Inner>,
    operation: &MatchedOperation,
    parts: &Parts,
    observer: &mut O,
    first: impl FnOnce(&mut O, Option<Denial>) -> Option<Denial>,
) -> Foreseen {
    let mut foreseen = Foreseen { refusal: None, is_open: true, policy: None };
    let Some(endpoint) = gate.endpoints.get(operation.endpoint) else { return foreseen };
    let (address, arrived) = (gate.address_of(parts), gate.engine.arrival());
    let request = EndpointRequest { gate, endpoint, operation, parts, address, arrived };
    let empty = Bytes::new();
    let call = request.call(&empty, false);
    let own = endpoint.dialect.protocol().and_then(|protocol| protocol.own_access(&call));
    if let Some(reply) = request.refused_method() {
        foreseen.refusal = first(observer, Some(Denial::MethodNotAllowed)).map(|_| reply);
        return foreseen;
    }
    let judged = request.foresee_origin().and_then(|()| match &own {
        Some(own) => request.foresee_own(own, call.account(), observer),
        None => Ok(()),
    });
    let denial = first(observer, judged.err());
    foreseen.refusal = denial.map(|denial| endpoint.dialect.write(&call, Err(denial.into())));
    foreseen.is_open = own.is_none() || parts.method != Method::GET;
    foreseen.policy = own.map(|own| own.policy);
    foreseen
}

impl EndpointRequest<'_> {
    fn foresee_origin(&self) -> Result<(), Denial> {
        if let Some(browser) = &self.endpoint.browser {
            browser::foresee(self.gate, browser, self.operation.name(), self.parts)?;
        }
        if self.is_by_foreign_cookie() { Err(Denial::CrossOrigin) } else { Ok(()) }
    }

    fn foresee_own<O: Observer>(&self, own: &OwnAccess, account: Option<&str>, observer: &mut O) -> Result<(), Denial> {
        let Self { gate, endpoint, parts, address, .. } = *self;
        let presented = own.presented.as_ref().map_err(|denial| *denial);
        let access = observer.read(Rule::Credential, presented)?.expose_secret();
        let by_cookie = gate.browser.is_some() && access.starts_with(session_cookie::PREFIX);
        let verified = if by_cookie {
            let answer = parts.extensions.get::<SessionAnswer>();
            let miss = || gate.session_miss(address, answer);
            let verified = gate.checker.check_session(access.as_bytes(), miss, observer)?;
            let device = gate.presented_device(&parts.headers);
            observer.judged(Rule::Proof, gate.device_proved(|| device.cookie(), &verified))?;
            verified
        } else {
            gate.checker.check(Credential::new(access), || gate.shown(address), observer)?
        };
        let (token, origin) = (verified.token(), Origin::default());
        let command = EndpointCommand { gate, endpoint, origin: &origin, account: accounts(endpoint, account).1 };
        observer.judged(Rule::Audience, command.concerns(token).map(drop))?;
        let caller = observer.read(Rule::Issuer, AccountRule::Any.admit(token).and_then(OfAccount::own))?;
        let (since, max_age) = match (by_cookie, token.session) {
            (true, session) => (session.map(|(session, _)| session.created()), own.max_login_age),
            (false, _) => (token.issued_at, own.max_age),
        };
        let oldest = max_age.map(|age| (since, age));
        observer.judged(Rule::Scope, gate.engine.foresee_own(caller, &own.policy.scopes, oldest))
    }
}

pub(in crate::gate) struct RefreshPlace<'a> {
    endpoint: &'a Ready,
    operation: MatchedOperation,
    parts: &'a Parts,
}

impl<'a> RefreshPlace<'a> {
    pub(in crate::gate) fn find(gate: &'a Inner, parts: &'a Parts) -> Option<Self> {
        let raw = parts.uri.path();
        let Hit::Operation(operation) = gate.endpoints.find(&CanonicalPath::parse(raw).ok()?, raw)? else {
            return None;
        };
        let endpoint = gate.endpoints.get(operation.endpoint)?;
        // A relay accepts tokens of its provider, not of the gate.
        let takes = ["token", "RefreshAccessToken"].contains(&operation.name()) && endpoint.dialect.name() != "relay";
        takes.then_some(Self { endpoint, operation, parts })
    }

    pub(in crate::gate) fn name(&self) -> String {
        format!("{}.{}", self.endpoint.dialect.name(), self.operation.name())
    }

    /// By default, `client` is the session's client.
    pub(in crate::gate) fn terms_of(
        &self,
        gate: &Inner,
        session: &Session,
        client: Option<&str>,
    ) -> Result<RefreshTerms<'_>, Denial> {
        let endpoint = self.endpoint;
        let own = endpoint.client.as_ref().map(Arc::clone);
        let known = own.or_else(|| gate.clients.get(client.unwrap_or(&session.client)));
        let client = known.ok_or(Denial::InvalidClient)?;
        let is_served = endpoint.clients.as_ref().is_none_or(|allowed| allowed.contains(&client.id));
        if !is_served || !client.may(Grant::RefreshToken) {
            return Err(Denial::UnauthorizedClient);
        }
        let named = self.operation.params.iter().find(|(name, _)| name == "account");
        let (_, account) = accounts(endpoint, named.map(|(_, account)| account.as_str()));
        let profile = client.profile.over(&endpoint.profile);
        Ok(RefreshTerms { client, profile, accepts: Some(&endpoint.accepts), account })
    }

    pub(in crate::gate) fn names_client(&self) -> bool {
        self.endpoint.client.is_none()
    }

    pub(in crate::gate) fn status_of(&self, gate: &Arc<Inner>, denial: Denial) -> u16 {
        let Self { endpoint, ref operation, parts } = *self;
        let (address, arrived) = (gate.address_of(parts), gate.engine.arrival());
        let request = EndpointRequest { gate, endpoint, operation, parts, address, arrived };
        let empty = Bytes::new();
        endpoint.dialect.write(&request.call(&empty, false), Err(denial.into())).status().as_u16()
    }
}
