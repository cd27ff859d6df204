//! The rotation table over the wire: one list of cases, run in every dialect.
//!
//! A new dialect needs a type that implements [`Speaks`], and a line in [`dialects`]; the cases do not change.

pub(crate) mod dialects;

use std::time::Duration;

use dialects::{Kuzzle, Speaks, dialects, is_same, log_out, presented};
use http::StatusCode;
use support::{Gate, Place, Tokens};

/// One step of a case. Pairs are numbered in the order of issue; the login's pair is 0.
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
    /// Waits until the grace of the last pair is over.
    GraceIsOver,
}

struct Case {
    name: &'static str,
    /// The rules of the endpoint's profile.
    rules: &'static str,
    steps: &'static [Step],
}

use Step::{Ends, GraceIsOver, Passes, Refused, Repeats, Rotates, Stopped};

/// The default rules of a case: all rules that a dialect's own profile may change.
const RULES: [(&str, &str); 4] = [
    ("grace", "60s"),
    ("lost_response_window", "24h"),
    ("on_reuse", "revoke-session"),
    ("revoke_previous_after", "1h"),
];

/// These rules, and the other rules of [`RULES`], the same in every dialect.
fn written_out(rules: &str) -> String {
    let named = |key: &str| rules.split(',').any(|rule| rule.trim().starts_with(key));
    let missing = RULES.iter().filter(|(key, _)| !named(key)).map(|(key, value)| format!("{key} = {value:?}"));
    let rules = (!rules.is_empty()).then(|| rules.to_owned());
    rules.into_iter().chain(missing).collect::<Vec<_>>().join(", ")
}

/// The rows of the table, with the rules that differ from [`RULES`].
const CASES: &[Case] = &[
    Case {
        name: "the current one rotates",
        rules: "",
        steps: &[Passes(0), Rotates(0), Passes(1), Rotates(1), Passes(2), Rotates(2), Passes(3)],
    },
    Case {
        name: "the one before is replayed within grace, used or not",
        rules: "",
        steps: &[Rotates(0), Repeats(0, 1), Passes(1), Repeats(0, 1), Repeats(0, 1), Rotates(1), Repeats(1, 2)],
    },
    Case {
        name: "the one before is a reuse after grace, once its successor was used",
        rules: r#"grace = "1ms""#,
        steps: &[Rotates(0), Passes(1), GraceIsOver, Refused(0), Stopped(1), Refused(1), Refused(0)],
    },
    Case {
        name: "two generations back is a reuse even within grace",
        rules: "",
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
        rules: r#"on_reuse = "deny""#,
        steps: &[Rotates(0), Rotates(1), Refused(0), Passes(2), Rotates(2), Passes(3)],
    },
    Case {
        name: "a rotation ends the access tokens before it where it should, and the replay goes on",
        rules: r#"revoke_previous_after = "0s""#,
        steps: &[Passes(0), Rotates(0), Stopped(0), Passes(1), Repeats(0, 1), Rotates(1), Stopped(1), Passes(2)],
    },
    Case {
        name: "a revoked session is over",
        rules: "",
        steps: &[Rotates(0), Ends(1), Stopped(0), Stopped(1), Refused(1), Refused(0)],
    },
];

/// The outcomes in each dialect by its own profile, with a configuration that sets only the grace.
const OWN: &[(&[&str], Case)] = &[
    (
        &["oauth2", "envelope", "knox"],
        Case {
            name: "an access token lives to its own end, and a reuse ends the session",
            rules: r#"grace = "60s""#,
            steps: &[Rotates(0), Passes(0), Repeats(0, 1), Rotates(1), Passes(0), Refused(0), Stopped(2), Refused(2)],
        },
    ),
    (
        &["oauth2", "envelope", "knox", "kuzzle"],
        Case {
            name: "a lost reply is made good",
            rules: r#"grace = "1ms""#,
            steps: &[Rotates(0), GraceIsOver, Rotates(0), Stopped(1), Passes(2)],
        },
    ),
    (
        &["kuzzle"],
        Case {
            name: "an access token ends with its exchange, and a reuse is only denied",
            rules: r#"grace = "60s""#,
            steps: &[Rotates(0), Stopped(0), Repeats(0, 1), Rotates(1), Stopped(1), Refused(0), Passes(2), Rotates(2)],
        },
    ),
];

/// All dialects at one gate, with these rules; each accepts the sessions of the dialects in `accepts`.
pub(crate) fn config(rules: &str, accepts: impl Fn(&str) -> Vec<&'static str>) -> String {
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
for_tests.login_per_client = "1000/1s"
refresh_per_session = "1000/1s"
refresh_per_address = "100000/1s"
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

pub(crate) async fn passes(gate: &Gate, held: &Tokens) -> bool {
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
            // Longer than the grace of these cases; the exact time does not matter.
            GraceIsOver => tokio::time::sleep(Duration::from_millis(30)).await,
        }
    }
}

fn alone(_: &str) -> Vec<&'static str> {
    Vec::new()
}

fn joined(own: &str) -> Vec<&'static str> {
    // A dialect that exchanges only access tokens cannot continue sessions of another dialect.
    let joins = |dialect: &&dyn Speaks| dialect.name() == own && dialect.has_refresh_tokens();
    if !dialects().iter().any(joins) {
        return Vec::new();
    }
    dialects().into_iter().map(|dialect| dialect.name()).filter(|name| *name != own).collect()
}

#[test]
fn r11_no_dialect_is_left_out() {
    let mut names: Vec<_> = dialects().into_iter().map(|dialect| dialect.name()).collect();
    let mut built_in = rotogate::program::NAMES.to_vec();
    names.sort_unstable();
    built_in.sort_unstable();
    assert_eq!(names, built_in);
    for name in names {
        assert!(OWN.iter().any(|(dialects, _)| dialects.contains(&name)), "{name}");
    }
}

#[tokio::test]
async fn r11_every_row_of_the_table_holds_in_every_dialect() {
    for case in CASES {
        let place = Place::new(&config(&written_out(case.rules), alone));
        let gate = place.start();
        for dialect in dialects() {
            run(&gate, dialect, case).await;
        }
    }
}

#[tokio::test]
async fn r11_each_dialect_has_the_rules_of_its_own_profile() {
    for (names, case) in OWN {
        let place = Place::new(&config(case.rules, alone));
        let gate = place.start();
        for dialect in dialects().into_iter().filter(|dialect| names.contains(&dialect.name())) {
            run(&gate, dialect, case).await;
        }
    }
}

#[tokio::test]
async fn r11_a_session_goes_on_in_its_own_dialect_alone() {
    let place = Place::new(&config(&written_out(""), alone));
    let gate = place.start();
    for own in dialects() {
        for other in dialects().into_iter().filter(|other| other.name() != own.name()) {
            let place = format!("{} at {}", own.name(), other.name());
            let held = own.login(&gate).await;
            assert!(other.refresh(&gate, &held).await.is_none(), "{place}");
            // A request at the wrong endpoint consumes nothing.
            let next = own.refresh(&gate, &held).await.expect(&place);
            assert!(other.refresh(&gate, &held).await.is_none(), "{place}: a superseded one");
            assert!(passes(&gate, &next).await, "{place}");
        }
    }
}

#[tokio::test]
async fn r11_dialects_that_are_joined_share_one_generation() {
    let place = Place::new(&config(&written_out(""), joined));
    let gate = place.start();
    for own in dialects() {
        for other in dialects().into_iter().filter(|other| other.name() != own.name()) {
            let place = format!("{} at {}", own.name(), other.name());
            let first = own.login(&gate).await;
            if !own.has_refresh_tokens() {
                // An access token is no refresh token, whichever endpoint accepts the session.
                assert!(other.refresh(&gate, &first).await.is_none(), "{place}");
                assert!(own.refresh(&gate, &first).await.is_some(), "{place}");
                continue;
            }
            if !other.has_refresh_tokens() {
                assert!(other.refresh(&gate, &first).await.is_none(), "{place}");
                continue;
            }
            let second = other.refresh(&gate, &first).await.expect(&place);
            let again = own.refresh(&gate, &first).await.expect(&place);
            assert!(is_same(&again, &second), "{place}: rotated there, replayed here");
            let third = own.refresh(&gate, &again).await.expect(&place);
            assert!(other.refresh(&gate, &first).await.is_none(), "{place}: a reuse is one everywhere");
            assert!(!passes(&gate, &third).await && own.refresh(&gate, &third).await.is_none(), "{place}");
        }
    }
}

/// The ways to end a session, whatever its dialect.
#[derive(Clone, Copy, Debug)]
enum End {
    /// RFC 7009, with the access token.
    Access,
    /// RFC 7009, with the refresh token or its substitute.
    Refresh,
    /// RFC 7009, with a superseded token.
    Superseded,
    /// Kuzzle's logout.
    Logout,
}

#[tokio::test]
async fn r11_a_session_of_any_dialect_can_be_ended_at_another() {
    // The endpoint accepts the dialect, so that a refusal does not come from the dialect.
    let place = Place::new(&config(&written_out(""), joined));
    let gate = place.start();
    for own in dialects() {
        for end in [End::Access, End::Refresh, End::Superseded, End::Logout] {
            let place = format!("{}, by {end:?}", own.name());
            let first = own.login(&gate).await;
            let second = own.refresh(&gate, &first).await.expect(&place);
            assert!(passes(&gate, &second).await, "{place}");
            let token = match end {
                End::Access => Some(second.access.as_str()),
                End::Refresh => Some(presented(&second)),
                End::Superseded => Some(presented(&first)),
                End::Logout => None,
            };
            match token {
                Some(token) => assert_eq!(gate.revoke(token).await.status, StatusCode::OK, "{place}"),
                None => log_out(&gate, "/_logout", &second).await,
            }
            for held in [&first, &second] {
                assert!(!passes(&gate, held).await, "{place}");
                for asked in dialects() {
                    assert!(asked.refresh(&gate, held).await.is_none(), "{place}: {}", asked.name());
                }
            }
        }
    }
}

#[tokio::test]
async fn r11_a_session_of_any_dialect_is_listed_shown_and_ended_like_any_other() {
    let place = Place::new(&config(&written_out(""), alone));
    let gate = place.start();
    place.point_commands_at(&gate);
    let json = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let ran = place.run(&[arguments, &["--json"]].concat(), "");
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let mut sessions = Vec::new();
    for dialect in dialects() {
        sessions.push((dialect, dialect.login(&gate).await));
    }
    let listed = json(&["session", "list"]);
    let names: Vec<_> = listed.iter().map(|session| session["dialect"].as_str().unwrap()).collect();
    assert_eq!(names, dialects().iter().map(|dialect| dialect.name()).collect::<Vec<_>>());
    for ((dialect, held), session) in sessions.iter().zip(&listed) {
        let id = session["id"].as_str().unwrap();
        let next = dialect.refresh(&gate, held).await.unwrap();
        assert!(passes(&gate, &next).await);
        let shown = &json(&["session", "show", id])[0];
        assert_eq!(shown["generation"], 2, "{}", dialect.name());
        json(&["session", "revoke", id]);
        assert!(!passes(&gate, &next).await && dialect.refresh(&gate, &next).await.is_none(), "{}", dialect.name());
        let live = json(&["session", "list"]).into_iter().filter(|session| session["status"] == "live").count();
        assert_eq!(live, sessions.iter().skip_while(|(other, _)| other.name() != dialect.name()).count() - 1);
    }
}

#[tokio::test]
async fn r11_a_global_logout_ends_the_sessions_of_all_dialects() {
    let place = Place::new(&config(&written_out(""), alone));
    let gate = place.start();
    let mut sessions = Vec::new();
    for dialect in dialects() {
        sessions.push((dialect, dialect.login(&gate).await));
    }
    let last = Kuzzle.login(&gate).await;
    log_out(&gate, "/_logout?global", &last).await;
    for (dialect, held) in &sessions {
        assert!(!passes(&gate, held).await && dialect.refresh(&gate, held).await.is_none(), "{}", dialect.name());
        let anew = dialect.login(&gate).await;
        assert!(passes(&gate, &anew).await, "{}: one begun since", dialect.name());
    }
}
