//! OpenTelemetry's environment variables, which supply missing keys of an existing `[tracing]` section.

use super::env::Env;
use rotogate_kit::config::{Node, Value, ValueOrigin};

/// The environment variables for each configuration key, in order of precedence.
const VARIABLES: [(&str, &[&str]); 5] = [
    ("endpoint", &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]),
    ("protocol", &["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]),
    ("timeout", &["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]),
    ("ca", &["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"]),
    ("service_name", &["OTEL_SERVICE_NAME"]),
];

pub(super) fn overlay(root: &mut Node, env: &dyn Env) {
    let Value::Table(sections) = &mut root.value else { return };
    let Some(Node { value: Value::Table(tracing), .. }) = sections.get_mut("tracing") else { return };
    let vars = env.vars();
    for (key, names) in VARIABLES {
        let set = |wanted: &&&str| {
            // OpenTelemetry treats an empty variable as not set.
            let found = vars.iter().find(|(name, _)| name == **wanted)?;
            found.1.as_deref().filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let Some((name, text)) = names.iter().find_map(|name| Some((*name, set(&name)?))) else { continue };
        let origin = || ValueOrigin::Env(name.to_owned());
        let value = || Value::Env(in_our_words(key, name, text));
        tracing.entry(key.to_owned()).or_insert_with(|| Node { value: value(), origin: origin(), key: origin() });
    }
}

fn in_our_words(key: &str, name: &str, text: String) -> String {
    match (key, name, text.as_str()) {
        ("protocol", _, "http/protobuf") => "http".to_owned(),
        ("timeout", _, milliseconds) if milliseconds.bytes().all(|b| b.is_ascii_digit()) => format!("{text}ms"),
        // `OTEL_EXPORTER_OTLP_ENDPOINT` is a base URL, so append the path for traces.
        (_, "OTEL_EXPORTER_OTLP_ENDPOINT", url) if has_path(url) => format!("{}/v1/traces", url.trim_end_matches('/')),
        _ => text,
    }
}

fn has_path(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| !matches!(uri.path(), "" | "/"))
}
