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
        /// Rates of logins, refreshes and refused tokens.
        reload rates as "..": Rates = by { read_rates(section, &Rates::default()) },
        /// Replies that have `RateLimit-Policy` and `RateLimit`: `"refused"`: only replies to requests that a limit
        /// refuses.
        fixed rate_headers: RateHeaders = get_or(value::word_of, RateHeaders::default()),
        /// Memory of the cache of verified tokens: 64MiB are enough for about 40000. Each thread uses 8 MiB in
        /// addition. Raise it if more tokens are in use, because a token that is not in the cache costs a signature
        /// check.
        restart verified_cache: u64 = get_or(value::size(1 << 20, 1 << 40), DEFAULT_CACHE),
        /// Most concurrent password checks, each with one processor and 19 MiB. Set it below the number of processors
        /// if a flood of logins must not slow other requests down. Default: the number of processors.
        restart max_password_checks: usize = get_or(value::count(1, 1024), processors().get()),
        /// Most password checks that may wait. Beyond that: 503.
        fixed password_queue: usize = get_or(value::count(0, 100_000), 64),
        /// Longest body of a request to one of the gate's endpoints.
        fixed max_token_body: usize = get_or(value::size(1 << 10, 1 << 20), DEFAULT_MAX_ENDPOINT_BODY),
    }
}

section! {
    impl Rates, read by read_rates(section, default: &Rates) {
        /// Logins, and secrets of clients, from one address. An IPv6 address counts as its /64; a /56 has 4 times this
        /// limit, a /48 32 times. Raise it if more users log in from one address, for example from an office.
        reload login_per_address: Rate = get_or(value::rate, default.login_per_address),
        /// Logins of one user from addresses where the user has not logged in before. Logins from known addresses do
        /// not count, so that the user is not locked out.
        reload login_per_account: Rate = get_or(value::rate, default.login_per_account),
        /// Failed logins with one client, and wrong secrets of one client. Beyond that, addresses with more than three
        /// such failures get 429.
        fixed login_per_client: Rate = get_or(value::rate, Rates::default().login_per_client),
        /// Refreshes, and logins at a provider, from one address. Raise it for an application whose server refreshes
        /// for its users: their refreshes all come from the server's address.
        reload refresh_per_address: Rate = get_or(value::rate, default.refresh_per_address),
        /// Rotations of one session; replays do not count. Raise it if the replicas of a service share one session.
        reload refresh_per_session: Rate = get_or(value::rate, default.refresh_per_session),
        /// Tokens with an invalid signature from one address. Beyond that, the gate verifies only tokens that it has
        /// verified before from this address.
        fixed forged_per_address: Rate = get_or(value::rate, Rates::default().forged_per_address),
        /// Tokens from one address that are refused although their signature is valid, such as revoked tokens. Each
        /// such token counts only once. Beyond that: as for `forged_per_address`.
        fixed refused_per_address: Rate = get_or(value::rate, Rates::default().refused_per_address),
        /// Forged and refused tokens from all addresses together. Beyond that, new tokens are verified only from
        /// addresses that have sent valid tokens before.
        fixed forged_overall: Rate = get_or(value::rate, Rates::default().forged_overall),
    }
}
