//! How a request ended, in one word of a closed set. It is the label `outcome` of the metrics, `rotogate.outcome` of the
//! access log, and what an embedding application finds in a [`Verdict`](crate::gate::Verdict). docs/logs.md lists every
//! word with its meaning; a test compares the two.

use std::fmt;

use crate::denial::Denial;
use crate::fault::{Error, Fault};
use crate::overload::Refusal;

/// See the module. A reason is made from a [`Denial`], a [`Fault`] or an error of the proxy, or is one of the constants
/// here: no part of the program makes up a word of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    word: &'static str,
    detail: Option<&'static str>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It got what it asked for.
    Served,
    /// A rule refused it.
    Refused,
    /// Something failed, on our side or beyond.
    Failed,
}

impl Reason {
    /// The service behind the gate answered, whatever it said.
    pub const PASSED: Self = Self::new("passed", Kind::Served);
    /// One of the gate's own endpoints did what it was asked.
    pub const ANSWERED: Self = Self::new("answered", Kind::Served);
    /// A CORS preflight, answered by the gate.
    pub const PREFLIGHT: Self = Self::new("preflight", Kind::Served);
    /// The host is served on a connection of its own (421).
    pub const MISDIRECTED: Self = Self::new("misdirected", Kind::Refused);
    /// The body of the request came more slowly than it may.
    pub const BODY_TOO_SLOW: Self = Self::new("body_too_slow", Kind::Refused);
    /// The client was gone before there was an answer.
    pub const CLIENT_GONE: Self = Self::new("client_gone", Kind::Failed);
    /// The request panicked: a bug.
    pub const PANIC: Self = Self::new("panic", Kind::Failed);
    /// A call that came wrapped up could not be passed on.
    pub const NOT_FORWARDED: Self = Self::new("not_forwarded", Kind::Failed);
    /// The upstream did not say which actions it has.
    pub const NOT_DESCRIBED: Self = Self::new("not_described", Kind::Failed);

    const fn new(word: &'static str, kind: Kind) -> Self {
        Self { word, detail: None, kind }
    }

    /// A rule refused it.
    pub const fn denied(denial: &Denial) -> Self {
        Self { word: denial.reason(), detail: denial.detail(), kind: Kind::Refused }
    }

    /// It was not borne.
    pub(crate) const fn shed(refusal: Refusal) -> Self {
        Self::new(refusal.reason(), Kind::Refused)
    }

    /// A part of the gate failed.
    pub const fn failed(fault: &Fault) -> Self {
        Self::new(fault.reason(), Kind::Failed)
    }

    /// The proxy did not forward the request, or got no response. The words are those of the proxy's own closed set.
    pub const fn of_proxy(word: &'static str, detail: Option<&'static str>) -> Self {
        Self { word, detail, kind: Kind::Failed }
    }

    /// The word.
    pub const fn word(self) -> &'static str {
        self.word
    }

    /// Which claim, which part of the request, which deadline: from fixed texts.
    pub const fn detail(self) -> Option<&'static str> {
        self.detail
    }

    /// Did a rule refuse the request?
    pub const fn is_refusal(self) -> bool {
        matches!(self.kind, Kind::Refused)
    }

    /// Was the request served: passed on, or answered as it asked?
    pub const fn is_served(self) -> bool {
        matches!(self.kind, Kind::Served)
    }

    /// The one event of a refusal. Whoever decides that a request is refused calls it, once.
    pub fn tell(self) {
        if self.is_refusal() {
            tracing::debug!(target: "rotogate::denial", reason = self.word, detail = self.detail, "refused");
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word)
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word)
    }
}

impl From<Denial> for Reason {
    fn from(denial: Denial) -> Self {
        Self::denied(&denial)
    }
}

impl From<&Error> for Reason {
    fn from(error: &Error) -> Self {
        match error {
            Error::Denied(denial) => Self::denied(denial),
            Error::Failed(fault) => Self::failed(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The words in the bodies of `fn reason` of a source file, or of the constants here.
    fn words(source: &str, before: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, _) in source.match_indices(before) {
            let rest = &source[at + before.len()..];
            let word: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if rest[word.len()..].starts_with('"') && !word.is_empty() {
                found.insert(word);
            }
        }
        found
    }

    #[test]
    fn o27_every_outcome_has_a_line_in_the_documentation() {
        let page = include_str!("../docs/logs.md");
        let mut all = words(include_str!("reason.rs"), "Self::new(\"");
        all.append(&mut words(include_str!("denial.rs"), "=> \""));
        all.append(&mut words(include_str!("../crates/server/src/proxy/error.rs"), "=> \""));
        all.append(&mut words(include_str!("overload/mod.rs"), "=> \""));
        assert!(all.len() > 60, "{all:?}");
        let missing: Vec<_> = all.iter().filter(|word| !page.contains(&format!("| `{word}` |"))).collect();
        assert!(missing.is_empty(), "docs/logs.md does not explain these outcomes: {missing:?}");
    }

    #[test]
    fn o27_a_refusal_a_failure_and_a_service_are_told_apart() {
        assert!(Reason::PASSED.is_served() && !Reason::PASSED.is_refusal());
        let refused = Reason::from(Denial::BadClaim("no exp"));
        assert!(refused.is_refusal() && !refused.is_served());
        assert_eq!((refused.word(), refused.detail()), ("bad_claim", Some("no exp")));
        assert!(!Reason::PANIC.is_refusal() && !Reason::PANIC.is_served());
    }
}
