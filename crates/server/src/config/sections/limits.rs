//! `[limits]`.

use toml::{Table, Value};

use super::super::print::{number, put, rate};
use super::super::raw::Section;
use super::super::value;
use super::usize_or;
use rotogate::gate::DEFAULT_MAX_ENDPOINT_BODY;
use rotogate_core::limit::Rates;
use rotogate_core::verify_cache::DEFAULT_CACHE;

/// `[limits]` (requirements A1, A3, A4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// The rates of logins, refreshes and refused tokens.
    pub rates: Rates,
    /// Whether gates of one store count logins together.
    pub shared: bool,
    /// The memory for verified tokens, in bytes.
    pub verified_cache: u64,
    /// Concurrent password checks.
    pub max_password_checks: usize,
    /// Password checks that may wait.
    pub password_queue: usize,
    /// The longest body of a request to an endpoint of the gate, in bytes.
    pub max_token_body: usize,
}

/// The defaults of the section, beside those of [`Rates`], [`DEFAULT_CACHE`] and [`DEFAULT_MAX_ENDPOINT_BODY`].
impl LimitsConfig {
    const PASSWORD_QUEUE: usize = 64;

    /// As many as processors.
    fn default_password_checks() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

pub(super) fn read(section: &Section<'_>) -> LimitsConfig {
    let rate = |key, default| section.get(key, value::rate).unwrap_or(default);
    let default = Rates::default();
    let limits = LimitsConfig {
        rates: Rates {
            login_per_address: rate("login_per_address", default.login_per_address),
            login_per_account: rate("login_per_account", default.login_per_account),
            login_per_client: rate("login_per_client", default.login_per_client),
            refresh_per_address: rate("refresh_per_address", default.refresh_per_address),
            refresh_per_session: rate("refresh_per_session", default.refresh_per_session),
            forged_per_address: rate("forged_per_address", default.forged_per_address),
            refused_per_address: rate("refused_per_address", default.refused_per_address),
            forged_overall: rate("forged_overall", default.forged_overall),
        },
        shared: section.get("shared", value::boolean).unwrap_or(true),
        verified_cache: section.get("verified_cache", value::size(1 << 20, 1 << 40)).unwrap_or(DEFAULT_CACHE),
        max_password_checks: section
            .get("max_password_checks", value::count(1, 1024))
            .unwrap_or_else(LimitsConfig::default_password_checks),
        password_queue: section.get("password_queue", value::count(0, 100_000)).unwrap_or(LimitsConfig::PASSWORD_QUEUE),
        max_token_body: usize_or(
            section.get("max_token_body", value::size(1 << 10, 1 << 20)),
            DEFAULT_MAX_ENDPOINT_BODY,
        ),
    };
    section.finish();
    limits
}

pub(super) fn print(limits: &LimitsConfig) -> Value {
    let LimitsConfig { rates, shared, verified_cache, max_password_checks, password_queue, max_token_body } = limits;
    let Rates {
        login_per_address,
        login_per_account,
        login_per_client,
        refresh_per_address,
        refresh_per_session,
        forged_per_address,
        refused_per_address,
        forged_overall,
    } = rates;
    let mut table = Table::new();
    for (key, of_key) in [
        ("login_per_address", login_per_address),
        ("login_per_account", login_per_account),
        ("login_per_client", login_per_client),
        ("refresh_per_address", refresh_per_address),
        ("refresh_per_session", refresh_per_session),
        ("forged_per_address", forged_per_address),
        ("refused_per_address", refused_per_address),
        ("forged_overall", forged_overall),
    ] {
        put(&mut table, key, rate(*of_key));
    }
    put(&mut table, "shared", *shared);
    put(&mut table, "verified_cache", number(*verified_cache));
    put(&mut table, "max_password_checks", number(*max_password_checks));
    put(&mut table, "password_queue", number(*password_queue));
    put(&mut table, "max_token_body", number(*max_token_body));
    table.into()
}
