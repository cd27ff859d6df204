//! Device-bound sessions at the real binary, with a device made by hand. The numbers of the attacks are those of the design.

use serde_json::json;
use support::device::{Device, challenge};
use support::stub::Edge;
use support::wire::Reply;

use super::browser::{EVIL, NAVIGATE, OWN, SAME_ORIGIN, config, cookie, credentials, post, post_json, state};

const BOUND: &str = "device_bound = \"optional\"\n";

/// A gate whose wall clock is ahead by the milliseconds in a file, from its start.
pub(crate) fn edge(keys: &str) -> Edge {
    let durable = config(keys, "").replace("[store]\nkind = \"memory\"\n", "");
    let files = |place: &support::Place| {
        std::fs::write(place.path("clock"), "0").unwrap();
        std::fs::create_dir(place.path("logs")).unwrap();
    };
    Edge::with(&format!("{durable}[audit_log]\noutput = \"logs/audit.log\"\n"), files, clocked)
}

fn clocked(command: &mut std::process::Command) {
    command.env("ROTOGATE_FAILPOINT", "wall-clock:clock");
}

/// The same gate after a stop of this many seconds.
pub(crate) fn later(edge: Edge, seconds: u64) -> Edge {
    let Edge { gate, stub, place } = edge;
    assert_eq!(gate.stop(), Some(0));
    std::fs::write(place.path("clock"), (seconds * 1000).to_string()).unwrap();
    Edge { gate: place.start_with(clocked), stub, place }
}

/// A browser with a session: its cookies, its device, and the challenge that it has.
struct Browser {
    session: String,
    device: Device,
    challenge: String,
    id: String,
    proof: Option<String>,
}

impl Browser {
    fn log_in(edge: &Edge) -> Self {
        let reply = post_json(edge, &[OWN], &credentials(edge));
        let asked = reply.header("secure-session-registration").to_owned();
        assert!(asked.starts_with("(ES256 RS256);path=\"/auth/device\";challenge=\""), "{asked}");
        let (session, challenge) = (cookie(&reply), challenge(&asked));
        Self { session, device: Device::default(), challenge, id: String::new(), proof: None }
    }

    fn ask(&self, edge: &Edge, more: &[&str]) -> Reply {
        let reply = post(edge, "/auth/device", &[&[OWN, SAME_ORIGIN, &*self.session], more].concat(), "");
        assert_eq!(reply.header("cache-control"), "no-store");
        reply
    }

    /// Takes what a good answer brings.
    fn take(&mut self, reply: &Reply) {
        assert_eq!(reply.status, 200, "{}", reply.text());
        let (pair, attributes) = reply.header("set-cookie").split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600");
        assert!(pair.starts_with("__Host-rg-d=rd1_"));
        self.proof = Some(format!("Cookie: {pair}"));
        self.challenge = challenge(reply.header("secure-session-challenge"));
    }

    fn register(&mut self, edge: &Edge) {
        let proof = self.device.registration(&self.challenge);
        let reply = self.ask(edge, &[&format!("Secure-Session-Response: {proof}")]);
        self.take(&reply);
        let said = reply.json();
        self.id = said["session_identifier"].as_str().unwrap().to_owned();
        let excluded = ["login", "callback", "logout", "device"];
        let excluded = excluded.map(|operation| json!({ "type": "exclude", "path": format!("/auth/{operation}") }));
        let attributes = "Path=/; Secure; HttpOnly; SameSite=Lax";
        assert_eq!(
            said,
            json!({
                "session_identifier": self.id, "refresh_url": "/auth/device",
                "scope": { "include_site": false, "scope_specification": excluded },
                "credentials": [{ "type": "cookie", "name": "__Host-rg-d", "attributes": attributes }],
            })
        );
    }

    fn refresh(&self, edge: &Edge, proof: Option<&str>) -> Reply {
        let mut lines = vec![format!("Sec-Secure-Session-Id: {}", self.id)];
        lines.extend(proof.map(|proof| format!("Secure-Session-Response: {proof}")));
        self.ask(edge, &lines.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn get(&self, edge: &Edge, path: &str, more: &[&str]) -> u16 {
        edge.ask(&format!("GET {path}"), &[&[self.session.as_str()], more].concat()).status
    }
}

#[test]
fn b47_b49_b56_a_device_is_bound_once_and_proved_by_its_key_alone() {
    let edge = edge(BOUND);
    let mut browser = Browser::log_in(&edge);
    assert_eq!(state(&edge, &browser.session)["device_bound"], false);
    let stolen = format!("Secure-Session-Response: {}", browser.device.registration(&browser.challenge));
    // Of another page, or without the session.
    let evil = post(&edge, "/auth/device", &[EVIL, &browser.session, &stolen], "");
    let bare = post(&edge, "/auth/device", &[OWN, &stolen], "");
    assert_eq!((evil.status, bare.status), (403, 401));
    edge.place.point_commands_at(&edge.gate);
    let shown = |edge: &Edge| {
        let listed = edge.place.json_lines(&["session", "list"]);
        listed.iter().map(|session| session["device_bound"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&edge), [json!(false)]);
    browser.register(&edge);
    assert_eq!(state(&edge, &browser.session)["device_bound"], true);
    edge.login();
    assert_eq!(shown(&edge), [json!(true), json!(null)], "an operator sees it, and what is no browser has none");
    // Attack 41.
    let thief = Device::default();
    let again = format!("Secure-Session-Response: {}", thief.registration(&browser.challenge));
    let refused = browser.ask(&edge, &[&again]);
    assert_eq!((refused.status, refused.all("set-cookie").len()), (403, 0));
    assert_eq!(refused.json()["error"], "device_refused");
    // Attack 42.
    let jti = browser.challenge.clone();
    let hs256 = thief.sign(&json!({ "alg": "HS256", "typ": "dbsc+jwt" }), &json!({ "jti": jti }));
    let none = format!("{}.", hs256.replace("HS256", "none").rsplit_once('.').unwrap().0);
    for bad in [None, Some(&*thief.proof(&jti)), Some(&browser.device.registration(&jti)), Some(&hs256), Some(&none)] {
        let reply = browser.refresh(&edge, bad);
        assert_eq!((reply.status, reply.all("set-cookie").len()), (403, 0), "{bad:?}");
        assert!(!challenge(reply.header("secure-session-challenge")).is_empty());
    }
    let proof = browser.device.proof(&jti);
    let reply = browser.refresh(&edge, Some(&proof));
    assert_eq!(reply.text(), "");
    browser.take(&reply);
    assert_eq!(browser.refresh(&edge, Some(&proof)).status, 403, "replayed");
    // Another session's: no cookie of this one goes.
    let other = Browser::log_in(&edge);
    let reply = Browser { id: browser.id.clone(), ..other }.refresh(&edge, None);
    assert_eq!((reply.status, reply.all("set-cookie").len()), (200, 0));
    assert_eq!(reply.json(), json!({ "session_identifier": browser.id, "continue": false }));
    // It is over: the browser ends its binding.
    assert_eq!(post(&edge, "/auth/logout", &[OWN, &browser.session], "").status, 200, "a logout needs no device");
    assert_eq!(browser.refresh(&edge, None).json()["continue"], false);
    for (result, count) in [("registered", 1), ("refreshed", 1), ("refused", 8), ("over", 2), ("unavailable", 0)] {
        assert_eq!(edge.series(&format!("rotogate_browser_device_total{{result=\"{result}\"}}")), count, "{result}");
    }
    let Edge { gate, place, .. } = edge;
    assert_eq!(gate.stop(), Some(0));
    let lines = super::audit_schema::lines(&place.path("logs/audit.log"));
    let bound: Vec<_> = lines.iter().filter(|line| line["event.action"] == "browser.bound").collect();
    assert_eq!((bound.len(), &bound[0]["session.id"]), (1, &json!(browser.id)));
    assert!(lines.iter().all(|line| !line.to_string().contains("rd1_")));
}

#[test]
fn b48_b50_a_stolen_session_cookie_of_a_bound_session_passes_nowhere() {
    let first = edge(BOUND);
    let mut browser = Browser::log_in(&first);
    let plain = Browser::log_in(&first);
    browser.register(&first);
    assert_eq!(browser.get(&first, "/app", &[]), 200, "requests under way");
    let edge = later(first, 61);
    edge.stub.take();
    let upgrade = [
        "Connection: upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    // Attack 40, and 43: what the browser says of its reasons grants nothing.
    for skipped in [&[][..], &["Secure-Session-Skipped: unreachable"]] {
        assert_eq!(browser.get(&edge, "/app", skipped), 401);
        assert_eq!(browser.get(&edge, "/api/x", skipped), 401);
        assert_eq!(browser.get(&edge, "/app/ws", &[&upgrade[..], &[OWN], skipped].concat()), 401);
        assert_eq!(browser.get(&edge, "/app", &[&NAVIGATE[..], skipped].concat()), 303);
    }
    assert_eq!(edge.series("rotogate_browser_device_total{result=\"skipped\"}"), 4);
    assert!(edge.stub.take().is_empty(), "nothing reached the upstream");
    assert_eq!(state(&edge, &browser.session)["authenticated"], false);
    assert_eq!(browser.get(&edge, "/open/x", &[]), 200);
    assert!(edge.stub.one().all("x-auth-subject").is_empty(), "nobody");
    // The browser itself is still served with its cookie: 10 minutes are not over.
    let proof = browser.proof.clone().unwrap();
    assert_eq!(browser.get(&edge, "/app", &[&proof]), 200);
    assert!(!format!("{:?}", edge.stub.one()).contains("rd1_"), "the upstream sees it");
    assert_eq!(state(&edge, &format!("{}; {}", browser.session, &proof["Cookie: ".len()..]))["device_bound"], true);
    // A challenge of before the start is answered by another one.
    let reply = browser.refresh(&edge, Some(&browser.device.proof(&browser.challenge)));
    assert_eq!(reply.status, 403);
    let next = challenge(reply.header("secure-session-challenge"));
    browser.take(&browser.refresh(&edge, Some(&browser.device.proof(&next))));
    // B51: a browser without devices has lost nothing.
    assert_eq!(plain.get(&edge, "/app", &[]), 200);
    let edge = later(edge, 61 + 700);
    assert_eq!(browser.get(&edge, "/app", &[browser.proof.as_ref().unwrap()]), 401, "11 minutes later");
    assert_eq!(plain.get(&edge, "/app", &[]), 200);
}

#[test]
fn b51_only_where_a_device_is_required_a_session_without_one_ends_after_a_minute() {
    let off = edge("");
    let reply = post_json(&off, &[OWN], &credentials(&off));
    assert!(reply.all("secure-session-registration").is_empty());
    assert_eq!(post(&off, "/auth/device", &[OWN, &cookie(&reply)], "").status, 200);
    assert_eq!(off.stub.one().target, "/auth/device", "a route serves it, and no endpoint");
    let required = edge("device_bound = \"required\"\n");
    let browser = Browser::log_in(&required);
    assert_eq!(browser.get(&required, "/app", &[]), 200);
    let required = later(required, 61);
    assert_eq!(browser.get(&required, "/app", &[]), 401);
    // A session can be bound within five minutes of its login.
    let mut browser = browser;
    browser.register(&required);
    assert_eq!(browser.get(&required, "/app", &[]), 200);
}
