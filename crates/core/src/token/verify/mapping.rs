//! The mapping from an issuer's claims to the gate's values.
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

use super::names::{is_name, is_subject};
use crate::bounds::MAX_LIST;
use crate::claim::Role;
use crate::claim::{ClaimPath, OwnClaims};
use crate::denial::Denial;
use crate::session::Scope;
use crate::strict_json::{Member, Members};

/// The claim that names the claims left out of the token (OpenID Connect Core §5.6.2).
const LEFT_OUT: &str = "_claim_names";
/// The claim with which Entra marks omitted groups.
const HAS_GROUPS: (&str, &str) = ("groups", "hasgroups");

/// How the gate reads the claims of an issuer's tokens. By default, claims are read as in RFC 9068, without roles or
/// account.
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
    /// The claims to read scopes from. Uses the first claim in the token: a space-separated string or an array.
    pub scope: Vec<ClaimPath>,
    /// The translation from the issuer's scopes to the gate's. Unlisted scopes keep their name.
    pub scope_map: Vec<(Box<str>, Scope)>,
    /// The claims to read the client from. The gate uses the first claim in the token.
    pub client: Vec<ClaimPath>,
    /// The claims to read roles from. All claims are used. Each claim is a string or an array of strings.
    pub roles: Vec<ClaimPath>,
    /// The claims to read the account from. The gate uses the first claim in the token, and prefixes its value with the
    /// issuer's name and a colon. If the list is empty, the tokens have no account.
    pub account: Vec<ClaimPath>,
    /// The claims to read the subject from. The gate uses the first claim in the token.
    pub subject: Vec<ClaimPath>,
    /// Whether subjects may contain spaces and non-ASCII characters, which are percent-encoded like `%`: `Zoë` becomes
    /// `Zo%C3%AB`.
    pub encodes_subject: bool,
    /// The claim to read the audience from, or `None` for `aud`.
    pub audience: Option<ClaimPath>,
    /// Claims that the issuer's tokens must have or must not have.
    #[doc(hidden)]
    pub require: Vec<RequiredClaim>,
}

/// A claim that tokens must have or must not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredClaim {
    /// The claim.
    pub path: ClaimPath,
    /// What the claim must satisfy.
    pub wanted: WantedClaim,
}

/// A requirement on a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WantedClaim {
    /// The claim must equal one of these strings, numbers or booleans.
    OneOf(Vec<Value>),
    /// The claim must be present, with any value.
    Present,
    /// The claim must be absent.
    Absent,
}

impl WantedClaim {
    /// Returns whether the operator must still configure the accepted values.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RefusedClaim<'r> {
    pub(super) denial: Denial,
    pub(super) claim: Option<(&'r ClaimPath, u8)>,
}

impl From<Denial> for RefusedClaim<'_> {
    fn from(denial: Denial) -> Self {
        Self { denial, claim: None }
    }
}

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

    /// The names of the roles.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Returns whether the issuer left roles out of the token because there are too many.
    pub const fn are_left_out(&self) -> bool {
        self.are_left_out
    }

    /// Checks that the token has one of these roles.
    ///
    /// # Errors
    /// [`Denial::MissingRole`]. [`Denial::RolesOverage`] if the missing role may have been left out.
    pub(crate) fn judge<'a>(&self, asked: impl IntoIterator<Item = &'a Role>) -> Result<(), Denial> {
        match self.are_left_out {
            _ if asked.into_iter().any(|role| self.contains(&role.name)) => Ok(()),
            true => Err(Denial::RolesOverage),
            false => Err(Denial::MissingRole),
        }
    }
}

impl ClaimMapping {
    /// Requires that a claim has one of these values. Earlier requirements on the claim are replaced. Setting one of a
    /// preset's open claims removes the others.
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

    pub(super) fn own() -> Self {
        Self { roles: ClaimPath::parse(OwnClaims::ROLES).into_iter().collect(), ..Self::default() }
    }

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

    pub(crate) fn has_sub_as_subject(&self) -> bool {
        matches!(self.subject.as_slice(), [only] if only.is_claim("sub"))
    }

    /// The subject claim. With `or_client`, the client replaces the missing subject of an introspected token.
    pub(super) fn subject_of<'c>(&self, claims: &'c Members<'_>, or_client: bool) -> Result<&'c str, RefusedClaim<'_>> {
        let found = match text(claims, &self.subject, ClaimKind::Subject)? {
            None if or_client => text(claims, &self.client, ClaimKind::Client)?,
            found => found,
        };
        let (path, subject) = found.ok_or(RefusedClaim::from(Denial::BadClaim("no sub")))?;
        let is_good = if self.encodes_subject { is_name(subject) } else { is_subject(subject) };
        if is_good { Ok(subject) } else { Err(ClaimKind::Subject.refuse(path)) }
    }

    pub(super) fn client_of<'c>(&self, claims: &'c Members<'_>) -> Result<Option<&'c str>, RefusedClaim<'_>> {
        name(claims, &self.client, ClaimKind::Client)
    }

    /// The account, without the issuer's prefix.
    pub(super) fn account_of<'c>(&self, claims: &'c Members<'_>) -> Result<Option<&'c str>, RefusedClaim<'_>> {
        name(claims, &self.account, ClaimKind::Account)
    }

    pub(super) fn audience_of<'c>(&self, claims: &'c Members<'_>) -> Option<Result<&'c str, RefusedClaim<'_>>> {
        let path = self.audience.as_ref()?;
        let found = claims.at(path).ok().flatten().and_then(Member::as_text).filter(|text| !text.is_empty());
        Some(found.ok_or_else(|| ClaimKind::Audience.refuse(path)))
    }

    /// The scope, as named by the issuer. In the gate's own tokens, the claim is a string.
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
        // An element that contains a space would become several scopes.
        if listed.iter().any(|one| one.is_empty() || one.contains(' ')) {
            return Err(refuse());
        }
        Scope::parse(&listed.join(" ")).map_err(|_| refuse())
    }

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

    /// The roles. In the gate's own tokens, a claim of the wrong type is ignored.
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

    pub(crate) fn has_scope_in(&self, claim: &str) -> bool {
        self.scope.iter().any(|path| path.segments().len() == 1 && path.segments().next() == Some(claim))
    }
}

fn is_left_out(claims: &Members<'_>, path: &ClaimPath) -> bool {
    let Some(name) = path.segments().next() else { return false };
    let is_named = match claims.get(LEFT_OUT) {
        Some(Member::Object(left_out)) => left_out.get(name).is_some(),
        _ => false,
    };
    is_named || (name == HAS_GROUPS.0 && claims.get(HAS_GROUPS.1) == Some(&Member::Bool(true)))
}

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

/// Returns the first of these claims that the token has. The claim must be a string.
fn text<'r, 'c>(
    claims: &'c Members<'_>,
    paths: &'r [ClaimPath],
    kind: ClaimKind,
) -> Result<Option<(&'r ClaimPath, &'c str)>, RefusedClaim<'r>> {
    let Some((path, member)) = first(claims, paths, kind)? else { return Ok(None) };
    member.as_text().map(|text| Some((path, text))).ok_or(kind.refuse(path))
}

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
