//! The question before a change, and views that say why a change was refused.

use super::request::Request;
use super::view::ConfirmView;
use super::{Shown, html};
use crate::server::operate::admin::problem::Code;

/// A question before a change. Its button sends the form.
pub(super) struct Confirmation {
    /// The view to which the question belongs.
    pub(super) view: &'static str,
    pub(super) question: String,
    /// What the change does.
    pub(super) detail: String,
    pub(super) action: String,
    pub(super) fields: Vec<(&'static str, String)>,
    /// The view after a cancellation.
    pub(super) back: String,
    pub(super) button: &'static str,
}

impl Request<'_> {
    pub(super) async fn ask(&self, asked: Confirmation) -> Shown {
        let Confirmation { view, question, detail, action, fields, back, button } = asked;
        html(&ConfirmView {
            frame: self.frame(view).await,
            question,
            detail,
            about: String::new(),
            action,
            fields,
            back,
            button: button.to_owned(),
        })
    }
}

/// Gives a view the status of a refusal.
pub(super) fn refused(shown: Shown, code: Code) -> Shown {
    let mut response = shown?;
    *response.status_mut() = code.status();
    Ok(response)
}
