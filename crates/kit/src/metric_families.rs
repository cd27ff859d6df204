//! The name, labels and meaning of every metric family. `docs/metrics.md` is generated from them.

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A count of the values in each bucket.
    Histogram,
}

/// A metric family. Label values come from the configuration or from a fixed set, never from a request, so that a
/// client cannot create a time series (requirement A7).
#[derive(Debug)]
pub struct Family {
    /// The name without the prefix `rotogate_`, and without the suffix `_total` of a counter.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The names of the family's labels.
    pub labels: &'static [&'static str],
    /// The meaning of the family, in a sentence without a full stop.
    pub help: &'static str,
}

/// Declares each family as a constant, and a list of all families.
macro_rules! families {
    ($list:ident: $($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub const $constant: Family =
                Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// All families, in the order of `docs/metrics.md`.
        pub const $list: &[&Family] = &[$(&$constant),*];
    };
}

families! { ALL:
    BUILD_INFO = Gauge "build_info" ["version", "revision", "rustc", "features"]
        "Always 1; labels describe the program";
    READY = Gauge "ready" [] "1 if the gate is ready, as /readyz says";
    ENGINE_TIME_SKEW = Gauge "engine_time_skew_seconds" [] "Engine time minus wall clock";

    REQUESTS = Counter "requests" ["route", "outcome", "code"] "Answered requests";
    REQUEST_DURATION = Histogram "request_duration_seconds" ["route"]
        "Time from the head of a request to that of its response";
    GATE_DURATION = Histogram "gate_duration_seconds" ["step"]
        "The gate's part of the request duration";
    GRPC_RESPONSES = Counter "grpc_responses" ["route", "grpc_code"] "gRPC responses that ended";
    REQUEST_BYTES = Counter "request_bytes" ["route"] "Bytes of request bodies, counted at the end of the response";
    RESPONSE_BYTES = Counter "response_bytes" ["route"] "Bytes of response bodies, counted at their end";
    STREAMS_ENDED = Counter "streams_ended" ["route", "cause"]
        "Streams and tunnels that ended";
    AUTHORIZER_VERDICTS = Counter "authorizer_verdicts" ["kind", "verdict"] "Verdicts on requests of other proxies";
    REQUESTS_IN_FLIGHT = Gauge "requests_in_flight" [] "Requests in flight, streams included";
    REQUESTS_LIMIT = Gauge "requests_limit" [] "The most requests in flight (max_requests)";
    PENDING_BODIES = Gauge "pending_bodies" [] "Requests to endpoints without their body yet";
    OWN_STREAMS = Gauge "own_streams" [] "Streams that the gate answers itself";
    TUNNELS = Gauge "tunnels" [] "Upgraded connections";
    BUFFERED_BYTES = Gauge "buffered_bytes" [] "Buffered bytes of bodies, messages and queues";
    CONNECTIONS = Gauge "connections" ["listener", "protocol"]
        "Open connections; upgraded ones are h1, silent ones none";
    CONNECTIONS_LIMIT = Gauge "connections_limit" [] "The most connections (max_connections)";
    CONNECTIONS_REJECTED = Counter "connections_rejected" ["cause"] "Connections closed before a request";

    UPSTREAM_REQUESTS = Counter "upstream_requests" ["upstream", "result"]
        "Attempts to send a request to an address of an upstream";
    UPSTREAM_RESPONSES = Counter "upstream_responses" ["upstream", "code_class"]
        "Responses of an upstream";
    UPSTREAM_REQUEST_DURATION = Histogram "upstream_request_duration_seconds" ["upstream"]
        "Time from the sent request to the head of the response";
    UPSTREAM_RETRIES = Counter "upstream_retries" ["upstream"] "Attempts of a request after the first one";
    UPSTREAM_IN_FLIGHT = Gauge "upstream_in_flight" ["upstream"]
        "Requests in flight at an upstream, streams and upgrades included";
    UPSTREAM_CONNECTIONS = Gauge "upstream_connections" ["upstream"]
        "Open connections to an upstream, idle ones included";
    UPSTREAM_ADDRESSES = Gauge "upstream_addresses" ["upstream", "state"]
        "Addresses of an upstream";

    SESSION_EVENTS = Counter "session_events" ["event"] "Events of sessions";
    API_KEYS = Counter "api_keys" ["event"]
        "API keys: created, rotated, revoked, leaked, used late after a rotation, or sealed with a new secret";
    SESSIONS_STARTED = Counter "sessions_started" ["dialect"] "Sessions that began";
    SESSIONS_ENDED = Counter "sessions_ended" ["cause"]
        "Sessions that ended singly, not by expiry or a revocation of a subject, a client or everything";
    GRANTS = Counter "grants" ["grant", "result"] "Grants at token endpoints except relays";
    BROWSER_LOGINS = Counter "browser_logins" ["result"] "Logins at the browser endpoint";
    BROWSER_DEVICE = Counter "browser_device" ["result"] "Proofs of devices for browser sessions (DBSC)";
    BROWSER_RENEWALS = Counter "browser_renewals" ["result"] "Renewals of browser sessions by this gate";
    MCP_CALLS = Counter "mcp_calls" ["calls", "result"]
        "Calls (MCP) that a rule governs, by its resource and pattern";
    REVOCATIONS = Gauge "revocations" [] "Entries of the revocation list";
    VERIFIED_TOKENS = Gauge "verified_tokens" [] "Access tokens in the cache of verified tokens";
    VERIFICATIONS = Counter "verifications" ["result"] "Verifications of access tokens";
    VERIFICATION_DURATION = Histogram "verification_duration_seconds" ["alg"]
        "Time to verify the signature of an access token";
    RATE_LIMITED = Counter "rate_limited" ["limit"] "Attempts that a rate of [limits] refused";
    RATE_REFUSED = Counter "rate_refused" ["name"] "Requests that a limit of a route refused";
    SIGNING_KEY_CREATED = Gauge "signing_key_created_timestamp_seconds" ["kid", "alg", "state"]
        "Unix time of the creation of a key for the gate's own tokens, by its file";
    PASSWORD_QUEUE = Gauge "password_queue" [] "Password checks that run or wait";
    PASSWORD_QUEUE_LIMIT = Gauge "password_queue_limit" [] "The most password checks that run or wait";
    PASSWORD_CHECK_DURATION = Histogram "password_check_duration_seconds" []
        "Time of a password check, without its wait";

    STORE_UP = Gauge "store_up" [] "1, or 0 while the store cannot be written or gives no news";
    STORE_SIZE_BYTES = Gauge "store_size_bytes" [] "Size of the embedded store's file";
    STORE_QUEUE = Gauge "store_queue" [] "Operations that wait for a commit of the embedded store";
    STORE_COMMITS = Counter "store_commits" ["result"]
        "Commits of the embedded store, each for all waiting operations; or writes to a shared store";
    STORE_COMMIT_DURATION = Histogram "store_commit_duration_seconds" [] "Time of acknowledged commits and writes";
    STORE_STALE = Gauge "store_stale" []
        "1 while the gate refuses tokens, without news from the shared store";
    STORE_HEARD_AGE = Gauge "store_heard_age_seconds" [] "Time since the last news from the shared store";

    DIRECTORY_REQUESTS = Counter "directory_requests" ["directory", "kind", "operation", "result"]
        "Requests to a directory in another system";
    DIRECTORY_DURATION = Histogram "directory_duration_seconds" ["directory", "kind", "operation"]
        "Time of a request to a directory";

    RELAY_EXCHANGES = Counter "relay_exchanges" ["result"] "Exchanges of refresh tokens at a relay";

    ISSUER_NOTICES = Counter "issuer_notices" ["issuer", "protocol", "result"]
        "Logout tokens and security events of issuers";
    ISSUER_NOTICE_AGE = Histogram "issuer_notice_age_seconds" []
        "Age of an applied notice, from its iat until its effect is durable";
    EVENTS = Counter "events" ["issuer", "type", "effect"]
        "Accepted events and requests of other issuers";
    ISSUER_KEYS = Gauge "issuer_keys" ["issuer"] "Usable keys of an issuer";
    ISSUER_STATE = Gauge "issuer_state" ["issuer"] "State of an issuer's keys: 0 empty, 1 fresh, 2 aging, 3 stale";
    ISSUER_LAST_SUCCESS = Gauge "issuer_last_success_timestamp_seconds" ["issuer"]
        "Unix time of the last answer of an issuer";
    ISSUER_WAITING = Gauge "issuer_waiting" ["issuer"] "Requests that wait for the keys of an issuer";
    ISSUER_REFUSED_KEYS = Gauge "issuer_refused_keys" ["issuer", "cause"]
        "Keys of an issuer's set that the gate ignores";
    ISSUER_FETCHES = Counter "issuer_fetches" ["issuer", "result"] "Attempts to fetch the keys of an issuer";
    ISSUER_UNKNOWN_KID = Counter "issuer_unknown_kid" ["issuer"]
        "Tokens whose kid is not in the issuer's set";
    ISSUER_INTROSPECTIONS = Counter "issuer_introspections" ["issuer", "result"]
        "Introspections of opaque tokens at an issuer";
    EXCHANGES = Counter "exchanges" ["provider", "result"]
        "Exchanges of callers' tokens for tokens of upstreams";

    CERTIFICATE_NOT_AFTER = Gauge "certificate_not_after_timestamp_seconds" ["file"]
        "Unix time at which the first certificate of a file expires";
    CONFIG_RELOAD_SUCCESSFUL = Gauge "config_last_reload_successful" ["source"]
        "1, or 0 while changed files are unusable and old content is in force";
    CONFIG_RELOAD_TIME = Gauge "config_last_reload_success_timestamp_seconds" ["source"]
        "Unix time at which files were last loaded";
    CONFIG_INFO = Gauge "config_info" ["hash"]
        "Always 1; the hash of the configuration in force, without secrets, as `check --print` prints it";

    LOG_LINES = Counter "log_lines" ["sink"] "Log lines written";
    LOG_DROPPED_LINES = Counter "log_dropped_lines" ["sink"]
        "Log lines that a slow or broken output lost";
    LOG_WRITE_ERRORS = Counter "log_write_errors" ["sink"] "Failed writes to a log output";

    TRACE_SPANS = Counter "trace_spans" [] "Spans that the collector accepted";
    TRACE_DROPPED_SPANS = Counter "trace_dropped_spans" ["cause"]
        "Spans lost to a full queue or refused by the collector";
}

// Metrics of the process. They have the names that Prometheus client libraries commonly use, without the prefix
// `rotogate_`.
families! { OF_PROCESS:
    PROCESS_CPU = Counter "process_cpu_seconds" [] "User and system CPU time of the process";
    PROCESS_RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" [] "Resident memory of the process";
    PROCESS_VIRTUAL_MEMORY = Gauge "process_virtual_memory_bytes" [] "Virtual memory of the process";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" [] "Open file descriptors";
    PROCESS_MAX_FDS = Gauge "process_max_fds" [] "The most open file descriptors";
    PROCESS_THREADS = Gauge "process_threads" [] "Threads of the process";
    PROCESS_START_TIME = Gauge "process_start_time_seconds" [] "Unix time at which the process started";
}

#[cfg(test)]
mod tests {
    use support::generated::assert_part_is_current;

    use super::*;

    #[test]
    fn the_families_on_the_page_are_generated() {
        let mut table = "| name | labels | meaning |\n|---|---|---|\n".to_owned();
        let of_gate = ALL.iter().map(|family| ("rotogate_", family));
        for (prefix, family) in of_gate.chain(OF_PROCESS.iter().map(|family| ("", family))) {
            let (suffix, kind) = match family.kind {
                Kind::Counter => ("_total", ""),
                Kind::Gauge => ("", ""),
                Kind::Histogram => ("", " (histogram)"),
            };
            let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, labels, help) = (family.name, labels.join(", "), family.help);
            table += &format!("| `{prefix}{name}{suffix}` | {labels} | {help}{kind} |\n");
        }
        assert_part_is_current("docs/metrics.md", "families", &table);
    }
}
