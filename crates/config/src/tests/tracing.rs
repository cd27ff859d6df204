//! `[tracing]`, and the variables of OpenTelemetry.

use std::time::Duration;

use super::{MINIMAL, read, said, with_env};
use crate::{Config, TraceProtocol};

#[test]
fn p45_each_key_has_bounds_and_its_error_says_what_is_expected() {
    let of = |lines: &str| said(&format!("[tracing]\n{lines}"));
    let good = "endpoint = \"http://localhost:4318\"\n";
    assert_eq!(of(good), Vec::<String>::new());
    for (lines, expected) in [
        ("sample = 1", "1: tracing.endpoint: missing; expected the URL of a collector"),
        ("endpoint = \"localhost:4318\"", "expected a URL such as"),
        ("endpoint = \"http://user@localhost:4318\"", "without user"),
        ("endpoint = \"http://localhost:4318/?a\"", "without user, query and fragment"),
        ("endpoint = \"http://localhost:4318/#a\"", "without user, query and fragment"),
        ("endpoint = \"ftp://localhost\"", "expected a URL such as"),
        (&format!("{good}protocol = \"grpc\""), "tracing.protocol: was removed: "),
        (&format!("{good}sample = 1.1"), "tracing.sample: expected a number from 0 to 1, such as 0.1, found 1.1"),
        (&format!("{good}sample = -0.1"), "tracing.sample: expected a number from 0 to 1"),
        (&format!("{good}sample = nan"), "tracing.sample: expected a number from 0 to 1"),
        (&format!("{good}sample = \"all\""), "tracing.sample: expected a number from 0 to 1"),
        (&format!("{good}timeout = \"10s\""), "tracing.timeout: was removed: "),
        (&format!("{good}service_name = \"edge\""), "tracing.service_name: was removed: "),
        (&format!("{good}header_file = \"a\""), "headers_file"),
        (
            "endpoint = \"http://collector:4318\"\nheaders_file = \"a\"",
            "tracing.headers_file: would be sent unencrypted",
        ),
    ] {
        let found = of(lines);
        assert!(found.len() == 1 && found[0].contains(expected), "{lines}: {found:?}");
    }
    let errors = read(&format!("tracing = 7\n{MINIMAL}")).unwrap_err().to_string();
    assert!(errors.contains("tracing: expected a table, found 7"), "{errors}");
}

fn section(config: Result<Config, crate::ConfigErrors>) -> crate::TracingConfig {
    config.unwrap().tracing.unwrap()
}

#[test]
fn p45_what_is_not_said_has_a_default_and_the_printed_section_is_the_same() {
    let text = format!("{MINIMAL}[tracing]\nendpoint = \"http://localhost:4318\"\nsample = 0.25\n");
    let config = read(&text).unwrap();
    let tracing = config.tracing.clone().unwrap();
    assert_eq!((tracing.sample, tracing.identity, tracing.queue), (0.25, false, 4096));
    assert_eq!((tracing.timeout, tracing.flush_interval), (Duration::from_secs(10), Duration::from_secs(1)));
    assert_eq!((tracing.protocol, tracing.service_name.as_str()), (TraceProtocol::Http, "rotogate"));
    assert_eq!(read(&config.to_toml()).unwrap().tracing.unwrap(), tracing);
    let clear = read(&text.replace("localhost", "collector")).unwrap();
    assert!(clear.warnings.iter().any(|warning| warning.key == "tracing.endpoint"), "{:?}", clear.warnings);
    assert!(!config.warnings.iter().any(|warning| warning.key == "tracing.endpoint"), "{:?}", config.warnings);
}

#[test]
fn p45_a_variable_counts_where_the_section_says_nothing() {
    let with = |section: &str, vars: &[(&str, &str)]| with_env(&format!("{MINIMAL}{section}"), vars);
    let endpoint =
        |section: &str, vars: &[(&str, &str)]| super::tracing::section(with(section, vars)).endpoint.to_string();
    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let empty = "[tracing]\n";
    assert_eq!(endpoint(empty, &[(ALL, "http://localhost:1")]), "http://localhost:1/v1/traces");
    assert_eq!(endpoint(empty, &[(ALL, "http://localhost:1/otlp/")]), "http://localhost:1/otlp/v1/traces");
    assert_eq!(
        endpoint(empty, &[(ALL, "http://localhost:1"), (TRACES, "http://localhost:2/t")]),
        "http://localhost:2/t"
    );
    assert_eq!(endpoint(empty, &[(ALL, "http://localhost:1"), (TRACES, "")]), "http://localhost:1/v1/traces");
    let own = "[tracing]\nendpoint = \"http://localhost:3\"\n";
    assert_eq!(
        endpoint(own, &[(ALL, "http://localhost:1"), (TRACES, "http://localhost:2/t")]),
        "http://localhost:3/v1/traces"
    );
    let all = [
        (ALL, "http://localhost:1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/ca.pem"),
        ("OTEL_SERVICE_NAME", "edge"),
    ];
    let read = section(with(empty, &all));
    assert_eq!((read.protocol, read.timeout), (TraceProtocol::Grpc, Duration::from_millis(2500)));
    assert_eq!((read.ca.unwrap().to_str(), read.service_name.as_str()), (Some("/etc/ca.pem"), "edge"));
    assert!(with("", &all).unwrap().tracing.is_none(), "the section turns traces on");
    let wrong = with(
        empty,
        &[(ALL, "nowhere"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "10")],
    )
    .unwrap_err()
    .to_string();
    assert!(
        wrong.contains("environment OTEL_EXPORTER_OTLP_ENDPOINT")
            && wrong.contains("environment OTEL_EXPORTER_OTLP_PROTOCOL")
            && wrong.contains("environment OTEL_EXPORTER_OTLP_TIMEOUT"),
        "{wrong}"
    );
}
