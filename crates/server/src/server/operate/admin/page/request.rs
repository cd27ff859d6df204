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

use super::frame::Frame;
use super::overview::Overview;
use super::sessions::{revocation, sessions_in_words};
use super::sign_ins::SignedIn;
use super::view::{self, AuditLine, FormFields, ReloadPart, link};
use super::{SIGN_IN, Shown, cookie_header, html, in_folder, lead_to};
use crate::log::recent::KEPT_LINES;
use crate::server::operate::admin::events::{self, EventsQuery};
use crate::server::operate::admin::explain::{Question, explain_question};
use crate::server::operate::admin::history::SAMPLE_EVERY;
use crate::server::operate::admin::problem::{Code, Refusal};
use crate::server::operate::admin::revocations;
use crate::server::operate::admin::sessions::{self, SessionInfo};
use crate::server::operate::admin::state::GateState;
use crate::server::operate::admin::{AdminState, Body, ExplainReport, guard, issuers, shown, traffic};
use rotogate_config::AdminRole;

const PAGE_LINES: usize = 60;
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
            ["outcome"] => self.outcome().await,
            ["overview", "stream"] => Ok(self.numbers()),
            ["refused"] => self.refused().await,
            ["sessions"] => self.sessions().await,
            ["sessions", "revoke"] => self.confirm_several().await,
            ["sessions", id] => self.session(id).await,
            ["sessions", id, "revoke"] => {
                self.may(AdminRole::Operator)?;
                let detail = sessions::show(state, id).await?;
                let back = self.back(&self.parameters());
                let SessionInfo { id, name, .. } = detail.session;
                let whose = name.map_or_else(String::new, |name| format!(" of {name}"));
                html(&view::ConfirmView {
                    frame: self.frame("/ui/sessions").await,
                    question: "Revoke this session?".to_owned(),
                    detail: "Its tokens are refused from the next request on.".to_owned(),
                    about: format!("{id}{whose}"),
                    action: format!("/ui/sessions/{id}/revoke"),
                    fields: vec![("back", back.clone())],
                    back,
                    button: "Revoke session".to_owned(),
                })
            }
            ["revocations"] => self.confirm_all().await,
            ["explain"] => {
                self.may(AdminRole::Operator)?;
                self.explained(self.parameters().or("method", "GET"), None, None).await
            }
            ["api-keys"] => self.api_keys(None).await,
            ["api-keys", id, what @ ("revoke" | "rotate")] => self.confirm_api_key(id, what).await,
            ["users"] => self.users(None).await,
            ["users", "password"] => self.confirm_user("password").await,
            ["users", "disable"] => self.confirm_user("disable").await,
            ["keys"] => self.keys(None).await,
            ["keys", rest @ ..] => self.confirm_key(rest).await,
            ["routes"] => html(&view::RoutesView {
                frame: self.frame("/ui/routes").await,
                routes: traffic::routes(state),
                upstreams: traffic::upstreams(state).upstreams,
                issuers: issuers::list(state).issuers,
            }),
            ["config"] => self.config(ReloadPart::default()).await,
            ["config", "reload"] => self.confirm_reload().await,
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
            ["users", rest @ ..] => self.change_users(rest, &form).await,
            ["keys", rest @ ..] => self.change_keys(rest, &form).await,
            ["config", rest @ ..] => self.change_config(rest, &form).await,
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
        let state = Arc::clone(self.state);
        let row = move |line: Value| {
            let line = AuditLine::from_json(&line, |subject| sessions::name_of(&state, subject));
            let row = view::LineView { line, heading: "" }.render();
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
        let is_listed =
            |back: &str| ["/ui/sessions", "/ui/api-keys", "/ui/users"].iter().any(|view| back.starts_with(view));
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

    async fn explained(&self, asked: FormFields, report: Option<ExplainReport>, problem: Option<String>) -> Shown {
        let claims = report.as_ref().and_then(|report| report.token.as_ref()).map(view::claims_of).unwrap_or_default();
        html(&view::ExplainView { frame: self.frame("/ui/explain").await, asked, problem, report, claims })
    }

    async fn events(&self) -> Shown {
        let asked = self.parameters();
        let query = EventsQuery { limit: Some(KEPT_LINES.to_string()), ..events_query(&asked) };
        let (lines, _) = events::kept(self.state, query).await?;
        let all = AuditLine::all(self.state, &lines);
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

pub(super) fn selected(form: &FormFields) -> impl Iterator<Item = &str> {
    form.get("id").into_iter().flat_map(|ids| ids.split_whitespace())
}

pub(super) fn nothing() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such view")
}

/// Ends a stream after [`STREAM`], so that the sign-in is checked again.
fn limited(stream: Response<Body>) -> Response<Body> {
    let limit = Box::pin(tokio::time::sleep(STREAM));
    stream.map(|body| StreamBody::new(BodyStream::new(body).take_until(limit)).boxed_unsync())
}
