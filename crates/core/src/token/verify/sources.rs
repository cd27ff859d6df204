//! Finds the issuer to whose users the subject of one of this gate's own tokens belongs. Users of another issuer get
//! subjects of this gate through a browser login, an identity assertion, or a token exchange. Their subjects begin with
//! the issuer's prefix, and no other subject does, so the subject alone identifies the issuer.

use std::sync::Arc;

use super::grant_assertion::JagSubject;
use super::{IssuerRules, Verifier};
use crate::denial::Denial;
use crate::token::claims::{AccessToken, CLIENT_PREFIX, TokenIssuer};

/// The issuers whose users have subjects of this gate, with their prefixes. An issuer without a prefix is last in the
/// list, and is the only source of users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectSources(Vec<(Box<str>, Arc<str>)>);

impl SubjectSources {
    /// Collects the sources among these issuers.
    pub(super) fn new(issuers: &[IssuerRules]) -> Self {
        let others = || issuers.iter().filter(|rules| !rules.ours);
        let bare = others().filter(|rules| rules.subject_prefix.is_empty() && rules.names_subjects());
        let all = others().filter(|rules| !rules.subject_prefix.is_empty()).chain(bare);
        Self(all.map(|rules| (rules.subject_prefix.clone(), Arc::clone(&rules.issuer))).collect())
    }

    /// The issuer whose user has this subject, or `None` for a user or a client of the gate itself.
    // Requirement I67.
    pub fn issuer_of(&self, subject: &str) -> Option<&Arc<str>> {
        let is_its = |(prefix, _): &&(Box<str>, Arc<str>)| subject.starts_with(&**prefix);
        self.0.iter().find(is_its).filter(|_| !subject.starts_with(CLIENT_PREFIX)).map(|(_, issuer)| issuer)
    }
}

impl IssuerRules {
    /// Returns whether users of the issuer get subjects of this gate through a browser login or an identity assertion.
    #[doc(hidden)]
    pub fn names_subjects(&self) -> bool {
        let asserts = self.grants.id_jag.as_ref().is_some_and(|jag| jag.subject == JagSubject::Issuer);
        self.logs_in_browsers || asserts
    }
}

impl Verifier {
    /// Stores in one of the gate's own tokens the issuer to which its subject belongs.
    ///
    /// # Errors
    /// The subject has the prefix of an issuer that did not authenticate the user.
    // Requirement I67.
    pub(super) fn with_source(&self, mut token: AccessToken) -> Result<AccessToken, Denial> {
        if !token.is_ours() || token.subject.starts_with(CLIENT_PREFIX) {
            return Ok(token);
        }
        let by = token.vouched_by().map(|by| &*by.issuer);
        let source = match (self.sources.issuer_of(&token.subject), by) {
            (None, None) => None,
            (None, Some(by)) => match self.found(by) {
                Some(_) => None,
                // The issuer is no longer configured. Its user must not become one of the gate's own users.
                None => Some(TokenIssuer::unknown(by)),
            },
            // A token for an API key or from an operator has no session.
            (Some(issuer), by) if by.map_or(token.session.is_none(), |by| *by == **issuer) => {
                self.found(issuer).map(|(_, of_tokens)| Arc::clone(of_tokens))
            }
            (Some(_), _) => {
                return Err(Denial::BadClaim(
                    "`sub` begins with the prefix of another issuer, which did not vouch for the user",
                ));
            }
        };
        if source.is_some() {
            token.rare.get_or_insert_default().source = source;
        }
        Ok(token)
    }

    /// The issuers whose users have subjects in the gate's own tokens.
    pub fn sources(&self) -> &Arc<SubjectSources> {
        &self.sources
    }
}

/// Describes what is wrong with a prefix, given the prefixes of `others`. `is_alone` is true if the gate has no users
/// of its own and no other issuer.
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

/// A source of users whose subjects become subjects of this gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserSource<'a> {
    /// The users of the gate itself.
    Own,
    /// The users of another issuer, with its prefix.
    Issuer(&'a str),
}

/// The index of a source without a prefix, if there are other sources. Returns `None` if the subjects of all sources
/// are distinct.
// Requirement I67.
pub fn bare_source(sources: &[UserSource<'_>]) -> Option<usize> {
    if sources.len() < 2 {
        return None;
    }
    sources.iter().position(|source| *source == UserSource::Issuer(""))
}
