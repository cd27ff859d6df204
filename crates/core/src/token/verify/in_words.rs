//! Explanations of why a token is refused. The signature is not checked.

use std::time::Duration;

use super::judge::{self, ClaimsSource, TokenTimes};
use super::{Verifier, shape};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::strict_json::{Member, Members};
use crate::token::AccessToken;

/// The maximum length of a quoted string, in characters.
const LONGEST: usize = 64;

pub(super) fn escaped(text: &str) -> String {
    text.chars().take(LONGEST).flat_map(char::escape_default).collect()
}

impl Verifier {
    /// Verifies an expired token at one second before its `exp`. Returns `None` if the token was invalid at that time.
    pub fn in_its_time(&self, token: &str) -> Option<AccessToken> {
        let parts = shape::TokenParts::split(token).ok()?;
        let payload = shape::decode(parts.claims).ok()?;
        let last = TokenTimes::read(&Members::read(&payload).ok()?).ok()?.expires.minus(Duration::from_secs(1));
        self.verify(token, last, last).ok()
    }

    /// Compares the content of a refused token with the rules of its issuer.
    pub fn refused_in_words(&self, token: &str, denial: Denial, engine_now: Timestamp) -> Option<String> {
        let parts = shape::TokenParts::split(token).ok()?;
        let header = shape::JoseHeader::read(parts.header).ok()?;
        let payload = shape::decode(parts.claims).ok()?;
        let claims = Members::read(&payload).ok()?;
        let issuer = claims.get("iss").and_then(Member::as_text)?;
        let Some((rules, of_tokens)) = self.found(issuer) else { return self.nearly(issuer) };
        let name = &rules.name;
        if denial == Denial::WrongType {
            let quoted = |typ: &str| if typ.is_empty() { "no typ".to_owned() } else { format!("{typ:?}") };
            let accepted: Vec<_> = rules.typ.iter().map(|typ| quoted(typ)).collect();
            let typ = quoted(&escaped(header.typ.as_deref().unwrap_or_default()));
            return Some(format!("the token has {typ}, but for {name} only {} is accepted", accepted.join(" or ")));
        }
        let keys = rules.keys.now(engine_now);
        keys.set()?.find(header.kid.as_deref(), &header.algorithm).ok()?;
        let times = TokenTimes::read(&claims).ok()?;
        if let (Denial::BadClaim(judge::TOO_LONG), Some(longest), Some(since)) =
            (denial, rules.max_lifetime, times.issued_at)
        {
            let (lifetime, longest) = (times.expires.since(since).as_secs(), longest.as_secs());
            return Some(format!("`exp` is {lifetime} s after `iat`, but `max_lifetime` of {name} is {longest} s"));
        }
        let judged = judge::claims(token.into(), &claims, (rules, of_tokens), ClaimsSource::Unknown, times);
        judged.err()?.claim.map(|(claim, _)| claim.to_string())
    }

    /// Finds the issuer with a similar URL: another scheme, letter case or trailing slash.
    fn nearly(&self, issuer: &str) -> Option<String> {
        let plain = |url: &str| {
            let url = url.to_ascii_lowercase();
            url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).trim_end_matches('/').to_owned()
        };
        let rules = self.issuers.iter().find(|rules| plain(&rules.issuer) == plain(issuer))?;
        Some(format!(
            "`iss` must be exactly {}, the URL of the issuer {}; its trailing slash, scheme or letter case differs",
            rules.issuer, rules.name
        ))
    }
}
