//! Signature verification for JWTs of other parties: notices, ID tokens and assertions.

use std::time::Duration;

use super::Keys;
use super::keys::NewerKeys;
use super::shape::{JoseHeader, TokenParts, decode};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::token::algorithm::Algorithm;

pub(super) struct Genuine<T> {
    pub(super) claims: T,
    /// The lower-case `typ` without a leading `application/`.
    pub(super) typ: Option<String>,
    pub(super) algorithm: Algorithm,
}

pub(super) enum NotGenuine {
    Form(&'static str),
    Key,
    /// No fetched key matches the signature, but the issuer may have a newer key.
    MissingKey,
    Unavailable(Denial),
}

impl NotGenuine {
    pub(super) fn denial(self, form: fn(&'static str) -> Denial, key: Denial) -> Denial {
        match self {
            Self::Form(what) => form(what),
            Self::Key | Self::MissingKey => key,
            Self::Unavailable(denial) => denial,
        }
    }
}

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
    // The sender does not repeat a refused notice. Therefore a wrong signature is reported as a missing key if a newer
    // key may exist.
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
