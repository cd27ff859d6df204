//! `[limits]`.

use super::super::declare::section;
use super::super::value;
use super::processors;
use super::rate::RateHeaders;
use rotogate::gate::DEFAULT_MAX_ENDPOINT_BODY;
use rotogate_core::limit::{Rate, Rates};
use rotogate_core::verify_cache::DEFAULT_CACHE;

section! {
    /// `[limits]` (requirements A1, A3, A4).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct LimitsConfig, read by pub(super) read_keys(section) {
        /// Maximum rates of logins, refreshes and refused tokens.
        reload rates as "..": Rates = by { read_rates(section, &Rates::default()) },
        /// Which responses have the headers `RateLimit-Policy` and `RateLimit`. `"refused"`: only responses to requests
        /// that a limit refused.
        fixed rate_headers: RateHeaders = get_or(value::word_of, RateHeaders::default()),
        /// Memory for the cache of verified tokens; 64MiB are enough for about 40000 tokens. Each thread uses 8 MiB in
        /// addition. Raise it if more tokens are in use, because the gate must verify the signature of a token that is
        /// not in the cache.
        restart verified_cache: u64 = get_or(value::size(1 << 20, 1 << 40), DEFAULT_CACHE),
        /// Maximum number of concurrent password checks. Each check uses one processor and 19 MiB. Set it below the
        /// number of processors if a flood of logins must not slow down other requests. Default: the number of
        /// processors.
        restart max_password_checks: usize = get_or(value::count(1, 1024), processors().get()),
        /// Maximum number of password checks that may wait. Further logins get 503.
        fixed password_queue: usize = get_or(value::count(0, 100_000), 64),
        /// Maximum size of a request body for the gate's own endpoints.
        fixed max_token_body: usize = get_or(value::size(1 << 10, 1 << 20), DEFAULT_MAX_ENDPOINT_BODY),
    }
}

section! {
    impl Rates, read by read_rates(section, default: &Rates) {
        /// Logins, and authentications of clients by secret, from one address. IPv6 addresses in the same /64 share the
        /// limit; a /56 has 4 times this limit, a /48 32 times. Raise it if more users log in from one address, for
        /// example from an office.
        reload login_per_address: Rate = get_or(value::rate, default.login_per_address),
        /// Logins of one user from addresses from which the user has not logged in before. Logins from known addresses
        /// do not count, so that an attacker cannot lock the user out.
        reload login_per_account: Rate = get_or(value::rate, default.login_per_account),
        /// Failed logins with one client, and wrong secrets of one client. If they exceed this limit, addresses with
        /// more than three of these failures get 429.
        fixed login_per_client: Rate = get_or(value::rate, Rates::default().login_per_client),
        /// Refreshes, and logins at a provider, from one address. Raise it for an application whose server refreshes on
        /// behalf of its users, because all these refreshes come from the server's address.
        reload refresh_per_address: Rate = get_or(value::rate, default.refresh_per_address),
        /// Refreshes of one session that issue new tokens. A repeated request that gets the same tokens does not count.
        /// Raise it if the replicas of a service share one session.
        reload refresh_per_session: Rate = get_or(value::rate, default.refresh_per_session),
        /// Tokens with an invalid signature from one address. If an address exceeds this limit, the gate accepts from
        /// it only tokens that it has already verified from this address.
        fixed forged_per_address: Rate = get_or(value::rate, Rates::default().forged_per_address),
        /// Tokens from one address that are refused although their signature is valid, such as revoked tokens. Each of
        /// these tokens counts only once. If an address exceeds this limit, the effect is that of `forged_per_address`.
        fixed refused_per_address: Rate = get_or(value::rate, Rates::default().refused_per_address),
        /// Forged and refused tokens from all addresses together. If they exceed this limit, the gate verifies new
        /// tokens only from addresses that have sent valid tokens before.
        fixed forged_overall: Rate = get_or(value::rate, Rates::default().forged_overall),
    }
}
