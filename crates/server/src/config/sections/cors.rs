//! `[cors]`.

use std::time::Duration;

use http::HeaderName;
use toml::{Table, Value};

use super::super::print::{put, put_some, texts, time};
use super::super::raw::Section;
use super::super::value;
use super::DAY;

/// `[cors]` (requirement T19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsConfig {
    /// The allowed origins, as a browser writes them (RFC 6454 §6.2).
    pub origins: Vec<String>,
    /// Whether they may send cookies and other credentials.
    pub allow_credentials: bool,
    /// How long a browser may cache a preflight.
    pub max_age: Duration,
    /// The response headers that pages of these origins may read, besides those that every page may (Fetch §3.3.2).
    pub expose: Vec<HeaderName>,
}

/// The default of the section.
impl CorsConfig {
    const MAX_AGE: Duration = Duration::from_secs(600);
}

pub(super) fn read(section: &Section<'_>) -> CorsConfig {
    let cors = CorsConfig {
        origins: section.list("origins", value::cors_origin).unwrap_or_default(),
        allow_credentials: section.get("allow_credentials", value::boolean).unwrap_or(false),
        max_age: section.get("max_age", value::duration_within(Duration::ZERO, DAY)).unwrap_or(CorsConfig::MAX_AGE),
        expose: section.list("expose", value::exposed_header).unwrap_or_default(),
    };
    if !cors.expose.is_empty() && cors.origins.is_empty() && !section.is_bad() {
        section.blame("expose", "only applies with origins, and there are none; add one, or remove it");
    }
    section.finish();
    cors
}

pub(super) fn print(cors: &CorsConfig) -> Value {
    let CorsConfig { origins, allow_credentials, max_age, expose } = cors;
    let mut table = Table::new();
    put(&mut table, "origins", texts(origins));
    put(&mut table, "allow_credentials", *allow_credentials);
    put(&mut table, "max_age", time(*max_age));
    put_some(
        &mut table,
        "expose",
        Some(texts(&expose.iter().map(HeaderName::as_str).collect::<Vec<_>>())).filter(|_| !expose.is_empty()),
    );
    table.into()
}
