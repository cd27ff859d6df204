//! What is wrong with the gate, and what an operator can do about it.

use super::documents::outcome;
use super::overview::of_outcome;
use crate::server::operate::admin::AdminState;
use crate::server::operate::admin::history::Totals;
use crate::server::operate::admin::state::{Cause, GateProblem, GateState, Grade};
use crate::server::operate::admin::traffic::UpstreamInfo;

/// A sentence about the gate, and the remedy.
pub(super) struct Advice {
    pub(super) grade: Grade,
    pub(super) what: String,
    /// Words between backticks are code.
    remedy: String,
    /// The path and the label of a link.
    pub(super) link: Option<(String, String)>,
}

impl Advice {
    /// The parts of the remedy. Every second part is code.
    pub(super) fn remedy(&self) -> impl Iterator<Item = &str> {
        self.remedy.split('`')
    }

    fn good(what: &str, remedy: String) -> Self {
        Self { grade: Grade::Good, what: what.to_owned(), remedy, link: None }
    }
}

/// Returns at least one sentence, the most important first.
pub(super) fn advice(
    state: &AdminState,
    found: &GateState,
    quarter: &Totals,
    upstreams: &[UpstreamInfo],
) -> Vec<Advice> {
    let config = state.config.load();
    if found.problems.is_empty() {
        return vec![match quarter.requests {
            0 => {
                let url = config.server.public_url.to_string();
                let url = url.trim_end_matches('/');
                Advice::good("no request arrived in the last 15 minutes", format!("Clients reach the gate at `{url}`."))
            }
            _ => Advice::good("nothing needs your attention", String::new()),
        }];
    }
    found.problems.iter().map(|problem| of_problem(problem, quarter, upstreams)).collect()
}

fn of_problem(problem: &GateProblem, quarter: &Totals, upstreams: &[UpstreamInfo]) -> Advice {
    let routes = |label: &str| Some(("/ui/routes".to_owned(), label.to_owned()));
    let (remedy, link) = match &problem.cause {
        Cause::Upstream(name) => {
            let addresses = upstreams.iter().filter(|it| it.name == *name).flat_map(|it| &it.addresses);
            let addresses: Vec<_> = addresses.map(|it| format!("`{}`", it.address)).collect();
            let what = format!("Start the service at {}, or correct `urls` of this upstream.", addresses.join(", "));
            (what, routes("Show upstreams"))
        }
        Cause::Readiness => ("The gate's log says more.".to_owned(), None),
        Cause::Certificate => ("Replace the file. The gate loads the new certificate by itself.".to_owned(), None),
        Cause::KeySet => ("Check that the gate can reach the issuer's `jwks_url`.".to_owned(), routes("Show issuers")),
        Cause::Reload("configuration") => (
            "The previous configuration stays in use. `rotogate check` shows the error.".to_owned(),
            Some(("/ui/config".to_owned(), "Show configuration".to_owned())),
        ),
        Cause::Reload(source) => (format!("The previous {source} stay in use."), None),
        Cause::Relay => ("The responses in memory expire by themselves.".to_owned(), None),
        Cause::LogLines => ("Check the disk space and the outputs of the logs.".to_owned(), None),
        Cause::FailedRequests => most_frequent(quarter, true),
        Cause::RefusedRequests => most_frequent(quarter, false),
    };
    Advice { grade: problem.grade, what: problem.what.clone(), remedy, link }
}

/// Describes the outcome that most of the failed requests, or of the refused requests, had.
fn most_frequent(quarter: &Totals, has_failed: bool) -> (String, Option<(String, String)>) {
    let is_of_kind = |(word, _): &&(&str, u64)| {
        let is_of_server = outcome(word).is_some_and(|(status, ..)| status.starts_with('5'));
        (is_of_server || *word == "passed") == has_failed
    };
    let Some((word, _)) = quarter.refusals.iter().filter(is_of_kind).max_by_key(|(_, number)| *number) else {
        return (String::new(), None);
    };
    let (_, meaning, _) = outcome(word).unwrap_or_default();
    let what = match *word {
        "passed" => "Most of these responses are the upstream's own. Its log says why.".to_owned(),
        _ => format!("The most frequent outcome is `{word}`: {meaning}."),
    };
    (what, Some((of_outcome(word), "What to do".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::operate::admin::traffic::AddressInfo;

    fn told(cause: Cause, quarter: &Totals) -> (String, Option<(String, String)>) {
        let address = AddressInfo { address: "http://127.0.0.1:1".to_owned(), state: "failing", in_flight: 0 };
        let upstream =
            |name: &str, addresses| UpstreamInfo { name: name.to_owned(), in_flight: 0, connections: 0, addresses };
        let upstreams = [upstream("other", Vec::new()), upstream("orders", vec![address])];
        let problem = GateProblem { grade: Grade::Bad, what: "it is down".to_owned(), cause };
        let advice = of_problem(&problem, quarter, &upstreams);
        assert_eq!((&*advice.what, advice.grade), ("it is down", Grade::Bad));
        (advice.remedy().collect::<Vec<_>>().join("|"), advice.link)
    }

    #[test]
    fn p70_each_problem_has_a_remedy() {
        let none = Totals::default();
        let (remedy, link) = told(Cause::Upstream("orders".to_owned()), &none);
        assert_eq!(remedy, "Start the service at |http://127.0.0.1:1|, or correct |urls| of this upstream.");
        assert_eq!(link.unwrap().0, "/ui/routes");
        let reload = told(Cause::Reload("configuration"), &none);
        assert!(reload.0.contains("|rotogate check|") && reload.1.unwrap().0 == "/ui/config");
        assert_eq!(told(Cause::Reload("keys"), &none), ("The previous keys stay in use.".to_owned(), None));
        for cause in [Cause::Readiness, Cause::Certificate, Cause::KeySet, Cause::Relay, Cause::LogLines] {
            assert!(!told(cause, &none).0.is_empty());
        }
    }

    #[test]
    fn p70_failed_requests_lead_to_the_most_frequent_outcome() {
        let of = |refusals: &[(&'static str, u64)]| {
            told(Cause::FailedRequests, &Totals { refusals: refusals.to_vec(), ..Totals::default() })
        };
        let (remedy, link) = of(&[("token_expired", 300), ("upstream_unreachable", 40), ("timeout", 3)]);
        assert!(remedy.contains("|upstream_unreachable|"), "{remedy}");
        assert_eq!(link.unwrap(), ("/ui/outcome?word=upstream_unreachable".to_owned(), "What to do".to_owned()));
        assert!(of(&[("passed", 2)]).0.contains("upstream's own"));
        assert_eq!(of(&[("token_expired", 3)]), (String::new(), None));
        let quarter = Totals { refusals: vec![("token_expired", 3), ("passed", 40)], ..Totals::default() };
        assert!(told(Cause::RefusedRequests, &quarter).0.contains("|token_expired|"));
    }
}
