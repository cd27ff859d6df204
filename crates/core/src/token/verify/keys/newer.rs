//! Handling of tokens whose key may be newer than the fetched set.

use super::{Arc, Denial, Duration, IssuerRules, Keys, LiveKeys, Timestamp, TokenRefusal};

#[derive(Clone, Copy)]
pub(in crate::token::verify) struct NewerKeys<'a> {
    pub(in crate::token::verify) keys: &'a Keys,
    pub(in crate::token::verify) leeway: Duration,
    pub(in crate::token::verify) engine_now: Timestamp,
    /// The unverified `iat` of the token.
    pub(in crate::token::verify) issued_at: Option<Timestamp>,
    pub(in crate::token::verify) has_effects: bool,
}

impl<'a> NewerKeys<'a> {
    pub(in crate::token::verify) fn for_issuer(
        rules: &'a IssuerRules,
        engine_now: Timestamp,
        issued_at: Option<Timestamp>,
        has_effects: bool,
    ) -> Self {
        Self { keys: &rules.keys, leeway: rules.leeway, engine_now, issued_at, has_effects }
    }

    pub(in crate::token::verify) fn missing(self) -> Denial {
        let missing = if self.has_effects { LiveKeys::missing } else { LiveKeys::foresee_missing };
        let keys = self.keys.live();
        keys.map_or(Denial::UnknownKey, |keys| missing(keys, self.engine_now, self.issued_at, self.leeway))
    }

    /// Returns the refusal of a token whose signature does not match the key named by `kid`. The issuer may have
    /// replaced the key under the same `kid`.
    // Requirements I1, I51.
    pub(in crate::token::verify) fn mistaken(self, otherwise: Denial, tried: usize) -> TokenRefusal {
        let judged =
            |keys: &Arc<LiveKeys>| keys.mistaken(self.engine_now, self.issued_at, self.leeway, self.has_effects);
        match self.keys.live().and_then(judged) {
            None => TokenRefusal::Forged(otherwise, tried),
            Some((unavailable, true)) => TokenRefusal::Undecided(unavailable, tried),
            Some((unavailable, false)) => TokenRefusal::Forged(unavailable, tried),
        }
    }
}
