//! The view of the last requests that the gate refused or could not serve.

use std::collections::BTreeSet;

use askama::Template;

use super::charts::Chart;
use super::documents::outcome;
use super::frame::Frame;
use super::overview::{chart_of_outcome, of_outcome};
use super::request::{Request, nothing};
use super::view::{FormFields, link};
use super::{Shown, html};
use crate::log::refused::HIDDEN;
use crate::server::operate::admin::refused::{self, RefusedInfo, RefusedPage, RefusedQuery};
use crate::server::serve::route_label::{ENDPOINT, NO_ROUTE};

const VIEW: &str = "/ui/refused";
const PAGE_REQUESTS: &str = "200";
/// The number of rows that the view of an outcome shows.
const NEWEST: usize = 5;
const FILTERS: [&str; 4] = ["request_id", "outcome", "route", "caller"];

#[derive(Template)]
#[template(path = "page/refused.html")]
struct RefusedView {
    frame: Frame,
    asked: FormFields,
    is_filtered: bool,
    /// The number of requests in memory, and of those that match.
    kept: usize,
    matched: usize,
    alike: Vec<Alike>,
    /// The outcomes and routes that the form suggests.
    outcomes: BTreeSet<&'static str>,
    routes: BTreeSet<String>,
    older: Option<String>,
}

#[derive(Template)]
#[template(path = "page/outcome.html")]
struct OutcomeView {
    frame: Frame,
    word: String,
    status: &'static str,
    meaning: String,
    /// Words between backticks are code.
    remedy: String,
    chart: Chart,
    /// The newest of these requests in memory.
    alike: Vec<Alike>,
}

/// Neighbours in the list that differ only in their time and id, the newest first.
struct Alike {
    newest: RefusedInfo,
    others: Vec<RefusedInfo>,
}

impl Alike {
    fn all(requests: Vec<RefusedInfo>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for request in requests {
            match all.last_mut() {
                Some(last) if last.newest.is_like(&request) => last.others.push(request),
                Some(_) | None => all.push(Self { newest: request, others: Vec::new() }),
            }
        }
        all
    }

    fn number(&self) -> usize {
        self.others.len() + 1
    }
}

impl Request<'_> {
    pub(super) async fn outcome(&self) -> Shown {
        let word = self.parameters().text("word").to_owned();
        let (status, meaning, remedy) = outcome(&word).ok_or_else(nothing)?;
        let query = RefusedQuery { outcome: Some(word.clone()), ..RefusedQuery::default() };
        let RefusedPage { refused, .. } = refused::list(self.state, self.caller.holder.role, query)?;
        let mut alike = Alike::all(refused);
        alike.truncate(NEWEST);
        let chart = chart_of_outcome(&self.state.history.samples(), &word);
        html(&OutcomeView { frame: self.frame(VIEW).await, word, status, meaning, remedy, chart, alike })
    }

    pub(super) async fn refused(&self) -> Shown {
        let (asked, role) = (self.parameters(), self.caller.holder.role);
        let query = RefusedQuery {
            request_id: asked.some("request_id"),
            outcome: asked.some("outcome"),
            route: asked.some("route"),
            caller: asked.some("caller"),
            before: asked.some("before"),
            limit: Some(PAGE_REQUESTS.to_owned()),
        };
        let RefusedPage { refused, kept, matched, next } = refused::list(self.state, role, query)?;
        let own = FILTERS.map(|name| (name, asked.text(name)));
        let older = next.as_deref().map(|next| link(VIEW, &[&own[..], &[("before", next)]].concat()));
        let is_filtered = own.iter().any(|(_, text)| !text.is_empty());
        let (outcomes, routes) = refused::choices();
        html(&RefusedView {
            frame: self.frame(VIEW).await,
            asked,
            is_filtered,
            kept,
            matched,
            alike: Alike::all(refused),
            outcomes,
            routes,
            older,
        })
    }
}

impl RefusedInfo {
    fn is_like(&self, other: &Self) -> bool {
        let what = |it: &Self| (it.method.clone(), it.host.clone(), it.path.clone(), it.parameters.clone());
        let why = |it: &Self| (it.outcome, it.detail, it.status, it.route.clone());
        let who = |it: &Self| (it.subject.clone(), it.client.clone(), it.address.clone());
        what(self) == what(other) && why(self) == why(other) && who(self) == who(other)
    }

    /// Returns whether the method and the path are known as a whole, so that *Explain* can have them.
    fn is_explicable(&self) -> bool {
        self.path.starts_with('/') && !self.path.contains(HIDDEN) && !self.method.contains(HIDDEN)
    }

    fn meaning(&self) -> String {
        outcome(self.outcome).map_or_else(|| self.outcome.to_owned(), |(_, meaning, _)| meaning)
    }

    fn route_name(&self) -> &str {
        match &*self.route {
            // It has the endpoint's name below.
            ENDPOINT => "gate endpoint",
            route => name_of_route(route),
        }
    }

    /// The path pattern, if it is not also the route's id.
    fn other_pattern(&self) -> Option<&str> {
        self.pattern.as_deref().filter(|pattern| *pattern != self.route)
    }

    fn of_outcome(&self) -> String {
        of_outcome(self.outcome)
    }

    fn of_route(&self) -> String {
        of_route(&self.route)
    }

    /// Links to this request among those with its outcome.
    fn of_request(&self) -> String {
        link(VIEW, &[("outcome", self.outcome), ("request_id", &self.request_id)])
    }

    /// The user, the subject or the client, if the gate knows it.
    fn caller(&self) -> &str {
        let known = self.user.as_ref().or(self.subject.as_ref()).or(self.client.as_ref());
        known.map_or("unknown", String::as_str)
    }

    fn of_subject(&self) -> String {
        let subject = self.subject.as_deref().unwrap_or_default();
        link("/ui/sessions", &[("subject", subject), ("status", "any")])
    }
}

/// The words for a route's label in the metrics.
pub(super) fn name_of_route(route: &str) -> &str {
    match route {
        NO_ROUTE => "no route",
        ENDPOINT => "the gate's endpoints",
        route => route,
    }
}

/// Links to the refused requests of a route.
pub(super) fn of_route(route: &str) -> String {
    link(VIEW, &[("route", route)])
}

/// Links to the refused requests with an outcome.
pub(super) fn with_outcome(word: &str) -> String {
    link(VIEW, &[("outcome", word)])
}
