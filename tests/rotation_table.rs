//! The rotation table over the wire: one list of cases, run in every dialect.
//!
//! A new dialect has one type that implements [`Speaks`], and a line in [`dialects`]; the cases are as they are.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde_json::json;
use support::{Gate, Place, Tokens};

/// One dialect, as its clients speak it.
#[async_trait]
trait Speaks: Sync {
    /// Its name in `gateway.toml`.
    fn name(&self) -> &'static str;

    /// The lines of its endpoint, between `dialect` and `profile`. Its sessions are the client `web`'s.
    fn endpoint(&self) -> &'static str;

    /// Logs `demo` in. A dialect without refresh tokens leaves that one empty.
    async fn login(&self, gate: &Gate) -> Tokens;

    /// Presents what a client of this dialect presents for the next pair. `None` for a refusal, whose words are checked.
    async fn refresh(&self, gate: &Gate, held: &Tokens) -> Option<Tokens>;

    /// Ends the session of what is held, here or at another dialect's endpoint: a session is one session everywhere.
    async fn revoke(&self, gate: &Gate, held: &Tokens) {
        let token = if held.refresh.is_empty() { &held.access } else { &held.refresh };
        assert_eq!(gate.revoke(token).await.status, StatusCode::OK);
    }
}

fn dialects() -> Vec<&'static dyn Speaks> {
    vec![&OAuth2, &Envelope]
}

struct OAuth2;

#[async_trait]
impl Speaks for OAuth2 {
    fn name(&self) -> &'static str {
        "oauth2"
    }

    fn endpoint(&self) -> &'static str {
        "path = \"/{account}/connect/token\""
    }

    async fn login(&self, gate: &Gate) -> Tokens {
        gate.login().await
    }

    async fn refresh(&self, gate: &Gate, held: &Tokens) -> Option<Tokens> {
        let answer = gate.refresh(&held.refresh).await;
        if answer.status == StatusCode::OK {
            return Some(answer.tokens());
        }
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
        None
    }
}

struct Envelope;

impl Envelope {
    async fn ask(gate: &Gate, method: Method, body: serde_json::Value) -> Option<Tokens> {
        let answer = gate.call(method, "/api/v2/auth/token", &[], &body.to_string()).await;
        let json = answer.json();
        if answer.status == StatusCode::OK {
            let field = |name: &str| json["content"][0][name].as_str().unwrap().to_owned();
            return Some(Tokens { access: field("token"), refresh: field("refreshToken") });
        }
        assert_eq!((answer.status, &json["errorCode"]), (StatusCode::UNAUTHORIZED, &json!("AUTH_1002")));
        None
    }
}

#[async_trait]
impl Speaks for Envelope {
    fn name(&self) -> &'static str {
        "envelope"
    }

    fn endpoint(&self) -> &'static str {
        "path = \"/api/v2/auth/token\"\nclient = \"web\""
    }

    async fn login(&self, gate: &Gate) -> Tokens {
        let body = json!({ "username": "demo", "password": gate.password });
        Self::ask(gate, Method::POST, body).await.unwrap()
    }

    async fn refresh(&self, gate: &Gate, held: &Tokens) -> Option<Tokens> {
        Self::ask(gate, Method::PUT, json!({ "token": held.access, "refreshToken": held.refresh })).await
    }
}

/// One step of a case. Pairs are numbered as they are handed out, from the login's, which is 0.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Presenting this pair brings a new one.
    Rotates(usize),
    /// Presenting the first brings the second again, byte for byte.
    Repeats(usize, usize),
    /// Presenting this pair is refused.
    Refused(usize),
    /// A protected route takes this pair's access token.
    Passes(usize),
    /// A protected route refuses this pair's access token.
    Stopped(usize),
    /// The holder of this pair ends the session.
    Ends(usize),
    /// The grace of what was issued last is over.
    GraceIsOver,
}

struct Case {
    name: &'static str,
    /// The endpoint's profile.
    rules: &'static str,
    steps: &'static [Step],
}

use Step::{Ends, GraceIsOver, Passes, Refused, Repeats, Rotates, Stopped};

/// The rows of the table. Every rule that a dialect's own profile may change is written out.
const CASES: &[Case] = &[
    Case {
        name: "the current one rotates",
        rules: r#"grace = "60s""#,
        steps: &[Passes(0), Rotates(0), Passes(1), Rotates(1), Passes(2), Rotates(2), Passes(3)],
    },
    Case {
        name: "the one before is replayed within grace, used or not",
        rules: r#"grace = "60s""#,
        steps: &[Rotates(0), Repeats(0, 1), Passes(1), Repeats(0, 1), Repeats(0, 1), Rotates(1), Repeats(1, 2)],
    },
    Case {
        name: "the one before is a reuse after grace, once its successor was used",
        rules: r#"grace = "1ms""#,
        steps: &[Rotates(0), Passes(1), GraceIsOver, Refused(0), Stopped(1), Refused(1), Refused(0)],
    },
    Case {
        name: "two generations back is a reuse even within grace",
        rules: r#"grace = "60s""#,
        steps: &[Rotates(0), Rotates(1), Refused(0), Stopped(2), Refused(2), Refused(1)],
    },
    Case {
        name: "what nobody used is abandoned when its predecessor comes again: the reply was lost",
        rules: r#"grace = "1ms""#,
        steps: &[Rotates(0), GraceIsOver, Rotates(0), Stopped(1), Passes(2), GraceIsOver, Rotates(2), Passes(3)],
    },
    Case {
        name: "what was abandoned is a reuse when it comes after all",
        rules: r#"grace = "1ms""#,
        steps: &[Rotates(0), GraceIsOver, Rotates(0), Refused(1), Stopped(2), Refused(2), Refused(0)],
    },
    Case {
        name: "nothing was lost where the window is closed",
        rules: r#"grace = "1ms", lost_response_window = "0s""#,
        steps: &[Rotates(0), GraceIsOver, Refused(0), Refused(1)],
    },
    Case {
        name: "a reuse that is only denied leaves the session alone",
        rules: r#"grace = "60s", on_reuse = "deny""#,
        steps: &[Rotates(0), Rotates(1), Refused(0), Passes(2), Rotates(2), Passes(3)],
    },
    Case {
        name: "a rotation ends the access tokens before it where it should, and the replay goes on",
        rules: r#"grace = "60s", revoke_previous_after = "0s""#,
        steps: &[Passes(0), Rotates(0), Stopped(0), Passes(1), Repeats(0, 1), Rotates(1), Stopped(1), Passes(2)],
    },
    Case {
        name: "a revoked session is over",
        rules: r#"grace = "60s""#,
        steps: &[Rotates(0), Ends(1), Stopped(0), Stopped(1), Refused(1), Refused(0)],
    },
];

/// All dialects at one gate, with these rules; each takes the sessions of those that `accepts` says.
fn config(rules: &str, accepts: impl Fn(&str) -> Vec<&'static str>) -> String {
    let mut config = r#"
[server]
listen = "127.0.0.1:0"
public_url = "http://gate.test"
drain_timeout = "0s"
[admin]
listen = "127.0.0.1:0"
[issuer]
audience = ["api"]
[store]
kind = "memory"
[limits]
login_per_address = "1000/1s"
login_per_account = "1000/1s"
login_per_client = "1000/1s"
refresh_per_session = "1000/1s"
[[clients]]
id = "web"
[[upstreams]]
name = "app"
urls = ["echo:"]
[[routes]]
path = "/{*rest}"
upstream = "app"
"#
    .to_owned();
    for dialect in dialects() {
        let (name, endpoint, accepts) = (dialect.name(), dialect.endpoint(), accepts(dialect.name()));
        let endpoint = format!(
            "[[endpoints]]\ndialect = \"{name}\"\n{endpoint}\nprofile = {{ {rules} }}\naccepts = {accepts:?}\n"
        );
        config.push_str(&endpoint);
    }
    config
}

async fn passes(gate: &Gate, held: &Tokens) -> bool {
    let status = gate.get("/data", &held.access).await.status;
    assert!(matches!(status, StatusCode::OK | StatusCode::UNAUTHORIZED), "{status}");
    status == StatusCode::OK
}

async fn run(gate: &Gate, dialect: &dyn Speaks, case: &Case) {
    let mut pairs = vec![dialect.login(gate).await];
    for (at, step) in case.steps.iter().enumerate() {
        let place = format!("{}: {}: step {at}, {step:?}", dialect.name(), case.name);
        match *step {
            Rotates(pair) => {
                let new = dialect.refresh(gate, &pairs[pair]).await.unwrap_or_else(|| panic!("{place}: refused"));
                assert!(!pairs.iter().any(|old| old.access == new.access), "{place}: nothing new");
                pairs.push(new);
            }
            Repeats(pair, successor) => {
                let again = dialect.refresh(gate, &pairs[pair]).await.unwrap_or_else(|| panic!("{place}: refused"));
                assert!(again == pairs[successor], "{place}: not the same again");
            }
            Refused(pair) => assert!(dialect.refresh(gate, &pairs[pair]).await.is_none(), "{place}: not refused"),
            Passes(pair) => assert!(passes(gate, &pairs[pair]).await, "{place}: refused"),
            Stopped(pair) => assert!(!passes(gate, &pairs[pair]).await, "{place}: passed"),
            Ends(pair) => dialect.revoke(gate, &pairs[pair]).await,
            // Longer than the grace of these cases; how much longer decides nothing.
            GraceIsOver => tokio::time::sleep(Duration::from_millis(30)).await,
        }
    }
}

#[tokio::test]
async fn r11_every_row_of_the_table_holds_in_every_dialect() {
    for case in CASES {
        let place = Place::new(&config(case.rules, |_| Vec::new()));
        let gate = place.start();
        for dialect in dialects() {
            run(&gate, dialect, case).await;
        }
    }
}

#[tokio::test]
async fn r11_a_session_goes_on_in_its_own_dialect_alone() {
    let place = Place::new(&config(r#"grace = "60s""#, |_| Vec::new()));
    let gate = place.start();
    for own in dialects() {
        for other in dialects().into_iter().filter(|other| other.name() != own.name()) {
            let place = format!("{} at {}", own.name(), other.name());
            let held = own.login(&gate).await;
            assert!(other.refresh(&gate, &held).await.is_none(), "{place}");
            // Asking in the wrong place costs nothing.
            let next = own.refresh(&gate, &held).await.expect(&place);
            assert!(other.refresh(&gate, &held).await.is_none(), "{place}: a superseded one");
            assert!(passes(&gate, &next).await, "{place}");
        }
    }
}

#[tokio::test]
async fn r11_dialects_that_are_joined_share_one_generation() {
    let all = |own: &str| dialects().into_iter().map(|dialect| dialect.name()).filter(|name| *name != own).collect();
    let place = Place::new(&config(r#"grace = "60s""#, all));
    let gate = place.start();
    for own in dialects() {
        for other in dialects().into_iter().filter(|other| other.name() != own.name()) {
            let place = format!("{} at {}", own.name(), other.name());
            let first = own.login(&gate).await;
            let second = other.refresh(&gate, &first).await.expect(&place);
            assert!(
                own.refresh(&gate, &first).await.as_ref() == Some(&second),
                "{place}: rotated there, replayed here"
            );
            let third = own.refresh(&gate, &second).await.expect(&place);
            assert!(other.refresh(&gate, &first).await.is_none(), "{place}: a reuse is one everywhere");
            assert!(!passes(&gate, &third).await && own.refresh(&gate, &third).await.is_none(), "{place}");
        }
    }
}
