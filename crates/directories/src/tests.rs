//! Tests of a directory over a source that hangs, fails, lies and panics.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::sync::Semaphore;

use super::*;
use rotogate_core::directory::{Directory, DirectoryError, PasswordMark};
use rotogate_core::password::{Cost, CostClass, Passwords, hash_with};

const SECOND: Duration = Duration::from_secs(1);
const BOUNDS: Bounds =
    Bounds { timeout: Duration::from_secs(5), max_requests: 2, queue_timeout: SECOND, lookup_cache: Duration::ZERO };
const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Good,
    Hangs,
    Fails,
    Panics,
    NamesAnother,
    HasTwo,
    Later,
    Slow(Duration),
}

/// A source with a script of answers.
#[derive(Debug)]
struct Fake {
    mode: Mutex<Mode>,
    asked: AtomicUsize,
    /// Each request takes a permit.
    permits: Semaphore,
    hash: Mutex<Option<SecretHash>>,
    rehash_fails: AtomicBool,
    pads: AtomicBool,
    /// Whether the source reports unknown users, and checks passwords itself.
    knows_its_users: AtomicBool,
    expected: Vec<CostClass>,
}

impl Fake {
    fn new() -> Arc<Self> {
        Self::expecting(Vec::new())
    }

    fn expecting(expected: Vec<CostClass>) -> Arc<Self> {
        Arc::new(Self {
            mode: Mutex::new(Mode::Good),
            asked: AtomicUsize::new(0),
            permits: Semaphore::new(Semaphore::MAX_PERMITS),
            hash: Mutex::default(),
            rehash_fails: AtomicBool::new(false),
            pads: AtomicBool::new(false),
            knows_its_users: AtomicBool::new(false),
            expected,
        })
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn answer(&self, subject: &str) -> Result<Option<User>, SourceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _permit = self.permits.acquire().await.unwrap();
        let mode = *self.mode.lock().unwrap();
        match mode {
            Mode::Good => Ok((subject != "none").then(|| User::new(subject))),
            Mode::Hangs => std::future::pending().await,
            Mode::Fails => Err(SourceError::new(Cause::Connect, "refused")),
            Mode::Panics => panic!("told to panic"),
            Mode::NamesAnother => Ok(Some(User::new("another"))),
            Mode::HasTwo => Err(SourceError::new(Cause::Entry, "two users")),
            Mode::Later => Err(SourceError::new(Cause::Later(SECOND * 60), "later")),
            Mode::Slow(time) => {
                tokio::time::sleep(time).await;
                Ok((subject != "none").then(|| User::new(subject)))
            }
        }
    }
}

#[async_trait]
impl Source for Fake {
    fn kind(&self) -> &'static str {
        "fake"
    }

    async fn authenticate(&self, login: &LoginAttempt) -> Result<Login, SourceError> {
        let subject = login.username.to_lowercase().replace("alias/", "");
        let user = self.answer(&subject).await?;
        let hash = self.hash.lock().unwrap().clone();
        if user.is_none() && self.knows_its_users.load(Ordering::SeqCst) {
            return Ok(Login::Absent);
        }
        let user = user.map(|user| user.active(subject != "inactive"));
        Ok(match hash {
            Some(hash) => Login::Hashed(user.map(|user| HashedUser { user, hash, is_marked: true })),
            None => Login::Checked(user),
        })
    }

    async fn lookup(&self, _: Option<&str>, subject: &str) -> Result<Option<User>, SourceError> {
        self.answer(subject).await
    }

    fn expected_hashes(&self) -> &[CostClass] {
        &self.expected
    }

    fn rehashes(&self) -> bool {
        true
    }

    fn significant<'a>(&self, username: &'a str) -> &'a str {
        username.strip_prefix("DOMAIN\\").unwrap_or(username)
    }

    fn pads_refusals(&self) -> bool {
        self.pads.load(Ordering::SeqCst)
    }

    async fn rehash(&self, _: &str, old: &SecretHash, new: &SecretHash) -> Result<bool, SourceError> {
        if self.rehash_fails.load(Ordering::SeqCst) {
            return Err(SourceError::new(Cause::Refused, "read only"));
        }
        let mut hash = self.hash.lock().unwrap();
        let is_old = hash.as_ref() == Some(old);
        if is_old {
            *hash = Some(new.clone());
        }
        Ok(is_old)
    }

    async fn inspect(&self) -> Result<Found, SourceError> {
        Ok(Found::default())
    }
}

fn directory(source: &Arc<Fake>, bounds: Bounds) -> RemoteDirectory {
    with_passwords(source, bounds, Arc::new(Passwords::new(2, 2)))
}

fn with_passwords(source: &Arc<Fake>, bounds: Bounds, passwords: Arc<Passwords>) -> RemoteDirectory {
    let source: Arc<dyn Source> = Arc::clone(source) as _;
    RemoteDirectory::new("fake", source, bounds, passwords, DirectoryMetrics::default())
}

fn secret(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

async fn login(directory: &RemoteDirectory, password: &str) -> Result<Option<User>, DirectoryError> {
    directory.authenticate(None, "ada", &secret(password)).await
}

fn is_unavailable<T>(answer: &Result<T, DirectoryError>) -> bool {
    matches!(answer, Err(DirectoryError::Unavailable(_)))
}

#[tokio::test(start_paused = true)]
async fn i22_a_source_that_hangs_or_fails_is_a_fault_and_never_a_verdict() {
    for (mode, cause) in [(Mode::Hangs, "timeout"), (Mode::Fails, "connect")] {
        let source = Fake::new();
        let directory = directory(&source, BOUNDS);
        source.set(mode);
        for asked in 1..=5 {
            assert!(is_unavailable(&directory.lookup("ada").await), "{mode:?}");
            assert_eq!(source.asked(), asked);
        }
        assert_eq!(directory.figures().get("fake", "lookup", cause), 5);
        assert!(is_unavailable(&directory.lookup("ada").await), "{mode:?}");
        assert_eq!(source.asked(), 5, "the circuit is open: {mode:?}");
        assert_eq!(directory.figures().get("fake", "lookup", "not_asked"), 1);
        source.set(Mode::Good);
        tokio::time::advance(SECOND).await;
        assert!(directory.lookup("ada").await.unwrap().is_some(), "{mode:?}");
        assert!(directory.lookup("none").await.unwrap().is_none());
        assert!(login(&directory, "right").await.unwrap().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn i46_a_fault_of_one_user_is_no_fault_of_the_source() {
    for (mode, cause) in [(Mode::Panics, "panic"), (Mode::NamesAnother, "bad_entry"), (Mode::HasTwo, "bad_entry")] {
        let source = Fake::new();
        let directory = directory(&source, BOUNDS);
        source.set(mode);
        for asked in 1..=20 {
            let answer = directory.lookup("ada").await;
            assert!(matches!(answer, Err(DirectoryError::Entry(_))), "{mode:?}: {answer:?}");
            assert_eq!(source.asked(), asked, "{mode:?}");
        }
        assert_eq!(directory.figures().get("fake", "lookup", cause), 20);
        source.set(Mode::Good);
        assert!(directory.lookup("bob").await.unwrap().is_some(), "{mode:?}");
        // Any answer of the source about a user closes the circuit.
        source.set(Mode::Fails);
        for _ in 0..5 {
            assert!(is_unavailable(&directory.lookup("bob").await));
        }
        tokio::time::advance(SECOND).await;
        source.set(mode);
        assert!(matches!(directory.lookup("ada").await, Err(DirectoryError::Entry(_))), "{mode:?}");
        source.set(Mode::Good);
        assert!(directory.lookup("bob").await.unwrap().is_some(), "{mode:?}");
    }
}

#[tokio::test]
async fn i47_a_hash_that_cannot_be_used_takes_as_long_as_no_user() {
    let source = Fake::new();
    let passwords = Arc::new(Passwords::new(2, 2));
    let directory = with_passwords(&source, BOUNDS, Arc::clone(&passwords));
    *source.hash.lock().unwrap() = Some(SecretHash::new(hash_with(&secret("right"), CHEAP).unwrap()));
    directory.authenticate(None, "none", &secret("wrong")).await.unwrap();
    let unknown = passwords.work();
    assert!(unknown > 0);
    *source.hash.lock().unwrap() = Some(SecretHash::new("$md5$of-long-ago"));
    let answer = login(&directory, "wrong").await;
    assert!(matches!(answer, Err(DirectoryError::Entry(_))), "{answer:?}");
    assert_eq!(passwords.work(), 2 * unknown);
}

/// How long a login takes, in milliseconds, and whether it is accepted.
async fn timed(directory: &RemoteDirectory, name: &str) -> (bool, u128) {
    let begun = tokio::time::Instant::now();
    let user = directory.authenticate(None, name, &secret("any")).await.unwrap();
    (user.is_some(), begun.elapsed().as_millis())
}

#[tokio::test(start_paused = true)]
async fn i49_nobody_s_refusal_takes_as_long_as_the_slowest_of_a_user_and_is_no_measure_of_it() {
    let source = Fake::new();
    source.pads.store(true, Ordering::SeqCst);
    source.knows_its_users.store(true, Ordering::SeqCst);
    let directory = directory(&source, BOUNDS);
    source.set(Mode::Slow(Duration::from_millis(400)));
    assert_eq!(timed(&directory, "inactive").await, (false, 400));
    source.set(Mode::Slow(Duration::from_millis(500)));
    assert_eq!(timed(&directory, "none").await, (false, 500));
    source.set(Mode::Slow(Duration::from_millis(20)));
    // Neither many unknown names nor a long pause changes the time.
    for pause in [0, 61, 61, 61, 4000] {
        tokio::time::advance(SECOND * pause).await;
        assert_eq!(timed(&directory, "none").await, (false, 400));
    }
    assert_eq!(timed(&directory, "inactive").await, (false, 400), "of the window before");
}

#[tokio::test(start_paused = true)]
async fn i61_no_refusal_wears_the_padding_out_and_a_login_alone_makes_it_shorter() {
    // The source reports an unknown user, as LDAP does, or refuses all logins in the same way, as a hook does.
    for knows in [true, false] {
        let source = Fake::new();
        source.pads.store(true, Ordering::SeqCst);
        source.knows_its_users.store(knows, Ordering::SeqCst);
        let directory = directory(&source, BOUNDS);
        source.set(Mode::Slow(Duration::from_millis(400)));
        assert_eq!(timed(&directory, "ada").await, (true, 400), "the first measure is a login");
        source.set(Mode::Slow(Duration::from_millis(1)));
        for hours in [0, 1, 3, 3, 3, 100] {
            tokio::time::advance(SECOND * 3600 * hours).await;
            assert_eq!(timed(&directory, "none").await, (false, 400), "{knows}");
            assert_eq!(timed(&directory, "inactive").await, (false, 400), "{knows}");
        }
        // The server is faster now.
        for _ in 0..2 {
            assert_eq!(timed(&directory, "ada").await, (true, 1));
            assert_eq!(timed(&directory, "none").await, (false, 400), "of the window before");
        }
        tokio::time::advance(SECOND * 3 * 3600).await;
        timed(&directory, "ada").await;
        assert_eq!(timed(&directory, "none").await, (false, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn i25_a_full_bulkhead_is_busy_after_its_queue_timeout_and_no_other_directory_waits() {
    let (slow, other) = (Fake::new(), Fake::new());
    let (directory, other) = (directory(&slow, BOUNDS), directory(&other, BOUNDS));
    slow.set(Mode::Hangs);
    let waiting = ["a", "b"].map(|subject| {
        let directory = directory.clone();
        tokio::spawn(async move { directory.lookup(subject).await })
    });
    while slow.asked() < 2 {
        tokio::task::yield_now().await;
    }
    let begun = tokio::time::Instant::now();
    assert!(matches!(directory.lookup("c").await, Err(DirectoryError::Busy)));
    assert_eq!(begun.elapsed().as_secs(), 1);
    assert_eq!(slow.asked(), 2, "the third was not asked");
    assert!(other.lookup("c").await.unwrap().is_some());
    for waiting in waiting {
        assert!(is_unavailable(&waiting.await.unwrap()));
    }
    slow.set(Mode::Good);
    assert!(directory.lookup("c").await.unwrap().is_some(), "the circuit is closed: a full bulkhead is no fault");
    assert_eq!(directory.figures().get("fake", "lookup", "busy"), 1);
}

#[tokio::test(start_paused = true)]
async fn a20_logins_leave_turns_to_the_lookups_of_sessions() {
    let source = Fake::new();
    let directory = directory(&source, Bounds { max_requests: 8, ..BOUNDS });
    source.permits.forget_permits(Semaphore::MAX_PERMITS);
    let logins: Vec<_> = (0..20)
        .map(|n| {
            let directory = directory.clone();
            tokio::spawn(async move { directory.authenticate(None, &format!("guess{n}"), &secret("wrong")).await })
        })
        .collect();
    while source.asked() < 6 {
        tokio::task::yield_now().await;
    }
    // Further logins wait for their turn. A refresh does not wait for them.
    let lookup = {
        let directory = directory.clone();
        tokio::spawn(async move { directory.lookup("ada").await })
    };
    while source.asked() < 7 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(SECOND).await;
    while directory.figures().get("fake", "authenticate", "busy") < 14 {
        tokio::task::yield_now().await;
    }
    source.permits.add_permits(20);
    assert!(lookup.await.unwrap().unwrap().is_some());
    let busy = futures_util::future::join_all(logins).await;
    let busy = busy.into_iter().filter(|login| matches!(login, Ok(Err(DirectoryError::Busy)))).count();
    assert_eq!((busy, source.asked()), (14, 7));
}

#[tokio::test(start_paused = true)]
async fn i25_lookups_of_one_subject_share_a_request() {
    let source = Fake::new();
    let directory = directory(&source, BOUNDS);
    source.permits.forget_permits(Semaphore::MAX_PERMITS);
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let directory = directory.clone();
            tokio::spawn(async move { directory.lookup("ada").await })
        })
        .collect();
    while source.asked() < 1 {
        tokio::task::yield_now().await;
    }
    source.permits.add_permits(1);
    for waiting in waiting {
        assert!(waiting.await.unwrap().unwrap().is_some());
    }
    assert_eq!(source.asked(), 1);
}

#[tokio::test]
async fn i23_a_lookup_is_cached_for_its_time_and_a_login_sees_no_older_entry() {
    let source = Fake::new();
    let directory = directory(&source, Bounds { lookup_cache: SECOND * 60, ..BOUNDS });
    for _ in 0..3 {
        assert!(directory.lookup("ada").await.unwrap().is_some());
    }
    assert_eq!(source.asked(), 1);
    assert!(login(&directory, "right").await.unwrap().is_some());
    assert!(directory.lookup("ada").await.unwrap().is_some());
    assert_eq!(source.asked(), 3, "the lookup after a login asks");
    let directory = self::directory(&source, BOUNDS);
    for asked in 4..=6 {
        directory.lookup("ada").await.unwrap();
        assert_eq!(source.asked(), asked, "without a cache each lookup asks");
    }
}

#[tokio::test]
async fn i29_a_weak_hash_is_replaced_once_and_a_failure_does_not_fail_the_login() {
    let weak = SecretHash::new(hash_with(&secret("right"), CHEAP).unwrap());
    let source = Fake::new();
    *source.hash.lock().unwrap() = Some(weak.clone());
    let directory = directory(&source, BOUNDS);
    let now = || source.hash.lock().unwrap().clone().unwrap();

    assert!(login(&directory, "wrong").await.unwrap().is_none());
    assert_eq!(now(), weak, "a wrong password replaces nothing");

    source.rehash_fails.store(true, Ordering::SeqCst);
    assert!(login(&directory, "right").await.unwrap().is_some());
    assert_eq!(now(), weak);

    source.rehash_fails.store(false, Ordering::SeqCst);
    let user = login(&directory, "right").await.unwrap().unwrap();
    let strong = now();
    assert!(strong.expose().starts_with("$argon2id$v=19$m=19456,"), "ours");
    assert_eq!(user.password_mark, Some(PasswordMark::new(strong.expose().as_bytes())), "the mark of the new one");

    assert!(login(&directory, "right").await.unwrap().is_some());
    assert_eq!(now(), strong, "a good hash stays");
    assert_eq!(directory.figures().get("fake", "rehash", "replaced"), 1);
}

#[tokio::test]
async fn a2_an_unknown_user_costs_a_check_as_dear_as_the_dearest_hash() {
    let dear = Cost { memory_kib: 32 * 1024, passes: 2, lanes: 1 };
    let source = Fake::new();
    *source.hash.lock().unwrap() = Some(SecretHash::new(hash_with(&secret("right"), dear).unwrap()));
    let passwords = Arc::new(Passwords::new(2, 2));
    let directory = with_passwords(&source, BOUNDS, Arc::clone(&passwords));
    login(&directory, "wrong").await.unwrap();
    let wrong = passwords.work();
    directory.authenticate(None, "none", &secret("wrong")).await.unwrap();
    assert_eq!(passwords.work() - wrong, wrong);
}

#[tokio::test(start_paused = true)]
async fn a2_i24_a_refusal_takes_as_long_as_the_slowest_where_the_source_says_so() {
    for (pads, expected) in [(true, 400), (false, 20)] {
        let source = Fake::new();
        source.pads.store(pads, Ordering::SeqCst);
        let directory = directory(&source, BOUNDS);
        source.set(Mode::Slow(Duration::from_millis(400)));
        assert_eq!(timed(&directory, "none").await, (false, 400));
        source.set(Mode::Slow(Duration::from_millis(20)));
        assert_eq!(timed(&directory, "none").await, (false, expected), "a refusal");
        assert_eq!(timed(&directory, "ada").await, (true, 20), "a login is not held up");
    }
}

#[tokio::test(start_paused = true)]
async fn i24_an_answer_that_is_put_off_is_no_fault_of_the_source() {
    let source = Fake::new();
    let directory = directory(&source, BOUNDS);
    source.set(Mode::Later);
    for _ in 0..10 {
        let answers = [login(&directory, "right").await.map(drop), directory.lookup("ada").await.map(drop)];
        for answer in answers {
            assert!(matches!(answer, Err(DirectoryError::Later(wait)) if wait == SECOND * 60), "{answer:?}");
        }
    }
    source.set(Mode::Good);
    assert!(login(&directory, "right").await.unwrap().is_some(), "the circuit is closed");
    assert_eq!(directory.figures().get("fake", "lookup", "later"), 10);
}

#[tokio::test]
async fn i30_i32_an_imported_hash_logs_in_and_an_unknown_user_takes_as_long() {
    let source = Fake::new();
    // Django's PBKDF2 of "right".
    *source.hash.lock().unwrap() = Some(SecretHash::new(
        "pbkdf2_sha256$1000000$pepper12345678901234$9gJvJzXuX8ncxdTKk9c3+CvD0vDOuq54+fQSg88ww0I=",
    ));
    let passwords = Arc::new(Passwords::new(2, 2));
    let directory = with_passwords(&source, BOUNDS, Arc::clone(&passwords));
    assert!(login(&directory, "wrong").await.unwrap().is_none());
    let (runs, work) = (passwords.runs(), passwords.work());
    assert_eq!(work, 0, "no argon2: its class takes less time");
    directory.authenticate(None, "none", &secret("wrong")).await.unwrap();
    assert_eq!((passwords.runs(), passwords.work()), (2 * runs, 0));

    assert!(login(&directory, "right").await.unwrap().is_some());
    let replaced = source.hash.lock().unwrap().clone().unwrap();
    assert!(replaced.expose().starts_with("$argon2id$v=19$m=19456,"), "ours");
    assert!(login(&directory, "right").await.unwrap().is_some());
}

#[tokio::test]
async fn i32_an_unknown_user_costs_as_much_as_an_expected_hash_before_one_was_seen() {
    let dear = Cost { memory_kib: 32 * 1024, passes: 2, lanes: 1 };
    let pbkdf2 = CostClass::Pbkdf2 { bits: 256, iterations: 1_000_000 };
    for (expected, work) in [
        (vec![], Cost::default().work()),
        (vec![CostClass::Argon2(dear)], dear.work()),
        // One PBKDF2 run instead of argon2.
        (vec![pbkdf2], 0),
        (vec![CostClass::Argon2(CHEAP)], Cost::default().work()),
    ] {
        let source = Fake::expecting(expected.clone());
        *source.hash.lock().unwrap() = Some(SecretHash::new(hash_with(&secret("right"), CHEAP).unwrap()));
        let passwords = Arc::new(Passwords::new(2, 2));
        let directory = with_passwords(&source, BOUNDS, Arc::clone(&passwords));
        for logins in 1..=2 {
            assert!(directory.authenticate(None, "none", &secret("wrong")).await.unwrap().is_none());
            assert_eq!((passwords.runs(), passwords.work()), (logins, logins * work), "{expected:?}");
        }
        // A check of a known user with a cheaper hash costs the same, because the remaining work is added.
        let before = passwords.runs();
        assert!(login(&directory, "wrong").await.unwrap().is_none());
        assert!(passwords.runs() - before >= 2, "{expected:?}");
    }
}

#[tokio::test]
async fn i26_a_name_with_insignificant_characters_never_reaches_the_source() {
    let source = Fake::new();
    let directory = directory(&source, BOUNDS);
    for name in ["", " ada", "ada ", "a  da", "a\0da", "a\nda"] {
        assert!(directory.authenticate(None, name, &secret("right")).await.unwrap().is_none(), "{name:?}");
    }
    assert_eq!(source.asked(), 0);
    assert_eq!(directory.limit_key(None, "ADA"), directory.limit_key(None, "ada"));
}

#[tokio::test]
async fn i64_an_account_that_no_directory_has_costs_as_much_as_an_unknown_user() {
    let passwords = Arc::new(Passwords::new(2, 2));
    let none = Directories::new(Vec::new(), Arc::clone(&passwords));
    assert_eq!(none.authenticate(Some("other"), "ada", &secret("right")).await.unwrap(), None);
    let of_no_account = passwords.work();
    directory_with_hashes(&passwords).authenticate(None, "none", &secret("wrong")).await.unwrap();
    assert!(of_no_account > 0 && passwords.work() == 2 * of_no_account);
}

/// A directory that has our hashes.
fn directory_with_hashes(passwords: &Arc<Passwords>) -> RemoteDirectory {
    let source = Fake::new();
    *source.hash.lock().unwrap() = Some(SecretHash::new(hash_with(&secret("right"), Cost::default()).unwrap()));
    with_passwords(&source, BOUNDS, Arc::clone(passwords))
}

#[tokio::test]
async fn i25_the_account_decides_which_directory_is_asked_and_no_other_is_tried() {
    let (acme, rest) = (Fake::new(), Fake::new());
    let entry = |source: &Arc<Fake>, accounts: Option<&[&str]>| AccountDirectory {
        accounts: accounts.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        directory: Arc::new(directory(source, BOUNDS)),
    };
    let all = vec![entry(&rest, None), entry(&acme, Some(&["acme", "acme-test"]))];
    let all = Directories::new(all, Arc::new(Passwords::new(2, 2)));
    let lookup = async |account: Option<&str>| all.lookup_in(account, "ada").await;
    for (account, asked) in
        [(Some("acme"), (1, 0)), (Some("acme-test"), (2, 0)), (Some("other"), (2, 1)), (None, (2, 2))]
    {
        lookup(account).await.unwrap();
        assert_eq!((acme.asked(), rest.asked()), asked, "{account:?}");
    }
    acme.set(Mode::Fails);
    assert!(is_unavailable(&lookup(Some("acme")).await));
    assert_eq!(all.authenticate(None, "none", &secret("wrong")).await.unwrap(), None);
    assert_eq!((acme.asked(), rest.asked()), (3, 3));

    all.replace(vec![entry(&acme, Some(&["acme"]))]);
    assert!(is_unavailable(&lookup(Some("other")).await), "a session of an account without a directory");
    assert!(is_unavailable(&lookup(None).await));
    assert_eq!(all.authenticate(Some("other"), "ada", &secret("right")).await.unwrap(), None);
    assert_eq!(rest.asked(), 3);
}

#[tokio::test]
async fn i48_i62_no_login_and_no_wrong_password_tells_which_names_are_one_users() {
    let source = Fake::new();
    *source.hash.lock().unwrap() = Some(SecretHash::new(hash_with(&secret("right"), CHEAP).unwrap()));
    let directory = directory(&source, BOUNDS);
    let key = |name| directory.limit_key(None, name).into_owned();
    let (names, before) = (["ada", "alias/ada", "none"], ["ada", "alias/ada", "none"].map(key));
    assert_eq!(key("DOMAIN\\ADA"), before[0], "what the source ignores is no other name");
    assert!(before[0] != before[1] && before[1] != before[2]);
    for password in ["wrong", "right"] {
        for name in names {
            let user = directory.authenticate(None, name, &secret(password)).await.unwrap();
            assert_eq!(user.is_some(), password == "right" && name != "none", "{name}");
        }
        assert_eq!(names.map(key), before);
    }
}

#[tokio::test]
async fn i55_a_user_without_an_account_is_refused_where_there_is_one_and_that_is_no_wrong_password() {
    let source = Fake::new();
    let directory = directory(&source, BOUNDS);
    let login = async |account, name| directory.authenticate(account, name, &secret("right")).await;
    assert!(matches!(login(Some("acme"), "ada").await, Err(DirectoryError::NoAccount)), "the source names no account");
    assert!(matches!(login(Some("acme"), "none").await, Ok(None)));
    assert!(matches!(login(None, "ada").await, Ok(Some(_))));
    *source.hash.lock().unwrap() = Some(SecretHash::new(hash_with(&secret("else"), CHEAP).unwrap()));
    assert!(matches!(login(Some("acme"), "ada").await, Ok(None)), "a wrong password");
}
