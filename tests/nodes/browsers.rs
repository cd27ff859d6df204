//! Browsers of three gates on one store: their renewals, and the tokens of the provider where they logged in.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use support::history::{Held, Recorder};
use support::wire::{Reply, Wire};
use support::{Gate, until, with};
use tokio::time::Instant;

use super::fleet::{Fleet, GATES};
use super::servers::Servers;
use crate::edge::browser_oidc::{OWN, SAME_ORIGIN, world_beside};
use crate::edge::browser_vault::FORWARDING;

const TABS: usize = 50;

/// How often a tab asks while the store of a busy machine is too slow for a decision.
const PATIENCE: usize = 30;

/// All tabs send the request at once, to all gates in turn. If the answer is that nothing was decided (503 with
/// `Retry-After`), a tab asks again after a second, so many times in all.
fn in_tabs(gates: &[SocketAddr], path: &str, cookie: &str, attempts: usize) -> Vec<Reply> {
    let is_undecided = |reply: &Reply| reply.status == 503 && !reply.all("retry-after").is_empty();
    let ask = move |mut wire: Wire| {
        wire.head(&format!("GET {path}"), &["Host: gate.test", cookie, SAME_ORIGIN]);
        wire.reply()
    };
    std::thread::scope(|scope| {
        let tabs: Vec<_> = (0..TABS)
            .map(|tab| {
                let gate = gates[tab % gates.len()];
                let wire = Wire::open(gate);
                scope.spawn(move || {
                    let mut reply = ask(wire);
                    for _ in 1..attempts {
                        if !is_undecided(&reply) {
                            break;
                        }
                        std::thread::sleep(Duration::from_secs(1));
                        reply = ask(Wire::open(gate));
                    }
                    reply
                })
            })
            .collect();
        tabs.into_iter().map(|tab| tab.join().unwrap()).collect()
    })
}

/// Attack 36, at a provider that accepts each refresh token once.
async fn one_exchange(servers: Servers) {
    let section = servers.section();
    let keys = section.strip_prefix("[store]\n").unwrap();
    let world =
        tokio::task::block_in_place(|| world_beside(keys, FORWARDING, &json!({}), |place| servers.put_files(place)));
    let others: Vec<Gate> = (1..GATES).map(|_| world.edge.place.start()).collect();
    let gates: Vec<_> = [&world.edge.gate].into_iter().chain(&others).map(|gate| gate.address).collect();
    let held = world.log_in_due();
    world.grant(
        &json!({ "access_token": "second-access-token", "refresh_token": "second-refresh-token", "expires_in": 3600 }),
    );
    for reply in in_tabs(&gates, "/api/x", &held, 1) {
        assert_eq!((reply.status, reply.all("set-cookie").len()), (200, 0), "{}", reply.text());
    }
    assert_eq!(world.exchanges(), 2, "the login, and one refresh");
    let received = world.edge.stub.take();
    assert_eq!(received.len(), TABS);
    assert!(received.iter().all(|one| one.all("authorization") == ["Bearer second-access-token"]));

    // The vault goes with its session into a copy of the store.
    others.into_iter().for_each(|gate| assert_eq!(gate.stop(), Some(0)));
    let mut world = world;
    let place = &world.edge.place;
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    let copy = with(&config.replace(&section, "[store]\n"), "store", "path = \"data/copy.redb\"");
    std::fs::write(place.path("copy.toml"), &copy).unwrap();
    world.edge.gate.kill();
    let to_copy = ["store", "copy", "--to-config", place.path("copy.toml").to_str().unwrap()].map(str::to_owned);
    let to_copy: Vec<_> = to_copy.iter().map(String::as_str).collect();
    let copied = (0..300).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        place.run(&to_copy, "");
        place.path("data/copy.redb").exists()
    });
    assert!(copied, "once no gate beats");
    place.write_config(&copy);
    world.edge.gate = place.start();
    assert_eq!(world.forwarded(&held), "Bearer second-access-token");
    assert_eq!((world.exchanges(), &world.state(&held)["authenticated"]), (2, &json!(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b41_fifty_tabs_at_three_gates_on_redis_make_one_exchange_and_the_vault_is_copied() {
    one_exchange(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b41_fifty_tabs_at_three_gates_on_postgresql_make_one_exchange_and_the_vault_is_copied() {
    one_exchange(Servers::postgres()).await;
}

/// Fifty tabs at each renewal of a session that began with a password.
async fn one_write(servers: Servers) {
    let fleet = Fleet::start_with_browsers(servers, "grace = \"10s\"", "").await;
    let recorder = Recorder::new(&fleet.password);
    let held = recorder.log_in_browser(fleet.entry().at(0)).await.unwrap();
    let gates: Vec<_> = (0..GATES).map(|gate| fleet.entry().at(gate).address).collect();
    let cookie = format!("Cookie: {}", held.tokens.access);
    let rotated = async || {
        let mut sum = 0;
        for gate in 0..GATES {
            sum += fleet.gate(gate).metric("rotogate_session_events_total{event=\"rotated\"}").await;
        }
        sum
    };
    let begun = Instant::now();
    while rotated().await < 3 {
        let replies = tokio::task::block_in_place(|| in_tabs(&gates, "/hello", &cookie, PATIENCE));
        assert!(replies.iter().all(|reply| reply.status == 200), "{replies:?}");
    }
    // A renewal is due after four fifths of two seconds.
    let most = begun.elapsed().as_millis() / 1600 + 1;
    let writes = rotated().await;
    assert!(u128::from(writes) <= most, "{writes} writes, and {most} renewals were due");
    ends_everywhere(&fleet, &recorder).await;
}

/// Attack 24: a cookie at another gate after its logout, also while that gate gets no news; and a logout that the store
/// refuses.
async fn ends_everywhere(fleet: &Fleet, recorder: &Recorder) {
    let ask = |gate: usize, head: &str, held: &Held, more: &[&str]| {
        tokio::task::block_in_place(|| {
            let mut wire = Wire::open(fleet.entry().at(gate).address);
            let cookie = format!("Cookie: {}", held.tokens.access);
            wire.head(head, &[&["Host: gate.test", &cookie, SAME_ORIGIN], more].concat());
            wire.reply()
        })
    };
    let get = |gate, held: &Held| ask(gate, "GET /hello", held, &[]).status;
    let log_out = |gate, held: &Held| ask(gate, "POST /auth/logout", held, &[OWN, "Content-Length: 0"]);
    let (first, second) = (fleet.entry().at(0), fleet.entry().at(1));
    let [ended, owed] = [recorder.log_in_browser(first).await.unwrap(), recorder.log_in_browser(second).await.unwrap()];
    for gate in 0..GATES {
        assert_eq!([get(gate, &ended), get(gate, &owed)], [200; 2], "gate {gate}");
    }
    fleet.way(2).hold(true);
    assert_eq!(log_out(0, &ended).status, 200);
    until("the other gate hears of it", async || get(1, &ended) != 200).await;
    assert_eq!(get(1, &ended), 401);
    // Without news the gate may accept known sessions for a moment, and then none.
    until("a gate without news decides nothing", async || get(2, &owed) == 503).await;
    assert_eq!(get(2, &ended), 503);
    fleet.way(1).hold(true);
    let refused = log_out(1, &owed);
    assert_eq!((refused.status, refused.all("set-cookie").len()), (503, 0), "{}", refused.text());
    assert_eq!(refused.all("retry-after").len(), 1);
    assert_ne!(get(1, &owed), 200, "refused here at once");
    fleet.way(1).hold(false);
    fleet.way(2).hold(false);
    for gate in 0..GATES {
        until("each gate refuses both", async || get(gate, &ended) == 401 && get(gate, &owed) == 401).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b9_b12_b18_at_three_gates_on_redis_fifty_tabs_renew_once_and_a_logout_ends_the_session_everywhere() {
    one_write(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b9_b12_b18_at_three_gates_on_postgresql_fifty_tabs_renew_once_and_a_logout_ends_the_session_everywhere() {
    one_write(Servers::postgres()).await;
}
