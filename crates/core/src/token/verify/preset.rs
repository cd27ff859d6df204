//! Default rules for known providers.
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

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::IssuerRules;
use super::mapping::{ClaimMapping, RequiredClaim, WantedClaim};
use crate::claim::ClaimPath;
use crate::token::algorithm::Algorithm;

/// A provider with known token properties.
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
    /// Keycloak: access tokens of a realm.
    Keycloak,
    /// Entra ID, endpoint version 2.0, single tenant.
    EntraV2,
    /// Entra ID, endpoint version 1.0, single tenant.
    EntraV1,
    /// Auth0: access tokens for an API, in either token profile.
    Auth0,
    /// Okta: a custom authorization server. Tokens of the org server cannot be verified locally.
    Okta,
    /// Amazon Cognito: access tokens of a user pool. `audience` lists app clients.
    Cognito,
    /// Google: ID tokens. The configuration must require a domain, a client or an e-mail address.
    Google,
    /// GitHub Actions: ID tokens of workflows. The configuration must require the repository owner.
    GithubActions,
    /// Kubernetes: projected service account tokens.
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
    /// Clerk: session tokens, version 2. `audience` lists the application's origins (`azp`), because the tokens have no
    /// `aud`.
    Clerk,
    /// Any other OpenID provider: access tokens with the usual claims.
    Oidc,
}

struct Provider {
    preset: Preset,
    name: &'static str,
    /// Accepted values of `typ`. An empty string means no `typ`.
    typ: &'static [&'static str],
    scope: &'static [&'static str],
    client: &'static [&'static str],
    roles: &'static [&'static str],
    encodes_subject: bool,
    audience: Option<&'static str>,
    require: &'static [(&'static str, &'static [&'static str])],
    /// Claims that only access tokens of the provider have.
    present: &'static [&'static str],
    /// Claims that access tokens of the provider never have.
    absent: &'static [&'static str],
    /// The operator must configure values for at least one of these claims, because otherwise every account would be
    /// accepted.
    asked: &'static [&'static str],
    algorithm: Option<Algorithm>,
    max_lifetime: Duration,
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// Claims that only ID tokens have (OpenID Connect Core §2, §3.3.2.11).
const OF_ID_TOKENS: &[&str] = &["at_hash", "c_hash", "nonce"];

/// Profile claims (OpenID Connect Core §5.1), which users can edit.
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
        // `DPoP` marks sender-constrained tokens, which also have `cnf`.
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
        // With continuous access evaluation, tokens are valid for up to 28 hours.
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
        // Without these claims, any Google service account could get a token for this audience.
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
        // `sub` contains branch and environment names with arbitrary characters.
        encodes_subject: true,
        // Owner names can be reused by others after a rename, so the number identifies the owner.
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
        // A token may outlive its pod, so the lifetime is limited.
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
        // Authentik's access tokens differ from its ID tokens only in these claims.
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
        // Clerk treats a pending session as signed out.
        require: &[("sts", &["active"])],
        // Template tokens use the same key, but have no session and can have any lifetime.
        present: &["sid"],
        absent: OF_ID_TOKENS,
        max_lifetime: hours(1),
        ..PLAIN
    },
    Provider { scope: &["scope", "scp"], client: &["client_id", "azp", "cid"], absent: OF_ID_TOKENS, ..PLAIN },
];

impl IssuerRules {
    /// Applies a provider's preset. Call this first, because later settings override it.
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
}

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
        PROVIDERS.iter().find(|provider| provider.preset == self).unwrap_or(const { &PLAIN })
    }

    /// The name of the preset in the configuration.
    pub fn word(self) -> &'static str {
        self.provider().name
    }

    /// The accepted values of `typ`.
    pub fn typ(self) -> impl Iterator<Item = &'static str> {
        self.provider().typ.iter().copied()
    }

    /// Claims that users can set themselves.
    pub fn claims_of_users(self) -> impl Iterator<Item = &'static str> {
        let (profile, more): (&[&str], &[&str]) = match self {
            // The owner of a fork chooses its branch names.
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

    /// The maximum lifetime of an access token.
    pub fn max_lifetime(self) -> Duration {
        self.provider().max_lifetime
    }

    /// The algorithm for keys without `alg`.
    pub fn algorithm(self) -> Option<Algorithm> {
        self.provider().algorithm
    }

    /// The claim mapping. If required claims have no values, the operator must configure values for one of them.
    pub fn claims(self) -> ClaimMapping {
        let provider = self.provider();
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
