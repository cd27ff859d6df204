//! The view of API keys, and its forms.

use super::request::{Request, nothing};
use super::view::{self, FormFields, link};
use super::{Shown, html};
use crate::server::operate::admin::api_keys::{self, ApiKeyRequest, RotateKeyRequest};
use crate::server::operate::admin::problem::{Code, Refusal};
use crate::server::operate::admin::sessions::name_of;
use crate::server::operate::admin::shown;
use rotogate_config::AdminRole;

const VIEW: &str = "/ui/api-keys";
const MOST: usize = 100;

impl Request<'_> {
    /// Shows the newest API keys first. `problem` is the reason why an API key was not created.
    pub(super) async fn api_keys(&self, problem: Option<String>) -> Shown {
        let subject = self.parameters().text("subject").to_owned();
        let asked = Some(&*subject).filter(|subject| !subject.is_empty());
        let (keys, is_more, problem) = match api_keys::newest(self.state, asked, MOST).await {
            Ok((keys, is_more)) => (keys, is_more, problem),
            Err(refusal) if refusal.code == Code::NotConfigured => (Vec::new(), false, Some(refusal.detail)),
            Err(refusal) => return Err(refusal),
        };
        let number = keys.len();
        let words = if number == 1 { "key" } else { "keys" };
        let more = if is_more { " There are more: search for an owner." } else { "" };
        let keys = keys.into_iter().map(|key| {
            let owner = name_of(self.state, &key.subject);
            (key, owner)
        });
        html(&view::ApiKeysView {
            frame: self.frame(VIEW).await,
            back: link(VIEW, &[("subject", &subject)]),
            count: format!("{number} {words}, the newest first{more}"),
            subject,
            problem,
            keys: keys.collect(),
        })
    }

    pub(super) async fn confirm_api_key(&self, id: &str, what: &str) -> Shown {
        self.may(role_to(what))?;
        let back = self.back(&self.parameters());
        let (detail, verb) = match what {
            "revoke" => ("It is refused from the next request on.", "Revoke"),
            _ => ("It stays valid for the overlap. The new key is shown only once.", "Rotate"),
        };
        html(&view::ConfirmView {
            frame: self.frame(VIEW).await,
            question: format!("{verb} this key?"),
            detail: detail.to_owned(),
            about: shown(id),
            action: format!("{VIEW}/{id}/{what}"),
            fields: vec![("back", back.clone())],
            back,
            button: format!("{verb} key"),
        })
    }

    // Only this response shows the secret (requirement K8).
    pub(super) async fn change_api_keys(&self, segments: &[&str], form: &FormFields) -> Shown {
        self.may(role_to(segments.last().copied().unwrap_or_default()))?;
        let made = match segments {
            [] => api_keys::create(self.state, request_of(form)).await,
            [id, "rotate"] => api_keys::rotate(self.state, id, RotateKeyRequest::default()).await,
            [id, "revoke"] => {
                let ended = api_keys::revoke(self.state, id).await?;
                return self.done(form, format!("API key {} revoked: it is refused.", ended.id));
            }
            _ => return Err(nothing()),
        };
        match made {
            Ok(made) => html(&view::NewApiKeyView { frame: self.frame(VIEW).await, made }),
            Err(Refusal { code, detail, .. }) if segments.is_empty() && code.status().is_client_error() => {
                self.api_keys(Some(detail)).await
            }
            Err(refusal) => Err(refusal),
        }
    }
}

fn request_of(form: &FormFields) -> ApiKeyRequest {
    let owner = |kind: &str| form.some("owner").filter(|_| form.get("kind") == Some(kind));
    ApiKeyRequest {
        name: form.text("name").to_owned(),
        user: owner("user"),
        subject: owner("subject"),
        client: owner("client"),
        scopes: form.some("scopes"),
        lifetime: form.some("lifetime"),
        ..ApiKeyRequest::default()
    }
}

/// Returns the minimum role for a change. Only an admin may see an API key's secret.
fn role_to(change: &str) -> AdminRole {
    if change == "revoke" { AdminRole::Operator } else { AdminRole::Admin }
}
