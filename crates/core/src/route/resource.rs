//! Protected resources (RFC 9728), and step-up authentication (RFC 9470).

use std::time::Duration;

use super::mcp::{Implied, Mcp};
use crate::clock::Timestamp;
use crate::invalid::InvalidValue;
use crate::session::Scope;

/// A protected resource with a metadata document (RFC 9728). Routes name its path.
///
/// ```
/// use rotogate::route::{Resource, RoutePolicy, Route};
///
/// let mcp = Resource { authorization_servers: vec!["https://idp.example.com".into()], ..Resource::new("/mcp") };
/// let policy = RoutePolicy { resource: Some("/mcp".into()), ..RoutePolicy::default() };
/// let builder = rotogate::Gate::builder().resource(mcp).route(Route::new("/mcp/{*rest}", policy));
/// # let _ = builder;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The resource's path. The gate's public URL with this path is the resource identifier and the audience of its
    /// tokens.
    pub path: String,
    /// A human-readable name.
    pub name: Option<String>,
    /// The issuers of the resource's tokens. If the list is empty, only this gate issues tokens for the resource.
    pub authorization_servers: Vec<String>,
    /// The scopes that a client may request.
    pub scopes: Scope,
    /// The scopes that imply other scopes. See [`Self::implying`].
    #[doc(hidden)]
    pub implies: Implied,
    /// How MCP calls are checked. `None` if the resource is not an MCP server.
    pub mcp: Option<Mcp>,
}

impl Resource {
    /// Creates a resource whose tokens this gate issues.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            name: None,
            authorization_servers: Vec::new(),
            scopes: Scope::default(),
            implies: Implied::default(),
            mcp: None,
        }
    }

    /// Sets scopes that imply other scopes. On the resource's routes, a token with the implying scope also has the
    /// implied scopes.
    ///
    /// ```
    /// use rotogate::route::Resource;
    /// use rotogate::session::Scope;
    ///
    /// let files = Resource::new("/files").implying([("files.write", Scope::parse("files.read")?)])?;
    /// # let _ = files;
    /// # Ok::<(), rotogate::InvalidValue>(())
    /// ```
    ///
    /// # Errors
    /// A scope implies itself.
    pub fn implying<'a>(self, scopes: impl IntoIterator<Item = (&'a str, Scope)>) -> Result<Self, InvalidValue> {
        let given = scopes.into_iter().map(|(wide, narrow)| (wide.to_owned(), narrow));
        Ok(Self { implies: Implied::new(given).map_err(InvalidValue::new)?, ..self })
    }

    /// Returns the resource identifier: the gate's public URL with the resource's path.
    pub fn url(&self, public_url: &str) -> String {
        format!("{}{}", public_url.trim_end_matches('/'), self.path)
    }

    /// The path of the resource's metadata document (RFC 9728 §3.1).
    pub fn document_path(&self) -> String {
        format!("{RESOURCE_METADATA_PATH}{}", if self.path == "/" { "" } else { &self.path })
    }

    /// Returns why the resource's path is invalid.
    pub fn problem(&self) -> Option<&'static str> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        if !self.path.starts_with('/') || !self.path.bytes().all(is_plain) {
            return Some("its path must begin with / and contain only letters, digits and - . _ ~ /");
        }
        let is_canonical = !self.path.split('/').skip(1).any(|segment| matches!(segment, "." | ".."))
            && !self.path.contains("//")
            && (self.path == "/" || !self.path.ends_with('/'));
        if is_canonical {
            None
        } else {
            Some("its path must have no empty segment, no dot segment and no slash at its end")
        }
    }
}

/// The path prefix of metadata documents (RFC 9728 §3.1).
pub const RESOURCE_METADATA_PATH: &str = "/.well-known/oauth-protected-resource";

/// How, and how recently, a caller must have logged in (RFC 9470). A token that lacks a required claim is refused.
///
/// ```
/// use std::time::Duration;
/// use rotogate::route::{RoutePolicy, StepUp};
///
/// let step_up = StepUp { acr: vec!["gold".into()], max_age: Some(Duration::from_secs(300)) };
/// let pay = RoutePolicy { step_up: Some(step_up), ..RoutePolicy::default() };
/// assert!(pay.is_stricter_than(&RoutePolicy::default()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepUp {
    /// The accepted values of `acr`. If the list is empty, any value is accepted.
    pub acr: Vec<Box<str>>,
    /// The longest time since `auth_time`.
    pub max_age: Option<Duration>,
}

impl StepUp {
    /// The issuer's clock may be ahead by `leeway`.
    pub(crate) fn is_met(
        &self,
        (acr, auth_time): (Option<&str>, Option<Timestamp>),
        leeway: Duration,
        now: Timestamp,
    ) -> bool {
        let has_acr = self.acr.is_empty() || acr.is_some_and(|acr| self.acr.iter().any(|one| **one == *acr));
        let is_fresh = self
            .max_age
            .is_none_or(|max_age| auth_time.is_some_and(|at| at <= now.plus(leeway) && now.since(at) <= max_age));
        has_acr && is_fresh
    }

    /// Returns the accepted values of `acr_values`, or `None` if none is accepted.
    #[doc(hidden)]
    pub fn accepted_of(&self, acr_values: &str) -> Option<Box<str>> {
        let is_accepted = |acr: &&str| self.acr.is_empty() || self.acr.iter().any(|one| **one == **acr);
        let accepted: Vec<_> = acr_values.split(' ').filter(|acr| !acr.is_empty()).filter(is_accepted).collect();
        (!accepted.is_empty()).then(|| accepted.join(" ").into())
    }

    /// Returns whether a login that satisfies `other` can fail this requirement.
    pub(crate) fn is_stricter_than(&self, other: &Self) -> bool {
        let by_acr =
            !self.acr.is_empty() && (other.acr.is_empty() || other.acr.iter().any(|one| !self.acr.contains(one)));
        let by_age = self.max_age.is_some_and(|ours| other.max_age.is_none_or(|theirs| theirs > ours));
        by_acr || by_age
    }
}
