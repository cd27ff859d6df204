//! Verification of access tokens.
//!
//! Cheap checks come first: size, shape, header, issuer and key. The times are checked before the signature, because an
//! expired token does not need a signature check. The other claims are checked last.
//!
//! Issuer and `kid` select a key, and the key determines the algorithm. Only the signature is left to a library, which
//! is lenient about duplicate members, `crit`, `typ`, and claims of the wrong type.
//!
//! ```
//! use rotogate::token::{IssuerKeys, IssuerRules};
//! use rotogate::session::Scope;
//!
//! # fn example(jwks: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! let keys = IssuerKeys::from_jwks(jwks, None)?;
//! let rules = IssuerRules::external("https://idp.example.com", vec!["api".into()], keys)
//!     .named("idp")
//!     .scopes(Some(Scope::parse("read")?));
//! let builder = rotogate::Gate::builder().trusted_issuer(rules);
//! # let _ = builder;
//! # Ok(()) }
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::rule::Rule;
use crate::strict_json::{Member, Members};
use crate::token::claims::{AccessToken, TokenIssuer};
use crate::token::keyring::{KeyPrint, VerifyingKey};
use crate::token::live_keys::KeysWait;
use crate::token::observer::Observer;

mod assertion_grants;
mod client_assertion;
mod event;
mod genuine;
mod global_revocation;
mod grant_assertion;
mod id_token;
mod in_words;
mod judge;
pub(in crate::token) mod keys;
pub(in crate::token) mod mapping;
pub(in crate::token) mod names;
mod peek;
mod preset;
mod response;
mod rules;
mod sessions_seen;
pub(in crate::token) mod shape;
mod signature_times;
mod sources;
mod user_name;

pub use assertion_grants::{AssertionGrants, IdJagRules, JagSubject, JwtBearerRules};
pub use client_assertion::{CLIENT_ASSERTION_TYPE, SentClientAssertion, UsableOnce};
pub use event::{Ended, EventEffect, EventEffects, EventKind, EventProtocol, Reported, SentNotice, VOUCHED_IDLE};
pub use global_revocation::{AskedRevocation, RevokedUser, SentGlobalRevocation};
pub use grant_assertion::{ProvedGrant, ProvedUser, SentGrant};
pub use id_token::{ProvedLogin, SentIdToken};
use in_words::escaped;
use judge::{ClaimsSource, Moments, TokenTimes};
use keys::{Candidates, NewerKeys};
pub use keys::{Ignored, IgnoredCause, IssuerKeys, Keys, MAX_JWKS, MAX_KEYS, MAX_TRIED};
use mapping::RefusedClaim;
pub use mapping::{ClaimMapping, RequiredClaim, Roles, WantedClaim};
pub use names::{is_name, is_subject};
pub use peek::{Peeked, beginning, peek};
pub use preset::Preset;
pub use response::is_jwt_shaped;
pub use response::{Responses, Told};
pub(crate) use response::{has_prefix, introspecting, is_opaque};
pub use rules::{IssuerRules, OWN, RulesError, host_of, prefix_problem};
use shape::claims_of;
pub use shape::{MAX_OWN_TOKEN, MAX_TOKEN, payload_of};
pub(crate) use signature_times::SignatureTimes;
pub use sources::{SubjectSources, UserSource, bare_source};
pub use user_name::{UserName, UserNameForm};

/// The rate limits depend on the variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenRefusal {
    Unchecked(Denial),
    /// None of the tried keys verifies the signature. The second field is the number of tried keys.
    Forged(Denial, usize),
    /// Like [`Self::Forged`], but newer keys are being fetched.
    Undecided(Denial, usize),
    Authentic(Denial),
}

impl TokenRefusal {
    pub(crate) const fn into_denial(self) -> Denial {
        match self {
            Self::Unchecked(denial) | Self::Authentic(denial) => denial,
            Self::Forged(denial, _) | Self::Undecided(denial, _) => denial,
        }
    }
}

impl From<Denial> for TokenRefusal {
    fn from(denial: Denial) -> Self {
        Self::Unchecked(denial)
    }
}

#[derive(Clone, Copy)]
pub(crate) struct TokenToVerify<'a> {
    pub(crate) text: &'a str,
    /// A cache may already have the token as a shared string.
    pub(crate) kept: Option<&'a Arc<str>>,
    pub(crate) claims: Option<&'a Members<'a>>,
}

impl<'a> From<&'a str> for TokenToVerify<'a> {
    fn from(text: &'a str) -> Self {
        Self { text, kept: None, claims: None }
    }
}

/// Verifies access tokens. A verifier is immutable, and is replaced when keys or rules change.
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<IssuerRules>,
    by_issuer: HashMap<Arc<str>, usize, foldhash::quality::RandomState>,
    /// True once a wrong token type was logged.
    told: AtomicBool,
    /// The kinds of claims whose first refusal was logged, one bit each.
    told_claims: Box<[AtomicU8]>,
    ids: Box<[RulesId]>,
    of_tokens: Box<[Arc<TokenIssuer>]>,
    sources: Arc<SubjectSources>,
    signature_times: Arc<SignatureTimes>,
}

/// The identity of an issuer's rules and keys. Equal rules and keys keep their identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RulesId {
    rules: u32,
    keys: u32,
}

impl RulesId {
    fn next() -> Self {
        let (rules, keys) = (Self::number(), Self::number());
        Self { rules, keys }
    }

    fn number() -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn has_rules_of(self, other: Self) -> bool {
        self.rules == other.rules
    }
}

impl Verifier {
    /// Makes a verifier for the tokens of exactly these issuers.
    ///
    /// # Errors
    /// An issuer occurs twice, more than one is the gate's own, or a rule is out of bounds.
    pub fn new(issuers: Vec<IssuerRules>) -> Result<Self, RulesError> {
        rules::check(&issuers)?;
        super::keyring::install_provider();
        let told_claims = issuers.iter().map(|_| AtomicU8::new(0)).collect();
        let by_issuer = issuers.iter().enumerate().map(|(place, rules)| (rules.issuer.clone(), place)).collect();
        let ids = issuers.iter().map(|_| RulesId::next()).collect();
        let of_tokens = issuers.iter().map(IssuerRules::of_tokens).collect();
        let (told, signature_times) = (AtomicBool::new(false), Arc::default());
        let sources = Arc::new(SubjectSources::new(&issuers));
        Ok(Self { issuers, by_issuer, told, told_claims, ids, of_tokens, sources, signature_times })
    }

    pub(crate) fn duplicate(&self) -> Self {
        let told_claims = self.told_claims.iter().map(|_| AtomicU8::new(0)).collect();
        Self {
            issuers: self.issuers.clone(),
            by_issuer: self.by_issuer.clone(),
            told: AtomicBool::new(false),
            told_claims,
            ids: self.ids.clone(),
            of_tokens: self.of_tokens.clone(),
            sources: Arc::clone(&self.sources),
            signature_times: Arc::clone(&self.signature_times),
        }
    }

    pub(crate) fn signature_times(&self) -> &SignatureTimes {
        &self.signature_times
    }

    /// Keeps the ids of issuers whose rules and keys are unchanged.
    pub(crate) fn following(mut self, old: &Self) -> Self {
        self.told = AtomicBool::new(old.told.load(Ordering::Relaxed));
        self.signature_times = Arc::clone(&old.signature_times);
        let states = self.ids.iter_mut().zip(&self.told_claims);
        for (rules, (id, told)) in self.issuers.iter_mut().zip(states) {
            let Some(place) = old.by_issuer.get(&rules.issuer) else { continue };
            let (Some(known), Some(old_id)) = (old.issuers.get(*place), old.ids.get(*place)) else { continue };
            if rules.session_claim == known.session_claim {
                rules.sessions_seen = Arc::clone(&known.sessions_seen);
            }
            if rules.equals(known) {
                (*rules, *id) = (known.clone(), *old_id);
            } else if rules.without_keys().equals(&known.without_keys()) {
                id.rules = old_id.rules;
            } else {
                continue;
            }
            if let Some(already) = old.told_claims.get(*place) {
                told.store(already.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        self
    }

    pub(crate) fn id_of(&self, issuer: &str) -> Option<RulesId> {
        self.ids.get(*self.by_issuer.get(issuer)?).copied()
    }

    pub(crate) fn ids(&self) -> &[RulesId] {
        &self.ids
    }

    /// The rules for the tokens of this issuer.
    pub fn rules(&self, issuer: &str) -> Option<&IssuerRules> {
        self.found(issuer).map(|(rules, _)| rules)
    }

    fn found(&self, issuer: &str) -> Option<(&IssuerRules, &Arc<TokenIssuer>)> {
        let place = *self.by_issuer.get(issuer)?;
        self.issuers.get(place).zip(self.of_tokens.get(place))
    }

    /// Checks everything except audience, scopes and revocation.
    ///
    /// # Errors
    /// The rule that refuses the token. The denial does not contain any part of the token.
    pub fn verify(&self, token: &str, engine_now: Timestamp, wall_now: Timestamp) -> Result<AccessToken, Denial> {
        self.verify_expired(token, engine_now, wall_now, Duration::ZERO).map_err(TokenRefusal::into_denial)
    }

    /// Accepts a token that expired at most `for_at_most` ago. Some protocols exchange an expired access token together
    /// with its refresh token.
    ///
    /// # Errors
    /// The errors of [`Self::verify`], and whether the signature was checked.
    pub(crate) fn verify_expired(
        &self,
        token: &str,
        engine_now: Timestamp,
        wall_now: Timestamp,
        for_at_most: Duration,
    ) -> Result<AccessToken, TokenRefusal> {
        self.verify_observed(token, engine_now, wall_now, for_at_most, &mut ())
    }

    /// An observer that continues after a refusal gets the refused token's claims.
    pub(crate) fn verify_observed<'t, O: Observer>(
        &self,
        token: impl Into<TokenToVerify<'t>>,
        engine_now: Timestamp,
        wall_now: Timestamp,
        for_at_most: Duration,
        observer: &mut O,
    ) -> Result<AccessToken, TokenRefusal> {
        let token = token.into();
        self.bounded(token.text)?;
        let parts = shape::TokenParts::split(token.text)?;
        let header = shape::JoseHeader::known(parts.header)?;
        let (payload, read);
        let claims = match token.claims {
            Some(claims) => claims,
            None => {
                payload = shape::decode(parts.claims)?;
                read = Members::read(&payload).map_err(Denial::MalformedToken)?;
                &read
            }
        };
        let (rules, of_tokens) = self.claimed_in(claims)?;
        if rules.ours && token.text.len() > MAX_OWN_TOKEN {
            return Err(shape::OWN_TOO_LONG.into());
        }
        let times = TokenTimes::read(claims);
        let moments = Moments::for_issuer(rules, engine_now, wall_now);
        let typ = header.typ.as_deref();
        let in_time = || {
            let times = times?;
            times.judge(rules, moments, for_at_most)?;
            times.judge_iat(rules, moments, typ)
        };
        let keys = rules.keys.now(engine_now);
        let issued_at = times.ok().and_then(|times| times.issued_at);
        let newer = NewerKeys::for_issuer(rules, engine_now, issued_at, O::HAS_EFFECTS);
        let found = keys.find(header.kid.as_deref(), &header.algorithm);
        match found {
            Ok(_) => observer.judged(Rule::Key, Ok(()))?,
            Err(no_key) => {
                // An expired token must not cause a request for the issuer's keys.
                observer.judged(Rule::Claims, in_time())?;
                observer.judged(Rule::Key, Err(keys.refusal(no_key, header.kid.as_deref(), newer)))?;
            }
        }
        let holds = |key: &VerifyingKey| {
            let check = || parts.is_signed_by(key);
            if O::HAS_EFFECTS { self.signature_times.measure(key.algorithm(), check) } else { check() }
        };
        if !rules.accepts_typ(typ) {
            let signed = |keys: Candidates<'_>| keys.signer(&parts, holds).map(drop);
            let refusal =
                found.map_or(Denial::WrongType.into(), |keys| self.wrong_type::<O>(rules, typ, || signed(keys)));
            observer.judged(Rule::Claims, Err(refusal.into_denial())).map_err(|_| refusal)?;
        }
        observer.judged(Rule::Claims, in_time())?;
        let mut key = found.ok().map(|keys| keys.first);
        if let Ok(keys) = found {
            let signed = keys.signer(&parts, holds).map_err(|tried| {
                match (newer.mistaken(Denial::BadSignature, tried), tried) {
                    (refusal, 0) => refusal.into_denial().into(),
                    (refusal, _) => refusal,
                }
            });
            let denied = signed.map(drop).map_err(TokenRefusal::into_denial);
            observer.judged(Rule::Signature, denied).or(signed.map(drop))?;
            key = signed.ok().or(key);
            if O::HAS_EFFECTS {
                header.keep(parts.header);
            }
        }
        let source = key.map_or(ClaimsSource::Unknown, ClaimsSource::Token);
        let judged = judge::claims(token, claims, (rules, of_tokens), source, times?);
        let judged = if O::HAS_EFFECTS { self.note(rules, judged) } else { judged.map_err(|refused| refused.denial) };
        judged.and_then(|token| self.with_source(token)).map_err(TokenRefusal::Authentic)
    }

    fn note(&self, rules: &IssuerRules, judged: Result<AccessToken, RefusedClaim<'_>>) -> Result<AccessToken, Denial> {
        match judged {
            Ok(token) => {
                rules.sessions_seen.note_token(&token);
                let vouched = token.vouched_by().and_then(|by| Some((by, self.rules(&by.issuer)?)));
                if let Some((by, other)) = vouched {
                    other.sessions_seen.note_vouched(by);
                }
                Ok(token)
            }
            Err(refused) => {
                let place = self.issuers.iter().position(|known| std::ptr::eq(known, rules));
                Err(name_claim(rules, refused, place.and_then(|place| self.told_claims.get(place))))
            }
        }
    }

    /// The first wrong type is logged, because the configured rules may be wrong.
    fn wrong_type<O: Observer>(
        &self,
        rules: &IssuerRules,
        typ: Option<&str>,
        signed: impl FnOnce() -> Result<(), usize>,
    ) -> TokenRefusal {
        if rules.ours || self.told.load(Ordering::Relaxed) {
            return Denial::WrongType.into();
        }
        if let Err(tried) = signed() {
            return TokenRefusal::Forged(Denial::BadSignature, tried);
        }
        if O::HAS_EFFECTS && !self.told.swap(true, Ordering::Relaxed) {
            let typ = escaped(typ.unwrap_or_default());
            tracing::warn!(
                issuer = &*rules.issuer,
                typ,
                "a genuine token of this issuer is refused because of its `typ` (empty if the token has none). If the \
                 issuer's access tokens have this type, list it in `IssuerRules::typ([…])`, or in `typ` of \
                 `[[issuers]]`. Logged once"
            );
        }
        TokenRefusal::Authentic(Denial::WrongType)
    }

    fn bounded(&self, token: &str) -> Result<(), Denial> {
        let is_own = token.len() <= MAX_OWN_TOKEN;
        if is_own || self.has_others() { Ok(()) } else { Err(shape::OWN_TOO_LONG) }
    }

    /// Finds the rules for the issuer that an unverified token names.
    ///
    /// # Errors
    /// The string is not a token, or its issuer is not configured.
    pub(crate) fn claimed(&self, token: &str) -> Result<&IssuerRules, Denial> {
        let payload = payload_of(token)?;
        let claims = Members::read(&payload).map_err(Denial::MalformedToken)?;
        self.claimed_in(&claims).map(|(rules, _)| rules)
    }

    /// Works like [`Self::claimed`] for claims that were already read.
    pub(crate) fn claimed_in(&self, claims: &Members<'_>) -> Result<(&IssuerRules, &Arc<TokenIssuer>), Denial> {
        let issuer = claims.get("iss").and_then(Member::as_text).ok_or(Denial::BadClaim("`iss` must be a string"))?;
        self.found(issuer).ok_or(Denial::UnknownIssuer)
    }

    pub(crate) fn issuers(&self) -> &[IssuerRules] {
        &self.issuers
    }

    pub(crate) fn has_others(&self) -> bool {
        self.issuers.iter().any(|rules| !rules.ours)
    }

    /// Checks that the issuer still has this key.
    ///
    /// # Errors
    /// The issuer no longer has the key, or its keys are unknown at the moment.
    pub(crate) fn holds(&self, issuer: &str, key: &KeyPrint, engine_now: Timestamp) -> Result<(), Denial> {
        self.rules(issuer).ok_or(Denial::UnknownIssuer)?.keys.holds(key, engine_now)
    }

    /// Returns `None` if no fetch is running, or if too many requests wait for it.
    pub(crate) fn awaited(&self, token: &str) -> Option<KeysWait> {
        self.claimed(token).ok()?.keys.live()?.join()
    }

    pub(crate) fn named(&self, name: &str) -> Option<&IssuerRules> {
        self.issuers.iter().find(|rules| &*rules.name == name)
    }

    /// Keys are compared by content, not only by `kid`.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        self.issuers.len() == other.issuers.len() && self.issuers.iter().zip(&other.issuers).all(|(a, b)| a.equals(b))
    }

    /// The gate's own issuer.
    pub fn own_issuer(&self) -> Option<&Arc<str>> {
        self.issuers.iter().find(|rules| rules.ours).map(|rules| &rules.issuer)
    }
}

/// The first refusal of each kind is logged, because the configured mapping may be wrong.
fn name_claim(rules: &IssuerRules, refused: RefusedClaim<'_>, told: Option<&AtomicU8>) -> Denial {
    let RefusedClaim { denial, claim } = refused;
    let Some((claim, kind)) = claim.filter(|_| !rules.ours) else { return denial };
    let (issuer, detail) = (&*rules.name, denial.detail());
    if told.is_some_and(|told| told.fetch_or(1 << kind, Ordering::Relaxed) & (1 << kind) == 0) {
        tracing::warn!(
            issuer,
            %claim,
            detail,
            "a genuine token of this issuer is refused because of this claim. If such tokens are the issuer's access \
             tokens, correct `claims`, `require` or `preset` of the issuer. Further refusals are logged at level debug"
        );
    } else {
        tracing::debug!(issuer, %claim, detail, "a genuine token is refused because of this claim");
    }
    denial
}

#[cfg(test)]
mod tests;
