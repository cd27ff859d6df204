//! The credentials that a client presents for a refresh, and the checks that they fit the session.

use secrecy::{ExposeSecret, SecretString};

use crate::clock::Timestamp;
use crate::denial::{Denial, ProofFlaw};
use crate::engine::{Exchange, Refresh};
use crate::session::{Generation, Session, SessionId};
use crate::token::keyring::Keyring;
use crate::token::refresh;

/// A credential that was checked as far as possible without the session's record.
pub(super) struct PresentedCredential {
    pub(super) session: SessionId,
    pub(super) generation: Generation,
    /// The part that must still be checked against the record. `None` for an access token, because its signature is
    /// sufficient.
    refresh: Option<refresh::Authentic>,
    /// The expiry of the access token, if an access token is the credential.
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

    /// Returns whether the access token that serves as the credential has expired.
    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    pub(super) fn proves(&self, session: &Session) -> bool {
        self.refresh.as_ref().is_none_or(|authentic| authentic.proves(&session.secret, &session.client))
    }
}

/// Checks the key of a bound session. A public client must prove the key that it used at login. A confidential client
/// authenticates with its secret, so it may use another key, but it must prove some key.
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

/// Returns whether the client has proved with its secret that the session is its own.
fn may_change_binding(session: &Session, refresh: &Refresh<'_>) -> bool {
    refresh.client.is_confidential() && session.client == refresh.client.id
}

/// Checks the requested resource. A refresh may name only the resource of its session (RFC 8707 §2.2). This is checked
/// only for valid tokens, so that all invalid tokens get the same error.
// Requirement N45.
pub(super) fn names_resource(session: &Session, refresh: &Refresh<'_>) -> Result<(), Denial> {
    if refresh.resource.is_none() || refresh.resource == session.resource { Ok(()) } else { Err(Denial::InvalidTarget) }
}

/// Checks that the session belongs to the client, the account and the endpoint at which its token was presented.
pub(super) fn belongs(session: &Session, refresh: &Refresh<'_>) -> Result<(), Denial> {
    if session.client != refresh.client.id {
        return Err(Denial::OtherClient);
    }
    if !refresh.account.has(session.account.as_deref()) {
        return Err(Denial::OtherAccount);
    }
    // An endpoint that accepts a dialect's sessions does not accept their access tokens as refresh credentials
    // (requirement R17).
    let taken = match refresh.credential {
        Exchange::Access(_) => refresh.by_access,
        Exchange::Refresh(_) | Exchange::Pair(..) => refresh.accepts,
    };
    if taken.contains(&session.dialect) { Ok(()) } else { Err(Denial::OtherDialect) }
}
