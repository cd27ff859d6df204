//! The properties of known providers' tokens, in one table for each provider. A preset provides the default rules for
//! an issuer. A configuration key that is set replaces only its own part of the preset.
//!
//! ```
//! use rotogate::token::{IssuerKeys, IssuerRules, Preset};
//!
//! # fn example(keys: IssuerKeys) -> Result<(), Box<dyn std::error::Error>> {
//! let url = "https://idp.example.com/realms/x";
//! let rules = IssuerRules::external(url, vec!["api".into()], keys).preset(Preset::Keycloak).named("kc");
//! # let _ = rules;
//! # Ok(()) }
//! ```

use std::time::Duration;

use serde_json::Value;

use super::mapping::{ClaimMapping, RequiredClaim, WantedClaim};
use crate::claim::ClaimPath;
use crate::token::algorithm::Algorithm;

/// A provider whose tokens are known.
///
/// ```
/// use rotogate::token::{IssuerKeys, IssuerRules, Preset};
///
/// # let jwks = rotogate::token::Keyring::ephemeral()?.jwks().to_string();
/// let keys = IssuerKeys::from_jwks(jwks.as_bytes(), None)?;
/// let rules = IssuerRules::external("https://idp.example.com/realms/x", vec!["api".into()], keys)
///     .preset(Preset::Keycloak);
/// # let _ = rules;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preset {
    /// Keycloak: access tokens of a realm. In its ID tokens and refresh tokens, the claim `typ` has another value.
    Keycloak,
    /// Entra ID, endpoint version 2.0, one tenant.
    EntraV2,
    /// Entra ID, endpoint version 1.0, one tenant.
    EntraV1,
    /// Auth0: access tokens for an API, in both token profiles.
    Auth0,
    /// Okta: a custom authorization server. Tokens of the org server cannot be verified locally.
    Okta,
    /// Amazon Cognito: access tokens of a user pool. `audience` lists app clients.
    Cognito,
    /// Google: ID tokens, because its access tokens are opaque. The domain, the client or the e-mail address must be
    /// required.
    Google,
    /// GitHub Actions: ID tokens of workflows. The owner of the repository must be required.
    GithubActions,
    /// Kubernetes: projected tokens of service accounts.
    Kubernetes,
    /// Ory Hydra with JWT access tokens.
    Hydra,
    /// Zitadel with JWT access tokens.
    Zitadel,
    /// Authentik with a signing key.
    Authentik,
    /// Supabase Auth with asymmetric keys.
    Supabase,
    /// Firebase Authentication: ID tokens.
    Firebase,
    /// Clerk: session tokens of version 2. They have no `aud`, so `audience` lists the origins of the application
    /// (`azp`).
    Clerk,
    /// Any other OpenID provider: access tokens with the usual claims. ID tokens are refused.
    Oidc,
}

/// The properties of a provider's tokens. [`ClaimMapping`] describes how a list of claims is read.
struct Provider {
    preset: Preset,
    name: &'static str,
    /// The accepted `typ` values in the header. An empty string means a missing `typ`.
    typ: &'static [&'static str],
    scope: &'static [&'static str],
    client: &'static [&'static str],
    roles: &'static [&'static str],
    encodes_subject: bool,
    audience: Option<&'static str>,
    /// Required claims, each with its accepted values.
    require: &'static [(&'static str, &'static [&'static str])],
    /// Claims that only the provider's access tokens have.
    present: &'static [&'static str],
    /// Claims that only the provider's other tokens have.
    absent: &'static [&'static str],
    /// Claims whose values only the operator knows. The operator must name the values of at least one of these claims.
    /// Otherwise every account at the provider would be accepted.
    asked: &'static [&'static str],
    /// The algorithm of keys without `alg`.
    algorithm: Option<Algorithm>,
    max_lifetime: Duration,
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// Claims that only ID tokens have: hashes of the tokens that were issued with the ID token, and the nonce of the login
/// (OpenID Connect Core §2, §3.3.2.11).
const OF_ID_TOKENS: &[&str] = &["at_hash", "c_hash", "nonce"];

/// The claims of a profile (OpenID Connect Core §5.1), which users can edit themselves.
const PROFILE: [&str; 14] = [
    "name",
    "given_name",
    "family_name",
    "middle_name",
    "nickname",
    "preferred_username",
    "profile",
    "picture",
    "website",
    "gender",
    "birthdate",
    "zoneinfo",
    "locale",
    "address",
];

/// A provider without special rules.
const PLAIN: Provider = Provider {
    preset: Preset::Oidc,
    name: "oidc",
    typ: &["JWT", "at+jwt"],
    scope: &["scope"],
    client: &["azp", "client_id"],
    roles: &[],
    encodes_subject: false,
    audience: None,
    require: &[],
    present: &[],
    absent: &[],
    asked: &[],
    algorithm: None,
    max_lifetime: hours(24),
};

const PROVIDERS: [Provider; 16] = [
    Provider {
        preset: Preset::Keycloak,
        name: "keycloak",
        roles: &["realm_access.roles"],
        // The value `DPoP` marks tokens that are bound by DPoP, which `cnf` shows as well.
        require: &[("typ", &["Bearer", "DPoP"])],
        ..PLAIN
    },
    Provider {
        preset: Preset::EntraV2,
        name: "entra-v2",
        typ: &["JWT"],
        scope: &["scp"],
        client: &["azp"],
        roles: &["roles", "groups"],
        require: &[("ver", &["2.0"])],
        present: &["azp"],
        absent: OF_ID_TOKENS,
        algorithm: Some(Algorithm::Rs256),
        // With continuous access evaluation, tokens live up to 28 hours.
        max_lifetime: hours(29),
        ..PLAIN
    },
    Provider {
        preset: Preset::EntraV1,
        name: "entra-v1",
        typ: &["JWT"],
        scope: &["scp"],
        client: &["appid"],
        roles: &["roles", "groups"],
        require: &[("ver", &["1.0"])],
        present: &["appid"],
        absent: OF_ID_TOKENS,
        algorithm: Some(Algorithm::Rs256),
        max_lifetime: hours(29),
        ..PLAIN
    },
    Provider { preset: Preset::Auth0, name: "auth0", absent: OF_ID_TOKENS, ..PLAIN },
    Provider {
        preset: Preset::Okta,
        name: "okta",
        typ: &["", "JWT"],
        scope: &["scp"],
        client: &["cid"],
        roles: &["groups"],
        present: &["cid"],
        absent: OF_ID_TOKENS,
        ..PLAIN
    },
    Provider {
        preset: Preset::Cognito,
        name: "cognito",
        typ: &["", "JWT"],
        client: &["client_id"],
        roles: &["\"cognito:groups\""],
        audience: Some("client_id"),
        require: &[("token_use", &["access"])],
        ..PLAIN
    },
    Provider {
        preset: Preset::Google,
        name: "google",
        typ: &["JWT"],
        scope: &[],
        client: &["azp"],
        // Without such a requirement, anyone's service account could get a token for any audience.
        asked: &["hd", "azp", "email"],
        max_lifetime: hours(2),
        ..PLAIN
    },
    Provider {
        preset: Preset::GithubActions,
        name: "github-actions",
        typ: &["JWT"],
        scope: &[],
        client: &[],
        // `sub` contains names of branches and environments, which may have any characters.
        encodes_subject: true,
        // The owner is identified by number, because an abandoned name can be registered by another owner.
        asked: &["repository_owner_id"],
        max_lifetime: hours(1),
        ..PLAIN
    },
    Provider {
        preset: Preset::Kubernetes,
        name: "kubernetes",
        typ: &["", "JWT"],
        scope: &[],
        client: &[],
        present: &["\"kubernetes.io\".serviceaccount.name"],
        // A token may stay valid after its pod has ended, so the lifetime is limited.
        max_lifetime: hours(2),
        ..PLAIN
    },
    Provider {
        preset: Preset::Hydra,
        name: "hydra",
        scope: &["scp", "scope"],
        client: &["client_id"],
        present: &["client_id"],
        absent: OF_ID_TOKENS,
        ..PLAIN
    },
    Provider {
        preset: Preset::Zitadel,
        name: "zitadel",
        client: &["client_id", "azp"],
        roles: &["\"urn:zitadel:iam:org:project:roles\"{}"],
        present: &["jti"],
        absent: &["at_hash", "c_hash", "nonce", "auth_time", "amr"],
        ..PLAIN
    },
    Provider {
        preset: Preset::Authentik,
        name: "authentik",
        client: &["azp"],
        roles: &["groups"],
        // Authentik's access token is like its ID token, with the same audience and these two additional claims.
        present: &["azp", "uid"],
        absent: &["at_hash", "c_hash"],
        ..PLAIN
    },
    Provider {
        preset: Preset::Supabase,
        name: "supabase",
        typ: &["JWT"],
        scope: &[],
        client: &["client_id"],
        roles: &["role"],
        present: &["session_id"],
        ..PLAIN
    },
    Provider {
        preset: Preset::Firebase,
        name: "firebase",
        typ: &["JWT"],
        scope: &[],
        client: &[],
        present: &["firebase.sign_in_provider"],
        max_lifetime: hours(2),
        ..PLAIN
    },
    Provider {
        preset: Preset::Clerk,
        name: "clerk",
        typ: &["JWT"],
        scope: &[],
        client: &["azp"],
        roles: &["o.rol"],
        audience: Some("azp"),
        // A session is pending until its user completes a task. Until then Clerk treats the user as signed out.
        require: &[("sts", &["active"])],
        // Tokens that are made from templates are signed with the same key, but have no session and can have any
        // lifetime.
        present: &["sid"],
        absent: OF_ID_TOKENS,
        max_lifetime: hours(1),
        ..PLAIN
    },
    Provider { scope: &["scope", "scp"], client: &["client_id", "azp", "cid"], absent: OF_ID_TOKENS, ..PLAIN },
];

impl Preset {
    /// All presets.
    pub const ALL: [Self; 16] = [
        Self::Keycloak,
        Self::EntraV2,
        Self::EntraV1,
        Self::Auth0,
        Self::Okta,
        Self::Cognito,
        Self::Google,
        Self::GithubActions,
        Self::Kubernetes,
        Self::Hydra,
        Self::Zitadel,
        Self::Authentik,
        Self::Supabase,
        Self::Firebase,
        Self::Clerk,
        Self::Oidc,
    ];

    fn provider(self) -> &'static Provider {
        // A test checks that every preset has an entry, so the fallback `oidc` is never used.
        PROVIDERS.iter().find(|provider| provider.preset == self).unwrap_or(const { &PLAIN })
    }

    /// The name of the preset in `gateway.toml`.
    pub fn word(self) -> &'static str {
        self.provider().name
    }

    /// The values of `typ` that the provider's access tokens may have.
    pub fn typ(self) -> impl Iterator<Item = &'static str> {
        self.provider().typ.iter().copied()
    }

    /// The names of claims that users can set themselves, in their profile or through the provider's API.
    pub fn claims_of_users(self) -> impl Iterator<Item = &'static str> {
        let (profile, more): (&[&str], &[&str]) = match self {
            // These tokens belong to workflows and not to users, but the owner of a fork chooses the names of its
            // branches.
            Self::GithubActions => (&[], &["head_ref"]),
            Self::Kubernetes => (&[], &[]),
            Self::EntraV2 | Self::EntraV1 => (&PROFILE, &["email", "upn", "unique_name"]),
            Self::Auth0 | Self::Supabase => (&PROFILE, &["user_metadata"]),
            Self::Clerk => (&PROFILE, &["unsafe_metadata"]),
            Self::Google => (&PROFILE, &[]),
            Self::Keycloak
            | Self::Okta
            | Self::Cognito
            | Self::Hydra
            | Self::Zitadel
            | Self::Authentik
            | Self::Firebase
            | Self::Oidc => (&PROFILE, &["email"]),
        };
        profile.iter().chain(more).copied()
    }

    /// The longest lifetime of the provider's access tokens.
    pub fn max_lifetime(self) -> Duration {
        self.provider().max_lifetime
    }

    /// The algorithm of those keys of the provider that have no `alg`.
    pub fn algorithm(self) -> Option<Algorithm> {
        self.provider().algorithm
    }

    /// The claim mapping. If the mapping requires claims without stating their values, the operator must state the
    /// values of one of these claims. Until then, the mapping is refused.
    pub fn claims(self) -> ClaimMapping {
        let provider = self.provider();
        // A test checks that each path can be parsed.
        let paths = |paths: &[&str]| paths.iter().filter_map(|path| ClaimPath::parse(path).ok()).collect::<Vec<_>>();
        let wanted = |path: &str, wanted| Some(RequiredClaim { path: ClaimPath::parse(path).ok()?, wanted });
        let required = provider.require.iter().filter_map(|(path, values)| {
            wanted(path, WantedClaim::OneOf(values.iter().map(|v| Value::from(*v)).collect()))
        });
        let asked = provider.asked.iter().filter_map(|path| wanted(path, WantedClaim::OneOf(Vec::new())));
        let present = provider.present.iter().filter_map(|path| wanted(path, WantedClaim::Present));
        let absent = provider.absent.iter().filter_map(|path| wanted(path, WantedClaim::Absent));
        ClaimMapping {
            scope: paths(provider.scope),
            client: paths(provider.client),
            roles: paths(provider.roles),
            encodes_subject: provider.encodes_subject,
            audience: provider.audience.and_then(|path| ClaimPath::parse(path).ok()),
            require: required.chain(asked).chain(present).chain(absent).collect(),
            ..ClaimMapping::default()
        }
    }
}
