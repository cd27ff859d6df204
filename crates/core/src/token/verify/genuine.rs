//! Checks the signature of another party's JWT that is not an access token: a notice, an ID token or an assertion.

use std::time::Duration;

use super::Keys;
use super::keys::NewerKeys;
use super::shape::{JoseHeader, TokenParts, decode};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::token::algorithm::Algorithm;

/// A JWT with a valid signature.
pub(super) struct Genuine<T> {
    /// The claims, in the form in which the caller's function read them.
    pub(super) claims: T,
    /// `typ` in lower case, without a leading `application/`.
    pub(super) typ: Option<String>,
    /// The algorithm of the key that signed the JWT.
    pub(super) algorithm: Algorithm,
}

/// The reason why a JWT is not genuine.
pub(super) enum NotGenuine {
    /// The input is not a JWS.
    Form(&'static str),
    /// The signature does not match any key of the issuer.
    Key,
    /// The signature does not match any key that was fetched last, but a newer key may match.
    MissingKey,
    /// The keys of the issuer are not known at this moment.
    Unavailable(Denial),
}

impl NotGenuine {
    /// The denial for this reason. `form` makes the denial for a malformed token, and `key` is the denial if no key of
    /// the issuer signed the token.
    pub(super) fn denial(self, form: fn(&'static str) -> Denial, key: Denial) -> Denial {
        match self {
            Self::Form(what) => form(what),
            Self::Key | Self::MissingKey => key,
            Self::Unavailable(denial) => denial,
        }
    }
}

/// Reads the claims of a JWT, and then checks that one of the keys signed it with the key's own algorithm.
pub(super) fn genuine<T>(
    (keys, leeway): (&Keys, Duration),
    token: &str,
    now: Timestamp,
    read: impl FnOnce(&[u8]) -> Result<T, Denial>,
    refuse: impl Fn(NotGenuine) -> Denial,
) -> Result<Genuine<T>, Denial> {
    let form = |what| refuse(NotGenuine::Form(what));
    let parts = TokenParts::split(token).map_err(|_| form("no JWS"))?;
    let header = JoseHeader::read(parts.header).map_err(|_| form("the header is malformed"))?;
    let payload = decode(parts.claims).map_err(|_| form("the claims are malformed"))?;
    let claims = read(&payload)?;
    let present = keys.now(now);
    let newer = NewerKeys { keys, leeway, engine_now: now, issued_at: None, has_effects: true };
    // A sender does not repeat a refused notice. Therefore a bad signature is treated like a missing key while the
    // issuer may have published another key under the same `kid`.
    let unproved = |denial| {
        refuse(match denial {
            unavailable @ Denial::KeysUnavailable(_) => NotGenuine::Unavailable(unavailable),
            Denial::WrongAlgorithm | Denial::TooManyKeys => NotGenuine::Key,
            _ if keys.live().is_some_and(|live| live.is_fetched()) => NotGenuine::MissingKey,
            _ => NotGenuine::Key,
        })
    };
    let candidates = present
        .find(header.kid.as_deref(), &header.algorithm)
        .map_err(|no_key| unproved(present.refusal(no_key, header.kid.as_deref(), newer)))?;
    let signer = candidates.signer(&parts, |key| parts.is_signed_by(key));
    let key = signer.map_err(|tried| unproved(newer.mistaken(Denial::BadSignature, tried).into_denial()))?;
    let typ = header.typ.map(|typ| {
        let typ = typ.to_ascii_lowercase();
        typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ)
    });
    Ok(Genuine { claims, typ, algorithm: key.algorithm() })
}
