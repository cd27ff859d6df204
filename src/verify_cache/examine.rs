//! What each rule says of a token that a request brings: for an explanation.

use std::sync::Arc;

use super::TokenChecker;
use super::key_set::AskedAbout;
use super::verified::facts;
use crate::denial::Denial;
use crate::effects::WithoutEffects;
use crate::session::rotation::REVOKED;
use crate::token::claims::AccessToken;
use crate::token::verify::{Examined, IssuerRules};

/// A token whose issuer decides about it.
pub(crate) struct ExaminedOpaque {
    /// The name of the issuer.
    pub(crate) issuer: Arc<str>,
    /// What the issuer said of it, if it was asked and its answer counts.
    pub(crate) token: Option<AccessToken>,
}

impl TokenChecker {
    /// Examines a token. See [`Verifier::examine`](crate::token::verify::Verifier::examine).
    ///
    /// # Errors
    /// It has not the form of a token.
    pub(crate) fn examine(&self, token: &str) -> Result<Examined, Denial> {
        self.keys.load().verifier.examine(token, self.clock.now(), self.clock.wall())
    }

    /// A token about which an issuer is asked; `None` for any other.
    pub(crate) fn examine_opaque(&self, token: &str, taken: impl Fn(&IssuerRules) -> bool) -> Option<ExaminedOpaque> {
        let keys = self.keys.load();
        let tokens = keys.introspecting(token, AskedAbout::All, taken)?;
        let known = tokens.known::<WithoutEffects>(token).and_then(Result::ok);
        let token = known.map(|verified| verified.token.clone());
        Some(ExaminedOpaque { issuer: Arc::clone(&tokens.rules().name), token })
    }

    /// Is a token with these claims revoked?
    ///
    /// # Errors
    /// It is, or the revocations of other gates are not known; and what refuses it.
    pub(crate) fn examine_revocation(&self, token: &AccessToken) -> Result<(), (Denial, &'static str)> {
        let now = self.clock.now();
        let unheard = "the revocations of other gates were not heard of for too long";
        self.heard_of_revocations(now).map_err(|denial| (denial, unheard))?;
        let facts = facts(token);
        let list = &self.revocations;
        if !list.judge(facts, now).refuses(now) {
            return Ok(());
        }
        let begun = facts.session.map_or(facts.issued_at, |(id, _)| Some(id.created()));
        let is_before = |at| begun.is_none_or(|begun| begun <= at);
        let by = match facts.session {
            Some((id, _)) if list.minimum(id) == REVOKED => "its session has ended",
            _ if is_before(list.not_before(facts.issuer, "", None)) => "everything up to a moment after it was revoked",
            _ if is_before(list.not_before(facts.issuer, facts.subject, None)) => {
                "everything of its subject was revoked"
            }
            _ if is_before(list.not_before(facts.issuer, "", facts.client)) => "everything of its client was revoked",
            Some(_) => "a later generation of its session ended this one",
            None => "it was revoked itself",
        };
        Err((Denial::TokenRevoked, by))
    }
}
