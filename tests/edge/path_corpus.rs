//! T12, T20: one spelling of a path, matched and forwarded. The spellings are those of `tests/corpus/paths.tsv`.

use crate::corpus;
use support::stub::Edge;

/// The columns in the head of the corpus.
pub(crate) const ROUTES: &str = r#"
[[routes]]
path = "/public/{*rest}"
auth = "none"
upstream = "app"
[[routes]]
path = "/only"
auth = "none"
upstream = "app"
[[routes]]
path = "/files/{name}"
auth = "none"
encoded_slash = "keep"
upstream = "app"
[[routes]]
path = "/private/{*rest}"
upstream = "app"
[[routes]]
path = "/admin/{*rest}"
scopes = ["admin"]
upstream = "app"
[[routes]]
path = "/team/{*rest}"
upstream = "app"
[[routes]]
path = "/team/lead/{*rest}"
scopes = ["admin"]
upstream = "app"
[[routes]]
path = "/docs/{*rest}"
auth = "none"
upstream = "app"
[[routes]]
path = "/docs/drafts/{*rest}"
upstream = "app"
[[routes]]
path = "/docs/drafts/Sample"
auth = "none"
upstream = "app"
"#;

/// The status of a `GET`.
fn get(edge: &Edge, target: &[u8], headers: &str) -> u16 {
    let mut wire = edge.wire();
    let head = format!(" HTTP/1.1\r\nHost: gate.test\r\n{headers}\r\n");
    wire.send([b"GET ", target, head.as_bytes()].concat());
    wire.reply().status
}

#[test]
fn t12_t20_each_spelling_of_the_corpus_is_forwarded_as_it_was_matched_or_not_at_all() {
    let edge = Edge::new(ROUTES);
    let authorization = format!("Authorization: Bearer {}\r\n", edge.login().access);
    let mut wrong = Vec::new();
    let spellings = corpus::paths();
    for spelling in &spellings {
        for (headers, expected) in [("", spelling.anonymous), (authorization.as_str(), spelling.bearer)] {
            let status = get(&edge, &spelling.target, headers);
            let received = edge.stub.take();
            let targets: Vec<&str> = received.iter().map(|received| received.target.as_str()).collect();
            let forwarded: Vec<&str> = spelling.forwarded.into_iter().filter(|_| expected == 200).collect();
            if (status, &targets) != (expected, &forwarded) {
                let who = if headers.is_empty() { "anonymous" } else { "bearer" };
                wrong.push(format!(
                    "{} {who}: {status} {targets:?}, expected {expected} {forwarded:?}",
                    spelling.written
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), spellings.len(), wrong.join("\n"));
    assert!(spellings.len() > 250, "{}", spellings.len());
}

#[test]
fn t12_the_corpus_says_what_is_forwarded_where_something_is_and_nothing_twice() {
    let mut seen = std::collections::HashSet::new();
    for spelling in corpus::paths() {
        let passes = spelling.anonymous == 200 || spelling.bearer == 200;
        assert_eq!(spelling.forwarded.is_some(), passes, "{}", spelling.written);
        assert!(seen.insert(spelling.target), "{} stands there twice", spelling.written);
    }
}
