//! Requests through the program, by cookie and by token: the processor time of a gate with one worker and its log in a
//! file.

use std::time::{Duration, Instant};

use ::support::device::{Device, challenge};
use ::support::stub::{Edge, HEAD};
use ::support::wire::{Reply, Wire};
use ::support::with;
use serde_json::json;

use super::support::{Case, interleave, measures, process_time};
use super::{MOST_OF_A_TOKEN, MOST_OF_A_TOKEN_IF_BOUND, verdict};

/// The connections of the clients, with one request at a time on each.
const CONNECTIONS: usize = 16;
const PAGE: &str = "/page/1";
const MORE: &str = r#"
[[endpoints]]
dialect = "browser"
path = "/auth"
@keys@[[routes]]
path = "/{*rest}"
credentials = ["token", "session"]
upstream = "app"
"#;

fn edge(keys: &str) -> Edge {
    let head = with(&HEAD.replace("http://gate.test", "https://gate.test"), "server", "workers = 1");
    let more = MORE.replace("@keys@", keys);
    let edge = Edge::with(&format!("{head}{more}"), |_| {}, |command| _ = command.env("ROTOGATE_LOG", "info"));
    edge.stub.put(PAGE, "", &[b'a'; 1024]);
    edge
}

/// The reply to a request of the gate's own page.
fn post(edge: &Edge, path: &str, headers: &[&str], body: &str) -> Reply {
    let mut wire = edge.wire();
    let length = format!("Content-Length: {}", body.len());
    let own = ["Host: gate.test", "Origin: https://gate.test", "Sec-Fetch-Site: same-origin", &length];
    wire.head(&format!("POST {path}"), &[&own, headers].concat());
    wire.send(body);
    let reply = wire.reply();
    assert_eq!(reply.status, 200, "{reply:?}");
    reply
}

fn first_cookie(reply: &Reply) -> &str {
    reply.header("set-cookie").split(';').next().unwrap()
}

/// The header of a request by token, and by cookie. A session at a gate that asks for devices gets one.
fn credentials(edge: &Edge) -> [String; 2] {
    let token = format!("Authorization: Bearer {}", edge.login().access);
    let login = json!({ "username": "demo", "password": edge.gate.password }).to_string();
    let reply = post(edge, "/auth/login", &["Content-Type: application/json"], &login);
    let session = format!("Cookie: {}", first_cookie(&reply));
    let [asked] = reply.all("secure-session-registration")[..] else { return [token, session] };
    let proof = format!("Secure-Session-Response: {}", Device::default().registration(&challenge(asked)));
    let bound = post(edge, "/auth/device", &[&session, &proof], "");
    [token, format!("{session}; {}", first_cookie(&bound))]
}

/// Waits until a session is refused without its device. Before that the gate does not read the device's cookie.
fn wait_until_bound(edge: &Edge, credential: &str) {
    let (session, _) = credential.split_once("; ").unwrap();
    let until = Instant::now() + Duration::from_secs(90);
    while edge.ask(&format!("GET {PAGE}"), &["Sec-Fetch-Site: same-origin", session]).status == 200 {
        assert!(Instant::now() < until, "the session is not bound");
        std::thread::sleep(Duration::from_secs(1));
    }
    edge.stub.take();
}

/// Sends a request on each connection, so many times. Returns the processor time of the gate.
fn send(edge: &Edge, wires: &mut [Wire], credential: &str, turns: u64) -> Duration {
    let before = process_time(edge.gate.child.id()).unwrap();
    let page =
        ["Host: gate.test", "User-Agent: bench/1", "Accept: text/html", "Sec-Fetch-Site: same-origin", credential];
    for _ in 0..turns {
        wires.iter_mut().for_each(|wire| wire.head(&format!("GET {PAGE}"), &page));
        wires.iter_mut().for_each(|wire| assert_eq!(wire.reply().status, 200));
    }
    edge.stub.take();
    process_time(edge.gate.child.id()).unwrap() - before
}

/// Compares requests by cookie with requests by token.
fn compare(edge: &Edge, [token, cookie]: [String; 2], name: &'static str, most: f64, rounds: usize) {
    let names = ["a known token", name];
    let case = |name, credential: String| {
        let mut wires = (0..CONNECTIONS).map(|_| edge.wire()).collect::<Vec<_>>();
        Case::timed(name, move |requests| {
            let turns = requests.div_ceil(CONNECTIONS as u64);
            send(edge, &mut wires, &credential, turns).mul_f64(requests as f64 / (turns * CONNECTIONS as u64) as f64)
        })
    };
    let measured = interleave(vec![case(names[0], token), case(names[1], cookie)], rounds);
    measured.print("A request of a page through the program", names[0]);
    let ratio = measured.ratio(names[1], names[0]);
    if measures() {
        println!("B58: by {name}, {ratio:.3} times a request by token (at most {most}): {}", verdict(ratio <= most));
    }
}

pub(crate) fn measure(rounds: usize) {
    let [plain, binding] = ["", "device_bound = \"optional\"\n"].map(edge);
    let bound = credentials(&binding);
    compare(&plain, credentials(&plain), "a known session cookie", MOST_OF_A_TOKEN, rounds);
    if measures() {
        wait_until_bound(&binding, &bound[1]);
    }
    compare(&binding, bound, "a known session and its device", MOST_OF_A_TOKEN_IF_BOUND, rounds);
}
