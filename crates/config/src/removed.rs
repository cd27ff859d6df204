//! Keys that `gateway.toml` had before version 0.1, and what to do instead. This table will be removed in version 0.2.

/// The full names of the removed keys, and what to do instead of each. If a name is that of a table, it stands for all
/// keys in the table.
const REMOVED: &[(&str, &str)] = &[
    // Decision points.
    ("decision_points", POINTS),
    ("routes.decision", POINTS),
    // Security events that the gate sent, and streams that it managed.
    ("receivers", "the gate sends no events; other systems read `GET /v1/events` or the audit log (docs/logs.md)"),
    (
        "issuers.stream",
        "the gate manages no streams; let the issuer push its events to `events` (docs/logout-events.md)",
    ),
    // Status lists.
    ("status_list", "the gate publishes no status lists; verifiers ask by introspection (docs/protocols.md)"),
    ("issuers.status_list", "the gate reads no status lists; write `introspection` (docs/issuers.md)"),
    // Transaction tokens.
    ("identity.trust_domain", TRANSACTIONS),
    ("upstreams.assertion_form", TRANSACTIONS),
    ("clients.exchange.trust_domain", TRANSACTIONS),
    // Fetched keys.
    ("issuers.fetch.min", FIXED),
    ("issuers.fetch.max", FIXED),
    ("issuers.fetch.max_size", FIXED),
    ("issuers.fetch.fresh", FIXED),
    ("issuers.fetch.cooldown", FIXED),
    ("issuers.fetch.timeout", FIXED),
    ("issuers.fetch.keep", "the gate always keeps the last good set on disk; remove the key"),
    // Issuers.
    ("clients.keys.required", "clients wait for their own keys alone; remove the key"),
    ("clients.keys.public_key", PEM),
    (
        "clients.keys.algorithm",
        "write `alg` into the keys of jwks_file; a key in PEM, or fetched, needs none; remove the key",
    ),
    ("clients.auth", "a client with keys authenticates by assertions; remove the key"),
    ("issuers.public_key", PEM),
    ("issuers.introspection.ca", "write it into `fetch` of the issuer, which holds for all its servers"),
    ("issuers.introspection.client_cert", "write it into `fetch` of the issuer, which holds for all its servers"),
    ("issuer.leeway", FIXED),
    ("issuers.leeway", FIXED),
    (
        "issuers.audience_claim",
        "write the preset of the provider, such as preset = \"cognito\"; for another issuer, let it write \
                                `aud` into its tokens",
    ),
    ("issuers.subject_encoding", "subjects are always percent-encoded; remove the key"),
    ("issuers.introspection.negative", FIXED),
    ("issuers.introspection.stale_if_error", FIXED),
    ("issuers.introspection.timeout", FIXED),
    ("issuers.id_jag.max_age", FIXED),
    ("issuers.jwt_bearer.max_lifetime", FIXED),
    // Store.
    ("store.accept_restored_store", "run `rotogate store accept-restored` once, while no gate runs; remove the key"),
    ("store.cache_size", FIXED),
    (
        "store.give_up",
        "the gate tries on until the store can be written; let a supervisor that should move it watch /readyz",
    ),
    ("store.connections", FIXED),
    ("store.max_stale", "write the time into when_stale, such as when_stale = \"5m\""),
    ("store.wait_fsync", "set `appendfsync always` at the server, which then has each write on disk before it answers"),
    // Directories.
    ("directory.pad_refusals", "refusals always take as long as the slowest login; remove the key"),
    ("directory.max_requests", FIXED),
    ("directory.queue_timeout", FIXED),
    ("directory.pool", FIXED),
    ("directory.lookup_cache", FIXED),
    ("directory.allow_legacy", "write the schemes into hashes, such as hashes = [\"phpass\"]"),
    ("directory.firebase", "write the file into hash_parameters"),
    ("directory.spring_pbkdf2_iterations", SPRING),
    ("directory.spring_pbkdf2_secret_file", SPRING),
    ("directory.groups.name", "a group's name is its `cn`; remove the key"),
    ("directory.statement_cache", "connections keep no prepared statements, so poolers need no key; remove it"),
    // Proofs, keys and endpoints.
    ("dpop.max_age", FIXED),
    ("dpop.max_proofs", FIXED),
    ("dpop.replay", "gates of one store always count proofs together; remove the key"),
    ("api_keys.overlap", "name the overlap in the request of a rotation; remove the key"),
    ("identity.assertion.ttl", FIXED),
    ("cors.max_age", FIXED),
    ("limits.rate_headers", "replies have the fields of a limit that refuses; remove the key"),
    ("endpoints.cookie", "the cookie is that of the kuzzle endpoint, otherwise `__Host-access`; remove the key"),
    // Shares of the bounds of `[server]`, and other bounds that nobody has to choose.
    ("server.max_requests_per_address", SHARE),
    ("server.max_requests_per_caller", SHARE),
    ("server.max_pending_bodies", SHARE),
    ("server.max_pending_bodies_per_address", SHARE),
    ("server.max_own_streams", SHARE),
    ("server.max_own_streams_per_address", SHARE),
    ("server.max_tunnels", SHARE),
    ("server.max_tunnels_per_caller", SHARE),
    ("server.max_anonymous_sockets", SHARE),
    ("server.max_anonymous_sockets_per_address", SHARE),
    ("server.max_buffered_per_caller", SHARE),
    ("server.max_requests_per_connection", SHARE),
    ("server.min_body_rate", FIXED),
    ("server.stream_drain", FIXED),
    ("server.idle_timeout", "it is 60s for clients; for an upstream, write idle_timeout in [[upstreams]]"),
    ("server.connect_timeout", FIXED),
    ("server.listeners.max_connections_per_address", PER_ADDRESS),
    (
        "server.listeners.tls.certificates",
        "write two lists: cert = [\"a.pem\", \"b.pem\"] and key = [\"a.key\", \"b.key\"]",
    ),
    ("authorizers.max_connections_per_address", PER_ADDRESS),
    ("providers.issuer_url", "write the name of the [[issuers]] entry into issuer"),
    ("providers.timeout", FIXED),
    ("upstreams.max_requests_per_caller", OF_UPSTREAM),
    ("upstreams.max_requests_per_address", OF_UPSTREAM),
    ("upstreams.queue_timeout", FIXED),
    ("upstreams.connect_timeout", FIXED),
    ("upstreams.max_failures", FIXED),
    ("upstreams.eject_for", FIXED),
    ("upstreams.dns_refresh", FIXED),
    ("upstreams.max_connection_age", FIXED),
    ("upstreams.max_requests_per_connection", FIXED),
    ("sessions.on_other_client", OTHER_CLIENT),
    ("sessions.on_too_many", TOO_MANY),
    ("sessions.max_stream", FIXED),
    ("clients.profile.on_other_client", OTHER_CLIENT),
    ("clients.profile.on_too_many", TOO_MANY),
    ("endpoints.profile.on_other_client", OTHER_CLIENT),
    ("endpoints.profile.on_too_many", TOO_MANY),
    ("limits.login_per_client", FIXED),
    ("limits.forged_per_address", FIXED),
    ("limits.refused_per_address", FIXED),
    ("limits.forged_overall", FIXED),
    ("limits.password_queue", FIXED),
    ("limits.max_token_body", FIXED),
    ("limits.shared", "gates of one store count together; remove the key"),
    ("access_log.buffer", FIXED),
    ("access_log.flush_interval", FIXED),
    ("access_log.format", "both logs have the format of [log]; write it there"),
    ("access_log.log_user_agent", "a line always has the user agent; remove the key"),
    ("tracing.flush_interval", FIXED),
    ("tracing.queue", FIXED),
    ("tracing.protocol", "set the variable OTEL_EXPORTER_OTLP_PROTOCOL to grpc for a collector that takes no HTTP"),
    ("tracing.timeout", "set the variable OTEL_EXPORTER_OTLP_TIMEOUT, in milliseconds, if 10 s are too few"),
    ("tracing.service_name", "set the variable OTEL_SERVICE_NAME"),
    ("endpoints.timeout", FIXED),
    ("endpoints.max_age", FIXED),
    ("routes.dangerous_forward_token", "write forward_token = \"dangerous\""),
    (
        "routes.bad_credential",
        "write auth = \"lenient\" if an invalid token should count as none; otherwise remove the key",
    ),
    ("routes.keep_underscore_headers", "write keep_headers = [\"underscore\"]; for false, remove the key"),
    ("routes.keep_override_headers", "write keep_headers = [\"override\"]; for false, remove the key"),
    ("routes.rate.burst", "write it into limit: limit = \"20/12s\" is 100 a minute, and 20 at once"),
    ("authorizers.neighbour", "write the proxy into kind, such as kind = \"nginx\""),
    ("resources.mcp.max_message", FIXED),
    (
        "resources.mcp.versions",
        "the gate accepts each version that it knows: with check = \"headers\" the newest alone; remove the key",
    ),
];

const FIXED: &str =
    "the value is fixed, and stands in docs/configuration.md below the keys of the section; remove the key";

const POINTS: &str = "the gate asks no decision points; compare claims with `when`, or let the service, a layer of your program \
                      or a second filter of Envoy decide (docs/conditions.md)";
const TRANSACTIONS: &str =
    "there are no transaction tokens; an upstream gets an assertion (docs/assertion.md); remove the key";

const SHARE: &str =
    "it is a fixed part of max_requests, max_connections or max_buffered now, which you can raise; remove the key";
const OF_UPSTREAM: &str = "it is a fixed part of the upstream's max_requests now, which you can raise; remove the key";
const PER_ADDRESS: &str = "max_connections_per_address of [server] counts for each listener; write it there";
const PEM: &str = "write the file into jwks_file, which may also be one public key in PEM";
const SPRING: &str =
    "write both into the file of hash_parameters: { \"spring_pbkdf2\": { \"iterations\": 250000, \"secret\": \"…\" } }";
const OTHER_CLIENT: &str = "a refresh token from another client is refused, and its session goes on; remove the key";
const TOO_MANY: &str = "a login beyond max_sessions_per_subject ends the oldest session; remove the key";

/// What to do instead of a removed key. `None` for a key that never existed.
pub(crate) fn replacement(key: &str) -> Option<&'static str> {
    let name = key.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect::<String>();
    let name = name.replacen("directories.", "directory.", 1).replacen("clients.keys.fetch.", "issuers.fetch.", 1);
    let name = match name.strip_prefix("server.tls.").or(name.strip_prefix("authorizers.tls.")) {
        Some(key) => format!("server.listeners.tls.{key}"),
        None => name,
    };
    REMOVED.iter().find(|(removed, _)| *removed == name).map(|(_, now)| *now)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use toml::Value;

    use super::*;
    use crate::parse;
    use crate::tests::reference::{IS_FULL, configurations};

    /// Adds a key to each table of this path. Returns whether there is one.
    fn add(value: &mut Value, path: &str) -> bool {
        match (value, path.split_once('.')) {
            (Value::Array(list), _) => list.iter_mut().fold(false, |found, entry| add(entry, path) | found),
            (Value::Table(table), Some((of, rest))) => {
                // A table that most configurations do not have.
                let is_table =
                    ["access_log", "cors", "dpop", "identity", "limits", "mcp", "profile", "sessions"].contains(&of);
                let inner = table.get_mut(of);
                match inner {
                    Some(inner) => add(inner, rest),
                    None if is_table => add(table.entry(of).or_insert(Value::Table(toml::Table::new())), rest),
                    None => false,
                }
            }
            (Value::Table(table), None) => {
                table.insert(path.to_owned(), true.into());
                true
            }
            _ => false,
        }
    }

    #[test]
    fn p65_check_says_of_each_removed_key_what_to_do_now() {
        if !IS_FULL {
            return;
        }
        let mut seen = BTreeSet::new();
        for text in configurations() {
            for (removed, now) in REMOVED {
                let mut root = Value::from(text.parse::<toml::Table>().unwrap());
                if !add(&mut root, removed) {
                    continue;
                }
                let Err(errors) = parse(&toml::to_string(&root).unwrap(), Path::new("gateway.toml"), &()) else {
                    continue;
                };
                let expected = format!("was removed: {now}");
                if errors.iter().any(|error| error.message == expected && replacement(&error.key) == Some(now)) {
                    seen.insert(*removed);
                }
            }
        }
        let unseen: Vec<_> = REMOVED.iter().map(|(removed, _)| *removed).filter(|key| !seen.contains(key)).collect();
        assert_eq!(unseen, [""; 0], "`check` accepts these, or gives another answer");
        assert_eq!(REMOVED.iter().map(|(removed, _)| removed).collect::<BTreeSet<_>>().len(), REMOVED.len(), "twice");
        assert_eq!(replacement("routes[3].decision"), Some(POINTS));
        assert_eq!(replacement("routes[3].path"), None);
        assert_eq!(replacement("clients[0].keys.fetch.min"), Some(FIXED));
    }
}
