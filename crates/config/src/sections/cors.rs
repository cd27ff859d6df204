//! `[cors]`.

use std::time::Duration;

use http::HeaderName;

use super::super::declare::section;
use super::super::value;
use super::DAY;
use rotogate_kit::config::Section;

section! {
    /// `[cors]` (requirement T19).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct CorsConfig, read by read_keys(section) {
        /// Allowed origins, as a browser writes them (`["https://app.example.com"]`). Set it if scripts on pages of
        /// other origins call the gate.
        reload origins: Vec<String> = list_or_empty(value::cors_origin),
        /// true: pages of these origins may send cookies and other credentials. Set it if these pages use browser
        /// sessions.
        reload allow_credentials: bool = get_or(value::boolean, false),
        /// How long a browser caches a preflight.
        fixed max_age: Duration = get_or(value::duration_within(Duration::ZERO, DAY), Duration::from_secs(600)),
        /// Response headers that pages of these origins may read, in addition to the headers that every page may read.
        /// Set it if scripts read headers of your services.
        reload expose as some: Vec<HeaderName> = list_or_empty(value::exposed_header),
    }
}

pub(super) fn read(section: &Section<'_>) -> CorsConfig {
    let cors = read_keys(section);
    if !cors.expose.is_empty() && cors.origins.is_empty() && !section.is_bad() {
        section.blame(
            "expose",
            "only applies together with `origins`, but `origins` is empty; add an origin, or remove `expose`",
        );
    }
    cors
}
