//! Refresh tokens: one spelling each, and what no key of this gate made never gets as far as the store.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use rotogate::SecretString;
use rotogate::client::Client;
use rotogate::denial::Denial;
use rotogate::fault::Error;
use rotogate::session::profile::Profile;
use rotogate::session::{Generation, RevokedBecause, Session, SessionId};
use rotogate::store::{Cursor, Filter, Inserted, Page, Store, StoreError, SubjectBound, Swap, Swept};
use rotogate_core::clock::{EngineClock, SystemTime, Timestamp};
use rotogate_core::engine::{AccountRule, Engine, EngineConfig, Exchange, Origin, Refresh};
use rotogate_core::limit::{Limits, Rate, Rates};
use rotogate_core::revocation::{Revocation, RevocationList};
use rotogate_core::session::SessionSecret;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::refresh::{self, PREFIX};

use crate::input::target;

const SECRET: SessionSecret = SessionSecret::new([9; 16]);
const CLIENT: &str = "web";
const TAG: usize = 16;
/// Stands for a good token in the corpus …
const PLACEHOLDER: char = '@';
/// … and this for one without its last character, which holds bits that mean nothing.
const SHORTENED: char = '~';

static KEYS: LazyLock<Arc<Keyring>> = LazyLock::new(|| Arc::new(Keyring::ephemeral().unwrap()));
static TOKEN: LazyLock<String> =
    LazyLock::new(|| made(SessionId::new(Timestamp::from_secs(1), [7; 10]), Generation::new(3)));

fn made(id: SessionId, generation: Generation) -> String {
    let keys = KEYS.refresh_keys();
    refresh::make(keys, keys.current(), id, generation, &SECRET, CLIENT).unwrap().expose().to_owned()
}

fn bytes_of(token: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX).unwrap()).unwrap()
}

/// A store that must not be used.
struct Untouched;

rotogate_core::debug_with!(Untouched);

fn touched() -> ! {
    panic!("the store was touched")
}

#[async_trait]
impl Store for Untouched {
    async fn load(&self, _: SessionId) -> Result<Option<Session>, StoreError> {
        touched()
    }
    async fn insert(&self, _: Session, _: SubjectBound) -> Result<Inserted, StoreError> {
        touched()
    }
    async fn compare_and_swap(&self, _: u64, _: Session, _: Option<Revocation>) -> Result<Swap, StoreError> {
        touched()
    }
    async fn revoke(&self, _: Revocation, _: RevokedBecause) -> Result<Revocation, StoreError> {
        touched()
    }
    async fn revocations_since(&self, _: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        touched()
    }
    async fn confirm(&self, _: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        touched()
    }
    async fn list(&self, _: Filter, _: Option<SessionId>, _: usize) -> Result<Page, StoreError> {
        touched()
    }
    async fn sweep(&self, _: Timestamp) -> Result<Swept, StoreError> {
        touched()
    }
    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        touched()
    }
    async fn check(&self) -> Result<(), StoreError> {
        touched()
    }
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let time = Arc::new(SystemTime::new());
    let rate = Rate::new(1_000_000_000, Duration::from_nanos(1));
    let rates = Rates { refresh_per_address: rate, refresh_per_session: rate, ..Rates::default() };
    Engine::new(EngineConfig {
        issuer: "https://gate.test".into(),
        audience: vec!["api".into()],
        leeway: Duration::from_secs(30),
        styles: Vec::new(),
        keyring: Arc::clone(&KEYS),
        store: Arc::new(Untouched),
        directory: None,
        clock: Arc::new(EngineClock::start(Arc::clone(&time) as _, Timestamp::ZERO, Duration::from_secs(30))),
        revocations: Arc::new(RevocationList::new()),
        limits: std::sync::Arc::new(Limits::new(rates, time)),
        counters: None,
        keep_login_origin: false,
        staleness: None,
    })
});

fn presented(token: &str) -> Error {
    let refresh = Refresh {
        resource: None,
        proof: None,
        certificate: None,
        credential: Exchange::Refresh(&SecretString::from(token)),
        client: &Client::public(CLIENT),
        account: AccountRule::Any,
        scope: None,
        access_ttl: None,
        profile: &Profile::default(),
        accepts: &[],
        by_access: &[],
        arrived: rotogate_core::engine::Arrival::default(),
        origin: &Origin::default(),
    };
    ENGINE.refresh(refresh).now_or_never().expect("an answer at once").unwrap_err()
}

target!(
    /// An authentic text differs from a token of this gate only in tag B, and only the token itself proves its session.
    /// The gate refuses other texts without asking the store (R7).
    refresh_token,
    &["@", "~", "rg1_", "rg2_", "=", "_", "-", "A", "AA", "AAA", "+", "/", "\0", "\n", " "],
    |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let text = text.replace(PLACEHOLDER, &TOKEN).replace(SHORTENED, &TOKEN[..TOKEN.len() - 1]);
        let Some(authentic) = refresh::authenticate(KEYS.refresh_keys(), &text) else {
            let refused = presented(&text);
            assert!(matches!(refused, Error::Denied(Denial::UnknownRefreshToken)), "{refused:?}");
            return;
        };
        let (bytes, ours) = (bytes_of(&text), bytes_of(&TOKEN));
        assert_eq!(bytes[..bytes.len() - TAG], ours[..ours.len() - TAG], "a token that we did not make");
        assert_eq!(authentic.proves(&SECRET, CLIENT), text == *TOKEN, "a second spelling of a token");
        assert!(!authentic.proves(&SECRET, "other") && !authentic.proves(&SessionSecret::new([8; 16]), CLIENT));
    }
);

target!(
    /// A made token reads as its parts; with any changed bit it is refused.
    refresh_token_made,
    &["\u{7f}\u{7f}", "\0\0\0\0"],
    |input| {
        let mut bytes = [0; 28];
        let length = input.len().min(bytes.len());
        bytes[..length].copy_from_slice(&input[..length]);
        let generation = Generation::new(u64::from_be_bytes(bytes[..8].try_into().unwrap()));
        let id = SessionId::from_bytes(bytes[8..24].try_into().unwrap());
        let token = made(id, generation);
        let authentic = refresh::authenticate(KEYS.refresh_keys(), &token).unwrap();
        assert_eq!((authentic.session, authentic.generation), (id, generation));
        assert!(authentic.proves(&SECRET, CLIENT));

        let mut edited = bytes_of(&token);
        let bit = usize::from(u16::from_be_bytes([bytes[24], bytes[25]])) % (edited.len() * 8);
        edited[bit / 8] ^= 1 << (bit % 8);
        let edited = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(edited));
        let taken = refresh::authenticate(KEYS.refresh_keys(), &edited);
        assert!(taken.is_none_or(|authentic| !authentic.proves(&SECRET, CLIENT)), "an edited token");
    }
);
