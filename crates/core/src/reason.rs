//! The outcome of a request as one word from a fixed list.
//!
//! The word is in the metrics, the access log and `Verdict`. docs/outcomes.md lists every word, and a test compares the
//! list with the code.

use std::fmt;

use crate::denial::{Class, Denial};
use crate::fault::{Error, Fault};
use crate::overload::Refusal;

/// The outcome of a request as one word, for logs and metrics. A reason comes from a [`Denial`], a [`Fault`] or an
/// error of the proxy, or is one of the constants here.
///
/// ```
/// use rotogate::denial::Denial;
/// use rotogate::gate::Reason;
///
/// let reason = Reason::from(Denial::TokenExpired);
/// assert_eq!(reason.word(), "token_expired", "the label of a metric");
/// assert!(reason.is_refusal() && Reason::PASSED.is_served());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    word: &'static str,
    detail: Option<&'static str>,
    kind: ReasonKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReasonKind {
    Served,
    Refused,
    Failed,
}

impl Reason {
    /// The service behind the gate responded, with any status.
    pub const PASSED: Self = Self::new("passed", ReasonKind::Served);
    /// One of the gate's own endpoints handled the request.
    pub const ANSWERED: Self = Self::new("answered", ReasonKind::Served);
    /// A relay's provider refused the request, and the gate forwarded the response.
    pub const PROVIDER_REFUSED: Self = Self::new("provider_refused", ReasonKind::Refused);
    /// The upstream did not accept the token that the provider issued for the caller.
    pub const UPSTREAM_UNAUTHORIZED: Self = Self::new("upstream_unauthorized", ReasonKind::Failed);
    /// The gate itself responded to a CORS preflight.
    pub const PREFLIGHT: Self = Self::new("preflight", ReasonKind::Served);
    /// The host is not served on this connection (421).
    pub const MISDIRECTED: Self = Self::new("misdirected", ReasonKind::Refused);
    /// The request's head is not HTTP, or exceeds a limit.
    pub const BAD_HEAD: Self = Self::new("bad_head", ReasonKind::Refused);
    /// The request body arrived too slowly.
    pub const BODY_TOO_SLOW: Self = Self::new("body_too_slow", ReasonKind::Refused);
    /// The client disconnected before the response.
    pub const CLIENT_GONE: Self = Self::new("client_gone", ReasonKind::Failed);
    /// The code for the request panicked, which is a bug.
    pub const PANIC: Self = Self::new("panic", ReasonKind::Failed);
    /// The gate could not forward a call that was enclosed in another request.
    pub const NOT_FORWARDED: Self = Self::new("not_forwarded", ReasonKind::Failed);
    /// The upstream did not return its list of actions.
    pub const NOT_DESCRIBED: Self = Self::new("not_described", ReasonKind::Failed);

    const fn new(word: &'static str, kind: ReasonKind) -> Self {
        Self { word, detail: None, kind }
    }

    /// The reason for a denial.
    pub const fn denied(denial: &Denial) -> Self {
        let kind = match denial.class() {
            Class::Unavailable(_) => ReasonKind::Failed,
            _ => ReasonKind::Refused,
        };
        Self { word: denial.reason(), detail: denial.detail(), kind }
    }

    /// The reason for a refusal because of overload.
    #[doc(hidden)]
    pub const fn shed(refusal: Refusal) -> Self {
        Self::new(refusal.reason(), ReasonKind::Refused)
    }

    /// The reason for a failure in the gate.
    pub const fn failed(fault: &Fault) -> Self {
        Self::new(fault.reason(), ReasonKind::Failed)
    }

    /// Adds a detail.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_detail(self, detail: &'static str) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// The proxy could not forward the request, or did not get a response. `word` must come from a fixed set.
    pub const fn of_proxy(word: &'static str, detail: Option<&'static str>) -> Self {
        Self { word, detail, kind: ReasonKind::Failed }
    }

    /// The outcome as one word.
    pub const fn word(self) -> &'static str {
        self.word
    }

    /// The claim, deadline or part of the request that caused the outcome.
    pub const fn detail(self) -> Option<&'static str> {
        self.detail
    }

    /// Returns whether a rule refused the request.
    pub const fn is_refusal(self) -> bool {
        matches!(self.kind, ReasonKind::Refused)
    }

    /// Returns whether the request was served.
    pub const fn is_served(self) -> bool {
        matches!(self.kind, ReasonKind::Served)
    }

    /// Logs a refusal or failure as one event. Call this once per request.
    pub fn tell(self) {
        match self.kind {
            ReasonKind::Refused => {
                tracing::debug!(target: "rotogate::denial", reason = self.word, detail = self.detail, "refused");
            }
            ReasonKind::Failed => {
                tracing::debug!(target: "rotogate::denial", reason = self.word, detail = self.detail, "failed");
            }
            ReasonKind::Served => {}
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word)
    }
}

crate::debug_with!(Reason, |it, f| f.write_str(it.word));

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
        let page = include_str!("../../../docs/outcomes.md");
        let mut all = words(include_str!("reason.rs"), "Self::new(\"");
        all.append(&mut words(include_str!("denial/table.rs"), "=> \""));
        all.append(&mut words(include_str!("denial/proof.rs"), "=> \""));
        all.append(&mut words(include_str!("fault.rs"), "=> \""));
        all.append(&mut words(include_str!("../../proxy/src/error.rs"), "=> \""));
        all.append(&mut words(include_str!("overload/mod.rs"), "=> \""));
        assert!(all.len() > 60, "{all:?}");
        let missing: Vec<_> = all.iter().filter(|word| !page.contains(&format!("| `{word}` |"))).collect();
        assert!(missing.is_empty(), "docs/outcomes.md does not explain these outcomes: {missing:?}");
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
