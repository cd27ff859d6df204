//! docs/keycloak-axum.md: its program prints why a token of Keycloak is refused, as the page shows it, and accepts the token after
//! the page's changes in Keycloak.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::routing::get;
use rotogate::ResourceServer;
use rotogate::token::Preset;
use serde_json::{Value, json};
use support::Answer;
use support::events::Events;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::Program;
use crate::stand_in::{StandIn, now};

#[allow(dead_code, unreachable_pub, reason = "it is a program, whose main the tests do not call")]
#[path = "../../examples/providers/keycloak/axum.rs"]
mod program;

const PAGE: &str = include_str!("../../docs/keycloak-axum.md");

/// What the program prints, and the warnings among it.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>, Arc<Mutex<Vec<String>>>);

impl io::Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Printed {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Printed {
    /// The one line since the last call that is not a warning, without its time.
    fn line(&self) -> String {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        let (warnings, lines): (Vec<_>, Vec<_>) =
            text.lines().map(without_time).partition(|line| line.starts_with("WARN "));
        self.1.lock().unwrap().extend(warnings);
        let [line] = &lines[..] else { panic!("not one line: {text}") };
        line.clone()
    }

    /// The warnings since the last call.
    fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.1.lock().unwrap())
    }
}

fn without_time(line: &str) -> String {
    line.split_once(' ').unwrap().1.trim_start().to_owned()
}

/// The line about a refusal.
fn refusal(reason: &str, detail: Option<&str>) -> String {
    let detail = detail.map(|detail| format!(" detail=\"{detail}\"")).unwrap_or_default();
    format!("DEBUG rotogate::denial: refused reason=\"{reason}\"{detail}")
}

/// The blocks of the page of this kind.
fn blocks(kind: &str) -> Vec<&'static str> {
    let begin = format!("```{kind}\n");
    PAGE.split(&begin).skip(1).map(|rest| rest.split_once("```").unwrap().0).collect()
}

/// The reply is the one that the page shows: its first line, the shown headers, and the shown body.
fn is_shown(answer: &Answer, block: &str) {
    let (_, shown) = block.split_once('\n').unwrap();
    let (head, body) = shown.split_once("\n\n").unwrap_or((shown, ""));
    let mut lines = head.lines();
    assert_eq!(lines.next().unwrap(), format!("HTTP/1.1 {}", answer.status), "{answer:?}");
    for line in lines.filter(|line| *line != "…") {
        let (name, value) = line.split_once(": ").unwrap();
        assert_eq!(answer.headers[name], value);
    }
    assert!(body.is_empty() || answer.body == body.trim_end(), "{answer:?}");
}

/// The program of the page in front of the stand-in, and what it prints.
struct Followed {
    stand_in: StandIn,
    program: Program,
    printed: Printed,
    /// The changes in the tokens of the realm.
    changes: Value,
}

impl Followed {
    async fn get(&self, path: &str) -> Answer {
        self.program.get(path, Some(&self.stand_in.token(&self.changes))).await
    }

    /// The request is refused, and the program prints this line.
    async fn refused(&self, path: &str, status: u16, line: &str) -> Answer {
        let answer = self.get(path).await;
        assert_eq!((answer.status.as_u16(), self.printed.line().as_str()), (status, line), "{}", self.changes);
        answer
    }
}

#[tokio::test]
async fn i66_the_page_about_keycloak_and_axum_leads_from_the_401_to_the_200() {
    let filter = blocks("sh")[0].split("RUST_LOG=").nth(1).unwrap().split(' ').next().unwrap();
    // With a second subscriber, concurrent tests do not disable events here: see `Events`.
    let _second = Events::collect(|_| false);
    let printed = Printed::default();
    let writer = printed.clone();
    let subscriber = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(writer).finish());

    let stand_in = StandIn::start(crate::keycloak::provider());
    let program = Program::start(program::app(&stand_in.issuer()).await).await;
    // A realm in which nobody has followed the page.
    let changes = json!({ "aud": "account", "realm_access": { "roles": ["offline_access"] } });
    let mut here = Followed { stand_in, program, printed, changes };
    let lines: Vec<_> = blocks("text").into_iter().map(|block| without_time(block.trim_end())).collect();
    let [wrong_audience, no_subject, no_role] = &lines[..] else { panic!("{lines:?}") };
    let [refused, accepted] = blocks("console")[..] else { panic!("two replies") };
    let curl = "$ curl -i http://127.0.0.1:3000/me -H \"Authorization: Bearer $TOKEN\"\n";
    assert!(refused.starts_with(curl) && accepted.starts_with(curl));

    is_shown(&here.refused("/me", 401, wrong_audience).await, refused);
    // The user has no role of the client `account`.
    here.changes["aud"] = Value::Null;
    let no_audience = refusal("bad_claim", Some("no aud"));
    is_shown(&here.refused("/me", 401, &no_audience).await, refused);
    assert!(PAGE.replace(char::is_whitespace, " ").contains("the reason is `bad_claim` with `no aud`"));
    // With the audience mapper, but without the scope `basic`, then with both.
    here.changes["aud"] = json!(["api", "account"]);
    here.changes["sub"] = Value::Null;
    is_shown(&here.refused("/me", 401, no_subject).await, refused);
    here.changes["sub"] = json!("f81d4fae-7dec-11d0-a765-00a0c91e6bf6");
    is_shown(&here.get("/me").await, accepted);
    // Without the role, then with it.
    here.refused("/admin", 403, no_role).await;
    here.changes["realm_access"] = json!({ "roles": ["offline_access", "admin"] });
    assert_eq!(here.get("/admin").await.body, "the office");
    let warnings = here.printed.warnings();
    assert!(matches!(&warnings[..], [one] if one.contains("request without `Peer`")), "{warnings:?}");
    assert!(PAGE.contains("The warning `request without Peer` means"));
    other_reasons(&mut here).await;
    without_keys(&here).await;
    roles_of_a_client(here, no_role).await;
}

/// With an issuer that serves no keys, the program names the cause.
async fn without_keys(here: &Followed) {
    let program = Program::start(program::app(&format!("{}-mistyped", here.stand_in.issuer())).await).await;
    let token = here.stand_in.token(&json!({ "iss": format!("{}-mistyped", here.stand_in.issuer()) }));
    let answer = program.get("/me", Some(&token)).await;
    assert_eq!(
        (answer.status.as_u16(), here.printed.line().as_str()),
        (503, "DEBUG rotogate::denial: failed reason=\"keys_unavailable\"")
    );
    let warnings = here.printed.warnings();
    let quoted = "issuer has no keys yet";
    assert!(PAGE.contains(&format!("- `keys_unavailable`, with a 503: the warning `{quoted}` names the cause.")));
    assert!(warnings.iter().any(|line| line.contains(quoted) && line.contains("404")), "{warnings:?}");
    // Plain http is for this machine alone.
    let refused = program::app("http://idp.example.com/realms/acme").await.unwrap_err();
    assert!(format!("{refused:?}").contains("expected https") && PAGE.contains("ends with `expected https`"));
}

/// The last list of the page.
async fn other_reasons(here: &mut Followed) {
    const REQUIRED: &str = "a claim that `require` or the preset asks for";
    let another_value = format!("{REQUIRED} is missing, or has another value");
    for (reason, detail, change) in [
        ("unknown_issuer", None, json!({ "iss": "https://idp.example.com/realms/other" })),
        ("bad_claim", Some(&*another_value), json!({ "typ": "ID" })),
        ("bad_claim", Some(&*another_value), json!({ "typ": "Refresh" })),
        ("token_expired", None, json!({ "iat": now() - 400, "exp": now() - 100 })),
    ] {
        let with = detail.map(|_| format!(" with {REQUIRED}")).unwrap_or_default();
        let item = format!("\n- `{reason}`{with}: ");
        assert!(PAGE.contains(&item), "{item}");
        let accepted = here.changes.clone();
        here.changes.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        here.refused("/me", 401, &refusal(reason, detail)).await;
        here.changes = accepted;
    }
}

/// The program with the rule that the page shows, which replaces the preset's.
async fn roles_of_a_client(here: Followed, no_role: &str) {
    assert!(PAGE.contains(r#"`.rules(|rules| rules.roles(["resource_access.web.roles"]))?`"#));
    let server = ResourceServer::discover(here.stand_in.issuer()).audience("api").preset(Preset::Keycloak);
    let server = server.rules(|rules| rules.roles(["resource_access.web.roles"])).unwrap();
    let gate = server.build().await.unwrap();
    let office = get(async || "the office").route_layer(gate.require().role("admin"));
    let program = Program::start(Ok(Router::new().route("/admin", office).layer(gate.layer()))).await;
    let mut here = Followed { program, ..here };
    here.refused("/admin", 403, no_role).await;
    here.changes["resource_access"] = json!({ "web": { "roles": ["admin"] } });
    assert_eq!(here.get("/admin").await.body, "the office");
}
