//! The requirements of a route.

use std::borrow::Cow;
use std::sync::Arc;

use super::mcp::Implied;
use super::path::{CanonicalPath, PathError};
use super::rate::RateLimit;
use crate::claim::Role;
use crate::claim::condition::{Condition, Conditions};
use crate::denial::Denial;
use crate::invalid::InvalidValue;
use crate::session::expiry::OnExpiry;
use crate::session::scope::Scope;
use crate::session::step_up::StepUp;

/// The rules of one route. The default is the strictest: a token is required, and unusual requests are rejected.
///
/// ```
/// use rotogate::route::RoutePolicy;
///
/// let write = RoutePolicy { max_body: Some(65_536), ..RoutePolicy::default() }.scope("orders.read orders.write")?;
/// assert!(write.is_stricter_than(&RoutePolicy::default()));
/// assert!(RoutePolicy::default().is_stricter_than(&RoutePolicy::public()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePolicy {
    /// Whether a token is required.
    pub auth: Auth,
    /// The kinds of credentials that the route accepts.
    // Requirement B16.
    pub credentials: Credentials,
    /// The scopes that the token must all have.
    pub scopes: Scope,
    /// The token must have at least one of these scopes, unless the list is empty. All of `scopes` are also required.
    pub any_scope: Scope,
    /// The token must have at least one of these roles, unless the list is empty. See [`Self::role`].
    #[doc(hidden)]
    pub roles: Vec<Role>,
    /// The roles that the token must all have. See [`Self::all_roles`].
    #[doc(hidden)]
    pub all_roles: Vec<Role>,
    /// The conditions on the caller's claims. See [`Self::when`] and [`Self::when_any`].
    // Requirement K22.
    #[doc(hidden)]
    pub conditions: Option<Arc<Conditions>>,
    /// The names of the accepted issuers. The gate's own issuer is `self`. If the list is empty, the route accepts
    /// this gate and every issuer that is accepted everywhere.
    pub issuers: Vec<String>,
    /// The accepted audiences, of which the token must name one. If the list is empty, the route accepts any audience
    /// that the issuer's rules allow.
    pub audiences: Vec<String>,
    /// Whether invalid credentials are ignored where credentials are optional. By default, they get 401.
    // Requirement T13.
    pub ignores_bad_credential: bool,
    /// Whether the upstream also receives the `Authorization` header.
    // Requirement T14.
    pub forward_token: bool,
    /// Whether `%2F` is accepted within a path segment and stays escaped. By default, a request with `%2F` gets 400.
    pub keeps_encoded_slash: bool,
    /// Whether to keep headers with `_` in their names. A header that a server could mistake for one of the gate's
    /// headers is always removed.
    // Requirement T4.
    pub keep_underscore_headers: bool,
    /// Whether to keep headers that override the method or URL.
    // Requirement T6.
    pub keep_override_headers: bool,
    /// The longest accepted request body in bytes, or `None` for no limit.
    pub max_body: Option<u64>,
    /// Whether CORS preflights go to the upstream.
    // Requirement T19.
    pub preflight_to_upstream: bool,
    /// The dialect of the route's error responses. The route also reads tokens where clients of this dialect put them.
    pub dialect: Option<String>,
    /// A cookie that may contain the access token.
    // Requirement T18.
    pub cookie: Option<String>,
    /// Whether a WebSocket or another upgrade passes to the upstream.
    // Requirement T9.
    pub upgrade: bool,
    /// Whether a DPoP-bound token with a proof is required (RFC 9449).
    // Requirement N31.
    pub dpop_required: bool,
    /// Whether only tokens bound to the client certificate of the connection are accepted (RFC 8705).
    pub certificate_required: bool,
    /// Whether a tunnel or a long response continues after the caller's token has expired. By default the gate ends the
    /// connection, unless the token was refreshed in time.
    pub keeps_on_expiry: bool,
    /// Whether the upstream compares paths byte for byte, as the gate does. If not, a path that a lax server could read
    /// as a path of a stricter route gets 404. Lax servers may fold case, cut parameters, or treat `/p` as `/p/`.
    // Requirement T20.
    pub compares_exactly: bool,
    /// The path of the protected resource to which the route belongs. Challenges name this resource's metadata
    /// document.
    pub resource: Option<String>,
    /// The scopes of the resource that imply other scopes.
    #[doc(hidden)]
    pub implied: Option<Arc<Implied>>,
    /// How and how recently the caller must have logged in.
    pub step_up: Option<StepUp>,
    /// Whether a browser without a valid session gets 401. By default a page load is redirected to the login.
    // Requirement B36.
    pub never_leads_to_login: bool,
    /// The limits on the callers' requests. A request that exceeds one limit is rejected, and none of the limits counts
    /// it.
    pub rate: Vec<RateLimit>,
}

impl RoutePolicy {
    /// The policy of a public route, where tokens are ignored.
    pub fn public() -> Self {
        Self { auth: Auth::None, ..Self::default() }
    }

    /// A policy under which a token is optional, but must be valid if it is sent.
    pub fn optional() -> Self {
        Self { auth: Auth::Optional, ..Self::default() }
    }

    /// Also accepts browser sessions.
    #[must_use]
    pub fn session(mut self) -> Self {
        self.credentials.session = true;
        self
    }

    /// Adds a limit on the callers' requests.
    #[must_use]
    pub fn limit(mut self, limit: RateLimit) -> Self {
        self.rate.push(limit);
        self
    }

    /// Requires these scopes, in addition to those of earlier calls. `"read write"` means two scopes.
    ///
    /// # Errors
    /// A scope contains a character that RFC 6749 §3.3 does not allow.
    pub fn scope(mut self, scopes: &str) -> Result<Self, InvalidValue> {
        self.scopes = Scope::from_tokens(self.scopes.iter().chain(Scope::parse(scopes)?.iter()));
        Ok(self)
    }

    /// Adds a role. The token must have at least one of the added roles.
    ///
    /// If the route accepts several issuers, use [`Self::role_of`] instead.
    #[must_use]
    pub fn role(mut self, name: &str) -> Self {
        self.roles.push(Role { issuer: None, name: name.into() });
        self
    }

    /// Like [`Self::role`], but the role counts only in tokens of the issuer with this name. The gate's own issuer is
    /// `self`.
    #[must_use]
    pub fn role_of(mut self, issuer: &str, name: &str) -> Self {
        self.roles.push(Role { issuer: Some(issuer.into()), name: name.into() });
        self
    }

    /// Requires all of these roles, in addition to one of the roles from [`Self::role`].
    ///
    /// ```
    /// use rotogate::route::RoutePolicy;
    ///
    /// // An editor or an author who is also an employee.
    /// let policy = RoutePolicy::default().role("editor").role("author").all_roles(["employee"]);
    /// assert!(policy.is_stricter_than(&RoutePolicy::default().role("editor").role("author")));
    /// ```
    #[must_use]
    pub fn all_roles<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.all_roles.extend(names.into_iter().map(|name| Role { issuer: None, name: name.into() }));
        self
    }

    /// Sets the conditions that the caller's claims must all meet.
    ///
    /// ```
    /// use rotogate::route::{Condition, Route, RoutePolicy};
    ///
    /// let policy = RoutePolicy::default().when([Condition::param("org_id", "org")?])?;
    /// let builder = rotogate::Gate::builder().route(Route::new("/orgs/{org}/{*rest}", policy));
    /// # let _ = builder;
    /// # Ok::<(), rotogate::InvalidValue>(())
    /// ```
    ///
    /// # Errors
    /// There are no conditions, the route has more than 16, or a condition is invalid.
    pub fn when(mut self, all: impl IntoIterator<Item = Condition>) -> Result<Self, InvalidValue> {
        let others = self.conditions.as_deref().map(|known| known.when_any().to_vec()).unwrap_or_default();
        self.conditions = Some(Arc::new(Conditions::new(all.into_iter().collect(), others)?));
        Ok(self)
    }

    /// Sets lists of conditions. The caller's claims must meet all conditions of at least one list, in addition to
    /// those of [`Self::when`].
    ///
    /// # Errors
    /// A list has no conditions, the route has more than 16, or a condition is invalid.
    pub fn when_any(mut self, lists: impl IntoIterator<Item = Vec<Condition>>) -> Result<Self, InvalidValue> {
        let others = self.conditions.as_deref().map(|known| known.when().to_vec()).unwrap_or_default();
        self.conditions = Some(Arc::new(Conditions::new(others, lists.into_iter().collect())?));
        Ok(self)
    }

    /// Also accepts API keys.
    #[must_use]
    pub fn api_key(mut self) -> Self {
        self.credentials.key = true;
        self
    }

    /// Whether the route accepts tokens of this issuer. `everywhere` tells whether the issuer is accepted on routes
    /// that do not name issuers.
    pub fn takes(&self, issuer: &str, everywhere: bool) -> bool {
        if self.issuers.is_empty() { everywhere } else { self.issuers.iter().any(|name| name == issuer) }
    }

    /// Whether a token with these scopes has all scopes that the route requires.
    pub fn grants(&self, granted: &Scope) -> bool {
        let has = |one: &str| self.has(granted, one);
        (self.any_scope.is_empty() || self.any_scope.iter().any(has)) && self.scopes.iter().all(has)
    }

    /// Whether a token with these scopes has the scope `one`, or a scope that implies `one` on this route.
    pub fn has(&self, granted: &Scope, one: &str) -> bool {
        self.implied.as_deref().map_or_else(|| granted.contains(one), |all| all.has(granted, one))
    }

    /// The scopes in an `insufficient_scope` error.
    pub fn asked_scopes(&self) -> Cow<'_, Scope> {
        match self.any_scope.is_empty() {
            true => Cow::Borrowed(&self.scopes),
            false => Cow::Owned(Scope::from_tokens(self.scopes.iter().chain(self.any_scope.iter()))),
        }
    }

    /// What happens to the route's connections when the caller's token expires.
    #[doc(hidden)]
    pub const fn on_expiry(&self) -> OnExpiry {
        if self.keeps_on_expiry { OnExpiry::Keep } else { OnExpiry::Close }
    }

    /// Whether this policy rejects some request that `other` accepts.
    ///
    /// Each of two policies can be stricter than the other, in different respects.
    // Requirement T20.
    pub fn is_stricter_than(&self, other: &Self) -> bool {
        // A new field does not compile until it is handled here.
        let Self {
            auth,
            credentials,
            scopes,
            any_scope,
            roles,
            all_roles,
            conditions,
            issuers,
            audiences,
            ignores_bad_credential: bad_credential,
            upgrade,
            step_up,
            dpop_required,
            certificate_required,
            // The resource's audience is already one of `audiences`.
            resource: _,
            implied,
            rate,
            // These fields do not affect whether a request is accepted.
            forward_token: _,
            keeps_encoded_slash: _,
            keep_underscore_headers: _,
            keep_override_headers: _,
            max_body: _,
            preflight_to_upstream: _,
            dialect: _,
            cookie: _,
            keeps_on_expiry: _,
            compares_exactly: _,
            never_leads_to_login: _,
        } = self;
        let by_auth = |auth: Auth, bad: bool| match (auth, bad) {
            (Auth::None, _) => 0,
            (Auth::Optional, true) => 1,
            (Auth::Optional, false) => 2,
            (Auth::Required, _) => 3,
        };
        let asks = *auth != Auth::None;
        let unlike = |ours: &[String], theirs: &[String]| {
            // An empty list stands for the audiences in the issuer's rules.
            ours.is_empty() != theirs.is_empty() || theirs.iter().any(|one| !ours.contains(one))
        };
        // True if the other policy already requires one of the scopes in `any_scope`.
        let one_is_there = !any_scope.intersection(&other.scopes).is_empty()
            || (!other.any_scope.is_empty() && other.any_scope.is_within(any_scope));
        // True if the other policy already requires one of the roles in `roles`.
        let a_role_is_there = (!other.roles.is_empty() && other.roles.iter().all(|role| roles.contains(role)))
            || other.all_roles.iter().any(|role| roles.contains(role));
        let is_there = |role: &Role| other.all_roles.contains(role) || matches!(&*other.roles, [only] if only == role);
        by_auth(*auth, *bad_credential) > by_auth(other.auth, other.ignores_bad_credential)
            || (asks && !scopes.is_within(&other.scopes))
            || (asks && other.auth != Auth::None && other.implied.is_some() && *implied != other.implied)
            || (asks && !any_scope.is_empty() && !(other.auth != Auth::None && one_is_there))
            || (asks && !roles.is_empty() && !(other.auth != Auth::None && a_role_is_there))
            || (asks && !all_roles.is_empty() && !(other.auth != Auth::None && all_roles.iter().all(is_there)))
            || (asks && conditions.is_some() && !(other.auth != Auth::None && *conditions == other.conditions))
            || (asks && other.auth != Auth::None && unlike(issuers, &other.issuers))
            || (asks && other.auth != Auth::None && unlike(audiences, &other.audiences))
            || (asks
                && step_up.as_ref().is_some_and(|ours| {
                    other.auth == Auth::None || ours.is_stricter_than(&other.step_up.clone().unwrap_or_default())
                }))
            || (asks && other.auth != Auth::None && credentials.lacks(other.credentials))
            || rate.iter().any(|limit| !other.rate.iter().any(|theirs| limit.counts_as(theirs)))
            || (!upgrade && other.upgrade)
            || (asks && *dpop_required && !(other.auth != Auth::None && other.dpop_required))
            || (asks && *certificate_required && !(other.auth != Auth::None && other.certificate_required))
    }
}

/// Whether the policy's rules depend on the path of a request.
pub fn depends_on_path(policy: &RoutePolicy) -> bool {
    policy.conditions.as_deref().is_some_and(Conditions::has_params)
}

/// Returns why a route that accepts these issuers cannot require the role.
pub fn role_problem(role: &Role, issuers: &[&str]) -> Option<&'static str> {
    match &role.issuer {
        Some(issuer) if !issuers.contains(&&**issuer) => {
            Some("belongs to an issuer whose tokens the route does not accept")
        }
        None if issuers.len() != 1 => Some(
            "needs the name of its issuer, because the route accepts tokens of several issuers. Write \"self:admin\" \
             for the gate's own tokens, or the name of another issuer instead of self",
        ),
        Some(_) | None => None,
    }
}

/// Returns why no token can have all these roles. Roles of different issuers never occur in one token.
pub fn all_roles_problem(roles: &[Role]) -> Option<&'static str> {
    let mut issuers = roles.iter().filter_map(|role| role.issuer.as_deref());
    let first = issuers.next()?;
    issuers.any(|issuer| issuer != first).then_some("and a role of another issuer never occur in the same token")
}

/// Checks whether a policy accepts this path.
///
/// # Errors
/// [`Denial::BadPath`] if the path contains an escaped slash and the policy does not allow one.
// Requirement T12.
pub fn admits_path(policy: &RoutePolicy, path: &CanonicalPath<'_>) -> Result<(), Denial> {
    match !policy.keeps_encoded_slash && path.has_encoded_slash() {
        true => Err(PathError::EncodedSlash.into()),
        false => Ok(()),
    }
}

/// Whether a route requires a token (the configuration key `auth`).
///
/// ```
/// use rotogate::route::{Auth, RoutePolicy};
///
/// assert_eq!(RoutePolicy::default().auth, Auth::Required);
/// assert_eq!(RoutePolicy::optional().auth, Auth::Optional);
/// assert_eq!(RoutePolicy::public().auth, Auth::None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// The route is public, so tokens are ignored.
    None,
    /// A token is optional, but must be valid if it is sent.
    Optional,
    /// A token is required.
    #[default]
    Required,
}

impl Auth {
    /// The name of this value in `gateway.toml`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
            Self::None => "none",
        }
    }
}

/// The kinds of credentials that a route accepts (the configuration key `credentials`). By default only access tokens
/// are accepted.
///
/// ```
/// use rotogate::route::{Credentials, RoutePolicy};
///
/// // A page only for browser sessions, and an API for both tokens and sessions.
/// let kinds = Credentials { token: false, session: true, key: false };
/// let page = RoutePolicy { credentials: kinds, ..RoutePolicy::default() };
/// let api = RoutePolicy::default().session();
/// assert!(page.is_stricter_than(&api), "it refuses a request with a token");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Access tokens. If a request has a token, its session cookie is ignored.
    pub token: bool,
    /// The session cookie of a browser.
    pub session: bool,
    /// API keys. An API key takes precedence over a session cookie. A request with both a key and a token is
    /// rejected.
    // Requirement K6.
    pub key: bool,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { token: true, session: false, key: false }
    }
}

impl Credentials {
    const fn lacks(self, other: Self) -> bool {
        (other.token && !self.token) || (other.session && !self.session) || (other.key && !self.key)
    }
}

#[cfg(test)]
mod tests;
