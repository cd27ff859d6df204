//! `id_jag` and `jwt_bearer` of `[[issuers]]`: assertions that the gate accepts as grants.

use std::time::Duration;

use super::super::declare::section;
use super::super::print::Words;
use super::super::value;
use super::issuers::TrustedIssuer;
use super::{ClientConfig, DirectoryConfig, SECOND};
use rotogate_core::client::Grant;
use rotogate_core::token::{IdJagRules, JagSubject, JwtBearerRules};
use rotogate_kit::config::{Section, printable};

section! {
    impl IdJagRules, read by pub(super) read_id_jag(section) {
        /// Required: Ids of the clients that may present the assertions. They must be confidential and have the grant
        /// `"jwt-bearer"`.
        reload clients: Vec<Box<str>> = by { texts(section, "clients", "the id of a client") },
        /// Maximum age of an assertion, counted from its `iat`.
        fixed max_age: Duration = get_or(value::duration_within(SECOND, 3600 * SECOND), 600 * SECOND),
        /// Subject of the session. `"issuer"`: the issuer's `sub` with `subject_prefix` in front; `"directory"`: the
        /// user whom the lookup of an HTTP directory returns for `issuer` and `subject`.
        reload subject: JagSubject = get_or(value::word_of, JagSubject::default()),
    }
}

section! {
    impl JwtBearerRules, read by pub(super) read_jwt_bearer(section) {
        /// Required: Accepted values of `sub`, compared byte for byte (`["repo:acme/app:ref:refs/heads/main"]`).
        reload subjects: Vec<Box<str>> = by { texts(section, "subjects", "the `sub` of each accepted token") },
        /// Maximum lifetime of a workload's token.
        fixed max_lifetime: Duration = get_or(value::duration_within(SECOND, 3600 * SECOND), 600 * SECOND),
        /// Name of an entry of `[[clients]]` with the grant `"jwt-bearer"`. The workload gets a token of this client,
        /// with the client's scopes.
        reload as_client: Box<str> = by {
            section.required("as_client", "the id of a client", value::text).into()
        },
    }
}

impl Words for JagSubject {
    const WORDS: &'static [(&'static str, Self)] = &[("issuer", Self::Issuer), ("directory", Self::Directory)];
}

fn texts(section: &Section<'_>, key: &'static str, expected: &str) -> Vec<Box<str>> {
    let listed = section.list_or_empty(key, value::text);
    if listed.is_empty() && !section.is_bad() {
        section.blame(key, format!("is missing or empty, so no assertion would be accepted; expected {expected}"));
    }
    listed.into_iter().map(Into::into).collect()
}

pub(super) fn check(
    sections: &[Section<'_>],
    issuers: &[TrustedIssuer],
    clients: &[ClientConfig],
    directories: &[DirectoryConfig],
) {
    let problem = |id: &str, needs_proof: bool| match clients.iter().find(|client| *client.id == *id) {
        None => Some(format!("there is no client \"{}\" in `[[clients]]`", printable(id))),
        Some(client) if !client.may(Grant::JwtBearer) => {
            Some(format!("the client \"{id}\" lacks the grant \"jwt-bearer\"; add it to the client's `grants`"))
        }
        Some(client) if needs_proof && client.keys.is_none() && client.secret_hash.is_none() => {
            Some(format!("the client \"{id}\" is public; give it `keys` or a `secret_hash`"))
        }
        Some(_) => None,
    };
    for (section, issuer) in sections.iter().zip(issuers).filter(|(section, _)| !section.is_bad()) {
        for id in issuer.id_jag.iter().flat_map(|jag| &jag.clients) {
            problem(id, true).into_iter().for_each(|message| section.blame("id_jag.clients", message));
        }
        if let Some(message) = issuer.jwt_bearer.as_ref().and_then(|bearer| problem(&bearer.as_client, false)) {
            section.blame("jwt_bearer.as_client", message);
        }
        let by_directory = issuer.id_jag.as_ref().is_some_and(|jag| jag.subject == JagSubject::Directory);
        if by_directory && !directories.iter().any(DirectoryConfig::names_users_of_issuers) {
            let message = "needs a directory of kind \"http\", which can look up the gate's user for an issuer's \
                           subject; or write \"issuer\"";
            section.blame("id_jag.subject", message);
        }
        if issuer.keys.is_none() && (issuer.id_jag.is_some() || issuer.jwt_bearer.is_some()) {
            section.blame(
                "introspection",
                "has no signing keys to verify assertions; add `discovery = true` or `jwks_url`",
            );
        }
    }
}
