//! Validation rules for an issuer's tokens.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::assertion_grants::AssertionGrants;
use super::event::kind::{EventEffect, EventEffects, EventKind};
use super::keys::{Ignored, IssuerKeys, Keys, MAX_KEYS};
use super::mapping::ClaimMapping;
use super::sessions_seen::SessionsSeen;
use super::user_name::UserNameForm;
use crate::claim::ClaimPath;
use crate::introspection::Introspection;
use crate::invalid::InvalidValue;
use crate::session::Scope;
use crate::token::claims::{CLIENT_PREFIX, TokenIssuer};
use crate::token::keyring::Keyring;
use crate::token::keyring::error::KeyError;
use crate::token::typ::{TYP, is_assertion_typ};

const MAX_LEEWAY: Duration = Duration::from_secs(30);

/// Why rules are invalid.
///
/// ```
/// use rotogate::token::IssuerKeys;
/// use rotogate::token::RulesError;
///
/// let error = IssuerKeys::from_jwks(br#"{"keys":[]}"#, None).unwrap_err();
/// assert!(matches!(error, RulesError::NoUsableKey(_)));
/// assert_eq!(error.to_string(), "no usable key: the set is empty");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// An issuer is listed twice, or the gate has more than one own issuer.
    #[error("the issuer {0:?} is listed twice, or the gate has more than one issuer of its own")]
    Twice(String),
    /// A rule is out of bounds.
    #[error("the issuer {issuer:?}: {why}")]
    Rule {
        /// The issuer.
        issuer: String,
        /// The problem.
        why: &'static str,
    },
    /// The input is not a JWK set.
    #[error("not a JWK set: {0}")]
    NotJwks(&'static str),
    /// A JWK set has too many keys.
    #[error("{0} keys; at most {MAX_KEYS} are read")]
    TooManyKeys(usize),
    /// A JWK set has no usable key.
    #[error("no usable key: {0}")]
    NoUsableKey(String),
    /// The name of a key is repeated or missing.
    #[error("the keys are ambiguous: the `kid` {0:?} is repeated")]
    Ambiguous(String),
    /// A key is unusable.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl RulesError {
    pub(super) fn no_usable_key(ignored: &[Ignored]) -> Self {
        Self::NoUsableKey(if ignored.is_empty() {
            "the set is empty".to_owned()
        } else {
            ignored.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        })
    }
}

/// The name of the gate's own issuer in routes.
pub const OWN: &str = "self";
const MAX_PREFIX: usize = 64;

/// The rules for one issuer's tokens.
///
/// ```
/// use rotogate::token::{IssuerKeys, IssuerRules};
///
/// # let jwks = rotogate::token::Keyring::ephemeral()?.jwks().to_string();
/// # let keys = IssuerKeys::from_jwks(jwks.as_bytes(), None)?;
/// let rules = IssuerRules::external("https://login.partner.example", vec!["api".into()], keys)
///     .named("partner")
///     .typ(["JWT"])
///     .roles(["realm_access.roles"])?;
/// let builder = rotogate::Gate::builder().trusted_issuer(rules);
/// # let _ = builder;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IssuerRules {
    /// The issuer (`iss`), compared byte for byte.
    pub issuer: Arc<str>,
    /// The short name of the issuer in routes. Only the gate's own issuer is named `OWN`.
    pub name: Arc<str>,
    /// The allowed scopes, or `None` to allow all. Other scopes of a token are dropped.
    pub scopes: Option<Scope>,
    /// Whether the issuer's tokens are accepted on routes that do not name an issuer.
    pub everywhere: bool,
    /// The mapping of the issuer's claims.
    pub claims: Arc<ClaimMapping>,
    /// The prefix for the issuer's subjects, which separates them from other issuers' subjects. Revocations use
    /// subjects without the prefix.
    pub subject_prefix: Box<str>,
    /// Whether this is the gate's own issuer.
    pub ours: bool,
    /// The required audiences, unless a route configures others.
    pub audience: Arc<[Box<str>]>,
    /// The accepted values of `typ`. Case and the prefix `application/` are ignored. An empty string means no `typ`.
    pub typ: Vec<Box<str>>,
    /// The keys that verify the issuer's tokens.
    #[doc(hidden)]
    pub keys: Keys,
    /// The accepted clock difference, at most 30 s. It does not apply to `exp` of the gate's own tokens.
    pub leeway: Duration,
    /// The maximum time from `iat` to `exp`. If set, tokens need `iat`.
    pub max_lifetime: Option<Duration>,
    /// The claim with the session id. The issuer's logouts and events name the session by this id. If empty, tokens
    /// have no session.
    pub session_claim: Box<str>,
    /// The accepted kinds of assertions.
    #[doc(hidden)]
    pub grants: AssertionGrants,
    /// The effects of the issuer's security events.
    #[doc(hidden)]
    pub on_event: EventEffects,
    /// The accepted forms of user names other than `sub`.
    #[doc(hidden)]
    pub user_names: Vec<UserNameForm>,
    /// Whether browsers log in at the issuer.
    #[doc(hidden)]
    pub logs_in_browsers: bool,
    pub(crate) introspection: Option<Arc<Introspection>>,
    pub(super) sessions_seen: Arc<SessionsSeen>,
}

impl IssuerRules {
    pub(super) fn of_tokens(&self) -> Arc<TokenIssuer> {
        Arc::new(TokenIssuer {
            url: Arc::clone(&self.issuer),
            name: Arc::clone(&self.name),
            is_ours: self.ours,
            is_accepted_everywhere: self.everywhere,
            mapping: Arc::clone(&self.claims),
            subject_prefix: self.subject_prefix.len(),
            audience: Arc::clone(&self.audience),
            leeway: self.leeway,
        })
    }

    /// The rules for the gate's own tokens.
    pub fn own(issuer: impl Into<Arc<str>>, audience: Vec<Box<str>>, keyring: &Keyring, leeway: Duration) -> Self {
        Self {
            name: OWN.into(),
            scopes: None,
            everywhere: true,
            claims: Arc::new(ClaimMapping::own()),
            ours: true,
            leeway,
            ..Self::with_keys(issuer.into(), audience, Keys::Own(Arc::new(IssuerKeys::own(keyring))))
        }
    }

    /// The rules for another issuer's tokens. By default the type must be `at+jwt` (see [`Self::typ`]) and the leeway
    /// is 30 s. Tokens have no scopes or roles, and only routes that name the issuer accept them. The issuer's name is
    /// the host in its URL.
    pub fn external(issuer: impl Into<Arc<str>>, audience: Vec<Box<str>>, keys: IssuerKeys) -> Self {
        Self::with_keys(issuer.into(), audience, Keys::Live(keys.into()))
    }

    fn with_keys(issuer: Arc<str>, audience: Vec<Box<str>>, keys: Keys) -> Self {
        Self {
            name: host_of(&issuer).into(),
            issuer,
            scopes: Some(Scope::default()),
            everywhere: false,
            claims: Arc::default(),
            subject_prefix: "".into(),
            ours: false,
            audience: audience.into(),
            typ: vec![TYP.into()],
            keys,
            leeway: MAX_LEEWAY,
            max_lifetime: None,
            session_claim: "sid".into(),
            grants: AssertionGrants::default(),
            on_event: EventEffects::default(),
            user_names: Vec::new(),
            logs_in_browsers: false,
            introspection: None,
            sessions_seen: Arc::default(),
        }
    }

    pub(crate) fn is_always_introspected(&self) -> bool {
        self.introspection.as_ref().is_some_and(|introspection| introspection.always)
    }

    pub(crate) fn without_keys(&self) -> Self {
        Self { keys: Keys::none(), ..self.clone() }
    }

    pub(super) fn leeway_of_expiry(&self) -> Duration {
        if self.ours { Duration::ZERO } else { self.leeway }
    }

    /// Accepts these types instead of `at+jwt`. Many issuers write `JWT` (Keycloak, Entra, Auth0's default profile).
    /// For issuers without `typ` (Cognito), list `""`. With an empty `typ`, only the audience distinguishes access
    /// tokens from ID tokens.
    #[must_use]
    pub fn typ(mut self, types: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.typ = types.into_iter().map(Into::into).collect();
        self
    }

    /// Reads roles from all of these claims, for example `["realm_access.roles"]`. By default, tokens of other issuers
    /// have no roles.
    ///
    /// # Errors
    /// A path is invalid: see [`ClaimPath`].
    pub fn roles<'a>(mut self, paths: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidValue> {
        let roles = ClaimPath::list(paths)?;
        Arc::make_mut(&mut self.claims).roles = roles;
        Ok(self)
    }

    /// Requires that a claim has one of these strings, numbers or booleans.
    ///
    /// # Errors
    /// The path is invalid: see [`ClaimPath`].
    pub fn require(
        mut self,
        path: &str,
        values: impl IntoIterator<Item = impl Into<Value>>,
    ) -> Result<Self, InvalidValue> {
        let path = ClaimPath::parse(path)?;
        Arc::make_mut(&mut self.claims).require(path, values.into_iter().map(Into::into).collect());
        Ok(self)
    }

    /// Sets the claim mapping.
    #[must_use]
    pub fn claims(self, claims: ClaimMapping) -> Self {
        Self { claims: Arc::new(claims), ..self }
    }

    pub(crate) fn equals(&self, other: &Self) -> bool {
        let Self {
            issuer,
            name,
            scopes,
            everywhere,
            claims,
            subject_prefix,
            ours,
            audience,
            typ,
            keys,
            leeway,
            max_lifetime,
            session_claim,
            grants,
            on_event,
            user_names,
            logs_in_browsers,
            introspection,
            sessions_seen: _,
        } = self;
        let is_asked_alike = match (introspection, &other.introspection) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other) || own.equals(other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        (issuer, ours, audience, typ, leeway, max_lifetime)
            == (&other.issuer, &other.ours, &other.audience, &other.typ, &other.leeway, &other.max_lifetime)
            && (name, scopes, everywhere, claims, subject_prefix)
                == (&other.name, &other.scopes, &other.everywhere, &other.claims, &other.subject_prefix)
            && *session_claim == other.session_claim
            && *grants == other.grants
            && (on_event, user_names, logs_in_browsers) == (&other.on_event, &other.user_names, &other.logs_in_browsers)
            && keys.equal(&other.keys)
            && is_asked_alike
    }

    /// Sets the issuer's short name.
    #[must_use]
    pub fn named(self, name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), ..self }
    }

    fn allowed(&self, scope: Scope) -> Scope {
        match &self.scopes {
            Some(allowed) => scope.intersection(allowed),
            None => scope,
        }
    }

    /// Sets the allowed scopes. Pass a [`Scope`], or `None` to allow all.
    ///
    /// ```
    /// use rotogate::session::Scope;
    /// use rotogate::token::{IssuerKeys, IssuerRules};
    ///
    /// # fn example(keys: IssuerKeys) -> Result<IssuerRules, Box<dyn std::error::Error>> {
    /// let rules = IssuerRules::external("https://login.partner.example", vec!["api".into()], keys);
    /// // The scope `admin` in the partner's tokens has no effect here.
    /// Ok(rules.scopes(Scope::parse("orders.read")?))
    /// # }
    /// ```
    #[must_use]
    pub fn scopes(self, scopes: impl Into<Option<Scope>>) -> Self {
        Self { scopes: scopes.into(), ..self }
    }

    /// Accepts the issuer's tokens also on routes that do not name an issuer.
    #[must_use]
    pub fn everywhere(self) -> Self {
        Self { everywhere: true, ..self }
    }

    pub(super) fn granted(&self, scope: Scope) -> Scope {
        self.allowed(self.claims.mapped(scope))
    }

    pub(super) fn accepts_typ(&self, typ: Option<&str>) -> bool {
        match typ {
            // Assertions for upstreams must never be accepted as access tokens.
            Some(typ) if is_assertion_typ(media_subtype(typ)) => false,
            None => self.typ.iter().any(|t| t.is_empty()),
            Some("") => false,
            Some(typ) => self.typ.iter().any(|t| media_subtype(t).eq_ignore_ascii_case(media_subtype(typ))),
        }
    }
}

#[doc(hidden)]
impl IssuerRules {
    /// Creates rules without keys, for an issuer whose tokens are all introspected.
    pub fn introspected(issuer: impl Into<Arc<str>>, audience: Vec<Box<str>>, introspection: Introspection) -> Self {
        let rules = Self::external(issuer, audience, IssuerKeys::unknown());
        Self { keys: Keys::none(), ..rules.introspection(introspection) }
    }

    /// Sets the effect of one kind of security event.
    #[must_use]
    pub fn on_event(self, kind: EventKind, effect: EventEffect) -> Self {
        Self { on_event: self.on_event.on(kind, effect), ..self }
    }

    /// Introspects the issuer's opaque tokens. JWTs are still verified with keys.
    #[must_use]
    pub fn introspection(self, introspection: Introspection) -> Self {
        Self { introspection: Some(Arc::new(introspection)), ..self }
    }
}

/// The host in an issuer's URL, or the whole string if it is not a URL.
pub fn host_of(issuer: &str) -> &str {
    let rest = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let end = if authority.starts_with('[') { authority.find(']').map(|at| at + 1) } else { authority.find(':') };
    end.and_then(|end| authority.get(..end)).unwrap_or(authority)
}

/// `typ` without its optional `application/` (RFC 7515 §4.1.9).
pub(super) fn media_subtype(typ: &str) -> &str {
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
            return refuse("the URL of an issuer must not be empty");
        }
        if rules.issuer.contains('#') {
            return refuse("the URL of an issuer must not have a fragment (RFC 8414 §2)");
        }
        if rules.name.is_empty() || (&*rules.name == OWN) != rules.ours {
            return refuse("an issuer needs a name other than \"self\", which is the name of the gate itself");
        }
        if issuers.iter().take(i).any(|other| other.name == rules.name) {
            return refuse("another issuer has the same name");
        }
        let prefix = &rules.subject_prefix;
        if prefix.len() > MAX_PREFIX || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse("subject_prefix must have at most 64 visible ASCII characters");
        }
        let others = issuers.iter().filter(|other| other.issuer != rules.issuer);
        let prefixes = others.clone().map(|other| &*other.subject_prefix);
        if let Some(why) = prefix_problem(prefix, prefixes, others.count() == 0) {
            return refuse(why);
        }
        if let Some(why) = rules.claims.problem() {
            return refuse(why);
        }
        if rules.typ.is_empty() {
            return refuse("`typ` must list at least one type");
        }
        if rules.typ.iter().any(|typ| is_assertion_typ(media_subtype(typ))) {
            return refuse(
                "`typ` must not list `identity+jwt`, because such a token proves a caller's identity to services and \
                 is not an access token",
            );
        }
        if rules.leeway > MAX_LEEWAY {
            return refuse("`leeway` must be at most 30s");
        }
        if let Some(why) = rules.introspection.as_ref().and_then(|introspection| introspection.problem()) {
            return refuse(why);
        }
        if rules.keys.are_missing() && rules.introspection.is_none() {
            return refuse("the issuer has neither keys nor introspection");
        }
    }
    Ok(())
}

/// Describes what is wrong with a prefix, or returns `None`. `is_alone` is true if the gate has no users of its own and
/// no other issuer.
// Requirement I67.
pub fn prefix_problem<'a>(
    prefix: &str,
    mut others: impl Iterator<Item = &'a str>,
    is_alone: bool,
) -> Option<&'static str> {
    let meets = |other: &str| !other.is_empty() && (other.starts_with(prefix) || prefix.starts_with(other));
    if prefix.is_empty() {
        None
    } else if meets(CLIENT_PREFIX) {
        Some(
            "subject_prefix conflicts with client:, with which the subjects of clients begin; choose another prefix, \
             such as \"idp|\"",
        )
    } else if others.any(meets) {
        Some(
            "subject_prefix begins like that of another issuer, so two users could have the same subject; choose \
             prefixes of which none begins with another",
        )
    } else if !is_alone && !prefix.ends_with(|last: char| last.is_ascii_punctuation()) {
        Some(
            "subject_prefix ends without a separator, so two users could have the same subject; add a separator, as in \
             \"idp|\"",
        )
    } else {
        None
    }
}
