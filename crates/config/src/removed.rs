//! Keys that were removed before version 0.1. The table will be removed in version 0.2.

/// The removed keys, and what to do instead. The name of a table applies to all its keys.
const REMOVED: &[(&str, &str)] = &[
    // Decision points.
    ("decision_points", POINTS),
    ("routes.decision", POINTS),
    // Outgoing security events.
    (
        "receivers",
        "the gate does not send events to other systems; they read `GET /v1/events` or the audit log (docs/logs.md)",
    ),
    (
        "issuers.stream",
        "the gate does not manage event streams; configure the issuer to push its events to `events` \
         (docs/logout-events.md)",
    ),
    // Status lists.
    (
        "status_list",
        "the gate does not publish status lists; services check tokens by introspection instead (docs/protocols.md)",
    ),
    ("issuers.status_list", "the gate does not read status lists; set `introspection` instead (docs/issuers.md)"),
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
    (
        "issuers.fetch.keep",
        "the gate always keeps the last valid set of signing keys on disk; remove this configuration key",
    ),
    // Issuers.
    (
        "clients.keys.required",
        "only requests from a client wait for that client's signing keys; remove this configuration key",
    ),
    ("clients.keys.public_key", PEM),
    (
        "clients.keys.algorithm",
        "write `alg` into each key in `jwks_file`, and remove this configuration key; PEM keys and fetched keys do \
         not need `alg`",
    ),
    (
        "clients.auth",
        "a client that has `keys` always authenticates with signed assertions; remove this configuration key",
    ),
    ("issuers.public_key", PEM),
    (
        "issuers.introspection.ca",
        "write this value into the issuer's `fetch`, which applies to all servers of the issuer",
    ),
    (
        "issuers.introspection.client_cert",
        "write this value into the issuer's `fetch`, which applies to all servers of the issuer",
    ),
    ("issuer.leeway", FIXED),
    ("issuers.leeway", FIXED),
    (
        "issuers.audience_claim",
        "set `preset` to the provider, such as `preset = \"cognito\"`; configure any other issuer to include `aud` \
         in its tokens",
    ),
    ("issuers.subject_encoding", "subjects are always percent-encoded; remove this configuration key"),
    ("issuers.introspection.negative", FIXED),
    ("issuers.introspection.stale_if_error", FIXED),
    ("issuers.introspection.timeout", FIXED),
    ("issuers.id_jag.max_age", FIXED),
    ("issuers.jwt_bearer.max_lifetime", FIXED),
    // Store.
    (
        "store.accept_restored_store",
        "run `rotogate store accept-restored` once while no gate is running; remove this configuration key",
    ),
    ("store.cache_size", FIXED),
    (
        "store.give_up",
        "the gate retries until it can write to the store; a supervisor that should restart the gate elsewhere can \
         watch `/readyz`",
    ),
    ("store.connections", FIXED),
    ("store.max_stale", "write the duration into `when_stale`, such as `when_stale = \"5m\"`"),
    (
        "store.wait_fsync",
        "set `appendfsync always` on the Redis server, so that it writes each change to disk before it responds",
    ),
    // Directories.
    (
        "directory.pad_refusals",
        "a rejected login always takes as long as the slowest login; remove this configuration key",
    ),
    ("directory.max_requests", FIXED),
    ("directory.queue_timeout", FIXED),
    ("directory.pool", FIXED),
    ("directory.lookup_cache", FIXED),
    ("directory.allow_legacy", "list the schemes in `hashes`, such as `hashes = [\"phpass\"]`"),
    ("directory.firebase", "write the path of the file into `hash_parameters`"),
    ("directory.spring_pbkdf2_iterations", SPRING),
    ("directory.spring_pbkdf2_secret_file", SPRING),
    ("directory.groups.name", "the name of a group is always its `cn`; remove this configuration key"),
    (
        "directory.statement_cache",
        "the gate does not keep prepared statements, so it works with connection poolers; remove this configuration \
         key",
    ),
    // Proofs, keys and endpoints.
    ("dpop.max_age", FIXED),
    ("dpop.max_proofs", FIXED),
    (
        "dpop.replay",
        "gates that share a store always share their record of used DPoP proofs; remove this configuration key",
    ),
    ("api_keys.overlap", "state the overlap in each request that rotates an API key; remove this configuration key"),
    ("identity.assertion.ttl", FIXED),
    ("cors.max_age", FIXED),
    (
        "limits.rate_headers",
        "a response has the rate-limit header fields of the limit that rejected the request; remove this \
         configuration key",
    ),
    (
        "endpoints.cookie",
        "the cookie is that of the `kuzzle` endpoint if there is one, and otherwise `__Host-access`; remove this \
         configuration key",
    ),
    // Limits that are no longer configurable.
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
    (
        "server.idle_timeout",
        "the timeout for client connections is fixed at 60s; for an upstream, set `idle_timeout` in `[[upstreams]]`",
    ),
    ("server.connect_timeout", FIXED),
    ("server.listeners.max_connections_per_address", PER_ADDRESS),
    (
        "server.listeners.tls.certificates",
        "write two lists: `cert = [\"a.pem\", \"b.pem\"]` and `key = [\"a.key\", \"b.key\"]`",
    ),
    ("authorizers.max_connections_per_address", PER_ADDRESS),
    ("providers.issuer_url", "write the name of the `[[issuers]]` entry into `issuer`"),
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
    ("limits.shared", "gates that share a store always count requests together; remove this configuration key"),
    ("access_log.buffer", FIXED),
    ("access_log.flush_interval", FIXED),
    ("access_log.format", "the access log and the application log both use `format` of `[log]`; set the format there"),
    ("access_log.log_user_agent", "each line always contains the user agent; remove this configuration key"),
    ("tracing.flush_interval", FIXED),
    ("tracing.queue", FIXED),
    (
        "tracing.protocol",
        "set the environment variable `OTEL_EXPORTER_OTLP_PROTOCOL` to `grpc` if the collector does not accept HTTP",
    ),
    (
        "tracing.timeout",
        "set the environment variable `OTEL_EXPORTER_OTLP_TIMEOUT`, in milliseconds, if the default of 10 s is too \
         short",
    ),
    ("tracing.service_name", "set the environment variable `OTEL_SERVICE_NAME`"),
    ("endpoints.timeout", FIXED),
    ("endpoints.max_age", FIXED),
    ("routes.dangerous_forward_token", "write `forward_token = \"dangerous\"`"),
    (
        "routes.bad_credential",
        "write `auth = \"lenient\"` to treat an invalid token as a missing token; otherwise remove this \
         configuration key",
    ),
    (
        "routes.keep_underscore_headers",
        "if the value is true, write `keep_headers = [\"underscore\"]`; otherwise remove this configuration key",
    ),
    (
        "routes.keep_override_headers",
        "if the value is true, write `keep_headers = [\"override\"]`; otherwise remove this configuration key",
    ),
    (
        "routes.rate.burst",
        "the number in `limit` is now the burst; for 100 requests per minute and a burst of 20, write \
         `limit = \"20/12s\"`",
    ),
    ("authorizers.neighbour", "write the name of the proxy into `kind`, such as `kind = \"nginx\"`"),
    ("resources.mcp.max_message", FIXED),
    (
        "resources.mcp.versions",
        "the gate accepts every protocol version that it knows, but only the newest with `check = \"headers\"`; \
         remove this configuration key",
    ),
];

const FIXED: &str = "the value is now fixed, and docs/configuration.md lists it below the keys of the section; \
                     remove this configuration key";

const POINTS: &str = "the gate does not call external decision points; compare claims with `when`, or let your \
                      service, a layer in your program or a second Envoy filter decide (docs/conditions.md)";
const TRANSACTIONS: &str = "the gate does not issue transaction tokens; an upstream receives an assertion instead \
                            (docs/assertion.md); remove this configuration key";

const SHARE: &str = "this bound is now a fixed share of `max_requests`, `max_connections` or `max_buffered`, which \
                     you can raise; remove this configuration key";
const OF_UPSTREAM: &str = "this bound is now a fixed share of the upstream's `max_requests`, which you can raise; \
                           remove this configuration key";
const PER_ADDRESS: &str = "set `max_connections_per_address` in `[server]` instead; it applies to each listener";
const PEM: &str = "write the path of the file into `jwks_file`, which also accepts a single public key in PEM";
const SPRING: &str = "write both values into the file that `hash_parameters` names: { \"spring_pbkdf2\": { \
                      \"iterations\": 250000, \"secret\": \"…\" } }";
const OTHER_CLIENT: &str = "a refresh token from another client is always rejected, and its session continues; \
                            remove this configuration key";
const TOO_MANY: &str = "a login beyond `max_sessions_per_subject` always ends the oldest session; remove this \
                        configuration key";

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

    fn add(value: &mut Value, path: &str) -> bool {
        match (value, path.split_once('.')) {
            (Value::Array(list), _) => list.iter_mut().fold(false, |found, entry| add(entry, path) | found),
            (Value::Table(table), Some((of, rest))) => {
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
        assert_eq!(unseen, [""; 0], "`check` does not report these keys as removed");
        assert_eq!(REMOVED.iter().map(|(removed, _)| removed).collect::<BTreeSet<_>>().len(), REMOVED.len(), "twice");
        assert_eq!(replacement("routes[3].decision"), Some(POINTS));
        assert_eq!(replacement("routes[3].path"), None);
        assert_eq!(replacement("clients[0].keys.fetch.min"), Some(FIXED));
    }
}
