//! API keys by command and by API, at the real binary with the embedded store.

use http::{Method, StatusCode};

use support::{CONFIG, Place, keep_secret, with};

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
    let status = async |gate: &support::Gate, key: &str| {
        gate.call(Method::GET, "/hello", &[("x-api-key", key)], "").await.status
    };
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
    let restored = place.done(&["store", "restore", backup.to_str().unwrap(), "--end-all"], "").stdout;
    assert!(restored.contains("2 API keys ended"), "{restored}");
    let gate = place.start();
    assert_eq!(
        (status(&gate, &key).await, status(&gate, &other).await),
        (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED)
    );
}
