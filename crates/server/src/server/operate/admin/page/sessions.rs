//! The views of sessions, and the questions before sessions are revoked.

use super::request::{Request, selected};
use super::search::Search;
use super::view::{self, AuditLine, FormFields, RevokeAll, link};
use super::{Shown, html, lead_to};
use crate::server::operate::admin::problem::{Code, Refusal};
use crate::server::operate::admin::revocations::{self, RevocationRequest, subject_of};
use crate::server::operate::admin::sessions::{self, Page};
use crate::server::operate::admin::shown;
use rotogate_config::AdminRole;
use rotogate_core::session::SessionId;

const PAGE_SESSIONS: &str = "25";
const REFUSED_NOW: &str = "Their tokens are refused from the next request on.";

/// `user` or `subject`, and the name or the subject.
type SearchedUser<'a> = (&'static str, &'a str);

impl Request<'_> {
    pub(super) async fn sessions(&self) -> Shown {
        let state = self.state;
        let parameters = self.parameters();
        let search = Search::new(&parameters);
        let cursor = parameters.text("cursor");
        if let Some(id) = SessionId::parse(&search.words)
            && sessions::show(state, &search.words).await.is_ok()
        {
            return Ok(lead_to(&format!("/ui/sessions/{id}")));
        }
        let (found, whose) = self.find(&search, cursor).await;
        let (page, problem) = match found {
            Ok(page) => (Some(page), None),
            Err(refusal) if refusal.code.status().is_client_error() => (None, Some(in_words_of_field(&refusal.detail))),
            Err(refusal) => return Err(refusal),
        };
        let next = page.as_ref().and_then(|page| page.next.as_deref()).map(|next| search.path(next));
        let count = page.as_ref().map_or(0, |page| page.sessions.len() as u64);
        // A page of several does not show how many there are in total.
        let more = match (&next, state.history.live_sessions()) {
            (None, _) => String::new(),
            (Some(_), None) => " on this page".to_owned(),
            (Some(_), Some(live)) => format!(" on this page, {}", live.in_words()),
        };
        html(&view::SessionsView {
            frame: self.frame("/ui/sessions").await,
            all: self.all_of(whose, &search, page.as_ref().filter(|_| cursor.is_empty())),
            back: search.path(cursor),
            count: format!("{count} {}{more}", sessions_in_words(count)),
            search,
            problem,
            page,
            next,
        })
    }

    /// Returns the sessions, and whose sessions they are, if the search names a user or a subject. Words without a key
    /// are a user's name, or else a subject.
    async fn find<'a>(&self, search: &'a Search, cursor: &str) -> (Result<Page, Refusal>, Option<SearchedUser<'a>>) {
        let state = self.state;
        let list =
            async |user, subject| sessions::list(state, search.query(user, subject, cursor, PAGE_SESSIONS)).await;
        match (&*search.user, &*search.subject, &*search.words) {
            ("", "", "") => (list("", "").await, None),
            ("", "", words) => {
                let account = Some(&*search.account).filter(|account| !account.is_empty());
                match subject_of(state, words, account) {
                    Ok(_) => (list(words, "").await, Some(("user", words))),
                    Err(unknown) if matches!(unknown.code, Code::UnknownTarget | Code::NotConfigured) => {
                        match list("", words).await {
                            Ok(page) if page.sessions.is_empty() && cursor.is_empty() => {
                                let what = match unknown.code {
                                    Code::UnknownTarget => {
                                        format!("{}, and no session here has this subject", unknown.detail)
                                    }
                                    _ => format!("no session here has the subject {}", shown(words)),
                                };
                                (Err(Refusal::new(Code::UnknownTarget, what)), None)
                            }
                            found => (found, Some(("subject", words))),
                        }
                    }
                    Err(refusal) => (Err(refusal), None),
                }
            }
            (user, subject, "") => {
                let whose = match (user, subject) {
                    (user, "") => Some(("user", user)),
                    ("", subject) => Some(("subject", subject)),
                    (_, _) => None,
                };
                (list(user, subject).await, whose)
            }
            (..) => {
                let what = "either a name, user: or subject: is expected";
                (Err(Refusal::new(Code::InvalidParameter, what)), None)
            }
        }
    }

    /// Offers to revoke all sessions of the user that the operator searched for. The number is known if `first`, the
    /// first page, has all of them: a user's thousands of sessions are not counted for each view.
    fn all_of(&self, whose: Option<SearchedUser<'_>>, search: &Search, first: Option<&Page>) -> Option<RevokeAll> {
        self.may(AdminRole::Operator).ok()?;
        let (field, value) = whose?;
        let has_all = |page: &&Page| page.next.is_none() && search.finds_all_live(field);
        let live =
            first.filter(has_all).map(|page| page.sessions.iter().filter(|it| it.status == "live").count() as u64);
        (live != Some(0)).then(|| RevokeAll::new(live, (field, value), &search.account))
    }

    async fn offer(&self, field: &'static str, value: &str, account: &str) -> Result<Option<RevokeAll>, Refusal> {
        let account = Some(account).filter(|account| field == "user" && !account.is_empty());
        let request = RevocationRequest { dry_run: true, ..named(field, value, account) };
        let live = revocations::revoke(self.state, request).await?.ended;
        Ok((live > 0).then(|| RevokeAll::new(Some(live), (field, value), account.unwrap_or_default())))
    }

    pub(super) async fn confirm_several(&self) -> Shown {
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
            question: format!("Revoke {number} selected {words}?"),
            detail: REFUSED_NOW.to_owned(),
            about: String::new(),
            action: "/ui/sessions/revoke".to_owned(),
            fields: own.into_iter().chain(ids.iter().map(|id| ("id", (*id).to_owned()))).collect(),
            back,
            button: format!("Revoke {number} {words}"),
        })
    }

    pub(super) async fn confirm_all(&self) -> Shown {
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
        let Some(RevokeAll { question, detail, button, account, .. }) = self.offer(field, value, account).await? else {
            return Ok(lead_to(&back));
        };
        html(&view::ConfirmView {
            frame: self.frame("/ui/sessions").await,
            question,
            detail: detail.to_owned(),
            about: String::new(),
            action: "/ui/revocations".to_owned(),
            fields: vec![(field, value.to_owned()), ("account", account), ("back", back.clone())],
            back,
            button,
        })
    }

    pub(super) async fn session(&self, id: &str) -> Shown {
        let detail = sessions::show(self.state, id).await?;
        html(&view::SessionView {
            frame: self.frame("/ui/sessions").await,
            of_subject: link("/ui/sessions", &[("subject", &detail.session.subject), ("status", "any")]),
            ended_by: detail.ended_by,
            history: AuditLine::all(self.state, &detail.history),
            session: detail.session,
        })
    }
}

impl RevokeAll {
    fn new(live: Option<u64>, (field, value): SearchedUser<'_>, account: &str) -> Self {
        let whose = shown(value);
        let (question, button) = match live {
            Some(live) => {
                let words = sessions_in_words(live);
                (format!("Revoke all {live} live {words} of {whose}?"), format!("Revoke all {live} {words}"))
            }
            None => (format!("Revoke all live sessions of {whose}?"), "Revoke all sessions".to_owned()),
        };
        // Only a user's name needs the account.
        let account = if field == "user" { account.to_owned() } else { String::new() };
        Self { question, detail: REFUSED_NOW, button, field, value: value.to_owned(), account }
    }
}

/// Replaces the options of the command `rotogate session` by the words of the search field.
fn in_words_of_field(detail: &str) -> String {
    let mut text = detail.to_owned();
    for (option, key) in [("--user ", "user:"), ("--subject ", "subject:"), ("--account", "account:NAME")] {
        text = text.replace(option, key);
    }
    text.replace("use --subject", "search for subject:SUBJECT")
}

pub(super) fn revocation(form: &FormFields) -> Result<RevocationRequest, Refusal> {
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

pub(super) fn sessions_in_words(number: u64) -> &'static str {
    if number == 1 { "session" } else { "sessions" }
}
