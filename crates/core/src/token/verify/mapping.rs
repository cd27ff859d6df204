//! Maps the claims of an issuer's tokens. The claims are read once, when a token is verified.
//!
//! ```
//! use rotogate::claim::ClaimPath;
//! use rotogate::token::ClaimMapping;
//!
//! let mapping = ClaimMapping {
//!     roles: ClaimPath::list(["realm_access.roles", "groups"])?,
//!     client: ClaimPath::list(["azp"])?,
//!     ..ClaimMapping::default()
//! };
//! # let _ = mapping;
//! # Ok::<(), rotogate::InvalidValue>(())
//! ```

use serde_json::Value;

use super::judge::{is_name, is_subject};
use crate::bounds::MAX_LIST;
use crate::claim::{ClaimPath, OwnClaims};
use crate::denial::Denial;
use crate::route::Role;
use crate::session::Scope;
use crate::strict_json::{Member, Members};

/// The claim that states which claims a provider left out of the token (OpenID Connect Core §5.6.2).
const LEFT_OUT: &str = "_claim_names";
/// The claim by which Entra states that it left groups out of a token in the implicit flow.
const HAS_GROUPS: (&str, &str) = ("groups", "hasgroups");

/// The claims of an issuer's tokens that the gate reads, and their meaning. The default is the meaning in RFC 9068:
/// `scope`, `client_id`, `sub` and `aud`, without roles and without an account.
///
/// ```
/// use rotogate::claim::ClaimPath;
/// use rotogate::token::ClaimMapping;
///
/// let claims = ClaimMapping { roles: vec![ClaimPath::parse("realm_access.roles")?], ..ClaimMapping::default() };
/// # let _ = claims;
/// # Ok::<(), rotogate::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimMapping {
    /// The claims for the scopes. The first one that the token has is used. It is a string with spaces between the
    /// scopes, or an array.
    pub scope: Vec<ClaimPath>,
    /// The meaning of the issuer's scopes at this gate. A scope that is not listed keeps its name.
    pub scope_map: Vec<(Box<str>, Scope)>,
    /// The claims for the client. The first one that the token has is used. It is a string.
    pub client: Vec<ClaimPath>,
    /// The claims for the roles. All of them are used together. Each is a string, which is one role, or an array of
    /// strings.
    pub roles: Vec<ClaimPath>,
    /// The claims for the account. The first one that the token has is used. It is a string, which the gate precedes
    /// with the issuer's name and a colon. If the list is empty, tokens of another issuer have no account.
    pub account: Vec<ClaimPath>,
    /// The claims for the subject. The first one that the token has is used. It is a string.
    pub subject: Vec<ClaimPath>,
    /// Whether subjects may be any string without control characters. `%` and everything but visible ASCII is then
    /// percent-encoded as UTF-8, so `Zoë` becomes `Zo%C3%AB`. By default, a subject that is not visible ASCII is
    /// refused.
    pub encodes_subject: bool,
    /// The claim for the audience, which is a string. `None` means `aud`.
    pub audience: Option<ClaimPath>,
    /// Claims that the issuer's tokens must have, or must not have.
    #[doc(hidden)]
    pub require: Vec<RequiredClaim>,
}

/// A claim that tokens must have or must not have. It distinguishes an issuer's access tokens from the issuer's other
/// tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredClaim {
    /// The claim.
    pub path: ClaimPath,
    /// The requirement on the claim.
    pub wanted: WantedClaim,
}

/// A requirement on a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WantedClaim {
    /// The claim must have exactly one of these values, which are strings, numbers or booleans.
    OneOf(Vec<Value>),
    /// The token must have the claim, with any value.
    Present,
    /// The token must not have the claim.
    Absent,
}

impl WantedClaim {
    /// Returns whether the operator must still state the accepted values of the claim.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::OneOf(values) if values.is_empty())
    }
}

impl Default for ClaimMapping {
    fn default() -> Self {
        let one = |name| ClaimPath::parse(name).into_iter().collect();
        Self {
            scope: one("scope"),
            scope_map: Vec::new(),
            client: one("client_id"),
            roles: Vec::new(),
            account: Vec::new(),
            subject: one("sub"),
            encodes_subject: false,
            audience: None,
            require: Vec::new(),
        }
    }
}

/// The mapped claim for which a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RefusedClaim<'r> {
    pub(super) denial: Denial,
    /// The claim, if it is named in the mapping, and the index of its kind.
    pub(super) claim: Option<(&'r ClaimPath, u8)>,
}

impl From<Denial> for RefusedClaim<'_> {
    fn from(denial: Denial) -> Self {
        Self { denial, claim: None }
    }
}

/// The kinds of mapped claims, each with a message for refused claims.
#[derive(Clone, Copy)]
enum ClaimKind {
    Scope,
    Client,
    Roles,
    Account,
    Subject,
    Audience,
    Required,
}

impl ClaimKind {
    const fn refuse(self, claim: &ClaimPath) -> RefusedClaim<'_> {
        let why = match self {
            Self::Scope => "the claim for `scope` must be a string of scopes, or an array of at most 256 scopes",
            Self::Client => "the claim for `client` must be a string of 1 to 256 bytes without control characters",
            Self::Roles => {
                "the claim for `roles` must be a string or an array of at most 256 strings, of 1 to 256 bytes each"
            }
            Self::Account => "the claim for `account` must be a string of 1 to 256 bytes without control characters",
            Self::Subject => "the claim for `subject` must be a string of 1 to 256 visible ASCII characters",
            Self::Audience => "the claim for the audience must be a string",
            Self::Required => "a claim that `require` or the preset asks for is missing, or has another value",
        };
        RefusedClaim { denial: Denial::BadClaim(why), claim: Some((claim, self as u8)) }
    }
}

/// The roles of a token.
///
/// ```
/// use rotogate::Identity;
///
/// fn may_close(caller: &Identity) -> bool {
///     caller.roles().contains("boss")
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    names: Box<[Box<str>]>,
    are_left_out: bool,
}

impl Roles {
    /// Returns whether the token has this role.
    pub fn contains(&self, role: &str) -> bool {
        self.names.iter().any(|name| **name == *role)
    }

    /// The roles that the token names.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Returns whether the issuer left roles out because there are too many. The subject then has more roles than
    /// [`Self::names`].
    pub const fn are_left_out(&self) -> bool {
        self.are_left_out
    }

    /// Checks that the token has one of these roles. If the issuer left roles out, a missing role may be among those.
    ///
    /// # Errors
    /// [`Denial::MissingRole`], [`Denial::RolesOverage`].
    pub(crate) fn judge<'a>(&self, asked: impl IntoIterator<Item = &'a Role>) -> Result<(), Denial> {
        match self.are_left_out {
            _ if asked.into_iter().any(|role| self.contains(&role.name)) => Ok(()),
            true => Err(Denial::RolesOverage),
            false => Err(Denial::MissingRole),
        }
    }
}

impl ClaimMapping {
    /// Requires that a claim has exactly one of these values: strings, numbers or booleans. This replaces earlier
    /// requirements for the claim. If a preset leaves the values of several claims open, it is enough to state the
    /// values of one of them.
    pub fn require(&mut self, path: ClaimPath, values: Vec<Value>) {
        let wanted = WantedClaim::OneOf(values);
        match self.require.iter_mut().find(|known| known.path == path) {
            Some(known) => {
                let was_open = std::mem::replace(&mut known.wanted, wanted).is_open();
                self.require.retain(|known| !(was_open && known.wanted.is_open()));
            }
            None => self.require.push(RequiredClaim { path, wanted }),
        }
    }

    /// The mapping for the gate's own tokens.
    pub(super) fn own() -> Self {
        Self { roles: ClaimPath::parse(OwnClaims::ROLES).into_iter().collect(), ..Self::default() }
    }

    /// Describes what is wrong with an invalid mapping.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let texts = [&self.client, &self.account, &self.subject].into_iter().flatten().chain(&self.audience);
        let required = self.require.iter().map(|required| &required.path);
        if texts.chain(required).any(ClaimPath::is_of_names) {
            return Some("only the claims for `scope` and `roles` may end with {}, which means several names");
        }
        if self.subject.is_empty() {
            return Some("`subject` must list at least one claim");
        }
        let is_scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
        let is_possible = |required: &RequiredClaim| match &required.wanted {
            WantedClaim::OneOf(values) => !values.is_empty() && values.iter().all(is_scalar),
            WantedClaim::Present | WantedClaim::Absent => true,
        };
        if !self.require.iter().all(is_possible) {
            return Some(
                "a required claim must have at least one value, and each value must be a string, a number or a \
                 boolean; if a preset requires a claim without values, name the values",
            );
        }
        None
    }

    /// Checks the requirements on claims.
    pub(super) fn judge_required(&self, claims: &Members<'_>) -> Result<(), RefusedClaim<'_>> {
        for RequiredClaim { path, wanted } in &self.require {
            let found = claims.at(path).map_err(|_| ClaimKind::Required.refuse(path))?;
            let holds = match wanted {
                WantedClaim::OneOf(values) => found.is_some_and(|found| values.iter().any(|value| found.is(value))),
                WantedClaim::Present => found.is_some(),
                WantedClaim::Absent => found.is_none(),
            };
            if !holds {
                return Err(ClaimKind::Required.refuse(path));
            }
        }
        Ok(())
    }

    /// Returns whether `sub` is the only claim that may contain the subject.
    pub(crate) fn has_sub_as_subject(&self) -> bool {
        matches!(self.subject.as_slice(), [only] if only.is_claim("sub"))
    }

    /// The subject as it is in the token. In an introspection response, a token that a client got for itself may have
    /// no subject. If `or_client` is set, the client is used as the subject of such a token.
    pub(super) fn subject_of<'c>(&self, claims: &'c Members<'_>, or_client: bool) -> Result<&'c str, RefusedClaim<'_>> {
        let found = match text(claims, &self.subject, ClaimKind::Subject)? {
            None if or_client => text(claims, &self.client, ClaimKind::Client)?,
            found => found,
        };
        let (path, subject) = found.ok_or(RefusedClaim::from(Denial::BadClaim("no sub")))?;
        let is_good = if self.encodes_subject { is_name(subject) } else { is_subject(subject) };
        if is_good { Ok(subject) } else { Err(ClaimKind::Subject.refuse(path)) }
    }

    /// The client.
    pub(super) fn client_of<'c>(&self, claims: &'c Members<'_>) -> Result<Option<&'c str>, RefusedClaim<'_>> {
        name(claims, &self.client, ClaimKind::Client)
    }

    /// The account.
    pub(super) fn account_of<'c>(&self, claims: &'c Members<'_>) -> Result<Option<&'c str>, RefusedClaim<'_>> {
        name(claims, &self.account, ClaimKind::Account)
    }

    /// The audience, if the mapping reads it from a claim other than `aud`.
    pub(super) fn audience_of<'c>(&self, claims: &'c Members<'_>) -> Option<Result<&'c str, RefusedClaim<'_>>> {
        let path = self.audience.as_ref()?;
        let found = claims.at(path).ok().flatten().and_then(Member::as_text).filter(|text| !text.is_empty());
        Some(found.ok_or_else(|| ClaimKind::Audience.refuse(path)))
    }

    /// The scope, with the issuer's names. In the gate's own tokens the scope is a string.
    pub(super) fn scope_of(&self, claims: &Members<'_>, ours: bool) -> Result<Scope, RefusedClaim<'_>> {
        let Some((path, member)) = first(claims, &self.scope, ClaimKind::Scope)? else { return Ok(Scope::default()) };
        let refuse = || ClaimKind::Scope.refuse(path);
        let listed: Vec<&str> = match member {
            Member::Text(text) if !path.is_of_names() => return Scope::parse(text).map_err(|_| refuse()),
            Member::Array(list) if !path.is_of_names() && !ours && list.len() <= MAX_LIST => {
                list.iter().map(|one| one.as_text().ok_or_else(refuse)).collect::<Result<_, _>>()?
            }
            Member::Object(members) if path.is_of_names() && members.names().len() <= MAX_LIST => {
                members.names().collect()
            }
            _ => return Err(refuse()),
        };
        // Each element of a list must be a single scope.
        if listed.iter().any(|one| one.is_empty() || one.contains(' ')) {
            return Err(refuse());
        }
        Scope::parse(&listed.join(" ")).map_err(|_| refuse())
    }

    /// The scope, translated to the gate's names.
    pub(super) fn mapped(&self, scope: Scope) -> Scope {
        if self.scope_map.is_empty() {
            return scope;
        }
        let mut words = Vec::new();
        for word in scope.iter() {
            match self.scope_map.iter().find(|(theirs, _)| **theirs == *word) {
                Some((_, ours)) => words.extend(ours.iter()),
                None => words.push(word),
            }
        }
        Scope::from_tokens(words)
    }

    /// The roles. If the claim in one of the gate's own tokens has the wrong type, the token is not refused, but has no
    /// roles.
    pub(super) fn roles_of(&self, claims: &Members<'_>, ours: bool) -> Result<Roles, RefusedClaim<'_>> {
        let (mut names, mut are_left_out): (Vec<&str>, bool) = (Vec::new(), false);
        for path in &self.roles {
            let refuse = || ClaimKind::Roles.refuse(path);
            let Some(member) = claims.at(path).map_err(|_| refuse())? else {
                are_left_out |= is_left_out(claims, path);
                continue;
            };
            match member {
                Member::Text(role) if !path.is_of_names() => names.push(role),
                Member::Array(list) if !path.is_of_names() && ours => {
                    names.extend(list.iter().filter_map(Member::as_text));
                }
                Member::Array(list) if !path.is_of_names() && list.len() <= MAX_LIST => {
                    for role in list {
                        names.push(role.as_text().ok_or_else(refuse)?);
                    }
                }
                Member::Object(members) if path.is_of_names() && members.names().len() <= MAX_LIST => {
                    names.extend(members.names());
                }
                _ => {
                    if !ours {
                        return Err(refuse());
                    }
                }
            }
            if !ours && !names.iter().all(|role| is_name(role)) {
                return Err(refuse());
            }
            names.sort_unstable();
            names.dedup();
            if !ours && names.len() > MAX_LIST {
                return Err(refuse());
            }
        }
        Ok(Roles { names: names.into_iter().map(Box::from).collect(), are_left_out })
    }

    /// Returns whether the mapping reads the scope from this claim.
    pub(crate) fn has_scope_in(&self, claim: &str) -> bool {
        self.scope.iter().any(|path| path.segments().len() == 1 && path.segments().next() == Some(claim))
    }
}

/// Returns whether the issuer left this claim out of the token.
fn is_left_out(claims: &Members<'_>, path: &ClaimPath) -> bool {
    let Some(name) = path.segments().next() else { return false };
    let is_named = match claims.get(LEFT_OUT) {
        Some(Member::Object(left_out)) => left_out.get(name).is_some(),
        _ => false,
    };
    is_named || (name == HAS_GROUPS.0 && claims.get(HAS_GROUPS.1) == Some(&Member::Bool(true)))
}

/// The first of these claims that the token has.
fn first<'r, 'c, 'a>(
    claims: &'c Members<'a>,
    paths: &'r [ClaimPath],
    kind: ClaimKind,
) -> Result<Option<(&'r ClaimPath, &'c Member<'a>)>, RefusedClaim<'r>> {
    for path in paths {
        if let Some(member) = claims.at(path).map_err(|_| kind.refuse(path))? {
            return Ok(Some((path, member)));
        }
    }
    Ok(None)
}

/// The first of these claims that the token has, which must be a string. A claim of another type is an error, and is
/// not treated as absent.
fn text<'r, 'c>(
    claims: &'c Members<'_>,
    paths: &'r [ClaimPath],
    kind: ClaimKind,
) -> Result<Option<(&'r ClaimPath, &'c str)>, RefusedClaim<'r>> {
    let Some((path, member)) = first(claims, paths, kind)? else { return Ok(None) };
    member.as_text().map(|text| Some((path, text))).ok_or(kind.refuse(path))
}

/// The first of these claims that the token has, which must be a valid name.
fn name<'r, 'c>(
    claims: &'c Members<'_>,
    paths: &'r [ClaimPath],
    kind: ClaimKind,
) -> Result<Option<&'c str>, RefusedClaim<'r>> {
    match text(claims, paths, kind)? {
        Some((path, text)) if !is_name(text) => Err(kind.refuse(path)),
        found => Ok(found.map(|(_, text)| text)),
    }
}
