//! Requests wait here for an introspection, and get its outcome.

use std::sync::Arc;

use super::{IntrospectedTokens, Outcome, unavailable};
use crate::denial::{Denial, NotGood};
use crate::flight::Flight;
use crate::limit::{Limits, Source, Vain};

/// Waits for the introspection of a request's token.
pub struct IntrospectionWait {
    pub(super) issuer: Arc<str>,
    pub(super) token: Arc<str>,
    /// The running introspection, or `None` if it has finished in the meantime.
    pub(super) flight: Option<Flight<Outcome>>,
}

/// The outcome of an introspection, for the request that waited for it.
#[derive(Clone)]
pub struct Introspected {
    issuer: Arc<str>,
    token: Arc<str>,
    outcome: Outcome,
}

impl IntrospectionWait {
    /// Waits for the outcome. Returns `None` if the outcome is in the cache.
    pub async fn ended(self) -> Option<Introspected> {
        let outcome = self.flight?.outcome().await.unwrap_or_else(|| Err(unavailable(None)));
        Some(Introspected { issuer: self.issuer, token: self.token, outcome })
    }
}

impl Introspected {
    /// Returns the outcome if it belongs to this token of this issuer.
    pub(in crate::verify_cache) fn about(&self, tokens: &IntrospectedTokens, token: &str) -> Option<Outcome> {
        let is_it = *self.issuer == *tokens.rules().issuer && *self.token == *token;
        is_it.then(|| self.outcome.clone())
    }

    /// Records the outcome for the rate limits of the token's source.
    pub fn record(&self, limits: &Limits, source: Source<'_>) {
        let in_vain = |vain| limits.record(vain, source, Vain::cost(&self.token, 1));
        match &self.outcome {
            Ok(_) => limits.record_valid(source),
            Err(Denial::TokenInactive) => in_vain(Vain::Forged),
            Err(denial) if NotGood::from_denial(*denial).is_ok() => in_vain(Vain::Refused),
            Err(_) => {}
        }
    }
}
