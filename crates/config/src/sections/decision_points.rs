//! `[[decision_points]]`, and `decision` of a route.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use super::super::declare::section;
use super::super::print::Put;
use super::super::value;
use super::{SECOND, check_known, path_in, unique};
use rotogate_core::claim::ClaimPath;
use rotogate_core::decision::DecisionPointRules;
use rotogate_core::route::RouteDecision;
use rotogate_kit::config::{CertificateAndKey, Section, Value as Raw};

section! {
    /// An entry of `[[decision_points]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct DecisionPointConfig, read by read_keys(section, others: &[DecisionPointConfig], dir: &Path) {
        /// Required: Name for routes.
        reload name: String = by {
            unique(section, "name", "a name for routes to use", value::text, others.iter().map(|other| &*other.name))
        },
        /// Identifier of the decision point, whose metadata name the endpoint. Required without `evaluation_url`.
        reload url: Option<String> = get(value::asked_url),
        /// Evaluation endpoint; the gate then reads no metadata.
        reload evaluation_url: Option<String> = get(value::asked_url),
        /// File with the gate's bearer token.
        reload token_file: Option<PathBuf> = get(path_in(dir)),
        /// The gate's certificate for mutual TLS, with its key.
        reload client_cert: Option<CertificateAndKey> = certificate_and_key(dir),
        /// Only trusted authorities, in PEM. Default: the system's.
        reload ca: Option<PathBuf> = get(path_in(dir)),
        /// Time for the whole answer; 10ms to 10s. Beyond that: 503.
        reload timeout: Duration = get_or(value::duration_within(SECOND / 100, 10 * SECOND), 3 * SECOND / 10),
        /// How long the gate keeps an answer.
        reload cache: DecisionCache = inner(read_cache_keys),
    }
}

section! {
    /// `cache` of a decision point.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DecisionCache, read by read_cache_keys(section) {
        /// How long the gate keeps a permit; 0s to 60s. 0s: each request asks.
        reload allow: Duration =
            get_or(value::duration_within(Duration::ZERO, DecisionPointRules::MAX_KEPT), DecisionPointRules::ALLOW),
        /// How long the gate keeps a refusal; 0s to 60s.
        reload deny: Duration =
            get_or(value::duration_within(Duration::ZERO, DecisionPointRules::MAX_KEPT), DecisionPointRules::DENY),
    }
}

section! {
    impl RouteDecision, read by read_decision_keys(section, resource: &DecisionResource) {
        /// Required: Entry of `[[decision_points]]`.
        reload point: Box<str> = by { section.required("point", "the name of a [[decision_points]] entry", value::text).into() },
        /// Action in the question. Unset: the method of the request, or with `calls` of the call (MCP).
        reload action: Option<Box<str>> = by { section.get("action", value::text).map(Into::into) },
        reload resource_type as "-": Box<str> = by { resource.kind.as_str().into() },
        reload resource_id as "-": Box<str> = by { resource.id.as_str().into() },
        /// Claims to send besides subject, issuer, client and scope.
        reload claims as some: Vec<ClaimPath> = list_or_empty(claim),
    }
    with {
        /// Required: Resource in the question.
        reload resource: table of DecisionResource,
    }
}

section! {
    /// `resource` of a route's decision.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(super) struct DecisionResource, read by read_resource_keys(section) {
        /// Required: Type of the resource.
        reload kind as "type": String = required("the type of the resource, such as \"order\"", value::text),
        /// Required: Its id, with parameters of the path in braces. With `calls`, `{method}` and `{name}` are those of
        /// the call.
        reload id: String = required("the id of the resource, such as \"{id}\"", value::text),
    }
}

fn claim(v: &Raw) -> Result<ClaimPath, String> {
    let path = ClaimPath::parse(&value::text(v)?).map_err(|error| error.to_string())?;
    if path.is_of_names() { Err("{} means several names; expected the path of a claim".to_owned()) } else { Ok(path) }
}

pub(super) fn read(section: &Section<'_>, above: &[DecisionPointConfig], dir: &Path) -> DecisionPointConfig {
    let point = read_keys(section, above, dir);
    match (&point.url, &point.evaluation_url) {
        (None, None) if !section.is_bad() => {
            section.blame("url", "is missing; expected the decision point's identifier, or evaluation_url");
        }
        (Some(_), Some(_)) => section.blame("evaluation_url", "cannot be combined with url; remove one of the two"),
        _ => {}
    }
    point
}

/// Reads `decision` of a route, which asks one of these decision points.
pub(super) fn of_route(section: &Section<'_>, points: &[DecisionPointConfig]) -> Option<RouteDecision> {
    if !section.has("decision") {
        return None;
    }
    let table = section.section("decision");
    let resource = table.table("resource", read_resource_keys);
    if resource.is_none() && !table.is_bad() {
        table.blame("resource", "is missing; expected { type = \"order\", id = \"{id}\" }");
    }
    let resource = resource.unwrap_or(DecisionResource { kind: String::new(), id: String::new() });
    let decision = read_decision_keys(&table, &resource);
    table.finish();
    if !decision.point.is_empty() {
        let known = points.iter().map(|point| point.name.as_str());
        check_known(&table, "point", "decision point", &decision.point, known);
    }
    Some(decision)
}

/// Prints `decision` in the form in which it is read.
pub(super) fn put(decision: &RouteDecision, table: &mut Table) {
    let mut inner = Table::new();
    decision.put(&mut inner, "..");
    let resource = DecisionResource { kind: decision.resource_type.to_string(), id: decision.resource_id.to_string() };
    resource.put(&mut inner, "resource");
    table.insert("decision".to_owned(), Value::Table(inner));
}
