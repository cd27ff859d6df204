//! `gateway.toml`, and the durations in it.

use std::path::Path;
use std::time::Duration;

use rotogate_config::{Config, ConfigErrors, parse};

use crate::input::target;

const MINIMAL: &str = "[server]\npublic_url = \"http://127.0.0.1:8080\"\n[issuer]\naudience = [\"api\"]\n";

fn read(text: &str) -> Result<Config, ConfigErrors> {
    parse(text, Path::new("/etc/rotogate/gateway.toml"), &())
}

target!(
    /// Every problem names a line of the file, and has a text. The same text is read the same way. An unknown table
    /// after any valid configuration is refused (O10).
    config,
    &[
        "[", "]", "[[", "]]", "=", "\"", "\n", "'''", "\"\"\"", "[server]\n", "[[routes]]\n", "[[upstreams]]\n", "[issuer]\n",
        "[sessions]\n", "[store]\n", "path = \"/{*rest}\"\n", "auth = \"none\"\n", "upstream = \"app\"\n", "urls = [\"echo:\"]\n",
        "name = \"app\"\n", "[[endpoints]]\n", "dialect = \"oauth2\"\n", "[[clients]]\n", "id = \"web\"\n", "1e400", "-1", "true",
        "{", "}", "#", "\\u0000", "9223372036854775808", "listen = []\n", "grace = \"60s\"\n", "\u{feff}",
    ],
    |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        match (read(text), read(text)) {
            (Ok(_), Ok(_)) => {
                let unknown = format!("{text}\n[nobody_knows_this]\n");
                assert!(read(&unknown).is_err(), "an unknown table is taken");
            }
            (Err(first), Err(second)) => {
                assert_eq!(first, second);
                assert!(first.len() > 0);
                for error in first.iter() {
                    assert!(!error.message.is_empty());
                    let lines = text.split('\n').count();
                    assert!(error.position.is_none_or(|(line, column)| (1..=lines).contains(&line) && column > 0), "{error}");
                }
            }
            (first, second) => panic!("once this, once that: {:?} {:?}", first.is_ok(), second.is_ok()),
        }
    }
);

fn access_ttl(text: &str) -> Option<Duration> {
    // Strings of TOML take the escapes of JSON; DEL is the one character that they escape besides.
    let quoted = serde_json::to_string(text).unwrap().replace('\u{7f}', "\\u007f");
    read(&format!("{MINIMAL}[sessions]\naccess_ttl = {quoted}\n")).ok().map(|config| config.sessions.profile.access_ttl)
}

target!(
    /// A duration that is taken is the same when it is printed and read again.
    config_duration,
    &["s", "m", "h", "d", "ms", "us", "ns", " ", "1", "0", "999999999999", "-", ".", "w", "years", "month", "\0", "µs"],
    |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Some(taken) = access_ttl(text) else { return };
        assert_eq!(Ok(taken), humantime::parse_duration(text), "{text:?}");
        let printed = humantime::format_duration(taken).to_string();
        assert_eq!(access_ttl(&printed), Some(taken), "{text:?} printed as {printed:?}");
    }
);
