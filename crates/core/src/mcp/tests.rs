use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::denial::CallFlaw;

fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
    let value = |value: &str| HeaderValue::from_bytes(value.as_bytes()).unwrap();
    given.iter().fold(HeaderMap::new(), |mut all, (name, text)| {
        all.append(HeaderName::from_static(name), value(text));
        all
    })
}

const NOW: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

fn flaw(body: &str) -> Option<CallFlaw> {
    read(body.as_bytes()).err().map(|(flaw, _)| flaw)
}

fn agree(given: &[(&'static str, &str)], body: &str) -> Result<(), CallFlaw> {
    let headers = headers(given);
    CallHead::read(&headers)?.agree(&read(body.as_bytes()).map_err(|(flaw, _)| flaw)?)
}

#[test]
fn m2_each_header_of_a_call_is_there_exactly_once() {
    let named = ("mcp-name", "delete_all");
    let method = ("mcp-method", "tools/call");
    assert!(CallHead::read(&headers(&[NOW, method, named])).is_ok());
    for twice in [NOW, method, named] {
        let all = headers(&[NOW, method, named, twice]);
        assert!(matches!(CallHead::read(&all), Err(CallFlaw::HeaderMismatch(_))), "{twice:?}");
    }
    for missing in [vec![NOW], vec![NOW, method], vec![NOW, named]] {
        assert!(matches!(CallHead::read(&headers(&missing)), Err(CallFlaw::HeaderMismatch(_))), "{missing:?}");
    }
    assert!(CallHead::read(&headers(&[NOW, ("mcp-method", "tools/list")])).is_ok(), "it has no name");
    assert!(CallHead::read(&headers(&[("mcp-protocol-version", "2025-11-25")])).is_ok(), "older clients send none");
}

#[test]
fn m3_a_name_is_compared_as_its_header_encodes_it() {
    let body = |name: &str| json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": name}}).to_string();
    let with =
        |header: &str, name: &str| agree(&[NOW, ("mcp-method", "tools/call"), ("mcp-name", header)], &body(name));
    for (header, name) in [
        ("us-west1", "us-west1"),
        ("=?base64?SGVsbG8sIOS4lueVjA==?=", "Hello, 世界"),
        ("=?base64?IHBhZGRlZCA=?=", " padded "),
        ("=?base64?bGluZTEKbGluZTI=?=", "line1\nline2"),
        ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", "=?base64?literal?="),
        ("=?BASE64?eA==?=", "=?BASE64?eA==?="),
    ] {
        assert_eq!(with(header, name), Ok(()), "{header}");
        assert!(with(header, "another").is_err(), "{header}");
    }
    for bad in ["=?base64?eA=?=", "=?base64?eA?=", "=?base64?eB==?=", "=?base64?%%?=", "=?base64?//4=?=", "Hello, 世界"]
    {
        assert!(matches!(with(bad, "x"), Err(CallFlaw::HeaderMismatch(_))), "{bad}");
    }
    assert!(with("Delete_All", "delete_all").is_err(), "case counts");
}

#[test]
fn m1_headers_and_body_that_differ_are_refused() {
    let call = |name: &str, version: &str| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": name, "_meta": {"io.modelcontextprotocol/protocolVersion": version}}})
        .to_string()
    };
    let read_file = [NOW, ("mcp-method", "tools/call"), ("mcp-name", "read_file")];
    assert_eq!(agree(&read_file, &call("read_file", "2026-07-28")), Ok(()));
    assert!(agree(&read_file, &call("delete_everything", "2026-07-28")).is_err());
    assert!(agree(&read_file, &call("read_file", "2025-11-25")).is_err());
    assert!(agree(&[NOW, ("mcp-method", "tools/list")], &call("read_file", "2026-07-28")).is_err());
    // M7: what a client of an older version sends all the same must be right, and a body of this version needs its header.
    assert!(agree(&[("mcp-method", "tools/list")], &call("read_file", "2025-11-25")).is_err());
    assert!(agree(&[], &call("read_file", "2026-07-28")).is_err());
    assert_eq!(agree(&[], &call("read_file", "2025-11-25")), Ok(()));
}

/// An object, and how a message is written with further members in it.
type Written = (&'static str, fn(&str) -> String);

#[test]
fn m4_a_member_occurs_once_and_in_one_spelling_in_three_places() {
    let places: [Written; 3] = [
        ("message", |more| format!(r#"{{"jsonrpc":"2.0","method":"tools/call",{more}"params":{{"name":"a"}}}}"#)),
        ("params", |more| format!(r#"{{"jsonrpc":"2.0","method":"tools/call","params":{{{more}"name":"a"}}}}"#)),
        ("_meta", |more| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"tools/call","params":{{"name":"a","_meta":{{{more}"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#
            )
        }),
    ];
    for (place, body) in places {
        assert_eq!(flaw(&body("")), None, "{place}");
        assert_eq!(flaw(&body(r#""other":[{"a":1,"a":2}],"#)), None, "{place}: arguments are the server's to read");
    }
    let [(_, message), (_, params), (_, meta)] = places;
    for twin in [
        message(r#""method":"x","#),
        message(r#""Method":"x","#),
        message(r#""JSONRPC":"2.0","#),
        message(r#""Id":1,"#),
        message(r#""x":1,"X":2,"#),
        // The Kelvin sign and the long s, which readers of Go fold to k and s.
        message(r#""k":1,"\u212a":2,"#),
        message(r#""param\u017f":{"name":"b"},"#),
        params(r#""name":"b","#),
        params(r#""Name":"b","#),
        params(r#""n\u0041me":"b","#),
        params(r#""URI":"b","#),
        params(r#""_Meta":{},"#),
        meta(r#""io.modelcontextprotocol/protocolversion":"x","#),
        meta(r#""io.modelcontextprotocol/protocolVersion":"x","#),
    ] {
        assert!(matches!(flaw(&twin), Some(CallFlaw::NotOneMessage(_))), "{twin}");
    }
}

#[test]
fn m1_what_is_no_single_message_is_refused() {
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"jsonrpc":"2.0","method":"m","params":{{"a":{open}{close}}}}}"#)
    };
    assert_eq!(flaw(&deep(62)), None);
    assert!(flaw(&deep(63)).is_some() && flaw(&deep(100_000)).is_some());
    let call = r#"{"jsonrpc":"2.0","method":"m"}"#;
    assert_eq!(flaw(call), None);
    for no_json in ["", "x", "\u{feff}{}", r#"{"jsonrpc":"2.0","method":"m"}x"#, r#"{"jsonrpc":"2.0","method":"m"}{}"#]
    {
        assert_eq!(flaw(no_json), Some(CallFlaw::NotJson), "{no_json}");
    }
    // UTF-16, which a media type without a charset does not rule out.
    for utf16 in [u16::to_le_bytes, u16::to_be_bytes] {
        let body: Vec<u8> = format!("\u{feff}{call}").encode_utf16().flat_map(utf16).collect();
        assert_eq!(read(&body).err().map(|(flaw, _)| flaw), Some(CallFlaw::NotJson));
    }
    for other in [
        "null",
        &format!("[{call}]"),
        r#"{"method":"m"}"#,
        r#"{"jsonrpc":"1.0","method":"m"}"#,
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","method":"m","result":{}}"#,
        r#"{"jsonrpc":"2.0","method":"m","params":[1]}"#,
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{}}"#,
        r#"{"jsonrpc":"2.0","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":1}}"#,
        r#"{"jsonrpc":"2.0","method":"resources/read","params":{"name":"a"}}"#,
    ] {
        assert!(matches!(flaw(other), Some(CallFlaw::NotOneMessage(_))), "{other}");
    }
    let answer = read(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#).unwrap();
    assert_eq!(answer.call().method, None);
}

#[test]
fn m1_the_reply_is_a_json_rpc_error_with_the_id_of_its_request() {
    let versions = ["2026-07-28".to_owned()];
    let said = |flaw, id: Option<&MessageId>, requested: Option<&str>| {
        let reply = super::reply(flaw, id, &versions, requested);
        let (head, body) = reply.into_parts();
        (head.status, serde_json::from_slice::<Value>(body.data()).unwrap())
    };
    let id = MessageId::Text("a".into());
    assert_eq!(
        said(CallFlaw::UnsupportedVersion, None, Some("2024-11-05")),
        (
            StatusCode::BAD_REQUEST,
            json!({"jsonrpc": "2.0", "error": {"code": -32022, "message": "Unsupported protocol version",
                "data": {"supported": ["2026-07-28"], "requested": "2024-11-05"}}})
        )
    );
    let (status, mismatch) = said(CallFlaw::HeaderMismatch("Mcp-Name is missing"), Some(&id), None);
    assert_eq!(
        (status, &mismatch["id"], &mismatch["error"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("a"), &json!(-32020))
    );
    assert_eq!(said(CallFlaw::NotJson, None, None).1["error"]["code"], -32700);
    assert_eq!(said(CallFlaw::MediaType, None, None).0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (_, id) = read(br#"{"jsonrpc":"2.0","id":7}"#).unwrap_err();
    assert_eq!(serde_json::to_value(id).unwrap(), json!(7));
}

/// A reader that does not distinguish letter case, and takes the last of several members: the call that it finds.
fn blind(body: &str) -> Option<(Option<String>, Option<String>)> {
    let member = |value: &Value, name: &str| {
        let members = value.as_object()?.iter();
        members.filter(|(key, _)| key.to_uppercase().to_lowercase() == name).map(|(_, value)| value.clone()).next_back()
    };
    let message = serde_json::from_str::<Value>(body).ok()?;
    let method = member(&message, "method").and_then(|method| method.as_str().map(str::to_owned));
    let named = method.as_deref().and_then(named_by);
    let name = named.and_then(|named| member(&member(&message, "params")?, named)?.as_str().map(str::to_owned));
    Some((method, name))
}

/// Puts pieces of messages together in many ways. Other readers, one that regards letter case and one that does not, read
/// the same call in each message that ours accepts.
#[test]
fn m22_readers_do_not_differ_on_what_is_taken() {
    let keys = ["method", "Method", "m\\u0065thod", "params", "PARAMS", "param\\u017f", "jsonrpc", "id", "x"];
    let values = [
        r#""tools/call""#,
        r#""resources/read""#,
        r#""2.0""#,
        "1",
        "null",
        r#"{"name":"a"}"#,
        r#"{"name":"a","Name":"b"}"#,
        r#"{"name":"a","uri":"b"}"#,
        r#"{"n\u0061me":"a"}"#,
        r#"[{"name":"a"}]"#,
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % most
    };
    let mut taken = 0;
    for _ in 0..200_000 {
        let mut members = vec![r#""jsonrpc":"2.0""#.to_owned(), format!(r#""method":{}"#, values[pick(2)])];
        for _ in 0..pick(4) {
            members.insert(
                pick(members.len() + 1),
                format!(r#""{}":{}"#, keys[pick(keys.len())], values[pick(values.len())]),
            );
        }
        let body = format!("{{{}}}", members.join(","));
        let Ok(message) = read(body.as_bytes()) else { continue };
        taken += 1;
        let call = message.call();
        let ours = (call.method.map(Cow::into_owned), call.name.map(Cow::into_owned));
        let plain: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(plain["method"].as_str(), ours.0.as_deref(), "{body}");
        let named = ours.0.as_deref().and_then(named_by);
        assert_eq!(named.and_then(|named| plain["params"][named].as_str()), ours.1.as_deref(), "{body}");
        assert_eq!(blind(&body), Some(ours), "{body}");
    }
    assert!(taken > 1000, "{taken}");
}
