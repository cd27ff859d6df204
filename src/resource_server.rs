//! A resource server, which accepts the access tokens of other issuers but does not issue tokens itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rotogate_core::invalid::InvalidValue;
use rotogate_core::route::{Route, RoutePolicy};
use rotogate_core::token::{IssuerKeys, IssuerRules, Preset};
use rotogate_issuers::remote_keys::{RemoteIssuer, RemoteKeys};

use crate::Gate;
use crate::gate::{BuildError, GateBuilder};

/// Builds a [`Gate`] that accepts the access tokens of other issuers, and does not issue tokens itself. It therefore
/// does not need its own issuer, keys, clients or store. Every path requires a token, unless the path is
/// [`public`](Self::public) or has a route that [`with`](Self::with) adds. All scopes in the tokens are accepted.
///
/// ```no_run
/// use axum::Router;
/// use axum::routing::get;
/// use rotogate::token::Preset;
/// use rotogate::{Identity, ResourceServer};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let gate = ResourceServer::discover("https://idp.example.com/realms/x")
///     .audience("api")
///     .preset(Preset::Keycloak)
///     .build()
///     .await?;
/// let app = Router::new()
///     .route("/me", get(async |caller: Identity| caller.subject().to_owned()))
///     .route("/admin", get(async || "the office").route_layer(gate.require().role("boss")))
///     .layer(gate.layer());
/// # let _: Router = app;
/// # Ok(()) }
/// ```
///
/// The result is an ordinary gate. Until the keys of an issuer are known, a request gets 503 instead of 401. A token
/// that [`Sessions::revoke_token`](crate::gate::Sessions::revoke_token) revokes is refused from the next request on.
///
/// To issue tokens as well, call [`into_builder`](Self::into_builder) and continue with the [`GateBuilder`].
#[derive(Debug)]
#[must_use = "a resource server does nothing until it is built"]
pub struct ResourceServer {
    first: TrustedIssuer,
    others: Vec<TrustedIssuer>,
    folder: Option<PathBuf>,
    builder: GateBuilder,
}

/// An issuer whose keys are fetched when the gate is built, and the rules for its tokens.
#[derive(Debug)]
struct TrustedIssuer {
    remote: RemoteIssuer,
    rules: IssuerRules,
}

impl TrustedIssuer {
    fn start(self, folder: Option<&Path>) -> Result<(RemoteKeys, IssuerRules), BuildError> {
        let Self { mut remote, mut rules } = self;
        if rules.audience.is_empty() {
            return Err(BuildError::NoAudience(remote.issuer));
        }
        rules.name.as_ref().clone_into(&mut remote.name);
        if let Some(folder) = folder {
            remote = remote.kept_in(folder);
        }
        let issuer = remote.issuer.clone();
        let keys = RemoteKeys::start(remote).map_err(|error| BuildError::RemoteIssuer { issuer, error })?;
        rules.keys = keys.rules(rules.audience.iter().cloned()).keys;
        Ok((keys, rules))
    }
}

impl ResourceServer {
    /// Trusts the issuer with this URL, exactly as `iss` spells it. Its keys are found by discovery (RFC 8414, OpenID
    /// Connect Discovery), and kept up to date.
    pub fn discover(issuer: impl Into<String>) -> Self {
        Self::trusting(RemoteIssuer::new("", issuer))
    }

    /// Trusts an issuer whose keys are at a URL, or whose server needs a CA or a proxy.
    pub fn trusting(remote: RemoteIssuer) -> Self {
        let rules = IssuerRules::external(remote.issuer.as_str(), Vec::new(), IssuerKeys::unknown());
        let rules = rules.scopes(None).everywhere();
        let first = TrustedIssuer { remote, rules };
        Self { first, others: Vec::new(), folder: None, builder: GateBuilder::default().every_path() }
    }

    /// Accepts tokens for this audience, in addition to the audiences of earlier calls. A token must name one of them.
    pub fn audience(mut self, audience: impl Into<Box<str>>) -> Self {
        let rules = &mut self.first.rules;
        rules.audience = rules.audience.iter().cloned().chain([audience.into()]).collect();
        self
    }

    /// Reads tokens in the format of this provider: see [`IssuerRules::preset`].
    pub fn preset(mut self, preset: Preset) -> Self {
        self.first.rules = self.first.rules.preset(preset);
        if self.first.remote.algorithms.is_empty() {
            self.first.remote.algorithms.extend(preset.algorithm());
        }
        self
    }

    /// Changes the rules for the tokens of the issuer. Call it after [`preset`](Self::preset).
    ///
    /// ```
    /// use rotogate::ResourceServer;
    ///
    /// let server = ResourceServer::discover("https://idp.example.com")
    ///     .audience("api")
    ///     .rules(|rules| rules.typ(["JWT"]).require("tenant", ["acme"])?.roles(["groups"]))?;
    /// # let _ = server;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The error that `change` returns.
    pub fn rules(
        mut self,
        change: impl FnOnce(IssuerRules) -> Result<IssuerRules, InvalidValue>,
    ) -> Result<Self, InvalidValue> {
        self.first.rules = change(self.first.rules)?;
        Ok(self)
    }

    /// Also trusts the issuers of another resource server. Other settings of that server are ignored.
    pub fn and(mut self, other: Self) -> Self {
        self.others.push(other.first);
        self.others.extend(other.others);
        self
    }

    /// Admits every request for this path: `/health`, `/assets/{*rest}`.
    pub fn public(mut self, path: impl Into<String>) -> Self {
        self.builder = self.builder.route(Route::new(path, RoutePolicy::public()));
        self
    }

    /// Keeps the last valid keys of the issuers in this folder, so that a restart does not depend on an unreachable
    /// issuer.
    pub fn keep_keys(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Changes other settings of the gate: a store of revocations, routes with scopes, a resource with a metadata
    /// document (RFC 9728), trusted proxies.
    ///
    /// ```
    /// use rotogate::ResourceServer;
    /// use rotogate::route::Resource;
    ///
    /// let server = ResourceServer::discover("https://idp.example.com")
    ///     .audience("https://tools.example.com/mcp")
    ///     .with(|gate| gate.public_url("https://tools.example.com").resource(Resource::new("/mcp")));
    /// # let _ = server;
    /// ```
    pub fn with(mut self, change: impl FnOnce(GateBuilder) -> GateBuilder) -> Self {
        self.builder = change(self.builder);
        self
    }

    /// Builds the gate. It waits for one attempt to fetch the keys of each issuer. An issuer that does not respond is
    /// not an error, but requests with its tokens get 503 until it responds. This method needs a tokio runtime.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn build(self) -> Result<Gate, BuildError> {
        self.into_builder().await?.build().await
    }

    /// Returns the builder of the gate, to which the gate's own issuer, keys, clients and endpoints can be added.
    ///
    /// ```no_run
    /// use rotogate::ResourceServer;
    /// use rotogate::token::Keyring;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = ResourceServer::discover("https://idp.example.com").audience("api");
    /// let builder = server.into_builder().await?.issuer("https://api.example.com").keys(Keyring::ephemeral()?);
    /// # let _ = builder;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// An issuer whose tokens have no [`audience`](Self::audience), or whose keys cannot be fetched with these
    /// settings.
    pub async fn into_builder(self) -> Result<GateBuilder, BuildError> {
        let Self { first, others, folder, mut builder } = self;
        let begun = std::iter::once(first).chain(others).map(|trusted| trusted.start(folder.as_deref()));
        let begun = begun.collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<Arc<str>> = Vec::new();
        for (keys, mut rules) in begun {
            keys.first_attempt().await;
            // Several issuers may have the same host, and would then have the same name.
            if names.contains(&rules.name) {
                rules.name = Arc::clone(&rules.issuer);
            }
            names.push(Arc::clone(&rules.name));
            builder = builder.trusted_issuer(rules);
        }
        Ok(builder)
    }
}
