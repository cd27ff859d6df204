//! The SDK in front of a server that keeps its users: the configuration of docs/kuzzle.md.

use std::sync::Mutex;

use support::{CONFIG, Place};

use super::between::{Behind, Between, Fault};
use super::{CONTENT, User, World, drive, upstream};

/// Of the blocks in docs/kuzzle.md, the one that names this.
fn of_the_document(marker: &str) -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kuzzle.md")).unwrap();
    let block = page.split("```").find(|block| block.starts_with("toml") && block.contains(marker));
    block.unwrap_or_else(|| panic!("docs/kuzzle.md has no {marker}")).trim_start_matches("toml").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn i77_kuzzle_sdk_loses_no_login_in_front_of_a_server_that_keeps_its_users() {
    for transport in ["http", "websocket"] {
        let user = User::new();
        let (_server, port) = upstream(&["server.js"], Some(&user));
        let head = CONFIG.split("[[clients]]").next().unwrap();
        let config = format!("{head}{}", of_the_document("wire = \"kuzzle\""))
            .replace("127.0.0.1:7512", &format!("127.0.0.1:{port}"))
            .replace("wire = \"kuzzle\"", "wire = \"kuzzle\"\ngrace = \"1s\"");
        let place = Place::new(&config);
        let gate = place.start();
        let between = Mutex::new(Between::new(Behind::Gate(gate.address), Fault::None));
        let (name, subject) = (user.name.clone(), user.subject.clone());
        let world = World { place, user: name, subject, gate: tokio::sync::Mutex::new(Some(gate)), between };
        let came = drive(&["relay.js", transport], &user, world, &port, false).await;
        assert_eq!(came.said, CONTENT, "{transport}: {}", came.why);
    }
}
