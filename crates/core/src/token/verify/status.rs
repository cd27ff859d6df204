//! The claim `status` of a token, and the status lists that it names (draft-ietf-oauth-status-list §5, §8.3).

use std::time::Duration;

use super::genuine::{Genuine, NotGenuine, genuine_within};
use super::judge::{ClaimsSource, TokenTimes};
use super::members::{Member, Members};
use super::rules::IssuerRules;
use super::shape::{TokenParts, decode};
use super::{Keys, Verifier};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::token::assertion::STATUS_LIST_TYP;
use crate::token::claims::AccessToken;
use crate::token::remote_status::{MissingStatus, OriginStatus, StatusRef, StatusWait};
use crate::token::status_token::inflated;

/// The longest status list token, in bytes.
pub const MAX_STATUS_LIST: usize = 4 << 20;

/// The place of a token: the URL of its list, and its index in the list. `None` if the token has no status list.
fn named<'a>(claims: &'a Members<'_>, claim: &str) -> Result<Option<(&'a str, u64)>, Denial> {
    let status = match claims.get(claim) {
        None => return Ok(None),
        Some(Member::Object(status)) => status,
        Some(_) => return Err(Denial::BadClaim("status must be an object")),
    };
    let entry = match status.get("status_list") {
        // The token uses another status mechanism.
        None => return Ok(None),
        Some(Member::Object(entry)) => entry,
        Some(_) => return Err(Denial::BadClaim("status_list must be an object")),
    };
    let url =
        entry.get("uri").and_then(Member::as_text).ok_or(Denial::BadClaim("uri of status_list must be a text"))?;
    let index = entry.get("idx").and_then(Member::as_u64);
    Ok(Some((url, index.ok_or(Denial::BadClaim("idx of status_list must be a whole number from 0"))?)))
}

/// The place of a token in a status list, if the gate reads the issuer's lists.
pub(super) fn place(
    rules: &IssuerRules,
    claims: &Members<'_>,
    source: ClaimsSource<'_>,
) -> Result<Option<StatusRef>, Denial> {
    // No list is fetched for a token whose signature is not verified.
    if let ClaimsSource::Token(_) = source { place_of_genuine(rules, claims) } else { Ok(None) }
}

fn place_of_genuine(rules: &IssuerRules, claims: &Members<'_>) -> Result<Option<StatusRef>, Denial> {
    let Some(lists) = &rules.status_lists else { return Ok(None) };
    match named(claims, "status")? {
        Some((url, index)) => lists.reference(url, index).map(Some),
        None if lists.rules().missing == MissingStatus::Refuse => Err(Denial::BadClaim("no status")),
        None => Ok(None),
    }
}

/// Checks the status of a genuine text that is used at once. Returns how long its list counts, as
/// [`AccessToken::status_lasts`].
pub(super) fn live(
    rules: &IssuerRules,
    claims: &Members<'_>,
    now: Timestamp,
    wall: Timestamp,
) -> Result<Option<Duration>, Denial> {
    let Some(status) = place_of_genuine(rules, claims)? else { return Ok(None) };
    status.check(now, wall).map(|()| Some(status.lasts()))
}

/// The place of the token of another issuer for which one of our tokens was exchanged.
pub(super) fn origin_status(claims: &Members<'_>) -> Result<Option<OriginStatus>, Denial> {
    let place = named(claims, "origin_status")?;
    Ok(place.map(|(url, index)| OriginStatus { index, url: url.into() }))
}

impl Verifier {
    /// A wait for the status list that a genuine token names.
    pub(crate) fn awaited_status(&self, token: &str) -> Option<StatusWait> {
        let rules = self.claimed(token).ok()?;
        let parts = TokenParts::split(token).ok()?;
        let payload = decode(parts.claims).ok()?;
        let claims = Members::read(&payload).ok()?;
        let (issuer, claim) = match rules.ours {
            true => (self.rules(claims.get("origin_iss")?.as_text()?)?, "origin_status"),
            false => (rules, "status"),
        };
        issuer.status_lists.as_ref()?.join(named(&claims, claim).ok()??.0)
    }

    /// One of our tokens that was exchanged for a token of another issuer ends with that token: by the lists of that
    /// issuer, as they are in force now.
    ///
    /// # Errors
    /// The gate does not trust the issuer, so that it cannot know; the place is under no prefix of the issuer; the issuer
    /// has too many lists.
    // Requirement S12.
    pub(super) fn with_origin_status(
        &self,
        mut token: AccessToken,
        source: ClaimsSource<'_>,
    ) -> Result<AccessToken, Denial> {
        // No list is fetched for a token whose signature is not verified.
        let ClaimsSource::Token(_) = source else { return Ok(token) };
        let status = self.status_of_origin(&token)?;
        if let (Some(status), Some(rare)) = (status, token.rare.as_deref_mut()) {
            rare.status = Some(status);
        }
        Ok(token)
    }

    fn status_of_origin(&self, token: &AccessToken) -> Result<Option<StatusRef>, Denial> {
        let carried = token.delegation().and_then(|delegation| delegation.status.as_ref()).zip(token.vouched_by());
        let Some((status, by)) = carried else { return Ok(None) };
        let lists = &self.rules(&by.issuer).ok_or(Denial::UnknownIssuer)?.status_lists;
        lists.as_ref().map(|lists| lists.reference(&status.url, status.index)).transpose()
    }

    /// Is the place by which one of our tokens is judged still the one in the lists of its first issuer? A reload may have
    /// replaced the lists.
    pub(crate) fn has_status_of(&self, token: &AccessToken) -> bool {
        let is_carried = token.delegation().is_some_and(|delegation| delegation.status.is_some());
        let known = token.rare.as_deref().and_then(|rare| rare.status.as_ref());
        !is_carried || self.status_of_origin(token).is_ok_and(|now| now.as_ref() == known)
    }
}

/// A status list that is signed by its issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadStatusList {
    bits: u8,
    bytes: Box<[u8]>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`, or the end of time.
    pub expires: Timestamp,
    /// `ttl`.
    pub ttl: Option<Duration>,
}

/// A text that may be a status list.
#[derive(Clone, Copy, Debug)]
pub struct SentStatusList<'a> {
    /// The text.
    pub text: &'a str,
    /// Where it was.
    pub url: &'a str,
    /// The issuer that must have signed the list.
    pub issuer: &'a str,
    /// The keys of that issuer.
    pub keys: &'a Keys,
    /// The `iat` of the list that the gate has already.
    pub known: Option<Timestamp>,
    /// How much the clock of the issuer may differ from ours.
    pub leeway: Duration,
}

const fn wrong(what: &'static str) -> Denial {
    Denial::MalformedToken(what)
}

impl SentStatusList<'_> {
    /// Reads the list.
    ///
    /// # Errors
    /// The problem of the list. The denial says nothing about a token.
    // Requirements S8, S9.
    pub fn read(self, engine_now: Timestamp, wall: Timestamp) -> Result<ReadStatusList, Denial> {
        let refuse = |flaw: NotGenuine| flaw.denial(wrong, Denial::BadSignature);
        let read = |payload: &[u8]| Members::read(payload).map_err(wrong).and_then(|claims| self.claims(&claims, wall));
        let keys = (self.keys, self.leeway);
        let Genuine { claims, typ, .. } = genuine_within(MAX_STATUS_LIST, keys, self.text, engine_now, read, refuse)?;
        if typ.as_deref() != Some(STATUS_LIST_TYP) {
            return Err(wrong("typ must be statuslist+jwt"));
        }
        let (lst, list) = claims;
        // Inflated only after the signature check, because inflating costs more than the check.
        Ok(ReadStatusList { bytes: inflated(&lst).map_err(wrong)?.into(), ..list })
    }

    fn claims(&self, claims: &Members<'_>, wall: Timestamp) -> Result<(Box<str>, ReadStatusList), Denial> {
        let text = |name: &str| claims.get(name).and_then(Member::as_text);
        if text("sub") != Some(self.url) {
            return Err(wrong("sub must be the URL of the list"));
        }
        if claims.get("iss").is_some() && text("iss") != Some(self.issuer) {
            return Err(wrong("iss must be the issuer"));
        }
        let issued_at = claims.get("iat").and_then(Member::as_u64).map(Timestamp::from_secs);
        let issued_at = issued_at.ok_or(wrong("iat must be a time in seconds"))?;
        if self.known.is_some_and(|known| issued_at < known) {
            return Err(wrong("iat is earlier than the iat of the known list"));
        }
        if issued_at > wall.plus(self.leeway) {
            return Err(wrong("iat is in the future"));
        }
        let expires = match claims.get("exp") {
            None => Timestamp::MAX,
            Some(_) => TokenTimes::read(claims).map_err(|_| wrong("exp must be a time"))?.expires,
        };
        if expires.plus(self.leeway) <= wall {
            return Err(wrong("it is expired"));
        }
        let ttl = claims.get("ttl").map(|ttl| ttl.as_u64().filter(|ttl| *ttl > 0).ok_or(wrong("ttl must be a count")));
        let Some(Member::Object(list)) = claims.get("status_list") else {
            return Err(wrong("status_list must be an object"));
        };
        let bits = list.get("bits").and_then(Member::as_u64).and_then(|bits| u8::try_from(bits).ok());
        let bits = bits.filter(|bits| [1, 2, 4, 8].contains(bits)).ok_or(wrong("bits must be 1, 2, 4 or 8"))?;
        let lst = list.get("lst").and_then(Member::as_text).ok_or(wrong("lst must be a text"))?;
        let ttl = ttl.transpose()?.map(Duration::from_secs);
        Ok((lst.into(), ReadStatusList { bits, bytes: [].into(), issued_at, expires, ttl }))
    }
}

impl ReadStatusList {
    /// The status at an index: 0 is valid. `None` if the list is shorter.
    pub fn value(&self, index: u64) -> Option<u8> {
        let in_byte = 8 / u64::from(self.bits);
        let byte = self.bytes.get(usize::try_from(index / in_byte).ok()?)?;
        let shift = u8::try_from(index % in_byte).ok()? * self.bits;
        Some(byte >> shift & (u8::MAX >> (8 - self.bits)))
    }
}
