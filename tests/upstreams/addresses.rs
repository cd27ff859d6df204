//! Two addresses, of which one fails.

use http::{Method, StatusCode};

use super::server::Server;
use support::{CONFIG, Gate, Place, until};

const LINES: &str = "for_tests.max_failures = 3\n\
                     health = \"/healthz\"\nfor_tests.health_interval = \"100ms\"\nfor_tests.health_timeout = \"2s\"\nfor_tests.unhealthy_after = 2\n";

fn place(one: &Server, two: &Server, lines: &str) -> Place {
    Place::new(&format!(
        "{CONFIG}[[upstreams]]\nname = \"two\"\nurls = [\"http://{}\", \"http://{}\"]\n{lines}\n\
         [[routes]]\npath = \"/two/{{*rest}}\"\nauth = \"none\"\nupstream = \"two\"\n",
        one.address, two.address
    ))
}

async fn all_are_answered(gate: &Gate, number: usize) {
    for n in 0..number {
        let answer = gate.call(Method::GET, "/two/x", &[], "").await;
        assert_eq!(answer.status, StatusCode::OK, "request {n}: {answer:?}");
    }
}

fn said(gate: &Gate, what: &str, address: std::net::SocketAddr) -> usize {
    let address = address.to_string();
    gate.log().lines().filter(|line| line.contains(what) && line.contains(&address)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_that_may_be_repeated_fails_when_an_address_dies_and_comes_back() {
    let (one, two) = (Server::plain().await, Server::plain().await);
    let place = place(&one, &two, LINES);
    let gate = place.start();
    all_are_answered(&gate, 40).await;
    assert!(one.state.requests() > 0 && two.state.requests() > 0);

    let address = one.address;
    drop(one);
    all_are_answered(&gate, 100).await;
    until("the dead address is ejected", async || said(&gate, "address ejected", address) == 1).await;

    // The address answers again, but is not yet healthy: it gets only checks.
    let one = Server::plain_at(address, false).await;
    all_are_answered(&gate, 40).await;
    assert_eq!(one.state.requests(), 0);
    one.state.is_well(true);
    until("the address is readmitted", async || {
        gate.call(Method::GET, "/two/x", &[], "").await;
        one.state.requests() > 0
    })
    .await;
    assert_eq!((said(&gate, "address ejected", address), said(&gate, "address readmitted", address)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_checks_an_address_comes_back_after_a_time() {
    let (one, two) = (Server::plain().await, Server::plain().await);
    let place = place(&one, &two, "for_tests.max_failures = 1\nfor_tests.eject_for = \"200ms\"");
    let address = one.address;
    drop(one);
    let gate = place.start();
    until("the dead address is ejected", async || {
        all_are_answered(&gate, 1).await;
        said(&gate, "address ejected", address) > 0
    })
    .await;
    let one = Server::plain_at(address, true).await;
    until("the address is readmitted", async || {
        all_are_answered(&gate, 1).await;
        one.state.requests() > 0
    })
    .await;
    assert!(said(&gate, "address readmitted", address) > 0);
    assert_eq!(gate.call(Method::POST, "/two/x", &[], "x").await.status, StatusCode::OK);
}
