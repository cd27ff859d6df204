//! h2load with an API key that is revoked under its load.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use rotogate_core::clock::wall_micros;

use super::scene::{missing, program};
use support::{CONFIG, Gate, Place, keep_secret, until, with};

/// A run that is killed as soon as it has shown enough.
const LONGEST: &str = "-D60";
const CONNECTIONS: &str = "-c8";
/// How many requests pass before the revocation, and how many are refused after it.
const ENOUGH: usize = 200;

/// h2load, which ends with the test.
struct Load(Child);

impl Load {
    fn start(gate: &Gate, version: &[&str], key: &str, log: &Path) -> Self {
        let mut command = program("h2load");
        command.args(["-t1", LONGEST, CONNECTIONS]).args(version).arg(format!("--log-file={}", log.display()));
        command.arg(format!("--header=x-api-key: {key}")).arg(format!("http://{}/hello", gate.address));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| missing("h2load", "nghttp2-client", &error)))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The begin and the status of each request that was answered, in microseconds since 1970.
fn answered(log: &Path) -> Vec<(u64, u16)> {
    let text = fs::read_to_string(log).unwrap_or_default();
    // The last line may not be whole.
    let whole = text.rsplit_once('\n').map(|(lines, _)| lines).unwrap_or_default();
    let fields = whole.lines().map(|line| line.split('\t').map(str::trim).collect::<Vec<_>>());
    fields.map(|fields| (fields[0].parse().unwrap(), fields[1].parse().unwrap())).collect()
}

fn number(log: &Path, status: u16) -> usize {
    answered(log).iter().filter(|(_, of)| *of == status).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k4_no_request_of_h2load_passes_that_began_after_its_key_was_revoked() {
    let route = "path = \"/{*rest}\"\nupstream = \"app\"\n";
    let config = CONFIG.replacen(route, &format!("{route}credentials = [\"token\", \"key\"]\n"), 1);
    let place = Place::new(&with(&config, "api_keys", "prefix = \"acme\""));
    let gate = place.start();
    place.point_commands_at(&gate);
    for version in [&["--h1"][..], &["--no-tls-proto=h2c", "-m10"]] {
        let make = |name: &str| {
            let made = place.json(&["api-key", "create", name, "--user", "demo"], "");
            let text = made["key"].as_str().unwrap().to_owned();
            keep_secret(&text);
            (text, made["id"].as_str().unwrap().to_owned())
        };
        let ((key, id), (other_key, _)) = (make("partner"), make("another"));
        let (log, other_log) = (place.path(&format!("log{}", version[0])), place.path(&format!("other{}", version[0])));
        let load = Load::start(&gate, version, &key, &log);
        let other = Load::start(&gate, version, &other_key, &other_log);
        until("requests pass", async || number(&log, 200) >= ENOUGH).await;
        let asked = wall_micros();
        place.done(&["api-key", "revoke", &id], "");
        let acknowledged = wall_micros();
        until("requests are refused", async || number(&log, 401) >= ENOUGH).await;
        until("requests with the other key pass", async || number(&other_log, 200) >= ENOUGH).await;
        drop((load, other));
        let answered = answered(&log);
        let passed_after = answered.iter().filter(|(begin, status)| *begin > acknowledged && *status != 401).count();
        let refused_before = answered.iter().filter(|(begin, status)| *begin < asked && *status == 401);
        let last = answered.iter().filter(|(_, status)| *status == 200).map(|(begin, _)| *begin).max().unwrap();
        println!(
            "{version:?}: {} requests passed, {} were refused, none passed after the acknowledgement; the last that passed \
             began {} µs before it",
            number(&log, 200),
            number(&log, 401),
            acknowledged.saturating_sub(last)
        );
        assert_eq!(passed_after, 0, "{version:?}");
        // Those under way when the revocation was asked.
        assert!(refused_before.count() <= 80, "{version:?}");
        assert_eq!(number(&other_log, 401), 0, "{version:?}: the key of another");
    }
}
