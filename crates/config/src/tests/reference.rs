//! docs/configuration.md and the comments of crates/config/reference.toml are generated from the declarations.

use std::collections::BTreeSet;
use std::path::Path;

use toml::Value;

use super::super::declare::Key;
use super::super::print::Print;
use crate::{Config, HashesConfig, REFERENCE, parse};
use rotogate_core::bounds::{InputBound, OF_ANSWERS, OF_REQUESTS, OF_TOKENS};
use rotogate_core::route::RoutePolicy;
use support::generated::{assert_current, assert_part_is_current};

/// Whether this build has all keys.
pub(crate) const IS_FULL: bool =
    cfg!(all(feature = "ldap", feature = "otel", feature = "postgres", feature = "redis", feature = "sql"));

/// A configuration with each section. It sets no key that has a default.
const WHOLE: &str = r#"
server = { public_url = "http://127.0.0.1:8080", listeners = [{ address = "127.0.0.1:8443" }] }
issuer = { audience = ["api"] }
identity = { assertion = { header = "x-auth-assertion" } }
tracing = { endpoint = "http://127.0.0.1:4317" }
dpop = {}
api_keys = {}
clients = [{ id = "web" }]
resources = [{ path = "/api" }]
[[upstreams]]
name = "app"
urls = ["http://127.0.0.1:9000"]
health = "/healthz"
[[routes]]
path = "/{*rest}"
upstream = "app"
issuers = ["idp.example.com", "opaque.example.com"]
rate = [{ per = "subject", limit = "100/1m" }]
[[authorizers]]
listen = "127.0.0.1:8090"
kind = "nginx"
trusted_proxies = ["127.0.0.1/32"]
[[issuers]]
url = "https://idp.example.com"
audience = "x"
discovery = true
[[issuers]]
url = "https://opaque.example.com"
audience = "x"
introspection = { url = "https://opaque.example.com/i", client_id = "gate", secret_file = "secret" }
"#;

/// A kind of a section with keys of its own.
struct Variant {
    /// The name of the section.
    of: &'static str,
    /// The key that names the kind, and its value.
    named: (&'static str, &'static str),
    keys: &'static [&'static [Key]],
    page: &'static str,
    /// A configuration of this kind.
    text: &'static str,
}

const fn variant(
    of: &'static str,
    named: (&'static str, &'static str),
    keys: &'static [&'static [Key]],
    page: &'static str,
    text: &'static str,
) -> Variant {
    Variant { of, named, keys, page, text }
}

const VARIANTS: &[Variant] = &[
    #[cfg(feature = "redis")]
    variant(
        "store",
        ("kind", "redis"),
        &[<crate::RedisSettings as Print>::KEYS],
        "redis",
        "[store]\nkind = \"redis\"\nurls = [\"redis://127.0.0.1\"]",
    ),
    #[cfg(feature = "postgres")]
    variant(
        "store",
        ("kind", "postgres"),
        &[<crate::PostgresSettings as Print>::KEYS],
        "postgres",
        "[store]\nkind = \"postgres\"\nurl = \"postgres://gate@127.0.0.1/x\"",
    ),
    variant(
        "directory",
        ("kind", "http"),
        &[<rotogate_directories::http::HttpSettings as Print>::KEYS, <rotogate_directories::Bounds as Print>::KEYS],
        "directories",
        "[directory]\nkind = \"http\"\nurl = \"http://127.0.0.1:1/x\"",
    ),
    #[cfg(feature = "ldap")]
    variant(
        "directory",
        ("kind", "ldap"),
        &[<rotogate_directories::ldap::LdapSettings as Print>::KEYS, <rotogate_directories::Bounds as Print>::KEYS],
        "directories",
        "[directory]\nkind = \"ldap\"\nurl = \"ldaps://l.example\"\nbase = \"dc=x\"\nfilter = \"(uid={username})\"\n\
         [directory.groups]\nattribute = \"memberOf\"",
    ),
    #[cfg(feature = "sql")]
    variant(
        "directory",
        ("kind", "sql"),
        &[<rotogate_directories::sql::SqlSettings as Print>::KEYS, <rotogate_directories::Bounds as Print>::KEYS],
        "directories",
        "[directory]\nkind = \"sql\"\nurl = \"sqlite:u.db\"\n\
         authenticate = \"SELECT a AS subject, b AS password_hash FROM u WHERE c = {username}\"\n\
         lookup = \"SELECT a AS subject FROM u WHERE a = {subject}\"",
    ),
    variant(
        "endpoints",
        ("dialect", "envelope"),
        &[<rotogate::dialect::envelope::Envelope as Print>::KEYS],
        "protocols",
        "[[endpoints]]\ndialect = \"envelope\"",
    ),
    variant(
        "endpoints",
        ("dialect", "kuzzle"),
        &[<crate::sections::endpoints::KuzzleConfig as Print>::KEYS],
        "kuzzle",
        "[[endpoints]]\ndialect = \"kuzzle\"",
    ),
    variant(
        "endpoints",
        ("dialect", "browser"),
        &[<crate::BrowserConfig as Print>::KEYS],
        "browser",
        "[[endpoints]]\ndialect = \"browser\"",
    ),
    variant(
        "endpoints",
        ("dialect", "my-sessions"),
        &[<rotogate::dialect::my_sessions::MySessions as Print>::KEYS],
        "my-sessions",
        "[[endpoints]]\ndialect = \"my-sessions\"",
    ),
    variant(
        "endpoints",
        ("dialect", "my-keys"),
        &[<rotogate::dialect::my_keys::MyKeys as Print>::KEYS],
        "api-keys",
        "[[endpoints]]\ndialect = \"my-keys\"",
    ),
    variant(
        "endpoints",
        ("dialect", "relay"),
        &[<crate::RelaySettings as Print>::KEYS],
        "relay",
        "[[endpoints]]\ndialect = \"relay\"\ntoken_url = \"https://idp.example.com/token\"",
    ),
];

/// The keys of a section, or of one kind of the section.
struct Table {
    /// The section, such as `server.listeners`.
    path: String,
    is_list: bool,
    variant: Option<&'static Variant>,
    about: String,
    rows: Vec<Row>,
    /// The bounds that no key sets.
    fixed: Vec<Row>,
}

struct Row {
    name: String,
    key: &'static Key,
    /// The printed value if the key is absent.
    default: Option<Value>,
}

/// The meaning and the default of a key, in words.
struct Description {
    text: String,
    is_required: bool,
    default: Option<String>,
}

impl Table {
    fn heading(&self) -> String {
        let Self { path, is_list, variant, .. } = self;
        let heading = if *is_list { format!("[[{path}]]") } else { format!("[{path}]") };
        match variant {
            Some(Variant { named: (key, word), .. }) => format!("{heading} with {key} = \"{word}\""),
            None => heading,
        }
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }
}

impl Row {
    fn description(&self) -> Description {
        let text = words(self.key.about);
        let required = text.strip_prefix("Required: ");
        let is_required = required.is_some() || self.key.how.starts_with("required");
        let text = required.unwrap_or(&text);
        let (text, default) = match text.split_once(" Default: ") {
            Some((text, default)) => (text, Some(default.trim_end_matches('.').to_owned())),
            None => (text, None),
        };
        Description { text: text.to_owned(), is_required, default }
    }

    /// The type of the key, in words.
    fn kind(&self) -> &'static str {
        let Key { type_name, how, inner, .. } = self.key;
        let name = type_name.strip_prefix("Option<").map_or(*type_name, |name| name.trim_end_matches('>'));
        match name {
            _ if how.contains("value::word(") => "text",
            _ if how.contains("value::size") => "size",
            _ if how.contains("share_of") => "share or number",
            "share" => "share or number",
            "text" | "list" | "number" | "boolean" | "duration" | "size" | "table" => name,
            "bool" => "boolean",
            "usize" | "u64" | "u32" | "f64" | "NonZeroUsize" | "NonZeroU32" | "Sample" | "StatusCode" => "number",
            "Duration" => "duration",
            "Rate" => "rate",
            "Scope" | "AllowedScopes" => "list",
            "CertificateAndKey" | "ClaimHeaders" | "EventEffects" => "table",
            _ if name.starts_with("Vec<") => "list",
            _ if name.starts_with("BTreeMap<") || !inner.is_empty() => "table",
            _ => "text",
        }
    }

    /// Whether its keys have rows.
    fn is_divided(&self) -> bool {
        let has_rows = self.key.name == "claims" && self.default.as_ref().is_some_and(has_entries);
        has_rows || !self.key.inner.is_empty()
    }

    /// The default of the key as a value.
    fn literal(&self) -> Option<String> {
        let percent = self.key.how.split_once("Share::Percent(").and_then(|(_, rest)| rest.split_once(')'));
        let value = self.default.as_ref()?;
        Some(match (value, percent) {
            (_, Some((percent, _))) => format!("\"{percent}%\""),
            (Value::Integer(bytes), _) if self.kind() == "size" && *bytes >= 1024 => match (bytes >> 20, bytes >> 10) {
                (mib, _) if mib << 20 == *bytes => format!("\"{mib}MiB\""),
                (_, kib) if kib << 10 == *bytes => format!("\"{kib}KiB\""),
                _ => bytes.to_string(),
            },
            (Value::String(text), _) if text == "1d" => "\"24h\"".to_owned(),
            (Value::String(text), _) => format!("\"{}\"", text.trim_start_matches("/etc/rotogate/")),
            (other, _) => other.to_string(),
        })
    }
}

fn has_entries(value: &Value) -> bool {
    value.as_table().is_some_and(|table| !table.is_empty())
}

/// Joins the lines of a comment.
fn words(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// All tables, in the order of the declarations.
fn tables() -> Vec<Table> {
    let whole = Printed::new("");
    let mut tables = Vec::new();
    for key in Config::KEYS.iter().filter(|key| key.class != "no_key") {
        let (path, keys, is_list) = match key.name {
            "-" if key.type_name.contains("Route") => ("routes", RoutePolicy::KEYS, true),
            "-" => ("directory", HashesConfig::KEYS, false),
            name => (name, key.inner, key.type_name.starts_with("Vec<")),
        };
        add(&mut tables, Table::new(path, is_list, words(key.about)), keys, &whole);
    }
    for variant in VARIANTS {
        let printed = Printed::new(variant.text);
        let is_list = variant.of == "endpoints";
        let about = format!("See docs/{}.md.", variant.page);
        let table = Table { variant: Some(variant), ..Table::new(variant.of, is_list, about) };
        let at = tables.len();
        add(&mut tables, table, &[], &printed);
        for keys in variant.keys {
            collect(&mut tables, at, keys, "", &printed);
        }
    }
    tables
}

impl Table {
    fn new(path: &str, is_list: bool, about: String) -> Self {
        Self { path: path.to_owned(), is_list, variant: None, about, rows: Vec::new(), fixed: Vec::new() }
    }
}

fn add(tables: &mut Vec<Table>, table: Table, keys: &'static [Key], printed: &Printed) {
    let at = tables.len();
    tables.push(table);
    collect(tables, at, keys, "", printed);
}

/// Adds the keys to a table. The keys of a list of tables become a separate table.
fn collect(tables: &mut Vec<Table>, at: usize, keys: &'static [Key], prefix: &str, printed: &Printed) {
    for key in keys.iter().filter(|key| key.class != "no_key" && key.name != "-") {
        let name = format!("{prefix}{}", key.name);
        if key.name == ".." {
            collect(tables, at, key.inner, prefix, printed);
        } else if let Some(value) = key.fixed {
            tables[at].fixed.push(Row { name, key, default: Some(value()) });
        } else if !key.inner.is_empty() && key.type_name.starts_with("Vec<") && prefix.is_empty() {
            let path = format!("{}.{name}", tables[at].path);
            add(tables, Table::new(&path, true, words(key.about)), key.inner, printed);
        } else {
            let Table { path, variant, .. } = &tables[at];
            let default = printed.default_of(&format!("{path}.{name}"), *variant);
            tables[at].rows.push(Row { name: name.clone(), key, default });
            // The keys of a profile are listed under [sessions], and the keys of an authorizer's `tls` under
            // [[server.listeners]].
            let is_elsewhere = name == "profile" || (name == "tls" && tables[at].path == "authorizers");
            if !is_elsewhere && !key.type_name.starts_with("Vec<") {
                collect(tables, at, key.inner, &format!("{name}."), printed);
            }
        }
    }
}

/// A configuration as written, and as printed.
struct Printed {
    written: Value,
    printed: Value,
}

impl Printed {
    fn new(more: &str) -> Self {
        let text = format!("{WHOLE}{more}");
        let config = parse(&text, Path::new("/etc/rotogate/gateway.toml"), &()).unwrap();
        let printed = config.to_toml().parse::<toml::Table>().unwrap().into();
        Self { written: text.parse::<toml::Table>().unwrap().into(), printed }
    }

    /// The printed value of a key that is absent.
    fn default_of(&self, path: &str, variant: Option<&Variant>) -> Option<Value> {
        let of = variant.map(|variant| variant.named);
        match find(&self.written, path, of) {
            Some(_) => None,
            None => find(&self.printed, path, of).cloned(),
        }
    }
}

/// The value at a path. In a list, the value of the first entry that has the key and is of the given kind.
fn find<'a>(value: &'a Value, path: &str, of: Option<(&str, &str)>) -> Option<&'a Value> {
    let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
    let value = value.get(key)?;
    let Some(rest) = rest else { return Some(value) };
    let is_of_kind = |entry: &&Value| of.is_none_or(|(key, word)| entry.get(key).and_then(Value::as_str) == Some(word));
    match value {
        Value::Array(list) => list.iter().filter(is_of_kind).find_map(|entry| find(entry, rest, None)),
        one => find(one, rest, None),
    }
}

/// A key, or the head of a section, in reference.toml.
struct Line<'a> {
    /// The line without its comment.
    body: &'a str,
    is_commented: bool,
    table: usize,
    /// `None`: the head of the section.
    name: Option<String>,
    value: &'a str,
}

/// The part before the comment. A `#` in a string does not begin a comment.
fn body(line: &str) -> &str {
    let mut quote = None;
    for (at, c) in line.char_indices().skip(2) {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '#' => return line[..at].trim_end(),
            None => {}
        }
    }
    line.trim_end()
}

/// Each line of reference.toml that has a key or begins a section, and the other lines. Continuation lines of comments
/// are left out.
fn shipped(tables: &[Table]) -> Vec<Result<Line<'static>, &'static str>> {
    let lines: Vec<&str> = REFERENCE.lines().collect();
    let mut found = Vec::new();
    let (mut path, mut base, mut own) = (String::new(), None, None);
    for (at, line) in lines.iter().enumerate() {
        let rest = line.strip_prefix('#').unwrap_or(line);
        if rest.starts_with(&" ".repeat(20)) {
            continue;
        }
        let body = body(line);
        let is_commented = body.starts_with("# ");
        let text = body.trim_start_matches("# ");
        if text.starts_with('[') && text.ends_with(']') && !text.contains([' ', '"']) {
            path = text.trim_matches(['[', ']']).to_owned();
            let after = lines[at + 1..].iter().take_while(|line| !line.trim_start_matches("# ").starts_with('['));
            let after: Vec<&str> = after.map(|line| line.trim_start_matches("# ")).collect();
            let is_of = |table: &Table, kind: Option<(&str, &str)>| {
                table.path == path && table.variant.map(|variant| variant.named) == kind
            };
            let names = |variant: &&Variant| {
                let (key, word) = variant.named;
                after.iter().any(|line| line.starts_with(&format!("{key} = \"{word}\"")))
            };
            let variant = VARIANTS.iter().filter(|variant| variant.of == path).find(names);
            base = tables.iter().position(|table| is_of(table, None));
            own = tables.iter().position(|table| variant.is_some() && is_of(table, variant.map(|one| one.named)));
            let table = base.unwrap_or_default();
            // A table within a section is a key of this section.
            let name = if base.is_none() { path.split_once('.').map(|(_, name)| name.to_owned()) } else { None };
            if own.is_some() {
                found.push(Err(*line));
                continue;
            }
            let table = if base.is_none() { section(tables, &path) } else { table };
            found.push(Ok(Line { body, is_commented, table, name, value: "" }));
            continue;
        }
        let Some((key, value)) = text.split_once(" = ").filter(|(key, _)| !path.is_empty() && !key.contains(' '))
        else {
            found.push(Err(*line));
            continue;
        };
        let (table, name) = match (own, base) {
            (Some(own), _) if tables[own].row(key).is_some() => (own, key.to_owned()),
            (_, Some(base)) => (base, key.to_owned()),
            (_, None) => (section(tables, &path), format!("{}.{key}", path.split_once('.').unwrap().1)),
        };
        assert!(
            tables[table].row(&name).is_some(),
            "reference.toml: {}: no such key is declared: {name}",
            tables[table].path
        );
        found.push(Ok(Line { body, is_commented, table, name: Some(name), value }));
    }
    found
}

/// The section of a table within it.
fn section(tables: &[Table], path: &str) -> usize {
    let section = path.split('.').next().unwrap();
    tables.iter().position(|table| table.path == section).unwrap()
}

/// The first and the last column of comments.
const COLUMNS: (usize, usize) = (39, 120);

/// A line of reference.toml with its comment.
fn commented(line: &Line<'_>, comment: &str) -> String {
    let comment = comment.trim_end_matches('.').replace('`', "");
    let mut lines = vec![line.body.to_owned()];
    let mut is_first = true;
    for word in comment.split_whitespace() {
        let last = lines.last_mut().unwrap();
        let width = last.chars().count();
        if is_first && width + word.chars().count() + 12 < COLUMNS.1 {
            let gap = COLUMNS.0.checked_sub(width).filter(|gap| *gap > 0).unwrap_or(3);
            *last = format!("{last}{}# {word}", " ".repeat(gap));
        } else if !is_first && width + 1 + word.chars().count() <= COLUMNS.1 {
            *last = format!("{last} {word}");
        } else {
            let margin = if line.is_commented { "#" } else { " " };
            lines.push(format!("{margin}{}# {word}", " ".repeat(COLUMNS.0 - 1)));
        }
        is_first = false;
    }
    lines.join("\n")
}

/// A comment in reference.toml is the description of the key, at the first occurrence of the key.
#[test]
fn the_comments_of_the_reference_are_generated() {
    if !IS_FULL {
        return;
    }
    let tables = tables();
    let mut seen = BTreeSet::new();
    let mut text = String::new();
    for line in shipped(&tables) {
        text += &match line {
            Err(other) => other.to_owned(),
            Ok(line) => {
                let table = &tables[line.table];
                let is_new = seen.insert((line.table, line.name.clone()));
                let row = line.name.as_ref().map(|name| table.row(name).unwrap());
                let about = row.map_or_else(
                    || table.about.clone(),
                    |row| {
                        let about = words(row.key.about);
                        let is_said = about.starts_with("Required");
                        match row.description().is_required && !is_said {
                            true => format!("Required: {about}"),
                            false => about,
                        }
                    },
                );
                commented(&line, if is_new { &about } else { "" })
            }
        };
        text.push('\n');
    }
    assert_current("crates/config/reference.toml", &text);
}

/// Keys that are commented out in reference.toml with another value than their default.
const EXAMPLES: [&str; 3] = [
    "server.listeners.proxy_protocol = true, not false",
    "resources.scopes = [\"read\"], not []",
    "routes.upgrade = true, not false",
];

#[test]
fn p68_the_reference_shows_defaults() {
    if !IS_FULL {
        return;
    }
    let tables = tables();
    let mut others = Vec::new();
    for line in shipped(&tables).into_iter().filter_map(Result::ok) {
        let Line { table, name: Some(name), value, is_commented: true, .. } = line else { continue };
        let row = tables[table].row(&name).unwrap();
        let is_a_value = row.description().default.is_none() && !row.is_divided() && !value.is_empty();
        if let Some(default) = row.literal().filter(|default| is_a_value && !is_same(default, value)) {
            others.push(format!("{}.{name} = {value}, not {default}", tables[table].path));
        }
    }
    assert_eq!(others, EXAMPLES);
}

/// Whether two values of a key mean the same.
fn is_same(a: &str, b: &str) -> bool {
    let time = |text: &str| humantime::parse_duration(text.trim_matches('"')).ok();
    a == b || time(a).is_some_and(|a| time(b) == Some(a))
}

/// A key that no table has. The error about it names the keys of the table.
const UNKNOWN: &str = "zzzzzzzz";

fn add_unknown(value: &mut Value) {
    match value {
        Value::Table(table) => {
            table.iter_mut().for_each(|(_, value)| add_unknown(value));
            table.insert(UNKNOWN.to_owned(), true.into());
        }
        Value::Array(list) => list.iter_mut().filter(|entry| entry.is_table()).for_each(add_unknown),
        _ => {}
    }
}

/// Configurations with each table, one for each kind of a section. Some tables lack required keys.
pub(crate) fn configurations() -> impl Iterator<Item = String> {
    let more_tables = WHOLE
        .replace(
            "discovery = true",
            "discovery = true\nfetch = {}\nclaims = {}\nevents = {}\nbackchannel_logout = {}\nid_jag = {}\njwt_bearer = {}",
        )
        .replace("upstream = \"app\"", "upstream = \"app\"\nstep_up = {}")
        .replace("address = \"127.0.0.1:8443\"", "address = \"127.0.0.1:8443\", tls = {}")
        .replace("discovery = true", "discovery = true\nglobal_revocation = {}")
        .replace("resources = ", "providers = [{ name = \"kc\" }]\nresources = ")
        .replace("id = \"web\"", "id = \"web\", profile = {}, exchange = {}, keys = {}");
    VARIANTS.iter().map(|variant| variant.text).chain([""]).map(move |more| format!("{more_tables}{more}"))
}

#[test]
fn p65_each_key_that_is_read_is_declared() {
    if !IS_FULL {
        return;
    }
    let tables = tables();
    let names: BTreeSet<String> =
        tables.iter().flat_map(|table| table.rows.iter().map(|row| format!("{}.{}", table.path, row.name))).collect();
    let sections: BTreeSet<&str> = tables.iter().map(|table| &*table.path).chain(["directories"]).collect();
    let mut seen = 0;
    for text in configurations() {
        let mut root = Value::from(text.parse::<toml::Table>().unwrap());
        add_unknown(&mut root);
        let errors = parse(&toml::to_string(&root).unwrap(), Path::new("gateway.toml"), &()).unwrap_err();
        for error in errors.iter() {
            let Some(path) = error.key.strip_suffix(UNKNOWN) else { continue };
            let path: String =
                path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect();
            let (_, known) = error.message.split_once("expected one of ").unwrap();
            for key in known.split(", ") {
                seen += 1;
                let name = format!("{path}{key}");
                let is_of_table = |at: (usize, &str)| names.contains(&name[..at.0]);
                let is_declared =
                    sections.contains(&*name) || names.contains(&name) || name.match_indices('.').any(is_of_table);
                assert!(is_declared, "{name} is read, and is not declared");
            }
        }
    }
    assert!(seen > 800, "{seen}");
}

/// A cell of a Markdown table, with links to pages.
fn cell(text: &str) -> String {
    let mut found = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("docs/") {
        let end = after.find(".md").map_or(0, |end| end + 3);
        let (page, after) = after.split_at(end);
        found += &format!("{before}[{page}]({page})");
        rest = after;
    }
    (found + rest).replace('|', "\\|")
}

/// The generated part of docs/configuration.md.
fn reference() -> String {
    let tables = tables();
    let lines: Vec<Line<'_>> = shipped(&tables).into_iter().filter_map(Result::ok).collect();
    let mut text = String::new();
    let mut shown = Shown::default();
    for (at, table) in tables.iter().enumerate() {
        let (about, change) = (cell(&table.about), change_of(table));
        text += &format!("\n## {}\n\n{about}{change}\n\n| key | default | meaning |\n|---|---|---|\n", table.heading());
        let (shared, others) = shared_with_other_kinds(&tables[..at], table);
        let mut rows: Vec<_> = table.rows.iter().filter(|row| !shared.contains(&&*row.name)).collect();
        let place =
            |row: &Row| lines.iter().position(|line| line.table == at && line.name.as_deref() == Some(&row.name));
        // Keys that are not in reference.toml come last. The keys of a table follow the table.
        rows.sort_by_key(|row| {
            let parent = row.name.split('.').next().unwrap();
            let of = |name: &str| table.row(name).and_then(place);
            (of(&row.name).or_else(|| of(parent)).unwrap_or(usize::MAX), row.name != parent)
        });
        for row in rows {
            if let Some(keys) = shown.keys_of(table, row) {
                text += &line_of_reference(row, place(row).map(|at| &lines[at]), &keys);
            }
        }
        text += &others;
        text += &shown.fixed_of(table);
    }
    text.trim_start().to_owned()
}

#[test]
fn p65_p68_the_reference_of_the_configuration_is_generated() {
    if IS_FULL {
        assert_part_is_current("docs/configuration.md", "keys", &reference());
    }
}

#[test]
fn p68_the_names_of_the_texts_are_generated() {
    let names: Vec<_> = rotogate::program::text_names().collect();
    let mut lines = vec![String::new()];
    for name in names {
        if lines.last().is_some_and(|line| line.len() + name.len() > 110) {
            lines.push(String::new());
        }
        let line = lines.last_mut().unwrap();
        *line += if line.is_empty() { "" } else { ", " };
        *line += name;
    }
    assert_part_is_current("docs/browser.md", "texts", &format!("```text\n{}\n```\n", lines.join(",\n")));
}

/// The generated part of docs/bounds.md.
fn bounds_page() -> String {
    let size = |bound: &InputBound| match bound.most {
        most if !bound.is_bytes => most.to_string(),
        most if most >= 1 << 20 => format!("{} MiB", most >> 20),
        most if most >= 1 << 10 => format!("{} KiB", most >> 10),
        most => format!("{most} bytes"),
    };
    let tables = [("A request", OF_REQUESTS), ("A token", OF_TOKENS), ("An answer", OF_ANSWERS)];
    let table = |(of, bounds): (&str, &[InputBound])| {
        let line = |what: &str, most: &str, beyond: &str| {
            let [what, beyond] = [what, beyond].map(|text| text.replace('`', ""));
            format!("{what:<72}{most:<11}{beyond}\n")
        };
        let rows = bounds.iter().map(|bound| line(bound.what.trim(), &size(bound), bound.beyond));
        line(of, "at most", "beyond it") + &rows.collect::<String>() + "\n"
    };
    let tables = tables.map(table).concat();
    let row = |name: &str, most: &str, bytes: &str| format!("{name:<72}{most:<11}{bytes}\n");
    let rows = rotogate::program::SPACES.iter().map(|space| {
        let size = match space.max_bytes() {
            bytes if bytes >= 1 << 10 => format!("{} KiB", bytes >> 10),
            bytes => format!("{bytes} bytes"),
        };
        row(space.name(), &space.max_rows().to_string(), &size)
    });
    let rows = row("Rows in the store", "at most", "size of each") + &rows.collect::<String>();
    format!("```text\n{tables}{}\n```\n", rows.trim_end())
}

#[test]
fn p68_the_table_of_bounds_is_generated() {
    assert_part_is_current("docs/bounds.md", "bounds", &bounds_page());
}

/// The most keys in the reference, and of those the most that a gate needs to know without the parts below. A new key
/// needs a user who can say which value they want, and why the default is wrong for them; or it takes the place of another.
const MOST_KEYS: (usize, usize) = (353, 258);

/// Sections of LDAP, SQL, Redis, PostgreSQL, the relay, token exchange and MCP.
const PARTS: [&str; 7] = [
    "[store] with kind = \"redis\"",
    "[store] with kind = \"postgres\"",
    "[directory] with kind = \"ldap\"",
    "[directory] with kind = \"sql\"",
    "[[endpoints]] with dialect = \"relay\"",
    "[[providers]]",
    "[[resources]]",
];

/// Keys of other sections for token exchange, identity assertions and MCP. Each stands for the keys of its table as well.
const KEYS_OF_PARTS: [(&str, &str); 6] = [
    ("[[issuers]]", "id_jag"),
    ("[[clients]]", "exchange"),
    ("[[upstreams]]", "exchange"),
    ("[identity]", "headers.actor"),
    ("[[routes]]", "resource"),
    ("[[routes]]", "calls"),
];

/// Counts the rows of keys. A row about a bound that no key sets is no row of a key.
#[test]
fn p65_the_reference_has_no_more_keys_than_it_had() {
    if !IS_FULL {
        return;
    }
    let (mut all, mut without_parts) = (0, 0);
    for section in reference().split("\n## ") {
        let heading = section.lines().next().unwrap_or_default().trim_start_matches("## ");
        let keys = section.split("\nNo key sets these").next().unwrap_or_default();
        for row in keys.lines().filter_map(|line| line.strip_prefix("| `")) {
            let name = row.split('`').next().unwrap_or_default();
            let is_of = |(section, key): &(&str, &str)| {
                *section == heading
                    && name.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            all += 1;
            without_parts += usize::from(!PARTS.contains(&heading) && !KEYS_OF_PARTS.iter().any(is_of));
        }
    }
    assert!(all <= MOST_KEYS.0 && without_parts <= MOST_KEYS.1, "{all} keys, and {without_parts} without parts");
    // Nothing that is left out above has another name by now.
    for (section, key) in KEYS_OF_PARTS {
        let of_section = reference();
        let of_section = of_section.split("## ").find(|text| text.starts_with(&format!("{section}\n"))).unwrap();
        assert!(of_section.contains(&format!("\n| `{key}` |")), "{section} has no {key}");
    }
    assert!(PARTS.iter().all(|part| reference().contains(&format!("## {part}\n"))));
}

/// The tables within sections that have been shown. Sections share some of them, and the reference shows each once.
#[derive(Default)]
struct Shown {
    /// The names and descriptions of the keys, and the place of the table.
    tables: Vec<(Vec<(String, String)>, String)>,
    /// The prefixes of keys that are shown elsewhere, with the place in [`tables`].
    elsewhere: Vec<(String, String)>,
    /// The bounds that were shown: section, name and description.
    fixed: BTreeSet<(String, String, String)>,
}

impl Shown {
    /// Where the keys of the table are that a row holds, if another section shows them. `None`: the row itself is shown
    /// there.
    fn keys_of(&mut self, table: &Table, row: &Row) -> Option<String> {
        let heading = table.heading();
        if self.elsewhere.iter().any(|(of, prefix)| *of == heading && row.name.starts_with(&**prefix)) {
            return None;
        }
        let prefix = format!("{}.", row.name);
        let inner = table.rows.iter().filter_map(|row| Some((row.name.strip_prefix(&prefix)?, row)));
        let keys: Vec<_> = inner.map(|(name, row)| (name.to_owned(), words(row.key.about))).collect();
        if keys.is_empty() {
            return Some(String::new());
        }
        let Some((_, place)) = self.tables.iter().find(|(known, _)| *known == keys) else {
            self.tables.push((keys, format!("`{}` of `{heading}`", row.name)));
            return Some(String::new());
        };
        self.elsewhere.push((heading, prefix));
        Some(format!(" Its keys are those of {place}."))
    }
}

impl Shown {
    /// The bounds of a table that no key sets, in a table of their own.
    fn fixed_of(&mut self, table: &Table) -> String {
        let heading = table.heading();
        let is_here = |row: &&Row| {
            let mut elsewhere = self.elsewhere.iter();
            let of_kind = || (table.path.clone(), row.name.clone(), words(row.key.about));
            !elsewhere.any(|(of, prefix)| *of == heading && row.name.starts_with(&**prefix))
                && self.fixed.insert(of_kind())
        };
        let rows: Vec<_> = table.fixed.iter().filter(is_here).collect();
        if rows.is_empty() {
            return String::new();
        }
        let lines = rows.into_iter().map(|row| {
            let value = row.literal().unwrap_or_default();
            format!("| `{}` | `{}` | {} |\n", row.name, cell(value.trim_matches('"')), cell(&words(row.key.about)))
        });
        format!("\nNo key sets these:\n\n| bound | value | meaning |\n|---|---|---|\n{}", lines.collect::<String>())
    }
}

/// The keys of a kind that earlier kinds of the section have as well, and the sentences that say so.
fn shared_with_other_kinds<'a>(earlier: &[Table], table: &'a Table) -> (Vec<&'a str>, String) {
    let (mut shared, mut text) = (Vec::new(), String::new());
    for other in earlier.iter().filter(|other| table.variant.is_some() && other.path == table.path) {
        let Some(Variant { named: (key, word), .. }) = other.variant else { continue };
        let is_same = |row: &&Row| {
            let known = other.row(&row.name);
            known.is_some_and(|known| known.key.about == row.key.about && known.literal() == row.literal())
        };
        let names: Vec<_> = table.rows.iter().filter(is_same).map(|row| &*row.name).collect();
        let names: Vec<_> = names.into_iter().filter(|name| !shared.contains(name)).collect();
        if !names.is_empty() {
            text += &format!("\nAs with `{key} = \"{word}\"`: {}.\n", listed(&names, "and"));
        }
        shared.extend(names);
    }
    (shared, text)
}

/// Names as code, with a word before the last one.
fn listed(names: &[&str], word: &str) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match &*names {
        [names @ .., last] if !names.is_empty() => format!("{} {word} {last}", names.join(", ")),
        names => names.concat(),
    }
}

/// The sentence about changes that a reload does not apply.
fn change_of(table: &Table) -> String {
    let is_upgrade = |row: &Row| row.key.class == "restart";
    // The keys of a table change as the table does.
    let is_as_its_table = |row: &Row| {
        let mut tables = row.name.match_indices('.').filter_map(|(at, _)| table.row(&row.name[..at]));
        tables.any(|of| is_upgrade(of) == is_upgrade(row))
    };
    let rows = table.rows.iter().filter(|row| !is_as_its_table(row));
    let (upgrade, reload): (Vec<_>, Vec<_>) = rows.partition(|row| is_upgrade(row));
    let [upgrade, reload] = [upgrade, reload].map(|rows| rows.iter().map(|row| &*row.name).collect::<Vec<_>>());
    match (upgrade.len(), reload.len()) {
        (0, _) => String::new(),
        (_, 0) => " A change needs an upgrade.".to_owned(),
        (few, many) if few <= many => format!(" A change of {} needs an upgrade.", listed(&upgrade, "or")),
        _ => format!(" A change needs an upgrade, but not of {}.", listed(&reload, "or")),
    }
}

/// `keys` says where the keys of the table are that the key holds.
fn line_of_reference(row: &Row, shipped: Option<&Line<'_>>, keys: &str) -> String {
    let Description { mut text, is_required, default } = row.description();
    let kind = row.kind();
    let value = shipped.map(|line| line.value).filter(|value| !value.is_empty());
    // Another test compares the values that reference.toml sets with the defaults.
    let is_set = shipped.is_some_and(|line| !line.is_commented) && !is_required;
    let printed = row.literal().filter(|_| kind != "share or number" || !is_set);
    let value_is_default = |value: &&str| printed.as_ref().map_or(is_set, |printed| is_same(printed, value));
    let default = match (is_required, default) {
        (true, _) => Some("required".to_owned()),
        (_, Some(words)) => Some(words),
        (_, None) if row.is_divided() => Some(String::new()),
        (_, None) => value
            .filter(value_is_default)
            .map(str::to_owned)
            .or_else(|| printed.clone())
            .map(|value| format!("`{value}`")),
    };
    // A table shows its keys. reference.toml has an example of each key.
    let example = value.map(|value| format!("`{value}`")).filter(|value| {
        let is_known =
            default.as_ref() == Some(value) || text.contains("`{ ") || text.contains(value.trim_matches('`'));
        !is_set && kind == "table" && !is_known && !row.is_divided()
    });
    if let Some(example) = &example {
        text = format!("{text} Example: {example}.");
    }
    // The page says that the text about true or false is about true.
    if let Some(about) = text.strip_prefix("true: ") {
        let (first, rest) = about.split_at(about.chars().next().map_or(0, char::len_utf8));
        text = first.to_uppercase() + rest;
    }
    // A value shows its type. The page says that a key without a value is a text.
    let has_type = kind == "text" || example.is_some();
    let default = match default {
        None if !has_type => format!("*{kind}*"),
        Some(default) if is_required && !has_type => format!("{default} *{kind}*"),
        Some(default) if kind == "share or number" && !default.contains('%') => format!("{default}, or a share"),
        default => default.unwrap_or_default(),
    };
    format!("| `{}` | {} | {} |\n", row.name, cell(&default), cell(&(text + keys)))
}
