//! P36: the log lines after each kind of end of the gate.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use support::Place;
use support::stub::{Edge, HEAD, ROUTES};

const REQUESTS: usize = 300;

fn logging(change: impl FnOnce(&mut std::process::Command)) -> Edge {
    let log =
        "[access_log]\nfor_tests.format = \"json\"\noutput = \"./access.log\"\nfor_tests.flush_interval = \"1s\"\n";
    Edge::with(&format!("{HEAD}{ROUTES}{log}"), |_| {}, change)
}

/// The paths of the access log that begin so, in order. Each line is whole.
fn paths(place: &Place, begin: &str) -> Vec<String> {
    let text = fs::read_to_string(place.path("access.log")).unwrap();
    let path = |line: &str| serde_json::from_str::<Value>(line).expect(line)["url.path"].as_str().unwrap().to_owned();
    text.lines().map(path).filter(|path| path.starts_with(begin)).collect()
}

fn expected(begin: &str) -> Vec<String> {
    (0..REQUESTS).map(|number| format!("{begin}{number}")).collect()
}

/// Requests on one connection, so that one thread logs them in order.
fn ask(edge: &Edge, begin: &str) {
    let mut wire = edge.wire();
    for number in 0..REQUESTS {
        wire.head(&format!("GET {begin}{number}"), &["Host: gate.test"]);
        assert_eq!(wire.reply().status, 200);
    }
}

#[test]
fn p36_a_stop_loses_no_line() {
    let edge = logging(|_| {});
    ask(&edge, "/public/a");
    let Edge { gate, place, .. } = edge;
    assert_eq!(gate.stop(), Some(0));
    assert_eq!(paths(&place, "/public/a"), expected("/public/a"));
}

#[test]
fn p36_an_upgrade_loses_and_doubles_no_line() {
    let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", support::server::free_port()));
    let log =
        "[access_log]\nfor_tests.format = \"json\"\noutput = \"./access.log\"\nfor_tests.flush_interval = \"1s\"\n";
    let config = format!("{HEAD}{ROUTES}{log}");
    let config = addresses.iter().fold(config, |config, address| config.replacen("127.0.0.1:0", address, 1));
    let edge = Edge::with(&config, |_| {}, |_| {});
    for round in 0..3 {
        ask(&edge, &format!("/public/{round}-"));
        edge.gate.signal("USR2");
        // Then the next connection waits in the queue of the socket for the successor.
        while edge.gate.log().lines().filter(|line| line.ends_with(" stopped")).count() <= round {
            std::thread::yield_now();
        }
    }
    ask(&edge, "/public/3-");
    let Edge { gate, place, .. } = edge;
    assert_eq!(gate.stop(), Some(0));
    for round in 0..=3 {
        let begin = format!("/public/{round}-");
        assert_eq!(paths(&place, &begin), expected(&begin));
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn p36_a_panic_that_ends_the_process_loses_no_line() {
    let mut edge = logging(|command| {
        command.env("ROTOGATE_FAILPOINT", "panic-at:/public/panic");
    });
    ask(&edge, "/public/a");
    let mut wire = edge.wire();
    wire.head("GET /public/panic", &["Host: gate.test"]);
    let ended = edge.gate.child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(6), "{ended:?}");
    assert_eq!(paths(&edge.place, "/public/a"), expected("/public/a"));
    let log = fs::read_to_string(&edge.gate.log).unwrap();
    assert!(log.contains("rotogate::panic") && log.contains("failpoint: the first panic"), "{log}");
}

#[test]
fn p36_a_kill_loses_the_lines_of_at_most_the_flush_interval() {
    let mut edge = logging(|_| {});
    ask(&edge, "/public/a");
    // Other requests, for three times as long as the interval at least.
    let mut wire = edge.wire();
    for _ in 0..600 {
        wire.head("GET /public/later", &["Host: gate.test"]);
        assert_eq!(wire.reply().status, 200);
        std::thread::sleep(Duration::from_millis(5));
    }
    edge.gate.kill();
    assert_eq!(paths(&edge.place, "/public/a"), expected("/public/a"));
}
