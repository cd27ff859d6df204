//! Kuzzle's own SDK for JavaScript, from the registry, drives the real binary over HTTP and over WebSocket. Needs node and
//! npm. User, subject and password are new in each run.
//!
//! The suite can fail: with a planted fault of the gate, and with a replayed earlier run, a script reports the fault and
//! its place.

mod between;
mod relayed;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use between::{Behind, Between, Fault, Recording};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use support::{CONFIG, Gate, Place, keep_secret};
use tokio::net::TcpListener;
use uuid::Uuid;

const CONTENT: &str = "the SDK is content";

#[tokio::test(flavor = "multi_thread")]
async fn kuzzle_sdk_over_http_lives_a_whole_life_and_notices_one_that_is_played_again() {
    lives("http.js").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t9_kuzzle_sdk_over_websocket_lives_a_whole_life_and_notices_one_that_is_played_again() {
    lives("socket.js").await;
}

async fn lives(script: &str) {
    let user = User::new();
    let first = run(script, &user, Fault::None, Run::default()).await;
    assert_eq!(first.said, CONTENT, "{script}: {}", first.why);
    let again = |user| {
        let recording = Some(first.recording.clone());
        run(script, user, Fault::None, Run { recording, ..Run::default() })
    };
    let other = User::new();
    let new_user = again(&other).await;
    assert_eq!(new_user.said, "red: login", "{script}: {}", new_user.why);
    // The best possible recording: even with the same user name, the script notices the next value that is new in each
    // run.
    let same_user = again(&user).await;
    assert_eq!(same_user.said, "red: a protected route", "{script}: {}", same_user.why);
}

#[tokio::test(flavor = "multi_thread")]
async fn kuzzle_sdk_loses_no_request_in_flight_where_the_old_token_has_a_second_to_live() {
    for script in ["http.js", "socket.js"] {
        let how = Run { tolerant: true, ..Run::default() };
        let run = run(script, &User::new(), Fault::None, how).await;
        assert_eq!(run.said, CONTENT, "{script}: {}", run.why);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kuzzle_sdk_over_http_notices_a_faulty_gate() {
    notices("http.js", FAULTS).await;
    notices("http.js", &[(Fault::LoggedOutPasses, "logout")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kuzzle_sdk_over_websocket_notices_a_faulty_gate() {
    notices("socket.js", FAULTS).await;
    let more = [(Fault::LoggedOutPasses, "logout elsewhere"), (Fault::NoRoom, "an answer finds its caller")];
    notices("socket.js", &more).await;
}

#[test]
fn kuzzle_sdk_runs_the_example_of_its_document() {
    let (_upstream, port) = upstream(&["upstream.js"], None);
    let place = Place::new(&config(&port, Fault::None, false));
    let subject = format!("subject-{}", Uuid::new_v4().simple());
    // Name and password are the document's.
    place.user_of_a_document("foo", &subject, "bar");
    let gate = place.start();
    for transport in ["http", "websocket"] {
        let node = Command::new("node")
            .args(["document.js", transport])
            .current_dir(installed())
            .env("GATE_PORT", gate.address.port().to_string())
            .env("USER_SUBJECT", &subject)
            .output()
            .unwrap();
        let why = String::from_utf8_lossy(&node.stderr);
        assert_eq!(String::from_utf8_lossy(&node.stdout).trim(), CONTENT, "{transport}: {why}");
    }
}

/// The SDK knows the actions of a Kuzzle server by the upstream's list, or by its own list if the route of the upstream's
/// list is not public.
#[test]
fn kuzzle_sdk_over_http_calls_the_upstreams_controllers() {
    let (_upstream, port) = upstream(&["controllers.js", "upstream"], None);
    let public = "[[routes]]\npath = \"/_publicApi\"\nauth = \"none\"\ndialect = \"kuzzle\"\nupstream = \"app\"\n";
    for is_public in [true, false] {
        let config = config(&port, Fault::None, false);
        let config = if is_public { config } else { config.replace(public, "") };
        assert_eq!(config.contains("_publicApi"), is_public);
        let place = Place::new(&config);
        let gate = place.start();
        let node = Command::new("node")
            .arg("controllers.js")
            .current_dir(installed())
            .env("GATE_PORT", gate.address.port().to_string())
            .env("GATE_PASSWORD", &gate.password)
            .env("PUBLIC", if is_public { "1" } else { "0" })
            .output()
            .unwrap();
        let why = String::from_utf8_lossy(&node.stderr);
        assert_eq!(String::from_utf8_lossy(&node.stdout).trim(), CONTENT, "{why}");
    }
}

/// A fault, and the step of the script that notices it.
const FAULTS: &[(Fault, &str)] = &[
    (Fault::OldTokenIsKept, "the old token"),
    (Fault::ReplayIsRefused, "a lost reply"),
    (Fault::ReuseIsIgnored, "a token that comes again late"),
    (Fault::WrongUnit, "the units of an exchange"),
];

async fn notices(script: &str, faults: &[(Fault, &str)]) {
    for (fault, step) in faults {
        let run = run(script, &User::new(), *fault, Run::default()).await;
        assert_eq!(run.said, format!("red: {step}"), "{script} with {fault:?}: {}", run.why);
    }
}

/// A user of this run.
struct User {
    name: String,
    subject: String,
    password: String,
}

impl User {
    fn new() -> Self {
        let new = || Uuid::new_v4().simple().to_string();
        let user = Self { name: format!("user-{}", new()), subject: format!("subject-{}", new()), password: new() };
        keep_secret(&user.password);
        user
    }
}

/// The way to run a script.
#[derive(Default)]
struct Run {
    /// The gate lets the old token live for a second; and the SDK takes Node's own WebSocket, as in a browser.
    tolerant: bool,
    /// There is no gate.
    recording: Option<Recording>,
}

/// The results of a script.
struct Came {
    said: String,
    why: String,
    recording: Recording,
}

/// The surroundings of a script.
struct World {
    place: Place,
    user: String,
    subject: String,
    gate: tokio::sync::Mutex<Option<Gate>>,
    between: Mutex<Between>,
}

impl World {
    /// Executes an order of the script.
    async fn test(&self, what: &str) -> String {
        let mut gate = self.gate.lock().await;
        match what {
            "lose" => self.between.lock().unwrap().lose_next = true,
            "lost" => return self.between.lock().unwrap().lost.to_string(),
            "revoke" => {
                self.place.point_commands_at(gate.as_ref().unwrap());
                self.command(&["session", "revoke", "--subject", &self.subject]);
            }
            "revoke-all" => {
                self.place.point_commands_at(gate.as_ref().unwrap());
                self.command(&["session", "revoke", "--all", "--yes"]);
            }
            "disable" => self.command(&["user", "disable", &self.user]),
            "crash" => {
                gate.take().unwrap().kill();
                let again = self.place.start();
                self.between.lock().unwrap().behind = Behind::Gate(again.address);
                *gate = Some(again);
            }
            "stop" => {
                let pid = gate.as_ref().unwrap().child.id().to_string();
                assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
            }
            other => panic!("the script asks for {other}"),
        }
        String::new()
    }

    fn command(&self, arguments: &[&str]) {
        let ran = self.place.run(arguments, "");
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
}

/// Runs a script against a new gate.
async fn run(script: &str, user: &User, fault: Fault, how: Run) -> Came {
    let (_upstream, upstream_port) = upstream(&["upstream.js"], None);
    let place = Place::new(&config(&upstream_port, fault, how.tolerant));
    let (behind, gate) = match how.recording {
        Some(recording) => (Behind::Recording(recording), None),
        None => {
            let arguments = ["user", "add", &user.name, "--subject", &user.subject];
            let added = place.run(&arguments, &format!("{}\n", user.password));
            assert_eq!(added.code, Some(0), "{added:?}");
            let gate = place.start();
            (Behind::Gate(gate.address), Some(gate))
        }
    };
    let between = Mutex::new(Between::new(behind, fault));
    let gate = tokio::sync::Mutex::new(gate);
    let world = World { place, user: user.name.clone(), subject: user.subject.clone(), gate, between };
    drive(&[script], user, world, &upstream_port, how.tolerant).await
}

/// Runs a script in its surroundings.
async fn drive(script: &[&str], user: &User, world: World, upstream_port: &str, tolerant: bool) -> Came {
    let world = Arc::new(world);
    let shared = Arc::clone(&world);
    let direct = world.gate.lock().await.as_ref().map_or(0, |gate| gate.address.port()).to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let world = Arc::clone(&shared);
            let service = service_fn(move |request| between::answer(Arc::clone(&world), request));
            // The connection ends, as intended for a lost reply.
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    let websocket = if tolerant { "--experimental-websocket" } else { "--no-experimental-websocket" };
    let node = tokio::process::Command::new("node")
        .args([websocket, "--no-warnings"])
        .args(script)
        .current_dir(installed())
        .env("GATE_PORT", port.to_string())
        .env("DIRECT_PORT", direct)
        .env("UPSTREAM_PORT", upstream_port)
        .env("USER_NAME", &user.name)
        .env("USER_SUBJECT", &user.subject)
        .env("PASSWORD", &user.password)
        .env("TOLERANT", if tolerant { "1" } else { "" })
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .await
        .expect("node is missing: install Node.js 20 or later to run Kuzzle's SDK");
    proxy.abort();
    world.gate.lock().await.take();
    Came {
        said: String::from_utf8_lossy(&node.stdout).trim().to_owned(),
        why: String::from_utf8_lossy(&node.stderr).into_owned(),
        recording: world.between.lock().unwrap().said.clone(),
    }
}

fn config(upstream: &str, fault: Fault, tolerant: bool) -> String {
    let profile = match (fault, tolerant) {
        (Fault::OldTokenIsKept, _) => "profile = { revoke_previous_after = \"30m\" }\n",
        (_, true) => "profile = { revoke_previous_after = \"1s\" }\n",
        (_, false) => "",
    };
    let common = CONFIG
        .replace("audience = [\"api\"]", "audience = [\"api\"]\nfor_tests = { leeway = \"0s\" }")
        .replace("echo:", &format!("http://127.0.0.1:{upstream}"))
        .replace("path = \"/{*rest}\"", "dialect = \"kuzzle\"\npath = \"/{*rest}\"");
    format!(
        "{common}\n[[endpoints]]\ndialect = \"kuzzle\"\n{profile}\
         [[routes]]\npath = \"/_publicApi\"\nauth = \"none\"\ndialect = \"kuzzle\"\nupstream = \"app\"\n\
         [[routes]]\npath = \"/\"\ndialect = \"kuzzle\"\nupgrade = true\nupstream = \"app\"\n"
    )
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program of the workspace that serves as the upstream, with the user that it knows, and its port.
fn upstream(program: &[&str], user: Option<&User>) -> (Running, String) {
    let mut node = Command::new("node");
    node.args(program).current_dir(installed()).stdout(Stdio::piped());
    if let Some(User { name, subject, password }) = user {
        node.env("USER_NAME", name).env("USER_SUBJECT", subject).env("PASSWORD", password);
    }
    let mut node = Running(node.spawn().expect("node is missing: install Node.js 20 or later to run Kuzzle's SDK"));
    let mut port = String::new();
    BufReader::new(node.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    (node, port.trim().to_owned())
}

/// The folder with the SDK, and our scripts beside it.
fn installed() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let ours = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/interop/kuzzle")).unwrap();
        let files: Vec<_> = ours.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        let scripts: Vec<_> = files.iter().map(String::as_str).filter(|file| file.ends_with(".js")).collect();
        support::clients::installed_with("interop/kuzzle", &scripts)
    })
}
