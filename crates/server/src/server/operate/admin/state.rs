//! The health of the gate, for the page, `/readyz`, `/v1/status` and `/v1/explain`.

use std::time::Duration;

use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};

use super::history::Totals;
use super::{AdminState, health, issuers, keys, rfc3339, traffic};
use crate::server::build::files;
use crate::server::build::issuers::IssuerReport;
use crate::server::operate::reload::ReloadSource;

/// With fewer requests per minute, the share of failures is not meaningful.
const MIN_REQUESTS: u64 = 5;
/// The thresholds of the alerts RotogateUpstreamErrors and RotogateCertificateExpires.
pub(super) const MANY_ERRORS: f64 = 0.05;
/// The share of failed or refused requests at which the state becomes failing or refusing.
pub(super) const MOST: f64 = 0.5;
pub(super) const NEARLY_ALL: f64 = 0.9;
const FULL_RELAY: &str = "already keeps the maximum number of responses, so new responses are kept only for `grace`";
const ENDS_SOON: Duration = Duration::from_secs(14 * 86_400);
const ENDS_NOW: Duration = Duration::from_secs(3 * 86_400);

/// The page shows the grade as a color and a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    Good,
    Doubtful,
    Bad,
}

impl Grade {
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Doubtful => "doubtful",
            Self::Bad => "bad",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct GateState {
    pub(super) grade: Grade,
    pub(super) word: &'static str,
    /// The problems, the worst first. Of two equally bad problems, the one that may cause the other is first.
    pub(super) problems: Vec<GateProblem>,
}

/// A problem of the gate.
#[derive(Clone, Debug)]
pub(super) struct GateProblem {
    pub(super) grade: Grade,
    pub(super) what: String,
    pub(super) cause: Cause,
}

/// What a problem is about, by which the page chooses its advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The upstream with this name.
    Upstream(String),
    Readiness,
    Certificate,
    KeySet,
    /// The source of this name, which was not applied.
    Reload(&'static str),
    Relay,
    LogLines,
    /// Responses with a 5xx status, which another problem may cause.
    FailedRequests,
    RefusedRequests,
}

impl GateState {
    /// A gate whose requests fail is not shown as ready (requirement P70).
    pub(super) async fn now(state: &AdminState) -> Self {
        let (is_ready, readiness) = health::readiness(state).await;
        Self::judged(state, is_ready, &readiness)
    }

    pub(super) fn judged(state: &AdminState, is_ready: bool, readiness: &str) -> Self {
        let (work, word) = judge(&state.history.minute());
        let mut problems = Vec::new();
        let mut add = |grade, what, cause| problems.push(GateProblem { grade, what, cause });
        for name in unreachable(state) {
            add(Grade::Bad, no_address(&name), Cause::Upstream(name));
        }
        if !is_ready || readiness != "ready" {
            add(if is_ready { Grade::Doubtful } else { Grade::Bad }, readiness.to_owned(), Cause::Readiness);
        }
        for it in certificates(state).into_iter().filter(|it| it.grade > Grade::Good) {
            add(it.grade, format!("certificate {}: {}", it.name, it.state), Cause::Certificate);
        }
        for it in key_sets(state).into_iter().filter(|it| it.grade > Grade::Good) {
            add(it.grade, format!("keys of issuer {}: {}", it.name, it.state), Cause::KeySet);
        }
        for source in ReloadSource::ALL.into_iter().filter(|source| state.outcomes.get(*source).0) {
            let name = source.name();
            add(Grade::Doubtful, format!("reload of {name} refused; the log says why"), Cause::Reload(name));
        }
        for path in state.gate.full_relays() {
            add(Grade::Doubtful, format!("relay {path}: {FULL_RELAY}"), Cause::Relay);
        }
        let lost = state.history.lost_lines();
        if lost > 0 {
            let what = format!("{lost} log lines were dropped or not written in the last 15 minutes");
            add(Grade::Doubtful, what, Cause::LogLines);
        }
        if let Some((grade, what)) = work {
            let cause = if word == Some("refusing") { Cause::RefusedRequests } else { Cause::FailedRequests };
            add(grade, what, cause);
        }
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.grade));
        let grade = problems.first().map_or(Grade::Good, |problem| problem.grade);
        let word = match (is_ready, word, grade) {
            (false, ..) => "not ready",
            (true, Some(word), _) => word,
            (true, None, Grade::Good) => "ready",
            (true, None, _) => "ready, with problems",
        };
        Self { grade, word, problems }
    }
}

fn unreachable(state: &AdminState) -> impl Iterator<Item = String> {
    let upstreams = traffic::upstreams(state).upstreams.into_iter();
    upstreams
        .filter(|it| !it.addresses.is_empty() && !it.addresses.iter().any(|address| address.state == "up"))
        .map(|it| it.name)
}

fn no_address(upstream: &str) -> String {
    format!("upstream {upstream}: no address is up")
}

pub(super) fn problem_of(state: &AdminState, upstream: &str) -> Option<String> {
    unreachable(state).any(|name| name == upstream).then(|| no_address(upstream))
}

/// Grades the requests of the last minute.
fn judge(minute: &Totals) -> (Option<(Grade, String)>, Option<&'static str>) {
    let share = |number: u64| number as f64 / minute.requests.max(1) as f64;
    let (failed, refused) = (share(minute.failed), share(minute.refused));
    let (grade, number, what, word) = match minute.requests >= MIN_REQUESTS {
        true if failed >= MOST => (Grade::Bad, failed, "failed (5xx)", "failing"),
        true if failed + refused >= NEARLY_ALL => (Grade::Bad, refused, "were refused by the gate", "refusing"),
        true if failed >= MANY_ERRORS => (Grade::Doubtful, failed, "failed (5xx)", "serving with errors"),
        true | false => return (None, None),
    };
    (Some((grade, format!("{} of the requests of the last minute {what}", percent(number)))), Some(word))
}

/// A key, key set or certificate, with its age or expiry.
pub(super) struct Aging {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) grade: Grade,
    pub(super) state: String,
    pub(super) age: String,
    pub(super) end: Option<String>,
    /// Text instead of `end`, if there is no fixed end time.
    pub(super) until: &'static str,
}

pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        share if share < 1.0 => format!("{share:.2} %"),
        share => format!("{share:.0} %"),
    }
}

pub(super) fn own_keys(state: &AdminState) -> Vec<Aging> {
    let keys::Keys { keys, refresh } = keys::list(state);
    let own = |kind, name, state: &'static str, age: String| Aging {
        kind,
        name,
        grade: Grade::Good,
        state: state.to_owned(),
        age,
        end: None,
        until: "when retired",
    };
    let mut all: Vec<_> = keys.into_iter().map(|it| own("key", it.kid, it.state.word(), it.age.in_words())).collect();
    all.extend(refresh.into_iter().map(|it| own("secret", it.kid, it.state.word(), it.age.in_words())));
    all
}

pub(super) fn key_sets(state: &AdminState) -> Vec<Aging> {
    let fetched = issuers::list(state).issuers.into_iter().filter(|it| it.keys.is_some());
    fetched.map(key_set).collect()
}

fn key_set(issuer: IssuerReport) -> Aging {
    let failure = issuer.failure.map(|failure| failure.cause);
    let grade = match &*issuer.state {
        "fresh" => Grade::Good,
        // A fetch of the next key set may be in progress.
        "aging" if failure.is_none() => Grade::Good,
        "aging" => Grade::Doubtful,
        _ => Grade::Bad,
    };
    let state = failure.map_or_else(|| issuer.state.clone(), |cause| format!("{}, {cause}", issuer.state));
    let age = issuer.last_success.as_deref().map_or_else(|| "never fetched".to_owned(), ago);
    Aging { kind: "key set", name: issuer.name, grade, state, age, end: None, until: "at the next fetch" }
}

pub(super) fn certificates(state: &AdminState) -> Vec<Aging> {
    let periods = state.listeners.iter().filter_map(|it| it.tls.as_ref()).flat_map(|tls| tls.periods());
    let shown = |(file, begin, end): (String, Option<u64>, u64)| {
        certificate(file, begin.map(Timestamp::from_secs), Timestamp::from_secs(end), files::now())
    };
    let mut all: Vec<_> = periods.map(shown).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.dedup_by(|a, b| a.name == b.name);
    all
}

fn certificate(name: String, begin: Option<Timestamp>, end: Timestamp, now: Timestamp) -> Aging {
    let left = end.since(now);
    let (grade, word) = match left {
        _ if begin.is_some_and(|begin| begin > now) => (Grade::Bad, "not valid yet"),
        _ if end <= now => (Grade::Bad, "expired"),
        _ if left < ENDS_NOW => (Grade::Bad, "ends within 3 days"),
        _ if left < ENDS_SOON => (Grade::Doubtful, "ends within 14 days"),
        _ => (Grade::Good, "valid"),
    };
    let age = begin.map(|begin| keys::Age::new(begin, now).in_words()).unwrap_or_default();
    Aging { kind: "certificate", name, grade, state: word.to_owned(), age, end: Some(rfc3339(end)), until: "" }
}

pub(super) fn ago(moment: &str) -> String {
    let Ok(then) = humantime::parse_rfc3339(moment) else { return moment.to_owned() };
    let then = then.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    relative(then, Duration::from_secs(SystemTime::new().wall().as_secs()))
}

fn relative(then: Duration, now: Duration) -> String {
    let words = |seconds: u64| match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    };
    // A session of 30 days has 30 days left just after its login, so a future time is rounded and not cut off.
    let rounded = |seconds: u64| match seconds {
        0..60 => seconds,
        60..3570 => seconds + 30,
        3570..84_600 => seconds + 1800,
        _ => seconds + 43_200,
    };
    if now.abs_diff(then) < Duration::from_secs(1) {
        return "now".to_owned();
    }
    match now.checked_sub(then) {
        Some(past) => format!("{} ago", words(past.as_secs())),
        None => format!("in {}", words(rounded(then.saturating_sub(now).as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::build::issuers::IssuerFailure;

    #[test]
    fn a_moment_is_told_relative_to_now() {
        let at = Duration::from_secs;
        for (then, now, words) in [
            (100, 100, "now"),
            (99, 100, "1 s ago"),
            (40, 100, "1 min ago"),
            (0, 7300, "2 h ago"),
            (0, 200_000, "2 d ago"),
            (8000, 100, "in 2 h"),
            (30 * 86_400 - 10, 0, "in 30 d"),
            (86_400 - 10, 0, "in 1 d"),
            (3600 - 10, 0, "in 1 h"),
            (50, 0, "in 50 s"),
        ] {
            assert_eq!(relative(at(then), at(now)), words);
        }
        assert_eq!(ago("<b>"), "<b>");
    }

    fn minute(requests: u64, failed: u64, refused: u64) -> Option<&'static str> {
        judge(&Totals { requests, failed, refused, ..Totals::default() }).1
    }

    #[test]
    fn p70_a_gate_whose_requests_fail_says_so() {
        assert_eq!(minute(0, 0, 0), None);
        assert_eq!(minute(4, 4, 0), None, "too few say nothing");
        assert_eq!(minute(100, 100, 0), Some("failing"));
        assert_eq!(minute(100, 50, 0), Some("failing"));
        assert_eq!(minute(100, 0, 95), Some("refusing"));
        assert_eq!(minute(100, 6, 50), Some("serving with errors"));
        assert_eq!(minute(100, 4, 50), None, "refusing some is its work");
    }

    #[test]
    fn a_certificate_that_ends_is_told_in_a_word() {
        let at = |days: u64| Timestamp::from_secs(days * 86_400);
        for (end, grade, word) in [
            (100, Grade::Good, "valid"),
            (33, Grade::Doubtful, "ends within 14 days"),
            (22, Grade::Bad, "ends within 3 days"),
            (20, Grade::Bad, "expired"),
        ] {
            let told = certificate("a.pem".to_owned(), Some(at(10)), at(end), at(20));
            assert_eq!((told.grade, &*told.state, &*told.age), (grade, word, "10 days old"));
        }
        let early = certificate("a.pem".to_owned(), Some(at(21)), at(100), at(20));
        assert_eq!((early.grade, &*early.state), (Grade::Bad, "not valid yet"));
    }

    #[test]
    fn p70_a_key_set_is_bad_without_keys_and_doubtful_when_it_cannot_be_renewed() {
        for (state, cause, grade, told) in [
            ("fresh", None, Grade::Good, "fresh"),
            ("aging", None, Grade::Good, "aging"),
            ("aging", Some("timeout"), Grade::Doubtful, "aging, timeout"),
            ("stale", Some("timeout"), Grade::Bad, "stale, timeout"),
            ("empty", None, Grade::Bad, "empty"),
        ] {
            let report = IssuerReport {
                name: "a".to_owned(),
                url: String::new(),
                state: state.to_owned(),
                keys: Some(1),
                file: None,
                dropped: false,
                required: false,
                last_success: None,
                failure: cause.map(|cause: &str| IssuerFailure { cause: cause.to_owned(), message: String::new() }),
                refused_keys: Vec::new(),
            };
            let set = key_set(report);
            assert_eq!((set.grade, &*set.state), (grade, told));
        }
    }
}
