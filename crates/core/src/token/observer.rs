//! Observers of request checks.
//!
//! Requests and explanations run the same code. A request passes `()`, and an explanation passes a recorder.

use crate::denial::Denial;
use crate::rule::Rule;
use crate::token::claims::AccessToken;

/// Receives each rule's result, and decides whether the check continues after a refusal.
pub trait Observer {
    /// Whether the check may count, record, cache, fetch and log.
    const HAS_EFFECTS: bool;

    /// Receives the result of a rule.
    ///
    /// # Errors
    /// The refusal, if it ends the check. Only an observer without effects may return `Ok` for a refusal, and the
    /// request is then not admitted.
    fn judged(&mut self, rule: Rule, judged: Result<(), Denial>) -> Result<(), Denial>;

    /// Reports the result of a rule whose value later rules need. A refusal ends the check.
    ///
    /// # Errors
    /// The refusal.
    #[inline(always)]
    fn read<T>(&mut self, rule: Rule, read: Result<T, Denial>) -> Result<T, Denial> {
        let judged = read.as_ref().map(drop).map_err(|denial| *denial);
        self.judged(rule, judged).and(read)
    }

    /// Receives the claims of a token, unless a refusal ended the check.
    fn token(&mut self, token: &AccessToken);

    /// Checks a credential. The caller decides whether a refusal rejects the request.
    ///
    /// # Errors
    /// The refusal.
    fn attempt<T, E: From<Denial>>(&mut self, judge: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E>;
}

impl Observer for () {
    const HAS_EFFECTS: bool = true;

    #[inline(always)]
    fn judged(&mut self, _: Rule, judged: Result<(), Denial>) -> Result<(), Denial> {
        judged
    }

    #[inline(always)]
    fn read<T>(&mut self, _: Rule, read: Result<T, Denial>) -> Result<T, Denial> {
        read
    }

    #[inline(always)]
    fn token(&mut self, _: &AccessToken) {}

    #[inline(always)]
    fn attempt<T, E: From<Denial>>(&mut self, judge: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        judge(self)
    }
}
