use std::net::IpAddr;

use serde::Serialize;

use rotogate_core::claim::OwnClaims;
use rotogate_core::engine::Origin;
use rotogate_core::invalid::InvalidValue;
use rotogate_core::session::profile::Profile;
use rotogate_core::session::{Scope, VouchedBy};

/// A session for [`Sessions::start`](super::Sessions::start).
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// let new = NewSession::new("ada", "web").account("acme").scope("read")?;
/// let tokens = gate.sessions().start(new).await?;
/// assert_eq!(tokens.scope.as_str(), "read");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct NewSession {
    pub(in crate::gate) subject: Box<str>,
    pub(in crate::gate) account: Option<Box<str>>,
    pub(in crate::gate) client: Box<str>,
    pub(in crate::gate) scope: Scope,
    pub(in crate::gate) claims: OwnClaims,
    pub(in crate::gate) vouched_by: Option<VouchedBy>,
    pub(in crate::gate) profile: Option<Profile>,
    pub(in crate::gate) origin: Origin,
}

impl NewSession {
    /// Makes a session of this client, for a user whom the application has logged in. If a route requires a recent
    /// login ([`StepUp`](crate::route::StepUp) with `max_age`), set the claim `auth_time`. The default is the current
    /// time.
    pub fn new(subject: impl Into<Box<str>>, client: impl Into<Box<str>>) -> Self {
        Self {
            subject: subject.into(),
            account: None,
            client: client.into(),
            scope: Scope::default(),
            claims: OwnClaims::default(),
            vouched_by: None,
            profile: None,
            origin: Origin::default(),
        }
    }

    /// Sets the scope. `"read write"` sets two scopes. The default is empty.
    ///
    /// # Errors
    /// Fails if the scope contains a forbidden character (RFC 6749 §3.3) or is too long.
    pub fn scope(self, scope: &str) -> Result<Self, InvalidValue> {
        Ok(Self { scope: Scope::parse(scope)?, ..self })
    }

    /// Adds a claim to every access token of the session, such as a tenant. The roles are in the claim `roles`, a
    /// string or a list of strings.
    ///
    /// ```
    /// use rotogate::gate::NewSession;
    ///
    /// let session = NewSession::new("ada", "web").claim("roles", ["editor"])?.claim("tenant", "acme")?;
    /// assert!(session.claim("sub", "root").is_err(), "the gate itself sets it");
    /// # Ok::<(), rotogate::InvalidValue>(())
    /// ```
    ///
    /// # Errors
    /// Fails if the gate itself sets this claim, the name or value is invalid, or the claims together exceed 2 KiB.
    // Requirement I42.
    pub fn claim(mut self, name: impl Into<String>, value: impl Serialize) -> Result<Self, InvalidValue> {
        self.claims.insert(name, value)?;
        Ok(self)
    }

    /// Sets the trusted issuer that confirmed the user: an OpenID provider where the application logged the user in.
    /// The session ends when the issuer reports that the login has ended. The session must be refreshed at least every
    /// three days. The claim `auth_time` states the time of that login. If the subject begins with an issuer's
    /// `subject_prefix`, that issuer must be set.
    ///
    /// ```
    /// use rotogate::gate::NewSession;
    /// use rotogate::session::VouchedBy;
    ///
    /// // The `iss`, `sub` and `sid` of the ID token.
    /// let by = VouchedBy::new("https://idp.example.com", "u-1").session("s-9");
    /// let session = NewSession::new("ada", "web").vouched_by(by);
    /// # let _ = session;
    /// ```
    #[must_use]
    pub fn vouched_by(mut self, by: VouchedBy) -> Self {
        self.vouched_by = Some(by);
        self
    }

    /// Sets the account. An endpoint with `{account}` in its path refreshes the session only with this account.
    #[must_use]
    pub fn account(mut self, account: impl Into<Box<str>>) -> Self {
        self.account = Some(account.into());
        self
    }

    /// Overrides the gate's profile for the session's lifetime, and for its first access token. A refresh uses the
    /// endpoint's profile.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = Some(profile);
        self
    }

    /// Sets the client's address.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.origin.address = Some(address);
        self
    }
}
