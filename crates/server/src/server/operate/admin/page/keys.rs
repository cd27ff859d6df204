//! The view of the gate's keys, and its forms.

use super::confirmation::{Confirmation, refused};
use super::request::{Request, nothing};
use super::view::{self, FormFields, KeysView};
use super::{Shown, html, lead_to};
use crate::server::operate::admin::keys::{
    self, Age, ChangedKey, KeyRequest, OwnKeyState, RotateRequest, RotationPreview,
};
use crate::server::operate::admin::problem::Refusal;
use crate::server::operate::admin::{rfc3339, shown};
use rotogate_config::AdminRole;
use rotogate_core::clock::written;

const VIEW: &str = "/ui/keys";

/// The keys at one point of their life cycle.
pub(super) struct KeyStage<'a> {
    pub(super) name: &'static str,
    pub(super) hint: &'static str,
    pub(super) keys: Vec<StagedKey<'a>>,
}

pub(super) struct StagedKey<'a> {
    pub(super) kid: &'a str,
    pub(super) algorithm: &'a str,
    pub(super) state: &'static str,
    pub(super) is_signing: bool,
    pub(super) age: String,
    /// The day when the key was created.
    pub(super) created: Option<&'a str>,
}

impl<'a> StagedKey<'a> {
    fn new(kid: &'a str, algorithm: &'a str, state: OwnKeyState, age: &'a Age) -> Self {
        let (is_signing, state) = (state == OwnKeyState::Signing, state.word());
        let created = age.created().and_then(|time| time.get(..10));
        Self { kid, algorithm, state, is_signing, age: age.in_words(), created }
    }
}

impl KeysView {
    pub(super) fn may_change(&self) -> bool {
        self.frame.may_mint && self.read_only.is_none()
    }

    pub(super) fn cycle_of_keys(&self) -> [KeyStage<'_>; 3] {
        let keys = self.keys.keys.iter();
        cycle(keys.map(|it| (StagedKey::new(&it.kid, &it.algorithm, it.state, &it.age), it.age.created())))
    }

    pub(super) fn cycle_of_secrets(&self) -> [KeyStage<'_>; 3] {
        let secrets = self.keys.refresh.iter();
        cycle(secrets.map(|it| (StagedKey::new(&it.kid, "HMAC", it.state, &it.age), it.age.created())))
    }
}

/// The keys that will be used, are used, and were used for new tokens. A key that is newer than the one in use comes
/// next.
fn cycle<'a>(keys: impl Iterator<Item = (StagedKey<'a>, Option<&'a str>)>) -> [KeyStage<'a>; 3] {
    let (mut next, mut current, mut previous) = (Vec::new(), Vec::new(), Vec::new());
    let all: Vec<_> = keys.collect();
    let since = all.iter().find(|(key, _)| key.is_signing).and_then(|(_, created)| *created);
    for (key, created) in all {
        match created {
            _ if key.is_signing => current.push(key),
            Some(_) if created >= since => next.push(key),
            Some(_) | None => previous.push(key),
        }
    }
    let stage = |name, keys: Vec<StagedKey<'a>>, hint, none| KeyStage {
        name,
        hint: if keys.is_empty() { none } else { hint },
        keys,
    };
    [
        stage(
            "Next",
            next,
            "It waits until all verifiers have it.",
            "None. A rotation adds the next key before the gate uses it.",
        ),
        stage("Current", current, "New tokens use this key.", "None."),
        stage(
            "Previous",
            previous,
            "It verifies tokens that have not expired.",
            "None. A replaced key stays here until you retire it.",
        ),
    ]
}

impl Request<'_> {
    /// `refusal` says why the keys were not changed.
    pub(super) async fn keys(&self, refusal: Option<Refusal>) -> Shown {
        let state = self.state;
        let (code, problem) = refusal.map(|refusal| (refusal.code, refusal.detail)).unzip();
        let view = html(&view::KeysView {
            frame: self.frame(VIEW).await,
            keys: keys::list(state),
            problem,
            read_only: keys::unwritable(state),
            is_rotating: keys::is_rotating(state),
        });
        match code {
            Some(code) => refused(view, code),
            None => view,
        }
    }

    pub(super) async fn confirm_key(&self, segments: &[&str]) -> Shown {
        self.may(AdminRole::Admin)?;
        let is_refresh = self.parameters().get("refresh").is_some();
        let mut fields = Vec::new();
        let (question, detail, button) = match segments {
            ["rotate"] if is_refresh => {
                fields.push(("refresh", "on".to_owned()));
                let question = "Rotate the secret for refresh tokens?".to_owned();
                (question, of_secret(&keys::preview(self.state, true)), "Rotate secret")
            }
            ["rotate"] => {
                let question = "Rotate the signing key?".to_owned();
                (question, of_signing_key(&keys::preview(self.state, false)), "Rotate key")
            }
            [kid, "promote"] => (
                format!("Use {} for new tokens?", shown(kid)),
                "The gate refuses this as long as another gate of the store, or another verifier, may not have the key. \
                 Tokens of the key in use stay valid."
                    .to_owned(),
                "Promote key",
            ),
            [kid, "retire"] => (
                format!("Remove {}?", shown(kid)),
                "The file of the key is deleted. The gate refuses this as long as a token or a session may need the key."
                    .to_owned(),
                "Retire key",
            ),
            _ => return Err(nothing()),
        };
        let (action, back) = (format!("{VIEW}/{}", segments.join("/")), VIEW.to_owned());
        self.ask(Confirmation { view: VIEW, question, detail, action, fields, back, button }).await
    }

    pub(super) async fn change_keys(&self, segments: &[&str], form: &FormFields) -> Shown {
        self.may(AdminRole::Admin)?;
        let state = self.state;
        let changed = match segments {
            ["rotate"] => {
                let request = RotateRequest { algorithm: None, refresh: form.get("refresh").is_some() };
                keys::begin_rotation(state, request).await.map(|key| added(&key))
            }
            [kid, "promote"] => keys::promote(state, kid, KeyRequest { force: false })
                .await
                .map(|ChangedKey { kid, .. }| format!("{kid} is used for new tokens within a second.")),
            [kid, "retire"] => keys::retire(state, kid, KeyRequest { force: false }).await.map(removed),
            _ => return Err(nothing()),
        };
        match changed {
            Ok(notice) => {
                state.sign_ins.leave_notice(&self.caller, notice);
                Ok(lead_to(VIEW))
            }
            Err(refusal) => self.keys(Some(refusal)).await,
        }
    }
}

fn of_signing_key(preview: &RotationPreview) -> String {
    let RotationPreview { current, algorithm, signs_after, valid_for, last_token, is_shared } = preview;
    let (after, valid) = (written(*signs_after), written(*valid_for));
    let last = match is_shared {
        true => format!(
            "the last of them expires {valid} after the change. Copy the key folder to all gates of the store: the \
             new key signs only when all of them have it"
        ),
        false => format!("the last of them expires by {}", rfc3339(*last_token)),
    };
    format!(
        "The gate publishes a new {algorithm} key at once, and signs with it after {after}. Until then, {current} \
         signs. Tokens of {current} stay valid until they expire: {last}."
    )
}

fn of_secret(preview: &RotationPreview) -> String {
    let RotationPreview { current, valid_for, is_shared, .. } = preview;
    let valid = written(*valid_for);
    let when = match is_shared {
        true => "when all gates of the store have it: copy the key folder to all of them",
        false => "at once",
    };
    format!(
        "The gate adds a new secret, and uses it for new tokens and cookies {when}. Refresh tokens of {current} stay \
         valid until they are used or expire, at most {valid}. Sessions do not end."
    )
}

fn added(key: &ChangedKey) -> String {
    let kid = &key.kid;
    match key.signs_after {
        Some(after) => format!("{kid} was added. It is published now, and signs after {after} seconds."),
        None => format!("{kid} was added. New tokens use it as soon as all gates of the store have it."),
    }
}

fn removed(key: ChangedKey) -> String {
    let warning = key.warning.map(|warning| format!(" {warning}")).unwrap_or_default();
    format!("{} was removed. Remove it at the other gates of the store as well.{warning}", key.kid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p56_a_key_comes_next_if_it_is_newer_than_the_key_in_use() {
        let key = |kid, is_signing, created| {
            let age = String::new();
            (StagedKey { kid, algorithm: "EdDSA", state: "", is_signing, age, created: None }, created)
        };
        let keys = [
            key("old", false, Some("2026-01-01")),
            key("used", true, Some("2026-02-01")),
            key("new", false, Some("2026-03-01")),
            key("of unknown age", false, None),
        ];
        let stages = cycle(keys.into_iter());
        let kids = stages.each_ref().map(|stage| stage.keys.iter().map(|key| key.kid).collect::<Vec<_>>());
        assert_eq!(kids, [vec!["new"], vec!["used"], vec!["old", "of unknown age"]]);
        assert!(cycle(std::iter::empty()).iter().all(|stage| stage.hint.starts_with("None.")));
    }
}
