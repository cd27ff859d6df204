//! What each rule says of a token, whichever of them refuses it first: for an explanation, never for a decision. The steps
//! are those of [`Verifier::verify_as`].

use std::sync::Arc;
use std::time::Duration;

use super::judge::{self, Moments, Origin, Times};
use super::members::{Member, Members};
use super::{Peeked, Verifier, peek, shape};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::effects::WithoutEffects;
use crate::token::claims::AccessToken;

/// A token, rule by rule. `None`: the rule could not be judged.
pub(crate) struct Examined {
    /// Its claims, unverified.
    pub(crate) says: Peeked,
    /// Its algorithm, as its header names it.
    pub(crate) algorithm: Box<str>,
    /// The name of its issuer's rules, and whether the issuer is ours.
    pub(crate) issuer: Option<(Arc<str>, bool)>,
    /// Is the issuer known, and has it the key?
    pub(crate) key: Result<(), Denial>,
    /// Is the signature the key's?
    pub(crate) signature: Option<Result<(), Denial>>,
    /// Its type, its times, and all other claims that do not depend on a route.
    pub(crate) claims: Option<Result<(), Denial>>,
    /// The claim of a mapping that refuses it.
    pub(crate) refused_claim: Option<String>,
    /// Its claims as the rules read them, proved or not.
    pub(crate) token: Option<AccessToken>,
}

impl Verifier {
    /// Examines a token.
    ///
    /// # Errors
    /// It has not the form of a token.
    pub(crate) fn examine(&self, token: &str, engine_now: Timestamp, wall: Timestamp) -> Result<Examined, Denial> {
        let parts = shape::TokenParts::split(token)?;
        let header = shape::Header::read(parts.header)?;
        let payload = shape::decode(parts.claims)?;
        let claims = Members::read(&payload).map_err(Denial::MalformedToken)?;
        let mut examined = Examined {
            says: peek(token).unwrap_or_default(),
            algorithm: header.algorithm.clone(),
            issuer: None,
            key: Err(Denial::UnknownIssuer),
            signature: None,
            claims: None,
            refused_claim: None,
            token: None,
        };
        let Some(issuer) = claims.get("iss").and_then(Member::as_text) else {
            examined.claims = Some(Err(Denial::BadClaim("iss must be a string")));
            return Ok(examined);
        };
        let Some((rules, of_tokens)) = self.found(issuer) else { return Ok(examined) };
        examined.issuer = Some((Arc::clone(&rules.name), rules.ours));
        let times = Times::read(&claims);
        let keys = rules.keys.now(engine_now);
        let found = keys.find(header.kid.as_deref(), &header.algorithm);
        let key = found.filter(|key| *header.algorithm == *key.algorithm().name());
        examined.key = match (found, key) {
            (_, Some(_)) => Ok(()),
            (Some(_), None) => Err(Denial::WrongAlgorithm),
            (None, None) => {
                let issued_at = times.as_ref().ok().and_then(|times| times.issued_at);
                Err(rules.keys.missing::<WithoutEffects>(engine_now, issued_at, rules.leeway))
            }
        };
        let holds = |key| if parts.is_signed_by(key) { Ok(()) } else { Err(Denial::BadSignature) };
        examined.signature = key.map(holds);
        let has_type = if rules.accepts_typ(header.typ.as_deref()) { Ok(()) } else { Err(Denial::WrongType) };
        let moments = Moments::of(rules, engine_now, wall);
        let in_time = times.and_then(|times| times.judge(rules, moments, Duration::ZERO));
        let origin = key.map_or(Origin::Unknown, Origin::Token);
        let judged = times
            .map_err(Into::into)
            .and_then(|times| judge::claims(token, &claims, (rules, of_tokens), origin, times));
        let read = match judged {
            Ok(token) => {
                examined.token = Some(token);
                Ok(())
            }
            Err(refused) => {
                examined.refused_claim = refused.claim.map(|(claim, _)| claim.to_string());
                Err(refused.denial)
            }
        };
        examined.claims = Some(has_type.and(in_time).and(read));
        Ok(examined)
    }
}
