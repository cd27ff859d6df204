//! The behaviour of a reload for the keys of a configuration.

use std::path::Path;

use super::DeclaredKeys;
use crate::{Config, parse};

fn read(more: &str) -> Config {
    let text = format!(
        r#"
        {more}
        [[endpoints]]
        dialect = "oauth2"
        [[upstreams]]
        name = "app"
        urls = ["http://127.0.0.1:9000"]
        [[routes]]
        path = "/{{*rest}}"
        upstream = "app"
        "#
    );
    parse(&text, Path::new("/etc/rotogate/gateway.toml"), &()).unwrap()
}

const BEFORE: &str = r#"server = { public_url = "https://api.example.com" }
    issuer = { audience = ["api"] }
    clients = [{ id = "web" }]
"#;
const AFTER: &str = r#"
    server = { public_url = "https://other.example.com", listen = "127.0.0.1:9", workers = 3, watch = true, max_head = 9000 }
    issuer = { audience = ["other"] }
    clients = [{ id = "app" }]
    admin = { hosts = ["gate.internal"] }
    directory = { path = "other.toml" }
    limits = { verified_cache = "2MiB", login_per_address = "2/1m" }
    dpop = {}
    store = { kind = "memory" }
    cors = { origins = ["https://app.example.com"] }
"#;

/// The grammar of `section!` requires a class for each key, so a new key does not compile until its class is decided.
#[test]
fn p6_a_reload_applies_the_keys_of_its_class_and_keeps_the_others() {
    let (old, new) = (read(BEFORE), read(AFTER));
    let mut now = new.clone();
    let kept = now.keep(&old);
    let expected = [
        "server.listen",
        "server.workers",
        "server.watch",
        "admin",
        "issuer",
        "store",
        "directories",
        "limits.verified_cache",
        "dpop",
    ];
    assert_eq!(kept, expected);
    assert_eq!(now.changed(&old), ["server", "limits", "cors", "clients"]);
    assert_eq!((now.server.workers, &now.server.listeners), (old.server.workers, &old.server.listeners));
    assert_eq!((&now.server.public_url, now.server.max_head), (&new.server.public_url, 9000));
    assert_eq!((&now.admin, &now.issuer, &now.store), (&old.admin, &old.issuer, &old.store));
    assert_eq!((&now.directories, &now.dpop), (&old.directories, &old.dpop));
    assert_eq!(now.limits.verified_cache, old.limits.verified_cache);
    assert_eq!(now.limits.rates, new.limits.rates);
    assert_eq!((&now.cors, &now.clients), (&new.cors, &new.clients));
}

/// A reload keeps the socket of a listener, but applies its certificates and its bound.
#[test]
fn p6_a_listener_is_kept_for_its_socket_alone() {
    let server = |more: &str| {
        let server = format!(r#"server = {{ public_url = "https://api.example.com", {more} }}"#);
        read(&format!("{server}\n{}", BEFORE.split_once('\n').unwrap().1))
    };
    let old = server(r#"max_connections_per_address = 5, tls = { cert = "old.pem", key = "old.key" }"#);
    let new = server(r#"max_connections_per_address = 6, tls = { cert = "new.pem", key = "new.key" }"#);
    let mut now = new.clone();
    assert!(now.keep(&old).is_empty());
    assert_eq!(now.server.listeners, new.server.listeners);

    let mut now = server("max_connections_per_address = 6");
    assert_eq!(now.keep(&old), ["server.listen"], "without TLS");
    assert_eq!(now.server.listeners, old.server.listeners);
}
