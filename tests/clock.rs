//! O9 on the real binary: a wall clock that jumps or is stepped back, while a gate runs or between two of its starts.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use support::{Answer, CONFIG, Gate, Place, keep_secret, until};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const JUMPED: &str = "the wall clock jumped";
const SWEPT: &str = "swept sessions=";

/// A place whose gates have a wall clock that can be moved.
struct Moved(Place);

impl Moved {
    fn new() -> Self {
        let config = support::with(CONFIG, "issuer", "audience = [\"api\"]\nfor_tests = { leeway = \"1s\" }");
        let moved = Self(Place::new(&format!("{config}[[endpoints]]\ndialect = \"kuzzle\"\npath = \"/k\"\n")));
        moved.ahead(0);
        moved
    }

    /// Sets the wall clock this many milliseconds ahead.
    fn ahead(&self, millis: i64) {
        std::fs::write(self.0.path("clock"), millis.to_string()).unwrap();
    }

    fn start(&self) -> Gate {
        let failpoints = format!("wall-clock:{};sweep-every:100", self.0.path("clock").display());
        self.0.start_with(|command| {
            command.env("ROTOGATE_FAILPOINT", failpoints);
        })
    }
}

async fn readiness(gate: &Gate) -> (StatusCode, String) {
    let answer = gate.admin_get("/readyz").await;
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

async fn is_ready(gate: &Gate) -> bool {
    readiness(gate).await.0 == StatusCode::OK
}

/// A time claim of an access token.
fn time(token: &str, claim: &str) -> i64 {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()[claim].as_i64().unwrap()
}

fn is_later(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(seconds > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o9_o26_a_wall_clock_that_jumps_ahead_is_not_followed_and_nothing_is_swept_until_it_is_right_again() {
    let moved = Moved::new();
    let gate = moved.start();
    let first = gate.login().await;
    until("there is a sweep", async || gate.log().contains(SWEPT)).await;

    // By this clock the session would have ended, and would have been swept.
    moved.ahead(24 * 365 * HOUR);
    until("readiness is red", async || !is_ready(&gate).await).await;
    assert!(readiness(&gate).await.1.contains(JUMPED));
    assert_eq!(gate.metric("rotogate_ready").await, 0);
    until("the log says so", async || gate.log().contains(JUMPED)).await;
    let swept = gate.log().matches(SWEPT).count();

    // By the later of two clocks the token has expired, and so would a new token; nothing is lost.
    assert_eq!(gate.get("/hello", &first.access).await.status, StatusCode::UNAUTHORIZED, "it is prolonged");
    for _ in 0..10 {
        is_later(&gate.refresh(&first.refresh).await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // The request in flight.
    assert!(gate.log().matches(SWEPT).count() <= swept + 1, "nothing is swept");
    assert_eq!(gate.log().matches(JUMPED).count(), 1, "told once a minute");

    moved.ahead(0);
    until("readiness is green", async || is_ready(&gate).await).await;
    let swept = gate.log().matches(SWEPT).count();
    until("sweeping goes on", async || gate.log().matches(SWEPT).count() > swept).await;
    let second = gate.refresh(&first.refresh).await.tokens();
    let later = time(&second.access, "iat") - time(&first.access, "iat");
    assert!((0..600).contains(&later), "minted by a clock that nobody believed: {later} s later");
    assert_eq!(gate.get("/hello", &second.access).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o9_a_wall_clock_that_is_stepped_back_brings_nothing_back_and_mints_nothing_earlier() {
    let moved = Moved::new();
    let gate = moved.start();
    let body = json!({ "username": "demo", "password": gate.password }).to_string();
    let answer = gate.call(Method::POST, "/k/_login/local?expiresIn=1s", &[], &body).await;
    let short = answer.json()["result"]["jwt"].as_str().unwrap().to_owned();
    keep_secret(short.rsplit('.').next().unwrap());
    let first = gate.login().await;
    until("it expires", async || gate.get("/hello", &short).await.status == StatusCode::UNAUTHORIZED).await;

    moved.ahead(-30 * 24 * HOUR);
    // Waits for as long as the gate would need to follow the clock.
    for _ in 0..30 {
        assert_eq!(gate.get("/hello", &short).await.status, StatusCode::UNAUTHORIZED, "it is good again");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let second = gate.refresh(&first.refresh).await.tokens();
    assert!(time(&second.access, "iat") >= time(&first.access, "iat"), "minted in the past");
    assert_eq!(gate.get("/hello", &second.access).await.status, StatusCode::OK);
    let (status, why) = readiness(&gate).await;
    assert_eq!(status, StatusCode::OK);
    assert!(why.starts_with("degraded: the wall clock is ") && why.contains("behind the gate's own time"), "{why}");
    moved.ahead(0);
    until("the state is good again", async || readiness(&gate).await.1.trim() == "ready").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o9_a_start_behind_the_store_mints_nothing_and_consumes_nothing_until_the_clock_has_caught_up() {
    let moved = Moved::new();
    moved.ahead(2 * HOUR);
    let gate = moved.start();
    let first = gate.login().await;
    assert_eq!(gate.stop(), Some(0));

    moved.ahead(0);
    let gate = moved.start();
    let (status, why) = readiness(&gate).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("the wall clock is behind"), "{why}");
    for _ in 0..2 {
        is_later(&gate.refresh(&first.refresh).await);
        let login = [("grant_type", "password"), ("username", "demo"), ("password", gate.password.as_str())];
        is_later(&gate.token(&login).await);
    }
    assert_eq!(gate.get("/hello", &first.access).await.status, StatusCode::OK, "what is out there is good");

    moved.ahead(2 * HOUR + MINUTE);
    until("it has caught up", async || is_ready(&gate).await).await;
    let second = gate.refresh(&first.refresh).await.tokens();
    assert!(time(&second.access, "iat") >= time(&first.access, "iat"));
}

/// The clock of a start was 400 days ahead, and then it was corrected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c39_a_store_of_a_clock_that_was_ahead_is_brought_back_by_a_command_that_says_what_it_gives_up() {
    let moved = Moved::new();
    let days = 400 * 24 * HOUR;
    let gate = moved.start();
    let before = gate.login().await;
    assert_eq!(gate.stop(), Some(0));
    moved.ahead(days);
    let gate = moved.start();
    let ahead = gate.login().await;
    assert!(moved.0.fails(&["store", "reset-clock", "--yes"], "").contains("in use"), "a gate runs");
    assert_eq!(gate.stop(), Some(0));

    moved.ahead(0);
    let gate = moved.start();
    is_later(&gate.log_in("demo", &gate.password).await);
    until("the log says so", async || gate.log().contains("the wall clock has not reached")).await;
    assert_eq!(gate.stop(), Some(0));

    let refused = moved.0.fails(&["store", "reset-clock"], "reset\n");
    assert!(refused.contains("ends every session") && refused.contains("--yes"), "{refused}");
    let report = moved.0.json(&["store", "reset-clock", "--yes"], "");
    assert!(report["reset"] == true && report["sessions_ended"].as_u64() >= Some(1), "{report}");
    assert!(report["users_ahead"].is_null(), "{report}");
    // A user who was made while the clock was ahead.
    let users = std::fs::read_to_string(moved.0.path("data/users.toml")).unwrap();
    let ahead_of_time = |line: &str| match line.starts_with("sessions_valid_from") {
        true => "sessions_valid_from = 2099-01-01T00:00:00Z\n".to_owned(),
        false => format!("{line}\n"),
    };
    std::fs::write(moved.0.path("data/users.toml"), users.lines().map(ahead_of_time).collect::<String>()).unwrap();
    let said = moved.0.done(&["store", "reset-clock"], "").stdout;
    assert!(said.contains("cannot log in") && said.trim_end().ends_with(": demo"), "{said}");
    assert_eq!(moved.0.json(&["store", "reset-clock"], "")["users_ahead"], serde_json::json!(["demo"]));
    std::fs::write(moved.0.path("data/users.toml"), users).unwrap();
    let again = moved.0.json(&["store", "reset-clock"], "");
    assert_eq!((&again["reset"], &again["sessions_ended"]), (&false.into(), &0.into()), "{again}");

    let gate = moved.start();
    assert!(is_ready(&gate).await);
    let now = gate.login().await;
    assert_eq!(gate.get("/hello", &now.access).await.status, StatusCode::OK);
    assert!(time(&now.access, "iat") < time(&ahead.access, "iat") - days / 2000);
    assert_eq!(gate.refresh(&now.refresh).await.status, StatusCode::OK);
    for tokens in [&before, &ahead] {
        assert_eq!(gate.get("/hello", &tokens.access).await.status, StatusCode::UNAUTHORIZED, "it was given up");
        assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(gate.stop(), Some(0));
    // Tokens that were issued for a later time are still refused at that time.
    moved.ahead(days);
    let gate = moved.start();
    assert_eq!(gate.get("/hello", &ahead.access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.refresh(&ahead.refresh).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c40_a_wall_clock_that_is_set_back_while_a_gate_runs_is_seen_in_the_log_and_the_metric() {
    const BEHIND: &str = "the wall clock is behind the gate's own time";
    let moved = Moved::new();
    let gate = moved.start();
    gate.login().await;
    moved.ahead(-2 * HOUR);
    until("the log says so", async || gate.log().contains(BEHIND)).await;
    assert!(is_ready(&gate).await, "it goes on by its own time");
    let skew = String::from_utf8(gate.admin_get("/metrics").await.body.to_vec()).unwrap();
    let skew = skew.lines().find_map(|line| line.strip_prefix("rotogate_engine_time_skew_seconds "));
    assert!(skew.unwrap().parse::<f64>().unwrap() > 7000.0, "{skew:?}");
    assert_eq!(gate.log().matches(BEHIND).count(), 1, "told once a minute");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c41_an_explanation_says_503_where_the_clock_lets_nothing_be_issued() {
    let moved = Moved::new();
    let gate = moved.start();
    let tokens = gate.login().await;
    moved.0.point_commands_at(&gate);
    moved.ahead(3 * HOUR);
    until("readiness is red", async || !is_ready(&gate).await).await;
    is_later(&gate.refresh(&tokens.refresh).await);
    let explained = |arguments: &[&str], token: &str| {
        let ran = moved.0.run(&[&["explain", "--json"][..], arguments].concat(), token);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        serde_json::from_str::<Value>(&ran.stdout).unwrap()
    };
    let login = ["--path", "/connect/token", "--method", "POST", "--host", "gate.test"];
    for report in [explained(&[], &tokens.refresh), explained(&login, "")] {
        assert_eq!(
            (&report["decision"], &report["status"], &report["outcome"]),
            (&"unavailable".into(), &503.into(), &"clock".into()),
            "{report}"
        );
    }
    let logout = ["--path", "/connect/revocation", "--method", "POST", "--host", "gate.test"];
    assert_eq!(explained(&logout, "")["decision"], "undecided", "it ends a session, and the body decides");
}
