//! `[limits]`.

use super::super::declare::section;
use super::super::raw::Section;
use super::super::value;
use super::processors;
use rotogate::gate::DEFAULT_MAX_ENDPOINT_BODY;
use rotogate_core::limit::{Rate, Rates};
use rotogate_core::verify_cache::DEFAULT_CACHE;

section! {
    /// `[limits]` (requirements A1, A3, A4).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct LimitsConfig, read by read_keys(section) {
        /// The rates of logins, refreshes and refused tokens.
        reload rates as "..": Rates = by { read_rates(section, &Rates::default()) },
        /// Whether gates of one store count logins together.
        restart shared: bool = get_or(value::boolean, true),
        /// The memory for verified tokens, in bytes.
        restart verified_cache: u64 = get_or(value::size(1 << 20, 1 << 40), DEFAULT_CACHE),
        /// Concurrent password checks: as many as processors.
        restart max_password_checks: usize = get_or(value::count(1, 1024), processors().get()),
        /// Password checks that may wait.
        restart password_queue: usize = get_or(value::count(0, 100_000), 64),
        /// The longest body of a request to an endpoint of the gate, in bytes.
        reload max_token_body: usize = get_or(value::size(1 << 10, 1 << 20), DEFAULT_MAX_ENDPOINT_BODY),
    }
}

section! {
    impl Rates, read by read_rates(section, default: &Rates) {
        reload login_per_address: Rate = get_or(value::rate, default.login_per_address),
        reload login_per_account: Rate = get_or(value::rate, default.login_per_account),
        reload login_per_client: Rate = get_or(value::rate, default.login_per_client),
        reload refresh_per_address: Rate = get_or(value::rate, default.refresh_per_address),
        reload refresh_per_session: Rate = get_or(value::rate, default.refresh_per_session),
        reload forged_per_address: Rate = get_or(value::rate, default.forged_per_address),
        reload refused_per_address: Rate = get_or(value::rate, default.refused_per_address),
        reload forged_overall: Rate = get_or(value::rate, default.forged_overall),
    }
}

pub(super) fn read(section: &Section<'_>) -> LimitsConfig {
    let limits = read_keys(section);
    section.finish();
    limits
}
