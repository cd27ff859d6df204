//! The configuration keys of `[[issuers]]` that select and map claims.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::super::print::{Print, Put, put};
use super::super::value;
use super::clients::united;
use rotogate_core::claim::ClaimPath;
use rotogate_core::session::Scope;
use rotogate_core::token::verify::{ClaimMapping, RequiredClaim, WantedClaim};
use rotogate_kit::config::{Section, Value as Raw};

/// A Supabase claim that users can set themselves.
const OF_THE_USER: &str = "user_metadata";

/// Reads the mapping. `base` contains the defaults for absent keys.
pub(super) fn read(section: &Section<'_>, base: ClaimMapping) -> ClaimMapping {
    let claims = section.section("claims");
    let paths = |key: &'static str, base: Vec<ClaimPath>| claims.one_or_list(key, path).unwrap_or(base);
    let texts = |key: &'static str, base: Vec<ClaimPath>| claims.one_or_list(key, text_path).unwrap_or(base);
    let mapping = ClaimMapping {
        scope: paths("scope", base.scope),
        client: texts("client", base.client),
        roles: paths("roles", base.roles),
        account: texts("account", base.account),
        subject: texts("subject", base.subject),
        encodes_subject: true,
        audience: base.audience,
        scope_map: scope_map(section, "scope_map").unwrap_or(base.scope_map),
        require: base.require,
    };
    let mapping = require(section, mapping);
    if claims.has("subject") && mapping.subject.is_empty() && !claims.is_bad() {
        claims.blame("subject", "is empty; expected at least one claim, such as \"sub\"");
    }
    for (key, paths) in [("roles", &mapping.roles), ("account", &mapping.account), ("scope", &mapping.scope)] {
        if claims.has(key) && paths.iter().any(|path| path.segments().next() == Some(OF_THE_USER)) {
            claims
                .blame(key, format!("users can set `{OF_THE_USER}` themselves; name a claim that they cannot change"));
        }
    }
    claims.finish();
    mapping
}

fn path(v: &Raw) -> Result<ClaimPath, String> {
    ClaimPath::parse(&value::text(v)?).map_err(|error| error.to_string())
}

/// Reads the path of a claim whose value is a string.
fn text_path(v: &Raw) -> Result<ClaimPath, String> {
    let path = path(v)?;
    match path.is_of_names() {
        true => Err("`{}` selects several names, but the value of this claim must be a single string".to_owned()),
        false => Ok(path),
    }
}

/// Reads a table that maps each scope to a scope or a list of scopes.
pub(super) fn scope_map(section: &Section<'_>, key: &'static str) -> Option<Vec<(Box<str>, Scope)>> {
    let table = section.section(key);
    let mut map = Vec::new();
    for (theirs, ours) in table.free() {
        if theirs.contains(' ') || value::scope(&Raw::String(theirs.to_owned())).is_err() {
            table.blame(theirs, "is not a scope; expected one scope without spaces");
        }
        match value::one_or_several(ours, value::scope) {
            Ok(scopes) => map.push((theirs.into(), united(&scopes))),
            Err(message) => table.blame(theirs, message),
        }
    }
    section.has(key).then_some(map)
}

/// Reads the required claims, and adds those of the preset.
fn require(section: &Section<'_>, mut mapping: ClaimMapping) -> ClaimMapping {
    let table = section.section("require");
    for (claim, wanted) in table.free() {
        match (text_path(&Raw::String(claim.to_owned())), value::one_or_several(wanted, scalar)) {
            (Ok(_), Ok(values)) if values.is_empty() => table.blame(claim, "is empty; expected at least one value"),
            (Ok(path), Ok(values)) if is_asked(&mapping, &path) && !values.iter().all(Json::is_string) => {
                table.blame(
                    claim,
                    "is a string in the tokens of this provider, not a number; write it in quotation marks",
                );
            }
            (Ok(path), Ok(values)) => mapping.require(path, values),
            (Err(message), _) | (_, Err(message)) => table.blame(claim, message),
        }
    }
    let open: Vec<_> = mapping.require.iter().filter(|known| known.wanted.is_open()).collect();
    if let Some(RequiredClaim { path, .. }) = open.first()
        && !table.is_bad()
    {
        let paths = open.iter().map(|known| known.path.to_string()).collect::<Vec<_>>().join(" or ");
        let message = format!(
            "needs {paths}, because anybody can have an account at this provider, and the tokens of all its users \
             would be accepted; write `require = {{ {path} = \"…\" }}`"
        );
        section.blame("require", message);
    }
    mapping
}

fn is_asked(mapping: &ClaimMapping, path: &ClaimPath) -> bool {
    mapping.require.iter().any(|known| known.path == *path && known.wanted.is_open())
}

fn scalar(v: &Raw) -> Result<Json, String> {
    match v {
        Raw::String(text) | Raw::Env(text) => Ok(text.as_str().into()),
        Raw::Integer(number) => Ok((*number).into()),
        Raw::Bool(yes) => Ok((*yes).into()),
        Raw::OtherNumber(_) | Raw::Datetime(_) | Raw::List(_) | Raw::Table(_) => {
            Err(format!("expected a string, a whole number, true or false, found {}", v.describe()))
        }
    }
}

/// The scopes that an issuer's tokens may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedScopes {
    /// Any scope that the issuer grants.
    Any,
    /// Only these scopes, if the issuer grants them.
    Only(Scope),
}

impl AllowedScopes {
    /// The listed scopes, or `None` for any scope.
    pub const fn listed(&self) -> Option<&Scope> {
        match self {
            Self::Any => None,
            Self::Only(scopes) => Some(scopes),
        }
    }
}

impl Print for AllowedScopes {
    fn print(&self) -> Value {
        match self {
            Self::Any => "any".into(),
            Self::Only(scopes) => scopes.print(),
        }
    }
}

/// Reads a list, or "any". There is no default, because the same scope may have another meaning at another issuer.
/// Other strings are rejected, because a misspelt "any" would otherwise be a scope.
pub(super) fn allowed_scopes(section: &Section<'_>) -> AllowedScopes {
    const ANY: &str = "any";
    if section.get("scopes", |v| Ok(v.as_text() == Some(ANY))) == Some(true) {
        return AllowedScopes::Any;
    }
    AllowedScopes::Only(united(&section.list_or_empty("scopes", value::scope)))
}

impl Print for ClaimMapping {
    fn print(&self) -> Value {
        let Self { scope, scope_map, client, roles, account, subject, encodes_subject: _, audience: _, require } = self;
        let mut table = Table::new();
        let mut claims = Table::new();
        for (key, paths) in
            [("scope", scope), ("client", client), ("roles", roles), ("account", account), ("subject", subject)]
        {
            paths.put(&mut claims, key);
        }
        put(&mut table, "claims", claims);
        let mut map = Table::new();
        for (theirs, ours) in scope_map {
            put(&mut map, theirs, ours.print());
        }
        put(&mut table, "scope_map", map);
        let mut values = Table::new();
        for RequiredClaim { path, wanted } in require {
            // Other required claims come from the preset.
            if let WantedClaim::OneOf(several) = wanted {
                put(&mut values, &path.to_string(), several.iter().map(json).collect::<Vec<_>>());
            }
        }
        put(&mut table, "require", values);
        table.into()
    }
}

fn json(value: &Json) -> Value {
    match value {
        Json::Bool(yes) => (*yes).into(),
        Json::Number(number) => number.as_i64().unwrap_or_default().into(),
        other => other.as_str().unwrap_or_default().into(),
    }
}
