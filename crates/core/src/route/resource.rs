//! Protected resources (RFC 9728).

use super::mcp::{Implied, Mcp};
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
