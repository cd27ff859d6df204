//! `[directory]` with `kind = "ldap"`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Table;
use toml::Value as Toml;

use super::super::super::print::{number, path, put, put_some, texts};
use super::super::super::raw::{Section, Value};
use super::super::super::value;
use super::super::path_in;
use rotogate_core::claim::{OwnClaims, ROLES};
use rotogate_core::session::Scope;
use rotogate_directories::SourceSettings;
use rotogate_directories::ldap::filter::{Filter, Placeholder};
use rotogate_directories::ldap::{GroupSettings, GroupsBy, LdapSettings};

/// The defaults that depend on the server.
#[derive(Clone, Copy)]
struct Preset {
    filter: Option<&'static str>,
    subject: &'static str,
    active: Option<&'static str>,
    valid_from: Option<&'static str>,
    group_filter: &'static str,
}

/// Without a preset: standard attributes of RFC 4519 and RFC 4530.
const NONE: Preset =
    Preset { filter: None, subject: "entryUUID", active: None, valid_from: None, group_filter: "(member={dn})" };

/// Active Directory. An account that never expires has a date in the far future.
const AD: Preset = Preset {
    filter: Some("(&(objectCategory=person)(objectClass=user)(sAMAccountName={username}))"),
    subject: "objectGUID",
    active: Some(
        "(&(!(userAccountControl:1.2.840.113556.1.4.803:=2))(|(!(lockoutTime=*))(lockoutTime=0))\
         (|(!(accountExpires=*))(accountExpires=0)(accountExpires>={now})))",
    ),
    valid_from: Some("pwdLastSet"),
    group_filter: "(member:1.2.840.113556.1.4.1941:={dn})",
};

/// `None` if a key that is needed is missing or refused.
pub(super) fn read(section: &Section<'_>, dir: &Path) -> Option<SourceSettings> {
    let preset = section.get("preset", value::word(&[("ad", AD)], &[])).unwrap_or(NONE);
    let urls = urls(section);
    let filter_of =
        |placeholder, is_needed| move |value: &Value| Filter::parse(&value::text(value)?, placeholder, is_needed);
    let preset_filter = |text: Option<&str>, placeholder| {
        let parsed = Filter::parse(text?, placeholder, false);
        // Never ignored: without its filter, a preset would admit disabled users.
        parsed.map_err(|message| section.blame("preset", message)).ok()
    };
    let bind = bind(section, dir);
    let base =
        section.require("base", "the name below which users are, such as \"ou=people,dc=example,dc=com\"", value::text);
    let filter = if section.has("filter") || preset.filter.is_none() {
        let expected = "a filter such as \"(&(objectClass=person)(uid={username}))\"";
        section.require("filter", expected, filter_of(Placeholder::Username, true))
    } else {
        preset_filter(preset.filter, Placeholder::Username)
    };
    let settings = LdapSettings {
        starttls: section.get("starttls", value::boolean).unwrap_or(false),
        dangerous_plaintext: section.get("dangerous_plaintext", value::boolean).unwrap_or(false),
        ca: section.get("ca", path_in(dir)),
        bind,
        strip_domain: section.get("strip_domain", value::boolean).unwrap_or(false),
        subject: section.get("subject", attribute).unwrap_or_else(|| preset.subject.to_owned()),
        active: section
            .get("active", filter_of(Placeholder::Now, false))
            .or_else(|| preset_filter(preset.active, Placeholder::Now)),
        valid_from: section.get("valid_from", attribute).or_else(|| preset.valid_from.map(str::to_owned)),
        account: section.get("account", attribute),
        scopes: section
            .one_or_list("scopes", value::text)
            .map(|list| scope(section, "scopes", &list))
            .unwrap_or_default(),
        claims: attributes(section, "claims", true),
        profile: attributes(section, "profile", false),
        groups: section.has("groups").then(|| groups(&section.section("groups"), preset)).flatten(),
        pool: section.get("pool", value::count(1, 1000)).unwrap_or(LdapSettings::POOL),
        urls: urls?,
        base: base?,
        filter: filter?,
    };
    check(section, &settings);
    Some(SourceSettings::Ldap(Box::new(settings)))
}

fn urls(section: &Section<'_>) -> Option<Vec<String>> {
    if !section.has("url") {
        section.require("url", "the servers, such as \"ldaps://ldap.example.com\"", value::text);
        return None;
    }
    section.one_or_list("url", url).filter(|urls| !urls.is_empty())
}

/// `ldap://`, `ldaps://` or `ldapi://`, with a host and no more than a slash after it.
fn url(value: &Value) -> Result<String, String> {
    let text = value::text(value)?;
    let server = text.strip_suffix('/').unwrap_or(&text);
    let rest = ["ldap://", "ldaps://", "ldapi://"].iter().find_map(|scheme| server.strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(['/', '?', '#', '@', ' ']) => Ok(server.to_owned()),
        Some(_) | None => Err(format!(
            "expected ldaps://host, ldap://host or ldapi://%2fpath%2fof%2fsocket, with a port if it is another and nothing \
             behind it (base has the base), found {}",
            value.describe()
        )),
    }
}

fn bind(section: &Section<'_>, dir: &Path) -> Option<(String, PathBuf)> {
    let (dn, file) = (section.get("bind_dn", value::text), section.get("bind_password_file", path_in(dir)));
    match (dn, file) {
        (Some(dn), Some(file)) => return Some((dn, file)),
        (Some(_), None) if !section.has("bind_password_file") => {
            section.blame("bind_password_file", "missing; expected a file with the password of bind_dn");
        }
        (None, Some(_)) if !section.has("bind_dn") => {
            section.blame("bind_dn", "missing; expected the name that bind_password_file belongs to");
        }
        (_, _) => {}
    }
    None
}

/// The name of an attribute (RFC 4512 §2.5).
fn attribute(value: &Value) -> Result<String, String> {
    let text = value::text(value)?;
    let fits = text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.;".contains(&byte));
    if fits { Ok(text) } else { Err(format!("expected the name of an attribute, found {}", value.describe())) }
}

fn attributes(section: &Section<'_>, key: &'static str, are_claims: bool) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, value) in section.section(key).free() {
        let full = format!("{key}.{name}");
        if are_claims && let Err(error) = OwnClaims::new().insert(name, true) {
            section.blame(key, error.to_string());
        }
        match attribute(value) {
            Ok(attribute) => drop(found.insert(name.to_owned(), attribute)),
            Err(message) => section.blame(key, format!("{full}: {message}")),
        }
    }
    found
}

fn scope(section: &Section<'_>, key: &str, list: &[String]) -> Scope {
    Scope::parse(&list.join(" ")).unwrap_or_else(|error| {
        section.blame(key, error.to_string());
        Scope::default()
    })
}

/// By `attribute`, or by `base` and `filter`.
fn groups_by(section: &Section<'_>, preset: Preset) -> Option<GroupsBy> {
    let filter = section.get("filter", |value: &Value| Filter::parse(&value::text(value)?, Placeholder::Dn, true));
    let found_by = section.get("attribute", attribute);
    if !section.has("attribute") {
        let base = section.require("base", "the name below which groups are, or attribute", value::text);
        let filter =
            if section.has("filter") { filter } else { Filter::parse(preset.group_filter, Placeholder::Dn, true).ok() };
        return Some(GroupsBy::Filter { base: base?, filter: filter? });
    }
    if section.has("filter") {
        section.blame("attribute", "stands beside filter; write one of the two");
    } else if section.has("base") {
        section.blame("base", "is where filter searches, and attribute names the groups; remove one of the two");
    }
    section.get("base", value::text);
    found_by.map(GroupsBy::Attribute)
}

fn groups(section: &Section<'_>, preset: Preset) -> Option<GroupSettings> {
    let by = groups_by(section, preset);
    let mut scopes = BTreeMap::new();
    for (name, value) in section.section("scopes").free() {
        let list: Result<Vec<String>, String> = match value {
            Value::List(list) => list.iter().map(|node| value::text(&node.value)).collect(),
            one => value::text(one).map(|one| vec![one]),
        };
        match list {
            Ok(list) => drop(scopes.insert(name.to_owned(), scope(section, "scopes", &list))),
            Err(message) => section.blame("scopes", format!("{name}: {message}")),
        }
    }
    let name = section.get("name", attribute).unwrap_or_else(|| "cn".to_owned());
    let nested = section.get("nested", value::count(0, 5)).unwrap_or(0);
    let roles = section.get("roles", value::boolean).unwrap_or(false);
    section.finish();
    Some(GroupSettings { by: by?, name, nested, scopes, roles })
}

fn check(section: &Section<'_>, settings: &LdapSettings) {
    let is_plain = settings.urls.iter().any(|url| url.starts_with("ldap://"));
    if is_plain && !settings.starttls && !settings.dangerous_plaintext {
        let message = "has ldap://, which sends passwords in the clear; write ldaps://, or starttls = true";
        section.blame("url", message);
    }
    if settings.starttls && !is_plain {
        section.blame("starttls", "is for ldap://, and no URL has that");
    }
    if settings.claims.contains_key(ROLES) && settings.groups.as_ref().is_some_and(|groups| groups.roles) {
        section.blame("claims", "sets roles, and so does groups.roles; remove one of the two");
    }
}

pub(super) fn print(settings: &LdapSettings, table: &mut Table) {
    let LdapSettings {
        urls,
        starttls,
        dangerous_plaintext,
        ca,
        bind,
        base,
        filter,
        strip_domain,
        subject,
        active,
        valid_from,
        account,
        scopes,
        claims,
        profile,
        groups,
        pool,
    } = settings;
    put(table, "kind", "ldap");
    put(table, "url", texts(urls));
    put(table, "starttls", *starttls);
    put(table, "dangerous_plaintext", *dangerous_plaintext);
    put_some(table, "ca", ca.as_deref().map(path));
    put_some(table, "bind_dn", bind.as_ref().map(|(dn, _)| dn.as_str()));
    put_some(table, "bind_password_file", bind.as_ref().map(|(_, file)| path(file)));
    put(table, "base", base.as_str());
    put(table, "filter", filter.source());
    put(table, "strip_domain", *strip_domain);
    put(table, "subject", subject.as_str());
    put_some(table, "active", active.as_ref().map(Filter::source));
    put_some(table, "valid_from", valid_from.as_deref());
    put_some(table, "account", account.as_deref());
    put(table, "scopes", texts(&scopes.iter().collect::<Vec<_>>()));
    put(table, "pool", number(*pool));
    let mapping = |map: &BTreeMap<String, String>| -> Table {
        map.iter().map(|(name, attribute)| (name.clone(), attribute.as_str().into())).collect()
    };
    put(table, "claims", mapping(claims));
    put(table, "profile", mapping(profile));
    let Some(GroupSettings { by, name, nested, scopes, roles }) = groups else { return };
    let mut of_groups = Table::new();
    match by {
        GroupsBy::Filter { base, filter } => {
            put(&mut of_groups, "base", base.as_str());
            put(&mut of_groups, "filter", filter.source());
        }
        GroupsBy::Attribute(attribute) => put(&mut of_groups, "attribute", attribute.as_str()),
    }
    put(&mut of_groups, "name", name.as_str());
    put(&mut of_groups, "nested", number(*nested));
    put(&mut of_groups, "roles", *roles);
    let scopes: Table = scopes
        .iter()
        .map(|(name, scope)| (name.clone(), Toml::from(scope.iter().map(Toml::from).collect::<Vec<_>>())))
        .collect();
    put(&mut of_groups, "scopes", scopes);
    put(table, "groups", of_groups);
}
