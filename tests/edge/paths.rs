//! T12: one spelling of a path, matched and forwarded.

use super::stub::Edge;

const ROUTES: &str = r#"
[[routes]]
path = "/public/{*rest}"
auth = "none"
upstream = "app"
[[routes]]
path = "/files/{name}"
auth = "none"
encoded_slash = "keep"
upstream = "app"
[[routes]]
path = "/only"
auth = "none"
upstream = "app"
[[routes]]
path = "/private/{*rest}"
upstream = "app"
"#;

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The upstream received this target, and no other.
    Sent(&'static str),
    /// This status, and the upstream saw nothing.
    Refused(u16),
}
use Outcome::{Refused, Sent};

#[rustfmt::skip]
const SPELLINGS: &[(&str, Outcome)] = &[
    // As they are.
    ("/public/", Sent("/public/")),
    ("/public/a/b", Sent("/public/a/b")),
    ("/public/a/b/", Sent("/public/a/b/")),
    ("/public/a?x=/../private&y=%2e%2e%2f", Sent("/public/a?x=/../private&y=%2e%2e%2f")),
    ("/public/a?", Sent("/public/a?")),
    ("/public/...", Sent("/public/...")),
    ("/public/.hidden", Sent("/public/.hidden")),
    ("/public/a..b", Sent("/public/a..b")),
    ("/public/a:b@c!$&'()*+,=", Sent("/public/a:b@c!$&'()*+,=")),
    // Brought to the one spelling.
    ("/public//a", Sent("/public/a")),
    ("//public/a", Sent("/public/a")),
    ("///public////a//", Sent("/public/a/")),
    ("/%70ublic/a", Sent("/public/a")),
    ("/public/%41%7e%2D", Sent("/public/A~-")),
    ("/public/%c3%a9", Sent("/public/%C3%A9")),
    ("/public/%20%3f%23", Sent("/public/%20%3F%23")),
    ("/public/a|b", Sent("/public/a%7Cb")),
    ("/public/100%25", Sent("/public/100%25")),
    ("/public/%2541", Sent("/public/%2541")),
    ("/public/a;v=1/b", Sent("/public/a;v=1/b")),
    // Not public, whatever a lax server would make of it.
    ("/public", Refused(404)),
    ("/publicx/a", Refused(404)),
    ("/Public/a", Refused(404)),
    ("/PUBLIC/a", Refused(404)),
    ("/public;x/a", Refused(404)),
    ("/public;/a", Refused(404)),
    ("/public%3bx/a", Refused(404)),
    ("/public%20/a", Refused(404)),
    ("/;/public/a", Refused(404)),
    ("/only/", Refused(404)),
    ("/only;x", Refused(404)),
    ("/only.", Refused(404)),
    ("/ONLY", Refused(404)),
    ("//private/a", Refused(401)),
    ("/%70rivate/a", Refused(401)),
    ("/private/a/../../public/a", Refused(400)),
    // Dots.
    ("/public/..", Refused(400)),
    ("/public/.", Refused(400)),
    ("/public/../private/a", Refused(400)),
    ("/public/./a", Refused(400)),
    ("/public/a/../../private", Refused(400)),
    ("/public/%2e%2e/private", Refused(400)),
    ("/public/%2E./private", Refused(400)),
    ("/public/.%2e/private", Refused(400)),
    ("/public/..;/private", Refused(400)),
    ("/public/..;x=1/private", Refused(400)),
    ("/public/%2e%2e%3b/private", Refused(400)),
    ("/public/..%2fprivate", Refused(400)),
    ("/public/..%2Fprivate", Refused(400)),
    ("/public/%2e%2e%2fprivate", Refused(400)),
    ("/public/a%2f..%2f..%2fprivate", Refused(400)),
    // Slashes and backslashes.
    ("/public/a%2fb", Refused(400)),
    ("/public%2fa", Refused(404)),
    ("/public/a%5cb", Refused(400)),
    ("/public/a\\b", Refused(400)),
    ("/public/..\\private", Refused(400)),
    ("/public/..%5cprivate", Refused(400)),
    // Encoded more than once.
    ("/public/%252e%252e/private", Refused(400)),
    ("/public/%25252e%25252e/private", Refused(400)),
    ("/public/..%252fprivate", Refused(400)),
    ("/public/a%252fb", Refused(400)),
    ("/public/a%255cb", Refused(400)),
    ("/public/a%2500b", Refused(400)),
    ("/public/%25%32%65%25%32%65/x", Refused(400)),
    // What no path may have.
    ("/public/a%00b", Refused(400)),
    ("/public/a%0d%0aX:y", Refused(400)),
    ("/public/a%1b", Refused(400)),
    ("/public/a%7f", Refused(400)),
    ("/public/%", Refused(400)),
    ("/public/%2", Refused(400)),
    ("/public/%zz", Refused(400)),
    ("/public/%u002e", Refused(400)),
    ("/public/%c0%ae%c0%ae/private", Refused(400)),
    ("/public/%e0%80%af", Refused(400)),
    ("/public/%ff", Refused(400)),
    ("/public/%ed%a0%80", Refused(400)),
    // Where an escaped slash is kept, it stays one, and is data.
    ("/files/a%2fb", Sent("/files/a%2Fb")),
    ("/files/a%2Fb%2fc", Sent("/files/a%2Fb%2Fc")),
    ("/files/a/b", Refused(404)),
    ("/files/..%2fprivate", Refused(400)),
    ("/files/a%2f..%2fprivate", Refused(400)),
    ("/files/a%252fb", Refused(400)),
    ("/files%2fa", Refused(404)),
];

#[test]
fn t12_what_was_matched_is_what_is_forwarded() {
    assert!(SPELLINGS.len() > 80);
    let edge = Edge::new(ROUTES);
    for (spelling, expected) in SPELLINGS {
        let reply = edge.ask(&format!("GET {spelling}"), &[]);
        let received = edge.stub.take();
        match expected {
            Sent(target) => {
                assert_eq!(reply.status, 200, "{spelling}");
                assert_eq!(received.len(), 1, "{spelling}");
                assert_eq!(received[0].target, *target, "{spelling}");
            }
            Refused(status) => {
                assert_eq!((reply.status, received.len()), (*status, 0), "{spelling}: {received:?}");
            }
        }
    }
}

#[test]
fn t12_a_token_opens_nothing_but_what_its_spelling_says() {
    let edge = Edge::new(ROUTES);
    let token = edge.login().access;
    assert_eq!(edge.ask_as(&token, "GET //private//%61", &[]).status, 200);
    assert_eq!(edge.stub.one().target, "/private/a");
    for (spelling, status) in [("/private/..%2fx", 400), ("/private/a%2fb", 400), ("/private;x/a", 404), ("/x", 404)] {
        assert_eq!(edge.ask_as(&token, &format!("GET {spelling}"), &[]).status, status, "{spelling}");
    }
    assert!(edge.stub.take().is_empty());
}
