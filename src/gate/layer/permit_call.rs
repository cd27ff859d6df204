//! Authorises a call inside an envelope by the call's own rules.

use std::sync::Arc;

use http::request::Parts;

use super::debt::Receipt;
use super::permit::RoutedRequest;
use crate::dialect::EnclosedCall;
use crate::gate::Inner;
use crate::gate::limits::GovernedCall;
use rotogate_core::denial::{Denial, NotGood};
use rotogate_core::headers::Peer;
use rotogate_core::policy::{self, Due, Owing, Permit};
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::route::{Auth, Match, Route, authority};

/// Authorises the call inside an envelope, in addition to the envelope (requirement T22). The first rule that applies
/// decides:
///
/// 1. a rule that names the call or its controller,
/// 2. the routes of the equivalent requests, which must all permit the call,
/// 3. the rule for all calls, `*`, which never replaces the rule for a path.
///
/// A call is refused if the routes of its paths serve only other methods. A call is also refused if neither a route nor
/// the rule `*` applies. If the call has no equivalent requests and no rule names it, the envelope's route decides.
///
/// # Errors
/// The denial, and the route that refuses.
pub(in crate::gate) fn permit_call(
    gate: &Arc<Inner>,
    parts: &Parts,
    permitted: Permit<Owing>,
    called: &EnclosedCall,
) -> Result<GovernedCall, (Denial, Option<Arc<Route>>)> {
    // The rules may have been replaced since the connection began.
    let successor = gate.successor();
    let gate = successor.as_ref().unwrap_or(gate);
    let host = authority::check(parts).map_err(|denial| (denial, None))?.host();
    let mut rules = Vec::new();
    if let Some(rule) = gate.routes.named_rule(Some(host), &called.name) {
        rules.push((rule, None));
    } else {
        let mut is_elsewhere = false;
        for (method, path) in &called.requests {
            let path = CanonicalPath::parse(path).map_err(|error| (error.into(), None))?;
            match gate.routes.find(Some(host), method, &path) {
                Match::Found(route) => rules.push((route, Some(path.as_str().to_owned()))),
                Match::Ambiguous(route) => return Err((Denial::AmbiguousPath, Some(Arc::clone(route)))),
                Match::MethodNotAllowed(_) => is_elsewhere = true,
                Match::None => {}
            }
        }
        if rules.is_empty() {
            match gate.routes.general_rule(Some(host)) {
                Some(rule) if !is_elsewhere => rules.push((rule, None)),
                None if called.requests.is_empty() => {}
                Some(_) | None => return Err((Denial::NoRoute, None)),
            }
        }
    }
    let limits = gate.limits_of(rules.iter().map(|(rule, _)| &***rule));
    let permitted = rules.into_iter().try_fold(permitted, |permitted, (rule, path)| {
        judge_also(gate, parts, permitted, rule, path.as_deref()).map_err(|denial| (denial, Some(Arc::clone(rule))))
    })?;
    let permitted = if limits.is_empty() { permitted } else { permitted.owing(Due::Count) };
    Ok((permitted, limits))
}

/// Looks for the token where the envelope's route accepts it.
fn judge_also(
    gate: &Arc<Inner>,
    parts: &Parts,
    permitted: Permit<Owing>,
    rule: &Arc<Route>,
    path: Option<&str>,
) -> Result<Permit<Owing>, Denial> {
    if !Peer::is_on(parts.extensions.get(), &rule.listeners) {
        return Err(Denial::NoRoute);
    }
    let caller = match (rule.policy.auth, permitted.caller()) {
        (Auth::None, _) => return Ok(permitted),
        (Auth::Optional | Auth::Required, Some(caller)) => {
            policy::judge(&rule.policy, caller.token())?;
            policy::judge_conditions(rule, caller, path, &mut ())?;
            policy::judge_step_up(&rule.policy, caller.token(), gate.engine.clock().wall())?;
            return Ok(permitted);
        }
        // The envelope's route did not require a token, or treated an invalid token as missing.
        (Auth::Optional | Auth::Required, None) => {
            let places_of = &permitted.route().policy;
            let mut observer = ();
            let request = RoutedRequest::new(gate, parts, rule, permitted.by(), &mut observer);
            // A call does not wait for this: its client tries again.
            let receipt = Receipt::default();
            let request = request.on_path(path).with_places_of(places_of);
            request.with_receipt(Some(&receipt)).caller().map_err(|unpermitted| unpermitted.denial())
        }
    };
    match (caller, rule.policy.auth, rule.policy.ignores_bad_credential) {
        (Ok(Some(caller)), _, _) => Ok(permitted.with_caller_of(caller)),
        (Ok(None), Auth::Required, _) => Err(Denial::NoCredential),
        (Ok(None), Auth::Optional | Auth::None, _) => Ok(permitted),
        (Err(Denial::TwoCredentials), _, _) => Err(Denial::TwoCredentials),
        // An unexamined credential does not count as invalid (requirement R15).
        (Err(denial), Auth::Optional, true) => NotGood::from_denial(denial).map(|_| permitted),
        (Err(denial), _, _) => Err(denial),
    }
}
