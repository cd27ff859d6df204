//! T3: identity headers in every spelling, on every kind of route, over both versions of HTTP, in heads and in trailers.
//! The client's identity headers never arrive; the gate's arrive once.

use super::frames::{self, Field, Outcome, Part, fields};
use support::stub::{Edge, HEAD, Received};

/// The headers that the gate sets here, and how often for the caller of these tests, which has no account.
const SET: [(&str, usize); 5] =
    [("x-auth-subject", 1), ("x-auth-client", 1), ("x-gate-scope", 1), ("remote-sid", 1), ("account", 0)];

const ROUTES: &str = r#"
[identity]
headers = { subject = "x-auth-subject", client = "x-auth-client", scope = "X-Gate-Scope", session = "remote-sid", account = "account" }
claims = { "X-Tenant-Id" = "tenant", "Org-Unit" = "unit" }
[[routes]]
path = "/public/{*rest}"
auth = "none"
upstream = "app"
[[routes]]
path = "/open/{*rest}"
auth = "optional"
upstream = "app"
[[routes]]
path = "/lax/{*rest}"
auth = "optional"
keep_headers = ["underscore", "override"]
upstream = "app"
[[routes]]
path = "/private/{*rest}"
upstream = "app"
"#;

/// All identity headers: the configured ones, and those that are always protected.
const NAMES: [&str; 33] = [
    "x-auth-subject",
    "x-auth-client",
    "x-gate-scope",
    "remote-sid",
    "account",
    "x-tenant-id",
    "org-unit",
    "x-auth",
    "x-auth-scope",
    "x-auth-account",
    "x-auth-session",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-token",
    "x-user",
    "x-user-id",
    "x-user-roles",
    "x-remote",
    "x-remote-user",
    "x-remote-group",
    "remote-user",
    "remote-groups",
    "x-authenticated-user",
    "x-webauth-user",
    "x-identity",
    "x-identity-id",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-roles",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
];

/// Spellings of a name that some server could take for the name. Every byte is allowed in a header name.
fn spellings(name: &str) -> Vec<String> {
    let separators = ['_', '.', '~', '!', '\'', '*', '+', '`', '|', '^', '#', '$', '%', '&'];
    let mut all = vec![name.to_owned(), name.to_ascii_uppercase(), title(name), format!("{name}-bin")];
    for separator in separators {
        all.push(name.replace('-', &separator.to_string()));
        all.push(name.replacen('-', &separator.to_string(), 1));
        all.push(format!("{}-bin", name.replace('-', &separator.to_string())));
    }
    all.push(name.to_ascii_uppercase().replace('-', "_"));
    all.push(title(name).replace('-', "_"));
    all.sort_unstable();
    all.dedup();
    all
}

fn title(name: &str) -> String {
    let mut upper = true;
    let letter = |c: char| {
        let now = std::mem::replace(&mut upper, c == '-');
        if now { c.to_ascii_uppercase() } else { c }
    };
    name.chars().map(letter).collect()
}

/// All spellings of all names, in heads that are not too long.
fn batches() -> Vec<Vec<String>> {
    let all: Vec<String> = NAMES.iter().flat_map(|name| spellings(name)).collect();
    assert!(all.len() > 1000, "{}", all.len());
    all.chunks(40).map(<[String]>::to_vec).collect()
}

/// No forged header arrived. The gate's headers arrived once, or not at all for a request without a caller.
#[track_caller]
fn check(received: &Received, known: bool, what: &str) {
    let fold = |name: &str| {
        name.bytes().map(|b| if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' }).collect::<Vec<_>>()
    };
    let forged: Vec<_> =
        received.headers.iter().chain(&received.trailers).filter(|(_, value)| value.contains("forged")).collect();
    assert!(forged.is_empty(), "{what}: {forged:?}");
    for (name, times) in SET {
        let all: Vec<&str> =
            received.headers.iter().filter(|(n, _)| fold(n) == fold(name)).map(|(_, v)| v.as_str()).collect();
        assert_eq!(all.len(), if known { times } else { 0 }, "{what} {name}: {all:?}");
    }
    assert_eq!(received.all("x-auth-client"), if known { vec!["web"] } else { vec![] }, "{what}");
}

/// The path, whether a token is sent, and whether the upstream gets a caller.
const ASKED: [(&str, bool, bool); 6] = [
    ("/public/x", false, false),
    ("/public/x", true, false),
    ("/open/x", false, false),
    ("/open/x", true, true),
    ("/lax/x", false, false),
    ("/private/x", true, true),
];

fn edge() -> (Edge, String) {
    let edge = Edge::with(&format!("{HEAD}{ROUTES}"), |_| {}, |_| {});
    let token = edge.login().access;
    (edge, token)
}

#[test]
fn t3_no_spelling_of_an_identity_header_arrives_from_a_client() {
    let (edge, token) = edge();
    for (path, with_token, known) in ASKED {
        let mut wire = edge.wire();
        for batch in batches() {
            // Twice each: the gate must remove both.
            let forged: String = batch.iter().map(|name| format!("{name}: forged\r\n{name}: forged2\r\n")).collect();
            let bearer = if with_token { format!("Authorization: Bearer {token}\r\n") } else { String::new() };
            wire.send(format!("GET {path} HTTP/1.1\r\nHost: gate.test\r\n{bearer}{forged}\r\n"));
            assert_eq!(wire.reply().status, 200, "{path}");
            check(&edge.stub.one(), known, path);
        }
    }
}

#[test]
fn t3_t5_connection_neither_removes_what_the_gate_sets_nor_saves_what_a_client_forged() {
    let (edge, token) = edge();
    for (path, with_token, known) in ASKED {
        let mut wire = edge.wire();
        for batch in batches() {
            let forged: String = batch.iter().map(|name| format!("{name}: forged\r\n")).collect();
            let named = batch.join(", ");
            let bearer = if with_token { format!("Authorization: Bearer {token}\r\n") } else { String::new() };
            wire.send(format!(
                "GET {path} HTTP/1.1\r\nHost: gate.test\r\n{bearer}Connection: {named}\r\n{forged}Connection: {named}\r\n\r\n"
            ));
            assert_eq!(wire.reply().status, 200, "{path}");
            check(&edge.stub.one(), known, path);
        }
    }
}

#[test]
fn t3_no_trailer_tells_who_is_asking() {
    let (edge, token) = edge();
    for (path, with_token, known) in ASKED {
        let mut wire = edge.wire();
        for batch in batches() {
            let forged: String = batch.iter().map(|name| format!("{name}: forged\r\n")).collect();
            let named = batch.join(", ");
            let bearer = if with_token { format!("Authorization: Bearer {token}\r\n") } else { String::new() };
            wire.send(format!(
                "POST {path} HTTP/1.1\r\nHost: gate.test\r\n{bearer}TE: trailers\r\nTrailer: {named}\r\n\
                 Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{forged}\r\n"
            ));
            assert_eq!(wire.reply().status, 200, "{path}");
            let received = edge.stub.one();
            assert!(received.trailers.is_empty(), "{path}: {:?}", received.trailers);
            check(&received, known, path);
        }
    }
}

#[test]
fn t3_t17_nor_does_any_over_http_2_as_plain_or_as_grpc() {
    let (edge, token) = edge();
    let bearer = format!("Bearer {token}");
    for (path, with_token, known) in ASKED {
        let head = [(":method", "POST"), (":scheme", "http"), (":authority", "gate.test"), (":path", path)];
        let mut head: Vec<Field> = fields(&head);
        if with_token {
            head.extend(fields(&[("authorization", &bearer)]));
        }
        for batch in batches() {
            let mut names: Vec<String> = batch.iter().map(|name| name.to_ascii_lowercase()).collect();
            names.dedup();
            let forged: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "forged")).collect();
            for media in ["text/plain", "application/grpc"] {
                let head =
                    [&head[..], &fields(&[("content-type", media)]), &fields(&forged), &fields(&forged)].concat();
                let parts = [Part::Data(b"hello".to_vec()), Part::Trailers(fields(&forged))];
                assert_eq!(frames::ask(edge.gate.address, &head, &parts), Outcome::Status(200), "{path} {names:?}");
                check(&edge.stub.one(), known, path);
            }
        }
    }
}
