//! Roles, as a route requires them and a token names them.

use std::fmt;

/// A role and the issuer whose tokens may name it.
// Requirement I17.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// The name of the issuer, or `None` for the only issuer of the route.
    pub issuer: Option<Box<str>>,
    /// The role.
    pub name: Box<str>,
}

impl Role {
    /// Parses a role such as `"admin"` or `"kc:admin"`, which is the role `admin` of the issuer named `kc`. If the part
    /// before the colon is not the name of an issuer, the whole string is the role.
    pub fn parse(text: &str, is_issuer: impl Fn(&str) -> bool) -> Self {
        match text.split_once(':').filter(|(issuer, _)| is_issuer(issuer)) {
            Some((issuer, name)) => Self { issuer: Some(issuer.into()), name: name.into() },
            None => Self { issuer: None, name: text.into() },
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.issuer.as_ref().map_or(Ok(()), |issuer| write!(f, "{issuer}:"))?;
        f.write_str(&self.name)
    }
}
