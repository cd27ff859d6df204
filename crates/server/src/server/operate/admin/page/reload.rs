//! The part of the view of the configuration that checks the file and reloads it.

use super::config::ListedSettings;
use super::confirmation::{Confirmation, refused};
use super::request::{Request, nothing};
use super::view::{self, FormFields, ReloadPart};
use super::{Shown, html, lead_to};
use crate::server::operate::admin::configuration::{self, CheckResult, ConfigChange, KEPT, ReloadQuery, STALE};
use crate::server::operate::admin::problem::{Code, Refusal};
use rotogate_config::AdminRole;

const VIEW: &str = "/ui/config";

impl CheckResult {
    /// What a reload of the checked file would do.
    pub(super) fn summary(&self) -> String {
        let (now, later) = (self.changes_at(false).count(), self.changes_at(true).count());
        match (self.ok, now, later) {
            (false, ..) => format!("is invalid. A reload is refused, and {KEPT}."),
            (true, 0, 0) => "is valid, and its settings are in use.".to_owned(),
            (true, 0, _) => format!("is valid, but a reload would change nothing: {}.", at_restart(later)),
            (true, _, 0) => format!("is valid. A reload would change {}.", settings(now)),
            (true, ..) => format!("is valid. A reload would change {}; {}.", settings(now), at_restart(later)),
        }
    }

    /// Whether a reload would change anything.
    pub(super) fn may_reload(&self) -> bool {
        self.ok && self.changes_at(false).next().is_some()
    }
}

impl ConfigChange {
    pub(super) fn before(&self) -> String {
        self.old.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    pub(super) fn after(&self) -> String {
        self.new.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

impl Request<'_> {
    pub(super) async fn config(&self, reload: ReloadPart) -> Shown {
        let (config, parameters) = (configuration::show(self.state), self.parameters());
        let settings = ListedSettings::new(&config, parameters.text("q"), parameters.text("show"));
        html(&view::ConfigView { frame: self.frame(VIEW).await, config, reload, settings })
    }

    /// Shows what would change, once more.
    pub(super) async fn confirm_reload(&self) -> Shown {
        self.may(AdminRole::Admin)?;
        let digest = self.parameters().text("digest").to_owned();
        let checked = configuration::check(self.state).await;
        if checked.digest.as_ref() != Some(&digest) {
            let problem = Some(format!("{STALE}. Until then, {KEPT}"));
            let part = ReloadPart { checked: Some(checked), problem, ..ReloadPart::default() };
            return refused(self.config(part).await, Code::StaleCheck);
        }
        let keys: Vec<_> = checked.changes_at(false).map(|change| &*change.key).collect();
        let later: Vec<_> = checked.changes_at(true).map(|change| &*change.key).collect();
        let later = match &*later {
            [] => String::new(),
            later => format!(" These need a restart, and do not change now: {}.", later.join(", ")),
        };
        self.ask(Confirmation {
            view: VIEW,
            question: "Reload the configuration?".to_owned(),
            detail: format!("The gate applies {}: {}.{later}", settings(keys.len()), keys.join(", ")),
            action: format!("{VIEW}/reload"),
            fields: vec![("digest", digest)],
            back: VIEW.to_owned(),
            button: "Reload configuration",
        })
        .await
    }

    pub(super) async fn change_config(&self, segments: &[&str], form: &FormFields) -> Shown {
        match segments {
            ["check"] => {
                self.may(AdminRole::Operator)?;
                let checked = Some(configuration::check(self.state).await);
                self.config(ReloadPart { checked, ..ReloadPart::default() }).await
            }
            ["reload"] => {
                self.may(AdminRole::Admin)?;
                // Without the digest of a check, the operator has not seen what would change.
                let query = ReloadQuery { digest: Some(form.text("digest").to_owned()) };
                match configuration::reload(self.state, query).await {
                    Ok(result) => {
                        self.state.sign_ins.leave_notice(&self.caller, result.to_string());
                        Ok(lead_to(VIEW))
                    }
                    Err(Refusal { code, detail, errors, .. }) => {
                        let part = ReloadPart { problem: Some(detail), errors, ..ReloadPart::default() };
                        refused(self.config(part).await, code)
                    }
                }
            }
            _ => Err(nothing()),
        }
    }
}

fn settings(number: usize) -> String {
    if number == 1 { "1 setting".to_owned() } else { format!("{number} settings") }
}

fn at_restart(number: usize) -> String {
    if number == 1 { "1 change needs a restart".to_owned() } else { format!("{number} changes need a restart") }
}
