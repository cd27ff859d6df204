//! Settings for an issuer's security events and revocation requests: `global_revocation`, `on_event` and `user_names`
//! of an entry of `[[issuers]]`.

use toml::{Table, Value};

use super::super::declare::section;
use super::super::print::Print;
use super::super::value;
use super::DirectoryConfig;
use super::issuers::{TrustedIssuer, events_path};
use rotogate_core::directory::UserNameForm;
use rotogate_core::token::verify::{EventEffect, EventEffects, EventKind};
use rotogate_kit::config::{Section, Value as Raw, printable};

section! {
    /// An endpoint for requests to end all sessions and tokens of a user.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct GlobalRevocationConfig, read by pub(super) read_global_revocation(section) {
        /// Path to which the issuer posts. The `aud` of the issuer's JWT must be `public_url` followed by this path.
        reload path: String = required("a path such as \"/revoke/idp\"", events_path),
        /// Id of this gate at the issuer, which is the `sub` of the issuer's JWT.
        reload client_id: String = required("the id of this gate at the issuer", value::text),
    }
}

impl Print for EventEffects {
    fn print(&self) -> Value {
        let mut table = Table::new();
        for (kind, effect) in self.chosen() {
            table.insert(kind.word().to_owned(), effect.word().into());
        }
        table.into()
    }
}

impl Print for Vec<UserNameForm> {
    fn print(&self) -> Value {
        self.iter().map(|form| form.word()).collect::<Vec<_>>().into()
    }
}

pub(super) fn on_event(section: &Section<'_>) -> EventEffects {
    const EFFECTS: [(&str, EventEffect); 3] =
        [("end", EventEffect::End), ("refresh", EventEffect::Refresh), ("log", EventEffect::Log)];
    let table = section.section("on_event");
    let mut effects = EventEffects::default();
    for (word, effect) in table.free() {
        let kind = EventKind::configurable().find(|kind| kind.word() == word);
        match (kind, value::word(&EFFECTS, &[])(effect)) {
            (Some(kind), Ok(effect)) => effects = effects.on(kind, effect),
            (Some(_), Err(message)) => table.blame(word, message),
            (None, _) => {
                let known = EventKind::configurable().map(EventKind::word).collect::<Vec<_>>().join(", ");
                table.blame(word, format!("is not an event type; expected one of {known}"));
            }
        }
    }
    effects
}

pub(super) fn user_names(section: &Section<'_>) -> Vec<UserNameForm> {
    let words = UserNameForm::ALL.map(|form| (form.word(), form));
    section.list_or_empty("user_names", |v: &Raw| value::word(&words, &[])(v))
}

pub(super) fn check(sections: &[Section<'_>], issuers: &[TrustedIssuer], directories: &[DirectoryConfig]) {
    for (section, issuer) in sections.iter().zip(issuers).filter(|(section, _)| !section.is_bad()) {
        if !issuer.user_names.is_empty() && !directories.iter().any(DirectoryConfig::names_users_of_issuers) {
            let message = "needs a directory of kind \"http\", because only that kind looks up users by these names";
            section.blame("user_names", message);
        }
        if issuer.keys.is_none() && issuer.global_revocation.is_some() {
            let name = printable(&issuer.name);
            section.blame(
                "global_revocation",
                format!("{name} has no signing keys to verify its JWTs; add `discovery = true`"),
            );
        }
    }
}
