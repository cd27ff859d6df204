//! `[tracing]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use toml::{Table, Value};

use super::super::print::{number, path, put, put_some, time};
use super::super::raw::{Section, Value as Raw};
use super::super::value;
use super::{SECOND, path_in};
use rotogate_core::route::WarningKind;

/// The default of `tracing.timeout`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The default of `tracing.flush_interval`.
const FLUSH_INTERVAL: Duration = SECOND;
/// The default of `tracing.queue`, in spans.
const QUEUE: usize = 4096;
const SERVICE_NAME: &str = "rotogate";
/// Where OTLP over HTTP takes traces.
const HTTP_PATH: &str = "/v1/traces";
const PROTOCOLS: [(&str, TraceProtocol); 2] = [("http", TraceProtocol::Http), ("grpc", TraceProtocol::Grpc)];

/// How spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceProtocol {
    /// OTLP over HTTP/1.1, in protobuf.
    Http,
    /// OTLP over gRPC.
    Grpc,
}

/// `[tracing]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingConfig {
    /// The collector. With HTTP, the whole URL.
    pub endpoint: Uri,
    /// How spans are sent.
    pub protocol: TraceProtocol,
    /// The part of the requests that is recorded, from 0 to 1.
    pub sample: f64,
    /// A private file with headers for the collector.
    pub headers_file: Option<PathBuf>,
    /// The authorities for the collector's certificate. `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// `service.name`.
    pub service_name: String,
    /// Whether spans name the user.
    pub identity: bool,
    /// The time for a batch of spans, with its retries.
    pub timeout: Duration,
    /// How long a span waits for others at most.
    pub flush_interval: Duration,
    /// The most spans that wait or are under way to the collector.
    pub queue: usize,
}

pub(super) fn read(root: &Section<'_>, dir: &Path) -> Option<TracingConfig> {
    if !root.has("tracing") {
        return None;
    }
    let section = root.section("tracing");
    if !cfg!(feature = "otel") {
        root.blame("tracing", value::needs_feature("[tracing]", "otel"));
        return None;
    }
    let protocol = section.get("protocol", value::word(&PROTOCOLS, &[])).unwrap_or(TraceProtocol::Http);
    let endpoint = section.require(
        "endpoint",
        "the URL of a collector, such as \"http://localhost:4318\", here or in OTEL_EXPORTER_OTLP_ENDPOINT",
        |v| read_endpoint(v, protocol),
    );
    let headers_file = section.get("headers_file", path_in(dir));
    if let Some(endpoint) = &endpoint
        && is_in_clear(endpoint)
    {
        if headers_file.is_some() {
            section.blame("headers_file", "would be sent in clear text to another machine; expected an https endpoint");
        } else {
            section.warn(
                WarningKind::NoAccess,
                "endpoint",
                "is http: spans, with paths and addresses of clients, go to another machine in clear text",
            );
        }
    }
    let waits = value::duration_within(Duration::from_millis(100), Duration::from_secs(60));
    let sample = section.get("sample", value::fraction).unwrap_or(1.0);
    let ca = section.get("ca", path_in(dir));
    let service_name = section.get("service_name", value::text).unwrap_or_else(|| SERVICE_NAME.to_owned());
    let identity = section.get("identity", value::boolean).unwrap_or(false);
    let timeout = section.get("timeout", &waits).unwrap_or(TIMEOUT);
    let flush_interval = section.get("flush_interval", &waits).unwrap_or(FLUSH_INTERVAL);
    let queue = section.get("queue", value::count(512, 1 << 20)).unwrap_or(QUEUE);
    section.finish();
    Some(TracingConfig {
        endpoint: endpoint?,
        protocol,
        sample,
        headers_file,
        ca,
        service_name,
        identity,
        timeout,
        flush_interval,
        queue,
    })
}

fn read_endpoint(v: &Raw, protocol: TraceProtocol) -> Result<Uri, String> {
    let text = value::text(v)?;
    let unexpected = || {
        Err(format!(
            "expected a URL such as \"http://localhost:4318\", without user, query and fragment, found {}",
            v.describe()
        ))
    };
    let Ok(uri) = text.parse::<Uri>() else { return unexpected() };
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return unexpected() };
    if authority.as_str().contains('@') || uri.query().is_some() || text.contains('#') {
        return unexpected();
    }
    match (protocol, uri.path()) {
        (TraceProtocol::Http, "" | "/") => {
            format!("{}{HTTP_PATH}", text.trim_end_matches('/')).parse().or_else(|_| unexpected())
        }
        (TraceProtocol::Grpc, "" | "/") | (TraceProtocol::Http, _) => Ok(uri),
        (TraceProtocol::Grpc, _) => {
            Err("gRPC has no path: expected a URL such as \"http://localhost:4317\"".to_owned())
        }
    }
}

/// Whether spans cross a network that others may listen to.
fn is_in_clear(endpoint: &Uri) -> bool {
    let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    endpoint.scheme_str() == Some("http") && !is_here
}

pub(super) fn print(tracing: &TracingConfig) -> Value {
    let TracingConfig {
        endpoint,
        protocol,
        sample,
        headers_file,
        ca,
        service_name,
        identity,
        timeout,
        flush_interval,
        queue,
    } = tracing;
    let mut table = Table::new();
    put(&mut table, "endpoint", endpoint.to_string());
    let protocol = PROTOCOLS.iter().find(|(_, known)| known == protocol).map_or("", |(word, _)| word);
    put(&mut table, "protocol", protocol);
    put(&mut table, "sample", *sample);
    put_some(&mut table, "headers_file", headers_file.as_deref().map(path));
    put_some(&mut table, "ca", ca.as_deref().map(path));
    put(&mut table, "service_name", service_name.as_str());
    put(&mut table, "identity", *identity);
    put(&mut table, "timeout", time(*timeout));
    put(&mut table, "flush_interval", time(*flush_interval));
    put(&mut table, "queue", number(*queue));
    table.into()
}
