//! Vaults in a store whose rows a test changes, and a provider that is never reached.

use super::*;
use crate::Gate;
use crate::gate::Browser;
use rotogate_core::claim::OwnClaims;
use rotogate_core::clock::ManualTime;
use rotogate_core::engine::{ApplicationLogin, BrowserLogin, Origin};
use rotogate_core::session::Scope;
use rotogate_core::store::MemoryStore;
use rotogate_core::store::kit::encoding::encode;
use rotogate_core::store::rows::{RowStore, RowVersion};
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::{IssuerKeys, IssuerRules};
use rotogate_issuers::login::MetadataSource;
use rotogate_issuers::remote_keys::{Metadata, RemoteIssuer};
use support::documents::Documents;

const PROVIDER: &str = "https://id.example";

struct World {
    /// The URL of the provider.
    url: String,
    gate: Gate,
    time: Arc<ManualTime>,
    store: Arc<MemoryStore>,
}

impl World {
    async fn new() -> Self {
        Self::at(PROVIDER.to_owned(), Arc::new(|| None)).await
    }

    async fn at(url: String, metadata: MetadataSource) -> Self {
        let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
        let store = Arc::new(MemoryStore::new("https://gate.test", Duration::ZERO));
        let provider = LoginProvider::with_metadata(&RemoteIssuer::new("kc", &url), "web", metadata);
        let mut rules = IssuerRules::external(url.as_str(), vec!["api".into()], IssuerKeys::unknown());
        rules.name = "kc".into();
        let gate = Gate::builder()
            .issuer("https://gate.test")
            .keys(Keyring::ephemeral().unwrap())
            .trusted_issuer(rules)
            .row_store(Arc::<MemoryStore>::clone(&store))
            .browser(Browser::provider("/auth", provider))
            .time(Arc::<ManualTime>::clone(&time));
        Self { url, gate: gate.build().await.unwrap(), time, store }
    }

    /// A session whose access token is good for five minutes.
    async fn begin(&self, refresh_token: Option<&str>) -> BrowserLogin {
        let inner = &self.gate.0;
        let start = ApplicationLogin {
            subject: "kc|ada",
            account: None,
            client: "browser",
            scope: Scope::default(),
            claims: OwnClaims::default(),
            vouched_by: Some(VouchedBy::new(self.url.as_str(), "ada")),
            profile: inner.endpoints.browser_profile().unwrap(),
            origin: &Origin::default(),
        };
        let login = inner.engine.start_at_provider(start, "browser").await.unwrap();
        let vaults = inner.vaults().unwrap();
        let further = FurtherTokens {
            refresh_token: refresh_token.map(|token| token.to_owned().into()),
            lifetime: Some(Duration::from_secs(300)),
        };
        let now = inner.engine.clock().now();
        let tokens = KeptTokens::new(vaults.provider, (Some("an.id.token"), "access"), &further, now);
        vaults.begin(&login.cookie, &tokens, login.session.expires).await.unwrap();
        login
    }

    /// A request with this cookie: returns the provider's token, if it is good.
    async fn ask(&self, login: &BrowserLogin, when: RenewWhen) -> Result<Result<String, Denial>, Denial> {
        let value: Arc<str> = login.cookie.value().as_str().into();
        let verified = self.gate.0.loaded_session(value, when).await.outcome?;
        let token = verified.provider_token(self.gate.0.engine.clock().now());
        Ok(token.map(|token| token.unwrap().to_string()))
    }

    async fn request(&self, login: &BrowserLogin) -> Result<Result<String, Denial>, Denial> {
        self.ask(login, RenewWhen::Over).await
    }

    fn pass(&self, seconds: u64) {
        self.time.advance(Duration::from_secs(seconds));
    }
}

#[tokio::test]
async fn b5_a_vault_of_another_session_or_writer_is_no_vault() {
    let world = World::new().await;
    let (mine, other) = (world.begin(Some("refresh")).await, world.begin(Some("refresh")).await);
    let vaults = world.gate.0.vaults().unwrap();
    let [my_id, other_id] = [&mine, &other].map(|login| vaults.keys(&login.cookie).unwrap().id());
    let good = world.store.load_row(VAULTS, my_id).await.unwrap().unwrap();
    let put = async |row: Row| {
        world.store.remove_row(VAULTS, my_id, None).await.unwrap();
        world.store.insert_row(VAULTS, my_id, row, Timestamp::ZERO).await.unwrap();
        world.request(&mine).await
    };
    // Attack 27.
    let of_other = world.store.load_row(VAULTS, other_id).await.unwrap().unwrap();
    let plain = postcard::to_stdvec(&vaults.load(&other.cookie).await.unwrap().unwrap().tokens).unwrap();
    for forged in [
        of_other.clone(),
        Row { version: RowVersion([1; 16]), ..good.clone() },
        Row { until: Timestamp::MAX, ..good.clone() },
        Row { bytes: plain, ..good.clone() },
    ] {
        assert!(matches!(put(forged).await, Err(Denial::SessionUnavailable(_))), "no decision");
    }
    assert_eq!(put(good).await, Ok(Ok("access".to_owned())), "the session lives");
    assert_eq!(world.request(&other).await, Ok(Ok("access".to_owned())));
    // A restored store has no vault.
    let third = world.begin(Some("refresh")).await;
    vaults.remove(&third.cookie).await;
    assert!(matches!(world.request(&third).await, Err(Denial::SessionOver(_))));
}

#[tokio::test]
async fn b59_a_vault_takes_at_most_160_bytes_more_than_its_tokens() {
    let world = World::new().await;
    let vaults = world.gate.0.vaults().unwrap();
    let [refresh, id, access] = ["r".repeat(2_000), "i".repeat(MAX_HINT), "a".repeat(3_000)];
    let further = FurtherTokens { refresh_token: Some(refresh.clone().into()), lifetime: None };
    let tokens = KeptTokens::new(vaults.provider, (Some(&id), &access), &further, world.gate.0.engine.clock().now());
    let login = world.begin(None).await;
    vaults.remove(&login.cookie).await;
    vaults.begin(&login.cookie, &tokens, login.session.expires).await.unwrap();
    let id_of_row = vaults.keys(&login.cookie).unwrap().id();
    let row = world.store.load_row(VAULTS, id_of_row).await.unwrap().unwrap();
    let bytes = id_of_row.0.len() + encode(&row).unwrap().len();
    let more = bytes - refresh.len() - id.len() - access.len();
    assert!(more <= 160, "{more} bytes");
}

#[tokio::test(start_paused = true)]
async fn b43_a_logout_takes_the_vault_once_and_after_a_short_fault() {
    let world = World::new().await;
    let login = world.begin(Some("refresh")).await;
    let vaults = world.gate.0.vaults().unwrap();
    let id = vaults.keys(&login.cookie).unwrap().id();
    let good = world.store.load_row(VAULTS, id).await.unwrap().unwrap();
    let put = async |row: Row| {
        world.store.remove_row(VAULTS, id, None).await.unwrap();
        world.store.insert_row(VAULTS, id, row, Timestamp::ZERO).await.unwrap();
    };
    put(Row { version: RowVersion([1; 16]), ..good.clone() }).await;
    let good_again = async {
        tokio::time::sleep(LOOK_EVERY * 3 / 2).await;
        put(good.clone()).await;
    };
    let (hint, ()) = tokio::join!(vaults.close(&login.cookie), good_again);
    assert_eq!(hint.as_deref().map(String::as_str), Some("an.id.token"));
    assert!(vaults.close(&login.cookie).await.is_none(), "once");
    // A lasting fault does not hold up the logout.
    put(Row { version: RowVersion([1; 16]), ..good }).await;
    assert!(vaults.close(&login.cookie).await.is_none());
}

#[tokio::test]
async fn b40_while_the_provider_is_away_the_user_is_forwarded_for_ten_minutes_and_a_token_while_it_is_good() {
    let world = World::new().await;
    let login = world.begin(Some("refresh")).await;
    world.pass(299);
    // Asked ahead, in vain.
    assert_eq!(world.ask(&login, RenewWhen::Due).await, Ok(Ok("access".to_owned())));
    for seconds in [1, 100, 199] {
        world.pass(seconds);
        assert!(matches!(world.request(&login).await, Ok(Err(Denial::SessionUnavailable(_)))), "{seconds}");
    }
    world.pass(1);
    assert!(matches!(world.request(&login).await, Err(Denial::SessionUnavailable(_))));
    // A prefetch asks no provider.
    assert_eq!(world.ask(&login, RenewWhen::Never).await, Err(Denial::SessionNotRenewed));
    // The session is live.
    let session = world.gate.sessions().get(login.session.id).await.unwrap().unwrap();
    assert_eq!((session.status, &*session.dialect), (rotogate_core::session::Status::Live, "browser"));
}

/// A wrong secret of ours ends no session early: the token that the provider granted is good to its end, and the error in the
/// log comes when a fifth of its life is left.
#[tokio::test]
async fn b40_a_gate_that_the_provider_refuses_goes_on_to_the_end_of_the_access_token() {
    let provider = Documents::start();
    let document = serde_json::json!({
        "issuer": provider.url(), "jwks_uri": provider.at("/keys"), "token_endpoint": provider.at("/token"),
    });
    let metadata = Arc::new(Metadata::parse(document.to_string().as_bytes(), &provider.url()).unwrap());
    let world = World::at(provider.url(), Arc::new(move || Some(Arc::clone(&metadata)))).await;
    let login = world.begin(Some("refresh")).await;
    let body = r#"{"error":"invalid_client"}"#;
    let refused = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    provider.answer("/token", refused);
    world.pass(299);
    assert!(matches!(world.ask(&login, RenewWhen::Due).await, Err(Denial::SessionUnavailable(_))), "in the background");
    assert_eq!(provider.times("/token"), 1);
    assert_eq!(world.request(&login).await, Ok(Ok("access".to_owned())));
    world.pass(1);
    assert!(matches!(world.request(&login).await, Err(Denial::SessionUnavailable(_))));
    let session = world.gate.sessions().get(login.session.id).await.unwrap().unwrap();
    assert_eq!(session.status, rotogate_core::session::Status::Live);
}

#[tokio::test]
async fn b40_without_a_refresh_token_the_session_goes_on_and_its_token_ends() {
    let world = World::new().await;
    let login = world.begin(None).await;
    assert_eq!(world.request(&login).await, Ok(Ok("access".to_owned())));
    world.pass(300);
    assert_eq!(world.request(&login).await, Ok(Err(Denial::ProviderTokenOver)));
    world.pass(3600);
    assert_eq!(world.request(&login).await, Ok(Err(Denial::ProviderTokenOver)));
}

#[test]
fn b40_a_refresh_is_due_between_seven_and_nine_tenths_of_a_tokens_life() {
    let provider = LoginProvider::with_metadata(&RemoteIssuer::new("kc", PROVIDER), "web", Arc::new(|| None));
    let now = Timestamp::from_secs(1_800_000_000);
    let further = FurtherTokens { refresh_token: None, lifetime: Some(Duration::from_secs(1000)) };
    let tokens = KeptTokens::new(&provider, (None, "access"), &further, now);
    let after = |last: u8| tokens.refresh_from(SessionId::from_bytes([last; 16])).since(now).as_secs();
    assert_eq!((after(0), after(128), after(255)), (700, 800, 900));
    let unknown = KeptTokens::new(&provider, (None, "access"), &FurtherTokens::default(), now);
    assert_eq!(unknown.expires.since(now), Duration::from_secs(300));
    // A long hint is not kept.
    let long = "x".repeat(MAX_HINT + 1);
    assert!(KeptTokens::new(&provider, (Some(&long), "access"), &further, now).id_token.is_none());
    let none = KeptTokens::new(&provider.identity_only(), (None, "access"), &further, now);
    assert!(none.access_token.is_none());
}
