//! The proof of the caller for the service behind the gate.

use http::{HeaderName, HeaderValue};

use crate::gate::Inner;
use rotogate_core::denial::Denial;
use rotogate_core::policy::Permitted;

/// The header for the service of this route; `None` without a caller, and if the route sends no assertion.
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
