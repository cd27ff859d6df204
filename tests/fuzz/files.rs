//! The files and records that the gate reads besides its configuration: users, the keys of other issuers, and the
//! records of its store.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rotogate::store::redb::records_read_back_the_same;
use rotogate_core::password::{Accepted, CostClass, FirebaseParameters, Legacy, PasswordHash, Passwords};
use rotogate_core::token::{IssuerKeys, IssuerRules, Verifier};
use rotogate_directories::users::FileDirectory;
use serde_json::Value;
use tempfile::TempDir;

use crate::input::target;
use crate::json::names_members_once;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
static PASSWORDS: LazyLock<Arc<Passwords>> = LazyLock::new(|| Arc::new(Passwords::new(1, 1)));

/// Checks the users of a file; the error names the problem.
fn users_are(text: &str) -> Result<(), String> {
    let path: PathBuf = FOLDER.path().join("users.toml");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    FileDirectory::open(&path, Arc::clone(&PASSWORDS)).map(|_| ()).map_err(|error| error.to_string())
}

target!(
    /// The same text is read the same way. An unknown table after any valid users is refused (O10). An error never
    /// repeats the text in place of a hash (A6).
    users,
    &[
        "[[users]]\n", "subject = \"s\"\n", "username = \"u\"\n", "account = \"a\"\n", "password = \"Hunter2-in-clear\"\n",
        "active = false\n", "sessions_valid_from = 2026-01-31T12:00:00Z\n", "sessions_valid_from = 1\n", "scopes = [\"read\"]\n",
        "profile = { a = 1.5 }\n", "[users.profile]\n", "nan", "inf", "1e400", "-1", "\"", "\n", "=", "{", "}", "[", "]", "\u{feff}",
        "9999-12-31T23:59:59.999999999Z", "0000-01-01T00:00:00Z", "$argon2id$v=19$m=99999999,t=1,p=1$", "m=0,t=0,p=0",
    ],
    |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let (first, second) = (users_are(text), users_are(text));
        assert_eq!(first, second);
        match first {
            Ok(()) => assert!(users_are(&format!("{text}\n[nobody_knows_this]\n")).is_err(), "an unknown table is taken"),
            Err(error) => {
                assert!(!error.is_empty());
                // Only where it is the password's value, and the file is TOML at all.
                let is_password = text.lines().all(|line| !line.contains("Hunter2") || line.trim() == PASSWORD);
                assert!(!is_password || !error.contains("Hunter2"), "{error}");
            }
        }
    }
);

/// All that a configuration can accept.
static ACCEPTED: LazyLock<Accepted> = LazyLock::new(|| {
    Accepted {
    legacy: Legacy::NAMES.iter().map(|(_, scheme)| *scheme).collect(),
    firebase: FirebaseParameters::from_json(
        r#"{"base64_signer_key": "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVM=", "base64_salt_separator": "Bw==", "rounds": 8, "mem_cost": 14}"#,
    )
    .ok(),
    ..Accepted::default()
}
});

target!(
    /// A hash that is accepted has a cost within the bounds (I30), and is not the text that a password would be: it has a
    /// salt and a digest. Weak schemes are accepted only if they are listed.
    password_hash,
    &[
        "$", "$argon2id$v=19$m=64,t=2,p=1$", "m=262145", "t=21", "p=9", "$2b$04$", "$2x$", "15", "16", "{noop}", "{bcrypt}",
        "{pbkdf2}", "{scrypt}$", "e0801", "bcrypt_sha256$", "$bcrypt-sha256$v=2,t=2b,r=", "pbkdf2_sha256$", "5000001",
        "99999999999", "scrypt$", "$scrypt$ln=", "r=8,p=1", "$7$", "C6..../....", "$firebase-scrypt$m=14,r=8$", "$P$", "$H$",
        "$5$rounds=", "$6$rounds=", "AQAAAAIAAYag", "!", "=", "+", "-", "0", "\u{e9}",
    ],
    |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let weak = ["$P$", "$H$", "$5$", "$6$"].iter().any(|id| text.starts_with(id));
        let listed = PasswordHash::parse(text, &ACCEPTED);
        let plain = PasswordHash::parse(text, &Accepted::default());
        assert!(plain.is_err() || !weak, "a weak scheme is accepted");
        match listed {
            Ok(hash) => {
                assert!(text.len() > 30 && !text.starts_with("{noop}"), "accepted: {text}");
                let is_bounded = match hash.class() {
                    CostClass::Argon2(cost) => cost.memory_kib <= 262_144 && cost.passes <= 20 && cost.lanes <= 8,
                    CostClass::Bcrypt { cost } => (4..=15).contains(&cost),
                    CostClass::Pbkdf2 { iterations, .. } => iterations <= 5_000_000,
                    CostClass::Scrypt { p, .. } => hash.class().memory_kib() <= 65_536 && p <= 8,
                    CostClass::Phpass { rounds } | CostClass::ShaCrypt { rounds, .. } => rounds <= 1_000_000,
                    other => panic!("no bound for {other:?}"),
                };
                assert!(is_bounded, "{:?} of {text}", hash.class());
            }
            Err(_) => assert!(plain.is_err(), "more is accepted if less is listed"),
        }
    }
);

const PASSWORD: &str = "password = \"Hunter2-in-clear\"";

/// The kind of each key, if it is known.
fn kinds(text: &[u8]) -> Vec<String> {
    let set: Value = serde_json::from_slice(text).unwrap_or_default();
    let keys = set["keys"].as_array().cloned().unwrap_or_default();
    keys.iter().map(|key| key["kty"].as_str().unwrap_or_default().to_owned()).collect()
}

target!(
    /// A set that is taken has one reading (J11) and keys that are public (J2), and makes a verifier.
    jwks,
    &[
        "\"kty\"", "\"oct\"", "\"RSA\"", "\"EC\"", "\"OKP\"", "\"AKP\"", "\"k\"", "\"alg\"", "\"HS256\"", "\"RS256\"", "\"none\"",
        "\"use\":\"enc\"", "\"key_ops\":[\"sign\"]", "\"kid\"", "\"keys\"", "\"k\\u0065ys\"", "{", "}", "[", "]", ",", ":", "null", "1e400",
        "AQAB", "AA", "=", "\"d\"", "P-256", "secp256k1", "Ed448",
    ],
    |input| {
        let (first, second) = (IssuerKeys::from_jwks(input, None), IssuerKeys::from_jwks(input, None));
        assert_eq!(first.is_ok(), second.is_ok());
        let Ok(keys) = first else { return };
        assert!(names_members_once(input), "two readings");
        let public = kinds(input).iter().filter(|kind| ["RSA", "EC", "OKP"].contains(&kind.as_str())).count();
        assert!((1..=public).contains(&keys.len()), "{} of {public}", keys.len());
        assert!(keys.len() + keys.ignored().len() >= kinds(input).len());
        let mut rules = IssuerRules::external("https://idp.test", vec!["api".into()], keys);
        rules.max_lifetime = Some(Duration::from_secs(60));
        assert!(Verifier::new(vec![rules]).is_ok(), "taken, and no verifier");
    }
);

target!(
    /// Bytes of a damaged store bring nothing down, and whatever is read as a record is the same once it was written and
    /// read again.
    store_record,
    &["\u{1}", "\0", "\u{7f}", "alice", "acme", "web", "read write", "key-1"],
    |input| {
        assert!(records_read_back_the_same(input));
        // Behind the version that is written now.
        assert!(records_read_back_the_same(&[&[1], input].concat()));
    }
);
