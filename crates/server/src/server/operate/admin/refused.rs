//! The last requests that the gate refused or could not serve. They are in the memory of this gate only.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{Code, Refusal};
use super::sessions::name_of;
use super::{AdminState, page_size};
use crate::log::refused::{self, KEPT_REQUESTS, Part, RefusedRequest};
use rotogate_config::AdminRole;

/// The parameters that select refused requests.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RefusedQuery {
    /// Only the request with this id, which the response and the log contain.
    pub(super) request_id: Option<String>,
    /// Only requests with this outcome.
    pub(super) outcome: Option<String>,
    /// Only requests of this route: its id or its path pattern. `_none` selects requests without a route, and
    /// `_endpoint` those to the gate's own endpoints.
    pub(super) route: Option<String>,
    /// Only requests of this caller: a user name, a subject or a client.
    pub(super) caller: Option<String>,
    /// Only requests before this one: `next` of the previous page.
    pub(super) before: Option<String>,
    /// The maximum number of requests.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    pub(super) limit: Option<String>,
}

/// A page of refused requests.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RefusedPage {
    /// The requests, the newest first.
    pub(super) refused: Vec<RefusedInfo>,
    /// The number of requests in memory, at most 1000, of which at most 64 are from one client address.
    pub(super) kept: usize,
    /// The number of these that match the parameters.
    pub(super) matched: usize,
    /// `before` of the next page. `null` if there is none.
    pub(super) next: Option<String>,
}

/// A request that the gate refused or could not serve. `…` stands for what was cut off or hidden.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RefusedInfo {
    /// The time of the response (RFC 3339).
    pub(super) time: String,
    pub(super) request_id: String,
    /// The outcome, as in the access log.
    pub(super) outcome: &'static str,
    pub(super) detail: Option<&'static str>,
    /// The status of the response. Refusals of gRPC calls have 200.
    pub(super) status: u16,
    pub(super) method: String,
    pub(super) host: Option<String>,
    /// The path, without API keys.
    pub(super) path: String,
    /// The names of the query's parameters. Their values are not kept.
    pub(super) parameters: Vec<String>,
    /// The route's id, `_none` without a route, or `_endpoint` for the gate's own endpoints.
    pub(super) route: String,
    /// The path pattern of the route, or the dialect and the operation of an endpoint.
    pub(super) pattern: Option<String>,
    /// The subject of the verified token.
    pub(super) subject: Option<String>,
    /// The name of the user, if the users file contains the user.
    pub(super) user: Option<String>,
    pub(super) client: Option<String>,
    /// The address of the client. `null` for the role `viewer`.
    pub(super) address: Option<String>,
    /// The upstream to which the request was sent.
    pub(super) upstream: Option<String>,
}

impl RefusedInfo {
    fn new(state: &AdminState, role: AdminRole, request: &RefusedRequest) -> Self {
        let text = |part: Part| request.part(part).to_owned();
        let some = |part: Part| Some(text(part)).filter(|text| !text.is_empty());
        let subject = some(Part::Subject);
        Self {
            time: humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_micros(request.micros)).to_string(),
            request_id: text(Part::RequestId),
            outcome: request.outcome,
            detail: request.detail,
            status: request.status.as_u16(),
            method: text(Part::Method),
            host: some(Part::Host),
            path: text(Part::Path),
            parameters: some(Part::Query).iter().flat_map(|names| names.split('&')).map(str::to_owned).collect(),
            route: text(Part::Route),
            pattern: some(Part::Pattern),
            user: subject.as_deref().and_then(|subject| name_of(state, subject)),
            subject,
            client: some(Part::Client),
            address: request.client.filter(|_| role > AdminRole::Viewer).map(|address| address.to_string()),
            upstream: some(Part::Upstream),
        }
    }
}

/// Lists the last requests that this gate refused or could not serve. At most 1000 are in memory, and at most 64 of one
/// client address. A restart clears them.
#[utoipa::path(
    get, path = "/v1/refused", operation_id = "list_refused", tag = "events",
    params(RefusedQuery), responses((status = 200, description = "the requests", body = RefusedPage))
)]
pub(super) fn list(state: &AdminState, role: AdminRole, query: RefusedQuery) -> Result<RefusedPage, Refusal> {
    let RefusedQuery { request_id, outcome, route, caller, before, limit } = query;
    let limit = page_size(limit, KEPT_REQUESTS)?;
    let before: Option<u64> = before
        .map(|before| before.parse())
        .transpose()
        .map_err(|_| Refusal::new(Code::InvalidParameter, "before: expected `next` of the previous page"))?;
    let has = |request: &RefusedRequest, parts: &[Part], wanted: &Option<String>| {
        wanted.as_deref().is_none_or(|wanted| parts.iter().any(|part| request.has(*part, wanted)))
    };
    let is_user = |request: &RefusedRequest| {
        let subject = request.part(Part::Subject);
        caller.is_some() && !subject.is_empty() && name_of(state, subject) == caller
    };
    let mut all = refused::newest();
    let kept = all.len();
    all.retain(|(_, request)| {
        has(request, &[Part::RequestId], &request_id)
            && outcome.as_deref().is_none_or(|outcome| outcome == request.outcome)
            && has(request, &[Part::Route, Part::Pattern], &route)
            && (has(request, &[Part::Subject, Part::Client], &caller) || is_user(request))
    });
    let matched = all.len();
    all.retain(|(number, _)| before.is_none_or(|before| *number < before));
    let next = (all.len() > limit).then(|| all.get(limit - 1).map(|(number, _)| number.to_string())).flatten();
    let page = all.iter().take(limit).map(|(_, request)| RefusedInfo::new(state, role, request));
    Ok(RefusedPage { refused: page.collect(), kept, matched, next })
}

/// Returns the outcomes and the routes of the requests in memory.
pub(super) fn choices() -> (BTreeSet<&'static str>, BTreeSet<String>) {
    let all = refused::newest();
    let routes = all.iter().map(|(_, request)| request.part(Part::Route).to_owned());
    (all.iter().map(|(_, request)| request.outcome).collect(), routes.collect())
}
