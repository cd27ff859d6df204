//! Requests through the program, by cookie and by token: the processor time of a gate with one worker and its log in a
//! file.

use std::time::Duration;

use ::support::stub::{Edge, HEAD};
use ::support::wire::Wire;
use ::support::with;
use serde_json::json;

use super::support::{Case, interleave, measures, process_time};
use super::{MOST_OF_A_TOKEN, verdict};

/// The connections of the clients, with one request at a time on each.
const CONNECTIONS: usize = 16;
const PAGE: &str = "/page/1";
const MORE: &str = r#"
[[endpoints]]
dialect = "browser"
path = "/auth"
[[routes]]
path = "/{*rest}"
credentials = ["token", "session"]
upstream = "app"
"#;

/// The headers of a request by token, and by cookie.
fn credentials(edge: &Edge) -> [String; 2] {
    let token = format!("Authorization: Bearer {}", edge.login().access);
    let login = json!({ "username": "demo", "password": edge.gate.password }).to_string();
    let mut wire = edge.wire();
    let length = format!("Content-Length: {}", login.len());
    let own = ["Host: gate.test", "Origin: https://gate.test", "Content-Type: application/json", &length];
    wire.head("POST /auth/login", &own);
    wire.send(&login);
    let reply = wire.reply();
    assert_eq!(reply.status, 200, "{reply:?}");
    [token, format!("Cookie: {}", reply.header("set-cookie").split(';').next().unwrap())]
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

pub(crate) fn measure(rounds: usize) {
    let head = with(&HEAD.replace("http://gate.test", "https://gate.test"), "server", "workers = 1");
    let edge = Edge::with(&format!("{head}{MORE}"), |_| {}, |command| _ = command.env("ROTOGATE_LOG", "info"));
    edge.stub.put(PAGE, "", &[b'a'; 1024]);
    let [token, cookie] = credentials(&edge);
    let names = ["a known token", "a known session cookie"];
    let case = |name, credential: String| {
        let (edge, mut wires) = (&edge, (0..CONNECTIONS).map(|_| edge.wire()).collect::<Vec<_>>());
        Case::timed(name, move |requests| {
            let turns = requests.div_ceil(CONNECTIONS as u64);
            send(edge, &mut wires, &credential, turns).mul_f64(requests as f64 / (turns * CONNECTIONS as u64) as f64)
        })
    };
    let measured = interleave(vec![case(names[0], token), case(names[1], cookie)], rounds);
    measured.print("A request of a page through the program", names[0]);
    let ratio = measured.ratio(names[1], names[0]);
    if measures() {
        println!(
            "B58: by cookie {ratio:.3} times a request by token (at most {MOST_OF_A_TOKEN}): {}",
            verdict(ratio <= MOST_OF_A_TOKEN)
        );
    }
}
