//! Finds a user's issuer by subject. Subjects of another issuer's users start with the issuer's prefix.

use std::sync::Arc;

use super::assertion_grants::JagSubject;
use super::{IssuerRules, Verifier};
use crate::denial::Denial;
use crate::token::claims::{AccessToken, CLIENT_PREFIX, TokenIssuer};

/// The other issuers, with the prefixes of their users' subjects. An issuer without a prefix comes last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectSources(Vec<(Box<str>, Arc<str>)>);

impl SubjectSources {
    pub(super) fn new(issuers: &[IssuerRules]) -> Self {
        let others = || issuers.iter().filter(|rules| !rules.ours);
        let bare = others().filter(|rules| rules.subject_prefix.is_empty() && rules.names_subjects());
        let all = others().filter(|rules| !rules.subject_prefix.is_empty()).chain(bare);
        Self(all.map(|rules| (rules.subject_prefix.clone(), Arc::clone(&rules.issuer))).collect())
    }

    /// Returns the issuer for a subject, or `None` for the gate's own users and clients.
    // Requirement I67.
    pub fn issuer_of(&self, subject: &str) -> Option<&Arc<str>> {
        let is_its = |(prefix, _): &&(Box<str>, Arc<str>)| subject.starts_with(&**prefix);
        self.0.iter().find(is_its).filter(|_| !subject.starts_with(CLIENT_PREFIX)).map(|(_, issuer)| issuer)
    }
}

impl IssuerRules {
    /// Returns whether the gate assigns subjects to the issuer's users.
    #[doc(hidden)]
    pub fn names_subjects(&self) -> bool {
        let asserts = self.grants.id_jag.as_ref().is_some_and(|jag| jag.subject == JagSubject::Issuer);
        self.logs_in_browsers || asserts
    }
}

impl Verifier {
    /// Sets the user's issuer if this gate issued the token.
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
                // Users of a removed issuer must not become the gate's own users.
                None => Some(TokenIssuer::unknown(by)),
            },
            // Tokens from API keys or operators have no session.
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

    /// The issuers by subject prefix.
    pub fn sources(&self) -> &Arc<SubjectSources> {
        &self.sources
    }
}

/// Where a user comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserSource<'a> {
    /// The gate's own users.
    Own,
    /// The users of another issuer. The string is the issuer's prefix.
    Issuer(&'a str),
}

/// Finds an issuer without a prefix, unless there is only one source. Without prefixes, subjects could clash.
// Requirement I67.
pub fn bare_source(sources: &[UserSource<'_>]) -> Option<usize> {
    if sources.len() < 2 {
        return None;
    }
    sources.iter().position(|source| *source == UserSource::Issuer(""))
}
