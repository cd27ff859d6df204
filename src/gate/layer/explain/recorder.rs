use rotogate_core::denial::Denial;
use rotogate_core::rule::Rule;
use rotogate_core::token::claims::AccessToken;
use rotogate_core::token::observer::Observer;

/// Records the result of each rule, and continues after a refusal.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) refusal: Option<Denial>,
    pub(super) token: Option<AccessToken>,
    rules: Vec<(Rule, Result<(), Denial>)>,
}

impl Recorder {
    /// Returns `None` if the rule was not evaluated. If the rule has several parts, returns the first refusal.
    pub(super) fn said(&self, rule: Rule) -> Option<Result<(), Denial>> {
        let mut all = self.rules.iter().filter(|(judged, _)| *judged == rule).map(|(_, said)| *said);
        all.clone().find(Result::is_err).or_else(|| all.next())
    }

    pub(super) fn refused(&mut self, denial: Denial) -> Denial {
        self.rules.push((denial.rule(), Err(denial)));
        *self.refusal.get_or_insert(denial)
    }

    /// Returns whether the issuer's key or the issuer itself has confirmed the token.
    pub(super) fn is_proved(&self) -> bool {
        self.said(Rule::Signature) == Some(Ok(()))
    }
}

impl Observer for Recorder {
    const HAS_EFFECTS: bool = false;

    fn judged(&mut self, rule: Rule, judged: Result<(), Denial>) -> Result<(), Denial> {
        let rule = judged.map_or_else(|denial: Denial| denial.rule(), |()| rule);
        self.rules.push((rule, judged));
        self.refusal = self.refusal.or(judged.err());
        Ok(())
    }

    fn token(&mut self, token: &AccessToken) {
        self.token = Some(token.clone());
    }

    fn attempt<T, E: From<Denial>>(&mut self, judge: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        let before = self.refusal.take();
        let judged = judge(self);
        let refusal = std::mem::replace(&mut self.refusal, before);
        refusal.map_or(judged, |denial| Err(denial.into()))
    }
}
