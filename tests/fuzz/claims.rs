//! Paths to claims.

use rotogate::claim::ClaimPath;
use serde_json::{Map, Value, json};

use crate::input::target;

/// The segments of a path that is known to be one, and whether `{}` stands at its end: read character by character.
fn read(path: &str) -> (Vec<String>, bool) {
    let (path, of_names) = path.strip_suffix("{}").map_or((path, false), |path| (path, true));
    let (mut segments, mut quoted) = (vec![String::new()], false);
    for c in path.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => segments.push(String::new()),
            c => segments.last_mut().unwrap().push(c),
        }
    }
    assert!(!quoted, "{path}");
    (segments, of_names)
}

/// Claims with `value` at these segments, and something beside each of them.
fn claims(segments: &[String], value: Value) -> Map<String, Value> {
    let around = |inner: Value, name: &String| json!({ name: inner, format!("{name} "): "beside" });
    match segments.iter().rev().fold(value, around) {
        Value::Object(claims) => claims,
        other => panic!("no segment: {other}"),
    }
}

target!(
    /// A path that is taken leads to the one claim that another reader finds by it, and to nothing else; it is printed as
    /// it was written, and it means the same with all segments quoted (I18, I46).
    claim_path,
    &[
        ".", "\"", "{}", "\".\"", "a", "roles", "realm_access.roles", "\"https://example.com/roles\"", ":", "/", "*", "[0]", "$",
        "\\", " ", "\0", "\u{feff}", "..", "{", "}", "\"\"",
    ],
    |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Ok(path) = ClaimPath::parse(text) else { return };
        assert_eq!(path.to_string(), text);
        let (segments, of_names) = read(text);
        assert_eq!((path.segments().collect::<Vec<_>>(), path.is_of_names()), (segments.iter().map(String::as_str).collect(), of_names));

        let quoted = segments.iter().map(|segment| format!("\"{segment}\"")).collect::<Vec<_>>().join(".");
        let quoted = ClaimPath::parse(&format!("{quoted}{}", if of_names { "{}" } else { "" })).unwrap();
        assert_eq!(path, quoted, "{text}");

        let value = if of_names { json!({ "x": [] }) } else { json!(["x"]) };
        let found = claims(&segments, value.clone());
        assert_eq!(path.find(&found), Some(&value), "{text}");
        assert!(path.holds(&found, &json!("x")) && !path.holds(&found, &json!("y")), "{text}");
        let mut without = found;
        without.remove(&segments[0]);
        assert_eq!(path.find(&without), None, "{text}");
    }
);
