//! The canonical path, and the route that it finds.

use std::sync::LazyLock;

use http::Method;
use percent_encoding::percent_decode;
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::route::{Match, Route, RoutePolicy, RouteTable};

use crate::input::target;

static ROUTES: LazyLock<RouteTable> = LazyLock::new(|| {
    let routes = vec![
        Route::new("/public/{*rest}", RoutePolicy::public()),
        Route::new("/items/{id}", RoutePolicy::optional()),
        Route::catch_all(RoutePolicy::default()),
    ];
    RouteTable::build(routes).unwrap()
});

fn found(path: &CanonicalPath<'_>) -> Option<&'static str> {
    match ROUTES.find(None, &Method::GET, path) {
        Match::Found(route) => Some(&route.path),
        _ => None,
    }
}

fn slashes(path: &[u8]) -> usize {
    path.iter().filter(|byte| **byte == b'/').count()
}

target!(
    /// T12: a canonical path is its own canonical path and finds the same route; no server behind us, however often it
    /// decodes, finds a dot segment, a backslash, a control byte or a slash in it that was not matched.
    path,
    &[
        "/", "//", ".", "..", "/../", "/..;/", "%2e", "%2E%2e", "%252e", "%25252e", "%2f", "%5c", "%00", "%0a", "\\", ";",
        "%", "%c0%ae", "%c3%a4", "public", "items", "?", "#", " ", "%41", "{", "|", "%ff", "%25", "%2",
    ],
    |input| {
        let Ok(raw) = std::str::from_utf8(input) else { return };
        let Ok(path) = CanonicalPath::parse(raw) else { return };
        let text = path.as_str();
        let again = CanonicalPath::parse(text).expect("a canonical path is one");
        assert_eq!(again.as_str(), text, "canonical(canonical(p)) = canonical(p)");
        assert!(!again.is_rewritten(), "{text}");
        assert_eq!(again.has_encoded_slash(), path.has_encoded_slash());
        assert_eq!(again.loose(), path.loose());
        assert_eq!(path.is_rewritten(), raw != text);
        assert!(text.starts_with('/') && !text.contains("//") && text.bytes().all(|byte| byte.is_ascii_graphic()));

        let mut decoded = text.as_bytes().to_vec();
        for _ in 0..4 {
            let hidden = |byte: &u8| *byte == b'\\' || byte.is_ascii_control();
            assert!(!decoded.iter().any(hidden), "{text}: {}", String::from_utf8_lossy(&decoded));
            assert!(path.has_encoded_slash() || slashes(&decoded) == slashes(text.as_bytes()), "{text}");
            for segment in decoded.split(|byte| *byte == b'/') {
                let name = segment.split(|byte| *byte == b';').next().unwrap();
                assert!(name != b"." && name != b"..", "{text}: a dot segment");
            }
            decoded = percent_decode(&decoded).collect();
        }

        let route = found(&path);
        assert_eq!(found(&again), route);
        assert_eq!(route == Some("/public/{*rest}"), text == "/public/" || text.starts_with("/public/"), "{text}");
    }
);
