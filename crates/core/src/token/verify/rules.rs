//! The rules for each issuer's tokens.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::event::{EventEffect, EventEffects, EventKind};
use super::grant_assertion::AssertionGrants;
use super::keys::{Ignored, IssuerKeys, Keys, MAX_KEYS};
use super::mapping::ClaimMapping;
use super::preset::Preset;
use super::sessions_seen::SessionsSeen;
use super::sources::prefix_problem;
use super::user_name::UserNameForm;
use crate::claim::ClaimPath;
use crate::introspection::Introspection;
use crate::invalid::InvalidValue;
use crate::session::Scope;
use crate::token::assertion::is_assertion_typ;
use crate::token::claims::{TYP, TokenIssuer};
use crate::token::keyring::{KeyError, Keyring};

/// The largest permitted tolerance for the difference between an issuer's clock and ours.
const MAX_LEEWAY: Duration = Duration::from_secs(30);

/// The reason why rules are invalid.
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
    /// An issuer has two sets of rules, or there are two sets of rules for the gate's own issuer.
    #[error("the issuer {0:?} is listed twice, or there is more than one own issuer of the gate")]
    Twice(String),
    /// An issuer's rule is out of bounds.
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
    /// A published JWK set has more keys than the gate reads.
    #[error("{0} keys; at most {MAX_KEYS} are read")]
    TooManyKeys(usize),
    /// A JWK set has no usable key.
    #[error("no usable key: {0}")]
    NoUsableKey(String),
    /// Two keys have the same name, or one of several keys has no name.
    #[error("the keys are ambiguous: {0:?} is repeated")]
    Ambiguous(String),
    /// A single key is unusable.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl RulesError {
    /// The error for a set in which all keys are ignored.
    pub(super) fn no_usable_key(ignored: &[Ignored]) -> Self {
        Self::NoUsableKey(if ignored.is_empty() {
            "the set is empty".to_owned()
        } else {
            ignored.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        })
    }
}

/// The name by which routes refer to the gate's own issuer.
pub const OWN: &str = "self";
/// The maximum length of the prefix of an issuer's subjects, in bytes.
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
    /// `iss`, compared byte for byte.
    pub issuer: Arc<str>,
    /// The short name of the issuer, by which routes refer to it. Only the gate's own issuer is named `OWN`.
    pub name: Arc<str>,
    /// The scopes that the issuer's tokens may have at this gate, or `None` if any scope is allowed. Other scopes in a
    /// token's `scope` are dropped, so neither routes nor upstreams see them.
    pub scopes: Option<Scope>,
    /// Whether the issuer's tokens are accepted on routes that do not name an issuer.
    pub everywhere: bool,
    /// The mapping of the issuer's claims.
    pub claims: Arc<ClaimMapping>,
    /// The prefix of the issuer's subjects, which makes them distinct from other issuers' subjects. Revocations use
    /// subjects without this prefix.
    pub subject_prefix: Box<str>,
    /// Whether this is the gate's own issuer. The gate's own tokens are judged by engine time, and have more claims
    /// than those of other issuers.
    pub ours: bool,
    /// The audiences that the issuer's tokens need, unless a route states other audiences. The audience is checked
    /// together with the route's rules.
    pub audience: Arc<[Box<str>]>,
    /// The accepted values of `typ`, compared without regard to case and without a leading `application/`. An empty
    /// string means tokens without `typ`.
    pub typ: Vec<Box<str>>,
    /// The keys that verify the issuer's tokens.
    #[doc(hidden)]
    pub keys: Keys,
    /// The largest accepted difference between the issuer's clock and ours, at most 30 s. The gate's own tokens end at
    /// their `exp`, because for them the leeway applies only to `nbf` and `iat`.
    pub leeway: Duration,
    /// The maximum accepted time from `iat` to `exp`. If it is set, `iat` is required.
    pub max_lifetime: Option<Duration>,
    /// The claim that contains the id of the session at the issuer. The issuer's logouts and events name the session by
    /// this id. If this field is empty, the issuer's tokens have no session.
    pub session_claim: Box<str>,
    /// The kinds of the issuer's assertions that are accepted as grants.
    #[doc(hidden)]
    pub grants: AssertionGrants,
    /// The effects of the issuer's security events.
    #[doc(hidden)]
    pub on_event: EventEffects,
    /// The forms of names other than `sub` by which the issuer may name the gate's users. The directory must know these
    /// names.
    #[doc(hidden)]
    pub user_names: Vec<UserNameForm>,
    /// Whether browsers log in at the issuer.
    #[doc(hidden)]
    pub logs_in_browsers: bool,
    /// How the gate introspects the issuer's tokens, or `None` if it does not introspect them.
    pub(crate) introspection: Option<Arc<Introspection>>,
    /// The sessions that the issuer's tokens have named.
    pub(super) sessions_seen: Arc<SessionsSeen>,
}

impl IssuerRules {
    /// The properties that all tokens of the issuer share.
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

    /// The rules for the tokens of another issuer. By default, only the type `at+jwt` is accepted (see [`Self::typ`]),
    /// the leeway is 30 s, any lifetime is accepted, tokens have no scopes or roles, and only routes that name the
    /// issuer accept them. The issuer's name is the host of its URL.
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

    /// Returns whether the issuer's JWTs are also introspected.
    pub(crate) fn is_always_introspected(&self) -> bool {
        self.introspection.as_ref().is_some_and(|introspection| introspection.always)
    }

    /// The rules for introspected tokens, which need no keys.
    pub(crate) fn without_keys(&self) -> Self {
        Self { keys: Keys::none(), ..self.clone() }
    }

    /// How long a token is still accepted after its `exp`.
    pub(super) fn leeway_of_expiry(&self) -> Duration {
        if self.ours { Duration::ZERO } else { self.leeway }
    }

    /// Accepts tokens of these types instead of `at+jwt`. Many issuers write `JWT` into access tokens (Keycloak, Entra,
    /// Auth0's default profile). Others do not write a type (Cognito). For them, list `""`. If such an issuer signs ID
    /// tokens with the same keys, only the audience prevents ID tokens from being accepted.
    #[must_use]
    pub fn typ(mut self, types: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.typ = types.into_iter().map(Into::into).collect();
        self
    }

    /// Reads the roles of a token's subject from all of these claims together, for example `["realm_access.roles"]`. By
    /// default, another issuer's tokens have no roles.
    ///
    /// # Errors
    /// A path that cannot be parsed: see [`ClaimPath`].
    pub fn roles<'a>(mut self, paths: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidValue> {
        let roles = ClaimPath::list(paths)?;
        Arc::make_mut(&mut self.claims).roles = roles;
        Ok(self)
    }

    /// Takes the types, claims and maximum lifetime from a provider's preset. Call this function first, because later
    /// settings replace their part of the preset.
    ///
    /// ```
    /// # use rotogate::token::{IssuerKeys, IssuerRules, Preset};
    /// # fn example(keys: IssuerKeys) -> Result<(), Box<dyn std::error::Error>> {
    /// let url = "https://token.actions.githubusercontent.com";
    /// let rules = IssuerRules::external(url, vec!["https://github.com/acme".into()], keys)
    ///     .preset(Preset::GithubActions)
    ///     .require("repository_owner_id", ["4242"])?;
    /// # let _ = rules;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn preset(self, preset: Preset) -> Self {
        Self {
            typ: preset.typ().map(Into::into).collect(),
            max_lifetime: Some(preset.max_lifetime()),
            claims: Arc::new(preset.claims()),
            ..self
        }
    }

    /// Requires that a claim has exactly one of these values, which are strings, numbers or booleans.
    ///
    /// # Errors
    /// A path that cannot be parsed: see [`ClaimPath`].
    pub fn require(
        mut self,
        path: &str,
        values: impl IntoIterator<Item = impl Into<Value>>,
    ) -> Result<Self, InvalidValue> {
        let path = ClaimPath::parse(path)?;
        Arc::make_mut(&mut self.claims).require(path, values.into_iter().map(Into::into).collect());
        Ok(self)
    }

    /// Reads these claims instead of the claims of RFC 9068.
    #[must_use]
    pub fn claims(self, claims: ClaimMapping) -> Self {
        Self { claims: Arc::new(claims), ..self }
    }

    /// Returns whether both sets of rules make the same decision for every token.
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

    /// Reduces a token's scope to the scopes that these rules allow.
    fn allowed(&self, scope: Scope) -> Scope {
        match &self.scopes {
            Some(allowed) => scope.intersection(allowed),
            None => scope,
        }
    }

    /// Sets the scopes that the issuer's tokens may have. Pass a [`Scope`], or `None` for all scopes that the issuer
    /// grants.
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

    /// Also accepts the issuer's tokens on routes that do not name an issuer.
    #[must_use]
    pub fn everywhere(self) -> Self {
        Self { everywhere: true, ..self }
    }

    pub(super) fn granted(&self, scope: Scope) -> Scope {
        self.allowed(self.claims.mapped(scope))
    }

    pub(super) fn accepts_typ(&self, typ: Option<&str>) -> bool {
        match typ {
            // An assertion names a caller to one upstream. It must never be accepted as an access token, whatever the
            // rules for its issuer say.
            Some(typ) if is_assertion_typ(media_subtype(typ)) => false,
            None => self.typ.iter().any(|t| t.is_empty()),
            Some("") => false,
            Some(typ) => self.typ.iter().any(|t| media_subtype(t).eq_ignore_ascii_case(media_subtype(typ))),
        }
    }
}

/// Functions that are called only by our own crates. They are hidden on docs.rs.
#[doc(hidden)]
impl IssuerRules {
    /// Does the same as [`Self::external`] for an issuer without keys. The gate introspects each of the issuer's
    /// tokens.
    pub fn introspected(issuer: impl Into<Arc<str>>, audience: Vec<Box<str>>, introspection: Introspection) -> Self {
        let rules = Self::external(issuer, audience, IssuerKeys::unknown());
        Self { keys: Keys::none(), ..rules.introspection(introspection) }
    }

    /// Sets the effect of one kind of the issuer's security events.
    #[must_use]
    pub fn on_event(self, kind: EventKind, effect: EventEffect) -> Self {
        Self { on_event: self.on_event.on(kind, effect), ..self }
    }

    /// Introspects the issuer's tokens that are not JWTs. The issuer's JWTs are still verified with its keys.
    #[must_use]
    pub fn introspection(self, introspection: Introspection) -> Self {
        Self { introspection: Some(Arc::new(introspection)), ..self }
    }
}

/// The host in an issuer's URL, or the whole string if the string is not a URL.
pub fn host_of(issuer: &str) -> &str {
    let rest = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let end = if authority.starts_with('[') { authority.find(']').map(|at| at + 1) } else { authority.find(':') };
    end.and_then(|end| authority.get(..end)).unwrap_or(authority)
}

/// A `typ` without its optional `application/` (RFC 7515 §4.1.9).
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
