//! Configurations with one mistake each. `check`, a start, a reload and an in-place upgrade refuse each of them with the
//! same text.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use support::pki::Pki;
use support::{CONFIG, Place, until, with};

fn set(place: &Place, name: &str, mode: u32) {
    fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

/// A file that only its owner may read.
fn write(place: &Place, name: &str, text: &str) {
    fs::write(place.path(name), text).unwrap();
    set(place, name, 0o600);
}

/// Makes sure that a file is gone.
fn remove(place: &Place, name: &str) {
    if let Err(error) = fs::remove_file(place.path(name)) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{name}");
    }
}

/// Files and folders with their modes and content.
fn state(place: &Place) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut folders = vec![place.path("")];
    let mut all = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::metadata(&path).unwrap();
            all.push((path.clone(), meta.permissions().mode(), fs::read(&path).unwrap_or_default()));
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    all.sort();
    all
}

fn of_issuer(good: &str, keys: &str) -> String {
    format!("{good}[[issuers]]\nurl = \"https://idp.test\"\naudience = [\"api\"]\neverywhere = true\n{keys}\n")
}

fn key_file(place: &Place, kind: &str) -> String {
    let files = fs::read_dir(place.path("data/keys")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files = files.map(|name| name.into_string().unwrap());
    format!("data/keys/{}", files.find(|name| name.ends_with(kind)).unwrap())
}

/// A certificate of ours, and the key of another one.
fn pairs(place: &Place) {
    let pki = Pki::new();
    let (one, other) = (pki.issue(&["gate.test"]), pki.issue(&["gate.test"]));
    write(place, "cert.pem", &one.cert);
    write(place, "key.pem", &one.key);
    write(place, "other.pem", &other.key);
}

/// The mistake; the key at fault, the message, and its remedy.
type Mistake = (fn(&Place, &str) -> String, &'static str, &'static str, &'static str);

/// Mistakes in files that the configuration names.
const IN_FILES: &[Mistake] = &[
    (
        |_, good| good.replacen("listen = \"127.0.0.1:0\"", "listen = 8080", 1),
        "server.listen",
        "found 8080",
        "expected an address and port such as \"127.0.0.1:8080\"",
    ),
    (
        |_, good| format!("{good}[[routes]]\npath = \"/{{*any}}\"\nupstream = \"app\"\n"),
        "routes[2].path",
        "serves the same host, path and method as",
        "remove one of the two",
    ),
    (
        |place, good| {
            set(place, "data/users.toml", 0o644);
            with(good, "directory", "path = \"data/users.toml\"")
        },
        "directory.path",
        "its mode 644 gives others access",
        "chmod 600",
    ),
    (
        |place, good| {
            fs::write(place.path("data/users.toml"), "[[users]]\nsubject = 1\n").unwrap();
            good.to_owned()
        },
        "directory.path",
        "users.toml:2:11: users[0].subject",
        "expected 1 to 256 visible ASCII characters",
    ),
    (
        |place, good| {
            set(place, &key_file(place, ".pem"), 0o644);
            good.to_owned()
        },
        "issuer.keys",
        "its mode 644 gives others access",
        "chmod 600",
    ),
    (
        |place, good| {
            set(place, "data/keys/keyring.toml", 0o640);
            set(place, "data/keys", 0o777);
            good.to_owned()
        },
        "issuer.keys",
        "may be written by others (mode 0777)",
        "chmod 700",
    ),
    (
        |place, good| {
            remove(place, "data/keys/keyring.toml");
            good.to_owned()
        },
        "issuer.keys",
        "a key without a keyring.toml",
        "bring it back",
    ),
    (
        |place, good| {
            set(place, "data/admin.token", 0o604);
            good.to_owned()
        },
        "admin.token_file",
        "its mode 604 gives others access",
        "chmod 600",
    ),
    (
        |place, good| {
            write(place, "data/admin.token", "too short a token");
            good.to_owned()
        },
        "admin.token_file",
        "fewer than 32 characters",
        "Write a longer token to the file",
    ),
    (
        |place, good| {
            set(place, "data/rotogate.redb", 0o666);
            good.to_owned()
        },
        "store.path",
        "its mode 666 gives others access",
        "chmod 600",
    ),
    (
        |place, good| {
            remove(place, "data/rotogate.redb");
            good.to_owned()
        },
        "store.path",
        "LOOKS LIKE A RESTORED BACKUP OR A LOST FILE",
        "Put the latest store back",
    ),
    (
        |place, good| {
            write(place, "data/keys/store.mark", "?");
            good.to_owned()
        },
        "store.path",
        "the high-water mark of the store, is damaged",
        "start again",
    ),
    (
        |place, good| {
            set(place, "data", 0o777);
            good.to_owned()
        },
        "directory.path",
        "everyone may replace the file",
        "chmod o-w",
    ),
    (
        |_, good| of_issuer(good, "jwks_file = \"missing.json\""),
        "issuers[0].jwks_file",
        "missing.json: cannot be read",
        "correct the path, or create the file",
    ),
    (
        |_, good| of_issuer(good, "jwks_file = \"http://idp/jwks\""),
        "issuers[0].jwks_file",
        "expected a file, found the URL",
        "write it into `jwks_url` instead",
    ),
    (
        |place, good| {
            fs::write(place.path("idp.json"), "{").unwrap();
            of_issuer(good, "jwks_file = \"idp.json\"")
        },
        "issuers[0].jwks_file",
        "not a JWK set",
        "save the JWK Set that ",
    ),
    (
        |place, good| {
            fs::write(place.path("idp.pem"), "-----BEGIN PUBLIC KEY-----\nno key").unwrap();
            of_issuer(good, "jwks_file = \"idp.pem\"\nalgorithm = \"RS256\"")
        },
        "issuers[0].jwks_file",
        "not a usable RS256 key",
        "a PEM file with one public key is needed",
    ),
    (
        |place, good| {
            fs::write(place.path("idp.pem"), "no key").unwrap();
            set(place, "idp.pem", 0o666);
            of_issuer(good, "jwks_file = \"idp.pem\"\nalgorithm = \"RS256\"")
        },
        "issuers[0].jwks_file",
        "everyone may change it (mode 666)",
        "chmod o-w",
    ),
    (
        |place, good| {
            fs::create_dir_all(place.path("open")).unwrap();
            fs::write(place.path("open/ca.pem"), "no certificate").unwrap();
            set(place, "open", 0o777);
            good.replace("\"echo:\"]", "\"https://app.test\"]\nca = \"open/ca.pem\"")
        },
        "upstreams[0].ca",
        "everyone may replace the file",
        "chmod o-w",
    ),
    (
        |_, good| with(good, "server", "tls = { cert = \"nope.pem\", key = \"nope.key\" }"),
        "server.tls.cert",
        "nope.pem: cannot be read",
        "correct the path, or create the file",
    ),
    (
        |_, good| with(good, "store", "path = \"gateway.toml/store.redb\""),
        "store.path",
        "cannot be opened: Not a directory",
        "correct the path, or create the file",
    ),
    (
        |place, good| {
            pairs(place);
            set(place, "key.pem", 0o644);
            with(good, "server", "tls = { cert = \"cert.pem\", key = \"key.pem\" }")
        },
        "server.tls.key",
        "its mode 644 gives others access",
        "chmod 600",
    ),
    (
        |place, good| {
            pairs(place);
            with(good, "server", "tls = { cert = \"cert.pem\", key = \"other.pem\" }")
        },
        "server.tls.key",
        "is not the private key of the first certificate in",
        "must be the server's own",
    ),
    (
        |place, good| {
            pairs(place);
            set(place, "key.pem", 0o604);
            good.replace(
                "\"echo:\"]",
                "\"https://app.test\"]\nclient_cert = { cert = \"cert.pem\", key = \"key.pem\" }",
            )
        },
        "upstreams[0].client_cert",
        "its mode 604 gives others access",
        "chmod 600",
    ),
    (
        |place, good| {
            write(place, "svc.hash", "no hash");
            format!(
                "{good}[[clients]]\nid = \"svc\"\ngrants = [\"client_credentials\"]\nsecret_hash_file = \"svc.hash\"\n"
            )
        },
        "clients[1].secret_hash_file",
        "is not a PHC string",
        "expected $argon2id$",
    ),
    (
        |place, good| {
            write(place, "secret", "x");
            set(place, "secret", 0o644);
            let lines = "introspection = { url = \"https://idp.test/i\", client_id = \"x\", secret_file = \"secret\" }";
            of_issuer(good, lines)
        },
        "issuers[0].introspection.secret_file",
        "its mode 644 gives others access",
        "chmod 600",
    ),
];

/// Lines that are added to a good configuration; the key at fault, the message, and its remedy.
const IN_LINES: &[(&str, &str, &str, &str)] = &[
    ("[sessions]\nacess_ttl = \"5m\"", "sessions.acess_ttl", "unknown key", "did you mean access_ttl?"),
    ("[sessions]\naccess_ttl = 10", "sessions.access_ttl", "expected a duration", "write the unit too, as in \"10s\""),
    ("[sessions]\naccess_ttl = \"5d\"", "sessions.access_ttl", "is 5d", "must not exceed max_access_ttl (1d)"),
    (
        "[[routes]]\npath = \"/admin/*\"\nupstream = \"app\"",
        "routes[2].path",
        "is not a valid path pattern",
        "write \"/admin/{*rest}\"",
    ),
    (
        "[[routes]]\npath = \"/c\"\nupstream = \"ap\"",
        "routes[2].upstream",
        "there is no upstream",
        "did you mean \"app\"?",
    ),
    (
        "[[routes]]\npath = \"/c\"\nauth = \"none\"\nscopes = [\"a\"]\nupstream = \"app\"",
        "routes[2].scopes",
        "has no effect, because `auth",
        "remove one of the two",
    ),
    (
        "[[routes]]\npath = \"/c\"\nupstream = \"app\"\nmax_stream = \"1h\"",
        "routes[2].max_stream",
        "later version",
        "remove it",
    ),
    (
        "[[routes]]\npath = \"/{*rest}\"\nupstream = \"app\"",
        "routes[2].path",
        "is listed twice",
        "remove one of the two",
    ),
    (
        "[[endpoints]]\ndialect = \"envelope\"\npath = \"/{account}/connect/token\"",
        "endpoints[1].path",
        "is listed twice",
        "another path",
    ),
    (
        "[[endpoints]]\ndialect = \"kuzle\"",
        "endpoints[1].dialect",
        "unknown value \"kuzle\"",
        "did you mean \"kuzzle\"?",
    ),
    ("[[clients]]\nid = \"web\"", "clients[1].id", "is listed twice", "remove or rename one of the two"),
    (
        "[[clients]]\nid = \"svc\"\ngrants = [\"client_credentials\"]",
        "clients[1].grants",
        "is only for confidential clients",
        "give the client a `secret_hash`, `secret_hash_file` or `keys`",
    ),
    ("[cors]\norigins = [\"*\"]", "cors.origins[0]", "allows every website", "list the origins"),
    ("[access_log]\noutput = \"stdrr\"", "access_log.output", "found \"stdrr\"", "expected \"stderr\""),
    (
        "[[upstreams]]\nname = \"b\"\nurls = [\"http://127.0.0.1:1/x\"]",
        "upstreams[1].urls[0]",
        "found \"http://127.0.0.1:1/x\"",
        "without a path",
    ),
    (
        "[[upstreams]]\nname = \"b\"\nurls = [\"http://127.0.0.1:1\"]\nca = \"x.pem\"",
        "upstreams[1].ca",
        "only applies to https://",
        "remove it",
    ),
    (
        "[[endpoints]]\ndialect = \"kuzzle\"\n[[routes]]\npath = \"/users/{*rest}\"\nscopes = [\"admin\"]\nupstream = \"app\"",
        "routes[2].kuzzle",
        "requires more than /{*rest}",
        "Name here the calls",
    ),
    ("[cors]\norigins = \"https://a.test\"", "cors.origins", "expected a list", "as in [\"https://a.test\"]"),
    (
        "[audit_log]\noutput = \"missing/audit.log\"",
        "audit_log.output",
        "the folder of this file does not exist",
        "mkdir -p ",
    ),
    (
        "[[issuers]]\nurl = \"https://idp.test/x/.well-known/openid-configuration\"\naudience = [\"api\"]",
        "issuers[0].url",
        "is the URL of the issuer's metadata",
        "write the issuer, \"https://idp.test/x\"",
    ),
    (
        "[[issuers]]\nurl = \"https://login.microsoftonline.com/common/v2.0\"\naudience = [\"api\"]",
        "issuers[0].url",
        "no token has this issuer",
        "write an entry for each tenant",
    ),
    (
        "[[issuers]]\nurl = \"https://acme.eu.auth0.com\"\naudience = [\"api\"]",
        "issuers[0].url",
        "end with a slash",
        "write \"https://acme.eu.auth0.com/\"",
    ),
    (
        "[[issuers]]\nurl = \"http://idp.test\"\naudience = [\"api\"]\neverywhere = true\ndiscovery = true",
        "issuers[0].url",
        "uses http",
        "expected https",
    ),
];

/// The same mistake, for a check, a start, a reload and an upgrade. Returns the differences from the expected text.
async fn refused_everywhere(make: impl Fn(&Place, &str) -> String, key: &str, said: &str, remedy: &str) -> Vec<String> {
    // The configuration has the tables, so that a key has a line.
    let good = CONFIG.replace("[issuer]", "[store]\n[directory]\n[issuer]");
    let place = Place::new(&good);
    let gate = place.start();
    let mut faults = Vec::new();
    let mut fault = |what: String| faults.push(format!("{key}, {said}: {what}"));
    let of_key = format!(": {key}: ");
    let wrong = make(&place, &good);
    place.write_config(&wrong);
    for (signal, end) in [("HUP", "the old one stays in force"), ("USR2", "this program keeps running")] {
        gate.signal(signal);
        let mut line = None;
        until("it is refused", async || {
            line = gate.log().lines().find(|line| line.contains(end)).map(str::to_owned);
            line.is_some()
        })
        .await;
        let line = line.unwrap().replace("\\\"", "\"");
        if ![&of_key, said, remedy].iter().all(|part| line.contains(*part)) {
            fault(format!("{signal}: {line}"));
        }
        assert_eq!(gate.call(http::Method::GET, "/public/x", &[], "").await.status, http::StatusCode::OK);
    }
    let log = gate.log();
    if log.contains("stopping: no new connections") || log.contains("configuration reloaded") {
        fault(format!("something was given up: {log}"));
    }
    // The started process itself ends.
    assert_eq!(gate.stop(), Some(0), "{said}");
    // A stop writes files: the mistake may be among them.
    make(&place, &good);
    let before = state(&place);
    let checked = place.run(&["check"], "");
    let at = |line: &str| {
        line.split_once("gateway.toml:").is_some_and(|(_, line)| line.starts_with(|c: char| c.is_ascii_digit()))
    };
    let is_it = |line: &str| at(line) && line.contains(&of_key) && line.contains(said) && line.contains(remedy);
    if checked.code != Some(2) || !checked.stderr.lines().any(is_it) {
        fault(format!("check: {checked:?}"));
    }
    let json: serde_json::Value = serde_json::from_str(&place.run(&["check", "--json"], "").stdout).unwrap();
    let is_it = |at: &serde_json::Value| {
        at["key"] == key
            && at["line"].is_u64()
            && at["file"].as_str().is_some_and(|file| file.ends_with("gateway.toml"))
            && at["detail"].as_str().unwrap().contains(said)
            && at["detail"].as_str().unwrap().contains(remedy)
    };
    if json["error"]["code"] != "configuration" || !json["error"]["at"].as_array().unwrap().iter().any(is_it) {
        fault(format!("check --json: {json}"));
    }
    if state(&place) != before {
        fault("check has made or changed a file".to_owned());
    }
    let refused = place.refused();
    if ![&of_key, said, remedy].iter().all(|part| refused.contains(*part)) {
        fault(format!("start: {refused}"));
    }
    if state(&place) != before {
        fault("the start has made or changed a file".to_owned());
    }
    faults
}

#[test]
fn p1_p2_o12_o15_check_start_reload_and_upgrade_refuse_the_same_with_file_line_key_and_remedy() {
    type Make = Box<dyn Fn(&Place, &str) -> String + Send>;
    let in_files = IN_FILES.iter().map(|(make, key, said, remedy)| (Box::new(make) as Make, *key, *said, *remedy));
    let in_lines = IN_LINES.iter().map(|(lines, key, said, remedy)| {
        (Box::new(move |_: &Place, good: &str| format!("{good}{lines}\n")) as Make, *key, *said, *remedy)
    });
    let mistakes: Vec<_> = in_files.chain(in_lines).collect();
    assert!(mistakes.len() >= 30);
    let left = Mutex::new(mistakes);
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut faults = Vec::new();
        loop {
            let Some((make, key, said, remedy)) = left.lock().unwrap().pop() else { return faults };
            faults.extend(runtime.block_on(refused_everywhere(make, key, said, remedy)));
        }
    };
    let faults: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
