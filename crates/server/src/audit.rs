//! Audit events for changed keys and clients. A gate also records changes that other programs made to its files.

use std::collections::BTreeMap;

use rotogate_config::ClientConfig;
use rotogate_core::token::keyring::Keyring;

const TARGET: &str = "rotogate::audit";
const FILE: &str = "file";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyEvent {
    Added,
    Promoted,
    Retired,
}

impl KeyEvent {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Added, Self::Promoted, Self::Retired];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Added => "key_add",
            Self::Promoted => "key_promote",
            Self::Retired => "key_retire",
        }
    }
}

pub(crate) fn write_key(event: KeyEvent, kid: &str) {
    write_key_by(event, kid, None);
}

fn write_key_by(event: KeyEvent, kid: &str, actor: Option<&'static str>) {
    tracing::info!(target: TARGET, event = event.name(), rotogate.actor = actor, kid, "key changed");
}

pub(crate) fn write_found_keys(old: &Keyring, new: &Keyring) {
    let names = |keys: &Keyring| -> Vec<String> {
        let signing = keys.signing_keys().map(|key| key.kid().to_owned());
        signing.chain(keys.refresh_keys().ids().map(refresh_name)).collect()
    };
    let (before, after) = (names(old), names(new));
    let in_use = |keys: &Keyring| [keys.signer().kid().to_owned(), refresh_name(keys.refresh_keys().current())];
    let (used, uses) = (in_use(old), in_use(new));
    let write = |event, kid: &String| write_key_by(event, kid, Some(FILE));
    after.iter().filter(|kid| !before.contains(kid)).for_each(|kid| write(KeyEvent::Added, kid));
    uses.iter().filter(|kid| !used.contains(kid)).for_each(|kid| write(KeyEvent::Promoted, kid));
    before.iter().filter(|kid| !after.contains(kid)).for_each(|kid| write(KeyEvent::Retired, kid));
}

/// The displayed name of a refresh secret.
pub(crate) fn refresh_name(id: u8) -> String {
    format!("refresh-{id}")
}

pub(crate) fn write_changed_clients(old: &[ClientConfig], new: &[ClientConfig]) {
    let by_id = |clients| -> BTreeMap<String, &ClientConfig> {
        let clients: &[ClientConfig] = clients;
        clients.iter().map(|client| (client.id.to_string(), client)).collect()
    };
    let (before, after) = (by_id(old), by_id(new));
    let write = |id: &str, change: &'static str| {
        tracing::info!(target: TARGET, event = "client_change", rotogate.client.id = id, change, "client changed");
    };
    for (id, client) in &after {
        match before.get(id) {
            None => write(id, "added"),
            Some(was) if was != client => write(id, "changed"),
            Some(_) => {}
        }
    }
    before.keys().filter(|id| !after.contains_key(*id)).for_each(|id| write(id, "removed"));
}
