//! `rotogate check`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use support::{self, CONFIG, Place, with};

const PHC: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHApl8ArZWb2GRPPc";

#[test]
fn a_good_configuration_is_called_good_and_nothing_is_made() {
    let place = Place::new(CONFIG);
    assert!(place.done(&["check"], "").stdout.contains("gateway.toml: valid"));
    assert_eq!(place.json(&["check"], "")["ok"], true);
    assert!(!place.path("data").exists());
}

#[test]
fn o10_everything_that_is_wrong_is_said_at_once_with_its_line() {
    let wrong = "[sessions]\nacess_ttl = \"5m\"\nidle_ttl = \"soon\"\n[[routes]]\npath = \"/c\"\nupstream = \"ap\"\n\
                 max_stream = \"1h\"\n";
    let place = Place::new(&format!("{CONFIG}{wrong}"));
    let ran = place.run(&["check"], "");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let first = CONFIG.lines().count();
    for (line, text) in [
        (2, "sessions.acess_ttl: unknown key; did you mean access_ttl?"),
        (3, "sessions.idle_ttl: "),
        (6, "there is no upstream \"ap\"; did you mean \"app\"?"),
        (7, "routes[2].max_stream: comes in a later version"),
    ] {
        let place = format!("gateway.toml:{}:", first + line);
        let said = ran.stderr.lines().find(|said| said.contains(&place)).unwrap_or_else(|| panic!("{place}: {ran:?}"));
        assert!(said.contains(text), "{said}");
    }
    assert_eq!(ran.stderr.lines().count(), 4, "{ran:?}");
    // `serve` reports the same and does not start.
    assert_eq!(place.run(&["serve"], "").code, Some(2));
}

#[test]
fn p7_t21_patterns_of_other_proxies_are_errors_that_show_the_right_form() {
    let routes = [
        ("/admin/*", "\"/admin/{*rest}\""),
        ("/x/**", "\"/x/{*rest}\""),
        ("/x/:id", "\"/x/{id}\""),
        ("/a/{id}.json", "\"/a/{id}\""),
        ("/a/{", "\"/a/{segment2}\""),
    ];
    let text: String =
        routes.iter().map(|(path, _)| format!("[[routes]]\npath = \"{path}\"\nupstream = \"app\"\n")).collect();
    let place = Place::new(&format!("{CONFIG}{text}[[routes]]\npath = \"/docs:batchGet\"\nupstream = \"app\"\n"));
    let ran = place.run(&["check"], "");
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(2), routes.len()), "{ran:?}");
    for (index, (_, right)) in routes.iter().enumerate() {
        let line = CONFIG.lines().count() + 3 * index + 2;
        let at = format!("gateway.toml:{line}:8: routes[{}].path: ", index + 2);
        let said = ran.stderr.lines().find(|said| said.contains(&at)).unwrap_or_else(|| panic!("{at}: {ran:?}"));
        assert!(said.ends_with(&format!("write {right}")), "{said}");
    }
    assert_eq!(place.run(&["serve"], "").code, Some(2));
}

#[test]
fn p7_t21_what_a_route_does_not_cover_and_what_goes_around_it_is_warned_of() {
    let routes = "[[routes]]\npath = \"/admin/{*rest}\"\nscopes = [\"admin\"]\nupstream = \"app\"\n\
                  [[routes]]\npath = \"/Admin/help\"\nauth = \"none\"\nupstream = \"app\"\n\
                  [[routes]]\npath = \"/login/token\"\nupstream = \"app\"\n\
                  [[endpoints]]\ndialect = \"envelope\"\npath = \"/login/token\"\n";
    let place = Place::new(&format!("{CONFIG}{routes}"));
    let said = place.done(&["check"], "").stdout;
    let first = CONFIG.lines().count();
    for (line, route, text) in [
        (2, 2, "does not cover /admin, which the less strict route /{*rest} would serve"),
        (6, 3, "is less strict than /admin/{*rest}, but servers"),
        (10, 4, "is never reached, because the endpoint"),
    ] {
        let at = format!("gateway.toml:{}:8: routes[{route}].path: {text}", first + line);
        assert!(said.contains(&at), "{at}: {said}");
    }
    assert!(said.contains("gateway.toml: valid"), "{said}");
    assert_eq!(place.json(&["check"], "")["warnings"].as_array().map(Vec::len), Some(3));
    // A start reports the same.
    let gate = place.start();
    assert!(gate.log().contains("does not cover /admin"));
}

#[test]
fn m8_m14_calls_of_a_resource_are_checked_before_a_start() {
    let with = |resource: &str, rules: &str| {
        Place::new(&format!(
            "{CONFIG}[[resources]]\npath = \"/mcp\"\nauthorization_servers = [\"https://idp.test\"]\n{resource}\n\
             [[routes]]\npath = \"/mcp\"\nresource = \"/mcp\"\nupstream = \"app\"\n{rules}"
        ))
    };
    let rule = |calls: &str, more: &str| format!("[[routes]]\nresource = \"/mcp\"\ncalls = [{calls}]\n{more}\n");
    let all = rule("\"*\"", "");
    with("mcp = {}", &all).done(&["check"], "");
    let printed = with("mcp = {}", &(rule("\"tools/call:a*\"", "scopes = [\"x\"]") + &all));
    let printed = printed.done(&["check", "--print"], "").stdout;
    assert!(printed.contains("calls = [\"tools/call:a*\"]"), "{printed}");
    Place::new(&printed).done(&["check"], "");
    for (resource, rules, says) in [
        ("mcp = {}", rule("\"tools/call\"", ""), "resources[0].mcp: no rule applies to calls that are not listed"),
        ("mcp = {}", format!("{all}{all}"), "resources[0].mcp: two rules govern the calls \"*\""),
        ("mcp = {}", rule("\"a/b:*c\"", ""), "routes[3].calls[0]: expected \"method:name\""),
        (
            "mcp = {}",
            rule("\"delete_all\"", ""),
            "routes[3].calls[0]: expected a method with a slash, such as \"tools/call:delete_all\"",
        ),
        ("mcp = {}", rule("\"*\"", "upstream = \"app\""), "routes[3].upstream: cannot be combined with `calls`"),
        ("", all.clone(), "routes[3].calls: needs `resource`"),
        ("mcp = { versions = [\"2026-07-28\"] }", all.clone(), "resources[0].mcp.versions: was removed: "),
        ("implies = { a = [\"b\"], b = [\"a\"] }", String::new(), "resources[0].implies: \"a\" implies itself"),
        ("scopes = [\"offline_access\"]", String::new(), "resources[0].scopes: contains `offline_access`"),
        ("mcp = {}", rule("\"*\"", "scopes = [\"offline_access\"]"), "resources[0].scopes: contains `offline_access`"),
    ] {
        let ran = with(resource, &rules).run(&["check"], "");
        assert!(ran.code == Some(2) && ran.stderr.contains(says), "{says}: {ran:?}");
    }
}

#[test]
fn t22_a_scoped_route_beside_unscoped_envelopes_needs_a_rule() {
    let kuzzle = "[[endpoints]]\ndialect = \"kuzzle\"\n[[routes]]\npath = \"/users/{*rest}\"\nscopes = [\"admin\"]\n\
                  upstream = \"app\"\n";
    let place = Place::new(&format!("{CONFIG}{kuzzle}"));
    let ran = place.run(&["check"], "");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("routes[2].kuzzle: requires more than /{*rest}"), "{ran:?}");
    assert_eq!(place.run(&["serve"], "").code, Some(2));
    place.write_config(&format!("{CONFIG}{kuzzle}kuzzle = [\"security:*\"]\n"));
    assert_eq!(place.run(&["check"], "").code, Some(2), "T42: it says nothing of a plugin's calls");
    place.write_config(&format!("{CONFIG}{kuzzle}kuzzle = [\"security:*\", \"my-plugin:*\"]\n"));
    place.done(&["check"], "");
    // A rule for calls alone has no path; a call has one rule.
    place.write_config(&format!(
        "{CONFIG}{kuzzle}[[routes]]\nkuzzle = [\"security:*\", \"x:y\"]\nscopes = [\"admin\"]\n"
    ));
    place.done(&["check"], "");
    let twice = "kuzzle = [\"x:y\"]\n[[routes]]\nkuzzle = [\"x:y\", \"x\"]\n";
    place.write_config(&format!("{CONFIG}{kuzzle}{twice}"));
    let ran = place.run(&["check"], "");
    assert!(ran.stderr.contains("expected \"controller:action\""), "{ran:?}");
    place.write_config(&format!("{CONFIG}{kuzzle}{}", twice.replace(", \"x\"", "")));
    let ran = place.run(&["check"], "");
    assert!(ran.stderr.contains("routes[3].kuzzle: x:y already has a rule in the route /users/{*rest}"), "{ran:?}");
}

#[test]
fn print_shows_every_value_in_force_and_masks_secrets() {
    let service = format!("[[clients]]\nid = \"svc\"\ngrants = [\"client_credentials\"]\nsecret_hash = \"{PHC}\"\n");
    let place = Place::new(&format!("{CONFIG}{service}"));
    let said = place.done(&["check", "--print"], "").stdout;
    for shown in ["svc", "http://gate.test", "max_connections", "10000", "secret_hash"] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    for part in ["argon2id", "c29tZXNhbHQ", "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHApl8ArZWb2GRPPc"] {
        assert!(!said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_missing_file_and_a_wrong_command_line_are_exit_code_2() {
    let place = Place::new(CONFIG);
    std::fs::remove_file(place.path("gateway.toml")).unwrap();
    for arguments in [&["check"][..], &["user", "list"], &["user", "lst"], &["--no-such-option"], &["keys", "import"]] {
        let ran = place.run(arguments, "");
        assert_eq!(ran.code, Some(2), "{arguments:?}: {ran:?}");
        assert!(!ran.stderr.is_empty());
    }
    let said = place.run(&["check"], "").stderr;
    assert!(
        said.contains("gateway.toml: cannot be read") && said.contains("create one with `rotogate init`"),
        "{said}"
    );
    let short = concat!("rotogate ", env!("CARGO_PKG_VERSION"));
    assert_eq!(place.run(&["-V"], "").stdout.trim(), short);
    let long = place.run(&["--version"], "").stdout;
    let lines: Vec<_> = long.lines().collect();
    assert!(lines[0] == short && lines[1].starts_with("revision: "), "{long}");
    assert!(lines[2] == "profile: none" && lines[3].starts_with("features: "), "{long}");
}

#[test]
fn o1_an_upstream_that_is_the_gate_itself_is_refused() {
    let place = Place::new("");
    for listener in ["server", "admin"] {
        let config = CONFIG
            .replace(
                &format!("[{listener}]\nlisten = \"127.0.0.1:0\""),
                &format!("[{listener}]\nlisten = \"127.0.0.1:8099\""),
            )
            .replace("echo:", "http://localhost:8099");
        place.write_config(&config);
        let ran = place.run(&["check"], "");
        assert!(ran.code == Some(2) && ran.stderr.contains("upstreams[0].urls[0]"), "{ran:?}");
    }
}

fn set(place: &Place, name: &str, mode: u32) {
    fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn o15_a_configuration_that_others_may_write_is_not_read_and_one_of_our_own_group_is() {
    let place = Place::new(CONFIG);
    for (mode, code) in [(0o666, Some(2)), (0o646, Some(2)), (0o664, Some(0)), (0o644, Some(0))] {
        set(&place, "gateway.toml", mode);
        let checked = place.run(&["check"], "");
        assert_eq!(checked.code, code, "{mode:o}: {checked:?}");
        if code == Some(2) {
            let said = format!("everyone may change it (mode {mode:o}): chmod o-w");
            assert!(checked.stderr.contains(&said), "{checked:?}");
            assert_eq!(place.run(&[], "").code, Some(2), "a start");
        }
    }
    // The mode of a clone under umask 002, and a mode that no folder may have.
    set(&place, "", 0o775);
    assert_eq!(place.run(&["check"], "").code, Some(0));
    set(&place, "", 0o777);
    assert!(place.run(&["check"], "").stderr.contains("everyone may replace the file"));
    set(&place, "", 0o700);
}

#[test]
fn o15_a_place_for_files_that_others_may_exchange_is_refused_before_the_first_start_and_after_it() {
    let place = Place::new(CONFIG);
    fs::create_dir(place.path("data")).unwrap();
    set(&place, "data", 0o777);
    for arguments in [&["check"][..], &[]] {
        let ran = place.run(arguments, "");
        assert!(ran.code == Some(2) && ran.stderr.contains("data has mode 777: chmod o-w"), "{ran:?}");
    }
    assert_eq!(fs::read_dir(place.path("data")).unwrap().count(), 0, "nothing was made");
    set(&place, "data", 0o700);
    assert_eq!(place.run(&["keys", "init"], "").code, Some(0));
    // The folder of the keys itself could be exchanged.
    set(&place, "data", 0o777);
    for arguments in [&["check"][..], &["keys", "list"], &[]] {
        let ran = place.run(arguments, "");
        assert!(ran.code != Some(0) && ran.stderr.contains("may replace the file"), "{arguments:?} {ran:?}");
    }
    // A folder that the gate makes, in a volume that everyone may write.
    let mut config = CONFIG.to_owned();
    for (section, key, file) in [
        ("admin", "token_file", "admin.token"),
        ("issuer", "keys", "keys"),
        ("store", "path", "rotogate.redb"),
        ("directory", "path", "users.toml"),
    ] {
        config = with(&config, section, &format!("{key} = \"volume/data/{file}\"\n"));
    }
    let place = Place::new(&config);
    fs::create_dir(place.path("volume")).unwrap();
    set(&place, "volume", 0o777);
    assert_eq!(place.run(&["check"], "").code, Some(0));
    assert_eq!(place.run(&["keys", "init"], "").code, Some(0));
    assert_eq!(place.run(&["check"], "").code, Some(0));
}

#[test]
fn o15_a_hash_that_everyone_may_read_is_a_warning_and_strict_takes_it_for_an_error() {
    let service = format!("[[clients]]\nid = \"svc\"\ngrants = [\"client_credentials\"]\nsecret_hash = \"{PHC}\"\n");
    let place = Place::new(&format!("{CONFIG}{service}"));
    set(&place, "gateway.toml", 0o644);
    let said = place.done(&["check"], "").stdout;
    assert!(
        said.contains(
            "clients[1].secret_hash: every user of this machine can read the hash (mode 644): run `chmod o-r"
        ),
        "{said}"
    );
    let json = place.json(&["check"], "");
    assert_eq!(json["warnings"][0]["key"], "clients[1].secret_hash");
    assert_eq!(place.run(&["check", "--strict"], "").code, Some(1));
    set(&place, "gateway.toml", 0o640);
    assert!(!place.done(&["check", "--strict"], "").stdout.contains("warning"));
}

#[test]
fn o12_what_is_suspicious_is_a_warning() {
    let place = Place::new(CONFIG);
    assert_eq!(place.start().stop(), Some(0));
    assert_eq!(place.run(&["check", "--strict"], "").code, Some(0));
    set(&place, "data/keys", 0o755);
    let said = place.done(&["check"], "").stdout;
    assert!(
        said.contains("issuer.keys: ")
            && said.contains("other users can access this folder (mode 755): run `chmod 700"),
        "{said}"
    );
    let gate = place.start();
    assert!(gate.log().contains("other users can access this folder"), "{}", gate.log());
}

#[tokio::test]
async fn o12_an_address_in_use_is_reported_but_not_that_of_the_gate_that_runs_here() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let admin = "[admin]\nlisten = \"127.0.0.1:0\"";
    let config = |public: &str| {
        let config = CONFIG.replacen("listen = \"127.0.0.1:0\"", &format!("listen = \"{public}\""), 1);
        config.replace(admin, &format!("[admin]\nlisten = \"{}\"", gate.admin))
    };
    place.write_config(&config(&gate.address.to_string()));
    let checked = place.run(&["check", "--strict"], "");
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{checked:?}");

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    place.write_config(&config(&taken));
    let checked = place.run(&["check"], "");
    assert_eq!(checked.code, Some(2), "{checked:?}");
    let said = format!("gateway.toml:3:10: server.listen: cannot listen on {taken}");
    assert!(checked.stderr.contains(&said) && checked.stderr.contains("another program listens there"), "{checked:?}");

    // Without an answer of the admin listener, the gate of this store may hold the address: `check` says so, and
    // succeeds.
    place.write_config(&config(&gate.address.to_string()).replace(&gate.admin.to_string(), "127.0.0.1:0"));
    let checked = place.run(&["check"], "");
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("probably by the gate that runs on this store"), "{checked:?}");
    assert_eq!(place.run(&["check", "--strict"], "").code, Some(1));
}

#[test]
fn o12_what_may_not_be_looked_at_is_neither_good_nor_bad() {
    let place = Place::new(CONFIG);
    assert_eq!(place.start().stop(), Some(0));
    let (mut command, _) = support::of_another_user(&place);
    command.arg("check");
    let ran = command.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    for key in ["issuer.keys", "directory.path", "admin.token_file", "store.path"] {
        assert!(said.lines().any(|line| line.contains(&format!("{key}: not checked: "))), "{key}: {said}");
    }
    let ran = command.arg("--json").output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((ran.status.code(), &json["error"]["code"]), (Some(1), &"not_checked".into()), "{json}");
    set(&place, "data", 0o700);
}

#[test]
fn p9_o12_what_is_printed_can_be_checked_again_and_is_the_same() {
    let service = format!("[[clients]]\nid = \"svc\"\ngrants = [\"client_credentials\"]\nsecret_hash = \"{PHC}\"\n");
    let place = Place::new(&format!("{CONFIG}{service}"));
    let printed = place.done(&["check", "--print"], "").stdout;
    assert!(place.json(&["check", "--print"], "")["configuration"].as_str().unwrap().lines().count() > 50);
    set(&place, "gateway.toml", 0o600);
    place.write_config(&printed);
    let again = place.done(&["check"], "").stdout;
    assert!(again.contains("clients[1].secret_hash: is the mask"), "{again}");
    let configuration = |printed: &str| -> toml::Table { printed.parse().unwrap() };
    let reprinted = place.done(&["check", "--print"], "").stdout;
    assert_eq!(configuration(&reprinted), configuration(&printed));
    assert_eq!(place.run(&["check", "--strict"], "").code, Some(1));
}

#[test]
fn p61_o23_variables_of_kubernetes_services_stop_neither_start_nor_check_and_misspelt_keys_do() {
    let place = Place::new(CONFIG);
    // Of services with the names rotogate, rotogate-admin and rotogate-log-2, as Kubernetes and Docker links write them.
    let of_services = [
        ("ROTOGATE_SERVICE_HOST", "10.96.0.7"),
        ("ROTOGATE_SERVICE_PORT", "8080"),
        ("ROTOGATE_SERVICE_PORT_HTTP", "8080"),
        ("ROTOGATE_PORT", "tcp://10.96.0.7:8080"),
        ("ROTOGATE_PORT_8080_TCP", "tcp://10.96.0.7:8080"),
        ("ROTOGATE_PORT_8080_TCP_PROTO", "tcp"),
        ("ROTOGATE_PORT_8080_TCP_PORT", "8080"),
        ("ROTOGATE_PORT_8080_TCP_ADDR", "10.96.0.7"),
        ("ROTOGATE_ADMIN_SERVICE_HOST", "10.96.0.8"),
        ("ROTOGATE_LOG_2_PORT_53_UDP_ADDR", "10.96.0.9"),
        ("ROTOGATE_LOG_2_PORT_5000_SCTP_PROTO", "sctp"),
    ];
    let check = |variables: &[(&str, &str)]| {
        let ran = place.command().args(["check", "--strict"]).envs(variables.iter().copied()).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    };
    assert_eq!(check(&of_services), (Some(0), String::new()));
    let gate = place.start_with(|command| {
        command.envs(of_services);
    });
    for (name, _) in of_services {
        assert!(
            gate.log().lines().any(|line| line.contains("ignored") && line.contains(name)),
            "{name}: {}",
            gate.log()
        );
    }
    // A reload and an upgrade have these variables, too.
    gate.signal("HUP");
    while !gate.log().contains("configuration reloaded") {
        std::thread::yield_now();
    }
    assert_eq!(gate.stop(), Some(0));
    for (name, value, hint) in [
        ("ROTOGATE_STORE_PATH", "db", "did you mean ROTOGATE_STORE__PATH?"),
        ("ROTOGATE_LOG__LEVL", "info", "did you mean level?"),
        ("ROTOGATE_PORT", "8080", "unknown key"),
        ("ROTOGATE_SERVICE__HOST", "x", "unknown key"),
    ] {
        let (code, said) = check(&[of_services[0], (name, value)]);
        assert!(code == Some(2) && said.contains(&format!("environment {name}: ")) && said.contains(hint), "{said}");
        let said = place.refused_with(|command| {
            command.env(name, value);
        });
        assert!(said.contains(hint), "{said}");
    }
}

#[test]
fn p67_the_advised_command_makes_the_folder_of_a_log() {
    let place = Place::new(&format!("{CONFIG}[access_log]\noutput = \"logs/access.log\"\n"));
    let ran = place.run(&["check"], "");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let advised = ran
        .stderr
        .lines()
        .find_map(|line| line.split_once(": the folder of this file does not exist. Create it: "))
        .unwrap()
        .1;
    assert!(Command::new("sh").args(["-c", advised]).current_dir(place.path("")).status().unwrap().success());
    place.done(&["check"], "");
    drop(place.start());
    assert!(place.path("logs/access.log").exists());
}

/// Clear text within one's own networks is a decision. With a public host it is a mistake.
#[test]
fn p67_clear_text_at_a_public_host_is_a_warning_that_https_ends() {
    let check = |url: &str| {
        let config = with(CONFIG, "server", &format!("public_url = \"{url}\""));
        Place::new(&config).done(&["check"], "").stdout
    };
    let warned = check("http://api.example.com");
    assert!(warned.contains("server.public_url: is http: clients send their tokens to api.example.com in clear text"));
    for good in
        ["https://api.example.com", "http://10.0.0.7", "http://[fd00::1]:8080", "http://gate", "http://localhost:8080"]
    {
        assert!(!check(good).contains("server.public_url"), "{good}");
    }
}

#[test]
fn b54_the_example_of_each_provider_where_browsers_log_in_is_good() {
    for name in ["keycloak", "entra", "google", "auth0"] {
        let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("examples/providers");
        let written = fs::read_to_string(root.join(name).join("browser.toml")).unwrap();
        assert!(written.contains("dialect = \"browser\"") && written.contains(&format!("provider = \"{name}\"")));
        let place = Place::new(&written);
        let secret = place.path("client.secret");
        fs::write(&secret, "a secret of the client at its provider").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let said = place.done(&["check", "--strict"], "");
        assert!(said.stdout.contains("gateway.toml: valid"), "{name}: {said:?}");
        // The same issuer as in the example for its tokens.
        let url = written.lines().find(|line| line.starts_with("url = ")).unwrap();
        let tokens = fs::read_to_string(root.join(name).join("gateway.toml")).unwrap();
        assert!(tokens.contains(url.split("  ").next().unwrap()), "{name}");
    }
}
