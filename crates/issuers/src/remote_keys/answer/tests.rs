#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use http::HeaderValue;
use serde_json::json;

use super::*;

const ISSUER: &str = "https://id.example.com/realms/x";

fn document(member: &str, value: impl Into<Value>) -> Vec<u8> {
    let mut document = json!({
        "issuer": ISSUER,
        "jwks_uri": "https://keys.example.com/x",
        "token_endpoint": "https://id.example.com/token",
        "claims_supported": ["sub", {"deep": [[1]]}],
    });
    document[member] = value.into();
    document.to_string().into_bytes()
}

#[test]
fn i8_another_issuer_by_one_byte_is_another() {
    for other in [
        json!("https://id.example.com/realms/x/"),
        json!("https://id.example.com/realms/X"),
        json!("https://id.example.com:443/realms/x"),
        json!("http://id.example.com/realms/x"),
        json!("https://id.example.com/realms/{tenant}"),
        json!(""),
        json!(null),
        json!([ISSUER]),
        json!(7),
    ] {
        let error = Metadata::parse(&document("issuer", other.clone()), ISSUER).unwrap_err();
        assert_eq!(error.cause, "issuer_mismatch", "{other}");
        assert!(error.is_grave() && error.message.contains(ISSUER), "{error}");
        if let Some(text) = other.as_str() {
            assert!(error.message.contains(text), "{error}");
        }
    }
    // No text of the other issuer may reach a log unescaped.
    let error = Metadata::parse(&document("issuer", "a\nb\u{1b}[31m".repeat(1000)), ISSUER).unwrap_err();
    assert!(!error.message.contains(char::is_control) && error.message.len() < 2000, "{error}");
}

#[test]
fn i8_a_discovery_document_is_read_strictly() {
    let good = Metadata::parse(&document("revocation_endpoint", "https://id.example.com/r"), ISSUER).unwrap();
    assert_eq!(good.jwks_uri, "https://keys.example.com/x");
    assert_eq!(good.token_endpoint.as_deref(), Some("https://id.example.com/token"));
    assert_eq!(good.revocation_endpoint.as_deref(), Some("https://id.example.com/r"));
    assert_eq!(good.introspection_endpoint, None);
    for odd in [json!(null), json!(1), json!([]), json!(""), json!("https://id.example.com/\u{0}")] {
        let error = Metadata::parse(&document("jwks_uri", odd.clone()), ISSUER).unwrap_err();
        assert_eq!(error.cause, "refused_address", "{odd}");
        // A member that is not needed may have any value.
        assert_eq!(Metadata::parse(&document("token_endpoint", odd), ISSUER).unwrap().token_endpoint, None);
    }
    for bad in [
        "<html>".to_owned(),
        String::new(),
        format!(r#"[{{"issuer": "{ISSUER}"}}]"#),
        format!(r#"{{"issuer": "{ISSUER}", "issuer": "{ISSUER}", "jwks_uri": "https://a.example"}}"#),
        format!(r#"{{"issuer": "{ISSUER}", "jwks_uri": "https://a.example"}} x"#),
    ] {
        assert_eq!(Metadata::parse(bad.as_bytes(), ISSUER).unwrap_err().cause, "not_json", "{bad}");
    }
}

#[test]
fn i8_discovery_is_where_the_standards_have_it() {
    for (issuer, openid, rfc_8414) in [
        (
            "https://id.example.com",
            "https://id.example.com/.well-known/openid-configuration",
            "https://id.example.com/.well-known/oauth-authorization-server",
        ),
        (
            "https://id.example.com/",
            "https://id.example.com/.well-known/openid-configuration",
            "https://id.example.com/.well-known/oauth-authorization-server",
        ),
        (
            "https://id.example.com:8443/realms/x",
            "https://id.example.com:8443/realms/x/.well-known/openid-configuration",
            "https://id.example.com:8443/.well-known/oauth-authorization-server/realms/x",
        ),
    ] {
        assert_eq!(discovery_urls(issuer), [openid, rfc_8414]);
    }
}

#[test]
fn i5_freshness_is_that_of_the_answer_within_its_bounds() {
    let settings = FetchSettings::default();
    let (min, max, fresh) = (settings.min, settings.max, settings.fresh);
    let secs = Duration::from_secs;
    for (cache_control, age, expected) in [
        (&[][..], None, fresh),
        (&["max-age=3600"], None, secs(3600)),
        (&["public, max-age=3600, must-revalidate"], Some("600"), secs(3000)),
        (&["Max-Age=\"3600\""], None, secs(3600)),
        (&["max-age=3600", "max-age=1800"], None, secs(1800)),
        (&["max-age=3600"], Some("3600"), min),
        (&["max-age=3600"], Some("99999999999999999999"), secs(3600)),
        (&["max-age=0"], None, min),
        (&["max-age=1"], None, min),
        (&["max-age=18446744073709551615"], None, max),
        (&["max-age=x"], None, fresh),
        (&["max-age"], None, fresh),
        (&["max-age=-1"], None, fresh),
        (&["no-store, max-age=3600"], None, min),
        (&["max-age=3600", "No-Cache"], None, min),
        (&["private"], Some("100"), fresh),
    ] {
        let mut headers = HeaderMap::new();
        for value in cache_control {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
        }
        if let Some(age) = age {
            headers.insert(AGE, HeaderValue::from_static(age));
        }
        assert_eq!(fresh_for(&headers, &settings), expected, "{cache_control:?} {age:?}");
    }
}
