//! `[tracing]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;

use super::super::declare::section;
use super::super::print::Words;
use super::super::value;
use super::{SECOND, path_in};
use rotogate_core::route::WarningKind;
use rotogate_kit::config::{Section, Value as Raw};

const HTTP_PATH: &str = "/v1/traces";

/// The protocol with which spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceProtocol {
    /// OTLP over HTTP/1.1, in protobuf.
    Http,
    /// OTLP over gRPC.
    Grpc,
}

impl Words for TraceProtocol {
    const WORDS: &'static [(&'static str, Self)] = &[("http", Self::Http), ("grpc", Self::Grpc)];
}

section! {
    /// `[tracing]`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct TracingConfig, read by read_keys(section, dir: &Path) {
        /// Protocol of the collector.
        no_key protocol: TraceProtocol = by {
            let of_variable = section.get_of_others("protocol", OTEL, value::word_of);
            of_variable.unwrap_or_else(|| section.for_tests().get_or("protocol", value::word_of, TraceProtocol::Http))
        },
        /// URL of the OpenTelemetry collector. If unset, the gate uses the environment variable
        /// `OTEL_EXPORTER_OTLP_ENDPOINT`.
        reload endpoint: Uri = required(ENDPOINT, |v| read_endpoint(v, protocol)),
        /// File (0600) with headers for requests to the collector, one per line, such as `authorization: Bearer …`. The
        /// gate reads it again at a reload.
        reload headers_file: Option<PathBuf> = get(path_in(dir)),
        /// Fraction of new traces that the gate records, from 0 to 1. For traces that a trusted proxy started, the
        /// proxy decides. Lower it under load.
        reload sample: f64 = get_or(value::fraction, 1.0),
        /// File (PEM) with the only certificate authorities that the gate trusts for this server. Set it if an internal
        /// authority issued the server's certificate. Default: the system's authorities.
        reload ca: Option<PathBuf> = get(path_in(dir)),
        /// `service.name` of all spans.
        no_key service_name: String = by {
            section.get_of_others("service_name", OTEL, value::text).unwrap_or_else(|| "rotogate".to_owned())
        },
        /// true: spans contain the user's id (`user.id`). Set it only if your traces may contain personal data.
        reload identity: bool = get_or(value::boolean, false),
        /// Time limit for sending a batch of spans, including retries.
        no_key timeout: Duration = by {
            let of_variable = section.get_of_others("timeout", OTEL, wait());
            of_variable.unwrap_or_else(|| section.for_tests().get_or("timeout", wait(), Duration::from_secs(10)))
        },
        /// How long a span may wait until the gate sends its batch.
        fixed flush_interval: Duration = get_or(wait(), SECOND),
        /// Maximum number of spans that wait or are being sent. Further spans are dropped and counted.
        fixed queue: usize = get_or(value::count(512, 1 << 20), 4096),
    }
    with {
        /// Protocol of the collector: OTLP in protobuf over HTTP, unless `OTEL_EXPORTER_OTLP_PROTOCOL` is `grpc`.
        fixed protocol: text = "http",
        /// `service.name` of all spans, unless `OTEL_SERVICE_NAME` is set.
        fixed service_name: text = "rotogate",
        /// Time limit for sending a batch of spans, including retries, unless `OTEL_EXPORTER_OTLP_TIMEOUT` is set.
        fixed timeout: text = "10s",
    }
}

const OTEL: &str = "OTEL_";

const ENDPOINT: &str =
    "the URL of a collector, such as \"http://localhost:4318\", here or in `OTEL_EXPORTER_OTLP_ENDPOINT`";

fn wait() -> impl Fn(&Raw) -> Result<Duration, String> {
    value::duration_within(Duration::from_millis(100), Duration::from_secs(60))
}

pub(super) fn read(root: &Section<'_>, dir: &Path) -> Option<TracingConfig> {
    if root.has("tracing") && !cfg!(feature = "otel") {
        root.section("tracing");
        root.blame("tracing", value::needs_feature("[tracing]", "otel"));
        return None;
    }
    root.table("tracing", |section| {
        let tracing = read_keys(section, dir);
        if value::is_in_clear(&tracing.endpoint) {
            blame_clear_text(section, &tracing);
        }
        tracing
    })
}

fn blame_clear_text(section: &Section<'_>, tracing: &TracingConfig) {
    if tracing.headers_file.is_some() {
        section.blame("headers_file", "would be sent unencrypted to another machine; expected an https endpoint");
    } else {
        section.warn(
            WarningKind::NoAccess,
            "endpoint",
            "uses http, so spans, which contain client addresses and paths, are sent unencrypted to another machine",
        );
    }
}

fn read_endpoint(v: &Raw, protocol: TraceProtocol) -> Result<Uri, String> {
    const EXPECTED: &str = "a URL such as \"http://localhost:4318\", without user, query and fragment";
    let text = value::text(v)?;
    let fits = |uri: &Uri| {
        let is_named = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        is_named && matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none() && !text.contains('#')
    };
    let uri = value::parsed(v, EXPECTED, |text| text.parse().ok().filter(fits))?;
    match (protocol, uri.path()) {
        (TraceProtocol::Http, "" | "/") => {
            let url = format!("{}{HTTP_PATH}", text.trim_end_matches('/'));
            url.parse().or_else(|_| value::unexpected(EXPECTED, v))
        }
        (TraceProtocol::Grpc, "" | "/") | (TraceProtocol::Http, _) => Ok(uri),
        (TraceProtocol::Grpc, _) => {
            Err("expected a URL without a path for gRPC, such as \"http://localhost:4317\"".to_owned())
        }
    }
}
