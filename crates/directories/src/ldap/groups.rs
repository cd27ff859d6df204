//! The groups of a user, found by a search or by an attribute.

use std::collections::{BTreeMap, BTreeSet};

use ldap3::Scope as SearchScope;

use super::super::{Cause, SourceError};
use super::entry::Entry;
use super::filter::Filter;
use super::{ANY, LdapSource, Search};
use rotogate_core::bounds::MAX_GROUPS;
use rotogate_core::session::Scope;

/// The settings of `[directory.groups]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// How the groups are found.
    pub by: GroupsBy,
    /// The attribute with the name of a group.
    pub name: String,
    /// The maximum depth of nested groups. 0 ignores nested groups.
    pub nested: usize,
    /// The scopes that each group gives its members.
    pub scopes: BTreeMap<String, Scope>,
    /// Whether the group names become the claim `roles`.
    pub roles: bool,
}

/// How the groups of a user are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupsBy {
    /// A search for the groups.
    Filter {
        /// The base of the search.
        base: String,
        /// The filter that finds the groups of `{dn}`.
        filter: Filter,
    },
    /// The attribute of a user's entry that lists the distinguished names of groups.
    Attribute(String),
}

impl GroupSettings {
    pub(super) const fn base(&self) -> Option<&String> {
        match &self.by {
            GroupsBy::Filter { base, .. } => Some(base),
            GroupsBy::Attribute(_) => None,
        }
    }

    pub(super) const fn attribute(&self) -> Option<&String> {
        match &self.by {
            GroupsBy::Filter { .. } => None,
            GroupsBy::Attribute(attribute) => Some(attribute),
        }
    }
}

fn too_many() -> SourceError {
    SourceError::new(Cause::Entry, "the user is in too many groups")
}

impl LdapSource {
    pub(super) async fn groups_of(
        &self,
        entry: &Entry,
        groups: &GroupSettings,
    ) -> Result<BTreeSet<String>, SourceError> {
        match &groups.by {
            GroupsBy::Filter { base, filter } => self.groups_by_filter(entry, groups, base, filter).await,
            GroupsBy::Attribute(attribute) => self.groups_by_attribute(entry, groups, attribute).await,
        }
    }

    async fn groups_by_filter(
        &self,
        entry: &Entry,
        groups: &GroupSettings,
        base: &str,
        filter: &Filter,
    ) -> Result<BTreeSet<String>, SourceError> {
        let attributes = [groups.name.clone()];
        let (mut names, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut members = vec![entry.dn().to_owned()];
        for _ in 0..=groups.nested {
            let mut next = Vec::new();
            for member in std::mem::take(&mut members) {
                let filter = filter.for_value(&member);
                let search = Search {
                    base,
                    scope: SearchScope::Subtree,
                    filter: &filter,
                    attributes: &attributes,
                    most: MAX_GROUPS,
                };
                for group in self.search(search, false).await? {
                    if seen.insert(group.dn().to_lowercase()) {
                        names.extend(group.texts(&groups.name)?.into_iter().map(str::to_owned));
                        next.push(group.dn().to_owned());
                    }
                }
                if seen.len() > MAX_GROUPS {
                    return Err(too_many());
                }
            }
            members = next;
        }
        Ok(names)
    }

    /// The name of a group comes from its entry, not from its distinguished name. Missing or invisible groups are
    /// skipped.
    async fn groups_by_attribute(
        &self,
        entry: &Entry,
        groups: &GroupSettings,
        attribute: &str,
    ) -> Result<BTreeSet<String>, SourceError> {
        let attributes = [groups.name.clone(), attribute.to_owned()];
        let (mut names, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let own = |entry: &Entry| -> Result<Vec<String>, SourceError> {
            Ok(entry.texts(attribute)?.into_iter().map(str::to_owned).collect())
        };
        let mut level = own(entry)?;
        if level.is_empty() {
            return Ok(names);
        }
        let mut connection = Self::connection(&self.searching).await?;
        for _ in 0..=groups.nested {
            let mut next = Vec::new();
            for dn in std::mem::take(&mut level) {
                // An empty name would refer to the server itself (RFC 4512 §5.1).
                if dn.is_empty() {
                    return Err(SourceError::new(Cause::Entry, format!("attribute {attribute}: an empty name")));
                }
                if !seen.insert(dn.to_lowercase()) {
                    continue;
                }
                if seen.len() > MAX_GROUPS {
                    return Err(too_many());
                }
                let search =
                    Search { base: &dn, scope: SearchScope::Base, filter: ANY, attributes: &attributes, most: 1 };
                let Some(group) = Self::search_on(&mut connection, search, true).await?.pop() else { continue };
                names.extend(group.texts(&groups.name)?.into_iter().map(str::to_owned));
                next.extend(own(&group)?);
            }
            level = next;
        }
        Ok(names)
    }
}
