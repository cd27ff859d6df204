//! The fields of the access log. `packaging/schema/access.schema.json` and a table of `docs/logs.md` are generated
//! from this list.
//!
//! A field is only ever added within a major version.

use FieldKind::{Number, Text, Time, True, Word};

/// The content of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum FieldKind {
    Text,
    Time,
    /// A word of a fixed set.
    Word(&'static [&'static str]),
    Number,
    /// Present only if it is true.
    True,
}

/// The lines that have a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    All,
    /// Every line except the line at the begin of a stream or tunnel.
    Ended,
    /// Lines that the text describes.
    Some(&'static str),
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: FieldKind,
    pub(super) on: On,
    /// The meaning of the field, without a full stop.
    pub(super) meaning: &'static str,
}

const fn field(name: &'static str, kind: FieldKind, on: On, meaning: &'static str) -> Field {
    Field { name, kind, on, meaning }
}

const ENDS: &[&str] =
    &["complete", "client_gone", "upstream", "revoked", "undecided", "expired", "max_stream", "shutdown"];
const TOKEN: On = On::Some("refused tokens");
const KNOWN: On = On::Some("where known");
const FORWARDED: On = On::Some("forwarded");
const RESPONSE: On = On::Some("with a response");

/// All fields, in the order of a line.
pub(super) const FIELDS: &[Field] = &[
    field("timestamp", Time, On::All, "arrival of the request head: RFC 3339, microseconds, UTC"),
    field("event.dataset", Word(&["rotogate.access"]), On::All, "log"),
    field("http.request.id", Text, On::All, "[request id](#request-id)"),
    field("trace_id", Text, On::Some("traced"), "[trace](traces.md)"),
    field("span_id", Text, On::Some("recorded"), "span of the request"),
    field("trace_flags", Text, On::Some("traced"), "flags of the trace"),
    field("http.request.method", Text, On::All, "method"),
    field("url.path", Text, On::All, "path as sent, without its query"),
    field("server.address", Text, On::Some("where sent"), "`Host`, or `:authority`"),
    field("network.protocol.version", Word(&["1.0", "1.1", "2"]), On::All, "version of HTTP"),
    field("url.scheme", Word(&["http", "https"]), On::All, "scheme"),
    field("tls.protocol.version", Text, On::Some("TLS"), "version of TLS, such as `1.3`"),
    field(
        "network.peer.address",
        Text,
        On::All,
        "other end of the TCP connection, perhaps a proxy with a PROXY header",
    ),
    field("client.address", Text, On::All, "peer, or the client that a trusted proxy names"),
    field("user_agent.original", Text, On::Some("where sent"), "`User-Agent`"),
    field("http.response.status_code", Number, RESPONSE, "status"),
    field("rotogate.outcome", Text, On::All, "[result](outcomes.md)"),
    field("rotogate.detail", Text, On::Some("if any"), "outcome's detail, such as a claim or a timeout"),
    field("rotogate.route", Text, On::Some("on a route"), "route's id"),
    field("http.route", Text, On::Some("on a route"), "path pattern of the route"),
    field("rotogate.dialect", Text, On::Some("at endpoints"), "endpoint's dialect"),
    field("rotogate.operation", Text, On::Some("at endpoints"), "operation"),
    field("user.id", Text, KNOWN, "`sub`"),
    field("rotogate.issuer", Text, KNOWN, "`iss`, if not rotogate"),
    field("rotogate.client.id", Text, KNOWN, "`client_id`"),
    field("rotogate.account", Text, KNOWN, "account"),
    field("session.id", Text, KNOWN, "session"),
    field("rotogate.generation", Number, KNOWN, "token's generation in the session"),
    field("rotogate.token.id", Text, TOKEN, "`jti`"),
    field("rotogate.token.kid", Text, TOKEN, "`kid`"),
    field(
        "rotogate.token.unverified",
        True,
        TOKEN,
        "the token's fields come from its sender, without a verified signature",
    ),
    field("rotogate.duration.head", Number, RESPONSE, "nanoseconds from the request head to the response head"),
    field("rotogate.upstream", Text, FORWARDED, "upstream's name"),
    field("upstream.address", Text, FORWARDED, "address that answered"),
    field("rotogate.upstream.attempts", Number, FORWARDED, "number of attempts"),
    field("rotogate.duration.upstream", Number, FORWARDED, "upstream's part of `rotogate.duration.head`"),
    field("rotogate.duration.gate", Number, FORWARDED, "gate's part of `rotogate.duration.head`"),
    field("rpc.grpc.status_code", Number, On::Some("gRPC"), "gRPC status, from the head or the trailers"),
    field("event.duration", Number, On::Ended, "nanoseconds from the request head to the end of the response body"),
    field("http.request.body.size", Number, On::Ended, "size of the request body in bytes"),
    field("http.response.body.size", Number, On::Ended, "bytes of the response body"),
    field("rotogate.end", Word(ENDS), On::Ended, "[end](#ends) of the response body or the tunnel"),
    field(
        "rotogate.phase",
        Word(&["begin", "end"]),
        On::Some("streams, tunnels"),
        "whether the line logs the start or the end of a stream or tunnel",
    ),
    field("rotogate.truncated", True, On::Some("truncated lines"), "a value was truncated"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use serde_json::{Map, json};

    use super::*;
    use support::generated;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn every_field_of_the_code_is_in_the_list_and_the_other_way_round() {
        let code = ["access.rs", "line.rs"].map(|name| root().join("crates/server/src/log").join(name));
        let code = code.map(|path| std::fs::read_to_string(path).unwrap());
        let [access, line] = code.each_ref().map(|code| code.split("#[cfg(test)]").next().unwrap());
        let mut found: BTreeSet<&str> = ["timestamp", "rotogate.truncated"].into();
        assert!(line.contains("{\\\"timestamp\\\"") && line.contains("\"rotogate.truncated\""));
        found.extend(access.split("key!(\"").skip(1).filter_map(|rest| rest.split('"').next()));
        // The fields of a refused token are in an array.
        found
            .extend(access.split("(\"").skip(1).filter_map(|rest| rest.split_once("\", &says.").map(|(name, _)| name)));
        // The names of trace fields come from the library.
        let trace = std::fs::read_to_string(root().join("crates/core/src/context/trace.rs")).unwrap();
        let (_, trace) = trace.split_once("pub fn log(").unwrap();
        found.extend(trace.split("field(\"").skip(1).take(3).filter_map(|rest| rest.split('"').next()));
        let found: BTreeSet<&str> = found.into_iter().filter(|name| !name.contains([' ', '\n'])).collect();
        assert_eq!(found, FIELDS.iter().map(|field| field.name).collect());
    }

    #[test]
    fn p30_the_schema_is_generated() {
        let mut properties = Map::new();
        for Field { name, kind, meaning, .. } in FIELDS {
            let mut property = match kind {
                Text => json!({ "type": "string", "minLength": 1 }),
                Time => json!({ "type": "string", "format": "date-time" }),
                Word(words) => json!({ "enum": words }),
                Number => json!({ "type": "integer", "minimum": 0 }),
                True => json!({ "const": true }),
            };
            property["description"] = json!(meaning);
            properties.insert((*name).to_owned(), property);
        }
        let required = |on| FIELDS.iter().filter(|field| field.on == on).map(|field| field.name).collect::<Vec<_>>();
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "A line of rotogate's access log",
            "description": "docs/logs.md says more. Lines of later versions may have further fields.",
            "type": "object",
            "properties": properties,
            "required": required(On::All),
            "if": { "properties": { "rotogate.phase": { "const": "begin" } }, "required": ["rotogate.phase"] },
            "else": { "required": required(On::Ended) },
        });
        let schema = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        generated::assert_current("packaging/schema/access.schema.json", &schema);
    }

    #[test]
    fn the_fields_on_the_page_are_generated() {
        let mut table = "| field | meaning |\n|---|---|\n".to_owned();
        for Field { name, kind, on, meaning } in FIELDS {
            let words = match kind {
                // A table below lists and explains them.
                Word(ENDS) => String::new(),
                Word(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
                True => "`true`".to_owned(),
                Text | Time | Number => String::new(),
            };
            let words = if words.is_empty() { words } else { format!(": {words}") };
            let on = match on {
                On::All => String::new(),
                On::Ended => " (at an end)".to_owned(),
                On::Some(text) => format!(" ({text})"),
            };
            table += &format!("| `{name}` | {meaning}{words}{on} |\n");
        }
        generated::assert_part_is_current("docs/logs.md", "access fields", &table);
    }
}
