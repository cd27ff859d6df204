//! Every section and every kind of a section, in a build with any features: the configuration has what was written, or
//! the error names the feature that the build lacks, and the command that builds the program with the feature.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::super::print::Print;
use super::{MINIMAL, read};
use crate::Config;

/// A part of a configuration, without defaults.
struct Part {
    text: &'static str,
    /// The key that needs a feature, and the feature.
    needs: Option<(&'static str, &'static str)>,
}

const fn part(text: &'static str) -> Part {
    Part { text, needs: None }
}

const fn with_feature(text: &'static str, key: &'static str, feature: &'static str) -> Part {
    Part { text, needs: Some((key, feature)) }
}

const PARTS: &[Part] = &[
    part("server.hosts = [\"api.example.com\"]"),
    part("admin.hosts = [\"admin.example.com\"]"),
    part("issuer.algorithm = \"ES256\""),
    part("sessions.access_ttl = \"7m\""),
    part("limits.max_password_checks = 3"),
    part("cors.origins = [\"https://app.example.com\"]"),
    part("dpop.nonce = \"required\""),
    part(
        "api_keys.prefix = \"acme\"\nupstreams = [{ name = \"app\", urls = [\"echo:\"] }]\n\
         routes = [{ path = \"/orders/{*rest}\", upstream = \"app\", credentials = [\"token\", \"key\"] }]",
    ),
    part("identity.headers.subject = \"x-user\""),
    part("identity.assertion = { header = \"x-assertion\" }"),
    part("resources = [{ path = \"/mcp\", name = \"Tools\" }]"),
    part("log.level = \"warn\""),
    part("access_log.sample = 0.5"),
    part("audit_log.addresses = \"prefix\""),
    with_feature("tracing.endpoint = \"http://localhost:4318/v1/traces\"", "tracing", "otel"),
    // Other issuers, and what depends on them.
    part(
        "issuers = [{ name = \"kc\", url = \"https://kc.example.com\", audience = [\"api\"], discovery = true, \
         backchannel_logout = { path = \"/logout/kc\", audience = [\"api\"] }, \
         introspection = { url = \"https://kc.example.com/i\", client_id = \"gate\", secret_file = \"/s\" } }]",
    ),
    part(
        "issuers = [{ name = \"kc\", url = \"https://kc.example.com\", audience = [\"api\"], discovery = true }]\n\
         providers = [{ name = \"kc\", issuer = \"kc\", token_url = \"https://kc.example.com/token\", \
         client = { id = \"gate\", secret_file = \"/s\" } }]\n\
         upstreams = [{ name = \"app\", urls = [\"http://127.0.0.1:9000\"], exchange = { provider = \"kc\" } }]\n\
         routes = [{ path = \"/{*rest}\", upstream = \"app\", issuers = [\"kc\"] }]",
    ),
    // The kinds of an authorizer, a client and an endpoint.
    part(
        "authorizers = [{ kind = \"nginx\", listen = \"127.0.0.1:8090\", \
         trusted_proxies = [\"127.0.0.1/32\"] }]",
    ),
    part("authorizers = [{ kind = \"traefik\", listen = \"127.0.0.1:8091\", trusted_proxies = [\"127.0.0.1/32\"] }]"),
    part("authorizers = [{ kind = \"caddy\", listen = \"127.0.0.1:8091\", trusted_proxies = [\"127.0.0.1/32\"] }]"),
    part("authorizers = [{ kind = \"haproxy\", listen = \"127.0.0.1:8091\", trusted_proxies = [\"127.0.0.1/32\"] }]"),
    part("authorizers = [{ kind = \"envoy\", listen = \"127.0.0.1:8091\", trusted_proxies = [\"127.0.0.1/32\"] }]"),
    part("authorizers = [{ kind = \"ext-authz\", listen = \"127.0.0.1:8091\", trusted_proxies = [\"127.0.0.1/32\"] }]"),
    part("clients = [{ id = \"web\" }]"),
    part("endpoints = [{ dialect = \"oauth2\", path = \"/token\" }]"),
    part("endpoints = [{ dialect = \"envelope\", path = \"/login\", failure_status = 200 }]"),
    part("endpoints = [{ dialect = \"kuzzle\", path = \"/kuzzle\" }]"),
    part("endpoints = [{ dialect = \"knox\" }]"),
    part("endpoints = [{ dialect = \"browser\", path = \"/session\" }]"),
    part("endpoints = [{ dialect = \"my-sessions\", path = \"/sessions\" }]"),
    part("api_keys = {}\nendpoints = [{ dialect = \"my-keys\", path = \"/keys\" }]"),
    part("endpoints = [{ dialect = \"relay\", path = \"/relay\", token_url = \"https://kc.example.com/token\" }]"),
    part("endpoints = [{ dialect = \"relay\", wire = \"knox\", token_url = \"https://kc.example.com/\" }]"),
    // The kinds of a store and of a directory.
    part("store.kind = \"memory\""),
    part("store = { kind = \"redb\", path = \"/var/lib/x.redb\" }"),
    with_feature("store = { kind = \"redis\", urls = [\"redis://127.0.0.1:7000\"] }", "store.kind", "redis"),
    with_feature("store = { kind = \"postgres\", url = \"postgres://gate@127.0.0.1/x\" }", "store.kind", "postgres"),
    part("directory.kind = \"none\""),
    part("directory = { kind = \"file\", path = \"/var/lib/u.toml\" }"),
    part("directory = { kind = \"http\", url = \"http://127.0.0.1:1/x\" }"),
    with_feature(
        "directory = { kind = \"ldap\", url = [\"ldaps://l.example\"], base = \"dc=x\", filter = \"(uid={username})\", \
         groups = { attribute = \"memberOf\" } }",
        "directory.kind",
        "ldap",
    ),
    with_feature(
        "directory = { kind = \"sql\", url = \"sqlite:/u.db\", lookup = \"SELECT a AS subject FROM u WHERE a = {subject}\", \
         authenticate = \"SELECT a AS subject, b AS password_hash FROM u WHERE c = {username}\" }",
        "directory.kind",
        "sql",
    ),
    part(
        "directories = [{ name = \"a\", kind = \"file\", path = \"/a.toml\", accounts = [\"a\"] }, \
         { name = \"b\", kind = \"http\", url = \"http://127.0.0.1:1/x\" }]",
    ),
];

/// Whether this build has a feature.
fn has(feature: &str) -> bool {
    match feature {
        "ldap" => cfg!(feature = "ldap"),
        "otel" => cfg!(feature = "otel"),
        "postgres" => cfg!(feature = "postgres"),
        "redis" => cfg!(feature = "redis"),
        "sql" => cfg!(feature = "sql"),
        other => panic!("no part of the configuration needs the feature {other}"),
    }
}

/// The smallest configuration, with a part.
fn with(part: &Table) -> String {
    let mut all: Table = MINIMAL.parse().unwrap();
    for (name, section) in part {
        match (all.get_mut(name).and_then(Value::as_table_mut), section) {
            (Some(there), Value::Table(more)) => there.extend(more.clone()),
            _ => drop(all.insert(name.clone(), section.clone())),
        }
    }
    all.to_string()
}

/// Whether a printed configuration has each key and each entry that was written.
fn contains(printed: &Value, written: &Value) -> bool {
    match (printed, written) {
        (Value::Table(printed), Value::Table(written)) => {
            written.iter().all(|(key, value)| printed.get(key).is_some_and(|printed| contains(printed, value)))
        }
        (Value::Array(printed), Value::Array(written)) => {
            written.iter().all(|value| printed.iter().any(|printed| contains(printed, value)))
        }
        _ => printed == written,
    }
}

/// The words that a key accepts, from the message for another word.
fn words_of(text: &str, key: &str) -> Vec<String> {
    let errors = read(&with(&text.parse().unwrap())).unwrap_err();
    let error = errors.iter().find(|error| error.key == key).unwrap_or_else(|| panic!("{text}: {errors}"));
    let (_, expected) = error.message.split_once("expected ").unwrap_or_else(|| panic!("{errors}"));
    let (expected, _) = expected.split_once(", found").unwrap_or_else(|| panic!("{errors}"));
    expected.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn c36_each_section_and_kind_takes_effect_or_names_the_feature_that_the_build_lacks() {
    for Part { text, needs } in PARTS {
        let written: Table = text.parse().unwrap();
        let found = read(&with(&written));
        if let Some((key, feature)) = needs.filter(|(_, feature)| !has(feature)) {
            let errors = found.map(|config| config.to_toml()).expect_err(text);
            let error = errors.iter().find(|error| error.key == key).unwrap_or_else(|| panic!("{text}: {errors}"));
            let command = format!("`cargo install --path crates/server --features {feature}`");
            for expected in [format!("needs the feature {feature}"), command] {
                assert!(error.message.contains(&expected), "{text}: {errors}");
            }
            continue;
        }
        let config = found.unwrap_or_else(|errors| panic!("{text}: {errors}"));
        let printed = config.to_toml().parse::<Table>().unwrap();
        let without = read(MINIMAL).unwrap().to_toml().parse::<Table>().unwrap();
        let written = Value::Table(written);
        assert!(contains(&Value::Table(printed.clone()), &written), "{text}\n{}", config.to_toml());
        assert!(!contains(&Value::Table(without), &written), "{text}: has no effect, because these are defaults");
    }
}

#[test]
fn c36_no_section_kind_or_feature_is_left_out_above() {
    let parts: Vec<Table> = PARTS.iter().map(|part| part.text.parse().unwrap()).collect();
    let sections: BTreeSet<_> = parts.iter().flat_map(Table::keys).map(String::as_str).collect();
    for key in Config::KEYS.iter().filter(|key| key.class != "no_key") {
        let names: &[&str] = match key.name {
            "-" if key.type_name.contains("Route") => &["routes"],
            "-" => &["directory", "directories"],
            _ => &[key.name],
        };
        assert!(names.iter().all(|name| sections.contains(name)), "{names:?} is in no part");
    }
    for (kind, text, key) in [
        (("store", "kind"), "store.kind = \"?\"", "store.kind"),
        (("directory", "kind"), "directory.kind = \"?\"", "directory.kind"),
        (("authorizers", "kind"), "authorizers = [{ kind = \"?\" }]", "authorizers[0].kind"),
        (("endpoints", "dialect"), "endpoints = [{ dialect = \"?\" }]", "endpoints[0].dialect"),
    ] {
        let of = |section: &Value| match section {
            Value::Array(entries) => entries[0].get(kind.1).cloned(),
            one => one.get(kind.1).cloned(),
        };
        let used: Vec<Value> = parts.iter().filter_map(|part| of(part.get(kind.0)?)).collect();
        let known = words_of(text, key);
        assert!(!known.is_empty(), "{text}");
        for word in known {
            assert!(
                used.iter().any(|used| used.as_str() == Some(&word)),
                "{}.{} = \"{word}\" is in no part",
                kind.0,
                kind.1
            );
        }
    }
    let manifest: Table = include_str!("../../Cargo.toml").parse().unwrap();
    let declared: BTreeSet<_> = manifest["features"].as_table().unwrap().keys().map(String::as_str).collect();
    let needed: BTreeSet<_> = PARTS.iter().filter_map(|part| Some(part.needs?.1)).collect();
    assert_eq!(declared, needed);
}
