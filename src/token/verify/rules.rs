//! What is expected of each issuer's tokens, and the keys that verify them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use serde_json::Value;

use super::strict_json;
use crate::claim::{ClaimError, ClaimPath, ROLES};
use crate::session::Scope;
use crate::token::algorithm::Algorithm;
use crate::token::claims::TYP;
use crate::token::keyring::{KeyError, KeyPrint, Keyring, VerifyingKey};

/// The longest JWK set, in bytes.
pub const MAX_JWKS: usize = 1024 * 1024;
/// The most that the clocks of an issuer and of ours may differ.
const MAX_LEEWAY: Duration = Duration::from_secs(30);

/// Rules that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// Two sets of rules for one issuer, or two that are ours.
    #[error("the issuer {0:?} is there twice, or is not the only one that is ours")]
    Twice(String),
    /// An issuer without a name, or whose tokens could have no type.
    #[error("the issuer {issuer:?}: {why}")]
    Rule {
        /// The issuer.
        issuer: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A JWK set that is not one.
    #[error("not a JWK set: {0}")]
    NotJwks(&'static str),
    /// Nothing in a JWK set can be used.
    #[error("no usable key: {}", listed(.0))]
    NoUsableKey(Vec<Ignored>),
    /// Two keys of one name, or several keys and one of them without a name.
    #[error("the keys cannot be told apart: {0:?} is there twice")]
    Ambiguous(String),
    /// A single key that is no good.
    #[error(transparent)]
    Key(#[from] KeyError),
}

fn listed(ignored: &[Ignored]) -> String {
    if ignored.is_empty() {
        "the set is empty".to_owned()
    } else {
        ignored.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// A key of a JWK set that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Its `kid`, shortened and escaped for a log, where it has one.
    pub kid: Option<String>,
    /// Why it is not used.
    pub why: &'static str,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "key {kid}: {}", self.why),
            None => write!(f, "a key without kid: {}", self.why),
        }
    }
}

/// The keys of one issuer, each bound to one algorithm.
#[derive(Clone, Debug)]
pub struct IssuerKeys {
    named: HashMap<Box<str>, VerifyingKey>,
    /// A single key without a name: then there are no others.
    unnamed: Option<VerifyingKey>,
    ignored: Vec<Ignored>,
}

impl IssuerKeys {
    /// The keys of our own key ring.
    pub fn own(keyring: &Keyring) -> Self {
        let named = keyring.signing_keys().map(|k| (k.kid().into(), k.verifying_key().clone())).collect();
        Self { named, unnamed: None, ignored: Vec::new() }
    }

    /// The usable keys of a JWK set (RFC 7517 §5): RSA, EC and OKP keys for signatures, whose `alg` is given there or as
    /// `algorithm`. Where both are, they must agree. The others are counted in [`IssuerKeys::ignored`].
    ///
    /// # Errors
    /// Not a JWK set, nothing usable in it, or keys that cannot be told apart by `kid`.
    pub fn from_jwks(text: &[u8], algorithm: Option<Algorithm>) -> Result<Self, RulesError> {
        if text.len() > MAX_JWKS {
            return Err(RulesError::NotJwks("too long"));
        }
        let mut set = strict_json::object(text).map_err(RulesError::NotJwks)?;
        let Some(Value::Array(entries)) = set.remove("keys") else {
            return Err(RulesError::NotJwks("keys must be an array"));
        };
        let mut ignored = Vec::new();
        let mut usable = Vec::new();
        for entry in entries {
            // Escaped and shortened: it comes from outside and goes into a log.
            let kid = entry.get("kid").and_then(Value::as_str);
            let kid = kid.map(|kid| kid.chars().take(64).flat_map(char::escape_default).collect());
            match usable_key(entry, algorithm) {
                Ok(key) => usable.push(key),
                Err(why) => ignored.push(Ignored { kid, why }),
            }
        }
        let mut named = HashMap::new();
        let mut unnamed = None;
        let alone = usable.len() == 1;
        for key in usable {
            match key.kid() {
                Some(kid) => {
                    let kid: Box<str> = kid.into();
                    if named.insert(kid.clone(), key).is_some() {
                        return Err(RulesError::Ambiguous(kid.into()));
                    }
                }
                None if alone => unnamed = Some(key),
                None => ignored.push(Ignored { kid: None, why: "there are others, and it has no kid" }),
            }
        }
        if named.is_empty() && unnamed.is_none() {
            return Err(RulesError::NoUsableKey(ignored));
        }
        Ok(Self { named, unnamed, ignored })
    }

    /// A single public key in PEM form, bound to `algorithm`. Because it has no name, a token's `kid` is not compared.
    ///
    /// # Errors
    /// Not a public key, or not one that is fit for `algorithm`. HMAC never is.
    pub fn from_public_pem(text: &[u8], algorithm: Algorithm) -> Result<Self, RulesError> {
        let key = VerifyingKey::from_public_pem(text, algorithm)?;
        Ok(Self { named: HashMap::new(), unnamed: Some(key), ignored: Vec::new() })
    }

    /// What was in the JWK set and is not used.
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.named.len() + usize::from(self.unnamed.is_some())
    }

    /// Are there none? Never, except in a set made of an empty key ring, which there is not.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Is this key among them, under whatever name?
    pub(super) fn holds(&self, key: &KeyPrint) -> bool {
        self.named.values().chain(&self.unnamed).any(|held| held.print() == *key)
    }

    /// Does it find the same key for every token?
    fn equals(&self, other: &Self) -> bool {
        let print = |key: &VerifyingKey| key.print();
        self.unnamed.as_ref().map(print) == other.unnamed.as_ref().map(print)
            && self.named.len() == other.named.len()
            && self.named.iter().all(|(kid, key)| other.named.get(kid).map(print) == Some(key.print()))
    }

    /// The key that a token's `kid` names, exactly; or the only key, when the token names none or the key has no name.
    pub(super) fn find(&self, kid: Option<&str>) -> Option<&VerifyingKey> {
        match (kid, &self.unnamed) {
            (_, Some(only)) => Some(only),
            (Some(kid), None) => self.named.get(kid),
            (None, None) if self.named.len() == 1 => self.named.values().next(),
            (None, None) => None,
        }
    }
}

/// The key in one entry of a JWK set.
fn usable_key(entry: Value, configured: Option<Algorithm>) -> Result<VerifyingKey, &'static str> {
    // The library reads an unknown `alg` as unknown, but an `alg` that is no string as no key at all; both are refused.
    let jwk: Jwk = serde_json::from_value(entry).map_err(|_| "malformed")?;
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) | AlgorithmParameters::EllipticCurve(_) | AlgorithmParameters::OctetKeyPair(_) => {}
        AlgorithmParameters::OctetKey(_) => return Err("a secret (kty oct) in a set of public keys"),
        _ => return Err("of an unknown kind, or malformed"),
    }
    match &jwk.common.public_key_use {
        None | Some(PublicKeyUse::Signature) => {}
        Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)) => return Err("not for signatures (use)"),
    }
    if jwk.common.key_operations.as_ref().is_some_and(|ops| !ops.contains(&KeyOperations::Verify)) {
        return Err("not for verifying (key_ops)");
    }
    let given = jwk.common.key_algorithm.map(algorithm_of).transpose()?;
    let algorithm = match (given, configured) {
        (Some(given), Some(configured)) if given != configured => return Err("of another algorithm than configured"),
        (Some(algorithm), _) | (None, Some(algorithm)) => algorithm,
        (None, None) => return Err("has no alg, and none is configured"),
    };
    VerifyingKey::from_jwk(&jwk, algorithm).map_err(|e| match e {
        KeyError::Unusable { why, .. } => why,
        KeyError::PublicAsSecret(_) => "a public key is never an HMAC secret",
        KeyError::BadKid => "its kid is not 1 to 128 visible ASCII characters",
        KeyError::Algorithm(_)
        | KeyError::ShortSecret { .. }
        | KeyError::BadSet(_)
        | KeyError::Random
        | KeyError::Io { .. }
        | KeyError::Refused(_)
        | KeyError::File { .. } => "not usable",
    })
}

fn algorithm_of(name: KeyAlgorithm) -> Result<Algorithm, &'static str> {
    name.to_string().parse().map_err(|_| "of an algorithm that we do not verify")
}

/// The most that an issuer's tokens may carry here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedScopes {
    /// Whatever the issuer says.
    Any,
    /// What it says of these.
    Only(Scope),
}

impl AllowedScopes {
    /// What is left of a token's scope.
    fn of(&self, scope: Scope) -> Scope {
        match self {
            Self::Any => scope,
            Self::Only(allowed) => scope.intersection(allowed),
        }
    }
}

/// The name of our own issuer on routes.
pub const OWN: &str = "self";
/// The longest that stands in front of an issuer's subjects, in bytes.
const MAX_PREFIX: usize = 64;

/// What is expected of one issuer's tokens.
#[derive(Clone, Debug)]
pub struct IssuerRules {
    /// `iss`, compared byte for byte.
    pub issuer: Arc<str>,
    /// Its short name, by which routes take its tokens; [`OWN`] for ours, and for nobody else.
    pub name: Arc<str>,
    /// The most that its tokens may carry here: what is left of their `scope` is all that anybody sees.
    pub scopes: AllowedScopes,
    /// Are its tokens taken on routes that name no issuers?
    pub everywhere: bool,
    /// Where its tokens say the roles of their subject: those of all paths together. Of our own tokens, the claim `roles`.
    pub role_claims: Arc<[ClaimPath]>,
    /// What stands in front of its subjects, so that they are nobody else's. Revocations name them without.
    pub subject_prefix: Box<str>,
    /// Are they ours? Then they are judged on engine time, and say more: see [`AccessToken`](crate::token::AccessToken).
    pub ours: bool,
    /// Whom the issuer's tokens must be meant for, unless a route says otherwise. The route judges it.
    pub audience: Arc<[Box<str>]>,
    /// The types accepted: compared without regard to case, and to a leading `application/`. An empty entry stands for
    /// tokens that have no `typ`.
    pub typ: Vec<Box<str>>,
    /// The keys that verify them.
    pub keys: IssuerKeys,
    /// How much the issuer's clock may differ from ours: at most 30 s. Our own clock does not differ from itself: our own
    /// tokens end with their `exp`, and the leeway is for their `nbf` and `iat` alone.
    pub leeway: Duration,
    /// The longest time from `iat` to `exp` that is accepted; with it, `iat` is required.
    pub max_lifetime: Option<Duration>,
}

impl IssuerRules {
    /// The rules for our own tokens.
    pub fn own(issuer: impl Into<Arc<str>>, audience: Vec<Box<str>>, keyring: &Keyring, leeway: Duration) -> Self {
        Self {
            issuer: issuer.into(),
            name: OWN.into(),
            scopes: AllowedScopes::Any,
            everywhere: true,
            role_claims: ClaimPath::parse(ROLES).into_iter().collect(),
            subject_prefix: "".into(),
            ours: true,
            audience: audience.into(),
            typ: vec![TYP.into()],
            keys: IssuerKeys::own(keyring),
            leeway,
            max_lifetime: None,
        }
    }

    /// The rules for the tokens of another issuer: `at+jwt` only (see [`Self::typ`]), 30 s leeway, any lifetime; no scope,
    /// and taken on the routes alone that name it. Its name is the host of its URL.
    pub fn external(issuer: impl Into<Arc<str>>, audience: Vec<Box<str>>, keys: IssuerKeys) -> Self {
        let issuer = issuer.into();
        Self {
            name: host_of(&issuer).into(),
            issuer,
            scopes: AllowedScopes::Only(Scope::default()),
            everywhere: false,
            role_claims: Arc::default(),
            subject_prefix: "".into(),
            ours: false,
            audience: audience.into(),
            typ: vec![TYP.into()],
            keys,
            leeway: MAX_LEEWAY,
            max_lifetime: None,
        }
    }

    /// How long after its `exp` a token is taken.
    pub(super) fn leeway_of_expiry(&self) -> Duration {
        if self.ours { Duration::ZERO } else { self.leeway }
    }

    /// Takes tokens of these types in the place of `at+jwt`. Many issuers put `JWT` into access tokens (Keycloak, Entra,
    /// Auth0's default profile), some put none (Cognito): that is `""` here. Where such an issuer signs ID tokens with the
    /// same keys, its audience alone keeps them out.
    #[must_use]
    pub fn typ(mut self, types: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.typ = types.into_iter().map(Into::into).collect();
        self
    }

    /// Reads the roles of a token's subject from these claims, all of them together: `["realm_access.roles"]`. Without it, the
    /// tokens of another issuer have no roles.
    ///
    /// # Errors
    /// A path that cannot be parsed: see [`ClaimPath`].
    pub fn roles<'a>(mut self, paths: impl IntoIterator<Item = &'a str>) -> Result<Self, ClaimError> {
        self.role_claims = paths.into_iter().map(ClaimPath::parse).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Does it judge every token as another does?
    pub(super) fn equals(&self, other: &Self) -> bool {
        let Self {
            issuer,
            name,
            scopes,
            everywhere,
            role_claims,
            subject_prefix,
            ours,
            audience,
            typ,
            keys,
            leeway,
            max_lifetime,
        } = self;
        (issuer, ours, audience, typ, leeway, max_lifetime)
            == (&other.issuer, &other.ours, &other.audience, &other.typ, &other.leeway, &other.max_lifetime)
            && (name, scopes, everywhere, role_claims, subject_prefix)
                == (&other.name, &other.scopes, &other.everywhere, &other.role_claims, &other.subject_prefix)
            && keys.equals(&other.keys)
    }

    /// By this name.
    #[must_use]
    pub fn named(self, name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Its tokens may carry these scopes.
    #[must_use]
    pub fn scopes(self, scopes: AllowedScopes) -> Self {
        Self { scopes, ..self }
    }

    /// Its tokens are taken on routes that name no issuers, too.
    #[must_use]
    pub fn everywhere(self) -> Self {
        Self { everywhere: true, ..self }
    }

    pub(super) fn granted(&self, scope: Scope) -> Scope {
        self.scopes.of(scope)
    }

    pub(super) fn accepts_typ(&self, typ: Option<&str>) -> bool {
        match typ {
            None => self.typ.iter().any(|t| t.is_empty()),
            Some("") => false,
            Some(typ) => self.typ.iter().any(|t| media_subtype(t).eq_ignore_ascii_case(media_subtype(typ))),
        }
    }
}

/// The host of an issuer's URL; all of what is no URL.
pub fn host_of(issuer: &str) -> &str {
    let rest = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let end = if authority.starts_with('[') { authority.find(']').map(|at| at + 1) } else { authority.find(':') };
    end.and_then(|end| authority.get(..end)).unwrap_or(authority)
}

/// A `typ` without its `application/`, which may be left out (RFC 7515 §4.1.9).
fn media_subtype(typ: &str) -> &str {
    const PREFIX: &str = "application/";
    match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) && !rest.is_empty() && !rest.contains('/') => rest,
        _ => typ,
    }
}

pub(super) fn check(issuers: &[IssuerRules]) -> Result<(), RulesError> {
    let mut ours = 0;
    for (i, rules) in issuers.iter().enumerate() {
        let refuse = |why| Err(RulesError::Rule { issuer: rules.issuer.to_string(), why });
        ours += usize::from(rules.ours);
        if ours > 1 || issuers.iter().take(i).any(|other| other.issuer == rules.issuer) {
            return Err(RulesError::Twice(rules.issuer.to_string()));
        }
        if rules.issuer.is_empty() {
            return refuse("an issuer has a name");
        }
        if rules.name.is_empty() || (&*rules.name == OWN) != rules.ours {
            return refuse("an issuer has a name of its own, and \"self\" is ours");
        }
        if issuers.iter().take(i).any(|other| other.name == rules.name) {
            return refuse("another issuer has the same name");
        }
        let prefix = &rules.subject_prefix;
        if prefix.len() > MAX_PREFIX || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse("subject_prefix must be at most 64 visible ASCII characters");
        }
        if rules.typ.is_empty() {
            return refuse("typ must list at least one type");
        }
        if rules.leeway > MAX_LEEWAY {
            return refuse("leeway must be at most 30s");
        }
        if rules.keys.is_empty() {
            return refuse("there is no key");
        }
    }
    Ok(())
}
