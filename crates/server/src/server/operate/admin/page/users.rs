//! The view of the users in the users file, and its forms.

use askama::Template;
use secrecy::ExposeSecret;

use super::confirmation::{Confirmation, refused};
use super::frame::Frame;
use super::request::{Request, nothing};
use super::view::{FormFields, link};
use super::{Shown, html};
use crate::server::operate::admin::problem::{Code, Refusal};
use crate::server::operate::admin::users::{
    self, NewPassword, NewUserRequest, UserInfo, UserList, UserRequest, UsersQuery,
};
use crate::server::operate::admin::{AdminState, shown};
use rotogate_config::AdminRole;

const VIEW: &str = "/ui/users";
const PAGE_USERS: &str = "50";

#[derive(Template)]
#[template(path = "page/users.html")]
struct UsersView {
    frame: Frame,
    /// The text that the operator searches for.
    words: String,
    /// `None` if no directory is a file.
    list: Option<UserList>,
    /// Sentences about users who are not in the file, with code in backticks.
    elsewhere: Vec<String>,
    problem: Option<String>,
    /// Why the gate cannot change the file.
    read_only: Option<String>,
    /// This page of the list.
    back: String,
    next: Option<String>,
}

impl UsersView {
    fn may_change(&self) -> bool {
        self.frame.may_mint && self.read_only.is_none()
    }

    fn count(&self, list: &UserList) -> String {
        let users = if list.total == 1 { "1 user".to_owned() } else { format!("{} users", list.total) };
        match (&*self.words, list.total) {
            ("", _) => users,
            (words, 1) => format!("{users}, whose name contains {words}"),
            (words, _) => format!("{users}, whose names contain {words}"),
        }
    }

    fn sessions_of(&self, user: &UserInfo) -> String {
        link("/ui/sessions", &[("subject", &user.subject), ("status", "any")])
    }
}

#[derive(Template)]
#[template(path = "page/new_password.html")]
struct NewPasswordView {
    frame: Frame,
    made: NewPassword,
    /// What happened to the user.
    done: &'static str,
}

impl Request<'_> {
    /// `refusal` says why the users were not changed.
    pub(super) async fn users(&self, refusal: Option<Refusal>) -> Shown {
        let state = self.state;
        let asked = self.parameters();
        let (words, after) = (asked.text("q").to_owned(), asked.text("after"));
        let list = match listed(state, &words, after) {
            Ok(list) => Some(list),
            Err(refusal) if refusal.code == Code::NotConfigured => None,
            Err(refusal) => return Err(refusal),
        };
        let next = list.as_ref().and_then(|list| list.next.as_deref());
        let (code, mut problem) = refusal.map(|refusal| (refusal.code, refusal.detail)).unzip();
        let read_only = match code {
            Some(Code::ReadOnlyUsers) => problem.take(),
            _ => users::unwritable(state),
        };
        let view = html(&UsersView {
            frame: self.frame(VIEW).await,
            back: link(VIEW, &[("q", &words), ("after", after)]),
            next: next.map(|next| link(VIEW, &[("q", &words), ("after", next)])),
            words,
            list,
            elsewhere: users::elsewhere(state),
            problem,
            read_only,
        });
        match code {
            Some(code) => refused(view, code),
            None => view,
        }
    }

    pub(super) async fn confirm_user(&self, what: &'static str) -> Shown {
        self.may(AdminRole::Admin)?;
        let asked = self.parameters();
        let (user, account) = (asked.get("user").unwrap_or_default(), asked.get("account").unwrap_or_default());
        let whose = if account.is_empty() { shown(user) } else { format!("{} of {}", shown(user), shown(account)) };
        let (question, detail, button) = match what {
            "disable" => (
                format!("Disable {whose}?"),
                "The user can no longer log in, and all sessions of the user end at once.",
                "Disable user",
            ),
            _ => (
                format!("Set a new password for {whose}?"),
                "The gate chooses the password and shows it once. The old password stops working, and all sessions of \
                 the user end at once.",
                "Set new password",
            ),
        };
        let back = self.back(&asked);
        self.ask(Confirmation {
            view: VIEW,
            question,
            detail: detail.to_owned(),
            action: format!("{VIEW}/{what}"),
            fields: vec![("user", user.to_owned()), ("account", account.to_owned()), ("back", back.clone())],
            back,
            button,
        })
        .await
    }

    // Only this response shows the password. It is not stored, so it is in no notice and no redirect.
    pub(super) async fn change_users(&self, segments: &[&str], form: &FormFields) -> Shown {
        self.may(AdminRole::Admin)?;
        let state = self.state;
        let request = || UserRequest {
            user: form.get("user").unwrap_or_default().to_owned(),
            account: form.get("account").map(str::to_owned),
        };
        let name = shown(form.get("user").unwrap_or_default());
        let changed = match segments {
            [] => users::add(state, new_user(form)).await.map(|made| (made, "was added")),
            ["password"] => users::set_password(state, request())
                .await
                .map(|made| (made, "has a new password; all earlier sessions have ended")),
            ["disable"] => match users::disable(state, request()).await {
                Ok(_) => return self.done(form, format!("{name} is disabled: all sessions of the user have ended.")),
                Err(refusal) => Err(refusal),
            },
            ["enable"] => match users::enable(state, request()).await {
                Ok(_) => return self.done(form, format!("{name} can log in again.")),
                Err(refusal) => Err(refusal),
            },
            _ => return Err(nothing()),
        };
        match changed {
            Ok((made, done)) => html(&NewPasswordView { frame: self.frame(VIEW).await, made, done }),
            Err(refusal) if refusal.code.status().is_client_error() => self.users(Some(refusal)).await,
            Err(refusal) => Err(refusal),
        }
    }
}

fn listed(state: &AdminState, words: &str, after: &str) -> Result<UserList, Refusal> {
    let cursor = Some(after.to_owned()).filter(|after| !after.is_empty());
    let query = UsersQuery { name: Some(words.to_owned()), cursor, limit: Some(PAGE_USERS.to_owned()) };
    users::list(state, query)
}

fn new_user(form: &FormFields) -> NewUserRequest {
    NewUserRequest {
        user: form.text("user").to_owned(),
        account: form.some("account"),
        scopes: Some(form.text("scopes").split_whitespace().collect::<Vec<_>>().join(" ")),
        ..NewUserRequest::default()
    }
}
