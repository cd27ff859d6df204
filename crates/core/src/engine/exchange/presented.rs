//! The credentials in a refresh request, and their checks.

use secrecy::{ExposeSecret, SecretString};

use crate::clock::Timestamp;
use crate::denial::{Denial, ProofFlaw};
use crate::engine::{Exchange, Refresh};
use crate::session::{Generation, Session, SessionId};
use crate::token::keyring::Keyring;
use crate::token::refresh;

/// A credential that must still be checked against the session's record.
pub(super) struct PresentedCredential {
    pub(super) session: SessionId,
    pub(super) generation: Generation,
    /// The authenticated refresh token. `None` if the credential is an access token.
    refresh: Option<refresh::Authentic>,
    /// The expiry, if the credential is an access token.
    expires: Option<Timestamp>,
}

impl PresentedCredential {
    pub(super) fn authenticate(credential: Exchange<'_>, keyring: &Keyring) -> Result<Self, Denial> {
        let by_refresh = |token: &SecretString| {
            let authentic = refresh::authenticate(keyring.refresh_keys(), token.expose_secret())
                .ok_or(Denial::UnknownRefreshToken)?;
            let (session, generation) = (authentic.session, authentic.generation);
            Ok(Self { session, generation, refresh: Some(authentic), expires: None })
        };
        match credential {
            Exchange::Refresh(token) => by_refresh(token),
            Exchange::Access(access) => {
                let (session, generation) = access.token().session.ok_or(Denial::UnknownRefreshToken)?;
                Ok(Self { session, generation, refresh: None, expires: Some(access.token().refused_from()) })
            }
            Exchange::Pair(token, access) => {
                let held = by_refresh(token)?;
                let (session, generation) = access.token().session.ok_or(Denial::UnknownRefreshToken)?;
                let fits = session == held.session
                    && (generation == held.generation || generation.next() == Some(held.generation));
                if fits { Ok(held) } else { Err(Denial::MismatchedPair) }
            }
        }
    }

    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    pub(super) fn proves(&self, session: &Session) -> bool {
        self.refresh.as_ref().is_none_or(|authentic| authentic.proves(&session.secret, &session.client))
    }
}

/// A public client must prove possession of the key from its login. A confidential client authenticates with its
/// secret, so it may prove possession of another key.
// Requirements N35, N37.
pub(super) fn proves_key(session: &Session, refresh: &Refresh<'_>) -> Result<(), Denial> {
    let Some(bound_to) = session.bound_to else { return Ok(()) };
    let proof = refresh.proof.as_ref().ok_or(ProofFlaw::Missing)?;
    if may_change_binding(session, refresh) || proof.key() == bound_to { Ok(()) } else { Err(Denial::OtherSessionKey) }
}

/// Checks the client certificate of a bound session (RFC 8705 §4).
pub(super) fn presents_certificate(session: &Session, refresh: &Refresh<'_>) -> Result<(), Denial> {
    let Some(bound_to) = session.certificate else { return Ok(()) };
    let presented = refresh.certificate.ok_or(Denial::OtherSessionCertificate)?;
    if may_change_binding(session, refresh) || presented == bound_to {
        Ok(())
    } else {
        Err(Denial::OtherSessionCertificate)
    }
}

fn may_change_binding(session: &Session, refresh: &Refresh<'_>) -> bool {
    refresh.client.is_confidential() && session.client == refresh.client.id
}

/// Refuses a resource that differs from the session's resource (RFC 8707 §2.2). Call this after all other checks,
/// because all invalid tokens must get the same error.
// Requirement N45.
pub(super) fn names_resource(session: &Session, refresh: &Refresh<'_>) -> Result<(), Denial> {
    if refresh.resource.is_none() || refresh.resource == session.resource { Ok(()) } else { Err(Denial::InvalidTarget) }
}

pub(super) fn belongs(session: &Session, refresh: &Refresh<'_>) -> Result<(), Denial> {
    if session.client != refresh.client.id {
        return Err(Denial::OtherClient);
    }
    if !refresh.account.has(session.account.as_deref()) {
        return Err(Denial::OtherAccount);
    }
    // An endpoint may accept a dialect's refresh tokens but not its access tokens (requirement R17).
    let taken = match refresh.credential {
        Exchange::Access(_) => refresh.by_access,
        Exchange::Refresh(_) | Exchange::Pair(..) => refresh.accepts,
    };
    if taken.contains(&session.dialect) { Ok(()) } else { Err(Denial::OtherDialect) }
}
