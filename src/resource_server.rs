use std::path::{Path, PathBuf};
use std::sync::Arc;

use rotogate_core::invalid::InvalidValue;
use rotogate_core::route::{Route, RoutePolicy};
use rotogate_core::token::{IssuerKeys, IssuerRules, Preset};
use rotogate_issuers::remote_keys::{RemoteIssuer, RemoteKeys};

use crate::Gate;
use crate::gate::{BuildError, GateBuilder};

/// Builds a [`Gate`] that accepts the access tokens of other issuers, and does not issue tokens. Such a gate does not
/// need an issuer, keys, clients or a store of its own. Every path requires a token, unless it is
/// [`public`](Self::public) or has a route from [`with`](Self::with). All scopes in the tokens are accepted.
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
/// Until an issuer's keys are known, requests get 503 instead of 401. To revoke a token, call
/// [`Sessions::revoke_token`](crate::gate::Sessions::revoke_token).
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
    /// Trusts the issuer with this URL, spelt exactly as in `iss`. The keys are found by discovery (RFC 8414, OpenID
    /// Connect Discovery), and kept up to date.
    pub fn discover(issuer: impl Into<String>) -> Self {
        Self::trusting(RemoteIssuer::new("", issuer))
    }

    /// Trusts an issuer whose keys are at another URL, or whose server needs a CA or a proxy.
    pub fn trusting(remote: RemoteIssuer) -> Self {
        let rules = IssuerRules::external(remote.issuer.as_str(), Vec::new(), IssuerKeys::unknown());
        let rules = rules.scopes(None).everywhere();
        let first = TrustedIssuer { remote, rules };
        Self { first, others: Vec::new(), folder: None, builder: GateBuilder::default().every_path() }
    }

    /// Accepts tokens for this audience. If this method is called several times, a token must name one of the
    /// audiences.
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

    /// Changes the rules for the issuer's tokens. Call it after [`preset`](Self::preset).
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

    /// Keeps the issuers' last valid keys in this folder. A restart then succeeds even if an issuer is unreachable.
    pub fn keep_keys(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Changes other settings of the gate, such as routes, the store, trusted proxies, or a resource (RFC 9728).
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

    /// Builds the gate, and tries once to fetch each issuer's keys. Until an unreachable issuer responds, requests with
    /// its tokens get 503. This method needs a tokio runtime.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn build(self) -> Result<Gate, BuildError> {
        self.into_builder().await?.build().await
    }

    /// Returns the gate's builder, for example to add an issuer, keys, clients and endpoints.
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
    /// Fails if an issuer has no [`audience`](Self::audience), or if its keys cannot be fetched with these settings.
    pub async fn into_builder(self) -> Result<GateBuilder, BuildError> {
        let Self { first, others, folder, mut builder } = self;
        let begun = std::iter::once(first).chain(others).map(|trusted| trusted.start(folder.as_deref()));
        let begun = begun.collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<Arc<str>> = Vec::new();
        for (keys, mut rules) in begun {
            keys.first_attempt().await;
            // Two issuers on the same host would otherwise have the same name.
            if names.contains(&rules.name) {
                rules.name = Arc::clone(&rules.issuer);
            }
            names.push(Arc::clone(&rules.name));
            builder = builder.trusted_issuer(rules);
        }
        Ok(builder)
    }
}
