//! `[[receivers]]`: systems that get events about sessions that end at this gate.

use std::path::{Path, PathBuf};

use super::super::declare::section;
use super::super::value;
use super::{ClientConfig, known_names, path_in, unique};
use rotogate_kit::config::Section;

section! {
    /// An entry of `[[receivers]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ReceiverConfig, read by read_keys(
        section,
        others: &[ReceiverConfig],
        dir: &Path,
        clients: &[ClientConfig],
    ) {
        /// Required: Its name in logs and metrics.
        reload name: String = by {
            unique(section, "name", "a name for logs and metrics", value::text, others.iter().map(|other| &*other.name))
        },
        /// Required: The URL to which the gate pushes events (RFC 8935): `https`, or `http` on this machine.
        reload url: String = required("the URL that takes events, such as \"https://siem.example.com/events\"", value::asked_url),
        /// Required: `aud` of the events. Another audience makes a new receiver.
        reload audience: String = required("what the receiver calls itself, such as its URL", value::text),
        /// Required: File with the bearer token for the receiver (0600), read for each event.
        reload token_file: PathBuf = required("the file with the token for the receiver", path_in(dir)),
        /// Required: RSA key that signs the events (PKCS #8 in PEM, 0600), not one of the keyring; the JWK set has
        /// its public key.
        reload key_file: PathBuf = required("the file of an RSA key, from openssl genpkey -algorithm RSA", path_in(dir)),
        /// Required: Clients of whose sessions it gets events.
        reload clients: Vec<String> = by {
            known_names(section, "clients", "client", clients.iter().map(|client| &*client.client.id)).unwrap_or_default()
        },
        /// Only trusted authorities, in PEM. Default: the system's.
        reload ca: Option<PathBuf> = get(path_in(dir)),
    }
}

pub(super) fn read(
    section: &Section<'_>,
    above: &[ReceiverConfig],
    dir: &Path,
    clients: &[ClientConfig],
) -> ReceiverConfig {
    let receiver = read_keys(section, above, dir, clients);
    if !cfg!(feature = "signals") {
        section.blame("name", value::needs_feature("receivers", "signals"));
    }
    // Attack: a receiver learns about users who are not its own.
    if receiver.clients.is_empty() && !section.is_bad() {
        section.blame("clients", "is missing or empty; expected the ids of the clients whose sessions it may hear of");
    }
    receiver
}
