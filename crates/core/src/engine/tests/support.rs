//! The engine and its parts without HTTP: [`World`].

use std::collections::HashMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::client::Client;
use crate::clock::{EngineClock, ManualTime, Timestamp};
use crate::credential::Credential;
use crate::denial::Denial;
use crate::directory::{Directory, DirectoryError, User};
use crate::engine::{
    AccountRule, ApplicationLogin, Engine, EngineConfig, IssueKind, IssuedTokens, Login, Origin, Refresh, kind_of_issue,
};
use crate::fault::{Error, Fault};
use crate::limit::{Limits, Rate, Rates};
use crate::revocation::{Revocation, RevocationList, Target};
use crate::session::confirm::Confirmations;
use crate::session::profile::Profile;
use crate::session::{Generation, RevokedBecause, Scope, Session, SessionId};
use crate::store::conformance::nodes::{MemoryNode, Way};
use crate::store::owed::OwedFile;
use crate::store::{
    Cursor, Filter, Inserted, MemoryStore, Page, SharedStore, Store, StoreError, SubjectBound, Swap, Swept,
    WriteOutcome,
};
use crate::token::algorithm::Algorithm;
use crate::token::claims::AccessToken;
use crate::token::keyring::{KeyMaterial, Keyring, RefreshKeys, RefreshSecret, SigningKey};
use crate::token::verify::{IssuerKeys, IssuerRules, Verifier};
use crate::verify_cache::{IdentityHeaders, MissContext, TokenChecker, Verified};

pub(super) const ISSUER: &str = "https://gate.test";
pub(super) const AUDIENCE: &str = "api";
pub(super) const LEEWAY: Duration = Duration::from_secs(30);
/// Not on a whole second, like real time.
pub(super) const T0: Timestamp = Timestamp::from_millis(1_700_000_000_400);
pub(super) const PASSWORD: &str = "correct horse";

pub(super) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) const HOUR: Duration = secs(3600);
pub(super) const DAY: Duration = secs(86_400);

pub(super) fn scope(text: &str) -> Scope {
    Scope::parse(text).unwrap()
}

/// The behaviour of the store's next operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Good,
    /// Every write fails, and writes nothing.
    WritesFail,
    /// Every write is refused, as by a store that takes a right away.
    Refuses,
    /// Every write is done, and fails for its caller.
    Unanswered,
    /// The part of the store that has sessions takes no revocation.
    NoSessionEnds,
    /// Everything fails.
    AllFails,
    /// Writes succeed, and then the process is as good as dead: nothing answers.
    DiesAfterWrite,
    /// Writes are neither done nor answered.
    Hangs,
}

type Hook = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The kind of a [`World`]'s store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only the process remembers writes that this store refuses.
    Alone,
    /// A file beside the store keeps such writes, as for a store of redb.
    WithFile,
    /// That file is full.
    FullFile,
    /// The embedded store. A restart is a crash.
    Embedded,
    /// Other gates write to it, too.
    Shared,
}

/// A store in memory that fails on command.
pub(super) struct Told {
    inner: Arc<dyn Store>,
    kind: Kind,
    /// The store as a shared one, if other gates write to it.
    pub(super) node: Option<Arc<MemoryNode>>,
    owed: Option<Arc<OwedFile>>,
    folder: Arc<tempfile::TempDir>,
    mode: Mutex<Mode>,
    /// The record of this session cannot be read.
    pub(super) spoilt: Mutex<Option<SessionId>>,
    /// Runs before the next insert or compare-and-swap: what another request does in between.
    hook: Mutex<Option<Hook>>,
    pub(super) loads: AtomicUsize,
}

crate::debug_with!(Told);

impl Told {
    fn new(inner: Arc<dyn Store>, kind: Kind, node: Option<Arc<MemoryNode>>, folder: Arc<tempfile::TempDir>) -> Self {
        let owed = match kind {
            Kind::Alone | Kind::Shared => None,
            Kind::WithFile => Some(Arc::new(OwedFile::beside(&folder.path().join("store")).unwrap())),
            // The file has no room for one line.
            Kind::FullFile => Some(Arc::new(OwedFile::open(folder.path().join("store.owed"), 16).unwrap())),
            Kind::Embedded => inner.owed_file().cloned(),
        };
        Self {
            inner,
            kind,
            node,
            owed,
            folder,
            mode: Mutex::new(Mode::Good),
            spoilt: Mutex::default(),
            hook: Mutex::default(),
            loads: AtomicUsize::new(0),
        }
    }

    /// The store that the next process opens.
    fn again(&self) -> Self {
        let loads = AtomicUsize::new(self.loads.load(Ordering::SeqCst));
        if self.kind == Kind::Embedded {
            // Copies the files as they are now, without the writes of an orderly end.
            let folder = tempfile::tempdir().unwrap();
            for file in std::fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap) {
                std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
            }
            return Self { loads, ..Self::new(super::embedded_in(&folder), self.kind, None, Arc::new(folder)) };
        }
        Self { loads, ..Self::new(Arc::clone(&self.inner), self.kind, self.node.clone(), Arc::clone(&self.folder)) }
    }

    pub(super) fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
        if let Some(node) = &self.node {
            node.set_way(if mode == Mode::AllFails { Way::Cut } else { Way::Open });
        }
    }

    pub(super) fn before_next_write(&self, hook: impl Future<Output = ()> + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::pin(hook));
    }

    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    fn broken() -> StoreError {
        StoreError::new("told to fail")
    }

    async fn write<T>(&self, work: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        match self.mode() {
            Mode::Good | Mode::NoSessionEnds => work.await,
            Mode::Refuses => Err(Self::broken().with_outcome(WriteOutcome::Refused)),
            Mode::Unanswered => {
                work.await?;
                Err(Self::broken())
            }
            Mode::WritesFail | Mode::AllFails => Err(Self::broken()),
            Mode::Hangs => pending().await,
            Mode::DiesAfterWrite => {
                work.await?;
                pending().await
            }
        }
    }

    async fn read<T>(&self, work: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        if self.mode() == Mode::AllFails { Err(Self::broken()) } else { work.await }
    }

    async fn run_hook(&self) {
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook.await;
        }
    }
}

#[async_trait]
impl Store for Told {
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if *self.spoilt.lock().unwrap() == Some(id) {
            return Err(StoreError::new("the record is damaged").of_one_record());
        }
        self.read(self.inner.load(id)).await
    }

    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        self.run_hook().await;
        self.write(self.inner.insert(session, bound)).await
    }

    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        self.run_hook().await;
        self.write(self.inner.compare_and_swap(expected, record, revocation)).await
    }

    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        if self.mode() == Mode::NoSessionEnds && matches!(entry.target, Target::Session(_)) {
            return Err(Self::broken());
        }
        self.write(self.inner.revoke(entry, because)).await
    }

    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        self.read(self.inner.revocations_since(cursor)).await
    }

    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        self.write(self.inner.confirm(seen)).await
    }

    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError> {
        self.read(self.inner.list(filter, after, limit)).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError> {
        self.write(self.inner.sweep(now)).await
    }

    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        self.read(self.inner.last_known_time()).await
    }

    fn shared(&self) -> Option<&dyn SharedStore> {
        self.inner.shared()
    }

    fn owed_file(&self) -> Option<&Arc<OwedFile>> {
        self.owed.as_ref()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.read(self.inner.check()).await
    }
}

/// Users in memory, all with one password.
#[derive(Debug, Default)]
pub(super) struct Users {
    by_subject: Mutex<HashMap<Box<str>, User>>,
    pub(super) down: std::sync::atomic::AtomicBool,
    pub(super) lookups: AtomicUsize,
    pub(super) authentications: AtomicUsize,
    /// A change of a user right after its next password check succeeded.
    pub(super) then: Mutex<Option<fn(&mut User)>>,
}

impl Users {
    pub(super) fn add(&self, subject: &str, account: Option<&str>) {
        let mut user = User::new(subject).scopes(scope("read write"));
        user.account = account.map(Into::into);
        self.by_subject.lock().unwrap().insert(subject.into(), user);
    }

    pub(super) fn change(&self, subject: &str, change: impl FnOnce(&mut User)) {
        change(self.by_subject.lock().unwrap().get_mut(subject).unwrap());
    }

    pub(super) fn remove(&self, subject: &str) {
        self.by_subject.lock().unwrap().remove(subject);
    }

    fn find(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(DirectoryError::Unavailable("told to fail".into()));
        }
        Ok(self.by_subject.lock().unwrap().get(subject).cloned())
    }
}

#[async_trait]
impl Directory for Users {
    async fn authenticate(
        &self,
        account: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        self.authentications.fetch_add(1, Ordering::SeqCst);
        let user = self.find(username)?;
        if let Some(then) = self.then.lock().unwrap().take() {
            self.change(username, then);
        }
        let good = |u: &User| u.active && u.account.as_deref() == account && password.expose_secret() == PASSWORD;
        Ok(user.filter(good))
    }

    async fn lookup_of_issuer(&self, _: &str, subject: &str) -> Result<Option<User>, DirectoryError> {
        self.find(subject)
    }

    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        self.find(subject)
    }
}

/// Key rings that share keys: `a` and `b` sign, 1 and 2 make refresh tokens.
pub(super) struct Keys {
    a: KeyMaterial,
    b: KeyMaterial,
    refresh: [Zeroizing<String>; 2],
}

impl Keys {
    pub(super) fn new() -> Self {
        let refresh = || RefreshSecret::generate().unwrap().to_text();
        Self {
            a: KeyMaterial::generate(Algorithm::EdDsa).unwrap(),
            b: KeyMaterial::generate(Algorithm::EdDsa).unwrap(),
            refresh: [refresh(), refresh()],
        }
    }

    /// The first kid signs, the others verify; the first refresh key makes tokens, the others are recognised.
    pub(super) fn ring(&self, kids: &[&str], refresh: &[u8]) -> Arc<Keyring> {
        let key = |kid: &&str| {
            let material = if *kid == "a" { &self.a } else { &self.b };
            SigningKey::from_material_named(Algorithm::EdDsa, material, kid).unwrap()
        };
        let secret = |id: &u8| {
            let text = &self.refresh[usize::from(*id) - 1];
            (*id, RefreshSecret::from_text(text.as_bytes()).unwrap())
        };
        let secrets: Vec<_> = refresh.iter().map(secret).collect();
        let refresh = RefreshKeys::new(refresh[0], &secrets).unwrap();
        Arc::new(Keyring::from_parts(Uuid::nil(), key(&kids[0]), kids[1..].iter().map(key).collect(), refresh).unwrap())
    }
}

/// Access and refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) session: SessionId,
}

impl From<IssuedTokens> for Pair {
    fn from(issued: IssuedTokens) -> Self {
        Self {
            access: issued.access_token.expose().to_owned(),
            refresh: issued.refresh_token.unwrap().expose().to_owned(),
            session: issued.session.unwrap(),
        }
    }
}

/// The differences from a plain refresh by the client `web`.
pub(super) struct Ask {
    pub(super) client: Client,
    pub(super) account: AccountRule<'static>,
    pub(super) scope: Option<Scope>,
    pub(super) access_ttl: Option<Duration>,
    pub(super) accepts: Vec<Box<str>>,
    pub(super) by_access: Vec<Box<str>>,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            client: Client::public("web"),
            account: AccountRule::Only(None),
            scope: None,
            access_ttl: None,
            accepts: vec!["oauth2".into(), "application".into()],
            by_access: Vec::new(),
        }
    }
}

pub(super) struct World {
    pub(super) time: Arc<ManualTime>,
    pub(super) store: Arc<Told>,
    pub(super) users: Arc<Users>,
    pub(super) keys: Keys,
    pub(super) engine: Arc<Engine>,
    pub(super) checker: TokenChecker,
    pub(super) profile: Profile,
    rates: Rates,
}

/// Room for some hundred tokens.
pub(super) const CACHE: u64 = 150_000;

/// No limit that a test meets by accident.
fn generous() -> Rates {
    let rate = Rate::new(1_000_000, Duration::from_millis(1));
    Rates {
        login_per_address: rate,
        login_per_account: rate,
        login_per_client: rate,
        refresh_per_address: rate,
        refresh_per_session: rate,
        forged_per_address: rate,
        refused_per_address: rate,
        forged_overall: rate,
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with_rates(generous()).await
    }

    pub(super) async fn limited_to(refresh_per_session: Rate) -> Self {
        Self::with_rates(Rates { refresh_per_session, ..generous() }).await
    }

    async fn with_rates(rates: Rates) -> Self {
        Self::with(rates, Kind::Alone).await
    }

    pub(super) async fn on(kind: Kind) -> Self {
        Self::with(generous(), kind).await
    }

    async fn with(rates: Rates, kind: Kind) -> Self {
        let time = ManualTime::at(T0);
        let node = (kind == Kind::Shared).then(|| Arc::new(MemoryNode::first(ISSUER, LEEWAY, time.clone())));
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let inner: Arc<dyn Store> = match &node {
            Some(node) => Arc::<MemoryNode>::clone(node),
            None if kind == Kind::Embedded => super::embedded_in(&folder),
            None => Arc::new(MemoryStore::new(ISSUER, LEEWAY)),
        };
        let store = Arc::new(Told::new(inner, kind, node, folder));
        let users = Arc::new(Users::default());
        users.add("ada", None);
        users.add("bob", None);
        users.add("eve", Some("acme"));
        let keys = Keys::new();
        let (engine, checker) = start(&time, &store, &users, keys.ring(&["a"], &[1]), rates).await;
        // A bound that no test meets by accident.
        let profile = Profile { max_sessions_per_subject: 10_000, ..Profile::default() };
        Self { time, store, users, keys, engine, checker, profile, rates }
    }

    /// Replaces this process by another one on the same store.
    pub(super) async fn restart(&mut self) {
        self.restart_while(Mode::Good).await;
    }

    /// As above, on a store that is in this state after its first reads.
    pub(super) async fn restart_while(&mut self, mode: Mode) {
        self.store.set(Mode::Good);
        self.store = Arc::new(self.store.again());
        (self.engine, self.checker) =
            start(&self.time, &self.store, &self.users, self.engine.keyring(), self.rates).await;
        self.store.set(mode);
    }

    /// Another process beside this one.
    pub(super) async fn second_node(&self) -> Arc<Engine> {
        start(&self.time, &self.store, &self.users, self.engine.keyring(), self.rates).await.0
    }

    pub(super) fn set_keys(&self, keyring: Arc<Keyring>) {
        self.checker.set_verifier(verifier(&keyring));
        self.engine.set_keyring(keyring);
    }

    pub(super) async fn login(&self) -> Pair {
        self.login_as("ada").await.unwrap().into()
    }

    pub(super) async fn login_as(&self, username: &str) -> Result<IssuedTokens, Error> {
        self.login_with(username, None, "web", None).await
    }

    pub(super) async fn login_with(
        &self,
        username: &str,
        account: Option<&str>,
        client: &str,
        access_ttl: Option<Duration>,
    ) -> Result<IssuedTokens, Error> {
        let login = Login {
            proof: None,
            certificate: None,
            client: &Client::public(client),
            account,
            username,
            password: &SecretString::from(PASSWORD),
            scope: None,
            access_ttl,
            resource: None,
            profile: &self.profile,
            dialect: "oauth2",
            arrived: crate::engine::Arrival::default(),
            origin: &Origin::default(),
        };
        self.engine.login(login).await
    }

    pub(super) async fn start(&self, subject: &str) -> Result<IssuedTokens, Error> {
        let start = ApplicationLogin {
            vouched_by: None,
            subject,
            account: None,
            client: "web",
            scope: scope("read"),
            claims: crate::claim::OwnClaims::default(),
            profile: &self.profile,
            origin: &Origin::default(),
        };
        self.engine.start(start).await
    }

    pub(super) async fn refresh(&self, token: &str) -> Result<IssuedTokens, Error> {
        self.ask(token, Ask::default()).await
    }

    /// A refresh that must be issued this way.
    pub(super) async fn refreshed(&self, token: &str, how: IssueKind) -> Pair {
        let issued = self.refresh(token).await.unwrap();
        assert_eq!(kind_of_issue(&issued), how);
        issued.into()
    }

    pub(super) async fn ask(&self, token: &str, ask: Ask) -> Result<IssuedTokens, Error> {
        refresh_on(&self.engine, token, ask, &self.profile).await
    }

    pub(super) fn check(&self, access: &str) -> Result<Arc<Verified>, Denial> {
        self.checker.check(Credential::new(access), || self.shown(self.engine.confirmations()), &mut ())
    }

    pub(super) fn verify_ignoring_expiry(
        &self,
        access: &str,
        expired_for_at_most: Duration,
    ) -> Result<AccessToken, Denial> {
        self.checker.verify_ignoring_expiry(access, expired_for_at_most, self.shown(self.engine.confirmations()))
    }

    pub(super) fn shown<'a>(&'a self, confirmations: &'a Confirmations) -> MissContext<'a> {
        MissContext { limits: self.engine.limits(), confirmations, source: None.into(), introspected: None }
    }

    pub(super) async fn record(&self, id: SessionId) -> Session {
        self.store.inner.load(id).await.unwrap().unwrap()
    }

    pub(super) fn advance(&self, by: Duration) {
        self.time.advance(by);
    }
}

pub(super) async fn refresh_on(
    engine: &Engine,
    token: &str,
    ask: Ask,
    profile: &Profile,
) -> Result<IssuedTokens, Error> {
    let refresh = Refresh {
        proof: None,
        certificate: None,
        credential: crate::engine::Exchange::Refresh(&SecretString::from(token)),
        client: &ask.client,
        account: ask.account,
        scope: ask.scope,
        access_ttl: ask.access_ttl,
        resource: None,
        profile,
        accepts: &ask.accepts,
        by_access: &ask.by_access,
        arrived: crate::engine::Arrival::default(),
        origin: &Origin::default(),
    };
    engine.refresh(refresh).await
}

fn verifier(keyring: &Keyring) -> Verifier {
    let other = |issuer: &str, prefix: &str| {
        let mut rules = IssuerRules::external(issuer, vec![AUDIENCE.into()], IssuerKeys::unknown());
        rules.subject_prefix = prefix.into();
        rules
    };
    let own = IssuerRules::own(ISSUER, vec![AUDIENCE.into()], keyring, LEEWAY);
    Verifier::new(vec![own, other("https://idp.test", "okta|"), other("https://id.example", "kc|")]).unwrap()
}

/// As [`GateBuilder::build`](crate::gate::GateBuilder::build), without the gate's background task.
async fn start(
    time: &Arc<ManualTime>,
    store: &Arc<Told>,
    users: &Arc<Users>,
    keyring: Arc<Keyring>,
    rates: Rates,
) -> (Arc<Engine>, TokenChecker) {
    let clock = Arc::new(EngineClock::start(time.clone(), store.last_known_time().await.unwrap(), LEEWAY));
    let revocations = Arc::new(RevocationList::new());
    for entry in store.revocations_since(Cursor::default()).await.unwrap().0 {
        revocations.apply(&entry);
    }
    let (verifier, sources) = {
        let it = verifier(&keyring);
        let sources = Arc::clone(it.sources());
        (it, sources)
    };
    let checker = TokenChecker::new(
        verifier,
        Arc::clone(&clock),
        Arc::clone(&revocations),
        IdentityHeaders::default(),
        CACHE,
        usize::MAX,
    );
    let engine = Engine::new(EngineConfig {
        styles: Vec::new(),
        issuer: ISSUER.into(),
        audience: vec![AUDIENCE.into()],
        leeway: LEEWAY,
        keyring,
        store: store.clone(),
        directory: Some(users.clone()),
        clock,
        revocations,
        limits: Arc::new(Limits::new(rates, time.clone())),
        counters: None,
        keep_login_origin: true,
        staleness: None,
    });
    engine.set_sources(sources);
    (Arc::new(engine), checker)
}

pub(super) fn denied<T: std::fmt::Debug>(result: Result<T, Error>) -> Denial {
    match result.unwrap_err() {
        Error::Denied(denial) => denial,
        Error::Failed(fault) => panic!("a fault instead of a refusal: {fault:?}"),
    }
}

pub(super) fn failed<T: std::fmt::Debug>(result: Result<T, Error>) -> Fault {
    match result.unwrap_err() {
        Error::Denied(denial) => panic!("a refusal instead of a fault: {denial:?}"),
        Error::Failed(fault) => fault,
    }
}
