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
