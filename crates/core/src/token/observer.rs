//! Observers of the rules of a request. Requests and explanations take the same path: a request passes `()`, which
//! compiles to nothing, and an explanation passes a recorder.

use crate::denial::Denial;
use crate::rule::Rule;
use crate::token::claims::AccessToken;

/// Receives the result of each rule, and decides whether the path continues after a refusal.
pub trait Observer {
    /// Whether the path has effects. Without effects it counts, notes, caches, fetches and logs nothing.
    const HAS_EFFECTS: bool;

    /// A rule was judged.
    ///
    /// # Errors
    /// The refusal, if it ends the path. An observer that returns `Ok` for a refusal must be one without effects, and
    /// the request is not admitted.
    fn judged(&mut self, rule: Rule, judged: Result<(), Denial>) -> Result<(), Denial>;

    /// Reports a rule whose value later rules need: a refusal ends the path.
    ///
    /// # Errors
    /// The refusal.
    #[inline(always)]
    fn read<T>(&mut self, rule: Rule, read: Result<T, Denial>) -> Result<T, Denial> {
        let judged = read.as_ref().map(drop).map_err(|denial| *denial);
        self.judged(rule, judged).and(read)
    }

    /// Receives the claims of a token, unless its refusal has ended the path.
    fn token(&mut self, token: &AccessToken);

    /// Judges a credential that a route may ignore. A refusal counts only if the caller returns it.
    ///
    /// # Errors
    /// The refusal.
    fn attempt<T>(&mut self, judge: impl FnOnce(&mut Self) -> Result<T, Denial>) -> Result<T, Denial>;
}

/// The observer of requests, which does nothing.
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
