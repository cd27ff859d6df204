//! The name, labels and meaning of every metric family. `docs/metrics.md` is generated from them.

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// The number of values in each range.
    Histogram,
}

/// A metric family. Label values come from the configuration or from a fixed set, never from a request (requirement
/// A7): a client cannot create a series.
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

/// Declares families as constants, and the list of them all.
macro_rules! families {
    ($list:ident: $($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub const $constant: Family =
                Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// All families, in the order of the page.
        pub const $list: &[&Family] = &[$(&$constant),*];
    };
}

families! { ALL:
    BUILD_INFO = Gauge "build_info" ["version", "revision", "rustc", "features"] "Always 1; the labels describe the program";
    READY = Gauge "ready" [] "1, or 0 while /readyz is red";
    ENGINE_TIME_SKEW = Gauge "engine_time_skew_seconds" [] "Engine time minus wall clock";

    REQUESTS = Counter "requests" ["route", "outcome", "code"] "Requests answered, by outcome as in the access log";
    REQUEST_DURATION = Histogram "request_duration_seconds" ["route"]
        "From the request's head to the response's head, the upstream included";
    GATE_DURATION = Histogram "gate_duration_seconds" ["step"]
        "The gate's own part of that time, for requests to routes (decide) and to its endpoints (endpoint)";
    GRPC_RESPONSES = Counter "grpc_responses" ["route", "grpc_code"] "gRPC responses that ended, by their status";
    REQUEST_BYTES = Counter "request_bytes" ["route"] "Bytes of request bodies, once the response has ended";
    RESPONSE_BYTES = Counter "response_bytes" ["route"] "Bytes of response bodies, once they have ended";
    STREAMS_ENDED = Counter "streams_ended" ["route", "cause"]
        "Streams and tunnels that ended, by cause as in the access log";
    AUTHORIZER_VERDICTS = Counter "authorizer_verdicts" ["kind", "verdict"] "Verdicts on the requests of other proxies";
    REQUESTS_IN_FLIGHT = Gauge "requests_in_flight" [] "Requests in flight, streams included";
    REQUESTS_LIMIT = Gauge "requests_limit" [] "The bound on requests in flight (max_requests)";
    PENDING_BODIES = Gauge "pending_bodies" [] "Requests to endpoints whose body has not arrived yet";
    OWN_STREAMS = Gauge "own_streams" [] "Streams that the gate answers itself";
    TUNNELS = Gauge "tunnels" [] "Upgraded connections";
    BUFFERED_BYTES = Gauge "buffered_bytes" [] "Buffered bytes of bodies, messages and queues";
    CONNECTIONS = Gauge "connections" ["listener", "protocol"]
        "Open connections of a listener, counted from 0 in the order of the configuration; an upgraded one is still h1";
    CONNECTIONS_LIMIT = Gauge "connections_limit" [] "The bound on connections of all listeners (max_connections)";
    CONNECTIONS_REJECTED = Counter "connections_rejected" ["cause"] "Connections closed before a request";

    UPSTREAM_REQUESTS = Counter "upstream_requests" ["upstream", "result"]
        "Attempts at an address of an upstream, by result";
    UPSTREAM_RESPONSES = Counter "upstream_responses" ["upstream", "code_class"]
        "Responses of an upstream by class of their status";
    UPSTREAM_REQUEST_DURATION = Histogram "upstream_request_duration_seconds" ["upstream"]
        "From the sent request to the response's head, for attempts with an answer";
    UPSTREAM_RETRIES = Counter "upstream_retries" ["upstream"] "Attempts after the first one of a request";
    UPSTREAM_IN_FLIGHT = Gauge "upstream_in_flight" ["upstream"]
        "Requests in flight at an upstream, streams and upgraded connections included";
    UPSTREAM_CONNECTIONS = Gauge "upstream_connections" ["upstream"] "Open connections to an upstream, idle ones included";
    UPSTREAM_ADDRESSES = Gauge "upstream_addresses" ["upstream", "state"]
        "Addresses of an upstream: up, failing since its last answer, ejected after failures, or unhealthy by health checks";

    SESSION_EVENTS = Counter "session_events" ["event"] "Events of sessions";
    API_KEYS = Counter "api_keys" ["event"]
        "API keys made, replaced, revoked, reported as leaked, used late after a rotation, or renewed under another secret";
    SESSIONS_STARTED = Counter "sessions_started" ["dialect"] "Sessions that began";
    SESSIONS_ENDED = Counter "sessions_ended" ["cause"]
        "Sessions that were ended one by one; not those that expired, or whose subject, client or all were revoked";
    GRANTS = Counter "grants" ["grant", "result"] "Grants at token endpoints, those of relays apart, by grant type and result";
    BROWSER_LOGINS = Counter "browser_logins" ["result"] "Logins at the endpoint of browsers, by result";
    BROWSER_DEVICE = Counter "browser_device" ["result"] "Proofs of the devices of browser sessions, by result";
    BROWSER_RENEWALS = Counter "browser_renewals" ["result"] "Renewals of browser sessions that this gate began, by result";
    MCP_CALLS = Counter "mcp_calls" ["calls", "result"] "Calls (MCP) that a rule governs, by its resource and pattern, and by result";
    REVOCATIONS = Gauge "revocations" [] "Entries of the revocation list";
    VERIFIED_TOKENS = Gauge "verified_tokens" [] "Access tokens in the cache";
    VERIFICATIONS = Counter "verifications" ["result"] "Checks of access tokens";
    VERIFICATION_DURATION = Histogram "verification_duration_seconds" ["alg"] "Checks of signatures of access tokens";
    RATE_LIMITED = Counter "rate_limited" ["limit"] "Attempts that a rate of [limits] refused";
    RATE_REFUSED = Counter "rate_refused" ["name"] "Requests that a limit of a route refused, by its name";
    SIGNING_KEY_CREATED = Gauge "signing_key_created_timestamp_seconds" ["kid", "alg", "state"]
        "When a key of the gate's own tokens was made, in Unix time, as its file says";
    PASSWORD_QUEUE = Gauge "password_queue" [] "Password checks that run or wait";
    PASSWORD_QUEUE_LIMIT = Gauge "password_queue_limit" [] "The bound on password checks that run or wait";
    PASSWORD_CHECK_DURATION = Histogram "password_check_duration_seconds" [] "Password checks, without their wait";

    STORE_UP = Gauge "store_up" [] "1, or 0 while the store cannot be written, or was not heard of for too long";
    STORE_SIZE_BYTES = Gauge "store_size_bytes" [] "Size of the file of an embedded store";
    STORE_QUEUE = Gauge "store_queue" [] "Operations that wait for a commit of an embedded store";
    STORE_COMMITS = Counter "store_commits" ["result"]
        "Commits of an embedded store, each with what waited for it; writes to a store that gates share";
    STORE_COMMIT_DURATION = Histogram "store_commit_duration_seconds" [] "Duration of acknowledged commits and writes";
    STORE_STALE = Gauge "store_stale" []
        "1 while tokens are refused because a store that gates share was not heard of for too long";
    STORE_HEARD_AGE = Gauge "store_heard_age_seconds" [] "Time since a store that gates share was last heard of";

    DIRECTORY_REQUESTS = Counter "directory_requests" ["directory", "kind", "operation", "result"]
        "Requests to a directory in another system";
    DIRECTORY_DURATION = Histogram "directory_duration_seconds" ["directory", "kind", "operation"]
        "Time that a directory took";

    RELAY_EXCHANGES = Counter "relay_exchanges" ["result"] "Refresh tokens for a provider behind a relay";

    ISSUER_NOTICES = Counter "issuer_notices" ["issuer", "protocol", "result"]
        "Received logout tokens and security events, by result";
    ISSUER_NOTICE_AGE = Histogram "issuer_notice_age_seconds" []
        "Age of the notices that were applied, from their iat until they were durable";
    EVENTS = Counter "events" ["issuer", "type", "effect"]
        "Good events and requests of other issuers, by their type and what they did";
    ISSUER_KEYS = Gauge "issuer_keys" ["issuer"] "Usable keys of an issuer";
    ISSUER_STATE = Gauge "issuer_state" ["issuer"] "Keys of an issuer: 0 empty, 1 fresh, 2 aging, 3 stale";
    ISSUER_LAST_SUCCESS = Gauge "issuer_last_success_timestamp_seconds" ["issuer"]
        "When an issuer answered last, in Unix time";
    ISSUER_WAITING = Gauge "issuer_waiting" ["issuer"] "Requests that wait for the keys of an issuer";
    ISSUER_REFUSED_KEYS = Gauge "issuer_refused_keys" ["issuer", "cause"] "Ignored keys of an issuer's set";
    ISSUER_FETCHES = Counter "issuer_fetches" ["issuer", "result"] "Attempts to fetch the keys of an issuer";
    ISSUER_UNKNOWN_KID = Counter "issuer_unknown_kid" ["issuer"]
        "Tokens that name a key that is not in the issuer's set";
    ISSUER_INTROSPECTIONS = Counter "issuer_introspections" ["issuer", "result"]
        "Questions about opaque tokens to their issuer";
    STREAM_ALIVE = Gauge "stream_alive" ["issuer"]
        "1 if the last verification event of an issuer's stream came and the stream is enabled, else 0";
    RECEIVER_EVENTS = Counter "receiver_events" ["receiver", "result"]
        "Events for a receiver that this gate sent, that the receiver refused, or that were dropped";
    RECEIVER_WAITING = Gauge "receiver_waiting" ["receiver"]
        "Events for a receiver that wait, at the gate that sends";
    RECEIVER_LAG = Gauge "receiver_lag_seconds" ["receiver"]
        "How long the oldest event for a receiver has waited, at the gate that sends";
    EXCHANGES = Counter "exchanges" ["provider", "result"]
        "Tokens of callers that a provider exchanged for those of upstreams, or why it did not";
    DECISIONS = Counter "decisions" ["point", "result"]
        "Answers of decision points about requests, kept ones included, or that there was none";

    STATUS_LIST_LAG = Gauge "status_list_lag_seconds" []
        "How long ago the status lists had all sessions that had ended";
    STATUS_LIST_BUILDS = Counter "status_list_builds" [] "Status lists that were built and signed";

    CERTIFICATE_NOT_AFTER = Gauge "certificate_not_after_timestamp_seconds" ["file"]
        "When a certificate of a listener expires, in Unix time; the earliest one of its file";
    CONFIG_RELOAD_SUCCESSFUL = Gauge "config_last_reload_successful" ["source"]
        "1, or 0 while files differ from what is in force because they cannot be used";
    CONFIG_RELOAD_TIME = Gauge "config_last_reload_success_timestamp_seconds" ["source"]
        "When files were last loaded, in Unix time";
    CONFIG_INFO = Gauge "config_info" ["hash"]
        "Always 1; the hash is that of the configuration in force as `check --print` prints it, without secrets";

    LOG_LINES = Counter "log_lines" ["sink"] "Log lines written";
    LOG_DROPPED_LINES = Counter "log_dropped_lines" ["sink"]
        "Log lines dropped, because an output was too slow or failed";
    LOG_WRITE_ERRORS = Counter "log_write_errors" ["sink"] "Writes to a log output that failed";

    TRACE_SPANS = Counter "trace_spans" [] "Spans that a collector took";
    TRACE_DROPPED_SPANS = Counter "trace_dropped_spans" ["cause"]
        "Spans dropped, because the queue was full or the collector did not accept them";
}

// Metrics of the process, by the common names of Prometheus client libraries, without the prefix.
families! { OF_PROCESS:
    PROCESS_CPU = Counter "process_cpu_seconds" [] "CPU time of the process, of user and system";
    PROCESS_RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" [] "Resident memory of the process";
    PROCESS_VIRTUAL_MEMORY = Gauge "process_virtual_memory_bytes" [] "Virtual memory of the process";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" [] "Open file descriptors";
    PROCESS_MAX_FDS = Gauge "process_max_fds" [] "The bound on open file descriptors";
    PROCESS_THREADS = Gauge "process_threads" [] "Threads of the process";
    PROCESS_START_TIME = Gauge "process_start_time_seconds" [] "When the process started, in Unix time";
}
