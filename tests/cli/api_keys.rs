//! API keys by command and by API, at the real binary with the embedded store.

use http::{Method, Request, StatusCode};
use http_body_util::Full;

use support::pki::write_private;
use support::{CONFIG, Gate, Place, keep_secret, send, with};

#[tokio::test]
async fn k2_k4_k8_k11_a_key_is_made_once_used_revoked_and_stays_so_after_a_crash() {
    let route = "path = \"/{*rest}\"\nupstream = \"app\"\n";
    let config = CONFIG.replacen(route, &format!("{route}credentials = [\"token\", \"key\"]\n"), 1);
    let config = with(&config, "api_keys", "prefix = \"acme\"\n");
    let place = Place::new(&config);
    let mut gate = place.start();
    place.point_commands_at(&gate);
    let make = |name: &str| {
        let made = place.json(&["api-key", "create", name, "--user", "demo", "--lifetime", "30d"], "");
        let text = made["key"].as_str().unwrap().to_owned();
        keep_secret(&text);
        (text, made["id"].as_str().unwrap().to_owned())
    };
    let ((key, id), (other, _)) = (make("nightly"), make("weekly"));
    let status =
        async |gate: &Gate, key: &str| gate.call(Method::GET, "/hello", &[("x-api-key", key)], "").await.status;
    assert_eq!(status(&gate, &key).await, StatusCode::OK);
    assert_eq!(status(&gate, &key[..key.len() - 1]).await, StatusCode::UNAUTHORIZED);
    // In a path, where it does not belong.
    gate.call(Method::GET, &format!("/public/{key}/x"), &[], "").await;
    let explained = place.run(&["explain", "--path", &format!("/public/{key}/x?y")], "").stdout;
    assert!(explained.contains("/public/acme_k1_") && !explained.contains(&key), "{explained}");
    gate.admin(Method::GET, &format!("/v1/{key}"), None).await;
    let listed = place.json_lines(&["api-key", "list"]);
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|key| key["status"] == "live" && key.get("key").is_none()), "{listed:?}");
    // K8: answers have `no-store`, and a report of leaked keys needs a token.
    let token = std::fs::read_to_string(place.path("data/admin.token")).unwrap();
    let answer = gate.admin(Method::GET, "/v1/api-keys", Some(token.trim())).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(gate.admin(Method::POST, "/v1/api-keys/leaked", None).await.status, StatusCode::UNAUTHORIZED);
    let backup = place.path("backup.redb");
    place.done(&["store", "backup", backup.to_str().unwrap()], "");
    let rotated = place.json(&["api-key", "rotate", &id, "--overlap", "1h"], "");
    keep_secret(rotated["key"].as_str().unwrap());
    let successor = rotated["id"].as_str().unwrap();
    assert_eq!(place.json(&["api-key", "revoke", successor], "")["id"], successor);
    place.done(&["api-key", "revoke", &id], "");
    let log = gate.log();
    gate.kill();
    let gate = place.start();
    assert_eq!((status(&gate, &key).await, status(&gate, &other).await), (StatusCode::UNAUTHORIZED, StatusCode::OK));
    let log = log + &gate.log();
    assert!(
        !log.contains(&key) && log.contains("api_key.create") && log.contains("request explained"),
        "the log names a key by its id"
    );
    assert_eq!(place.json(&["api-key", "leaked"], &format!("junk\n{other}\n"))["revoked"], 1);
    assert_eq!(status(&gate, &other).await, StatusCode::UNAUTHORIZED);
    // K11.
    assert_eq!(gate.stop(), Some(0));
    let restore = [&["store", "restore", backup.to_str().unwrap()][..], &["--end-all"]];
    let restored = place.done(restore[0], "").stdout;
    let [keys, number] = [
        "Sessions, tokens and API keys that were revoked after the back-up are valid again",
        "2 API keys are valid, even if they were revoked after the back-up",
    ];
    assert!(restored.contains(keys) && restored.contains(number), "{restored}");
    let gate = place.start();
    assert_eq!((status(&gate, &key).await, status(&gate, &other).await), (StatusCode::OK, StatusCode::OK));
    assert_eq!(gate.stop(), Some(0));
    // Both may run within a second, by which the former store is named.
    for kept in std::fs::read_dir(place.path("data")).unwrap().map(|entry| entry.unwrap().path()) {
        if kept.to_str().unwrap().contains(".replaced-") {
            std::fs::remove_file(kept).unwrap();
        }
    }
    let restored = place.done(&restore.concat(), "").stdout;
    assert!(
        restored.contains("2 API keys ended") && restored.contains("Every session, token and API key so far has ended"),
        "{restored}"
    );
    let gate = place.start();
    assert_eq!(
        (status(&gate, &key).await, status(&gate, &other).await),
        (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED)
    );
}

/// A gate with an API key of its first refresh secret, and another secret that is current.
async fn rolled() -> (Place, Gate) {
    let place = Place::new(&with(CONFIG, "api_keys", "prefix = \"acme\"\n"));
    let gate = place.start();
    gate.login().await;
    place.point_commands_at(&gate);
    keep_secret(place.json(&["api-key", "create", "nightly", "--user", "demo"], "")["key"].as_str().unwrap());
    assert!(place.done(&["keys", "rotate", "--refresh"], "").stdout.contains("refresh-2 is now used for new tokens"));
    (place, gate)
}

/// What needs the first secret: the reasons to refuse.
const LEFT: [&str; 2] = [
    "clients may present refresh tokens that were created with it",
    "1 API key depends on it, because it was not used since another secret became current: use, rotate or revoke it",
];
const RETIRE: [&str; 3] = ["keys", "retire", "refresh-1"];

fn says_all(said: &str) {
    assert!(LEFT.iter().all(|text| said.contains(text)), "{said}");
}

fn is_gone(place: &Place) -> bool {
    let listed = place.json_lines(&["keys", "list", "--refresh"]);
    listed.iter().all(|key| key["kid"] != "refresh-1")
}

#[tokio::test]
async fn c28_k4_the_running_gate_says_what_needs_a_secret_that_is_retired() {
    let (place, gate) = rolled().await;
    says_all(&place.fails(&RETIRE, ""));
    let token = std::fs::read_to_string(place.path("data/admin.token")).unwrap();
    let retire = async |body: &'static str| {
        let request = Request::post(format!("http://{}/v1/keys/refresh-1/retire", gate.admin));
        let request = request.header("authorization", format!("Bearer {}", token.trim()));
        send(request.header("content-type", "application/json").body(Full::from(body)).unwrap()).await
    };
    let refused = retire("{}").await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    says_all(refused.json()["detail"].as_str().unwrap());
    assert!(!is_gone(&place));
    let forced = retire("{\"force\": true}").await;
    assert_eq!(forced.status, StatusCode::OK);
    let warning = forced.json()["warning"].as_str().unwrap().to_owned();
    says_all(&warning);
    assert!(warning.contains("warning: the key refresh-1 was still needed: for "), "{warning}");
    assert!(is_gone(&place));
}

#[tokio::test]
async fn c28_k4_the_command_has_the_running_gate_count_and_counts_itself_beside_none() {
    let (place, _gate) = rolled().await;
    let done = place.done(&[&RETIRE[..], &["--force"]].concat(), "").stdout;
    says_all(&done);
    assert!(is_gone(&place));
    let (place, gate) = rolled().await;
    assert_eq!(gate.stop(), Some(0));
    says_all(&place.fails(&RETIRE, ""));
    let done = place.json(&[&RETIRE[..], &["--force"]].concat(), "");
    assert_eq!(done["state"], "retired");
    says_all(done["warning"].as_str().unwrap());
    assert!(is_gone(&place));
}

#[tokio::test]
async fn c28_k4_a_gate_that_does_not_answer_hinders_no_forced_removal() {
    let (place, _gate) = rolled().await;
    write_private(&place.path("other.token"), "another-token-with-at-least-32-characters");
    let retire = [&RETIRE[..], &["--token-file", "other.token"]].concat();
    let said = place.fails(&retire, "");
    assert!(said.contains("is not one of its admin tokens"), "{said}");
    assert!(!is_gone(&place));
    let said = place.fails(&[&retire[..], &["--force"]].concat(), "");
    let unread = "API keys may depend on it, but the store cannot be read: ";
    assert!(said.contains(unread) && said.contains("the key folder was changed (refresh-1)"), "{said}");
    assert!(is_gone(&place));
}
