//! Which assertions of an issuer the gate accepts as grants.

use std::time::Duration;

/// The kinds of assertions that the gate accepts from an issuer as grants. A kind without rules is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssertionGrants {
    /// The rules for identity assertions about users.
    pub id_jag: Option<IdJagRules>,
    /// The rules for assertions about workloads.
    pub jwt_bearer: Option<JwtBearerRules>,
}

/// The rules for the identity assertions of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdJagRules {
    /// The clients that may present identity assertions.
    pub clients: Vec<Box<str>>,
    /// The maximum age of an assertion, measured from its `iat`.
    pub max_age: Duration,
    /// How the asserted user is mapped to a user of this gate.
    pub subject: JagSubject,
}

/// How the asserted user is mapped to a user of this gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JagSubject {
    /// The user's subject is the asserted subject with the issuer's prefix.
    #[default]
    Issuer,
    /// The directory finds the user by `iss` and `sub`.
    Directory,
}

/// The rules for an issuer's workload assertions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtBearerRules {
    /// The accepted subjects, compared byte for byte. If the list is empty, no assertion is accepted.
    pub subjects: Vec<Box<str>>,
    /// The maximum time from `iat` to `exp`.
    pub max_lifetime: Duration,
    /// The client for which the workload's token is issued.
    pub as_client: Box<str>,
}
