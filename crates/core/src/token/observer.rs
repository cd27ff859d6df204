//! Observers of the rules that a request must pass. Requests and explanations run through the same code. A request
//! passes `()`, which compiles to nothing. An explanation passes a recorder.

use crate::denial::Denial;
use crate::rule::Rule;
use crate::token::claims::AccessToken;

/// Receives the result of each rule, and decides whether the check continues after a refusal.
pub trait Observer {
    /// Whether the check has effects. If false, it does not count, note, cache, fetch or log anything.
    const HAS_EFFECTS: bool;

    /// Receives the result of a rule.
    ///
    /// # Errors
    /// The refusal, if it ends the check. Only an observer without effects may return `Ok` for a refusal, and the
    /// request is then not admitted.
    fn judged(&mut self, rule: Rule, judged: Result<(), Denial>) -> Result<(), Denial>;

    /// Reports a rule whose value is needed by later rules. A refusal ends the check.
    ///
    /// # Errors
    /// The refusal.
    #[inline(always)]
    fn read<T>(&mut self, rule: Rule, read: Result<T, Denial>) -> Result<T, Denial> {
        let judged = read.as_ref().map(drop).map_err(|denial| *denial);
        self.judged(rule, judged).and(read)
    }

    /// Receives the claims of a token. Not called if the check ended because the token was refused.
    fn token(&mut self, token: &AccessToken);

    /// Judges a credential that a route may ignore. If the credential is refused, the caller decides whether to refuse
    /// the request. To refuse it, the caller returns the refusal.
    ///
    /// # Errors
    /// The refusal.
    fn attempt<T>(&mut self, judge: impl FnOnce(&mut Self) -> Result<T, Denial>) -> Result<T, Denial>;
}

/// The observer of requests, which ignores the results.
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
    fn attempt<T>(&mut self, judge: impl FnOnce(&mut Self) -> Result<T, Denial>) -> Result<T, Denial> {
        judge(self)
    }
}
