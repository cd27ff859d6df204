//! The events of the audit trail.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::line::LogLine;
use super::request_id;
use rotogate_config::LogAddresses;

/// The `tracing` target of the audit trail. Audit events are written at every log level and may use the buffer reserve.
pub(super) const TARGET: &str = "rotogate::audit";
const DATASET: &str = "rotogate.audit";

/// `packaging/schema/audit.schema.json` is generated from these kinds. Codes never change, because operators search for
/// them.
struct EventKind {
    /// The field `event` of the `tracing` event.
    event: &'static str,
    action: &'static str,
    code: &'static str,
    is_success: bool,
}

const fn good(event: &'static str, action: &'static str, code: &'static str) -> EventKind {
    EventKind { event, action, code, is_success: true }
}

const fn bad(event: &'static str, action: &'static str, code: &'static str) -> EventKind {
    EventKind { event, action, code, is_success: false }
}

/// The last letter of a code is `I` for information or `W` for a warning.
const KINDS: &[EventKind] = &[
    good("login", "session.start", "RG1001I"),
    bad("login_refused", "session.start_refused", "RG1002W"),
    bad("too_many_sessions", "session.start_refused", "RG1003W"),
    good("sessions_gave_way", "session.gave_way", "RG1004W"),
    good("reissue", "session.reissue", "RG1005W"),
    bad("reuse", "session.reuse", "RG1006W"),
    bad("ahead_of_store", "session.ahead", "RG1007W"),
    bad("other_client", "session.other_client", "RG1008W"),
    good("logout", "session.end", "RG1009I"),
    bad("rate_limited", "rate.limited", "RG1010W"),
    good("browser_login", "browser.login", "RG1011I"),
    good("browser_logout", "browser.logout", "RG1012I"),
    good("browser_bound", "browser.bound", "RG1013I"),
    good("client_token", "token.issued_to_client", "RG1101I"),
    good("token_exchange", "token.exchange", "RG1103I"),
    good("token_minted", "token.minted", "RG1102I"),
    good("api_key_created", "api_key.create", "RG1104I"),
    good("api_key_rotated", "api_key.rotate", "RG1105I"),
    good("api_key_revoked", "api_key.revoke", "RG1106I"),
    good("api_key_leaked", "api_key.leak", "RG1107I"),
    good("revocation", "revocation", "RG1201W"),
    bad("notice_refused", "issuer.notice_refused", "RG1202W"),
    good("issuer_event", "issuer.event", "RG1203I"),
    good("relay_exchanged", "relay.exchange", "RG1301I"),
    bad("relay_refused", "relay.refuse", "RG1302W"),
    good("relay_revoked", "relay.revoke", "RG1303I"),
    good("store_backup", "store.backup", "RG1401I"),
    good("store_copied", "store.copy", "RG1402I"),
    good("store_restored", "store.restore", "RG1406W"),
    good("store_accepted", "store.accept_restored", "RG1407W"),
    good("store_clock_reset", "store.reset_clock", "RG1408W"),
    good("issuer_keys_dropped", "key.drop_fetched", "RG1501I"),
    good("key_add", "key.add", "RG1502I"),
    good("key_promote", "key.promote", "RG1503I"),
    good("key_retire", "key.retire", "RG1504I"),
    good("process_start", "process.start", "RG1601I"),
    good("process_stop", "process.stop", "RG1602I"),
    bad("process_upgrade_refused", "process.upgrade_refused", "RG1603W"),
    good("config_reload", "config.reload", "RG1604I"),
    bad("config_reload_refused", "config.reload_refused", "RG1605W"),
    good("process_upgrade", "process.upgrade", "RG1606I"),
    good("client_change", "client.change", "RG1607I"),
    good("explain", "explain", "RG1701I"),
    good("admin_login", "admin.login", "RG1704I"),
    bad("admin_login_refused", "admin.login_refused", "RG1702W"),
    bad("admin_denied", "admin.denied", "RG1703W"),
    good("user_add", "user.add", "RG1801I"),
    good("user_change", "user.change", "RG1802I"),
    good("user_remove", "user.remove", "RG1803I"),
    good("user_disable", "user.disable", "RG1804I"),
    good("user_enable", "user.enable", "RG1805I"),
    good("user_import", "user.import", "RG1806I"),
];

pub(super) struct TrailEntry {
    kind: Option<&'static EventKind>,
    id: String,
    number: u64,
}

pub(super) struct Trail {
    /// An id of the process. Each process numbers its lines from 1.
    boot: String,
    last: AtomicU64,
    pub(super) addresses: ArcSwap<LogAddresses>,
    actor: String,
}

impl Trail {
    pub(super) fn new(addresses: LogAddresses, actor: String) -> Self {
        let boot = id(rotogate_core::clock::wall_micros());
        Self { boot, last: AtomicU64::new(0), addresses: ArcSwap::from_pointee(addresses), actor }
    }

    pub(super) fn actor(&self) -> &str {
        &self.actor
    }

    pub(super) fn enter(&self, event: &str, micros: u64) -> TrailEntry {
        // A test compares the list with the sources.
        let kind = KINDS.iter().find(|kind| kind.event == event);
        TrailEntry { kind, id: id(micros), number: self.last.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    pub(super) fn begin(&self, line: &mut LogLine, entry: &TrailEntry, outcome: Option<&str>) {
        line.word("event.dataset", DATASET);
        if let Some(kind) = entry.kind {
            line.word("event.action", kind.action);
            line.word("event.code", kind.code);
            line.word("event.outcome", outcome.unwrap_or(if kind.is_success { "success" } else { "failure" }));
        }
        line.own("event.id", &entry.id);
        line.own("rotogate.audit.boot", &self.boot);
        line.number("rotogate.audit.seq", entry.number);
    }

    /// Returns the part of an address that the audit trail may contain.
    pub(super) fn address(&self, address: IpAddr) -> Option<IpAddr> {
        match **self.addresses.load() {
            LogAddresses::Full => Some(address),
            LogAddresses::Prefix => Some(network(address.to_canonical())),
            LogAddresses::None => None,
        }
    }
}

/// Returns the /24 of an IPv4 address, or the /48 of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80)).into(),
    }
}

fn id(micros: u64) -> String {
    request_id::new(micros).to_str().unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::json;

    use super::*;

    impl EventKind {
        /// A revocation has the outcome `unknown` until the store has accepted the revocation.
        fn outcomes(&self) -> &'static [&'static str] {
            match (self.is_success, self.event == "revocation") {
                (true, true) => &["success", "unknown"],
                (true, false) => &["success"],
                (false, _) => &["failure"],
            }
        }
    }
    use support::generated;

    #[test]
    fn an_address_is_cut_as_documented() {
        let cut = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(cut("203.0.113.77"), "203.0.113.0");
        assert_eq!(cut("2001:db8:1:2:3:4:5:6"), "2001:db8:1::");
    }

    fn events_in(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                events_in(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("log/audit.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                // In the sources, an event's target precedes its name.
                for after in
                    text.split("target: TARGET").skip(1).chain(text.split("target: \"rotogate::audit\"").skip(1))
                {
                    let Some((before, rest)) = after.split_once("event = \"") else { continue };
                    if before.chars().all(|c| c == ',' || c.is_whitespace()) {
                        found.insert(rest.split('"').next().unwrap().to_owned());
                    }
                }
            }
        }
    }

    #[test]
    fn every_event_has_a_kind_and_every_kind_a_line_on_the_page() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut found = BTreeSet::new();
        for folder in ["src", "crates/core/src", "crates/directories/src", "crates/server/src"] {
            events_in(&root.join(folder), &mut found);
        }
        // Events with dynamic names.
        found.extend(rotogate_directories::users::audit::UserEvent::ALL.map(|event| event.name().to_owned()));
        found.extend(rotogate_core::engine::SessionEvent::ALL.map(|event| event.name().to_owned()));
        found.extend(rotogate_core::engine::api_keys::AUDITED.map(str::to_owned));
        found.extend(crate::audit::KeyEvent::ALL.map(|event| event.name().to_owned()));
        let known: BTreeSet<_> = KINDS.iter().map(|kind| kind.event.to_owned()).collect();
        assert_eq!(found, known);
        let codes: BTreeSet<_> = KINDS.iter().map(|kind| kind.code).collect();
        assert_eq!(codes.len(), KINDS.len(), "each has a code of its own");
        let page = std::fs::read_to_string(root.join("docs/logs.md")).unwrap();
        for kind @ EventKind { action, code, .. } in KINDS {
            // In docs/logs.md, an empty cell means success.
            let outcome = Some(kind.outcomes().join(" or ") + " ").filter(|outcome| outcome != "success ");
            let outcome = outcome.unwrap_or_default();
            assert!(page.contains(&format!("| `{action}` | `{code}` | {outcome}| ")), "{action} {code} {outcome}");
        }
    }

    #[test]
    fn p40_the_schema_is_generated() {
        let text = |meaning: &str| json!({ "type": "string", "minLength": 1, "description": meaning });
        let words = |words: &[&str], meaning: &str| json!({ "enum": words, "description": meaning });
        let actions: BTreeSet<_> = KINDS.iter().map(|kind| kind.action).collect();
        let codes: Vec<_> = KINDS.iter().map(|kind| kind.code).collect();
        let of_code = KINDS.iter().map(|kind @ EventKind { action, code, .. }| {
            let outcome = match kind.outcomes() {
                [only] => json!({ "const": only }),
                several => json!({ "enum": several }),
            };
            json!({
                "if": { "properties": { "event.code": { "const": code } } },
                "then": { "properties": { "event.action": { "const": action }, "event.outcome": outcome } },
            })
        });
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "A line of rotogate's audit log",
            "description": "docs/logs.md says which further fields the lines of an action have. Lines of later versions may have \
                            further actions and fields.",
            "type": "object",
            "properties": {
                "timestamp": { "type": "string", "format": "date-time", "description": "when the event was logged" },
                "level": words(&["ERROR", "WARN", "INFO"], "of the application log; hides no line"),
                "target": { "const": TARGET },
                "message": text("the event in words, which may change"),
                "event.dataset": { "const": DATASET },
                "event.action": words(&Vec::from_iter(actions), "what happened"),
                "event.code": words(&codes, "the same, with its outcome"),
                "event.outcome": words(&["success", "failure", "unknown"], "whether it was done"),
                "event.id": { "type": "string", "format": "uuid", "description": "UUIDv7 of the line" },
                "rotogate.audit.boot": { "type": "string", "format": "uuid", "description": "names the process" },
                "rotogate.audit.seq": { "type": "integer", "minimum": 1, "description": "counts the lines of the process" },
                "rotogate.actor": text("who made the change"),
                "rotogate.actor.role": text("the actor's role"),
                "rotogate.actor.via": words(&["api", "page", "user"], "how the actor came"),
                "rotogate.client.id": text("the OAuth2 client"),
                "client.address": text("the client, as far as `addresses` allows"),
                "http.request.id": text("the request id"),
                "owed": words(&["file", "memory"], "of a revocation that the store has not taken: where it is"),
                "user.id": text("the subject"),
                "user.name_hash": { "type": "string", "pattern": "^[0-9a-f]{16}$", "description": "of a refused login" },
                "session.id": { "type": "string", "format": "uuid", "description": "the session" },
            },
            "additionalProperties": { "type": ["string", "integer", "boolean"] },
            "required": [
                "timestamp", "level", "target", "event.dataset", "event.action", "event.code", "event.outcome", "event.id",
                "rotogate.audit.boot", "rotogate.audit.seq",
            ],
            "allOf": Vec::from_iter(of_code),
        });
        let schema = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        generated::assert_current("packaging/schema/audit.schema.json", &schema);
    }
}
