//! The steps of a decision: credential and permission, and what the service is told.

use std::sync::Arc;

use http::Uri;
use http::request::Parts;
use http::uri::PathAndQuery;

use crate::credential::{self, Credential};
use crate::denial::Denial;
use crate::gate::Inner;
use crate::headers;
use crate::policy::{self, Permitted};
use crate::route::{Auth, BadCredential, Route};

/// Credential, verification, authorisation: each needs what the one before it made.
pub(in crate::gate) fn permit(gate: &Inner, parts: &Parts, route: &Arc<Route>) -> Result<Permitted, Denial> {
    match (route.policy.auth, route.policy.bad_credential_on_optional) {
        // Nobody is asked; still no request passes with two Authorization headers, for the upstream to choose from.
        (Auth::None, _) => credential::at_most_one(&parts.headers).map(|()| policy::permit_anonymous(route)),
        (Auth::Required, _) => permit_caller(gate, parts, route)?.ok_or(Denial::NoCredential),
        (Auth::Optional, BadCredential::Refuse) => {
            Ok(permit_caller(gate, parts, route)?.unwrap_or_else(|| policy::permit_anonymous(route)))
        }
        (Auth::Optional, BadCredential::Anonymous) => {
            credential::at_most_one(&parts.headers)?;
            match permit_caller(gate, parts, route) {
                Ok(Some(caller)) => Ok(caller),
                // Two credentials are never a mistake to look over.
                Err(Denial::TwoCredentials) => Err(Denial::TwoCredentials),
                Ok(None) | Err(_) => Ok(policy::permit_anonymous(route)),
            }
        }
    }
}

/// `None` where no credential was sent.
fn permit_caller(gate: &Inner, parts: &Parts, route: &Arc<Route>) -> Result<Option<Permitted>, Denial> {
    let places = gate.places(&route.policy);
    let Some(found) = credential::extract_from(&parts.headers, parts.uri.query(), places)? else { return Ok(None) };
    // Before the token is looked at: whoever cannot send the request learns nothing, and its use confirms nothing.
    if found.by_cookie && !gate.origins.admit(parts, &route.policy) {
        return Err(Denial::CrossOrigin);
    }
    let mut first_sight = None;
    let shown = || gate.shown(*first_sight.insert(gate.client_address(parts)));
    let verified = gate.checker.check(Credential::new(&found.token), shown)?;
    let authorised = policy::authorise(route, verified, &gate.audiences);
    // It was verified in vain. Shown again it costs nothing.
    if let (Some(address), Err(Denial::WrongAudience)) = (first_sight, &authorised) {
        gate.engine.limits().refused(address);
    }
    authorised.map(Some)
}

/// Makes a permitted request ready for the service: nothing that a client said of identities, then what the gate knows.
pub(in crate::gate) fn prepare(gate: &Inner, parts: &mut Parts, permitted: &Permitted) {
    let policy = &permitted.route().policy;
    gate.protected.strip_untrusted(&mut parts.headers, policy);
    headers::strip_credentials(&mut parts.headers, policy);
    let places = gate.places(policy);
    for cookie in places.cookies.into_iter().flatten() {
        credential::remove_cookie(&mut parts.headers, cookie);
    }
    withhold_query_token(parts, places.query);
    if let Some(caller) = permitted.caller() {
        for (name, value) in caller.headers() {
            parts.headers.insert(name.clone(), value.clone());
        }
    }
}

/// A token in the query is nobody's credential, and goes nowhere (requirement T2).
fn withhold_query_token(parts: &mut Parts, parameter: Option<&str>) {
    let Some(query) = parts.uri.query() else { return };
    let mut rest = credential::strip_query_token(query);
    if let Some(stripped) =
        parameter.and_then(|name| credential::strip_parameter(rest.as_deref().unwrap_or(query), name))
    {
        rest = Some(stripped);
    }
    if let Some(rest) = rest {
        let path = parts.uri.path();
        let target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{rest}") };
        if !set_target(parts, target) {
            // Cannot happen to a part of a good target; if it does, the path alone is forwarded.
            let path = parts.uri.path().to_owned();
            set_target(parts, path);
        }
    }
}

/// Puts the canonical path into the request, its query untouched.
pub(super) fn set_path(parts: &mut Parts, path: &str) -> bool {
    let whole = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    set_target(parts, whole)
}

pub(in crate::gate) fn set_target(parts: &mut Parts, target: String) -> bool {
    let Ok(target) = PathAndQuery::try_from(target) else { return false };
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = Some(target);
    match Uri::from_parts(uri) {
        Ok(uri) => {
            parts.uri = uri;
            true
        }
        Err(_) => false,
    }
}
