use http::{HeaderName, HeaderValue};

use crate::gate::Inner;
use rotogate_core::denial::Denial;
use rotogate_core::policy::Permitted;

/// Returns `None` if the request has no caller, or if the route does not send an assertion.
///
/// # Errors
/// [`Denial::AssertionUnavailable`].
pub(super) fn assertion_for_service(
    gate: &Inner,
    permitted: &Permitted,
) -> Result<Option<(HeaderName, HeaderValue)>, Denial> {
    let (Some(caller), Some(audience)) = (permitted.caller(), &permitted.route().assertion_audience) else {
        return Ok(None);
    };
    Ok(caller.assertion(&gate.engine, audience)?.map(|(name, value)| (name.clone(), value)))
}
