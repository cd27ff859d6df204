//! All metric families, the source of `docs/metrics.md`.

/// The type of a metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that only increases.
    Counter,
    /// A value that may increase or decrease.
    Gauge,
    /// Counts of values per bucket.
    Histogram,
}

/// A metric family. Label values never come from requests, so that clients cannot create time series (requirement A7).
#[derive(Debug)]
pub struct Family {
    /// The name, without the prefix `rotogate_` and the suffix `_total`.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The label names.
    pub labels: &'static [&'static str],
    /// A description without a full stop.
    pub help: &'static str,
}

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
        "Always 1; the labels describe the program's build";
    READY = Gauge "ready" [] "1 while the gate is ready (/readyz), otherwise 0";
    ENGINE_TIME_SKEW = Gauge "engine_time_skew_seconds" []
        "Time by which the gate's own clock is ahead of the wall clock";

    REQUESTS = Counter "requests" ["route", "outcome", "code"] "Requests that the gate handled";
    REQUEST_DURATION = Histogram "request_duration_seconds" ["route"] "Time from the request head to the response head";
    GATE_DURATION = Histogram "gate_duration_seconds" ["step"] "The gate's own part of a request's duration";
    GRPC_RESPONSES = Counter "grpc_responses" ["route", "grpc_code"] "gRPC responses that have ended";
    REQUEST_BYTES = Counter "request_bytes" ["route"] "Bytes of request bodies, counted when the response ends";
    RESPONSE_BYTES = Counter "response_bytes" ["route"] "Bytes of response bodies, counted when the body ends";
    STREAMS_ENDED = Counter "streams_ended" ["route", "cause"] "Streams and tunnels that have ended";
    AUTHORIZER_VERDICTS = Counter "authorizer_verdicts" ["kind", "verdict"]
        "Verdicts that the gate returned to other proxies";
    REQUESTS_IN_FLIGHT = Gauge "requests_in_flight" [] "Requests in flight, including streams";
    REQUESTS_LIMIT = Gauge "requests_limit" [] "Limit on requests in flight (max_requests)";
    PENDING_BODIES = Gauge "pending_bodies" [] "Requests to the gate's endpoints whose body has not arrived yet";
    OWN_STREAMS = Gauge "own_streams" [] "Open streams that the gate serves itself";
    TUNNELS = Gauge "tunnels" [] "Open upgraded connections";
    BUFFERED_BYTES = Gauge "buffered_bytes" [] "Bytes of bodies, messages and queues in memory";
    CONNECTIONS = Gauge "connections" ["listener", "protocol"]
        "Open connections; protocol is h1 for upgraded ones, and none until the client sends something";
    CONNECTIONS_LIMIT = Gauge "connections_limit" [] "Limit on open connections (max_connections)";
    CONNECTIONS_REJECTED = Counter "connections_rejected" ["cause"]
        "Connections that were closed before their first request";

    UPSTREAM_REQUESTS = Counter "upstream_requests" ["upstream", "result"]
        "Attempts to send a request to an address of an upstream";
    UPSTREAM_RESPONSES = Counter "upstream_responses" ["upstream", "code_class"] "Responses from an upstream";
    UPSTREAM_REQUEST_DURATION = Histogram "upstream_request_duration_seconds" ["upstream"]
        "Time from sending a request to receiving the response head";
    UPSTREAM_RETRIES = Counter "upstream_retries" ["upstream"] "Repeated attempts to send a request to an upstream";
    UPSTREAM_IN_FLIGHT = Gauge "upstream_in_flight" ["upstream"]
        "Requests in flight at an upstream, including streams and upgraded connections";
    UPSTREAM_CONNECTIONS = Gauge "upstream_connections" ["upstream"]
        "Open connections to an upstream, including idle ones";
    UPSTREAM_ADDRESSES = Gauge "upstream_addresses" ["upstream", "state"]
        "Addresses of an upstream that are in this state";

    SESSION_EVENTS = Counter "session_events" ["event"] "Events in sessions, such as logins and refreshes";
    API_KEYS = Counter "api_keys" ["event"]
        "API keys that were created, rotated, revoked, leaked, used late after a rotation, or sealed with a new secret";
    SESSIONS_STARTED = Counter "sessions_started" ["dialect"] "Sessions that have begun";
    SESSIONS_ENDED = Counter "sessions_ended" ["cause"]
        "Sessions that were ended individually, not by expiry or by revoking a subject, a client or everything";
    GRANTS = Counter "grants" ["grant", "result"] "Grant requests at token endpoints, except relays";
    BROWSER_LOGINS = Counter "browser_logins" ["result"] "Login attempts at the browser endpoint";
    BROWSER_DEVICE = Counter "browser_device" ["result"]
        "Requests that register or prove a browser session's device (DBSC)";
    BROWSER_RENEWALS = Counter "browser_renewals" ["result"] "Attempts by this gate to renew a browser session";
    MCP_CALLS = Counter "mcp_calls" ["calls", "result"]
        "MCP calls to which a rule applies, by the rule's resource and pattern";
    REVOCATIONS = Gauge "revocations" [] "Entries in the revocation list";
    VERIFIED_TOKENS = Gauge "verified_tokens" [] "Access tokens in the cache of verified tokens";
    VERIFICATIONS = Counter "verifications" ["result"] "Verifications of access tokens";
    VERIFICATION_DURATION = Histogram "verification_duration_seconds" ["alg"]
        "Time to verify the signature of an access token";
    RATE_LIMITED = Counter "rate_limited" ["limit"] "Attempts refused by a rate limit in [limits]";
    RATE_REFUSED = Counter "rate_refused" ["name"] "Requests refused by a route's limit";
    SIGNING_KEY_CREATED = Gauge "signing_key_created_timestamp_seconds" ["kid", "alg", "state"]
        "Unix time at which the file of one of the gate's signing keys was written";
    PASSWORD_QUEUE = Gauge "password_queue" [] "Password checks that are running or waiting";
    PASSWORD_QUEUE_LIMIT = Gauge "password_queue_limit" [] "Limit on password checks that are running or waiting";
    PASSWORD_CHECK_DURATION = Histogram "password_check_duration_seconds" []
        "Duration of a password check, excluding its time in the queue";

    STORE_UP = Gauge "store_up" [] "1 while the store works, and 0 while it cannot be written or does not respond";
    STORE_SIZE_BYTES = Gauge "store_size_bytes" [] "Size of the embedded store's file";
    STORE_QUEUE = Gauge "store_queue" [] "Operations that are waiting for a commit of the embedded store";
    STORE_COMMITS = Counter "store_commits" ["result"]
        "Commits of the embedded store (one for all waiting operations), or writes to a shared store";
    STORE_COMMIT_DURATION = Histogram "store_commit_duration_seconds" []
        "Duration of a successful commit or write to the store";
    STORE_STALE = Gauge "store_stale" [] "1 while the gate refuses tokens because the shared store does not respond";
    STORE_HEARD_AGE = Gauge "store_heard_age_seconds" [] "Time since the shared store last responded";

    DIRECTORY_REQUESTS = Counter "directory_requests" ["directory", "kind", "operation", "result"]
        "Requests to a directory in another system";
    DIRECTORY_DURATION = Histogram "directory_duration_seconds" ["directory", "kind", "operation"]
        "Duration of a request to a directory in another system";

    RELAY_EXCHANGES = Counter "relay_exchanges" ["result"] "Requests at a relay to exchange a refresh token";
    RELAY_KEPT = Gauge "relay_kept" [] "Provider's responses that relays keep until their tokens are used";
    RELAY_NOT_KEPT = Counter "relay_not_kept" []
        "Provider's responses that were kept only for grace, because a relay already kept the maximum";

    ISSUER_NOTICES = Counter "issuer_notices" ["issuer", "protocol", "result"]
        "Logout tokens, security events and global revocations from an issuer";
    ISSUER_NOTICE_AGE = Histogram "issuer_notice_age_seconds" []
        "Time from the iat of an applied notice until its effect is durable";
    EVENTS = Counter "events" ["issuer", "type", "effect"]
        "Events and logout requests that the gate accepted from an issuer";
    ISSUER_KEYS = Gauge "issuer_keys" ["issuer"] "Usable keys of an issuer";
    ISSUER_STATE = Gauge "issuer_state" ["issuer"] "State of an issuer's keys: 0 empty, 1 fresh, 2 aging, 3 stale";
    ISSUER_LAST_SUCCESS = Gauge "issuer_last_success_timestamp_seconds" ["issuer"]
        "Unix time of the last successful fetch of an issuer's keys";
    ISSUER_WAITING = Gauge "issuer_waiting" ["issuer"] "Requests that are waiting for an issuer's keys";
    ISSUER_REFUSED_KEYS = Gauge "issuer_refused_keys" ["issuer", "cause"]
        "Keys in an issuer's key set that the gate ignores";
    ISSUER_FETCHES = Counter "issuer_fetches" ["issuer", "result"] "Attempts to fetch an issuer's keys";
    ISSUER_UNKNOWN_KID = Counter "issuer_unknown_kid" ["issuer"] "Tokens whose kid is not in the issuer's key set";
    ISSUER_INTROSPECTIONS = Counter "issuer_introspections" ["issuer", "result"]
        "Introspections of opaque tokens at an issuer";
    EXCHANGES = Counter "exchanges" ["provider", "result"] "Exchanges of a caller's token for an upstream's token";

    CERTIFICATE_NOT_AFTER = Gauge "certificate_not_after_timestamp_seconds" ["file"]
        "Unix time at which the first certificate in a file expires";
    CONFIG_RELOAD_SUCCESSFUL = Gauge "config_last_reload_successful" ["source"]
        "1, or 0 while changed files are invalid and their old content stays in force";
    CONFIG_RELOAD_TIME = Gauge "config_last_reload_success_timestamp_seconds" ["source"]
        "Unix time at which the files were last loaded successfully";
    CONFIG_INFO = Gauge "config_info" ["hash"]
        "Always 1; hash is the hash of the configuration in force, as `check --print` prints it without secrets";

    LOG_LINES = Counter "log_lines" ["sink"] "Log lines that were written";
    LOG_DROPPED_LINES = Counter "log_dropped_lines" ["sink"]
        "Log lines that were lost because an output was slow or broken";
    LOG_WRITE_ERRORS = Counter "log_write_errors" ["sink"] "Failed writes to a log output";

    TRACE_SPANS = Counter "trace_spans" [] "Spans that the trace collector accepted";
    TRACE_DROPPED_SPANS = Counter "trace_dropped_spans" ["cause"]
        "Spans that were lost because a queue was full or the collector refused them";
}

// Process metrics have the usual Prometheus names, without the prefix `rotogate_`.
families! { OF_PROCESS:
    PROCESS_CPU = Counter "process_cpu_seconds" [] "User and system CPU time of the process";
    PROCESS_RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" [] "Resident memory of the process";
    PROCESS_VIRTUAL_MEMORY = Gauge "process_virtual_memory_bytes" [] "Virtual memory of the process";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" [] "Open file descriptors";
    PROCESS_MAX_FDS = Gauge "process_max_fds" [] "Limit on open file descriptors";
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
