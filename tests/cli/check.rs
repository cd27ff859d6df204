//! `rotogate check`.

use super::support::{CONFIG, Place};

const PHC: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHApl8ArZWb2GRPPc";

#[test]
fn a_good_configuration_is_called_good_and_nothing_is_made() {
    let place = Place::new(CONFIG);
    assert!(place.done(&["check"], "").stdout.contains("gateway.toml: good"));
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
    // What does not start says the same.
    assert_eq!(place.run(&["serve"], "").code, Some(2));
}

#[test]
fn t21_patterns_of_other_proxies_are_errors_that_show_the_right_form() {
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
fn t21_what_a_route_does_not_cover_and_what_goes_around_it_is_warned_of() {
    let routes = "[[routes]]\npath = \"/admin/{*rest}\"\nscopes = [\"admin\"]\nupstream = \"app\"\n\
                  [[routes]]\npath = \"/Admin/help\"\nauth = \"none\"\nupstream = \"app\"\n\
                  [[routes]]\npath = \"/login/token\"\nupstream = \"app\"\n\
                  [[endpoints]]\ndialect = \"envelope\"\npath = \"/login/token\"\n";
    let place = Place::new(&format!("{CONFIG}{routes}"));
    let said = place.done(&["check"], "").stdout;
    let first = CONFIG.lines().count();
    for (line, route, text) in [
        (2, 2, "does not cover /admin, which /{*rest} would serve and ask for less"),
        (6, 3, "asks for less than /admin/{*rest}, which servers take it for"),
        (10, 4, "is never reached: /login/token is answered by the endpoint"),
    ] {
        let at = format!("gateway.toml:{}:8: routes[{route}].path: {text}", first + line);
        assert!(said.contains(&at), "{at}: {said}");
    }
    assert!(said.contains("gateway.toml: good"), "{said}");
    assert_eq!(place.json(&["check"], "")["warnings"].as_array().map(Vec::len), Some(3));
    // A start says the same.
    let gate = place.start();
    assert!(gate.log().contains("does not cover /admin"));
}

#[test]
fn t22_a_scoped_route_beside_unscoped_envelopes_needs_a_rule() {
    let kuzzle = "[[endpoints]]\ndialect = \"kuzzle\"\n[[routes]]\npath = \"/users/{*rest}\"\nscopes = [\"admin\"]\n\
                  upstream = \"app\"\n";
    let place = Place::new(&format!("{CONFIG}{kuzzle}"));
    let ran = place.run(&["check"], "");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("routes[2].kuzzle: asks for more than /{*rest}"), "{ran:?}");
    assert_eq!(place.run(&["serve"], "").code, Some(2));
    place.write_config(&format!("{CONFIG}{kuzzle}kuzzle = [\"security:*\"]\n"));
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
    assert!(ran.stderr.contains("routes[3].kuzzle: x:y has a rule already: /users/{*rest}"), "{ran:?}");
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
    assert!(place.run(&["check"], "").stderr.contains("gateway.toml: cannot be read"));
    assert_eq!(place.run(&["--version"], "").stdout.trim(), concat!("rotogate ", env!("CARGO_PKG_VERSION")));
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
