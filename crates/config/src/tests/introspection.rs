//! `introspection` of `[[issuers]]`.

use rotogate_core::http_client::SecretPlace;

use super::*;

fn issuer(name: &str, more: &str) -> String {
    format!(
        "[[issuers]]\nname = \"{name}\"\nurl = \"https://{name}.test/\"\naudience = \"x\"\nintrospection = {{ \
         url = \"https://{name}.test/introspect\", client_id = \"gate\", secret_file = \"idp.secret\"{more} }}\n"
    )
}

fn route(issuers: &str) -> String {
    format!(
        "[[upstreams]]\nname = \"app\"\nurls = [\"echo:\"]\n[[routes]]\npath = \"/x\"\nupstream = \"app\"\nissuers = \
         [{issuers}]\n"
    )
}

#[test]
fn i20_introspection_stands_instead_of_keys_or_beside_them_and_is_printed() {
    let text = format!("{MINIMAL}{}", issuer("idp", ""));
    let config = read(&text).unwrap();
    let found = config.issuers[0].introspection.clone().unwrap();
    assert_eq!(config.issuers[0].keys, KeySource::None);
    let expected = IntrospectionConfig {
        url: "https://idp.test/introspect".to_owned(),
        kind: IntrospectionKind::OAuth,
        client_id: "gate".to_owned(),
        key: None,
        secret_file: Some(PathBuf::from("/etc/rotogate/idp.secret")),
        secret_in: SecretPlace::Basic,
        cache: Duration::from_secs(30),
        negative: Duration::from_secs(5),
        stale_if_error: Duration::ZERO,
        timeout: Duration::from_secs(5),
        prefix: String::new(),
        always: false,
        audience_optional: false,
    };
    assert_eq!(found, expected);
    let more = ", cache = \"0s\", prefix = \"ory_at_\", always = true, audience_optional = true, secret_in = \"form\"";
    let fetch = "audience = \"x\"\nfetch = { ca = \"ca.pem\", client_cert = \"gate.pem\" }\n";
    let all = read(&format!("{MINIMAL}{}", issuer("idp", more).replace("audience = \"x\"\n", fetch))).unwrap();
    let files: Vec<_> = all.issuers[0].introspection_files().map(|(key, _)| key).collect();
    assert_eq!(files, ["introspection.secret_file", "fetch.ca", "fetch.client_cert"]);
    let found = all.issuers[0].introspection.clone().unwrap();
    assert_eq!(found.cache, Duration::ZERO);
    assert_eq!((&*found.prefix, found.always, found.audience_optional), ("ory_at_", true, true));
    assert_eq!(found.secret_in, SecretPlace::Form);
    for config in [config, all] {
        let printed = config.to_toml();
        assert_eq!(read(&printed).unwrap().issuers, config.issuers, "{printed}");
        assert!(printed.contains("idp.secret"), "the file's name is no secret");
    }
    let beside = issuer("idp", "").replace("audience = \"x\"\n", "audience = \"x\"\njwks_file = \"idp.json\"\n");
    assert!(matches!(read(&format!("{MINIMAL}{beside}")).unwrap().issuers[0].keys, KeySource::File(..)));
    let env = [("ROTOGATE_ISSUERS__0__INTROSPECTION__SECRET_FILE", "/run/secrets/idp")];
    let config = with_env(&text, &env).unwrap();
    assert_eq!(config.issuers[0].introspection.clone().unwrap().secret_file, Some(PathBuf::from("/run/secrets/idp")));
}

#[test]
fn i45_mistakes_of_introspection_are_reported() {
    for (more, expected) in [
        (", cache = \"10m\"", "issuers[0].introspection.cache: expected at most 5m"),
        (", cache = \"-1s\"", "issuers[0].introspection.cache: expected a duration"),
        (", prefix = \"a b\"", "issuers[0].introspection.prefix: expected at most 64 visible ASCII"),
        (", prefix = \"\"", "issuers[0].introspection.prefix: expected a string"),
        (", always = \"yes\"", "issuers[0].introspection.always: expected true or false"),
        (", chache = \"1s\"", "did you mean cache?"),
    ] {
        let found = said(&issuer("idp", more));
        assert!(found.len() == 1 && found[0].contains(expected), "{more}: {found:?}");
    }
    let with = |from: &str, to: &str| said(&issuer("idp", "").replace(from, to));
    for (url, expected) in [
        ("http://idp.test/introspect", "expected https"),
        ("https://u:p@idp.test/introspect", "without user"),
        ("https://169.254.169.254/introspect", "must not lead to this address"),
        ("idp.test/introspect", "expected a URL"),
    ] {
        let found = with("https://idp.test/introspect", url);
        assert!(found.len() == 1 && found[0].contains(expected), "{url}: {found:?}");
        assert!(found[0].contains("issuers[0].introspection.url"), "{found:?}");
    }
    assert_eq!(with("https://idp.test/introspect", "http://127.0.0.1:4445/introspect"), Vec::<String>::new());
    for key in ["client_id = \"gate\", ", ", secret_file = \"idp.secret\""] {
        let found = with(key, "");
        assert!(found.len() == 1 && found[0].contains("missing"), "{found:?}");
    }
    let found = with("audience = \"x\"\n", "audience = \"x\"\nalgorithm = \"RS256\"\n");
    assert!(found.len() == 1 && found[0].contains("issuers[0].algorithm: has no effect"), "{found:?}");
    let found = with("audience = \"x\"\n", "audience = \"x\"\nfetch = { ca = \"ca.pem\", stale_for = \"2d\" }\n");
    assert!(
        found.len() == 1
            && found[0].contains("issuers[0].fetch.stale_for: only applies to signing keys that are fetched"),
        "{found:?}"
    );
    let found = said("[[issuers]]\nurl = \"https://idp.test/\"\naudience = \"x\"\n");
    assert!(found.len() == 1 && found[0].contains("for opaque tokens, `introspection`"), "{found:?}");
}

#[test]
fn i20_i45_a_route_takes_opaque_tokens_of_one_issuer_unless_prefixes_part_them() {
    let both = |a: &str, b: &str| format!("{}{}", issuer("a", a), issuer("b", b));
    let on = |issuers: &str, named: &str| said(&format!("{issuers}{}", route(named)));
    let found = on(&both("", ""), "\"a\", \"b\"");
    assert!(
        found.len() == 1
            && found[0].contains("routes[0].issuers: accepts opaque tokens of \"a\" and of \"b\", both without"),
        "{found:?}"
    );
    let found = on(&both(", prefix = \"x_\"", ", prefix = \"x_\""), "\"a\", \"b\"");
    assert!(found.len() == 1 && found[0].contains("both with the prefix \"x_\""), "{found:?}");
    for (a, b) in [(", prefix = \"x_\"", ", prefix = \"y_\""), (", prefix = \"x_\"", "")] {
        assert_eq!(on(&both(a, b), "\"self\", \"a\", \"b\""), Vec::<String>::new());
    }
    // Two routes, each with its own issuer.
    let second = "[[routes]]\npath = \"/y\"\nupstream = \"app\"\nissuers = [\"b\"]\n";
    assert_eq!(said(&format!("{}{}{second}", both("", ""), route("\"a\""))), Vec::<String>::new());
}

const KUZZLE: &str = r#"
[[upstreams]]
name = "kuzzle"
urls = ["http://127.0.0.1:7512"]
[[issuers]]
name = "kuzzle"
url = "http://127.0.0.1:7512"
introspection = { url = "http://127.0.0.1:7512/_checkToken" }
[[endpoints]]
dialect = "relay"
wire = "kuzzle"
token_url = "http://127.0.0.1:7512/_query"
issuer = "kuzzle"
[[routes]]
path = "/{*rest}"
auth = "optional"
issuers = ["kuzzle"]
dialect = "kuzzle"
forward_token = true
upgrade = true
upstream = "kuzzle"
"#;

#[test]
fn i77_a_kuzzle_server_needs_no_client_and_no_audience() {
    let config = read(&format!("{MINIMAL}{KUZZLE}")).unwrap();
    let issuer = &config.issuers[0];
    let own = issuer.introspection.as_ref().unwrap();
    assert!(issuer.is_kuzzle());
    assert_eq!(
        (own.prefix(), own.cache, &*issuer.audience),
        ("ka", Duration::from_secs(10), &["kuzzle".to_owned()][..])
    );
    assert_eq!(config.endpoints[0].path, "/");
    assert_eq!(config.relay_routes(), [("/", vec!["/{*rest}"])]);
    let printed = config.to_toml();
    let again = read(&printed).unwrap();
    assert_eq!((&again.issuers, &again.endpoints), (&config.issuers, &config.endpoints), "{printed}");
}

#[test]
fn i77_mistakes_of_a_relay_in_front_of_a_kuzzle_server_are_reported() {
    let keys = "url = \"http://127.0.0.1:7512/_checkToken\" }";
    for (from, to, expected) in [
        ("issuer = \"kuzzle\"\n", "", "endpoints[0].issuer: missing"),
        (
            "_checkToken\"",
            "introspect\", client_id = \"g\", secret_file = \"s\"",
            "endpoints[0].issuer: \"kuzzle\" does not check",
        ),
        (
            "7512/_query",
            "7512/_refreshToken",
            "endpoints[0].token_url: expected the URL of the Kuzzle server's `/_query`",
        ),
        (keys, &keys.replace(" }", ", cache = \"11s\" }"), "issuers[0].introspection.cache: expected at most 10s"),
        (keys, &keys.replace(" }", ", prefix = \"kauth-\" }"), "issuers[0].introspection.prefix: does not apply"),
        (keys, &keys.replace(" }", ", always = true }"), "issuers[0].introspection.always: does not apply"),
        (keys, &keys.replace(" }", ", client_id = \"g\" }"), "client_id: unknown key"),
        (keys, &keys.replace(" }", ", secret_in = \"form\" }"), "issuers[0].introspection.secret_in: does not apply"),
        (
            "issuer = \"kuzzle\"\n",
            "issuer = \"kuzzle\"\ngrants = [\"password\"]\n",
            "grants: this protocol supports only \"refresh_token\", found",
        ),
    ] {
        let found = said(&KUZZLE.replacen(from, to, 1));
        assert!(found.iter().any(|message| message.contains(expected)), "{to}: {found:?}");
    }
    let beside = format!("[[endpoints]]\ndialect = \"kuzzle\"\npath = \"/own\"\n{KUZZLE}");
    let found = said(&beside);
    assert!(found.iter().any(|message| message.contains("is the second endpoint for Kuzzle")), "{found:?}");
}
