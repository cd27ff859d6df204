//! The registered OAuth clients (RFC 6749 §2), and how they authenticate.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretString};

use crate::denial::Denial;
use crate::fault::Error;
use crate::limit::Limits;
use crate::password::Passwords;
pub use crate::password::SecretHash;
pub use crate::random::NoRandomness;
use crate::random::{are_equal, random};
use crate::session::profile::ProfileOverride;
use crate::session::{Binding, Scope};
use crate::token::live_keys::LiveKeys;
use crate::token::verify::{IssuerKeys, Keys};

mod exchange;

pub use exchange::ExchangeRules;

/// A grant type of OAuth.
///
/// ```
/// use rotogate::client::{Client, Grant};
///
/// // The application logs in its users itself. The client only refreshes tokens.
/// let mobile = Client { grants: vec![Grant::RefreshToken], ..Client::public("mobile") };
/// assert!(mobile.may(Grant::RefreshToken) && !mobile.may(Grant::Password));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Grant {
    /// The password grant, RFC 6749 §4.3.
    Password,
    /// The refresh token grant, RFC 6749 §6.
    RefreshToken,
    /// The client credentials grant, RFC 6749 §4.4. Only for confidential clients.
    ClientCredentials,
    /// Token exchange, RFC 8693. Only for confidential clients with [`ExchangeRules`].
    TokenExchange,
    /// The JWT bearer grant with an assertion of another issuer, RFC 7523 §2.1.
    JwtBearer,
}

impl Grant {
    /// The grant's `grant_type` (RFC 6749).
    pub const fn word(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
            Self::TokenExchange => "urn:ietf:params:oauth:grant-type:token-exchange",
            Self::JwtBearer => "urn:ietf:params:oauth:grant-type:jwt-bearer",
        }
    }
}

/// The public keys of a client that authenticates with assertions (RFC 7523 §2.2, `private_key_jwt`).
#[derive(Clone, Debug)]
pub struct ClientKeys(Keys);

impl From<IssuerKeys> for ClientKeys {
    fn from(keys: IssuerKeys) -> Self {
        Self(Keys::Live(keys.into()))
    }
}

impl PartialEq for ClientKeys {
    fn eq(&self, other: &Self) -> bool {
        self.0.equal(&other.0)
    }
}

impl Eq for ClientKeys {}

impl ClientKeys {
    /// Creates keys that are fetched from a URL.
    pub fn live(keys: Arc<LiveKeys>) -> Self {
        Self(Keys::Live(keys))
    }

    /// The client's public keys.
    pub fn keys(&self) -> &Keys {
        &self.0
    }
}

/// A registered client.
///
/// ```
/// use rotogate::client::Client;
/// use rotogate::session::Scope;
///
/// let web = Client { scopes: Some(Scope::parse("read write")?), ..Client::public("web") };
/// let builder = rotogate::Gate::builder().client(web);
/// # let _ = builder;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The `client_id`.
    pub id: Box<str>,
    /// The argon2id hash of the client's secret, if the client is confidential (RFC 6749 §2.1).
    pub secret_hash: Option<SecretHash>,
    /// The client's public keys (see [`Self::with_keys`]).
    #[doc(hidden)]
    pub keys: Option<ClientKeys>,
    /// The grant types that the client may use.
    pub grants: Vec<Grant>,
    /// The scopes that the client may request, or `None` for no restriction.
    pub scopes: Option<Scope>,
    /// Settings that override the endpoint's profile.
    pub profile: ProfileOverride,
    /// Whether the client's tokens are bound to the client's DPoP key.
    pub dpop: Binding,
    /// Whether the client's tokens are bound to its client certificate.
    pub certificate_bound: Binding,
    /// The rules for token exchange, if the client has [`Grant::TokenExchange`].
    pub exchange: Option<ExchangeRules>,
}

impl Client {
    /// Creates a public client that logs users in with a password and refreshes their tokens.
    pub fn public(id: impl Into<Box<str>>) -> Self {
        Self {
            id: id.into(),
            secret_hash: None,
            keys: None,
            grants: vec![Grant::Password, Grant::RefreshToken],
            scopes: None,
            profile: ProfileOverride::default(),
            dpop: Binding::Off,
            certificate_bound: Binding::Off,
            exchange: None,
        }
    }

    /// Returns whether the client can authenticate (RFC 6749 §2.1).
    pub const fn is_confidential(&self) -> bool {
        self.secret_hash.is_some() || self.keys.is_some()
    }

    /// Makes the client authenticate with assertions (RFC 7523 §2.2, `private_key_jwt`) instead of a secret.
    ///
    /// ```
    /// use rotogate::client::Client;
    /// use rotogate::token::IssuerKeys;
    ///
    /// # let jwks = rotogate::token::Keyring::ephemeral()?.jwks().to_string();
    /// let orders = Client::public("orders").with_keys(IssuerKeys::from_jwks(jwks.as_bytes(), None)?);
    /// assert!(orders.is_confidential());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_keys(mut self, keys: IssuerKeys) -> Self {
        self.keys = Some(keys.into());
        self
    }

    /// Returns whether the client may use this grant.
    pub fn may(&self, grant: Grant) -> bool {
        self.grants.contains(&grant)
    }
}

/// The client credentials of a request.
///
/// ```
/// use rotogate::SecretString;
/// use rotogate::client::PresentedClient;
///
/// // `client_id` and `client_secret` of a request, as a dialect reads them.
/// let secret = Some(SecretString::from("of this client"));
/// let client = PresentedClient { id: "billing".to_owned(), secret, assertion: None };
/// assert!(!format!("{client:?}").contains("of this client"), "a secret does not print");
/// ```
#[derive(Clone, Debug)]
pub struct PresentedClient {
    /// The `client_id`.
    pub id: String,
    /// The secret, if a non-empty secret was sent.
    pub secret: Option<SecretString>,
    /// The assertion (RFC 7523 §2.2).
    pub assertion: Option<SecretString>,
}

/// The registered clients.
pub struct Clients {
    by_id: HashMap<Box<str>, KnownClient>,
    passwords: Arc<Passwords>,
    digest_key: hmac::Key,
}

struct KnownClient {
    client: Arc<Client>,
    /// A digest of the last valid secret, which avoids slow argon2 computations.
    good: ArcSwapOption<[u8; 32]>,
}

crate::debug_with!(Clients, |it, f| f.debug_list().entries(it.by_id.values().map(|known| &known.client)).finish());

impl Clients {
    /// Registers clients. If several clients have the same id, the last one is used.
    ///
    /// # Errors
    /// The system does not provide random bytes.
    pub fn new(clients: Vec<Client>, passwords: Arc<Passwords>) -> Result<Self, NoRandomness> {
        let digest_key = hmac::Key::new(hmac::HMAC_SHA256, random::<32>()?.as_slice());
        let by_id = clients
            .into_iter()
            .map(|client| (client.id.clone(), KnownClient { client: Arc::new(client), good: ArcSwapOption::empty() }))
            .collect();
        Ok(Self { by_id, passwords, digest_key })
    }

    /// Copies the digests of unchanged secrets.
    pub fn following(mut self, old: &Self) -> Self {
        self.digest_key.clone_from(&old.digest_key);
        for (id, known) in &mut self.by_id {
            if let Some(before) = old.by_id.get(id)
                && before.client.secret_hash == known.client.secret_hash
            {
                known.good = ArcSwapOption::new(before.good.load_full());
            }
        }
        self
    }

    /// Returns whether a client may exchange tokens for a matching audience.
    pub fn exchange_for(&self, is_it: impl Fn(&str) -> bool) -> bool {
        let rules = self.by_id.values().filter_map(|known| known.client.exchange.as_ref());
        rules.flat_map(|rules| &rules.to).any(|audience| is_it(audience))
    }

    /// The ids of all clients.
    pub fn ids(&self) -> HashSet<Box<str>> {
        self.by_id.keys().cloned().collect()
    }

    /// All clients.
    pub fn all(&self) -> impl Iterator<Item = &Client> {
        self.by_id.values().map(|known| &*known.client)
    }

    /// The client with this id.
    pub fn get(&self, id: &str) -> Option<Arc<Client>> {
        self.by_id.get(id).map(|known| Arc::clone(&known.client))
    }

    /// Authenticates a client without an assertion. A confidential client authenticates with its secret. A public
    /// client must not send a secret (RFC 6749 §3.2.1). `limits` apply before the secret is hashed. A fast digest
    /// recognises the last valid secret, so that the slow hash is not computed again.
    ///
    /// # Errors
    /// [`Denial::InvalidClient`], a denial from `limits`, or a fault if too many password checks are waiting.
    pub async fn authenticate(
        &self,
        presented: &PresentedClient,
        limits: &Limits,
        address: Option<IpAddr>,
    ) -> Result<Arc<Client>, Error> {
        let known = self.by_id.get(presented.id.as_str()).ok_or(Denial::InvalidClient)?;
        match (&known.client.secret_hash, &presented.secret) {
            // The caller verifies assertions.
            _ if known.client.keys.is_some() || presented.assertion.is_some() => Err(Denial::InvalidClient.into()),
            (None, None) => Ok(Arc::clone(&known.client)),
            (None, Some(_)) | (Some(_), None) => Err(Denial::InvalidClient.into()),
            (Some(hash), Some(secret)) => {
                let digest: [u8; 32] = self.digest(secret);
                let was_good =
                    known.good.load().as_deref().is_some_and(|good| are_equal(good.as_slice(), digest.as_slice()));
                if was_good {
                    return Ok(Arc::clone(&known.client));
                }
                let _place = limits.admit_secret(address, &presented.id).await?;
                if !self.passwords.verify(secret, hash.expose()).await? {
                    limits.record_failed_secret(address, &presented.id).await;
                    return Err(Denial::InvalidClient.into());
                }
                known.good.store(Some(Arc::new(digest)));
                Ok(Arc::clone(&known.client))
            }
        }
    }

    fn digest(&self, secret: &SecretString) -> [u8; 32] {
        let tag = hmac::sign(&self.digest_key, secret.expose_secret().as_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(tag.as_ref());
        digest
    }
}
