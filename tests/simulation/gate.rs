//! A process: the engine, and the state that ends with it.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use rotogate::SecretString;
use rotogate::client::Client;
use rotogate::fault::Error;
use rotogate::session::profile::Profile;
use rotogate::session::{Generation, RevokedBecause, Scope, SessionId};
use rotogate::store::{Cursor, Store};
use rotogate_core::clock::{EngineClock, ManualTime, Timestamp};
use rotogate_core::engine::{
    APPLICATION, AccountRule, ApplicationLogin, Engine, EngineConfig, Exchange, IssuedTokens, Origin, Refresh,
};
use rotogate_core::limit::{Limits, Rate, Rates};
use rotogate_core::revocation::RevocationList;
use rotogate_core::revocation::list::TokenFacts;
use rotogate_core::session::rotation::{Decision, Facts, decide};
use rotogate_core::token::keyring::{KeyMaterial, Keyring, RefreshKeys, RefreshSecret, SigningKey};
use rotogate_core::token::{Algorithm, refresh};
use uuid::Uuid;

use crate::store::{Faulty, ISSUER, LEEWAY};

const CLIENT: &str = "web";
pub(crate) const GRACE: Duration = Duration::from_secs(10);
pub(crate) const WINDOW: Duration = Duration::from_secs(3600);

/// HMAC, because the simulation does not test signatures.
static KEYS: LazyLock<Arc<Keyring>> = LazyLock::new(|| {
    let material = KeyMaterial::generate(Algorithm::Hs256).unwrap();
    let key = SigningKey::from_material_named(Algorithm::Hs256, &material, "a").unwrap();
    let refresh = RefreshKeys::new(1, &[(1, RefreshSecret::generate().unwrap())]).unwrap();
    Arc::new(Keyring::from_parts(Uuid::nil(), key, Vec::new(), refresh).unwrap())
});

/// The rules of a history: a rotation may leave earlier access tokens valid, or end them at once. From [`LAX`] on, the same
/// rules with a longer grace than promised.
static PROFILES: LazyLock<[Profile; 4]> = LazyLock::new(|| {
    let profile = Profile { grace: GRACE, lost_response_window: WINDOW, ..Profile::default() };
    let ends = Profile { revoke_previous_after: Some(Duration::ZERO), ..profile.clone() };
    let [lax, lax_ends] = [&profile, &ends].map(|profile| Profile { grace: GRACE * 2, ..profile.clone() });
    let all = [profile, ends, lax, lax_ends];
    all.iter().for_each(|profile| assert_eq!(profile.problems(), vec![]));
    all
});
/// The first of the profiles whose grace is too long.
pub(crate) const LAX: usize = 2;

/// The generation of a refresh token of this gate.
pub(crate) fn generation(token: &str) -> Generation {
    refresh::authenticate(KEYS.refresh_keys(), token).expect("a token that we made").generation
}

/// The result of a request.
#[expect(clippy::large_enum_variant, reason = "a few at a time")]
pub(crate) enum Done {
    Refreshed(Result<IssuedTokens, Error>),
    Revoked(Result<bool, Error>),
    /// Whether the store has accepted all owed revocations.
    Flushed(bool),
}

pub(crate) type Work = Pin<Box<dyn Future<Output = Done>>>;

/// Advances a request to its next await.
pub(crate) fn poll(work: &mut Work) -> Option<Done> {
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

/// See the module.
pub(crate) struct Gate {
    engine: Arc<Engine>,
    store: Arc<Faulty>,
    profile: &'static Profile,
}

impl Gate {
    /// A process that starts on the content of the store.
    pub(crate) fn start(time: &Arc<ManualTime>, store: &Arc<Faulty>, rules: usize) -> Self {
        let (revocations, clock) = loaded(time, store);
        let rate = Rate::new(1_000_000, Duration::from_millis(1));
        let rates = Rates { refresh_per_address: rate, refresh_per_session: rate, ..Rates::default() };
        let engine = Engine::new(EngineConfig {
            issuer: ISSUER.into(),
            audience: vec!["api".into()],
            leeway: LEEWAY,
            styles: Vec::new(),
            keyring: Arc::clone(&KEYS),
            store: Arc::clone(store) as Arc<dyn Store>,
            directory: None,
            clock: Arc::new(clock),
            revocations: Arc::new(revocations),
            limits: Arc::new(Limits::new(rates, Arc::clone(time) as _)),
            counters: None,
            keep_login_origin: false,
            staleness: None,
        });
        Self { engine: Arc::new(engine), store: Arc::clone(store), profile: &PROFILES[rules] }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.engine.clock().now()
    }

    /// Begins a session on a store without faults.
    pub(crate) fn begin(&self, subject: &str) -> IssuedTokens {
        let start = ApplicationLogin {
            vouched_by: None,
            subject,
            account: None,
            client: CLIENT,
            scope: Scope::default(),
            claims: rotogate::claim::OwnClaims::default(),
            profile: self.profile,
            origin: &Origin::default(),
        };
        self.engine.start(start).now_or_never().expect("a quiet store waits for nothing").unwrap()
    }

    pub(crate) fn refresh(&self, token: &str) -> Work {
        let (engine, profile, token) = (Arc::clone(&self.engine), self.profile, SecretString::from(token));
        Box::pin(async move {
            let refresh = Refresh {
                resource: None,
                proof: None,
                certificate: None,
                credential: Exchange::Refresh(&token),
                client: &Client::public(CLIENT),
                account: AccountRule::Any,
                scope: None,
                access_ttl: None,
                profile,
                accepts: &[APPLICATION.into()],
                by_access: &[],
                arrived: rotogate_core::engine::Arrival::default(),
                origin: &Origin::default(),
            };
            Done::Refreshed(engine.refresh(refresh).await)
        })
    }

    pub(crate) fn log_out(&self, token: &str) -> Work {
        let (engine, token) = (Arc::clone(&self.engine), token.to_owned());
        Box::pin(async move {
            Done::Revoked(engine.revoke_refresh_token(&token, CLIENT, AccountRule::Any, &Origin::default()).await)
        })
    }

    pub(crate) fn revoke_subject(&self, subject: &str) -> Work {
        let (engine, subject) = (Arc::clone(&self.engine), subject.to_owned());
        Box::pin(
            async move { Done::Revoked(engine.revoke_subject(&subject, RevokedBecause::Operator).await.map(|_| true)) },
        )
    }

    /// The periodic work of the task behind a gate.
    pub(crate) fn flush(&self) -> Work {
        let engine = Arc::clone(&self.engine);
        Box::pin(async move {
            // Failed writes are kept, and tried again.
            let _ = engine.flush_confirmations().await;
            Done::Flushed(engine.pay().await.is_ok())
        })
    }

    pub(crate) fn follow_the_clock(&self) {
        self.engine.clock().tick();
    }

    /// Does an access token of this generation pass?
    pub(crate) fn passes(&self, session: SessionId, subject: &str, generation: Generation) -> bool {
        let facts = TokenFacts {
            delegation: None,
            key_vouchers: None,
            vouched_by: None,
            issuer_session: None,
            issuer: ISSUER,
            subject,
            sub: None,
            client: Some(CLIENT),
            session: Some((session, generation)),
            jti: None,
            issued_at: None,
        };
        !self.engine.revocations().judge(facts, self.now()).refuses(self.now())
    }

    /// Uses an access token, as a request would.
    pub(crate) fn uses(&self, session: SessionId, subject: &str, generation: Generation) -> bool {
        let passes = self.passes(session, subject, generation);
        if passes {
            self.engine.confirmations().seen(session, generation);
        }
        passes
    }

    /// Would the table serve this generation's refresh token now, by the knowledge of the store and of this process?
    pub(crate) fn would_serve(&self, id: SessionId, subject: &str, generation: Generation) -> bool {
        let Some(mut session) = self.store.record(id) else { return false };
        session.confirmed |= self.engine.confirmations().has(id, session.current);
        let facts = Facts {
            user_active: true,
            sessions_valid_from: self.engine.revocations().not_before(ISSUER, subject, Some(CLIENT)),
            minimum_known: self.engine.revocations().minimum(id),
            unbroken_revocations: false,
        };
        match decide(&session, generation, facts, self.now(), self.profile) {
            Decision::Rotate | Decision::Replay | Decision::Reissue | Decision::Ahead { fast_forward: true } => true,
            Decision::Revoked(_)
            | Decision::Expired(_)
            | Decision::Ahead { fast_forward: false }
            | Decision::Reuse(_) => false,
        }
    }
}

/// The state that a process loads before it serves.
fn loaded(time: &Arc<ManualTime>, store: &Faulty) -> (RevocationList, EngineClock) {
    fn at_once<T, E: Debug>(work: impl Future<Output = Result<T, E>>) -> T {
        work.now_or_never().expect("memory waits for nothing").unwrap()
    }
    let tables = store.tables();
    let revocations = RevocationList::new();
    for entry in at_once(tables.revocations_since(Cursor::default())).0 {
        revocations.apply(&entry);
    }
    let clock = EngineClock::start(Arc::clone(time) as _, at_once(tables.last_known_time()), LEEWAY);
    (revocations, clock)
}
