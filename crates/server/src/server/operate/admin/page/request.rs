//! The views and forms for a signed-in operator.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use futures_util::{StreamExt, stream};
use http::Response;
use http::header::SET_COOKIE;
use http::request::Parts;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use serde_json::Value;

use super::overview::{self, Overview};
use super::sign_ins::SignedIn;
use super::view::{self, AuditLine, FormFields, Frame, RevokeAll, link};
use super::{SIGN_IN, Shown, cookie_header, html, in_folder, lead_to};
use crate::log::recent::KEPT_LINES;
use crate::server::operate::admin::events::{self, EventsQuery};
use crate::server::operate::admin::explain::{Question, explain_question};
use crate::server::operate::admin::history::{self, SAMPLE_EVERY};
use crate::server::operate::admin::problem::{Code, Refusal};
use crate::server::operate::admin::revocations::{self, RevocationRequest};
use crate::server::operate::admin::sessions::{self, SessionsQuery};
use crate::server::operate::admin::state::GateState;
use crate::server::operate::admin::{
    AdminState, Body, ExplainReport, configuration, guard, issuers, keys, shown, traffic,
};
use rotogate_config::AdminRole;

const PAGE_SESSIONS: &str = "50";
const PAGE_LINES: usize = 100;
/// The maximum duration of an event stream. Afterwards the browser connects again, and the gate checks the cookie
/// again.
const STREAM: Duration = Duration::from_secs(60);

pub(super) struct Request<'a> {
    pub(super) state: &'a Arc<AdminState>,
    pub(super) parts: &'a Parts,
    pub(super) caller: SignedIn,
}

impl Request<'_> {
    pub(super) async fn view(&self, segments: &[&str]) -> Shown {
        let state = self.state;
        match segments {
            [""] => {
                let (frame, now) = (self.frame("/ui/").await, Overview::now(state).await);
                html(&view::OverviewView { frame, now })
            }
            ["outcome"] => {
                let word = self.parameters().get("word").unwrap_or_default().to_owned();
                let (status, meaning, remedy) = overview::explained(&word).ok_or_else(nothing)?;
                let quarter = history::sum(state.history.samples().iter());
                let number = quarter.refusals.iter().find(|(known, _)| *known == word).map_or(0, |(_, number)| *number);
                let frame = self.frame("/ui/").await;
                html(&view::OutcomeView { frame, word, status, meaning, remedy, number })
            }
            ["overview", "stream"] => Ok(self.numbers()),
            ["sessions"] => self.sessions().await,
            ["sessions", "revoke"] => self.confirm_several().await,
            ["sessions", id] => self.session(id).await,
            ["sessions", id, "revoke"] => {
                self.may(AdminRole::Operator)?;
                let detail = sessions::show(state, id).await?;
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
                self.explained(FormFields::default().or("method", "GET"), None, None).await
            }
            ["api-keys"] => self.api_keys(None).await,
            ["api-keys", id, what @ ("revoke" | "rotate")] => self.confirm_api_key(id, what).await,
            ["keys"] => html(&view::KeysView { frame: self.frame("/ui/keys").await, keys: keys::list(state) }),
            ["routes"] => html(&view::RoutesView {
                frame: self.frame("/ui/routes").await,
                routes: traffic::routes(state).routes,
                upstreams: traffic::upstreams(state).upstreams,
                issuers: issuers::list(state).issuers,
            }),
            ["config"] => {
                html(&view::ConfigView { frame: self.frame("/ui/config").await, config: configuration::show(state) })
            }
            ["events"] => self.events().await,
            ["events", "stream"] => self.rows().await,
            _ => Err(nothing()),
        }
    }

    pub(super) async fn change(&self, segments: &[&str], form: FormFields) -> Shown {
        let state = self.state;
        match segments {
            ["sign-out"] => {
                state.sign_ins.end(&self.caller);
                let mut response = lead_to("/ui/sign-in");
                let gone = cookie_header(self.parts, (SIGN_IN, &self.caller.folder()), "", "; Max-Age=0");
                response.headers_mut().insert(SET_COOKIE, gone);
                Ok(response)
            }
            ["sessions", "revoke"] => {
                self.may(AdminRole::Operator)?;
                let mut ended = 0;
                for id in selected(&form) {
                    ended += sessions::revoke(&state.gate, id).await?.ended;
                }
                self.done(&form, format!("{ended} selected {} revoked.", sessions_in_words(ended)))
            }
            ["sessions", id, "revoke"] => {
                self.may(AdminRole::Operator)?;
                let ended = sessions::revoke(&state.gate, id).await?.ended;
                self.done(
                    &form,
                    match ended {
                        0 => format!("Session {} had already ended.", shown(id)),
                        _ => format!("Session {} revoked: its tokens are refused.", shown(id)),
                    },
                )
            }
            ["revocations"] => {
                self.may(AdminRole::Operator)?;
                let request = revocation(&form)?;
                let whose = shown(form.get("user").or(form.get("subject")).unwrap_or_default());
                let ended = revocations::revoke(state, request).await?.ended;
                self.done(&form, format!("{ended} {} of {whose} revoked.", sessions_in_words(ended)))
            }
            ["api-keys", rest @ ..] => self.change_api_keys(rest, &form).await,
            ["explain"] => {
                self.may(AdminRole::Operator)?;
                let question = Question {
                    path: form.some("path"),
                    method: form.some("method"),
                    host: form.some("host"),
                    token: form.some("token").map(Into::into),
                    ..Question::default()
                };
                match explain_question(state, question).await {
                    Ok(report) => self.explained(form, Some(report), None).await,
                    Err(problem) => self.explained(form, None, Some(problem)).await,
                }
            }
            _ => Err(nothing()),
        }
    }

    fn numbers(&self) -> Response<Body> {
        let (ticks, state) = (tokio::time::interval(SAMPLE_EVERY), Arc::clone(self.state));
        let folder = self.caller.folder();
        let parts = stream::unfold((ticks, state), |(mut ticks, state)| async move {
            ticks.tick().await;
            let part = view::LiveView { now: Overview::now(&state).await }.render().ok()?;
            Some((part, (ticks, state)))
        });
        limited(events::event_stream(parts.map(move |part| in_folder(part, &folder))))
    }

    /// Streams the last events as table rows, then each new event.
    async fn rows(&self) -> Shown {
        let (lines, folder) =
            (events::lines(self.state, events_query(&self.parameters())).await?, self.caller.folder());
        let row = move |line: Value| {
            let row = view::LineView { line: AuditLine::from_json(&line) }.render();
            in_folder(row.unwrap_or_default(), &folder)
        };
        Ok(limited(events::event_stream(lines.map(row))))
    }

    pub(super) async fn frame(&self, at: &'static str) -> Frame {
        let holder = &self.caller.holder;
        Frame {
            version: env!("CARGO_PKG_VERSION"),
            state: GateState::now(self.state).await,
            at,
            name: holder.actor.name.to_string(),
            role: holder.actor.role,
            may_operate: holder.role >= AdminRole::Operator,
            may_mint: holder.role >= AdminRole::Admin,
            csrf: self.caller.csrf.to_string(),
            notice: self.state.sign_ins.take_notice(&self.caller),
        }
    }

    pub(super) fn may(&self, role: AdminRole) -> Result<(), Refusal> {
        guard::has_role(&self.caller.holder, role, self.parts)
    }

    pub(super) fn parameters(&self) -> FormFields {
        FormFields::parse(self.parts.uri.query().unwrap_or_default().as_bytes())
    }

    /// Returns the view that is shown after the form. A target outside the page is ignored.
    pub(super) fn back(&self, form: &FormFields) -> String {
        let is_listed = |back: &str| ["/ui/sessions", "/ui/api-keys"].iter().any(|view| back.starts_with(view));
        let is_view = |back: &&str| is_listed(back) && back.bytes().all(|b| b.is_ascii_graphic());
        form.get("back").filter(is_view).unwrap_or("/ui/sessions").to_owned()
    }

    pub(super) fn done(&self, form: &FormFields, notice: String) -> Shown {
        self.state.sign_ins.leave_notice(&self.caller, notice);
        let mut back = self.back(form);
        if let (None, Some(user)) = (form.get("back"), form.get("user")) {
            back = link("/ui/sessions", &[("user", user)]);
        }
        Ok(lead_to(&back))
    }

    async fn sessions(&self) -> Shown {
        let state = self.state;
        let parameters = self.parameters();
        let order = if parameters.text("order") == "oldest" { "oldest" } else { "newest" };
        let asked = parameters.or("status", "live");
        let query = SessionsQuery {
            user: asked.some("user"),
            account: asked.some("account"),
            subject: asked.some("subject"),
            client: asked.some("client"),
            status: asked.some("status").filter(|status| status != "any"),
            order: Some(order.to_owned()),
            cursor: asked.some("cursor"),
            limit: Some(PAGE_SESSIONS.to_owned()),
            ..SessionsQuery::default()
        };
        let (page, problem) = match sessions::list(state, query).await {
            Ok(page) => (Some(page), None),
            Err(refusal) if refusal.code.status().is_client_error() => (None, Some(refusal.detail)),
            Err(refusal) => return Err(refusal),
        };
        let all = self.all_of(&asked).await;
        let own = [
            ("user", asked.text("user")),
            ("account", asked.text("account")),
            ("subject", asked.text("subject")),
            ("status", asked.text("status")),
            ("client", asked.text("client")),
            ("order", if order == "newest" { "" } else { order }),
        ];
        let next = page.as_ref().and_then(|page| page.next.as_deref());
        let next = next.map(|next| link("/ui/sessions", &[&own[..], &[("cursor", next)]].concat()));
        let count = page.as_ref().map_or(0, |page| page.sessions.len() as u64);
        let more = if next.is_some() { " on this page" } else { "" };
        let live = state.history.live_sessions().map_or_else(String::new, |live| live.in_words());
        let config = state.config.load();
        html(&view::SessionsView {
            frame: self.frame("/ui/sessions").await,
            statuses: ["live", "ended", "any"].into_iter().chain(sessions::reasons()).collect(),
            clients: config.clients.iter().map(|client| client.id.to_string()).collect(),
            back: link("/ui/sessions", &[&own[..], &[("cursor", asked.text("cursor"))]].concat()),
            count: format!("{count} {}{more}, the {order} first. {live}", sessions_in_words(count)),
            asked,
            order,
            problem,
            page,
            all,
            next,
        })
    }

    /// Offers to revoke all sessions of the user that the operator searched for.
    async fn all_of(&self, asked: &FormFields) -> Option<RevokeAll> {
        if self.may(AdminRole::Operator).is_err() {
            return None;
        }
        let (field, value) = match (asked.text("user"), asked.text("subject")) {
            ("", "") => return None,
            (user, "") => ("user", user),
            ("", subject) => ("subject", subject),
            (_, _) => return None,
        };
        self.offer(field, value, asked.text("account")).await.ok().flatten()
    }

    async fn offer(&self, field: &'static str, value: &str, account: &str) -> Result<Option<RevokeAll>, Refusal> {
        let account = Some(account).filter(|account| field == "user" && !account.is_empty());
        let request = RevocationRequest { dry_run: true, ..named(field, value, account) };
        let live = revocations::revoke(self.state, request).await?.ended;
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

    async fn confirm_several(&self) -> Shown {
        self.may(AdminRole::Operator)?;
        let parameters = self.parameters();
        let (back, ids) = (self.back(&parameters), Vec::from_iter(selected(&parameters)));
        if ids.is_empty() {
            return self.done(&parameters, "No session was selected.".to_owned());
        }
        let (number, words) = (ids.len(), sessions_in_words(ids.len() as u64));
        let own = [("back", back.clone())];
        html(&view::ConfirmView {
            frame: self.frame("/ui/sessions").await,
            question: format!("Revoke {number} selected {words}? Their tokens are refused from the next request on."),
            action: "/ui/sessions/revoke".to_owned(),
            fields: own.into_iter().chain(ids.iter().map(|id| ("id", (*id).to_owned()))).collect(),
            back,
            button: format!("Revoke {number} {words}"),
        })
    }

    async fn confirm_all(&self) -> Shown {
        self.may(AdminRole::Operator)?;
        let parameters = self.parameters();
        let (field, value) = match (parameters.get("user"), parameters.get("subject")) {
            (Some(user), None) => ("user", user),
            (None, Some(subject)) => ("subject", subject),
            _ => return Err(Refusal::new(Code::InvalidParameter, "exactly one of `user` and `subject` is expected")),
        };
        let account = parameters.get("account").unwrap_or_default();
        let back = match parameters.get("back") {
            Some(_) => self.back(&parameters),
            None => link("/ui/sessions", &[(field, value), ("account", account)]),
        };
        let Some(RevokeAll { question, button, account, .. }) = self.offer(field, value, account).await? else {
            return Ok(lead_to(&back));
        };
        html(&view::ConfirmView {
            frame: self.frame("/ui/sessions").await,
            question,
            action: "/ui/revocations".to_owned(),
            fields: vec![(field, value.to_owned()), ("account", account), ("back", back.clone())],
            back,
            button,
        })
    }

    async fn session(&self, id: &str) -> Shown {
        let detail = sessions::show(self.state, id).await?;
        html(&view::SessionView {
            frame: self.frame("/ui/sessions").await,
            of_subject: link("/ui/sessions", &[("subject", &detail.session.subject), ("status", "any")]),
            ended_by: detail.ended_by,
            history: AuditLine::all(&detail.history),
            session: detail.session,
        })
    }

    async fn explained(&self, asked: FormFields, report: Option<ExplainReport>, problem: Option<String>) -> Shown {
        let claims = report.as_ref().and_then(|report| report.token.as_ref()).map(view::claims_of).unwrap_or_default();
        html(&view::ExplainView { frame: self.frame("/ui/explain").await, asked, problem, report, claims })
    }

    async fn events(&self) -> Shown {
        let asked = self.parameters();
        let query = EventsQuery { limit: Some(KEPT_LINES.to_string()), ..events_query(&asked) };
        let (lines, _) = events::kept(self.state, query).await?;
        let all = AuditLine::all(&lines);
        let before = asked.get("before").unwrap_or_default();
        let first = all.iter().position(|line| line.id == before).map_or(0, |place| place + 1);
        let own = ["action", "subject", "actor"].map(|name| (name, asked.text(name)));
        let page: Vec<_> = all.into_iter().skip(first).take(PAGE_LINES).collect();
        let older = page.last().filter(|_| first + page.len() < lines.len());
        html(&view::EventsView {
            frame: self.frame("/ui/events").await,
            stream: if first == 0 { link("/ui/events/stream", &own) } else { String::new() },
            older: older.map(|last| link("/ui/events", &[&own[..], &[("before", &last.id)]].concat())),
            asked,
            count: lines.len(),
            history: page,
        })
    }
}

fn events_query(asked: &FormFields) -> EventsQuery {
    let (action, subject, actor) = (asked.some("action"), asked.some("subject"), asked.some("actor"));
    EventsQuery { action, subject, actor, ..EventsQuery::default() }
}

fn selected(form: &FormFields) -> impl Iterator<Item = &str> {
    form.get("id").into_iter().flat_map(|ids| ids.split_whitespace())
}

fn revocation(form: &FormFields) -> Result<RevocationRequest, Refusal> {
    match (form.get("user"), form.get("subject")) {
        (Some(user), None) => Ok(named("user", user, form.some("account").as_deref())),
        (None, Some(subject)) => Ok(named("subject", subject, None)),
        _ => Err(Refusal::new(Code::InvalidParameter, "exactly one of `user` and `subject` is expected")),
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

pub(super) fn nothing() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such view")
}

/// Ends a stream after [`STREAM`], so that the sign-in is checked again.
fn limited(stream: Response<Body>) -> Response<Body> {
    let limit = Box::pin(tokio::time::sleep(STREAM));
    stream.map(|body| StreamBody::new(BodyStream::new(body).take_until(limit)).boxed_unsync())
}
