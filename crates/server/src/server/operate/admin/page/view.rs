//! The templates of the admin page. askama escapes every value.

use std::collections::BTreeMap;

use askama::Template;
use serde_json::Value;

use super::charts::Unit;
use super::config::ListedSettings;
use super::documents::{outcome, title};
use super::frame::Frame;
use super::overview::Overview;
use super::search::Search;
use crate::server::build::issuers::IssuerReport;
use crate::server::operate::admin::api_keys::{ApiKeyInfo, NewKeyAnswer};
use crate::server::operate::admin::configuration::{CheckResult, ConfigInfo};
use crate::server::operate::admin::explain::{ExplainedRule, Place, TokenClaims};
use crate::server::operate::admin::keys::Keys;
use crate::server::operate::admin::problem::Finding;
use crate::server::operate::admin::routes::RouteFigures;
use crate::server::operate::admin::sessions::{Page, SessionInfo, name_of};
use crate::server::operate::admin::traffic::{RouteInfo, Routes, UpstreamInfo};
use crate::server::operate::admin::{AdminState, ExplainReport};

#[derive(Template)]
#[template(path = "page/sign_in.html")]
pub(super) struct SignInView {
    pub(super) csrf: String,
    /// The command that prints the admin token.
    pub(super) command: String,
    /// Whether operators have tokens of their own (`admin.tokens`).
    pub(super) has_more: bool,
    pub(super) problem: Option<String>,
}

#[derive(Template)]
#[template(path = "page/problem.html")]
pub(super) struct ProblemView<'a> {
    pub(super) title: &'a str,
    pub(super) detail: &'a str,
    pub(super) code: &'a str,
    pub(super) request: &'a str,
}

#[derive(Template)]
#[template(path = "page/overview.html")]
pub(super) struct OverviewView {
    pub(super) frame: Frame,
    pub(super) now: Overview,
}

#[derive(Template)]
#[template(path = "page/live.html")]
pub(super) struct LiveView {
    pub(super) now: Overview,
}

pub(super) struct RevokeAll {
    pub(super) question: String,
    pub(super) detail: &'static str,
    pub(super) button: String,
    pub(super) field: &'static str,
    pub(super) value: String,
    /// The account, if the form names one.
    pub(super) account: String,
}

#[derive(Template)]
#[template(path = "page/sessions.html")]
pub(super) struct SessionsView {
    pub(super) frame: Frame,
    pub(super) search: Search,
    pub(super) problem: Option<String>,
    pub(super) page: Option<Page>,
    pub(super) count: String,
    pub(super) all: Option<RevokeAll>,
    pub(super) back: String,
    pub(super) next: Option<String>,
}

#[derive(Template)]
#[template(path = "page/session.html")]
pub(super) struct SessionView {
    pub(super) frame: Frame,
    pub(super) session: SessionInfo,
    pub(super) of_subject: String,
    pub(super) ended_by: Option<String>,
    pub(super) history: Vec<AuditLine>,
}

#[derive(Template)]
#[template(path = "page/confirm.html")]
pub(super) struct ConfirmView {
    pub(super) frame: Frame,
    /// A short question.
    pub(super) question: String,
    /// What the change does.
    pub(super) detail: String,
    /// The id or the name of the target. Empty if the question says enough.
    pub(super) about: String,
    pub(super) action: String,
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) back: String,
    pub(super) button: String,
}

#[derive(Template)]
#[template(path = "page/explain.html")]
pub(super) struct ExplainView {
    pub(super) frame: Frame,
    pub(super) asked: FormFields,
    pub(super) problem: Option<String>,
    pub(super) report: Option<ExplainReport>,
    pub(super) claims: Vec<(&'static str, String)>,
}

impl ExplainView {
    /// The rules that were applied, or those that the request did not need.
    fn rules<'a>(&self, report: &'a ExplainReport, is_applied: bool) -> Vec<&'a ExplainedRule> {
        report.rules.iter().filter(|rule| (rule.result != "skip") == is_applied).collect()
    }
}

/// The class of the pill of a status, such as `403`.
pub(super) fn grade_of(status: &str) -> &'static str {
    match status.bytes().next() {
        Some(b'5') => "bad",
        Some(b'4') => "doubtful",
        _ => "",
    }
}

/// The decision as a sentence, without its outcome.
pub(super) fn decision_of(report: &ExplainReport) -> String {
    let status = report.status.map_or_else(String::new, |status| format!(" with {status}"));
    match &*report.decision {
        "passed" => "This request passes".to_owned(),
        "refused" => format!("This request is refused{status}"),
        "unavailable" => format!("The gate cannot decide at present and responds{status}"),
        _ => "The decision also depends on the body or the store".to_owned(),
    }
}

/// The meaning of the report's outcome, unless the outcome only repeats the decision.
pub(super) fn meaning_of(report: &ExplainReport) -> Option<String> {
    let (_, meaning, _) = outcome(&report.outcome).filter(|_| report.outcome != report.decision)?;
    Some(meaning)
}

/// Returns whether a word of a rule's detail is an id, which is shown without its middle.
pub(super) fn is_id(word: &str) -> bool {
    word.len() > 20 && !word.contains('/') && word.bytes().any(|byte| byte.is_ascii_digit())
}

/// A position in the configuration, as the folder, and the file's name with the line.
pub(super) fn parts_of(place: &Place) -> (&str, String) {
    let (folder, name) = place.file.split_at(place.file.rfind('/').map_or(0, |slash| slash + 1));
    (folder, place.line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}")))
}

#[derive(Template)]
#[template(path = "page/keys.html")]
pub(super) struct KeysView {
    pub(super) frame: Frame,
    pub(super) keys: Keys,
    pub(super) problem: Option<String>,
    /// Why the gate cannot change its keys.
    pub(super) read_only: Option<String>,
    /// Whether a new key waits until it may sign.
    pub(super) is_rotating: bool,
}

#[derive(Template)]
#[template(path = "page/api_keys.html")]
pub(super) struct ApiKeysView {
    pub(super) frame: Frame,
    pub(super) subject: String,
    pub(super) problem: Option<String>,
    /// Each key, and the name of its owner.
    pub(super) keys: Vec<(ApiKeyInfo, Option<String>)>,
    pub(super) count: String,
    pub(super) back: String,
}

#[derive(Template)]
#[template(path = "page/new_api_key.html")]
pub(super) struct NewApiKeyView {
    pub(super) frame: Frame,
    pub(super) made: NewKeyAnswer,
}

#[derive(Template)]
#[template(path = "page/routes.html")]
pub(super) struct RoutesView {
    pub(super) frame: Frame,
    pub(super) routes: Routes,
    pub(super) upstreams: Vec<UpstreamInfo>,
    pub(super) issuers: Vec<IssuerReport>,
}

/// The result of a check, or why a reload was refused.
#[derive(Default)]
pub(super) struct ReloadPart {
    pub(super) checked: Option<CheckResult>,
    pub(super) problem: Option<String>,
    pub(super) errors: Vec<Finding>,
}

impl ReloadPart {
    /// The errors and the warnings. The `bool` is true for a warning.
    pub(super) fn findings(&self) -> Vec<(&Finding, bool)> {
        let checked = self.checked.iter();
        let errors = self.errors.iter().chain(checked.clone().flat_map(|checked| &checked.errors));
        let warnings = checked.flat_map(|checked| &checked.warnings);
        errors.map(|found| (found, false)).chain(warnings.map(|found| (found, true))).collect()
    }
}

#[derive(Template)]
#[template(path = "page/config.html")]
pub(super) struct ConfigView {
    pub(super) frame: Frame,
    pub(super) config: ConfigInfo,
    pub(super) reload: ReloadPart,
    pub(super) settings: ListedSettings,
}

#[derive(Template)]
#[template(path = "page/events.html")]
pub(super) struct EventsView {
    pub(super) frame: Frame,
    pub(super) asked: FormFields,
    /// The URL from which the script reads new lines. Empty on a page with older lines.
    pub(super) stream: String,
    pub(super) older: Option<String>,
    /// The number of matching lines in memory, of which this view shows one page.
    pub(super) count: usize,
    pub(super) history: Vec<AuditLine>,
}

#[derive(Template)]
#[template(path = "page/line.html")]
pub(super) struct LineView {
    pub(super) line: AuditLine,
    /// Empty, because the lines are not those of one session.
    pub(super) heading: &'static str,
}

pub(super) struct AuditLine {
    pub(super) id: String,
    pub(super) at: String,
    /// The reason or the kind, if the line has one.
    pub(super) note: String,
    pub(super) action: String,
    code: String,
    pub(super) outcome: String,
    pub(super) actor: String,
    pub(super) from: String,
    pub(super) session: String,
    pub(super) name: String,
    pub(super) subject: String,
    /// The other fields of the line.
    pub(super) rest: Vec<(String, String)>,
}

/// A longer id is shortened.
const LONGEST_ID: usize = 16;

/// Fields that say more about what happened, in a few words.
const NOTES: [&str; 8] = ["kind", "because", "reason", "why", "limit", "changed", "how", "verdict"];

const NOT_REST: [&str; 11] = [
    "timestamp",
    "event.action",
    "event.dataset",
    "rotogate.actor",
    "client.address",
    "level",
    "target",
    "message",
    "session.id",
    "user.id",
    "user.name",
];

impl AuditLine {
    /// `name_of` returns the name of a subject, if the line does not have the name.
    pub(super) fn from_json(line: &Value, name_of: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name: &str| line.get(name).map(plain).unwrap_or_default();
        // A revocation names its target by `kind` and `of`.
        let about = |name: &str, kind: &str| if text("kind") == kind { text("of") } else { text(name) };
        let rest = line.as_object().into_iter().flatten().filter(|(name, _)| !NOT_REST.contains(&name.as_str()));
        let subject = about("user.id", "subject");
        let name = Some(text("user.name")).filter(|name| !name.is_empty()).or_else(|| name_of(&subject));
        Self {
            id: text("event.id"),
            at: text("timestamp"),
            note: NOTES.map(text).into_iter().filter(|note| !note.is_empty()).collect::<Vec<_>>().join(", "),
            action: text("event.action"),
            code: text("event.code"),
            outcome: text("event.outcome"),
            actor: text("rotogate.actor"),
            from: text("client.address"),
            session: about("session.id", "session"),
            name: name.unwrap_or_default(),
            subject,
            rest: rest.map(|(name, value)| (name.clone(), plain(value))).collect(),
        }
    }

    /// What happened, in words. Only the lines that are shown need it.
    fn title(&self) -> String {
        title(&self.code).unwrap_or_else(|| self.action.clone())
    }

    /// Links to lines with the same action, subject or actor.
    fn like_this(&self) -> String {
        link("/ui/events", &[("action", &self.action)])
    }

    /// The user, or else the operator: the link, the text, and whether the text is an id. The history of a session has
    /// only operators.
    fn who(&self, heading: &str) -> Option<(String, &str, bool)> {
        if heading.is_empty() && !self.subject.is_empty() {
            let path = link("/ui/sessions", &[("subject", &self.subject), ("status", "any")]);
            let is_id = self.name.is_empty();
            return Some((path, if is_id { &self.subject } else { &self.name }, is_id));
        }
        (!self.actor.is_empty()).then(|| (link("/ui/events", &[("actor", &self.actor)]), &*self.actor, false))
    }

    /// The operator who acted on the user, the user's id, or the role of the operator.
    fn below(&self, heading: &str) -> Option<(String, bool)> {
        match (&*self.subject, &*self.actor) {
            _ if !heading.is_empty() => None,
            ("", "") => Some((self.name.clone(), false)).filter(|(name, _)| !name.is_empty()),
            ("", _) => {
                let role = self.rest.iter().find(|(name, _)| name == "rotogate.actor.role");
                role.map(|(_, role)| (role.clone(), false))
            }
            (_, "") => Some((self.subject.clone(), true)).filter(|(id, _)| !self.name.is_empty() && self.name != *id),
            (_, actor) => Some((format!("by {actor}"), false)),
        }
    }

    pub(super) fn all(state: &AdminState, lines: &[Value]) -> Vec<Self> {
        lines.iter().rev().map(|line| Self::from_json(line, |subject| name_of(state, subject))).collect()
    }
}

pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn methods_of(route: &RouteInfo) -> String {
    if route.any_method { "any".to_owned() } else { route.methods.join(", ") }
}

/// The 99th percentile of a route's durations.
pub(super) fn p99_of(figures: &RouteFigures) -> String {
    figures.p99_seconds.map_or_else(|| "–".to_owned(), |seconds| Unit::Milliseconds.text(seconds * 1000.0))
}

/// Describes which token a route requires.
pub(super) fn asked_of(route: &RouteInfo) -> String {
    let mut asked = route.scopes.clone();
    if !route.any_scope.is_empty() {
        asked.push(format!("one of {}", route.any_scope.join(" ")));
    }
    match &*route.roles {
        [] => {}
        [only] => asked.push(format!("role {only}")),
        several => asked.push(format!("one of the roles {}", several.join(" "))),
    }
    asked.extend(route.all_roles.iter().map(|role| format!("role {role}")));
    asked.join(", ")
}

pub(super) fn claims_of(token: &TokenClaims) -> Vec<(&'static str, String)> {
    let texts = [
        ("Issuer", &token.issuer),
        ("Subject", &token.subject),
        ("User", &token.user),
        ("Client", &token.client),
        ("Session", &token.session),
        ("jti", &token.jti),
        ("kid", &token.kid),
        ("Scope", &token.scope),
    ];
    let mut claims: Vec<_> =
        texts.into_iter().filter_map(|(name, text)| text.clone().map(|text| (name, text))).collect();
    claims.extend(token.generation.map(|generation| ("Generation", generation.to_string())));
    if !token.audience.is_empty() {
        claims.push(("Audience", token.audience.join(" ")));
    }
    claims
}

pub(super) fn link(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let mut is_any = false;
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        query.append_pair(name, value);
        is_any = true;
    }
    if is_any { format!("{path}?{}", query.finish()) } else { path.to_owned() }
}

/// Splits an id into its first eight characters, its middle, and its last four. A short id has no middle.
pub(super) fn shortened(id: &str) -> (&str, &str, &str) {
    let at = |character: Option<(usize, char)>| character.map_or(id.len(), |(at, _)| at);
    if id.chars().count() <= LONGEST_ID {
        return (id, "", "");
    }
    let (head, rest) = id.split_at(at(id.char_indices().nth(8)));
    let (middle, tail) = rest.split_at(at(id.char_indices().nth_back(3)) - head.len());
    (head, middle, tail)
}

#[derive(Default)]
pub(super) struct FormFields(BTreeMap<String, String>);

impl FormFields {
    /// Parses the fields. Values of a repeated field are joined with spaces.
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text) {
            all.entry(name.into_owned())
                .and_modify(|known| *known = format!("{known} {value}"))
                .or_insert(value.into());
        }
        Self(all)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns a trimmed field, or an empty string if the field is missing.
    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default().trim()
    }

    pub(super) fn some(&self, name: &str) -> Option<String> {
        Some(self.text(name).to_owned()).filter(|text| !text.is_empty())
    }

    /// Sets a field that is missing or empty.
    pub(super) fn or(mut self, name: &str, value: &str) -> Self {
        if self.text(name).is_empty() {
            self.0.insert(name.to_owned(), value.to_owned());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_id_is_shortened_to_its_ends() {
        assert_eq!(shortened("01a22ec5-1722-7a4d-bbad-e1421f43043e"), ("01a22ec5", "-1722-7a4d-bbad-e1421f43", "043e"));
        assert_eq!(shortened("äöüäöüäöü-äöüäöüäöü"), ("äöüäöüäö", "ü-äöüäö", "üäöü"));
        assert_eq!([shortened("op|ada"), shortened("")], [("op|ada", "", ""), ("", "", "")]);
    }

    #[test]
    fn p56_values_are_text_and_never_markup() {
        let problem = ProblemView { title: "<img src=x>", detail: "\"'&<script>", code: "x", request: "y" };
        let html = problem.render().unwrap();
        assert!(!html.contains("<img") && !html.contains("<script>"), "{html}");
        assert!(html.contains("&#60;img src=x&#62;"), "{html}");
        assert_eq!(link("/ui/sessions", &[("user", "a&b=c"), ("status", "")]), "/ui/sessions?user=a%26b%3Dc");
    }
}
