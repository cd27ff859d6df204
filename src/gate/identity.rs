//! Who the caller is, for the service inside the gate.

use std::sync::Arc;

use http::Extensions;

use crate::clock::Timestamp;
use crate::policy::Permitted;
use crate::session::{Generation, Scope, SessionId};
use crate::verify_cache::Verified;

/// The caller of a request that the gate let pass: [`Identity::of`] its extensions, and an axum extractor (feature
/// `axum`), `Identity` where the route requires one, `Option<Identity>` where it is optional. Without a gate in front both
/// answer 500.
#[derive(Clone, Debug)]
pub struct Identity(pub(crate) Arc<Verified>);

impl Identity {
    /// Who made the request with these extensions; `None` where nobody is known to have made it.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get::<Permitted>()?.caller().cloned().map(Self)
    }

    /// `sub`, behind the prefix that its issuer's rules put in front of it, if any. Another issuer's subject is not ours
    /// of the same name: see [`Self::issuer`].
    pub fn subject(&self) -> &str {
        &self.0.token().subject
    }

    /// `sub`, as it stands in the token.
    pub fn token_subject(&self) -> &str {
        self.0.token().token_subject()
    }

    /// The account, where the user belongs to one.
    pub fn account(&self) -> Option<&str> {
        self.0.token().account.as_deref()
    }

    /// `client_id`.
    pub fn client(&self) -> Option<&str> {
        self.0.token().client.as_deref()
    }

    /// The scope granted; of another issuer's token, what its rules let count.
    pub fn scope(&self) -> &Scope {
        &self.0.token().scope
    }

    /// `iss`.
    pub fn issuer(&self) -> &str {
        &self.0.token().issuer
    }

    /// The session, for tokens of this gate that have one.
    pub fn session(&self) -> Option<SessionId> {
        self.0.token().session.map(|(session, _)| session)
    }

    /// The generation of the token in its session.
    pub fn generation(&self) -> Option<Generation> {
        self.0.token().session.map(|(_, generation)| generation)
    }

    /// `jti`.
    pub fn token_id(&self) -> Option<&str> {
        self.0.token().jti.as_deref()
    }

    /// `exp`.
    pub fn expires(&self) -> Timestamp {
        self.0.token().expires
    }

    /// Any claim of the token, as it stands there: `scope` too, whatever counts of it. The others cost nothing; for this one the token is read again.
    pub fn claim(&self, name: &str) -> Option<serde_json::Value> {
        self.0.token().claims().remove(name)
    }
}

#[cfg(feature = "axum")]
mod extract {
    use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
    use axum_core::response::{IntoResponse, Response};
    use http::StatusCode;
    use http::request::Parts;

    use super::Identity;
    use crate::denial::Denial;
    use crate::gate::respond;
    use crate::policy::{Permitted, Undecided};
    use crate::reason::Reason;
    use crate::reply;
    use crate::session::Scope;

    /// There is no identity to extract.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    pub struct NoIdentity(Why);

    #[derive(Debug, thiserror::Error)]
    enum Why {
        /// A gate let the request pass as nobody's.
        #[error("nobody is known to have made this request")]
        Nobody,
        #[error("the token is for another audience, and no `require()` asks for that")]
        Undecided,
        /// A mistake of the application's: without a gate everybody would be nobody, and nobody would notice.
        #[error(
            "no gate has seen this request: put `gate.layer()` around the router, or `gate.require()` on the route"
        )]
        NoGate,
    }

    impl NoIdentity {
        fn of(parts: &Parts) -> Self {
            Self(if parts.extensions.get::<Permitted>().is_some() {
                Why::Nobody
            } else if parts.extensions.get::<Undecided>().is_some() {
                Why::Undecided
            } else {
                Why::NoGate
            })
        }
    }

    impl IntoResponse for NoIdentity {
        fn into_response(self) -> Response {
            let denial = match self.0 {
                Why::Nobody => Denial::NoCredential,
                Why::Undecided => Denial::WrongAudience,
                Why::NoGate => {
                    tracing::error!("{self}");
                    let reply = reply::problem(StatusCode::INTERNAL_SERVER_ERROR, None);
                    return reply.map(|body| body.data.into());
                }
            };
            let reason = Reason::from(denial);
            reason.tell();
            let mut reply = respond::denied(denial, &Scope::default());
            reply.extensions_mut().insert(reason);
            reply.map(|body| body.data.into())
        }
    }

    impl<S: Sync> FromRequestParts<S> for Identity {
        type Rejection = NoIdentity;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoIdentity> {
            Self::of(&parts.extensions).ok_or_else(|| NoIdentity::of(parts))
        }
    }

    /// `None` where a gate let the request pass as nobody's; an error where there is no gate in front.
    impl<S: Sync> OptionalFromRequestParts<S> for Identity {
        type Rejection = NoIdentity;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, NoIdentity> {
            match (Self::of(&parts.extensions), NoIdentity::of(parts)) {
                (None, NoIdentity(Why::Nobody)) => Ok(None),
                (Some(identity), _) => Ok(Some(identity)),
                (None, refused) => Err(refused),
            }
        }
    }
}

#[cfg(feature = "axum")]
pub use extract::NoIdentity;
