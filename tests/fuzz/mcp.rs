//! Messages of the Model Context Protocol.

use rotogate_core::mcp::read;
use serde_json::{Map, Value};

use crate::input::target;
use crate::json::members;

const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The one member that a reader finds who does not regard letter case.
fn blind<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let name = name.to_lowercase();
    let mut found = object.iter().filter(|(key, _)| key.to_uppercase().to_lowercase() == name);
    let first = found.next().map(|(_, value)| value);
    assert!(found.next().is_none(), "M4: {name} in two spellings");
    first
}

/// The text of a member, which readers find alike, whether they regard letter case or not.
fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    let found = object.get(name).filter(|value| !value.is_null());
    assert_eq!(found, blind(object, name).filter(|value| !value.is_null()), "M22: {name}");
    found.and_then(Value::as_str)
}

target!(
    /// M4, M22: readers that take the first or the last of several members, and regard letter case or not, find the same call
    /// and the same version in each message that is taken.
    mcp_message,
    &[
        "{", "}", "[", "]", ",", ":", "null", "\"2.0\"", "\"jsonrpc\":\"2.0\",", "\"id\":1,", "\"method\":", "\"Method\":\"ping\",",
        "\"m\\u0065thod\":", "\"tools/call\"", "\"resources/read\"", "\"prompts/get\"", "\"tools\\/call\"", "\"params\":{", "\"PARAMS\":{",
        "\"param\\u017f\":{},", "\"name\":\"a\"", "\"Name\":\"b\",", "\"n\\u0061me\":", "\"uri\":\"file:///a\"", "\"arguments\":{", "\"_meta\":{",
        "\"_META\":{},", "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"", "\"io.modelcontextprotocol/ProtocolVersion\":",
        "\"2025-11-25\"", "\"result\":{},", "\"error\":{},", "\\u0000", "\\ud800", "\\ud83d\\ude00", "\"", "\u{feff}", "\u{212a}", "1e400",
    ],
    |input| {
        let Ok(message) = read(input) else { return };
        let Ok(Value::Object(plain)) = serde_json::from_slice(input) else { panic!("M1: it is no object") };
        let outer = members(input).expect("M4: a member of the message twice");
        assert_eq!(text(&plain, "jsonrpc"), Some("2.0"));
        let method = text(&plain, "method");
        let call = message.call();
        assert_eq!(call.method.as_deref(), method, "M22");
        let Some(method) = method else { return };
        let none = Map::new();
        assert_eq!(plain.get("params"), blind(&plain, "params"), "M22");
        let params = match plain.get("params") {
            Some(Value::Object(params)) => params,
            absent => {
                assert!(absent.is_none_or(Value::is_null), "M1: params are no object");
                &none
            }
        };
        let inner = outer.get("params").filter(|_| !params.is_empty());
        let inner = inner.map(|text| members(text.as_bytes()).expect("M4: a member of params twice"));
        let name = match method {
            "tools/call" | "prompts/get" => Some(text(params, "name").expect("M1: a call without its name")),
            "resources/read" => Some(text(params, "uri").expect("M1: a call without its name")),
            _ => None,
        };
        assert_eq!(call.name.as_deref(), name, "M22");
        assert_eq!(params.get("_meta"), blind(params, "_meta"), "M22");
        let meta = params.get("_meta").and_then(Value::as_object).unwrap_or(&none);
        if let Some(text) = inner.as_ref().and_then(|inner| inner.get("_meta")).filter(|_| !meta.is_empty()) {
            members(text.as_bytes()).expect("M4: a member of _meta twice");
        }
        let version = text(meta, VERSION);
        assert_eq!(message.version(), version, "M22");
    }
);
