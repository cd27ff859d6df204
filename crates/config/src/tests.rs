use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use rotogate_core::session::profile::Profile;

use crate::logs::{LogFormat, LogOutput};

mod authorizers;
mod browser;
mod claims;
mod conditions;
mod exchange;
mod features;
mod introspection;
mod isolation;
mod memory;
mod pages;
mod rate;
pub(crate) mod reference;
#[cfg(feature = "otel")]
mod tracing;

/// The configuration that `cargo run` serves.
const FIRST: &str = include_str!("../../../gateway.toml");
const MINIMAL: &str = "[server]\npublic_url = \"http://127.0.0.1:8080\"\n[issuer]\naudience = [\"api\"]\n";

fn read(text: &str) -> Result<Config, ConfigErrors> {
    parse(text, Path::new("/etc/rotogate/gateway.toml"), &())
}

/// The problems of `text` appended to the minimal configuration, without the file's name.
fn said(text: &str) -> Vec<String> {
    let lines = MINIMAL.lines().count();
    let Err(errors) = read(&format!("{MINIMAL}{text}")) else { return Vec::new() };
    let one = |e: &ConfigError| {
        let line = e.position.map_or(0, |(line, _)| line);
        format!("{}: {}: {}", line.saturating_sub(lines), e.key, e.message)
    };
    errors.iter().map(one).collect()
}

fn with_env(text: &str, vars: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let env: BTreeMap<String, String> = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    parse(text, Path::new("gateway.toml"), &env)
}

#[test]
fn a_gate_without_users_needs_no_audience_and_reads_again_what_it_prints() {
    let none = "[server]\npublic_url = \"https://api.example.com/\"\n[directory]\nkind = \"none\"\n";
    let config = read(none).unwrap();
    assert!(config.directories.is_empty());
    assert_eq!(config.issuer.audience, ["https://api.example.com"]);
    let printed = config.to_toml();
    assert_eq!(read(&printed).unwrap().to_toml(), printed);
    assert_eq!(
        said("[directory]\nkind = \"none\"\npath = \"u\""),
        ["3: directory.path: unknown key; expected one of kind"]
    );
    assert_eq!(
        said("[[directories]]\nkind = \"none\""),
        ["2: directories[0].kind: must not be \"none\" in a list of directories; remove this entry"]
    );
}

#[test]
fn the_configuration_of_the_first_start_is_short_and_good() {
    assert!(FIRST.lines().count() <= 40);
    let (first, minimal) = (read(FIRST).unwrap(), read(MINIMAL).unwrap());
    assert!(first.warnings.is_empty(), "{:?}", first.warnings);
    // What it writes for the reader's sake are the defaults.
    assert_eq!(first.server, minimal.server);
    assert_eq!(first.admin, minimal.admin);
    assert_eq!(first.issuer, minimal.issuer);
    assert_eq!(first.store, minimal.store);
    assert_eq!(first.directories, minimal.directories);
}

#[test]
fn the_reference_claims_the_defaults_that_are_meant() {
    let shipped = read(REFERENCE).unwrap();
    let minimal = read(MINIMAL).unwrap();
    assert_eq!(shipped.server, minimal.server);
    assert_eq!(shipped.admin, minimal.admin);
    assert_eq!(shipped.issuer, minimal.issuer);
    assert_eq!(shipped.sessions, minimal.sessions);
    assert_eq!(shipped.sessions.profile, Profile::default());
    assert_eq!(shipped.store, minimal.store);
    assert_eq!(shipped.directories, minimal.directories);
    assert_eq!(shipped.limits, minimal.limits);
    assert_eq!(shipped.cors, minimal.cors);
    assert_eq!(shipped.identity, minimal.identity);
    assert_eq!(shipped.log, minimal.log);

    let bare = read(&format!(
        "{MINIMAL}[[clients]]\nid = \"web\"\n\
         [[endpoints]]\ndialect = \"oauth2\"\npath = \"/{{account}}/connect/token\"\n\
         [[upstreams]]\nname = \"app\"\nurls = [\"echo:\"]\n\
         [[routes]]\npath = \"/{{*rest}}\"\nupstream = \"app\"\n"
    ))
    .unwrap();
    assert_eq!(format!("{:?}", shipped.clients), format!("{:?}", bare.clients));
    assert_eq!(shipped.endpoints, bare.endpoints);
    assert_eq!(shipped.upstreams, bare.upstreams);
    assert_eq!(format!("{:?}", shipped.routes.last()), format!("{:?}", bare.routes.last()));
}

#[test]
fn each_default_that_stands_in_a_comment_is_one() {
    let shipped = REFERENCE;
    let mut uncommented = String::new();
    for line in shipped.lines() {
        let example = line.strip_prefix("# ").unwrap_or(line);
        let key = example.split(' ').next().unwrap_or_default();
        let is_default = ["head_timeout", "idle_timeout", "preserve_host", "max_requests", "reuse"].contains(&key);
        uncommented.push_str(if is_default { example } else { line });
        uncommented.push('\n');
    }
    assert_ne!(uncommented, shipped);
    assert_eq!(read(&uncommented).unwrap().upstreams, read(shipped).unwrap().upstreams);

    let issuer = "[[issuers]]\nurl = \"https://idp.example.com/\"\naudience = [\"x\"]\njwks_file = \"idp.jwks.json\"\neverywhere = true\n";
    let said = "typ = [\"at+jwt\"]\nmax_lifetime = \"24h\"\n";
    let with = |more| read(&format!("{MINIMAL}{issuer}{more}")).unwrap().issuers;
    assert_eq!(with(said), with(""));
}

#[test]
fn a_misspelt_key_is_named_with_its_place_and_what_was_meant() {
    let text = format!("{MINIMAL}\n[sessions]\nacess_ttl = \"5m\"\n");
    assert_eq!(
        read(&text).unwrap_err().to_string(),
        "/etc/rotogate/gateway.toml:7:1: sessions.acess_ttl: unknown key; did you mean access_ttl?"
    );
    assert_eq!(said("[sesions]\n"), ["1: sesions: unknown key; did you mean sessions?"]);
    assert_eq!(said("[log]\ncolour = true\n"), ["2: log.colour: unknown key; expected one of format, level, output"]);
    assert_eq!(
        said("[[upstreams]]\nname = \"a\"\nurls = [\"echo:\"]\n[[route]]\npath = \"/\"\n"),
        ["4: route: unknown key; did you mean routes?"]
    );
}

#[test]
fn a_bad_duration_says_what_is_expected() {
    assert_eq!(
        said("[sessions]\naccess_ttl = \"ten minutes\"\nidle_ttl = 600\n"),
        [
            "2: sessions.access_ttl: expected a duration such as \"30s\", \"10m\" or \"1h 30m\", found \"ten minutes\"",
            "3: sessions.idle_ttl: expected a duration such as \"30s\", \"10m\" or \"1h 30m\", found 600; write the \
             unit too, as in \"600s\"",
        ]
    );
    assert_eq!(said("[sessions]\n\"a\\nb: c\" = 1\n")[0].lines().count(), 1, "a key does not make up a line");
}

#[test]
fn a_bound_that_the_rules_break_is_blamed_on_the_key() {
    assert_eq!(
        said("[sessions]\naccess_ttl = \"15s\"\n"),
        ["2: sessions.access_ttl: is 15s, and must be at least twice grace (10s), because otherwise a replay \
             returns a token that is about to expire"]
    );
    assert_eq!(
        said("[sessions]\ngrace = \"30s\"\n[[clients]]\nid = \"a\"\nprofile = { access_ttl = \"59s\" }\n"),
        ["5: clients[0].profile.access_ttl: is 59s, and must be at least twice grace (30s), because otherwise \
             a replay returns a token that is about to expire"]
    );
}

#[test]
fn the_rules_of_a_client_are_held_against_those_of_each_endpoint_that_serves_it() {
    let text = |clients: &str| {
        format!(
            "[[clients]]\nid = \"a\"\nprofile = {{ access_ttl = \"1m\" }}\n[[clients]]\nid = \"b\"\n\
             [[endpoints]]\ndialect = \"oauth2\"\npath = \"/t\"\nprofile = {{ grace = \"50s\" }}\nclients = {clients}\n"
        )
    };
    assert_eq!(
        said(&text("[\"a\", \"b\"]")),
        [
            "3: clients[0].profile.access_ttl: is 1m at the endpoint /t, and must be at least twice grace (50s), because \
             otherwise a replay returns a token that is about to expire"
        ]
    );
    let config = read(&format!("{MINIMAL}{}", text("[\"b\"]"))).unwrap();
    let rules = config.profile(&config.endpoints[0], &config.clients[1]);
    assert_eq!((rules.grace, rules.access_ttl), (Duration::from_secs(50), Duration::from_secs(600)));
    assert_eq!(config.profile(&config.endpoints[0], &config.clients[0]).access_ttl, Duration::from_secs(60));
}

#[test]
fn a_name_that_leads_nowhere_is_named_with_those_that_exist() {
    let upstream = "[[upstreams]]\nname = \"backend\"\nurls = [\"echo:\"]\n";
    assert_eq!(
        said(&format!("{upstream}[[routes]]\npath = \"/a\"\nupstream = \"bakend\"\n")),
        ["6: routes[0].upstream: there is no upstream \"bakend\"; did you mean \"backend\"?"]
    );
    assert_eq!(
        said(&format!("{upstream}[[routes]]\npath = \"/a\"\nupstream = \"x\"\n")),
        ["6: routes[0].upstream: there is no upstream \"x\"; expected one of backend"]
    );
    assert_eq!(
        said("[[endpoints]]\ndialect = \"oauth2\"\npath = \"/t\"\nclients = [ 7, \"web\"]\n"),
        [
            "4: endpoints[0].clients[0]: expected a string that is not empty and has no control characters, found 7",
            "4: endpoints[0].clients[1]: there is no client \"web\"; none is configured",
        ]
    );
}

#[test]
fn everything_is_reported_at_once_in_the_order_of_the_file() {
    let errors = parse(
        "[server]\nlisten = \"8080\"\n[sessions]\nacess_ttl = \"5m\"\ngrace = \"soon\"\n[[routes]]\npath = \"x\"\n\
         upstream = \"app\"\n",
        Path::new("gateway.toml"),
        &BTreeMap::from([("ROTOGATE_LOG__LEVEL".to_owned(), "loud".to_owned())]),
    )
    .unwrap_err();
    assert_eq!(
        errors.to_string().lines().collect::<Vec<_>>(),
        [
            "gateway.toml:1:2: server.public_url: missing; expected the URL at which clients reach the gate, such as \
             \"https://api.example.com\"",
            "gateway.toml:2:10: server.listen: expected an address and port such as \"127.0.0.1:8080\" or \
             \"[::1]:8080\", found \"8080\"",
            "gateway.toml:4:1: sessions.acess_ttl: unknown key; did you mean access_ttl?",
            "gateway.toml:5:9: sessions.grace: expected a duration such as \"30s\", \"10m\" or \"1h 30m\", found \"soon\"",
            "gateway.toml:7:8: routes[0].path: expected a path that begins with /, found \"x\"",
            "gateway.toml:8:12: routes[0].upstream: there is no upstream \"app\"; none is configured",
            "gateway.toml: issuer.audience: missing; expected the audiences (`aud`), such as [\"api\"]",
            "environment ROTOGATE_LOG__LEVEL: log.level: expected \"error\" or \"warn\" or \"info\" or \"debug\" or \
             \"trace\", found \"loud\"",
        ]
    );
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    let errors = read("[server]\nlisten = \n[admin\n").unwrap_err().to_string();
    assert!(errors.starts_with("/etc/rotogate/gateway.toml:2:") && errors.contains("not TOML"), "{errors}");
    assert!(read("a = 1\na = 2\n").unwrap_err().to_string().contains("duplicate key"));
}

#[test]
fn the_environment_wins_and_is_read_like_the_file() {
    let config = with_env(
        REFERENCE,
        &[
            ("ROTOGATE_STORE__PATH", "elsewhere/db"),
            ("ROTOGATE_SERVER__LISTEN", "127.0.0.1:0, [::1]:0"),
            ("ROTOGATE_SERVER__MAX_CONNECTIONS", "7"),
            ("ROTOGATE_SESSIONS__KEEP_LOGIN_CLIENT", "false"),
            ("ROTOGATE_IDENTITY__HEADERS__SUBJECT", "x-user"),
            ("ROTOGATE_CLIENTS__0__ID", "spa"),
            ("ROTOGATE_CORS__ORIGINS", ""),
            ("ROTOGATE_CONFIG", "x"),
            ("ROTOGATE_LOG", "debug"),
            ("ROTOGATE_FAILPOINT", "x"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    let StoreConfig::Redb(RedbSettings { path, .. }) = &config.store else { panic!("{:?}", config.store) };
    assert_eq!(path, Path::new("elsewhere/db"));
    assert_eq!((config.server.listeners.len(), config.server.max_connections), (2, 7));
    assert!(!config.sessions.keep_login_client);
    assert_eq!(config.identity.headers.subject.0.unwrap(), "x-user");
    assert_eq!(&*config.clients[0].id, "spa");
}

#[test]
fn o10_a_variable_that_names_no_key_is_an_error() {
    let say = |name: &str| with_env(MINIMAL, &[(name, "x")]).unwrap_err().to_string();
    assert_eq!(
        say("ROTOGATE_STORE__PAHT"),
        "environment ROTOGATE_STORE__PAHT: store.paht: unknown key; did you mean path?"
    );
    assert_eq!(
        say("ROTOGATE_STROE__PATH"),
        "environment ROTOGATE_STROE__PATH: stroe: unknown key; did you mean store?"
    );
    assert!(say("ROTOGATE_SERVER").contains("is a table"));
    assert!(say("ROTOGATE_CLIENTS__0__ID").contains("expected [[clients]], found a table"));
    assert!(say("ROTOGATE___X").contains("does not name a configuration key"));
    assert!(say("ROTOGATE_ISSUER__AUDIENCE__7").contains("this element does not exist"));
}

#[test]
fn paths_are_relative_to_the_file() {
    let config = read(MINIMAL).unwrap();
    assert_eq!(config.issuer.keys, PathBuf::from("/etc/rotogate/data/keys"));
    assert_eq!(config.admin.token_file, PathBuf::from("/etc/rotogate/data/admin.token"));
    let config = read(&format!("{MINIMAL}keys = \"/run/keys\"\n")).unwrap();
    assert_eq!(config.issuer.keys, PathBuf::from("/run/keys"));
}

#[test]
fn o1_o10_an_admin_listener_that_others_reach_needs_a_word() {
    for open in ["0.0.0.0:9", "10.0.0.1:9", "[::]:9"] {
        let text = format!("[admin]\nlisten = \"{open}\"\n");
        let errors = said(&text);
        assert!(errors.len() == 1 && errors[0].contains("dangerous_non_loopback = true"), "{errors:?}");
        assert_eq!(said(&format!("{text}dangerous_non_loopback = true\n")), Vec::<String>::new());
    }
    assert_eq!(said("[admin]\nlisten = \"[::1]:9\"\n"), Vec::<String>::new());
}

#[test]
fn o1_the_admin_listener_is_never_a_public_one() {
    let text = |public: &str, admin: &str| {
        let text = format!(
            "[server]\npublic_url = \"https://x\"\nlisten = {public}\n[issuer]\naudience = [\"api\"]\n\
             [admin]\nlisten = \"{admin}\"\n"
        );
        read(&text).map(|_| ()).map_err(|e| e.to_string())
    };
    assert!(
        text("\"0.0.0.0:80\"", "127.0.0.1:80")
            .unwrap_err()
            .contains("is already used by the public listener 0.0.0.0:80")
    );
    assert!(text("[\"[::1]:80\", \"127.0.0.1:81\"]", "127.0.0.1:81").is_err());
    assert!(text("[\"127.0.0.1:80\", \"127.0.0.1:80\"]", "127.0.0.1:81").unwrap_err().contains("listen[1]"));
    assert_eq!(text("\"127.0.0.1:80\"", "127.0.0.1:81"), Ok(()));
    assert_eq!(text("\"127.0.0.1:0\"", "127.0.0.1:0"), Ok(()), "the system picks two");
}

#[test]
fn o1_an_upstream_that_is_the_gate_itself_is_refused() {
    let say = |url: &str| said(&format!("[[upstreams]]\nname = \"a\"\nurls = [\"echo:\", \"{url}\"]\n"));
    for admin in ["127.0.0.1:8081", "localhost:8081", "LOCALHOST.:8081", "a.localhost:8081", "0.0.0.0:8081"] {
        let errors = say(&format!("http://{admin}"));
        assert!(
            errors.len() == 1 && errors[0].contains("urls[1]") && errors[0].contains("admin"),
            "{admin} {errors:?}"
        );
    }
    assert!(say("http://[::ffff:127.0.0.1]:8081")[0].contains("own admin listener"));
    assert!(say("http://127.0.0.1:8080")[0].contains("own listener"));
    assert_eq!(say("http://127.0.0.1:3000"), Vec::<String>::new());
    let public = "[server]\npublic_url = \"http://Gate.example.com\"\nlisten = \"0.0.0.0:80\"\n[issuer]\n\
                  audience = [\"api\"]\n[[upstreams]]\nname = \"a\"\nurls = [\"http://gate.example.com\"]\n";
    assert!(read(public).unwrap_err().to_string().contains("own `public_url`"));
}

#[test]
fn names_that_stand_twice_are_refused() {
    let errors = said(
        "[[clients]]\nid = \"a\"\n[[clients]]\nid = \"a\"\n\
         [[endpoints]]\ndialect = \"oauth2\"\npath = \"/t\"\n[[endpoints]]\ndialect = \"oauth2\"\npath = \"/t\"\n\
         [[upstreams]]\nname = \"u\"\nurls = [\"echo:\"]\n[[upstreams]]\nname = \"u\"\nurls = [\"echo:\"]\n\
         [[routes]]\nid = \"r\"\npath = \"/a\"\nupstream = \"u\"\n[[routes]]\nid = \"r\"\npath = \"/b\"\nupstream = \"u\"\n\
         [[routes]]\npath = \"/a\"\nupstream = \"u\"\n",
    );
    let keys: Vec<&str> = errors.iter().filter_map(|e| e.split(": ").nth(1)).collect();
    assert_eq!(keys, ["clients[1].id", "endpoints[1].path", "upstreams[1].name", "routes[1].id", "routes[2].path"]);
}

#[test]
fn routes_of_one_path_get_ids_of_their_own() {
    let upstream = "[[upstreams]]\nname = \"u\"\nurls = [\"echo:\"]\n";
    let route = |more: &str| format!("[[routes]]\npath = \"/a\"\nupstream = \"u\"\n{more}");
    let text = [MINIMAL, upstream, &route("methods = [\"GET\"]\n"), &route("hosts = [\"B\"]\n"), &route("")].concat();
    let config = read(&text).unwrap();
    assert_eq!(config.routes.iter().map(|r| &*r.id).collect::<Vec<_>>(), ["/a", "/a#2", "/a#3"]);
    assert_eq!(config.routes[1].hosts, ["b"]);
}

#[test]
fn what_is_not_built_yet_is_refused_and_not_ignored() {
    for (text, key) in [
        ("[sessions]\non_expiry = \"keep\"\n", "sessions.on_expiry"),
        ("[[upstreams]]\nname = \"u\"\nurls = [\"unix:/run/a\"]\n", "upstreams[0].urls[0]"),
        ("[[endpoints]]\ndialect = \"oauth2\"\npath = \"/t\"\ncookie = \"c\"\n", "endpoints[0].cookie"),
    ] {
        let errors = said(text);
        let fits = |e: &String| e.contains(&format!(" {key}: ")) && e.contains("comes in a later version");
        assert!(errors.len() == 1 && errors.iter().all(fits), "{errors:?}");
    }
}

#[test]
fn p69_one_mistake_is_one_message_that_says_what_to_write() {
    // If the kind is wrong, other keys are not reported as unknown.
    for kind in ["[directory]\nkind = \"ldpa\"\n", "[store]\nkind = \"postgress\"\n"] {
        let errors = said(&format!(
            "{kind}url = \"ldaps://ldap.example.com\"\nbase = \"dc=x\"\nfilter = \"(uid={{username}})\"\n"
        ));
        assert!(errors.len() == 1 && errors[0].contains(".kind: "), "{errors:?}");
    }
    let relly = "[[endpoints]]\ndialect = \"relly\"\ntoken_url = \"https://id.test/token\"\ngrace = \"30s\"\n\
                 after_unknown = \"refuse\"\nclient = { id = \"c\", secret_file = \"s\" }\n";
    let errors = said(relly);
    assert!(errors.len() == 1 && errors[0].contains("endpoints[0].dialect: "), "{errors:?}");
    for key in ["secret", "client_secret"] {
        let errors = said(&format!("[[clients]]\nid = \"web\"\n{key} = \"hunter2hunter2\"\n"));
        assert!(
            errors.len() == 1 && errors[0].contains("write `secret_hash`") && !errors[0].contains("hunter2"),
            "{errors:?}"
        );
    }
    // Errors show durations in the form of the configuration.
    let errors = said("[sessions]\nidle_ttl = \"60d\"\nlost_response_window = \"0s\"\n");
    assert!(errors.len() == 1 && errors[0].contains("60d") && !errors[0].contains("month"), "{errors:?}");
}

#[cfg(all(feature = "ldap", feature = "sql"))]
#[test]
fn p69_a_header_of_a_claim_that_no_user_has_is_said() {
    let ldap = "[directory]\nkind = \"ldap\"\nurl = \"ldaps://l.test\"\nbase = \"dc=x\"\nfilter = \"(uid={username})\"\nclaims = { team = \"ou\" }\n\
                [directory.groups]\nbase = \"ou=g\"\nroles = true\n";
    let header = |claim: &str| format!("[identity.claims]\nx-auth-team = \"{claim}\"\n");
    let warned = |text: &str| -> Vec<String> {
        read(&format!("{MINIMAL}{text}")).unwrap().warnings.iter().map(|warning| warning.message.clone()).collect()
    };
    let said = warned(&format!("{ldap}{}", header("taem")));
    assert!(said.len() == 1 && said[0].contains("no directory has the claim \"taem\""), "{said:?}");
    for delivered in ["team", "roles", "sub", "client_id"] {
        assert_eq!(warned(&format!("{ldap}{}", header(delivered))), Vec::<String>::new(), "{delivered}");
    }
    // Users in a users file may have any claim.
    assert_eq!(warned(&header("taem")), Vec::<String>::new());
}

#[test]
fn c36_what_a_build_lacks_names_feature_and_package() {
    let words = [("redb", ()), ("redis", ())];
    let read = value::word_of_build(&words, &[("redis", "redis"), ("postgres", "postgres")]);
    let value = |word: &str| rotogate_kit::config::Value::String(word.to_owned());
    assert_eq!(read(&value("redis")), Ok(()));
    let error = read(&value("postgres")).unwrap_err();
    for part in [
        "\"postgres\" needs the feature postgres",
        "a package of rotogate",
        "`cargo install --path crates/server --features postgres`",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(read(&value("reddis")).unwrap_err().contains("did you mean \"redis\"?"));
}

#[cfg(feature = "postgres")]
#[test]
fn mistakes_in_a_store_in_postgresql_are_named_without_its_credentials() {
    let postgres = |more: &str| said(&format!("[store]\nkind = \"postgres\"\n{more}"));
    let url = "url = \"postgres://gate@127.0.0.1/rotogate\"\n";
    for (more, part) in [
        (String::new(), "store.url: missing"),
        (
            "url = \"postgres://gate:a-secret@127.0.0.1/x\"\n".to_owned(),
            "store.url: the URL of PostgreSQL has a password",
        ),
        ("url = \"http://127.0.0.1\"\n".to_owned(), "store.url: "),
        (format!("{url}listen_url = \"postgres://gate:a-secret@127.0.0.1/x\"\n"), "store.listen_url: "),
        (format!("{url}schema = \"A b\"\n"), "store.schema: "),
        (format!("{url}statements = \"some\"\n"), "store.statements: "),
        (format!("{url}client_cert = {{ cert = \"gate.pem\" }}\n"), "store.client_cert.key: missing"),
        (format!("{url}client_cert = {{ key = \"gate.key\" }}\n"), "store.client_cert.cert: missing"),
        (format!("{url}prefix = \"rg\"\n"), "store.prefix: "),
    ] {
        let errors = postgres(&more);
        assert!(errors.len() == 1 && errors[0].contains(part), "{part}: {errors:?}");
        assert!(!errors[0].contains("a-secret"), "{errors:?}");
    }
    let whole = "password_file = \"pw\"\nlisten_url = \"postgres://gate@db/rotogate\"\nstatements = \"unnamed\"\n\
                 client_cert = { cert = \"c\", key = \"k\" }\nca = \"ca\"\nstaleness = \"4s\"\n";
    assert_eq!(postgres(&format!("{url}{whole}")), [""; 0]);
}

#[cfg(feature = "redis")]
#[test]
fn mistakes_in_a_store_in_redis_are_named_without_its_credentials() {
    let redis = |more: &str| said(&format!("[store]\nkind = \"redis\"\n{more}"));
    let url = "urls = [\"redis://127.0.0.1:6379\"]\n";
    let sentinels = "urls = [\"redis://s1:26379\", \"redis://s2:26379\"]\n";
    for (more, part) in [
        (String::new(), "store.urls: missing"),
        ("urls = []\n".to_owned(), "store.urls: is empty"),
        ("urls = [\"redis://:a-secret@127.0.0.1\"]\n".to_owned(), "store.urls[0]: the URL of Redis has credentials"),
        ("urls = [\"http://127.0.0.1\"]\n".to_owned(), "store.urls[0]: "),
        (sentinels.to_owned(), "store.sentinel: several URLs"),
        (format!("{sentinels}sentinel = \"\"\n"), "store.sentinel: expected a string"),
        ("urls = [\"redis://s1\", \"rediss://s2\"]\nsentinel = \"main\"\n".to_owned(), "store.urls: the URLs"),
        (format!("{url}sentinel_password_file = \"a\"\n"), "store.sentinel_password_file: needs `sentinel`"),
        (
            format!("{sentinels}sentinel = \"main\"\nsentinel_username = \"gate\"\n"),
            "store.sentinel_password_file: missing",
        ),
        (
            format!("{url}client_cert = {{ cert = \"a.pem\", key = \"b.pem\" }}\n"),
            "store.client_cert: needs `urls` that begin with rediss://",
        ),
        ("urls = [\"rediss://a\"]\nclient_cert = { cert = \"a.pem\" }\n".to_owned(), "store.client_cert.key: missing"),
        (format!("{url}prefix = \"a b\"\n"), "store.prefix: "),
        (format!("{url}username = \"gate\"\n"), "store.password_file: missing"),
        (format!("{url}ca = \"ca.pem\"\n"), "store.ca: needs `urls` that begin with rediss://"),
        (format!("{url}staleness = \"100ms\"\n"), "store.staleness: "),
        (format!("{url}when_stale = \"allow\"\n"), "store.when_stale: expected \"deny\", or how long"),
        (format!("{url}when_stale = \"1s\"\n"), "store.when_stale: is shorter"),
        (format!("{url}path = \"x\"\n"), "store.path: "),
        (
            "urls = [\"redis://127.0.0.1/2\"]\ncluster = true\n".to_owned(),
            "store.urls: a Redis cluster has only database 0",
        ),
        (format!("{url}cluster = 3\n"), "store.cluster: "),
        (
            format!("{sentinels}sentinel = \"main\"\ncluster = true\n"),
            "store.cluster: a Redis cluster cannot be used with Sentinels",
        ),
    ] {
        let errors = redis(&more);
        assert!(errors.len() == 1 && errors[0].contains(part), "{part}: {errors:?}");
        assert!(!errors[0].contains("a-secret"), "{errors:?}");
    }
    assert_eq!(redis(&format!("{url}staleness = \"4s\"\nwhen_stale = \"5m\"\n")), [""; 0]);
    assert_eq!(redis(&format!("{url}cluster = true\nwait_replicas = 1\n")), [""; 0]);
    assert_eq!(redis(&format!("{sentinels}cluster = true\n")), [""; 0], "several nodes of a cluster");
    let more = "sentinel = \"main\"\nsentinel_username = \"a\"\nsentinel_password_file = \"b\"\n";
    assert_eq!(redis(&format!("{sentinels}{more}")), [""; 0]);
    // Keys of this kind in another kind are mistakes.
    assert_eq!(said(&format!("[store]\n{url}")).len(), 1);
}

#[test]
fn an_endpoint_without_a_path_has_the_one_of_its_dialect() {
    let config = read(&format!("{MINIMAL}[[endpoints]]\ndialect = \"envelope\"\n")).unwrap();
    assert_eq!(config.endpoints[0].path, "/api/v2/auth/token");
    assert_eq!(
        said("[[endpoints]]\ndialect = \"envelope\"\n[[endpoints]]\ndialect = \"envelope\"\n"),
        ["3: endpoints[1].path: /api/v2/auth/token is listed twice; give one of the two another path"]
    );
    assert_eq!(said("[[endpoints]]\ndialect = \"envelope\"\npath = 7\n").len(), 1);
}

#[test]
fn o1_an_h2c_upstream_is_not_the_gate_itself_and_cannot_keep_the_host() {
    let server = "[server]\nlisten = \"127.0.0.1:8080\"\npublic_url = \"http://gate.test:81\"\n";
    let said = |url: &str, more: &str| {
        let text = format!("{server}[[upstreams]]\nname = \"u\"\nurls = [\"{url}\"]\n{more}");
        read(&text).err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    assert!(said("h2c://localhost:8080", "").contains("own listener"));
    assert!(said("h2c://gate.test:81", "").contains("own `public_url`"));
    assert!(said("h2c://rpc:50051", "preserve_host = true\n").contains("upstreams[0].preserve_host: cannot be used"));
}

#[test]
fn o1_an_https_upstream_is_not_the_gate_itself() {
    let said = |public: &str, url: &str| {
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:8080\"\npublic_url = \"{public}\"\n[[upstreams]]\nname = \"u\"\n\
             urls = [\"{url}\"]\nca = \"none.pem\"\n"
        );
        read(&text).err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    assert!(said("https://gate.test", "https://gate.test").contains("own `public_url`"));
    assert!(said("https://gate.test", "https://Gate.test:443").contains("own `public_url`"));
    assert!(said("https://gate.test", "https://localhost:8080").contains("own listener"));
    for (public, url) in [("https://gate.test", "https://gate.test:444"), ("http://gate.test", "https://gate.test")] {
        assert!(!said(public, url).contains("gate's own"), "{url}");
    }
}

#[test]
fn there_are_as_many_workers_as_processors_unless_it_is_said() {
    let with = |more: &str| read(&MINIMAL.replacen("[issuer]", &format!("{more}[issuer]"), 1));
    let processors = std::thread::available_parallelism().unwrap();
    assert_eq!(with("").unwrap().server.workers, processors);
    assert_eq!(with("workers = 3\n").unwrap().server.workers.get(), 3);
    let error = with("workers = 0\n").unwrap_err().to_string();
    assert!(error.ends_with(":3:11: server.workers: expected a whole number from 1 to 1024, found 0"), "{error}");
}

#[test]
fn an_upstream_has_bounds_and_checks_of_its_own() {
    let upstream = |more: &str| format!("[[upstreams]]\nname = \"u\"\nurls = [\"http://a\"]\n{more}");
    let of = |more: &str| read(&format!("{MINIMAL}{}", upstream(more))).unwrap().upstreams.remove(0);
    let default = of("");
    assert_eq!((default.max_requests, default.max_failures, default.health.is_none()), (1024, 5, true));
    let library = rotogate_proxy::Upstream::new("u", default.urls.clone());
    let fixed = |one: &rotogate_proxy::Upstream| {
        (one.queue_timeout, one.max_failures, one.eject_for, one.dns_refresh, one.max_connection_age)
    };
    assert_eq!(fixed(&default), fixed(&library));
    assert_eq!((default.max_requests_per_caller, default.max_requests_per_address), (103, 256));
    let set = of("max_requests = 7\nhead_timeout = \"1s\"\n");
    assert_eq!((set.max_requests, set.max_requests_per_caller, set.max_requests_per_address), (7, 1, 2));
    assert_eq!((set.head_timeout, set.connect_timeout), (Some(Duration::from_secs(1)), Some(Duration::from_secs(5))));

    let check = of("health = \"/healthz\"\n").health.unwrap();
    assert_eq!(check, rotogate_proxy::HealthCheck::new("/healthz".parse().unwrap()));
    for bad in ["health = \"healthz\"\n", "health = \"/a#b\"\n", "[upstreams.health]\npath = \"/healthz\"\n"] {
        let found = said(&upstream(bad));
        assert!(found.len() == 1 && found[0].contains("such as `health = \"/healthz\"`, found"), "{found:?}");
    }
    assert_eq!(
        said(&upstream("max_requests = 0\n")),
        ["4: upstreams[0].max_requests: expected a whole number from 1 to 1000000, found 0"]
    );
}

#[test]
fn t16_that_an_upstream_is_verified_cannot_be_switched_off() {
    let upstream = |url: &str, more: &str| format!("[[upstreams]]\nname = \"u\"\nurls = [\"{url}\"]\n{more}");
    for key in
        ["verify = false", "insecure = true", "insecure_skip_verify = true", "danger_accept_invalid_certs = true"]
    {
        let errors = said(&upstream("https://a", &format!("{key}\n")));
        assert!(errors.len() == 1 && errors[0].contains("is always verified"), "{errors:?}");
    }
    for key in ["ca = \"a.pem\"", "server_name = \"a\"", "client_cert = { cert = \"a\", key = \"b\" }"] {
        let errors = said(&upstream("http://a", &format!("{key}\n")));
        assert!(errors.len() == 1 && errors[0].contains("only applies to https:// addresses"), "{errors:?}");
    }
    assert!(said(&upstream("https://a", "client_cert = { cert = \"a\" }\n"))[0].contains("client_cert.key: missing"));
    let errors = said(&upstream("https://a", "ca = \"/no/such.pem\"\n"));
    assert!(errors.len() == 1 && errors[0].contains("4: upstreams[0].ca: /no/such.pem: cannot be read"), "{errors:?}");
}

#[test]
fn a_route_that_asks_for_scopes_and_for_no_token_is_refused() {
    let text = "[[upstreams]]\nname = \"u\"\nurls = [\"echo:\"]\n[[routes]]\npath = \"/a\"\nupstream = \"u\"\n\
                auth = \"none\"\nscopes = [\"admin\"]\n";
    assert_eq!(
        said(text),
        ["8: routes[0].scopes: has no effect, because `auth = \"none\"` does not check credentials; remove one of \
             the two"]
    );
}

#[test]
fn t18_a_route_may_take_the_token_from_a_cookie() {
    let route = |more: &str| {
        format!("[[upstreams]]\nname=\"u\"\nurls=[\"echo:\"]\n[[routes]]\npath=\"/\"\nupstream=\"u\"\n{more}")
    };
    let config = read(&format!("{MINIMAL}{}", route("cookie = \"__Host-token\"\n"))).unwrap();
    assert_eq!(config.routes[0].policy.cookie.as_deref(), Some("__Host-token"));
    assert_eq!(
        said(&route("cookie = \"a=b\"\n")),
        ["7: routes[0].cookie: expected the name of a cookie, found \"a=b\""]
    );
    assert!(said(&route("auth = \"none\"\ncookie = \"c\"\n"))[0].contains("has no effect, because `auth"));
}

#[test]
fn the_envelope_has_options_of_its_own() {
    let endpoint = |dialect: &str, more: &str| format!("[[endpoints]]\ndialect = \"{dialect}\"\npath = \"/t\"\n{more}");
    let options =
        |more: &str| read(&format!("{MINIMAL}{}", endpoint("envelope", more))).unwrap().endpoints[0].options();
    assert_eq!(options(""), rotogate::dialect::Options::default());
    let set = options("allow_expired_access_token = \"10m\"\nfailure_status = 200\n").envelope;
    assert_eq!((set.expired_for_at_most, set.failure_status.as_u16()), (Duration::from_secs(600), 200));
    assert_eq!(
        said(&endpoint("envelope", "failure_status = 400\nallow_expired_access_token = \"8d\"\n")),
        [
            "4: endpoints[0].failure_status: expected 401 or 200, found 400",
            "5: endpoints[0].allow_expired_access_token: expected at most 7d, found \"8d\"",
        ]
    );
    assert!(said(&endpoint("oauth2", "failure_status = 200\n"))[0].contains("unknown key"));
    // The protocol names no client, but its sessions have one.
    let with_client = |secret: &str| {
        said(&format!("[[clients]]\nid = \"web\"\n{secret}{}", endpoint("envelope", "client = \"web\"\n")))
    };
    assert_eq!(with_client(""), Vec::<String>::new());
    assert!(with_client(&format!("secret_hash = \"{PHC}\"\n"))[0].contains("names a confidential client"));
    assert!(said(&endpoint("envelope", "client = \"web\"\n"))[0].contains("there is no client"));
    assert!(said(&endpoint("oauth2", "client = \"web\"\n"))[0].contains("unknown key"));
}

const PHC: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHApl8ArZWb2GRPPc";

#[test]
fn only_a_client_with_a_secret_may_use_client_credentials() {
    let client = "[[clients]]\nid = \"svc\"\ngrants = [\"client_credentials\"]\n";
    assert!(said(client)[0].contains("is only for confidential clients"));
    assert_eq!(said(&format!("{client}secret_hash = \"{PHC}\"\n")), Vec::<String>::new());
    assert_eq!(
        said("[[clients]]\nid = \"web\"\ngrants = [\"implicit\"]\n"),
        ["3: clients[0].grants[0]: expected \"password\" or \"refresh_token\" or \"client_credentials\" or \
             \"token-exchange\" or \"jwt-bearer\", found \"implicit\""]
    );
}

#[test]
fn o3_a_secret_is_printed_neither_by_a_dump_nor_by_an_error() {
    let config = read(&format!("{MINIMAL}[[clients]]\nid = \"svc\"\nsecret_hash = \"{PHC}\"\n")).unwrap();
    for dump in [format!("{config:?}"), config.to_toml()] {
        assert!(dump.contains("svc") && !dump.contains("argon2id"), "{dump}");
    }
    assert_eq!(config.clients[0].secret_hash.as_ref().unwrap().expose(), PHC);
    let errors = said("[[clients]]\nid = \"svc\"\nsecret_hash = \"hunter2\"\n");
    assert!(
        errors.len() == 1 && errors[0].contains("not a PHC string") && !errors[0].contains("hunter2"),
        "{errors:?}"
    );
    let errors = said("[[clients]]\nid = \"svc\"\nsecret = \"hunter2\"\n");
    assert!(!errors.is_empty() && !errors.concat().contains("hunter2"), "{errors:?}");
}

#[test]
fn a3_a_secret_hash_dearer_than_the_caps_is_refused_at_start() {
    let dear = PHC.replace("m=19456", "m=1048576");
    assert!(said(&format!("[[clients]]\nid = \"svc\"\nsecret_hash = \"{dear}\"\n"))[0].contains("too costly to check"));
}

#[cfg(unix)]
#[test]
fn o2_a_secret_hash_is_read_from_a_file_for_us_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    rotogate_core::private_file::write_private_atomic(&secret, format!("{PHC}\n").as_bytes()).unwrap();
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, format!("{MINIMAL}[[clients]]\nid = \"svc\"\nsecret_hash_file = \"secret\"\n")).unwrap();
    assert_eq!(load(&file, &()).unwrap().clients[0].secret_hash.as_ref().unwrap().expose(), PHC);
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let errors = load(&file, &()).unwrap_err().to_string();
    assert!(errors.contains("clients[0].secret_hash_file: ") && errors.contains("chmod 600"), "{errors}");
}

#[test]
fn trusted_issuers_have_one_source_of_keys() {
    let issuer =
        |more: &str| said(&format!("[[issuers]]\nurl = \"https://idp/\"\naudience = \"x\"\neverywhere = true\n{more}"));
    assert!(issuer("")[0].contains("`jwks_url` or `jwks_file`"));
    assert!(issuer("jwks_file = \"a.pem\"\nalgorithm = \"HS256\"\n")[0].contains("shared secret"));
    assert!(issuer("discovery = true\njwks_file = \"a\"\n")[0].contains("one source of signing keys"));
    assert_eq!(issuer("jwks_file = \"a.pem\"\nalgorithm = \"RS256\"\n"), Vec::<String>::new());
    assert!(
        said("[[issuers]]\nurl=\"http://127.0.0.1:8080\"\naudience=\"x\"\njwks_file=\"a\"\n")[0]
            .contains("gate's own issuer")
    );
}

#[test]
fn j7_no_key_sets_the_leeway_of_30_seconds() {
    assert!(said("leeway = \"31s\"\n")[0].starts_with("1: issuer.leeway: was removed: "));
    assert_eq!(read(MINIMAL).unwrap().issuer.leeway, Duration::from_secs(30));
}

#[test]
fn the_authorization_endpoint_is_a_url_that_a_browser_can_open() {
    let of = |url: &str| said(&format!("authorization_endpoint = \"{url}\"\n"));
    assert_eq!(of("https://idp.example.com/authorize?p=sign-in"), Vec::<String>::new());
    for bad in ["/authorize", "idp.example.com", "https://idp.example.com/#x", "https://idp.example.com/?a#x", "urn:x"]
    {
        let expected = format!(
            "1: issuer.authorization_endpoint: expected an http or https URL without a user name or a fragment, found \
             \"{bad}\""
        );
        assert_eq!(of(bad), [expected]);
    }
}

#[test]
fn t24_what_is_stripped_and_kept_is_a_header_or_its_beginning() {
    let of = |line: &str| said(&format!("[identity]\n{line}"));
    assert_eq!(
        of("strip = [\"x-tenant\", \"x-acme-*\"]\nkeep = [\"cf-access-*\", \"X-Vouch-User\"]"),
        Vec::<String>::new()
    );
    for (line, expected) in [
        ("strip = [\"*\"]", "expected a header name"),
        ("strip = [\"x-*-y\"]", "expected a header name"),
        ("strip = [\"content-*\"]", "content-length has a special meaning"),
        ("strip = [\"host\"]", "host has a special meaning"),
        ("keep = [\"x-auth-*\"]", "x-auth-subject is an identity header of the gate"),
        ("keep = [\"X-Auth-Subject\"]", "x-auth-subject is an identity header of the gate"),
        ("keep = [\"x-request-id\"]", "forwards it anyway"),
    ] {
        let found = of(line);
        assert!(found.len() == 1 && found[0].contains(expected), "{line}: {found:?}");
    }
}

#[test]
fn t23_a_host_is_a_name_a_domain_or_any() {
    let read = |hosts: &str| read(&MINIMAL.replace("[server]", &format!("[server]\nhosts = [{hosts}]")));
    assert_eq!(read("\"a.test\", \"*.a.test\"").unwrap().server.hosts, ["a.test", "*.a.test"]);
    for bad in ["\"a.test:80\"", "\"http://a.test\"", "\"*a.test\"", "\"\"", "7"] {
        assert!(read(bad).unwrap_err().to_string().contains("server.hosts[0]: "), "{bad}");
    }
}

#[test]
fn more_identity_headers_than_a_token_keeps_are_refused() {
    // There are five headers by default.
    let claims = |number: usize| (0..number).map(|at| format!("x-c{at} = \"c{at}\"")).collect::<Vec<_>>().join(", ");
    let config = |number| format!("{MINIMAL}[identity]\nclaims = {{ {} }}\n", claims(number));
    assert_eq!(read(&config(59)).unwrap().identity.claims.len(), 59);
    let errors = read(&config(60)).unwrap_err().to_string();
    assert!(
        errors.contains("identity.claims.x-c") && errors.contains("there are already 64 identity headers"),
        "{errors}"
    );
}

#[test]
fn two_identity_headers_of_one_name_are_refused() {
    let errors =
        said("[identity]\nheaders = { account = \"X-Auth-Subject\" }\nclaims = { \"x-auth-scope\" = \"s\" }\n");
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors.iter().all(|e| e.contains("already carries another value")));
    let config =
        read(&format!("{MINIMAL}[identity]\nheaders = {{ account = \"\" }}\nclaims = {{ X-Mail = \"email\" }}\n"));
    let identity = config.unwrap().identity;
    assert_eq!(identity.headers.account.0, None);
    assert_eq!(identity.claims, [(http::HeaderName::from_static("x-mail"), "email".to_owned())]);
}

proptest::proptest! {
    #[test]
    fn no_text_brings_the_reader_down(text in "\\PC{0,200}", name in "[A-Z_]{0,20}", value in "\\PC{0,20}") {
        let env = BTreeMap::from([(format!("ROTOGATE_{name}"), value)]);
        let _ = parse(&text, Path::new("gateway.toml"), &env);
    }
}

#[test]
fn listeners_that_differ_are_tables_and_tls_beside_listen_is_for_its_addresses() {
    let server = |lines: &str| {
        let text = format!("[server]\npublic_url = \"https://a.test\"\n{lines}\n[issuer]\naudience = [\"api\"]\n");
        read(&text).map(|config| config.server)
    };
    let simple =
        server("listen = [\"0.0.0.0:80\", \"0.0.0.0:443\"]\ntls = { cert = \"a.pem\", key = \"/k\" }").unwrap();
    let pair = CertificateFiles { cert: PathBuf::from("/etc/rotogate/a.pem"), key: PathBuf::from("/k"), place: None };
    for listener in &simple.listeners {
        let tls = listener.tls.as_ref().unwrap();
        assert_eq!((&tls.certificates.0, &tls.client_auth), (&vec![pair.clone()], &ClientAuth::None));
        assert_eq!((listener.proxy_protocol, listener.max_connections_per_address), (false, 1000));
    }
    let tables = server(
        "max_connections_per_address = 7\ntrusted_proxies = [\"10.0.0.0/8\"]\n\
         [[server.listeners]]\naddress = \"0.0.0.0:443\"\nproxy_protocol = true\n\
         tls = { cert = [\"a.pem\"], key = [\"/k\"], client_ca = \"ca.pem\", client_crl = \"/crl.pem\" }\n\
         [[server.listeners]]\naddress = \"127.0.0.1:80\"",
    )
    .unwrap();
    let [first, second] = &tables.listeners[..] else { panic!("{tables:?}") };
    let tls = first.tls.as_ref().unwrap();
    assert_eq!(tls.certificates.0, [pair]);
    assert_eq!(
        tls.client_auth,
        ClientAuth::Required(ClientRoots {
            ca: "/etc/rotogate/ca.pem".into(),
            crls: vec!["/crl.pem".into()],
            header: false
        })
    );
    assert_eq!((first.proxy_protocol, first.max_connections_per_address), (true, 7));
    assert_eq!((second.tls.as_ref(), second.max_connections_per_address), (None, 7));
    // Both forms together result in one list.
    let both = "listen = \"127.0.0.1:1\"\n[[server.listeners]]\naddress = \"127.0.0.1:2\"";
    assert_eq!(server(both).unwrap().addresses().map(|at| at.port()).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn what_is_wrong_with_a_listener_is_named() {
    let wrong = |lines: &str| {
        let text = format!("[server]\npublic_url = \"https://a.test\"\n{lines}\n[issuer]\naudience = [\"api\"]\n");
        let errors = read(&text).unwrap_err();
        errors.iter().map(|e| format!("{}: {}", e.key, e.message)).collect::<Vec<_>>().join("\n")
    };
    let tls = |inner: &str| format!("tls = {{ {inner} }}");
    for (lines, said) in [
        (tls("cert = \"a\""), "server.tls.key: missing; expected the file with the private key"),
        (tls("cert = \"a\", key = \"b\", certificates = []"), "server.tls.certificates: was removed: "),
        (tls("cert = [], key = []"), "server.tls.cert: is empty"),
        (tls("cert = [\"a\", \"b\"], key = \"c\""), "server.tls.key: lists 1 files, but `cert` lists 2"),
        (tls("cert = \"a\", kye = \"b\""), "server.tls.kye: unknown key"),
        (tls("cert = \"a\", key = \"b\", client_auth = \"required\""), "server.tls.client_auth: needs `client_ca`"),
        (tls("cert = \"a\", key = \"b\", client_crl = \"c\""), "server.tls.client_crl: needs `client_ca`"),
        (
            tls("cert = \"a\", key = \"b\", client_ca = \"c\", client_crl = []"),
            "server.tls.client_crl: is empty; expected at least one file",
        ),
        (tls("cert = \"a\", key = \"b\", client_auth = \"on\""), "server.tls.client_auth: expected \"none\""),
        (
            tls("cert = \"a\", key = \"b\", clint_ca = \"c\""),
            "server.tls.clint_ca: unknown key; did you mean client_ca?",
        ),
        ("tls = true".to_owned(), "server.tls: expected a table, found true"),
        ("listen = []".to_owned(), "server.listen: is empty"),
        ("[[server.listeners]]".to_owned(), "server.listeners[0].address: missing"),
        (
            "[[server.listeners]]\naddress = \"127.0.0.1:1\"\nproxy_protocol = true".to_owned(),
            "server.listeners[0].proxy_protocol: needs `server.trusted_proxies`",
        ),
        (
            "listen = \"127.0.0.1:1\"\n[[server.listeners]]\naddress = \"0.0.0.0:1\"".to_owned(),
            "server.listeners[0].address: 0.0.0.0:1 is already used by `server.listen`",
        ),
        (
            "[[server.listeners]]\naddress = \"127.0.0.1:8081\"".to_owned(),
            "admin.listen: 127.0.0.1:8081 is already used by the public listener 127.0.0.1:8081",
        ),
        (
            "tls = { cert = \"a\", key = \"b\" }\n[[server.listeners]]\naddress = \"0.0.0.0:1\"".to_owned(),
            "server.tls: only applies to the addresses in `listen`, but `listen` is empty",
        ),
        (
            "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nmax_connections = 1".to_owned(),
            "server.max_connections: is 1, but there are 2 listeners",
        ),
        ("max_connections_per_address = 0".to_owned(), "server.max_connections_per_address: expected a whole number"),
    ] {
        assert!(wrong(&lines).contains(said), "{lines}: {}", wrong(&lines));
    }
}

#[test]
fn r22_a12_sessions_of_a_subject_and_the_memory_for_tokens_are_bounded_as_written() {
    let config = read(&format!(
        "{MINIMAL}[sessions]\nmax_sessions_per_subject = 3\n\
         [limits]\nverified_cache = \"2MiB\"\n\
         [[clients]]\nid = \"web\"\nprofile = {{ max_sessions_per_subject = 1 }}\n"
    ))
    .unwrap();
    let bound = |profile: &Profile| (profile.max_sessions_per_subject, profile.ends_oldest);
    assert_eq!(bound(&config.sessions.profile), (3, true));
    assert_eq!(bound(&config.clients[0].profile.over(&config.sessions.profile)), (1, true));
    assert_eq!(config.limits.verified_cache, 2 << 20);
    for (bad, key) in [
        ("[sessions]\nmax_sessions_per_subject = 0\n", "max_sessions_per_subject"),
        ("[sessions]\nmax_sessions_per_subject = 10001\n", "max_sessions_per_subject"),
        ("[limits]\nverified_cache = 100000\n", "verified_cache"),
    ] {
        let said = said(bad);
        assert!(said.len() == 1 && said[0].contains(key), "{bad}: {said:?}");
    }
}

#[test]
fn o24_the_access_log_has_its_own_keys_and_says_what_is_wrong_with_them() {
    let config =
        read(&format!("{MINIMAL}{}", "[log]\nformat = \"json\"\n[access_log]\noutput = \"logs/access.log\"\n"))
            .unwrap();
    assert_eq!(config.access_log.format, Some(LogFormat::Json), "that of [log]");
    assert_eq!(config.access_log.output, LogOutput::File("/etc/rotogate/logs/access.log".into()));
    assert_eq!(config.access_log.buffer, 1 << 20);
    assert_eq!(config.server.request_id_header, "x-request-id");
    assert_eq!(
        said("[access_log]\noutput = \"stdrr\"\nsample = 2\n"),
        [
            "2: access_log.output: expected \"stderr\", \"stdout\" or a path such as \"/var/log/rotogate/access.log\", found \"stdrr\"",
            "3: access_log.sample: expected a number from 0 to 1, such as 0.1, found 2",
        ]
    );
}

/// Removes the keys under which listeners were found, because `listen` and `[[server.listeners]]` are equivalent.
fn without_places(server: &ServerConfig) -> ServerConfig {
    let mut server = server.clone();
    for listener in &mut server.listeners {
        listener.key.clear();
        let Some(tls) = &mut listener.tls else { continue };
        tls.key.clear();
    }
    server
}

/// Compares every section except the clients, whose hashes are masked. The pattern has no `..`, so a new section does
/// not compile until it is compared.
fn is_the_same(one: &Config, other: &Config) {
    let Config {
        server,
        admin,
        issuer,
        issuers,
        sessions,
        store,
        directories,
        limits,
        cors,
        dpop,
        api_keys,
        clients,
        endpoints,
        identity,
        providers,
        upstreams,
        authorizers,
        resources,
        routes,
        log,
        warnings: _,
        access_log,
        audit_log,
        tracing,
        source: _,
    } = one;
    assert_eq!(without_places(server), without_places(&other.server));
    assert_eq!(admin, &other.admin);
    assert_eq!(issuer, &other.issuer);
    assert_eq!(issuers, &other.issuers);
    assert_eq!(sessions, &other.sessions);
    assert_eq!(store, &other.store);
    assert_eq!(directories, &other.directories);
    assert_eq!(limits, &other.limits);
    assert_eq!(cors, &other.cors);
    assert_eq!(api_keys, &other.api_keys);
    assert_eq!(dpop, &other.dpop);
    assert_eq!(endpoints, &other.endpoints);
    assert_eq!(identity, &other.identity);
    assert_eq!((providers, upstreams), (&other.providers, &other.upstreams));
    assert_eq!(authorizers, &other.authorizers);
    assert_eq!(resources, &other.resources);
    assert_eq!(routes, &other.routes);
    assert_eq!((log, access_log, audit_log), (&other.log, &other.access_log, &other.audit_log));
    assert_eq!(tracing, &other.tracing);
    let unmasked = |clients: &[ClientConfig]| -> Vec<ClientConfig> {
        let bare = |entry: &ClientConfig| rotogate_core::client::Client { secret_hash: None, ..entry.client.clone() };
        clients.iter().map(|entry| ClientConfig { client: bare(entry), ..entry.clone() }).collect()
    };
    assert_eq!(unmasked(clients), unmasked(&other.clients));
}

#[test]
fn p9_o12_what_is_printed_is_read_again_and_says_the_same_but_for_secrets() {
    let everything = format!(
        "{MINIMAL}[[clients]]\nid = \"svc\"\nsecret_hash = \"{PHC}\"\ngrants = [\"client_credentials\"]\n\
         scopes = [\"read\"]\nprofile = {{ access_ttl = \"90s\", on_reuse = \"deny\" }}\n\
         [[authorizers]]\nkind = \"caddy\"\nlisten = \"127.0.0.1:8082\"\n\
         trusted_proxies = [\"10.0.0.0/8\"]\n"
    );
    for text in [REFERENCE, FIRST, include_str!("../../../packaging/gateway.toml"), everything.as_str()] {
        let file = Path::new("/etc/rotogate/gateway.toml");
        let config = parse(text, file, &()).unwrap();
        let printed = config.to_toml();
        let again =
            parse(&printed, Path::new("/elsewhere/gateway.toml"), &()).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(again.to_toml(), printed);
        is_the_same(&again, &config);
        // A mask must not silently become a hash: no secret matches it, and there is a warning.
        let masked = config.clients.iter().filter(|client| client.secret_hash.is_some()).count();
        assert_eq!(again.warnings.iter().filter(|warning| warning.message.contains("is the mask")).count(), masked);
        for (one, other) in config.clients.iter().zip(&again.clients) {
            assert_eq!(one.secret_hash.is_some(), other.secret_hash.is_some());
            assert!(one.secret_hash.is_none() || one.secret_hash != other.secret_hash);
        }
    }
}

#[test]
fn p61_o23_variables_of_an_orchestrator_are_passed_over_and_misspelt_ones_are_not() {
    let read = |name: &str, value: &str| {
        let env = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        parse(MINIMAL, Path::new("gateway.toml"), &env).map(|config| config.source.passed_over().to_vec())
    };
    for (name, value) in [
        ("ROTOGATE_SERVICE_HOST", "10.96.0.7"),
        ("ROTOGATE_SERVICE_PORT", "8080"),
        ("ROTOGATE_SERVICE_PORT_HTTP", "8080"),
        ("ROTOGATE_PORT", "tcp://10.96.0.7:8080"),
        ("ROTOGATE_PORT_8080_TCP", "tcp://10.96.0.7:8080"),
        ("ROTOGATE_PORT_8080_TCP_PROTO", "tcp"),
        ("ROTOGATE_PORT_8080_TCP_PORT", "8080"),
        ("ROTOGATE_PORT_8080_TCP_ADDR", "10.96.0.7"),
        ("ROTOGATE_PORT_53_UDP", "udp://10.96.0.7:53"),
        ("ROTOGATE_PORT_5000_SCTP_PROTO", "sctp"),
        // Services of the names rotogate-admin and rotogate-log-2.
        ("ROTOGATE_ADMIN_SERVICE_HOST", "10.96.0.8"),
        ("ROTOGATE_ADMIN_PORT", "tcp://10.96.0.8:8081"),
        ("ROTOGATE_LOG_2_PORT_80_TCP_ADDR", "10.96.0.9"),
    ] {
        assert_eq!(read(name, value).unwrap(), [name]);
    }
    for (name, value, hint) in [
        ("ROTOGATE_STORE_PATH", "db", "did you mean ROTOGATE_STORE__PATH?"),
        ("ROTOGATE_SERVER_LISTEN", "127.0.0.1:0", "did you mean ROTOGATE_SERVER__LISTEN?"),
        ("ROTOGATE_CLIENTS_0_ID", "x", "did you mean ROTOGATE_CLIENTS__0_ID?"),
        ("ROTOGATE_LOG__LEVL", "info", "did you mean level?"),
        // Mistakes of an operator.
        ("ROTOGATE_PORT", "8080", "unknown key"),
        ("ROTOGATE_PORT_8080_HTTP", "x", "unknown key"),
        ("ROTOGATE_SERVICE__HOST", "x", "unknown key"),
        ("ROTOGATE_SERVICES", "x", "unknown key"),
    ] {
        let said = read(name, value).unwrap_err().to_string();
        assert!(said.starts_with(&format!("environment {name}: ")) && said.contains(hint), "{said}");
    }
}

#[test]
fn a9_the_share_of_an_address_and_a_caller_is_a_part_of_the_whole() {
    let server = |lines: &str| {
        let text = MINIMAL.replacen("[server]\n", &format!("[server]\n{lines}\n"), 1);
        read(&text).map(|config| config.server).map_err(|errors| errors.to_string())
    };
    let default = server("").unwrap().overload;
    assert_eq!((default.requests.all, default.requests.each, default.requests_per_caller), (10_000, 1000, 500));
    assert_eq!((default.pending_bodies.all, default.pending_bodies.each), (1000, 100));
    assert_eq!((default.tunnels.all, default.tunnels.each), (10_000, 500));
    assert_eq!((default.buffered.all, default.buffered.each), (256 << 20, (256 << 20) / 10 + 1));
    // A percentage of a small number is at least one.
    let small = server("max_requests = 3\nmax_connections = 5\nmax_buffered = \"4MiB\"").unwrap();
    assert_eq!((small.overload.requests.each, small.overload.requests_per_caller), (1, 1));
    assert_eq!((small.overload.own_streams.all, small.overload.own_streams.each), (1, 1));
    assert_eq!(small.overload.buffered.each, 1 << 20, "the longest message has room");
    assert_eq!(small.max_requests_per_connection, 3);
    assert_eq!(small.overload.tunnels.all, 5);
    for (lines, wrong) in [
        ("max_buffered = \"1KiB\"", "max_buffered: expected between"),
        ("max_requests_per_address = 11", "max_requests_per_address: was removed: "),
    ] {
        let said = server(lines).unwrap_err();
        assert!(said.contains(wrong), "{lines}: {said}");
    }
}
