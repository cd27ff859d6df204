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
        /// Replies with `RateLimit-Policy` and `RateLimit`: `"refused"`: those of a limit that refuses.
        fixed rate_headers: RateHeaders = get_or(value::word_of, RateHeaders::default()),
        /// Memory for verified tokens: 64MiB hold about 40000. Each thread has 8 MiB besides. Raise it for more
        /// tokens in use, because a token that has left the cache costs a signature check.
        restart verified_cache: u64 = get_or(value::size(1 << 20, 1 << 40), DEFAULT_CACHE),
        /// Most concurrent password checks, each with one processor and 19 MiB. Set it below the number of processors
        /// if a flood of logins must not slow other requests down. Default: the number of processors.
        restart max_password_checks: usize = get_or(value::count(1, 1024), processors().get()),
        /// Most password checks that wait. Beyond that: 503.
        fixed password_queue: usize = get_or(value::count(0, 100_000), 64),
        /// Longest body of a request to one of the gate's endpoints.
        fixed max_token_body: usize = get_or(value::size(1 << 10, 1 << 20), DEFAULT_MAX_ENDPOINT_BODY),
    }
}

section! {
    impl Rates, read by read_rates(section, default: &Rates) {
        /// Logins, and secrets of clients, from one address. An IPv6 address counts as its /64; a /56 has 4 times
        /// this limit, a /48 32 times. Raise it if more users than that log in from one address, as from an office.
        reload login_per_address: Rate = get_or(value::rate, default.login_per_address),
        /// Logins of one user from addresses new to the user; the owner is not locked out.
        reload login_per_account: Rate = get_or(value::rate, default.login_per_account),
        /// Failed logins and secrets with one client. Beyond that, addresses with more than three such failures get
        /// 429.
        fixed login_per_client: Rate = get_or(value::rate, Rates::default().login_per_client),
        /// Refreshes, and logins at a provider, from one address. Raise it for an application whose server refreshes
        /// for its users: their refreshes all come from the server's address.
        reload refresh_per_address: Rate = get_or(value::rate, default.refresh_per_address),
        /// Rotations of one session; replays do not count. Raise it if the replicas of a service share one session.
        reload refresh_per_session: Rate = get_or(value::rate, default.refresh_per_session),
        /// Tokens with a bad signature from one address. Beyond that, the gate verifies no unseen token of the address.
        fixed forged_per_address: Rate = get_or(value::rate, Rates::default().forged_per_address),
        /// Tokens from one address with a good signature that are refused, such as revoked ones; a repeat does not
        /// count. Beyond that: as for `forged_per_address`.
        fixed refused_per_address: Rate = get_or(value::rate, Rates::default().refused_per_address),
        /// Both kinds of tokens from all addresses. Beyond that, only unseen tokens from addresses that have sent good
        /// tokens are verified.
        fixed forged_overall: Rate = get_or(value::rate, Rates::default().forged_overall),
    }
}
