use proptest::prelude::*;

use super::PathError::{Character, DotSegment, DoubleEncoding, Escape, Hidden, NotAbsolute, Utf8};
use super::*;

fn canonical(raw: &str) -> Result<String, PathError> {
    CanonicalPath::parse(raw).map(|p| p.as_str().to_owned())
}

#[test]
fn t12_every_spelling_of_a_path_has_one_canonical_form() {
    let table = [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("//", "/"),
        ("///a", "/a"),
        ("/a//b", "/a/b"),
        ("/a////", "/a/"),
        ("/%61", "/a"),
        ("/%41%5A%5f%7e%2D", "/AZ_~-"),
        ("/a%2eb", "/a.b"),
        ("/.well-known/x", "/.well-known/x"),
        ("/...", "/..."),
        ("/%2e%2e%2e", "/..."),
        ("/..a", "/..a"),
        ("/a..", "/a.."),
        ("/a%2fb", "/a%2Fb"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2f", "/a%2F"),
        ("/a%3bb", "/a%3Bb"),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/a;", "/a;"),
        ("/%c3%a9", "/%C3%A9"),
        ("/%E2%82%AC", "/%E2%82%AC"),
        ("/100%25", "/100%25"),
        ("/%2541", "/%2541"),
        ("/100%25%20done", "/100%25%20done"),
        ("/a%20b", "/a%20b"),
        ("/{x}", "/%7Bx%7D"),
        ("/a|b", "/a%7Cb"),
        ("/a[0]", "/a%5B0%5D"),
        ("/\"^`<>", "/%22%5E%60%3C%3E"),
        ("/!$&'()*+,=:@", "/!$&'()*+,=:@"),
        ("/%3a", "/%3A"),
        ("/%3f%23", "/%3F%23"),
    ];
    for (raw, expected) in table {
        assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw}");
    }
}

#[test]
fn t12_what_an_upstream_could_read_as_another_path_is_refused() {
    let table = [
        ("", NotAbsolute),
        ("a", NotAbsolute),
        ("*", NotAbsolute),
        ("/.", DotSegment),
        ("/..", DotSegment),
        ("/./a", DotSegment),
        ("/a/..", DotSegment),
        ("/a/../b", DotSegment),
        ("/%2e", DotSegment),
        ("/%2e%2e/a", DotSegment),
        ("/.%2E/a", DotSegment),
        ("/a/%2E./", DotSegment),
        ("/public/..;/admin", DotSegment),
        ("/public/..;x=1/admin", DotSegment),
        ("/public/.;/admin", DotSegment),
        ("/public/..%3b/admin", DotSegment),
        ("/public/%2e%2e%3B/admin", DotSegment),
        ("/a/..%20/b", DotSegment),
        ("/a/%20./b", DotSegment),
        ("/a/..%3fx/b", DotSegment),
        ("/a/%2e%23/b", DotSegment),
        ("/a/..%c2%a0/b", DotSegment),
        ("/a/%2e%2e%2520;x/b", DotSegment),
        ("/a/..%2fb", DotSegment),
        ("/a/%2e%2e%2fb", DotSegment),
        ("/a%2f..%2fb", DotSegment),
        ("/a%2f.", DotSegment),
        ("/%252e%252e/a", DotSegment),
        ("/%252e.", DotSegment),
        ("/%25252e%25252e/a", DotSegment),
        ("/%25%32%65%2e", DotSegment),
        ("/a\\b", Character),
        ("/a b", Character),
        ("/a\tb", Character),
        ("/a\0", Character),
        ("/a\x7f", Character),
        ("/a\r\n", Character),
        ("/caf\u{e9}", Character),
        ("/a?b", Character),
        ("/a#b", Character),
        ("/a%5cb", Hidden),
        ("/a%5Cb", Hidden),
        ("/%00", Hidden),
        ("/%0d%0a", Hidden),
        ("/%1f", Hidden),
        ("/%7F", Hidden),
        ("/%", Escape),
        ("/%2", Escape),
        ("/%zz", Escape),
        ("/%u002e", Escape),
        ("/%%32e", Escape),
        ("/100%", Escape),
        ("/%2%65", Escape),
        ("/%c0%ae%c0%ae", Utf8),
        ("/%c0%af", Utf8),
        ("/%e0%80%af", Utf8),
        ("/%f0%80%80%af", Utf8),
        ("/%ed%a0%80", Utf8),
        ("/%ff", Utf8),
        ("/%c3", Utf8),
        ("/%252f", DoubleEncoding),
        ("/%252Fadmin", DoubleEncoding),
        ("/%25252fadmin", DoubleEncoding),
        ("/%2525252f", DoubleEncoding),
        ("/%255c", DoubleEncoding),
        ("/%2500", DoubleEncoding),
        ("/%250d%250a", DoubleEncoding),
        ("/%25c0%25af", DoubleEncoding),
        ("/%25%32%66", DoubleEncoding),
        ("/%252%66", DoubleEncoding),
    ];
    for (raw, expected) in table {
        assert_eq!(canonical(raw), Err(expected), "{raw:?}");
    }
}

#[test]
fn t12_an_escaped_slash_is_data_and_flagged() {
    for raw in ["/a%2fb", "/%2F", "/x/%2f/"] {
        assert!(CanonicalPath::parse(raw).unwrap().has_encoded_slash(), "{raw}");
    }
    for raw in ["/a/b", "/%20", "/%2541"] {
        assert!(!CanonicalPath::parse(raw).unwrap().has_encoded_slash(), "{raw}");
    }
}

#[test]
fn only_a_path_in_another_spelling_counts_as_rewritten() {
    for raw in ["/", "/a/b/", "/a%2Fb", "/.well-known", "/%C3%A9"] {
        assert!(!CanonicalPath::parse(raw).unwrap().is_rewritten(), "{raw}");
    }
    for raw in ["//", "/%61", "/a%2fb", "/{a}"] {
        assert!(CanonicalPath::parse(raw).unwrap().is_rewritten(), "{raw}");
    }
}

#[test]
fn r12_near_misses_of_an_endpoint_share_its_loose_form() {
    let near = [
        "/connect/token",
        "/Connect/TOKEN",
        "/connect/token/",
        "//connect//token",
        "/connect/token;x=1",
        "/connect;a/token;b/",
        "/connect/token%3Bx",
        "/connect/token%253Bx",
        "/connect%2Ftoken",
        "/connect/token%20",
        "/connect/token.",
        "/connect/to%E2%84%AAen",
        "/connect/%74oken",
        "/;/connect/token",
    ];
    for raw in near {
        assert_eq!(CanonicalPath::parse(raw).unwrap().loose(), "/connect/token", "{raw}");
    }
    for raw in ["/connect/tokens", "/connect", "/connect/token/x", "/"] {
        assert_ne!(CanonicalPath::parse(raw).unwrap().loose(), "/connect/token", "{raw}");
    }
    assert_eq!(CanonicalPath::parse("/;").unwrap().loose(), "/");
}

#[test]
fn deep_escaping_costs_one_pass() {
    let raw = format!("/%{}41", "25".repeat(500_000));
    assert!(CanonicalPath::parse(&raw).is_ok());
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("//"),
        Just("."),
        Just(".."),
        Just("%"),
        Just("%2"),
        Just("%2f"),
        Just("%2F"),
        Just("%25"),
        Just("25"),
        Just("2e"),
        Just("%2e"),
        Just("%41"),
        Just("a"),
        Just("B"),
        Just(";"),
        Just("%3b"),
        Just("\\"),
        Just("%5c"),
        Just("%00"),
        Just("%c3%a9"),
        Just("%c0%ae"),
        Just("{"),
        Just(" "),
        Just("é"),
        Just("%7e"),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|p| format!("/{}", p.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn t12_parsing_never_panics(raw in "\\PC*|[\\x00-\\xff]*") {
        if let Ok(path) = CanonicalPath::parse(&raw) {
            let _ = path.loose();
        }
    }

    #[test]
    fn t12_a_canonical_path_stays_as_it_is(raw in pieces()) {
        if let Ok(path) = CanonicalPath::parse(&raw) {
            let again = CanonicalPath::parse(path.as_str()).unwrap();
            prop_assert_eq!(again.as_str(), path.as_str());
            prop_assert!(!again.is_rewritten());
            prop_assert_eq!(again.has_encoded_slash(), path.has_encoded_slash());
            prop_assert_eq!(path.is_rewritten(), path.as_str() != raw);
        }
    }

    #[test]
    fn t12_a_canonical_path_has_no_empty_and_no_dot_segments(raw in pieces()) {
        if let Ok(path) = CanonicalPath::parse(&raw) {
            let mut decoded = path.as_str().to_owned();
            for _ in 0..20 {
                prop_assert!(!path.as_str().contains("//"));
                for segment in decoded.split('/') {
                    prop_assert!(!matches!(segment.split(';').next(), Some("." | "..")), "{} of {}", decoded, raw);
                }
                prop_assert!(!decoded.contains('\\') && !decoded.contains('\0'));
                decoded = percent_encoding::percent_decode_str(&decoded).decode_utf8().unwrap().into_owned();
            }
        }
    }
}
