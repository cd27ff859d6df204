//! The caller of a request, for the service behind the gate.
//!
//! ```
//! use rotogate::Identity;
//!
//! fn greeting(request: &http::Request<()>) -> String {
//!     match Identity::from_extensions(request.extensions()) {
//!         Some(caller) => format!("Hello, {}!", caller.subject()),
//!         None => "Hello, stranger!".to_owned(),
//!     }
//! }
//! ```

use std::sync::{Arc, OnceLock};

use http::Extensions;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use rotogate_core::clock::Timestamp;
use rotogate_core::policy::Permitted;
use rotogate_core::session::{Generation, Scope, SessionId};
use rotogate_core::thumbprint::{CertificateThumbprint, KeyThumbprint};
use rotogate_core::token::verify::Roles;
use rotogate_core::verify_cache::Verified;

/// The caller of a request that the gate has admitted. [`Identity::from_extensions`] returns it. With the feature
/// `axum`, `Identity` and `Option<Identity>` are extractors. If no gate is in front of the handler, both extractors
/// reply with 500.
///
/// ```
/// use rotogate::Identity;
///
/// async fn me(identity: Identity) -> String {
///     format!("{} with scope {:?}", identity.subject(), identity.scope().as_str())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Identity {
    verified: Arc<Verified>,
    claims: OnceLock<Arc<Map<String, Value>>>,
}

#[derive(Clone)]
struct ReadClaims {
    of: Arc<Verified>,
    claims: Arc<Map<String, Value>>,
}

impl Identity {
    /// Returns the caller from a request's extensions, or `None` if the request has no caller.
    pub fn from_extensions(extensions: &Extensions) -> Option<Self> {
        let identity = Self::new(Arc::clone(extensions.get::<Permitted>()?.caller()?));
        if let Some(read) = extensions.get::<ReadClaims>().filter(|read| Arc::ptr_eq(&read.of, &identity.verified)) {
            let _ = identity.claims.set(Arc::clone(&read.claims));
        }
        Some(identity)
    }

    pub(crate) fn new(verified: Arc<Verified>) -> Self {
        Self { verified, claims: OnceLock::new() }
    }

    pub(super) fn share_claims(&self, extensions: &mut Extensions) {
        if let Some(claims) = self.claims.get() {
            extensions.insert(ReadClaims { of: Arc::clone(&self.verified), claims: Arc::clone(claims) });
        }
    }

    /// The `sub` claim, or the claim that the issuer's rules name. If the rules set a prefix, the subject begins with
    /// it. Two issuers can use the same subject for different users: see [`Self::issuer`].
    pub fn subject(&self) -> &str {
        &self.verified.token().subject
    }

    /// The subject exactly as it is in the token, without a prefix and without encoding.
    pub fn token_subject(&self) -> &str {
        self.verified.token().token_subject()
    }

    /// The account, if the user belongs to one. For a token of another issuer, the account begins with the issuer's
    /// name and a colon.
    pub fn account(&self) -> Option<&str> {
        self.verified.token().account()
    }

    /// The `client_id` claim, or the claim that the issuer's rules name.
    pub fn client(&self) -> Option<&str> {
        self.verified.token().client.as_deref()
    }

    /// The granted scope. A token of another issuer has only the scopes that the issuer's rules accept.
    pub fn scope(&self) -> &Scope {
        &self.verified.token().scope
    }

    /// The `iss` of the token. After a browser login at a provider, this is the provider's issuer.
    pub fn issuer(&self) -> &str {
        self.verified.token().vouching_issuer().url()
    }

    /// The short name of the issuer: `self` for this gate, otherwise
    /// [`IssuerRules::name`](rotogate_core::token::IssuerRules::name).
    pub fn issuer_name(&self) -> &str {
        self.verified.token().vouching_issuer().name()
    }

    /// The id of the session, if this gate's token has one.
    pub fn session(&self) -> Option<SessionId> {
        self.verified.token().session.map(|(session, _)| session)
    }

    /// Returns whether the caller sent the session cookie of a browser.
    pub fn uses_session_cookie(&self) -> bool {
        self.verified.session_cookie().is_some()
    }

    /// Returns whether the caller sent an API key.
    pub fn uses_api_key(&self) -> bool {
        self.verified.token().is_api_key()
    }

    /// The generation of the token in its session.
    pub fn generation(&self) -> Option<Generation> {
        self.verified.token().session.map(|(_, generation)| generation)
    }

    /// The `jti` claim.
    pub fn token_id(&self) -> Option<&str> {
        self.verified.token().jti.as_deref()
    }

    /// The thumbprint of the key that the token is bound to (RFC 9449). The caller has proved that it has the key.
    pub fn key_thumbprint(&self) -> Option<KeyThumbprint> {
        self.verified.token().bound_to()
    }

    /// The thumbprint of the client certificate that the token is bound to (RFC 8705). The caller's connection uses
    /// this certificate.
    pub fn certificate_thumbprint(&self) -> Option<CertificateThumbprint> {
        self.verified.token().certificate().copied()
    }

    /// The `exp` claim.
    pub fn expires(&self) -> Timestamp {
        self.verified.token().expires
    }

    /// Returns whether the caller has this role. For our own tokens, roles are in the claim `roles`. For other issuers'
    /// tokens, [`IssuerRules::roles`](rotogate_core::token::IssuerRules::roles) names the claims.
    // Requirement I17.
    pub fn has_role(&self, role: &str) -> bool {
        self.verified.token().roles().contains(role)
    }

    /// The roles of the caller. Roles of another issuer may be missing if the user has too many: see
    /// [`Roles::are_left_out`].
    pub fn roles(&self) -> &Roles {
        self.verified.token().roles()
    }

    /// Returns all claims of the token, unchanged, deserialized into a type of the application. `scope` is complete
    /// here, even if the issuer's rules accept only a part of it.
    ///
    /// ```
    /// #[derive(serde::Deserialize)]
    /// struct Mine {
    ///     tenant: String,
    ///     #[serde(default)]
    ///     roles: Vec<String>,
    /// }
    ///
    /// fn tenant(identity: &rotogate::Identity) -> Result<String, serde_json::Error> {
    ///     let mine: Mine = identity.claims()?;
    ///     println!("{:?}", mine.roles);
    ///     Ok(mine.tenant)
    /// }
    /// ```
    ///
    /// # Errors
    /// Fails if the claims do not have the shape of `T`. The extractor [`Claims`](super::Claims) then replies with 403.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(self.all_claims())
    }

    /// Returns one claim of the token, unchanged.
    pub fn claim(&self, name: &str) -> Option<Value> {
        self.all_claims().get(name).cloned()
    }

    pub(super) fn all_claims(&self) -> &Map<String, Value> {
        self.claims.get_or_init(|| Arc::new(self.verified.token().claims()))
    }
}

#[cfg(feature = "axum")]
mod extract {
    use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
    use axum_core::response::{IntoResponse, Response};
    use bytes::Bytes;
    use http::StatusCode;
    use http::request::Parts;
    use serde::de::DeserializeOwned;

    use super::Identity;
    use crate::gate::respond;
    use rotogate_core::denial::Denial;
    use rotogate_core::policy::{Permitted, Undecided};
    use rotogate_core::reason::Reason;
    use rotogate_core::reply;

    /// The claims of the caller's token, deserialized into a type of the application. This is an axum extractor
    /// (feature `axum`). If the claims have another shape, the reply is 403 with the reason `claims_shape`.
    /// `Option<Claims<T>>` is `None` for a request without a caller.
    ///
    /// ```
    /// use rotogate::gate::Claims;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Mine {
    ///     tenant: String,
    /// }
    ///
    /// async fn tenant(Claims(mine): Claims<Mine>) -> String {
    ///     mine.tenant
    /// }
    /// ```
    #[derive(Clone, Copy, Debug)]
    pub struct Claims<T>(pub T);

    /// The reason why an extractor did not find a caller, and the reply to send.
    ///
    /// ```
    /// use axum::response::{IntoResponse, Response};
    /// use rotogate::Identity;
    /// use rotogate::gate::NoIdentity;
    ///
    /// async fn home(caller: Result<Identity, NoIdentity>) -> Response {
    ///     match caller {
    ///         Ok(caller) => format!("Hello, {}!", caller.subject()).into_response(),
    ///         Err(refusal) => refusal.into_response(),
    ///     }
    /// }
    /// # let app: axum::Router = axum::Router::new().route("/", axum::routing::get(home));
    /// # let _ = app;
    /// ```
    #[derive(Debug, thiserror::Error)]
    #[error("{why}")]
    pub struct NoIdentity {
        why: Why,
        reply: Box<http::Response<Bytes>>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
    enum Why {
        #[error("the request has no caller")]
        Anonymous,
        #[error("the token is for another audience, and no `require()` requires that audience")]
        Undecided,
        #[error("the claims do not have the expected shape")]
        Shape,
        #[cfg(feature = "browser-oidc")]
        #[error("the caller has no access token from a provider")]
        NoToken,
        /// Without this error, every caller would silently be anonymous.
        #[error(
            "no gate has identified the caller of this request: put `gate.layer()` around the router, or \
             `gate.require()` on the route. With `headers_only()`, handlers do not get the caller"
        )]
        NoGate,
    }

    impl Why {
        fn from_parts(parts: &Parts) -> Self {
            if parts.extensions.get::<Permitted>().is_some() {
                Self::Anonymous
            } else if parts.extensions.get::<Undecided>().is_some() {
                Self::Undecided
            } else {
                Self::NoGate
            }
        }
    }

    impl NoIdentity {
        fn new(why: Why, parts: &Parts) -> Self {
            let denial = match why {
                Why::Anonymous => Denial::NoCredential,
                #[cfg(feature = "browser-oidc")]
                Why::NoToken => Denial::NoCredential,
                Why::Undecided => Denial::WrongAudience,
                Why::Shape => Denial::ClaimsShape,
                Why::NoGate => {
                    tracing::error!("{why}");
                    let reply = reply::problem(StatusCode::INTERNAL_SERVER_ERROR, None);
                    return Self { why, reply: Box::new(reply.map(|body| body.data)) };
                }
            };
            Self::with(why, denial, parts)
        }

        #[cfg(feature = "browser-oidc")]
        pub(in crate::gate) fn without_token(denial: Denial, parts: &Parts) -> Self {
            match Why::from_parts(parts) {
                why @ (Why::Undecided | Why::NoGate) => Self::new(why, parts),
                Why::Anonymous | Why::Shape | Why::NoToken => Self::with(Why::NoToken, denial, parts),
            }
        }

        fn with(why: Why, denial: Denial, parts: &Parts) -> Self {
            let reason = Reason::from(denial);
            reason.tell();
            let mut reply = respond::refused(
                respond::RefusalHook::from_extensions(&parts.extensions),
                parts,
                denial,
                &respond::ChallengeParams::default(),
            );
            // Without this reason, the gate's layer would report the request as `passed`.
            reply.extensions_mut().insert(reason);
            Self { why, reply: Box::new(reply.map(|body| body.data)) }
        }
    }

    impl IntoResponse for NoIdentity {
        fn into_response(self) -> Response {
            self.reply.map(Into::into)
        }
    }

    impl<S: Sync> FromRequestParts<S> for Identity {
        type Rejection = NoIdentity;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoIdentity> {
            Self::from_extensions(&parts.extensions).ok_or_else(|| NoIdentity::new(Why::from_parts(parts), parts))
        }
    }

    /// Returns `None` for a request without a caller, and an error if no gate is in front of the handler.
    impl<S: Sync> OptionalFromRequestParts<S> for Identity {
        type Rejection = NoIdentity;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, NoIdentity> {
            match (Self::from_extensions(&parts.extensions), Why::from_parts(parts)) {
                (None, Why::Anonymous) => Ok(None),
                (Some(identity), _) => Ok(Some(identity)),
                (None, why) => Err(NoIdentity::new(why, parts)),
            }
        }
    }

    fn claims_of<T: DeserializeOwned>(identity: &Identity, parts: &mut Parts) -> Result<Claims<T>, NoIdentity> {
        let claims = identity.claims();
        identity.share_claims(&mut parts.extensions);
        claims.map(Claims).map_err(|_| NoIdentity::new(Why::Shape, parts))
    }

    impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Claims<T> {
        type Rejection = NoIdentity;

        async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, NoIdentity> {
            let identity = <Identity as FromRequestParts<S>>::from_request_parts(parts, state).await?;
            claims_of(&identity, parts)
        }
    }

    /// Returns `None` for a request without a caller, and an error if no gate is in front of the handler.
    impl<S: Sync, T: DeserializeOwned> OptionalFromRequestParts<S> for Claims<T> {
        type Rejection = NoIdentity;

        async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, NoIdentity> {
            match <Identity as OptionalFromRequestParts<S>>::from_request_parts(parts, state).await? {
                Some(identity) => claims_of(&identity, parts).map(Some),
                None => Ok(None),
            }
        }
    }
}

#[cfg(feature = "axum")]
pub use extract::{Claims, NoIdentity};
