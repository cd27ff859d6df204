//! Attacks on other authorizers and on the proxies that asked them, as one table. Each row is sent to each neighbour that
//! is started, and as a question to an authorizer itself. docs/forward-auth.md lists the rows.

use support::stub::ROUTES;
use support::wire::{Reply, Wire};

use super::before::{ALL, Before};
use super::scene::{Scene, bearer, facts, run};

/// The expectation for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Must {
    /// A request without a token for a protected path: it is refused, and the upstream sees nothing.
    Refused,
    /// A request without a token, whose path has two readings: it is refused, or the neighbour normalised the path and
    /// then asked about the open path.
    Judged,
    /// A request with a good token: it is refused, or arrives with only the identity of that token.
    Own,
    /// A request without a token for an open route: it is refused, or arrives without an identity.
    Nobody,
    /// The request cannot be sent; the text has the reason and the replacement.
    NotSent(&'static str),
}
use Must::{Judged, Nobody, NotSent, Own, Refused};

/// An attack.
pub(super) struct Row {
    /// The number of the attack, or its source.
    pub(super) id: &'static str,
    pub(super) host: &'static str,
    pub(super) target: &'static str,
    pub(super) headers: &'static [&'static str],
    pub(super) must: Must,
}

const fn row(id: &'static str, target: &'static str, headers: &'static [&'static str], must: Must) -> Row {
    Row { id, host: "localhost", target, headers, must }
}

const FORGED: &[&str] = &["X-Forwarded-Uri: /public/a", "X-Original-URL: http://localhost/public/a"];
const IMITATED: &[&str] = &["X-Auth-Subject: root", "X-Auth-Account: root", "X-Auth-Scope: admin"];

/// All of them.
const TABLE: &[Row] = &[
    // The client states facts.
    row("CVE-2026-40575", "/private/a", FORGED, Refused),
    row("CVE-2026-33495", "/private/a", &["X-Forwarded-Proto: https"], Refused),
    row("CVE-2026-35051", "/private/a", &["X-Forwarded-Prefix: /public"], Refused),
    row("CVE-2023-27487", "/private/a", &["X-Envoy-Original-Path: /public/a"], Refused),
    row(
        "CVE-2026-57210",
        "/private/a",
        &["X-Forwarded-For: 127.0.0.1", "X-Envoy-External-Address: 127.0.0.1"],
        Refused,
    ),
    row("CVE-2024-47070", "/private/a", &["X-Forwarded-For: not an address"], Refused),
    row("oauth2-proxy #3506", "/", &[], NotSent("a listener without a list of peers does not start: n3_a_stranger")),
    // A confusion of parts of the target.
    row("CVE-2025-54576", "/private/a?/public/a", &[], Refused),
    row("CVE-2026-32811", "/private/a?x=/public/a&y=1", &[], Refused),
    row("CVE-2026-41059", "/private/a#/public/a", &[], Refused),
    // The path has two readings.
    row("CVE-2026-33494", "/public/../private/a", &[], Judged),
    row("CVE-2025-47952", "/public/%2e%2e/private/a", &[], Judged),
    row("CVE-2025-66490", "/public/..%2fprivate/a", &[], Judged),
    row("CVE-2025-32431", "/public/./../private/a", &[], Judged),
    row("CVE-2026-48020", "/public//../private/a", &[], Judged),
    row("CVE-2026-42272", "/public/..;/private/a", &[], Judged),
    // Aliases of the headers that tell the upstream the caller.
    row("CVE-2025-64484", "/private/a", &["X_Auth_Subject: root"], Own),
    row("CVE-2026-39858", "/private/a", &["X.Auth.Subject: root"], Own),
    row("CVE-2026-54763", "/private/a", &["X-Auth_Subject: root"], Own),
    row("CVE-2026-88011", "/private/a", &["x_auth-subject: root", "X-AUTH-SUBJECT: root"], Own),
    row("GHSA-f59h-q822-g45g", "/private/a", &["X_AUTH.SUBJECT: root"], Own),
    row("CVE-2026-30851", "/public/a", IMITATED, Nobody),
    // The client tries to remove a header that the proxy sets.
    row("CVE-2024-45410", "/private/a", &["Connection: X-Forwarded-Uri, X-Forwarded-Host, X-Forwarded-For"], Own),
    row("CVE-2026-29054", "/private/a", &["Connection: close, X-Auth-Subject", "X-Auth-Subject: root"], Own),
    // Host and port are compared in another form.
    Row { host: "LOCALHOST", ..row("CVE-2026-42273", "/private/a", &[], Refused) },
    Row { host: "LocalHost.", ..row("CVE-2026-27588", "/private/a", &[], Refused) },
    Row { host: "localhost:1", ..row("CVE-2026-54764", "/private/a", &[], Refused) },
    Row { host: "127.0.0.1:8082", ..row("opnsense/plugins #5712", "/private/a", &[], Refused) },
    // The verdict of the authorizer.
    row("CVE-2026-34457", "/private/a", &["User-Agent: GoogleHC/1.0"], Refused),
    row(
        "CVE-2026-26998",
        "/",
        &[],
        NotSent("no answer is longer than 64 KiB: asserted of each question of this table"),
    ),
    row("CVE-2026-71326", "/", &[], NotSent("two requests at once, which differ in their token: the_verdicts_of_two")),
];

/// An identity in headers that an upstream may read as the gate's.
const IDENTITY: [&str; 4] = ["x-auth-subject", "x-auth-account", "x-auth-scope", "x-auth-session"];

fn subject(access: &str) -> String {
    crate::dpop::claims(access)["sub"].as_str().unwrap().to_owned()
}

#[test]
fn n1_n5_n9_n18_n20_no_known_attack_succeeds_behind_a_neighbour() {
    for program in ALL {
        let before = Before::start(program);
        let tokens = before.login();
        let (good, subject) = (bearer(&tokens), subject(&tokens.access));
        assert_eq!(before.ask("GET /private/a", &[&good]).status, 200, "{}", program.name);
        before.stub.take();
        for Row { id, host, target, headers, must } in TABLE {
            let case = format!("{id} behind {}", program.name);
            let credential = (*must == Own).then_some(&*good);
            let headers: Vec<&str> = credential.into_iter().chain(headers.iter().copied()).collect();
            if matches!(must, NotSent(_)) {
                continue;
            }
            let reply = before.ask_at(host, &format!("GET {target}"), &headers);
            let arrived = before.stub.take();
            assert!(arrived.len() <= 1, "{case}: {arrived:?}");
            let Some(arrived) = arrived.first() else {
                assert!(reply.status >= 400, "{case}: {reply:?}");
                continue;
            };
            let identity = |name| arrived.confusable(name).into_iter().filter(|value| !value.is_empty());
            match must {
                Own => {
                    assert!(identity("x-auth-subject").eq([&*subject]), "{case}: {arrived:?}");
                    assert!(identity("x-auth-account").all(|account| account != "root"), "{case}: {arrived:?}");
                }
                Nobody => {
                    for name in IDENTITY {
                        assert_eq!(identity(name).count(), 0, "{case}: {arrived:?}");
                    }
                }
                Judged => {
                    let is_plain = arrived.target.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'/');
                    let is_open = arrived.target.starts_with("/public/") && !arrived.target.contains("//");
                    assert!(program.normalises && is_plain && is_open, "{case}: {arrived:?}");
                }
                Refused | NotSent(_) => panic!("{case} arrived: {arrived:?}"),
            }
        }
    }
}

/// The answer to a question about a request of this row, as this neighbour asks it.
pub(super) fn asked(scene: &Scene, neighbour: &str, row: &Row, credential: Option<&str>) -> Reply {
    // By the host that the scene's gate serves.
    let host = match row.host {
        "LOCALHOST" => "GATE.TEST".to_owned(),
        host => host.to_ascii_lowercase().replace("localhost", "gate.test"),
    };
    let target = row.target;
    let (line, mut stated) = match neighbour {
        "envoy" => {
            let client = ["X-Forwarded-Proto: http".to_owned(), "X-Forwarded-For: 192.0.2.7".to_owned()];
            (format!("GET {target}"), [&[format!("Host: {host}")][..], &client].concat())
        }
        _ => {
            let mut stated = facts("GET", target);
            stated.retain(|line| !line.starts_with("X-Forwarded-Host"));
            stated.extend([format!("X-Forwarded-Host: {host}"), "Host: gate".to_owned()]);
            ("GET /".to_owned(), stated)
        }
    };
    stated.extend(credential.into_iter().chain(row.headers.iter().copied()).map(str::to_owned));
    let stated: Vec<&str> = stated.iter().map(String::as_str).collect();
    let mut wire = Wire::open(scene.asked);
    wire.head(&line, &stated);
    wire.reply()
}

#[test]
fn n1_n2_n5_n9_n18_no_known_attack_succeeds_at_an_authorizer() {
    for neighbour in ["nginx", "traefik", "caddy", "haproxy", "envoy"] {
        let keys = format!("kind = \"{neighbour}\"\ntrusted_proxies = [\"127.0.0.1/32\"]");
        let scene = Scene::new(&keys, ROUTES);
        let tokens = scene.login();
        let (good, subject) = (bearer(&tokens), subject(&tokens.access));
        // Harmless requests pass.
        for (plain, credential) in
            [(row("", "/private/a", &[], Own), Some(&*good)), (row("", "/public/a", &[], Nobody), None)]
        {
            assert_eq!(asked(&scene, neighbour, &plain, credential).status, 200, "{neighbour} {}", plain.target);
        }
        for row in TABLE.iter().filter(|row| !matches!(row.must, NotSent(_))) {
            let case = format!("{} at {neighbour}", row.id);
            let reply = asked(&scene, neighbour, row, (row.must == Own).then_some(&*good));
            assert!(reply.body.len() <= 64 << 10, "{case}: {reply:?}");
            if reply.status != 200 {
                assert!(reply.status >= 400, "{case}: {reply:?}");
                continue;
            }
            match row.must {
                Own => assert_eq!(reply.all("x-auth-subject"), [&*subject], "{case}"),
                Nobody => {
                    assert!(reply.all("x-auth-subject").iter().all(|value| value.is_empty()), "{case}: {reply:?}");
                }
                Refused | Judged | NotSent(_) => panic!("{case}: {reply:?}"),
            }
        }
    }
}

#[test]
fn n6_the_verdicts_of_two_requests_at_once_are_not_exchanged() {
    let keys = "kind = \"caddy\"\ntrusted_proxies = [\"127.0.0.1/32\"]";
    let scene = Scene::new(keys, ROUTES);
    let (first, second) = (scene.login(), scene.login());
    run(scene.gate.revoke(&second.refresh));
    let (good, revoked) = (bearer(&first), bearer(&second));
    std::thread::scope(|threads| {
        for _ in 0..4 {
            for (credential, status) in [(Some(&good), 200), (Some(&revoked), 401), (None, 401)] {
                let (scene, credential) = (&scene, credential.map(String::as_str));
                threads.spawn(move || {
                    let headers: Vec<&str> = credential.into_iter().collect();
                    for _ in 0..50 {
                        assert_eq!(scene.about("GET", "/private/a", &headers).status, status, "{credential:?}");
                    }
                });
            }
        }
    });
}

#[test]
fn n1_the_page_lists_each_known_attack_once() {
    let page = include_str!("../../docs/forward-auth.md");
    for Row { id, .. } in TABLE {
        let rows = page.lines().filter(|line| line.starts_with(&format!("| {id} |")));
        assert_eq!(rows.count(), 1, "{id} in docs/forward-auth.md");
    }
    let listed = page.lines().filter(|line| ["| CVE-", "| GHSA-"].iter().any(|id| line.starts_with(id)));
    let known = TABLE.iter().filter(|row| row.id.starts_with("CVE-") || row.id.starts_with("GHSA-"));
    assert_eq!(listed.count(), known.count(), "docs/forward-auth.md lists an attack that no test sends");
}
