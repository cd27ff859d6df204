//! The admin page, at `/ui/` (requirement P56): HTML made here, one style sheet, one script, nothing from elsewhere. Each view
//! and each form calls what `/v1` calls. Everything works without the script; it adds a dialog and live lines.
//!
//! Who signs in with an admin token gets a random cookie ([`sign_ins`]). Each form has a value that only the page knows
//! (CSRF). After a change the browser is sent to a view, which says what came of it.
//!
//! A browser sends a cookie to every port of a host (RFC 6265 §8.5), so to the web servers of other users of this machine,
//! too. So each sign-in has a folder of its own, `/ui/{place}/`, with a random name: its cookie goes there alone, and nobody
//! else can lead the browser to that path. Templates and code write paths without it, and [`below`] puts it in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, LOCATION, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Frame as BodyFrame;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Incoming;

use super::events::{self, EventsQuery};
use super::explain::{Question, explain_question};
use super::problem::{Code, Refusal};
use super::revocations::{RevocationRequest, end_all};
use super::sessions::{self, SessionsQuery};
use super::{Body, State, body_of, configuration, full, guard, health, keys, shown, status, traffic};
use crate::config::AdminRole;
use crate::log;
use rotogate::context::{Actor, Context};
use rotogate::credential;
use rotogate::random::{NoRandomness, are_equal};
use sign_ins::SignedIn;
use view::{AskedEvents, AskedExplanation, AskedSessions, AuditLine, Frame, RevokeAll, fields, link};

mod sign_ins;
pub(super) mod view;

pub(crate) use sign_ins::SignIns;

/// Without `unsafe-*`: a value that is markup all the same could run nothing.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// The cookie of a sign-in, and that of the form for one.
const SIGN_IN: &str = "rotogate-admin";
const FORM: &str = "rotogate-admin-form";
const FORM_MEDIA: &str = "application/x-www-form-urlencoded";
/// The number of sessions of a view.
const PAGE_SESSIONS: &str = "50";
/// How long a stream of events goes on. The browser opens it again, and is asked who it is.
const STREAM: Duration = Duration::from_secs(60);
/// How often the numbers of the overview are sent.
const NUMBERS_EVERY: Duration = Duration::from_secs(2);
/// What a proxy with TLS says of the connection to it.
const FORWARDED_PROTO: &str = "x-forwarded-proto";
/// The files beside the views.
const FILES: [(&str, &str, &str); 3] = [
    ("page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("page.js", "text/javascript; charset=utf-8", include_str!("page.js")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// What a request comes to, or where it leads.
type Shown = Result<Response<Body>, Refusal>;

/// Whether a path is the page's.
pub(super) fn is_at(path: &str) -> bool {
    path == "/" || path == "/ui" || path.starts_with("/ui/")
}

/// The folder of a sign-in in a path, and the rest; `None` for a path outside of such folders.
fn place_of(path: &str) -> Option<(&str, &str)> {
    let (place, rest) = path.strip_prefix("/ui/")?.split_once('/')?;
    sign_ins::is_secret(place).then_some((place, rest))
}

/// The same response for this folder: where it leads to, and the links, forms and files of a view.
async fn below(place: &str, mut response: Response<Body>) -> Response<Body> {
    let folder = format!("/ui/{place}/");
    let view = response.headers().get(LOCATION).and_then(|path| path.to_str().ok()?.strip_prefix("/ui/"));
    let path = view.filter(|view| *view != "sign-in").map(|view| HeaderValue::try_from(format!("{folder}{view}")));
    if let Some(Ok(path)) = path {
        response.headers_mut().insert(LOCATION, path);
    }
    if !response.headers().get(CONTENT_TYPE).is_some_and(|media| media.as_bytes().starts_with(b"text/html")) {
        return response;
    }
    let (parts, body) = response.into_parts();
    // What is text of somebody has its quotes escaped, so only markup matches.
    let text = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let text = ["href", "action", "src", "data-post", "data-stream"].into_iter().fold(text, |text, attribute| {
        text.replace(&format!(" {attribute}=\"/ui/"), &format!(" {attribute}=\"{folder}"))
    });
    Response::from_parts(parts, full(text.into()))
}

/// Answers a request for the page.
pub(super) async fn answer(state: &Arc<State>, peer: SocketAddr, parts: &Parts, body: Incoming) -> Response<Body> {
    let response = match route(state, peer, parts, body).await {
        Ok(response) => response,
        Err(refusal) => problem(refusal),
    };
    let mut response = match place_of(parts.uri.path()) {
        Some((place, _)) => below(place, response).await,
        None => response,
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn route(state: &Arc<State>, peer: SocketAddr, parts: &Parts, body: Incoming) -> Shown {
    let path = parts.uri.path();
    let Some(rest) = path.strip_prefix("/ui/") else { return Ok(lead_to("/ui/")) };
    let (place, rest) = place_of(path).map_or((None, rest), |(place, rest)| (Some(place), rest));
    let segments: Vec<&str> = rest.split('/').collect();
    let is_get = match parts.method {
        Method::GET | Method::HEAD => true,
        Method::POST => false,
        _ => return Err(Refusal::method_not_allowed(vec![Method::GET, Method::HEAD, Method::POST])),
    };
    if let ([name], true) = (&segments[..], is_get)
        && let Some((_, media, text)) = FILES.iter().find(|(file, ..)| file == name)
    {
        return Ok(text_of(media, Bytes::from_static(text.as_bytes())));
    }
    if !is_get {
        guard::origin_of_form(parts)?;
    }
    if place.is_none() && segments == ["sign-in"] {
        return match is_get {
            true => sign_in_view(parts, None),
            false => sign_in(state, peer, parts, body).await,
        };
    }
    let cookie = cookie(parts, SIGN_IN);
    let caller = cookie.and_then(|cookie| state.sign_ins.find(&cookie, &state.tokens));
    // The cookie is good in its folder alone: it is of no use to those to whom it went elsewhere.
    let is_own = |caller: &SignedIn| place.is_some_and(|place| are_equal(place.as_bytes(), caller.place.as_bytes()));
    let Some(caller) = caller.filter(is_own) else {
        return Ok(lead_to("/ui/sign-in"));
    };
    guard::hold_seat(parts);
    let request = Request { state, parts, caller };
    let actor = Actor { via: "page", ..request.caller.holder.actor.clone() };
    let work = async {
        match is_get {
            true => request.view(&segments).await,
            false => {
                let form = fields(&body_of(FORM_MEDIA, parts, body).await?);
                if !is_own_form(&form, &request.caller.csrf) {
                    return Err(Refusal::new(Code::ForeignOrigin, "this form is not of your sign-in: load it again"));
                }
                let changed = request.change(&segments, form).await;
                log::flush_audit().await;
                changed
            }
        }
    };
    match Context::current() {
        // Log events that this request causes name the operator.
        Some(context) => context.acted_by(actor).scope(work).await,
        None => work.await,
    }
}

fn is_own_form(form: &BTreeMap<String, String>, csrf: &str) -> bool {
    form.get("csrf").is_some_and(|sent| are_equal(sent.as_bytes(), csrf.as_bytes()))
}

fn sign_in_view(parts: &Parts, problem: Option<String>) -> Shown {
    let csrf = sign_ins::secret().map_err(no_randomness)?;
    let cookie = cookie_header(parts, (FORM, "/ui/"), &csrf, "");
    let status = if problem.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    let mut response = html(&view::SignInView { csrf, problem })?;
    *response.status_mut() = status;
    response.headers_mut().insert(SET_COOKIE, cookie);
    Ok(response)
}

async fn sign_in(state: &State, peer: SocketAddr, parts: &Parts, body: Incoming) -> Shown {
    let form = fields(&body_of(FORM_MEDIA, parts, body).await?);
    if !cookie(parts, FORM).is_some_and(|sent| is_own_form(&form, &sent)) {
        return sign_in_view(
            parts,
            Some("The form was too old, or the browser keeps no cookies: try again.".to_owned()),
        );
    }
    let token = form.get("token").map(|token| token.trim()).unwrap_or_default();
    let Some((holder, token)) = guard::sign_in(state, peer.ip(), token)? else {
        return sign_in_view(parts, Some("This is not an admin token of this gate.".to_owned()));
    };
    let (cookie, place) = state.sign_ins.begin(holder, &token).map_err(no_randomness)?;
    let folder = format!("/ui/{place}/");
    let mut response = lead_to(&folder);
    response.headers_mut().append(SET_COOKIE, cookie_header(parts, (SIGN_IN, &folder), &cookie, ""));
    response.headers_mut().append(SET_COOKIE, cookie_header(parts, (FORM, "/ui/"), "", "; Max-Age=0"));
    Ok(response)
}

/// A cookie for a folder of the page alone: no script and no other site can use it.
///
/// It is `Secure` if a proxy with TLS says that it is in front. The listener itself speaks clear text, where a browser may
/// not take such a cookie. A client that forges the header changes only its own cookie.
fn cookie_header(parts: &Parts, (name, folder): (&str, &str), value: &str, more: &str) -> HeaderValue {
    let is_https = parts.headers.get(FORWARDED_PROTO).is_some_and(|proto| proto == "https");
    let secure = if is_https { "; Secure" } else { "" };
    let cookie = format!("{name}={value}; Path={folder}; HttpOnly; SameSite=Strict{secure}{more}");
    // Names and values are of the alphabet of base64.
    let mut cookie = HeaderValue::try_from(cookie).unwrap_or(HeaderValue::from_static(""));
    cookie.set_sensitive(true);
    cookie
}

/// The only cookie of this name.
fn cookie(parts: &Parts, name: &str) -> Option<String> {
    let mut found = credential::cookies(&parts.headers, name);
    match (found.next(), found.next()) {
        (Some(only), None) if parts.headers.contains_key(COOKIE) => String::from_utf8(only.to_vec()).ok(),
        _ => None,
    }
}

/// A request of somebody who is signed in.
struct Request<'a> {
    state: &'a Arc<State>,
    parts: &'a Parts,
    caller: SignedIn,
}

impl Request<'_> {
    async fn view(&self, segments: &[&str]) -> Shown {
        let state = self.state;
        match segments {
            [""] => {
                let status = status::describe(state).await;
                html(&view::OverviewView { frame: self.frame("/ui/").await, status })
            }
            ["overview", "stream"] => Ok(self.numbers()),
            ["sessions"] => self.sessions().await,
            ["sessions", id] => self.session(id).await,
            ["sessions", id, "revoke"] => {
                self.may(AdminRole::Operator)?;
                let detail = sessions::detail(state, id).await?;
                let (back, id) = (self.back(&self.parameters()), detail.session.id);
                html(&view::ConfirmView {
                    frame: self.frame("/ui/sessions").await,
                    question: format!("Revoke session {id}? Its tokens are refused from the next request on."),
                    action: format!("/ui/sessions/{id}/revoke"),
                    fields: vec![("back", back.clone())],
                    back,
                    button: "Revoke session".to_owned(),
                })
            }
            ["revocations"] => self.confirm_all().await,
            ["explain"] => {
                self.may(AdminRole::Operator)?;
                let asked = AskedExplanation { method: "GET".to_owned(), ..AskedExplanation::default() };
                self.explained(asked, None, None).await
            }
            ["keys"] => html(&view::KeysView { frame: self.frame("/ui/keys").await, keys: keys::in_force(state) }),
            ["routes"] => html(&view::RoutesView {
                frame: self.frame("/ui/routes").await,
                routes: traffic::all_routes(state),
                upstreams: traffic::all_upstreams(state),
                issuers: state.issuers.report(&state.config.load()).issuers,
            }),
            ["config"] => html(&view::ConfigView {
                frame: self.frame("/ui/config").await,
                config: configuration::describe(state),
            }),
            ["events"] => self.events().await,
            ["events", "stream"] => Ok(events::follow(self.state, self.asked_events().1).await?.map(limited)),
            _ => Err(nothing()),
        }
    }

    async fn change(&self, segments: &[&str], form: BTreeMap<String, String>) -> Shown {
        let state = self.state;
        match segments {
            ["sign-out"] => {
                state.sign_ins.end(&self.caller);
                let mut response = lead_to("/ui/sign-in");
                let folder = format!("/ui/{}/", self.caller.place);
                let gone = cookie_header(self.parts, (SIGN_IN, &folder), "", "; Max-Age=0");
                response.headers_mut().insert(SET_COOKIE, gone);
                Ok(response)
            }
            ["sessions", id, "revoke"] => {
                self.may(AdminRole::Operator)?;
                let ended = sessions::end(&state.gate, id).await?.ended;
                self.done(
                    &form,
                    match ended {
                        0 => format!("Session {} had ended before.", shown(id)),
                        _ => format!("Session {} revoked: its tokens are refused.", shown(id)),
                    },
                )
            }
            ["revocations"] => {
                self.may(AdminRole::Operator)?;
                let request = revocation(&form)?;
                let whose = shown(form.get("user").or(form.get("subject")).map_or("", String::as_str));
                let ended = end_all(state, request).await?.ended;
                self.done(&form, format!("{ended} {} of {whose} revoked.", sessions_in_words(ended)))
            }
            ["explain"] => {
                self.may(AdminRole::Operator)?;
                let text = |name: &str| form.get(name).map(|text| text.trim().to_owned()).unwrap_or_default();
                let some = |name: &str| Some(text(name)).filter(|text| !text.is_empty());
                let asked = AskedExplanation { method: text("method"), path: text("path"), host: text("host") };
                let question = Question {
                    path: some("path"),
                    method: some("method"),
                    host: some("host"),
                    token: some("token").map(Into::into),
                    ..Question::default()
                };
                match explain_question(state, question).await {
                    Ok(report) => self.explained(asked, Some(report), None).await,
                    Err(problem) => self.explained(asked, None, Some(problem)).await,
                }
            }
            _ => Err(nothing()),
        }
    }

    /// The line with the numbers of the overview, again and again.
    fn numbers(&self) -> Response<Body> {
        let ticks = tokio::time::interval(NUMBERS_EVERY);
        let lines = stream::unfold((ticks, Arc::clone(self.state)), |(mut ticks, state)| async move {
            ticks.tick().await;
            let line = status::describe(&state).await.in_words();
            Some((Ok(BodyFrame::data(Bytes::from(format!("data: {line}\n\n")))), (ticks, state)))
        });
        let mut response = Response::new(limited(StreamBody::new(lines).boxed_unsync()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response
    }

    async fn frame(&self, at: &'static str) -> Frame {
        let holder = &self.caller.holder;
        Frame {
            version: env!("CARGO_PKG_VERSION"),
            is_ready: health::readiness(self.state).await.0,
            at,
            name: holder.actor.name.to_string(),
            role: holder.actor.role,
            may_operate: holder.role >= AdminRole::Operator,
            csrf: self.caller.csrf.to_string(),
            notice: self.state.sign_ins.take_notice(&self.caller),
        }
    }

    fn may(&self, role: AdminRole) -> Result<(), Refusal> {
        guard::has_role(&self.caller.holder, role, self.parts)
    }

    fn parameters(&self) -> BTreeMap<String, String> {
        fields(self.parts.uri.query().unwrap_or_default().as_bytes())
    }

    /// Where a form leads back to: a view of the page, whatever the form says.
    fn back(&self, form: &BTreeMap<String, String>) -> String {
        let is_view = |back: &&String| back.starts_with("/ui/sessions") && back.bytes().all(|b| b.is_ascii_graphic());
        form.get("back").filter(is_view).cloned().unwrap_or_else(|| "/ui/sessions".to_owned())
    }

    fn done(&self, form: &BTreeMap<String, String>, notice: String) -> Shown {
        self.state.sign_ins.leave_notice(&self.caller, notice);
        let mut back = self.back(form);
        if let (true, Some(user)) = (!form.contains_key("back"), form.get("user")) {
            back = link("/ui/sessions", &[("user", user)]);
        }
        Ok(lead_to(&back))
    }

    async fn sessions(&self) -> Shown {
        let state = self.state;
        let parameters = self.parameters();
        let text = |name: &str| parameters.get(name).map(|text| text.trim().to_owned()).unwrap_or_default();
        let status = Some(text("status")).filter(|status| !status.is_empty()).unwrap_or_else(|| "live".to_owned());
        let (user, account, subject, client) = (text("user"), text("account"), text("subject"), text("client"));
        let asked = AskedSessions { user, account, subject, client, status };
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let query = SessionsQuery {
            user: some(&asked.user),
            account: some(&asked.account),
            subject: some(&asked.subject),
            client: some(&asked.client),
            status: some(&asked.status).filter(|status| status != "any"),
            cursor: some(&text("cursor")),
            limit: Some(PAGE_SESSIONS.to_owned()),
            ..SessionsQuery::default()
        };
        let (page, problem) = match sessions::find(state, query).await {
            Ok(page) => (Some(page), None),
            // A wrong search is said beside the form.
            Err(refusal) if refusal.code.status().is_client_error() => (None, Some(refusal.detail)),
            Err(refusal) => return Err(refusal),
        };
        let all = self.all_of(&asked).await;
        let own = [
            ("user", asked.user.as_str()),
            ("account", &asked.account),
            ("subject", &asked.subject),
            ("status", &asked.status),
            ("client", &asked.client),
        ];
        let next = page.as_ref().and_then(|page| page.next.as_deref());
        let next = next.map(|next| link("/ui/sessions", &[&own[..], &[("cursor", next)]].concat()));
        let count = page.as_ref().map_or(0, |page| page.sessions.len() as u64);
        let more = if next.is_some() { ", and there may be more on the next page" } else { "" };
        let config = state.config.load();
        html(&view::SessionsView {
            frame: self.frame("/ui/sessions").await,
            statuses: ["live", "ended", "any"].into_iter().chain(sessions::reasons()).collect(),
            clients: config.clients.iter().map(|client| client.id.to_string()).collect(),
            back: link("/ui/sessions", &own),
            count: format!("{count} {}{more}", sessions_in_words(count)),
            asked,
            problem,
            page,
            all,
            next,
        })
    }

    /// The offer to revoke all sessions of the user that was searched for, if there are any.
    async fn all_of(&self, asked: &AskedSessions) -> Option<RevokeAll> {
        if self.may(AdminRole::Operator).is_err() {
            return None;
        }
        let (field, value) = match (asked.user.as_str(), asked.subject.as_str()) {
            ("", "") => return None,
            (user, "") => ("user", user),
            ("", subject) => ("subject", subject),
            (_, _) => return None,
        };
        self.offer(field, value, &asked.account).await.ok().flatten()
    }

    /// The number of live sessions of a user, in a question.
    async fn offer(&self, field: &'static str, value: &str, account: &str) -> Result<Option<RevokeAll>, Refusal> {
        let account = Some(account).filter(|account| field == "user" && !account.is_empty());
        let request = RevocationRequest { dry_run: true, ..named(field, value, account) };
        let live = end_all(self.state, request).await?.ended;
        let (words, whose) = (sessions_in_words(live), shown(value));
        Ok((live > 0).then(|| RevokeAll {
            question: format!(
                "Revoke all {live} live {words} of {whose}? Their tokens are refused from the next request on."
            ),
            button: format!("Revoke all {live} {words}"),
            field,
            value: value.to_owned(),
            account: account.unwrap_or_default().to_owned(),
        }))
    }

    async fn confirm_all(&self) -> Shown {
        self.may(AdminRole::Operator)?;
        let parameters = self.parameters();
        let (field, value) = match (parameters.get("user"), parameters.get("subject")) {
            (Some(user), None) => ("user", user),
            (None, Some(subject)) => ("subject", subject),
            _ => return Err(Refusal::new(Code::InvalidParameter, "one of user and subject is expected")),
        };
        let account = parameters.get("account").map_or("", String::as_str);
        let back = link("/ui/sessions", &[(field, value), ("account", account)]);
        let Some(RevokeAll { question, button, account, .. }) = self.offer(field, value, account).await? else {
            return Ok(lead_to(&back));
        };
        html(&view::ConfirmView {
            frame: self.frame("/ui/sessions").await,
            question,
            action: "/ui/revocations".to_owned(),
            fields: vec![(field, value.clone()), ("account", account), ("back", back.clone())],
            back,
            button,
        })
    }

    async fn session(&self, id: &str) -> Shown {
        let detail = sessions::detail(self.state, id).await?;
        html(&view::SessionView {
            frame: self.frame("/ui/sessions").await,
            of_subject: link("/ui/sessions", &[("subject", &detail.session.subject), ("status", "any")]),
            ended_by: detail.ended_by,
            history: AuditLine::all(&detail.history),
            session: detail.session,
        })
    }

    async fn explained(
        &self,
        asked: AskedExplanation,
        report: Option<super::ExplainReport>,
        problem: Option<String>,
    ) -> Shown {
        let claims = report.as_ref().and_then(|report| report.token.as_ref()).map(view::claims_of).unwrap_or_default();
        html(&view::ExplainView { frame: self.frame("/ui/explain").await, asked, problem, report, claims })
    }

    fn asked_events(&self) -> (AskedEvents, EventsQuery) {
        let parameters = self.parameters();
        let text = |name: &str| parameters.get(name).map(|text| text.trim().to_owned()).unwrap_or_default();
        let some = |name: &str| Some(text(name)).filter(|text| !text.is_empty());
        let asked = AskedEvents { action: text("action"), subject: text("subject"), actor: text("actor") };
        let query = EventsQuery {
            action: some("action"),
            subject: some("subject"),
            actor: some("actor"),
            ..EventsQuery::default()
        };
        (asked, query)
    }

    async fn events(&self) -> Shown {
        let (asked, query) = self.asked_events();
        let (lines, _) = events::kept(self.state, query).await?;
        let own = [("action", asked.action.as_str()), ("subject", &asked.subject), ("actor", &asked.actor)];
        let stream = link("/ui/events/stream", &own);
        let frame = self.frame("/ui/events").await;
        html(&view::EventsView { frame, asked, stream, history: AuditLine::all(&lines) })
    }
}

/// The revocation that a form asks for.
fn revocation(form: &BTreeMap<String, String>) -> Result<RevocationRequest, Refusal> {
    match (form.get("user"), form.get("subject")) {
        (Some(user), None) => {
            let account = form.get("account").map(|account| account.trim()).filter(|account| !account.is_empty());
            Ok(named("user", user, account))
        }
        (None, Some(subject)) => Ok(named("subject", subject, None)),
        _ => Err(Refusal::new(Code::InvalidParameter, "one of user and subject is expected")),
    }
}

fn named(field: &str, value: &str, account: Option<&str>) -> RevocationRequest {
    let (value, account) = (Some(value.to_owned()), account.map(str::to_owned));
    match field {
        "user" => RevocationRequest { user: value, account, ..RevocationRequest::default() },
        _ => RevocationRequest { subject: value, ..RevocationRequest::default() },
    }
}

fn sessions_in_words(number: u64) -> &'static str {
    if number == 1 { "session" } else { "sessions" }
}

fn nothing() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such view")
}

fn no_randomness(error: NoRandomness) -> Refusal {
    Refusal::new(Code::Internal, error.to_string())
}

/// 303: the browser asks for this view next.
fn lead_to(path: &str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(path) = HeaderValue::try_from(path) {
        response.headers_mut().insert(LOCATION, path);
    }
    response
}

fn html(view: &impl Template) -> Shown {
    let text = view.render().map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    Ok(text_of("text/html; charset=utf-8", text.into()))
}

/// A stream that ends in time: the sign-in may have ended, so the browser has to ask again.
fn limited(body: Body) -> Body {
    let limit = Box::pin(tokio::time::sleep(STREAM));
    StreamBody::new(BodyStream::new(body).take_until(limit)).boxed_unsync()
}

fn text_of(media: &'static str, text: Bytes) -> Response<Body> {
    let mut response = Response::new(full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// A refusal as a view, with the headers of the problem document.
fn problem(refusal: Refusal) -> Response<Body> {
    let (code, detail) = (refusal.code, refusal.detail.clone());
    let plain = refusal.into_response();
    let request = Context::current().map(|context| context.id().clone());
    let shown = view::ProblemView {
        title: code.status().canonical_reason().unwrap_or("Error"),
        detail: &detail,
        code: code.word(),
        request: request.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default(),
    };
    let Ok(mut response) = html(&shown) else { return plain };
    *response.status_mut() = plain.status();
    for (name, value) in plain.headers().iter().filter(|(name, _)| **name != CONTENT_TYPE) {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn p56_the_page_is_small_and_has_nothing_inline_and_nothing_from_elsewhere() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/page");
        let views = std::fs::read_dir(folder).unwrap();
        let views: Vec<String> = views.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
        let bytes: usize = views.iter().map(String::len).chain(FILES.map(|(.., text)| text.len())).sum();
        assert!(bytes < 100_000, "{bytes}");
        let script = FILES.iter().find(|(name, ..)| *name == "page.js").unwrap().2;
        assert!(script.len() < 10_000, "{}", script.len());
        for view in &views {
            for inline in
                ["style=", "<style", "onclick", "onload", "javascript:", "|safe", "http://", "https://", "<script>"]
            {
                assert!(!view.contains(inline), "{inline}");
            }
        }
        assert!(!POLICY.contains("unsafe"));
    }
}
