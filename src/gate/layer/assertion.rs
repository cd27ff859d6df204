//! The proof of the caller for the service behind the gate: an assertion, or a transaction token.

use http::request::Parts;
use http::{HeaderName, HeaderValue};

use crate::gate::Inner;
use rotogate_core::denial::Denial;
use rotogate_core::policy::Permitted;

use rotogate_core::token::assertion::{TRANSACTION_HEADER, Transaction, TransactionContext, TransactionRequest};

/// The header for the service of this route; `None` without a caller, and if the route sends no assertion.
///
/// # Errors
/// [`Denial::AssertionUnavailable`].
pub(super) fn assertion_for_service(
    gate: &Inner,
    parts: &Parts,
    permitted: &Permitted,
) -> Result<Option<(HeaderName, HeaderValue)>, Denial> {
    let route = permitted.route();
    let (Some(caller), Some(audience)) = (permitted.caller(), &route.assertion_audience) else { return Ok(None) };
    match route.transaction_tokens {
        false => Ok(caller.assertion(&gate.engine, audience)?.map(|(name, value)| (name.clone(), value))),
        true => {
            let about = Transaction {
                domain: audience,
                context: Some(TransactionContext::Request(TransactionRequest {
                    method: parts.method.as_str(),
                    route: &route.id,
                    params: route.params(parts.uri.path()).collect(),
                })),
                workload: None,
                scope: route.policy.needed_of(&caller.token().scope),
                client: gate.client_address(parts),
            };
            Ok(Some((TRANSACTION_HEADER, caller.transaction(&gate.engine, &about)?)))
        }
    }
}
