//! A week of devices behind a link that loses one reply in twenty: how many logins that costs, with the relay and without
//! it. This prints the figures of docs/relay.md:
//!
//! ```sh
//! DEVICES=1000 cargo test --all-features --lib a_week_of_lost_replies -- --nocapture
//! ```
//!
//! `DEVICES_SEED` repeats the choices of a run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::model::LIMITS;
use super::*;
use rotogate_core::session::confirm::token_digest;
use support::random::Random;

const HOUR: u64 = 3600;
const WEEK: u64 = 7 * 24 * HOUR;
/// A device that misses a reply tries again after one of these times: at once, later, or when it is opened again.
const PAUSES: [u64; 3] = [10, 10 * 60, 8 * HOUR];

/// A provider that ends a login whose refresh token is presented twice. A token has the numbers of its login and of its
/// generation.
#[derive(Default)]
struct Fleet {
    /// The valid generation of each login, or `None` if the login has ended.
    logins: Mutex<Vec<Option<usize>>>,
}

rotogate_core::debug_with!(Fleet);

impl Fleet {
    fn log_in(&self) -> (usize, usize) {
        let mut logins = self.logins.lock().unwrap();
        logins.push(Some(0));
        (logins.len() - 1, 0)
    }

    /// The next generation of a login.
    fn rotate(&self, (login, generation): (usize, usize)) -> Option<usize> {
        let valid = &mut self.logins.lock().unwrap()[login];
        *valid = valid.filter(|valid| *valid == generation).map(|valid| valid + 1);
        *valid
    }
}

fn token(kind: &str, (login, generation): (usize, usize)) -> String {
    format!("{kind}-{login}-{generation}")
}

fn numbers(token: &str) -> (usize, usize) {
    let mut parts = token.split('-').skip(1).map(|number| number.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

#[async_trait]
impl Provider for Fleet {
    async fn send(&self, request: &ProviderRequest) -> Result<ProviderReply, SendError> {
        let mut form = form_urlencoded::parse(&request.body);
        let presented = numbers(&form.find(|(name, _)| name == "refresh_token").unwrap().1);
        let Some(generation) = self.rotate(presented) else { return Ok(dead()) };
        let [access, refresh] = ["access", "refresh"].map(|kind| token(kind, (presented.0, generation)));
        let body = format!(r#"{{"access_token":"{access}","expires_in":3600,"refresh_token":"{refresh}"}}"#);
        Ok(reply(200, &body))
    }

    fn read(&self, token: &str, reply: &ProviderReply) -> Meaning {
        oauth::read(token, reply)
    }

    fn aged(&self, reply: ProviderReply, passed: Duration) -> ProviderReply {
        oauth::aged(reply, passed)
    }

    fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>> {
        oauth::access_token(reply)
    }

    fn renewal(&self, request: &ProviderRequest, reply: &ProviderReply) -> Option<crate::relay::Renewal> {
        oauth::renewal(request, reply)
    }

    async fn revoke(&self, _: &ProviderRequest) -> Result<(bool, ProviderReply), SendError> {
        unreachable!("no device revokes")
    }
}

/// The relay's answer to a device: the generation of its new pair.
async fn refreshed(relay: &Relay, held: (usize, usize)) -> Option<usize> {
    let token = token("refresh", held);
    let body = format!("grant_type=refresh_token&refresh_token={token}").into_bytes();
    let request = ProviderRequest { body: Zeroizing::new(body), ..ProviderRequest::default() };
    match relay.exchange(Presented { request, ..presented(&token) }).await {
        RelayAnswer::Reply(reply, _) if reply.status == 200 => Some(numbers(&oauth::access_token(&reply).unwrap()).1),
        RelayAnswer::Reply(..) => None,
        other => panic!("{other:?}"),
    }
}

/// The refreshes, lost replies and lost logins of a week.
async fn week(devices: usize, seed: u64, with_relay: bool) -> [usize; 3] {
    let world = World::new();
    world.ended.2.accepts.store(true, Ordering::SeqCst);
    let provider = Arc::new(Fleet::default());
    let World { time, clock, store, ended, keyring, .. } = &world;
    let relay = Relay::new(RelayParts {
        endpoint: "/auth/token".to_owned(),
        settings: RelaySettings {
            sealer: Sealer::new(keyring, "/auth/token", "https://id.example/token"),
            rules: RelayRules::default(),
            provider: provider.clone(),
        },
        store: store.clone(),
        is_alone: true,
        counts_proofs: None,
        end_tokens: ended.clone(),
        clock: clock.clone(),
        limits: LIMITS.clone(),
        time: time.clone(),
    });
    let (relay, mut random) = (relay.unwrap(), Random::from_seed(seed));
    let mut held: Vec<_> = (0..devices).map(|_| provider.log_in()).collect();
    let mut next: BinaryHeap<_> = (0..devices).map(|device| Reverse((random.below(HOUR), device))).collect();
    let (mut now, mut counts) = (0, [0; 3]);
    while let Some(Reverse((at, device))) = next.pop().filter(|Reverse((at, _))| *at < WEEK) {
        time.advance(Duration::from_secs(at - now));
        now = at;
        if random.one_in(100) {
            relay.sweep().await.unwrap();
        }
        let answer = match with_relay {
            true => refreshed(&relay, held[device]).await,
            false => provider.rotate(held[device]),
        };
        counts[0] += 1;
        let wait = match answer {
            None => {
                counts[2] += 1;
                held[device] = provider.log_in();
                HOUR
            }
            Some(_) if random.one_in(20) => {
                counts[1] += 1;
                PAUSES[random.below(3) as usize]
            }
            Some(generation) => {
                held[device].1 = generation;
                relay.record_uses(&[token_digest(&token("access", held[device]))]).await.unwrap();
                HOUR
            }
        };
        next.push(Reverse((at + wait, device)));
    }
    counts
}

#[tokio::test]
async fn i71_a_week_of_lost_replies_costs_no_login_behind_the_relay() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (devices, seed) = (number("DEVICES", 20), number("DEVICES_SEED", 1));
    println!("| {devices} devices, seed {seed} | refreshes | lost replies | lost logins |\n|---|---|---|---|");
    for (name, with_relay) in [("without the relay", false), ("with the relay", true)] {
        let [refreshes, lost, logins] = week(devices as usize, seed, with_relay).await;
        println!("| {name} | {refreshes} | {lost} | {logins} |");
        assert!(lost > 0 && (logins == 0) == with_relay, "{name}: {logins} logins were lost");
    }
}
