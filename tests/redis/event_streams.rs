//! A stream of security events at two gates.

use std::time::Duration;

use support::Place;
use support::redis::Redis;
use support::stub::{HEAD, Stub};

use super::store_of;
use crate::edge::event_streams::{end, files, issuer_of, token_of, transmitter, until_acknowledged};
use support::wire::Wire;

fn status(address: std::net::SocketAddr, subject: &str) -> u16 {
    let mut wire = Wire::open(address);
    wire.head("GET /x", &["Host: gate.test", &format!("Authorization: Bearer {}", token_of(subject))]);
    wire.reply().status
}

// Requirement S18.
#[test]
fn s18_one_of_two_gates_polls_and_the_other_takes_over_within_20_seconds() {
    let (server, at, stub) = (Redis::start(&[]), transmitter(), Stub::start());
    let issuer = issuer_of(&at, "audience = [\"https://gate.test/events\"]", "");
    let head = HEAD.replace("[store]\nkind = \"memory\"\n", &store_of(&server));
    let place = Place::new(&format!("{head}{issuer}").replace("@upstream@", &stub.address.to_string()));
    files(&place);
    let mut first = place.start();
    until_acknowledged(&at, "verification-1");
    let second = place.start();
    end(&at, "e-1", "user-1");
    until_acknowledged(&at, "e-1");
    assert_eq!(status(first.address, "user-1"), 401);
    while status(second.address, "user-1") != 401 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let most = at.state().most_polling;
    assert_eq!((most, at.count("POST", "/streams")), (1, 1), "one gate polls");
    first.kill();
    let began = at.count("POST", "/poll");
    // The poll of the killed gate may still wait, but must not consume an event.
    at.until("a poll of the other gate", |state| {
        let polls = state.asked.iter().filter(|asked| asked.path == "/poll").count();
        (polls > began).then_some(())
    });
    end(&at, "e-2", "user-2");
    until_acknowledged(&at, "e-2");
    assert_eq!(status(second.address, "user-2"), 401);
    assert_eq!(at.count("POST", "/streams"), 1, "the same stream");
}
