#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use serde_json::{Value, json};
use support::events::Events;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::kept::KeySetFolder;
use super::*;
use rotogate_core::clock::ManualTime;
use rotogate_core::denial::Denial;
use rotogate_core::token::algorithm::Algorithm;
use rotogate_core::token::keyring::{KeyPrint, Keyring};
use rotogate_core::token::live_keys::IssuerKeyState;

const DISCOVERY: &str = "/realm/.well-known/openid-configuration";
const RFC_8414: &str = "/.well-known/oauth-authorization-server/realm";
const KEYS: &str = "/keys";
/// A timeout that no test should reach.
const LONG: Duration = Duration::from_secs(20);

/// An issuer on this machine. It answers with the content that the test sets for a path, and otherwise with 404.
struct Issuer {
    address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn http(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

impl Issuer {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (all, log) = (Arc::clone(&answers), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap_or(0) > 0 {}
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().unwrap().push(path.clone());
                let mut answer = all.lock().unwrap().get(&path).cloned();
                if head.contains("if-none-match: \"same\"\r\n") {
                    answer = Some(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec());
                }
                let _ = stream.write_all(&answer.unwrap_or_else(|| http("404 Not Found", "", ""))).await;
            }
        });
        let issuer = Self { address, answers, seen, task };
        issuer.discovery(DISCOVERY, "issuer", issuer.url());
        issuer
    }

    fn url(&self) -> String {
        format!("http://{}/realm", self.address)
    }

    fn answer(&self, path: &str, answer: Vec<u8>) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// A discovery document, with this member changed.
    fn discovery(&self, path: &str, member: &str, value: impl Into<Value>) {
        let mut document = json!({"issuer": self.url(), "jwks_uri": format!("http://{}{KEYS}", self.address)});
        document[member] = value.into();
        self.answer(path, http("200 OK", "", document.to_string()));
    }

    fn publish(&self, keys: &[&Keyring]) {
        self.answer(KEYS, http("200 OK", "", jwks(keys)));
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn remote(&self) -> RemoteIssuer {
        RemoteIssuer::new("kc", self.url())
    }
}

fn key() -> Keyring {
    Keyring::generate(Algorithm::EdDsa).unwrap()
}

fn jwks(keys: &[&Keyring]) -> String {
    json!({ "keys": keys.iter().map(|keyring| keyring.jwks()["keys"][0].clone()).collect::<Vec<_>>() }).to_string()
}

fn print(key: &Keyring) -> KeyPrint {
    key.signer().verifying_key().print()
}

async fn started(issuer: RemoteIssuer) -> RemoteKeys {
    let remote = RemoteKeys::start(issuer).unwrap();
    tokio::time::timeout(LONG, remote.first_attempt()).await.unwrap();
    remote
}

fn has(remote: &RemoteKeys, key: &Keyring) -> bool {
    let keys = remote.keys();
    let now = EngineClock::start(Arc::new(SystemTime::new()), Timestamp::ZERO, Duration::ZERO).now();
    keys.holds(&print(key), now).is_ok()
}

fn count(remote: &RemoteKeys, word: &str) -> u64 {
    remote.fetches().find(|(known, _)| *known == word).unwrap().1
}

#[tokio::test]
async fn i1_keys_are_found_by_discovery_and_by_url() {
    let (issuer, first, second) = (Issuer::new().await, key(), key());
    issuer.publish(&[&first]);
    let by_discovery = started(issuer.remote()).await;
    let by_url = started(issuer.remote().jwks_url(format!("http://{}{KEYS}", issuer.address))).await;
    assert!(has(&by_discovery, &first) && has(&by_url, &first));
    assert!(by_discovery.metadata().unwrap().jwks_uri.ends_with(KEYS) && by_url.metadata().is_none());
    assert_eq!(issuer.seen(), [DISCOVERY, KEYS, KEYS]);
    // The refresh of an operator need not wait for the cooldown.
    issuer.publish(&[&second]);
    by_url.refresh().await.unwrap();
    assert!(has(&by_url, &second) && !has(&by_url, &first) && has(&by_discovery, &first));
    // If there is no document at the path of OpenID Connect, the gate reads the document at the path of RFC 8414.
    issuer.answer(DISCOVERY, http("404 Not Found", "", ""));
    issuer.discovery(RFC_8414, "issuer", issuer.url());
    assert!(has(&started(issuer.remote()).await, &second));
    // A configured discovery URL has no second path.
    let at = issuer.remote().discovery_at(format!("http://{}{DISCOVERY}", issuer.address));
    assert_eq!(started(at).await.status().failure.unwrap().cause, "status");
}

#[tokio::test]
async fn i1_i3_a_request_that_wants_keys_causes_one_fetch() {
    let (issuer, first, second) = (Issuer::new().await, key(), key());
    issuer.publish(&[&first]);
    let mut settings = issuer.remote();
    settings.fetch.cooldown = Duration::from_secs(1);
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let remote = RemoteKeys::start_with(settings, Arc::clone(&time) as _).unwrap();
    remote.first_attempt().await;
    let clock = EngineClock::start(Arc::clone(&time) as _, Timestamp::ZERO, Duration::ZERO);
    let asked = |remote: &RemoteKeys| remote.keys().missing(clock.now(), Some(Timestamp::ZERO), Duration::ZERO);
    // The token is older than a good answer, and the cooldown of this answer is not over, so no request is sent.
    assert!(matches!(asked(&remote), Denial::UnknownKey));
    issuer.publish(&[&first, &second]);
    time.advance(Duration::from_secs(2));
    for _ in 0..100 {
        assert!(matches!(asked(&remote), Denial::KeysUnavailable(_)));
    }
    tokio::time::timeout(LONG, async {
        while remote.keys().holds(&print(&second), clock.now()).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert!(matches!(asked(&remote), Denial::UnknownKey));
    assert_eq!(issuer.seen(), [DISCOVERY, KEYS, KEYS]);
}

#[tokio::test]
async fn i5_no_broken_answer_changes_the_set() {
    let (issuer, good) = (Issuer::new().await, key());
    issuer.publish(&[&good]);
    let mut settings = issuer.remote().jwks_url(format!("http://{}{KEYS}", issuer.address));
    settings.fetch.max_size = 64 << 10;
    let remote = started(settings).await;
    let other = key();
    let set = jwks(&[&other]);
    let many: Vec<_> = (0..101).map(|n| json!({"kty": "RSA", "kid": n.to_string()})).collect();
    for (answer, cause) in [
        (http("200 OK", "content-type: text/html\r\n", "<!DOCTYPE html><title>Sign in</title>"), "not_json"),
        (http("200 OK", "", ""), "not_json"),
        (http("200 OK", "", "[]"), "not_json"),
        (http("200 OK", "", format!("{set}{set}")), "not_json"),
        (http("200 OK", "", r#"{"keys": [], "keys": []}"#), "not_json"),
        (http("200 OK", "", r#"{"keys": []}"#), "no_usable_key"),
        (http("200 OK", "", r#"{"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}"#), "no_usable_key"),
        (http("200 OK", "", json!({ "keys": many }).to_string()), "too_large"),
        (http("200 OK", "", "x".repeat((64 << 10) + 1)), "too_large"),
        (http("200 OK", "content-encoding: br\r\n", &set), "encoding"),
        (http("304 Not Modified", "", ""), "status"),
        (http("203 Non-Authoritative Information", "", &set), "status"),
        (http("500 Internal Server Error", "", &set), "status"),
        (http("302 Found", "location: http://169.254.169.254/\r\n", &set), "redirect"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec(), "http"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "http"),
    ] {
        let shown = String::from_utf8_lossy(&answer).chars().take(80).collect::<String>();
        issuer.answer(KEYS, answer);
        let before = count(&remote, cause);
        let failure = remote.refresh().await.unwrap_err();
        assert_eq!(failure.cause, cause, "{shown}: {failure}");
        assert_eq!(remote.status().failure, Some(failure), "{shown}");
        assert!(has(&remote, &good) && !has(&remote, &other), "{shown}");
        assert_eq!(count(&remote, cause), before + 1, "{shown}");
    }
    // The next good answer of the issuer is used.
    issuer.publish(&[&other]);
    remote.refresh().await.unwrap();
    assert!(has(&remote, &other) && !has(&remote, &good) && remote.status().failure.is_none());
}

#[tokio::test]
async fn i6_i8_a_discovery_document_that_leads_elsewhere_is_not_followed() {
    let (issuer, good) = (Issuer::new().await, key());
    issuer.publish(&[&good]);
    for (member, value, cause) in [
        ("issuer", json!(format!("{}/", issuer.url())), "issuer_mismatch"),
        ("issuer", json!(null), "issuer_mismatch"),
        ("jwks_uri", json!(null), "refused_address"),
        ("jwks_uri", json!("http://id.example.com/keys"), "refused_address"),
        ("jwks_uri", json!("https://169.254.169.254/keys"), "refused_address"),
        ("jwks_uri", json!("https://[fe80::1]/keys"), "refused_address"),
        ("jwks_uri", json!("https://10.0.0.1/keys"), "refused_address"),
        ("jwks_uri", json!("file:///etc/passwd"), "refused_address"),
        ("jwks_uri", json!("https://user@id.example.com/keys"), "refused_address"),
    ] {
        issuer.discovery(DISCOVERY, member, value.clone());
        let before = issuer.seen().len();
        let remote = started(issuer.remote()).await;
        let failure = remote.status().failure.unwrap();
        assert_eq!(failure.cause, cause, "{member} {value}: {failure}");
        assert_eq!(issuer.seen()[before..], [DISCOVERY], "{member} {value}");
        assert_eq!(remote.keys().state(Timestamp::from_secs(1)), IssuerKeyState::Empty);
    }
}

#[tokio::test]
async fn i10_an_equal_set_is_unchanged() {
    let (issuer, first) = (Issuer::new().await, key());
    issuer.publish(&[&first]);
    let remote = started(issuer.remote()).await;
    remote.refresh().await.unwrap();
    assert_eq!((count(&remote, "ok"), count(&remote, "unchanged")), (1, 1));
    // The same ETag is enough to show that the set is unchanged.
    issuer.answer(KEYS, http("200 OK", "etag: \"same\"\r\n", jwks(&[&first])));
    remote.refresh().await.unwrap();
    issuer.answer(KEYS, http("500 Oh", "", ""));
    remote.refresh().await.unwrap();
    assert_eq!((count(&remote, "ok"), count(&remote, "unchanged")), (1, 3));
    assert!(has(&remote, &first));
}

#[tokio::test]
async fn i4_i12_a_kept_set_counts_while_its_issuer_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let kept_in = folder.path().join("issuers");
    let (issuer, first) = (Issuer::new().await, key());
    issuer.publish(&[&first]);
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let start =
        |settings: RemoteIssuer| RemoteKeys::start_with(settings.kept_in(&kept_in), Arc::clone(&time) as _).unwrap();
    let now = || EngineClock::start(Arc::clone(&time) as _, Timestamp::ZERO, Duration::ZERO).now();
    let held = |remote: &RemoteKeys| remote.keys().holds(&print(&first), now()).is_ok();
    let remote = start(issuer.remote());
    remote.first_attempt().await;
    assert!(held(&remote));
    drop(remote);
    issuer.answer(KEYS, http("500 Oh", "", ""));
    issuer.answer(DISCOVERY, http("500 Oh", "", ""));
    // The gate restarts during an outage.
    time.advance(Duration::from_secs(23 * 3600));
    let remote = start(issuer.remote());
    remote.first_attempt().await;
    assert!(held(&remote) && remote.status().failure.is_some() && remote.status().had_keys);
    assert_eq!(remote.keys().state(now()), IssuerKeyState::Aging);
    // The age of the set counts, not that of the process.
    time.advance(Duration::from_secs(3600));
    assert!(!held(&remote));
    assert_eq!(remote.keys().state(now()), IssuerKeyState::Stale);
    let remote = start(issuer.remote());
    remote.first_attempt().await;
    assert_eq!(remote.keys().state(now()), IssuerKeyState::Empty);
    // The set of another source is dropped.
    issuer.publish(&[&first]);
    let url = format!("http://{}{KEYS}", issuer.address);
    let remote = start(issuer.remote().jwks_url(&url));
    remote.first_attempt().await;
    assert!(held(&remote));
    drop(remote);
    issuer.answer(KEYS, http("500 Oh", "", ""));
    let remote = start(issuer.remote());
    remote.first_attempt().await;
    assert!(!held(&remote));
    let remote = start(issuer.remote().jwks_url(&url));
    remote.first_attempt().await;
    assert!(!held(&remote), "it was removed");
}

#[tokio::test]
async fn i12_keys_count_by_the_clock_of_the_gate_once_there_is_one() {
    let (issuer, first) = (Issuer::new().await, key());
    issuer.publish(&[&first]);
    // A machine without a battery-backed clock starts in 1970, but its store remembers a later time.
    let time = ManualTime::at(Timestamp::from_secs(100));
    let remote = RemoteKeys::start_with(issuer.remote(), Arc::clone(&time) as _).unwrap();
    remote.first_attempt().await;
    let later = Timestamp::from_secs(1_800_000_000);
    let gate = Arc::new(EngineClock::start(Arc::clone(&time) as _, later, Duration::ZERO));
    let (keys, print) = (remote.keys(), print(&first));
    assert!(keys.holds(&print, gate.now()).is_err(), "judged by another clock than it was set by");
    keys.set_clock(&gate);
    tokio::time::timeout(LONG, async {
        while keys.holds(&print, gate.now()).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    // The key set is valid for the rest of its time, and no longer.
    time.advance(Duration::from_secs(86_400 - 1));
    assert!(keys.holds(&print, gate.now()).is_ok());
    time.advance(Duration::from_secs(1));
    assert_eq!(keys.state(gate.now()), IssuerKeyState::Stale);
}

#[tokio::test]
async fn dropped_keys_stay_away_until_they_are_refreshed() {
    let folder = tempfile::tempdir().unwrap();
    let kept = KeySetFolder::new(folder.path());
    let (issuer, first) = (Issuer::new().await, key());
    issuer.answer(KEYS, http("200 OK", "etag: \"same\"\r\n", jwks(&[&first])));
    let remote = RemoteKeys::start(issuer.remote().kept_in(folder.path())).unwrap();
    remote.first_attempt().await;
    assert!(has(&remote, &first) && kept.load("kc").await.unwrap().is_some());
    remote.drop_keys().await;
    assert!(!has(&remote, &first) && remote.status().is_dropped && kept.load("kc").await.unwrap().is_none());
    let before = issuer.seen().len();
    let now = EngineClock::start(Arc::new(SystemTime::new()), Timestamp::ZERO, Duration::ZERO).now();
    assert!(matches!(
        remote.keys().missing(now.plus(Duration::from_secs(100)), None, Duration::ZERO),
        Denial::KeysUnavailable(_)
    ));
    // The task has seen the request when it answers.
    remote.drop_keys().await;
    assert_eq!(issuer.seen().len(), before);
    remote.refresh().await.unwrap();
    assert!(has(&remote, &first) && !remote.status().is_dropped);
}

#[tokio::test]
async fn the_task_ends_with_the_last_holder_of_the_keys() {
    let issuer = Issuer::new().await;
    issuer.publish(&[&key()]);
    let remote = started(issuer.remote()).await;
    let (keys, mut tried) = (remote.keys(), remote.tried.clone());
    drop(remote);
    // The gate still has the keys.
    assert!(!keys.is_empty() && tried.has_changed().is_ok());
    drop(keys);
    tokio::time::timeout(LONG, async { while tried.changed().await.is_ok() {} }).await.unwrap();
}

#[tokio::test]
async fn i6_files_are_read_again_at_each_fetch() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let bearer = folder.path().join("token");
    let issuer = Issuer::new().await;
    issuer.publish(&[&key()]);
    let mut settings = issuer.remote();
    settings.files.bearer = Some(bearer.clone());
    let remote = started(settings).await;
    assert_eq!(remote.status().failure.unwrap().cause, "files");
    std::fs::write(&bearer, "abc\n").unwrap();
    std::fs::set_permissions(&bearer, PermissionsExt::from_mode(0o600)).unwrap();
    remote.refresh().await.unwrap();
    std::fs::write(&bearer, "hunter2\u{1}").unwrap();
    let failure = remote.refresh().await.unwrap_err();
    assert!(failure.cause == "files" && !failure.message.contains("hunter2"), "{failure}");
}

#[test]
fn i50_times_that_contradict_each_other_are_refused() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let said = |fresh, min, max, stale_for| {
        let (fresh, min, max, stale_for) = (minutes(fresh), minutes(min), minutes(max), minutes(stale_for));
        FetchSettings { fresh, min, max, stale_for, ..FetchSettings::default() }.problem().map(|(key, _)| key)
    };
    assert_eq!(said(10, 1, 5, 5), Some("fresh"), "a healthy issuer's tokens would be refused half of the time");
    assert_eq!(said(10, 1, 5, 60), Some("fresh"));
    assert_eq!(said(5, 10, 20, 60), Some("fresh"));
    assert_eq!(said(5, 5, 5, 5), Some("min"));
    for (fresh, min, max, stale_for) in [(10, 1, 1440, 1440), (5, 1, 5, 5), (1, 1, 1, 2)] {
        assert_eq!(said(fresh, min, max, stale_for), None);
    }
}

#[tokio::test]
async fn i59_a_set_that_becomes_too_old_is_logged_and_fetched_at_once() {
    let errors = Events::collect(|metadata| *metadata.level() == tracing::Level::ERROR);
    let (issuer, first) = (Issuer::new().await, key());
    issuer.publish(&[&first]);
    let mut settings = issuer.remote();
    settings.fetch.min = Duration::from_secs(60);
    settings.fetch.stale_for = settings.fetch.max;
    let (stale_for, rest) = (settings.fetch.stale_for, Duration::from_secs(10));
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let remote = RemoteKeys::start_with(settings, Arc::clone(&time) as _).unwrap();
    remote.first_attempt().await;
    // Only `advance` moves timers: while a blocking task runs, they do not jump ahead of sockets.
    let (_release, held) = std::sync::mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || held.recv());
    tokio::time::pause();
    for path in [DISCOVERY, KEYS] {
        issuer.answer(path, http("500 Oh", "", ""));
    }
    // After this many failures, the next attempt is in 48 s or more.
    time.advance(stale_for - rest);
    for _ in 0..7 {
        remote.refresh().await.unwrap_err();
    }
    assert_eq!((count(&remote, "status"), remote.status().state), (7, "aging"));
    assert_eq!(errors.taken(), []);
    time.advance(rest);
    tokio::time::advance(rest + Duration::from_millis(1)).await;
    let watch = SystemTime::new();
    let began = watch.monotonic();
    while count(&remote, "status") < 8 {
        assert!(watch.monotonic().saturating_sub(began) < LONG, "nothing was fetched");
        tokio::task::yield_now().await;
    }
    assert_eq!((count(&remote, "status"), remote.status().state), (8, "stale"));
    let messages: Vec<_> = errors.taken().into_iter().map(|event| event["message"].clone()).collect();
    assert_eq!(messages, ["issuer keys are older than `stale_for`, so the issuer's tokens get 503"]);
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused() {
    let issuer = || RemoteIssuer::new("kc", "https://id.example.com");
    assert_eq!(issuer().check(), Ok(()));
    let key = |issuer: RemoteIssuer| issuer.check().unwrap_err().key().unwrap();
    assert_eq!(key(RemoteIssuer::new("kc", "http://id.example.com")), "url");
    assert_eq!(key(issuer().jwks_url("keys")), "jwks_url");
    assert_eq!(key(issuer().discovery_at("https://169.254.1.1/d")), "discovery");
    let with = |change: fn(&mut FetchSettings)| {
        let mut issuer = issuer();
        change(&mut issuer.fetch);
        key(issuer)
    };
    assert_eq!(with(|fetch| fetch.min = Duration::ZERO), "min");
    assert_eq!(with(|fetch| fetch.min = fetch.max * 2), "min");
    assert_eq!(with(|fetch| fetch.stale_for = fetch.max / 2), "stale_for");
    assert_eq!(with(|fetch| fetch.stale_for = Duration::from_secs(8 * 86_400)), "stale_for");
    assert_eq!(with(|fetch| fetch.max_size = 2 << 20), "max_size");
}

mod simulation;
