//! `[directory]` with `kind = "ldap"`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Table;
use toml::Value as Toml;

use super::super::super::declare::section;
use super::super::super::print::{Print, Put};
use super::super::super::value;
use super::super::path_in;
use rotogate_core::claim::OwnClaims;
use rotogate_core::session::Scope;
use rotogate_directories::SourceSettings;
use rotogate_directories::ldap::filter::{Filter, Placeholder};
use rotogate_directories::ldap::{GroupSettings, GroupsBy, LdapSettings};
use rotogate_kit::config::{Section, Value};

/// The defaults for one kind of LDAP server.
#[derive(Clone, Copy)]
struct Preset {
    filter: Option<&'static str>,
    subject: &'static str,
    active: Option<&'static str>,
    valid_from: Option<&'static str>,
    group_filter: &'static str,
}

/// The defaults without a preset: standard attributes of RFC 4519 and RFC 4530.
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

section! {
    impl LdapSettings, read by read_keys(section, dir: &Path, preset: Preset) {
        /// Required: URL of one server, or a list of several, which are tried in this order: `ldaps://`, `ldap://`,
        /// `ldapi://%2frun%2fslapd%2fldapi`.
        reload urls as "url": Vec<String> = by { self::urls(section) },
        /// The account with which the gate searches.
        reload bind as "..": Option<(String, PathBuf)> = by { self::bind(section, dir) },
        /// Base DN of the search for users.
        reload base: String = required(BASE, value::text),
        /// Filter that finds the user with the name `{username}`, which the gate escapes. Required without `preset`.
        /// With `preset = "ad"`, users are found by `sAMAccountName`; set the filter if they log in with another name,
        /// such as their mail address.
        reload filter: Filter = by { read_filter(section, preset) },
        /// true: the gate switches `ldap://` connections to TLS (StartTLS) before it sends anything else. Set it if the
        /// server has no port for `ldaps://`.
        reload starttls: bool = get_or(value::boolean, false),
        /// true: allows `ldap://` without TLS, so that passwords are sent in clear text. Only for a server on the same
        /// machine, or for tests.
        reload dangerous_plaintext: bool = get_or(value::boolean, false),
        /// File (PEM) with the only certificate authorities that the gate trusts for this server. Set it if an internal
        /// authority issued the server's certificate. Default: the system's authorities.
        reload ca: Option<PathBuf> = get(path_in(dir)),
        /// true: removes the domain from a username (`EXAMPLE\ada`). Set it if users type their domain, but `filter`
        /// expects names without it.
        reload strip_domain: bool = get_or(value::boolean, false),
        /// Attribute for the claim `sub`. Its values must never be reassigned to another user. With `preset = "ad"`:
        /// objectGUID. Set it if the server has no `entryUUID`, or if your services identify users by another
        /// attribute.
        reload subject: String = get_or(attribute, preset.subject.to_owned()),
        /// Filter that a user must match to log in and refresh; `{now}` is the time as a FILETIME. Unset: every user
        /// matches. With `preset = "ad"`, the filter matches users who are enabled, not locked and not expired. Set it
        /// if the directory keeps users who may no longer log in.
        reload active: Option<Filter> = by {
            let own = section.get("active", filter_of(Placeholder::Now, false));
            own.or_else(|| preset_filter(section, preset.active, Placeholder::Now))
        },
        /// Attribute with the time of the user's last password change. Sessions that began before that time end. With
        /// `preset = "ad"`: pwdLastSet. Set it if the server has such an attribute (`pwdChangedTime`); otherwise
        /// sessions continue after a password change.
        reload valid_from: Option<String> = by {
            section.get("valid_from", attribute).or_else(|| preset.valid_from.map(str::to_owned))
        },
        /// Attribute with the user's account. Set it if users belong to accounts, and endpoints or routes distinguish
        /// them.
        reload account: Option<String> = get(attribute),
        /// Scopes that every user has. Set it if your routes require scopes that all users have.
        reload scopes: Scope = by {
            let list = section.one_or_list("scopes", value::text);
            list.map(|list| scope(section, "scopes", &list)).unwrap_or_default()
        },
        /// Further claims in access tokens, each with the attribute that has its value. Set it if your services need
        /// more data about a user, such as the email address.
        reload claims: BTreeMap<String, String> = by { attributes(section, "claims", true) },
        /// Fields of the user in login responses of dialects, each with the attribute that has its value. Set it for a
        /// client that shows the user's data without another request.
        reload profile: BTreeMap<String, String> = by { attributes(section, "profile", false) },
        /// How the gate finds a user's groups, and what they grant.
        reload groups: Option<GroupSettings> = table(|section| {
            let by = groups_by(section, preset);
            read_groups(section, by)
        }),
        /// Maximum number of connections for searches. Binds use the same number of further connections.
        fixed pool: usize = get_or(value::count(1, 1000), LdapSettings::POOL),
    }
    with {
        /// `"ad"`: the defaults of other keys are for Active Directory. Unset: the defaults use standard LDAP
        /// attributes.
        reload preset: text,
        /// DN of the account with which the gate searches. Unset: the gate searches anonymously. Set it if the server,
        /// like Active Directory, does not allow anonymous searches.
        reload bind_dn: text,
        /// File with the password of `bind_dn`. The gate reads it again when it changes.
        reload bind_password_file: text,
    }
}

section! {
    impl GroupSettings, read by read_groups(section, by: GroupsBy) {
        /// How the gate finds a user's groups.
        reload by as "..": GroupsBy = by { by },
        /// Scopes for the members of each group, in addition to `scopes` of the directory: `{ admins = ["write",
        /// "admin"] }`. Set it if your routes require scopes that only some users have.
        reload scopes: BTreeMap<String, Scope> = by { group_scopes(section) },
        /// Attribute of a group that has the group's name.
        fixed name: String = get_or(attribute, "cn".to_owned()),
        /// How many levels of nested groups the gate follows; at most 5. Active Directory follows nested groups itself.
        /// Set it for other servers if groups can be members of groups.
        reload nested: usize = get_or(value::count(0, 5), 0),
        /// true: the claim `roles` contains the names of the user's groups. Set it if routes or services require roles.
        reload roles: bool = get_or(value::boolean, false),
    }
    with {
        /// Base DN of the search for groups. Required without `attribute`.
        reload base: text,
        /// Filter that finds the groups of the user with the DN `{dn}`. Set it if groups list their members in another
        /// attribute, such as `uniqueMember`. Default: `(member={dn})`; with `preset = "ad"`, the filter also finds
        /// nested groups.
        reload filter: text,
        /// Instead of `base` and `filter`: the attribute of a user that names the groups (`memberOf`). Set it if the
        /// server maintains this attribute, because the gate then does not need a second search.
        reload attribute: text,
    }
}

const BASE: &str = "the DN below which the gate searches users, such as \"ou=people,dc=example,dc=com\"";

pub(super) fn read(section: &Section<'_>, dir: &Path) -> SourceSettings {
    let preset = section.get("preset", value::word(&[("ad", AD)], &[])).unwrap_or(NONE);
    let settings = read_keys(section, dir, preset);
    check(section, &settings);
    SourceSettings::Ldap(Box::new(settings))
}

fn filter_of(placeholder: Placeholder, is_needed: bool) -> impl Fn(&Value) -> Result<Filter, String> {
    move |value| Filter::parse(&value::text(value)?, placeholder, is_needed)
}

fn preset_filter(section: &Section<'_>, text: Option<&str>, placeholder: Placeholder) -> Option<Filter> {
    let parsed = Filter::parse(text?, placeholder, false);
    // Without the filter, the preset would admit disabled users.
    parsed.map_err(|message| section.blame("preset", message)).ok()
}

fn read_filter(section: &Section<'_>, preset: Preset) -> Filter {
    if section.has("filter") || preset.filter.is_none() {
        let expected = "a filter such as \"(&(objectClass=person)(uid={username}))\"";
        return section.required("filter", expected, filter_of(Placeholder::Username, true));
    }
    preset_filter(section, preset.filter, Placeholder::Username).unwrap_or_default()
}

fn urls(section: &Section<'_>) -> Vec<String> {
    if !section.has("url") {
        section.require("url", "the URLs of the LDAP servers, such as \"ldaps://ldap.example.com\"", value::text);
        return Vec::new();
    }
    section.one_or_list("url", url).unwrap_or_default()
}

fn url(value: &Value) -> Result<String, String> {
    let text = value::text(value)?;
    let server = text.strip_suffix('/').unwrap_or(&text);
    let rest = ["ldap://", "ldaps://", "ldapi://"].iter().find_map(|scheme| server.strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(['/', '?', '#', '@', ' ']) => Ok(server.to_owned()),
        Some(_) | None => Err(format!(
            "expected ldaps://host, ldap://host or ldapi://%2fpath%2fof%2fsocket, with a port if it is not the \
             default port, and without a search base, which belongs into `base`; found {}",
            value.describe()
        )),
    }
}

fn bind(section: &Section<'_>, dir: &Path) -> Option<(String, PathBuf)> {
    let (dn, file) = (section.get("bind_dn", value::text), section.get("bind_password_file", path_in(dir)));
    match (dn, file) {
        (Some(dn), Some(file)) => return Some((dn, file)),
        (Some(_), None) if !section.has("bind_password_file") => {
            section.blame("bind_password_file", "missing; expected the file with the password for `bind_dn`");
        }
        (None, Some(_)) if !section.has("bind_dn") => {
            section.blame("bind_dn", "missing; expected the DN whose password is in `bind_password_file`");
        }
        (_, _) => {}
    }
    None
}

/// The name of an attribute (RFC 4512 §2.5).
fn attribute(value: &Value) -> Result<String, String> {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-.;".contains(&byte);
    value::fitting(value, "the name of an attribute", |name| name.len() <= 128 && name.bytes().all(is_known))
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

fn groups_by(section: &Section<'_>, preset: Preset) -> GroupsBy {
    let filter = section.get("filter", filter_of(Placeholder::Dn, true));
    let found_by = section.get("attribute", attribute);
    if !section.has("attribute") {
        let base = section.required("base", "the DN below which the gate searches groups, or `attribute`", value::text);
        let preset = || Filter::parse(preset.group_filter, Placeholder::Dn, true).unwrap_or_default();
        return GroupsBy::Filter { base, filter: filter.unwrap_or_else(preset) };
    }
    if section.has("filter") {
        section.blame("attribute", "cannot be combined with `filter`; remove one of the two");
    } else if section.has("base") {
        section.blame(
            "base",
            "only applies to a search with `filter`, but `attribute` names the groups; remove one of the two",
        );
    }
    section.get("base", value::text);
    GroupsBy::Attribute(found_by.unwrap_or_default())
}

fn group_scopes(section: &Section<'_>) -> BTreeMap<String, Scope> {
    let mut scopes = BTreeMap::new();
    for (name, value) in section.section("scopes").free() {
        match value::one_or_several(value, value::text) {
            Ok(list) => drop(scopes.insert(name.to_owned(), scope(section, "scopes", &list))),
            Err(message) => section.blame("scopes", format!("{name}: {message}")),
        }
    }
    scopes
}

fn check(section: &Section<'_>, settings: &LdapSettings) {
    let is_plain = settings.urls.iter().any(|url| url.starts_with("ldap://"));
    if is_plain && !settings.starttls && !settings.dangerous_plaintext {
        let message = "contains ldap://, which sends passwords unencrypted; write ldaps://, or `starttls = true`";
        section.blame("url", message);
    }
    if settings.starttls && !is_plain && !settings.urls.is_empty() {
        section.blame("starttls", "only applies to ldap:// URLs, but `url` has none");
    }
    if settings.claims.contains_key(OwnClaims::ROLES) && settings.groups.as_ref().is_some_and(|groups| groups.roles) {
        section.blame("claims", "sets `roles`, and so does `groups.roles`; remove one of the two");
    }
}

impl Print for (String, PathBuf) {
    fn print(&self) -> Toml {
        let (dn, file) = self;
        let mut table = Table::new();
        dn.put(&mut table, "bind_dn");
        file.put(&mut table, "bind_password_file");
        table.into()
    }
}

impl Print for Filter {
    fn print(&self) -> Toml {
        self.source().into()
    }
}

impl Print for GroupsBy {
    fn print(&self) -> Toml {
        let mut table = Table::new();
        match self {
            Self::Filter { base, filter } => {
                base.put(&mut table, "base");
                filter.put(&mut table, "filter");
            }
            Self::Attribute(attribute) => attribute.put(&mut table, "attribute"),
        }
        table.into()
    }
}
