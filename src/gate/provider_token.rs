//! The provider's access token for a browser session's user.

use std::sync::Arc;

use http::Extensions;
use zeroize::Zeroizing;

use rotogate_core::denial::Denial;

/// The provider's access token for a caller who logged in at a provider. A handler uses it for requests to the
/// provider's APIs. The gate refreshes the token if necessary. With the feature `axum` it is an extractor, which
/// replies with 401 or 503 if there is no valid token. `Debug` does not print the token.
///
/// ```
/// use rotogate::gate::ProviderToken;
///
/// async fn mail(token: ProviderToken) -> String {
///     let authorization = format!("Bearer {}", token.expose());
///     # let _ = authorization;
///     "sent".to_owned()
/// }
/// ```
// Requirement B40.
#[derive(Clone)]
pub struct ProviderToken(Arc<Zeroizing<String>>);

/// The result that the layer passes to the handler.
#[derive(Clone)]
struct Found(Result<ProviderToken, Denial>);

rotogate_core::debug_with!(ProviderToken);

impl ProviderToken {
    /// Returns the provider's token from a request's extensions.
    ///
    /// # Errors
    /// [`Denial::NoCredential`] if the caller did not log in at a provider. [`Denial::ProviderTokenOver`] if the
    /// provider's token has expired. [`Denial::SessionUnavailable`] if the provider did not refresh the token.
    pub fn from_extensions(extensions: &Extensions) -> Result<Self, Denial> {
        extensions.get::<Found>().ok_or(Denial::NoCredential)?.0.clone()
    }

    /// The token, for requests to the provider's APIs only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(super) fn give(extensions: &mut Extensions, found: Result<Option<&Arc<Zeroizing<String>>>, Denial>) {
        extensions.remove::<Found>();
        if let Some(found) = found.transpose() {
            extensions.insert(Found(found.map(|token| Self(Arc::clone(token)))));
        }
    }
}

#[cfg(feature = "axum")]
impl<S: Sync> axum_core::extract::FromRequestParts<S> for ProviderToken {
    type Rejection = super::NoIdentity;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, super::NoIdentity> {
        Self::from_extensions(&parts.extensions).map_err(|denial| super::NoIdentity::without_token(denial, parts))
    }
}
