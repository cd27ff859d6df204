//! Reads the pieces of a users file that are written as `rotogate user` writes them: a key on each line, texts without
//! escapes. That is most of every file, and takes a fraction of the time of the TOML parser. Everything else is left to
//! that parser, mistakes among it: what is read here means the same to both.

use std::collections::BTreeMap;

use rotogate::clock::Timestamp;
use rotogate::directory::PasswordMark;
use rotogate::password::Accepted;
use rotogate::session::Scope;

use super::parse::{self, Entry, EntryParts};
use crate::config::raw::Value;
use crate::config::value;

/// The user of a piece. `None`: the TOML parser decides.
pub(super) fn read(piece: &str, accepted: &Accepted) -> Option<Entry> {
    let mut lines = piece.lines();
    (lines.next()? == "[[users]]").then_some(())?;
    let mut found = Found::default();
    for line in lines {
        let line = line.trim_matches([' ', '\t']);
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return None;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, text) = line.split_once('=')?;
        found.take(key.trim_end_matches(' '), text.trim_start_matches(' '))?;
    }
    found.entry(accepted)
}

/// The values so far. A key that stands twice is a mistake.
#[derive(Default)]
struct Found<'a> {
    subject: Option<&'a str>,
    username: Option<&'a str>,
    account: Option<&'a str>,
    password: Option<&'a str>,
    active: Option<bool>,
    sessions_valid_from: Option<Timestamp>,
    scopes: Option<Vec<&'a str>>,
    profile: Option<BTreeMap<&'a str, &'a str>>,
    rehashed: Option<BTreeMap<&'a str, &'a str>>,
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

impl<'a> Found<'a> {
    fn take(&mut self, key: &str, text: &'a str) -> Option<()> {
        match key {
            "subject" => once(&mut self.subject, quoted(text)?),
            "username" => once(&mut self.username, quoted(text)?),
            "account" => once(&mut self.account, quoted(text)?),
            "password" => once(&mut self.password, quoted(text)?),
            "active" => once(&mut self.active, boolean(text)?),
            "sessions_valid_from" => once(&mut self.sessions_valid_from, moment(text)?),
            "scopes" => once(&mut self.scopes, list(text)?),
            "profile" => once(&mut self.profile, table(text)?),
            "rehashed" => once(&mut self.rehashed, table(text)?),
            _ => None,
        }
    }

    /// The same checks as of a piece that the TOML parser read.
    fn entry(self, accepted: &Accepted) -> Option<Entry> {
        let Self { subject, username, account, password, active, sessions_valid_from, scopes, profile, rehashed } =
            self;
        let text = |text: &str| Value::String(text.to_owned());
        let scopes = scopes.unwrap_or_default();
        let scopes: Option<Vec<Scope>> = scopes.into_iter().map(|scope| value::scope(&text(scope)).ok()).collect();
        let scopes = Scope::parse(&scopes?.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")).ok()?;
        let profile = profile.into_iter().flatten().map(|(key, field)| (key.to_owned(), field.into())).collect();
        Some(Entry::new(EntryParts {
            subject: parse::subject(&text(subject?)).ok()?,
            username: parse::name(&text(username?)).ok()?,
            account: account.map(|account| parse::account(&text(account))).transpose().ok()?,
            password: parse::hash(&text(password?), accepted).ok()?,
            active: active.unwrap_or(true),
            sessions_valid_from: sessions_valid_from.unwrap_or(Timestamp::ZERO),
            scopes,
            profile,
            rehashed: match rehashed {
                Some(marks) => Some(both_marks(&marks)?),
                None => None,
            },
        }))
    }
}

/// A basic string without escapes, and nothing after it.
fn quoted(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains(['"', '\\', '\t'])).then_some(inner)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// A time as `2026-01-31T12:00:00Z`, with at most three digits more.
fn moment(text: &str) -> Option<Timestamp> {
    let fits = (20..=24).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"-:.TZ".contains(&byte))
        // Parsers may differ about leap seconds, and about a fraction without digits.
        && text.get(17..19).is_some_and(|seconds| seconds < "60")
        && !text.contains(".Z");
    if fits { parse::instant(text) } else { None }
}

/// A list of texts.
fn list(text: &str) -> Option<Vec<&str>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?.trim_matches(' ');
    if inner.is_empty() {
        Some(Vec::new())
    } else {
        inner.split(',').map(|part| quoted(part.trim_matches(' '))).collect()
    }
}

/// An inline table of texts with bare keys.
fn table(text: &str) -> Option<BTreeMap<&str, &str>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?.trim_matches(' ');
    let mut members = BTreeMap::new();
    for part in inner.split(',') {
        let (key, text) = part.split_once('=')?;
        let key = key.trim_matches(' ');
        let is_bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !is_bare || members.insert(key, quoted(text.trim_matches(' '))?).is_some() {
            return None;
        }
    }
    Some(members)
}

fn both_marks(members: &BTreeMap<&str, &str>) -> Option<(PasswordMark, PasswordMark)> {
    let mark = |key| parse::mark(&Value::String((*members.get(key)?).to_owned())).ok();
    (members.len() == 2).then_some(())?;
    mark("hash").zip(mark("mark"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$2hYUHLPvbSwzNNLBSNTP0Q";

    fn both(piece: &str) -> (Option<Entry>, Option<Entry>) {
        let accepted = Accepted::default();
        (read(piece, &accepted), parse::by_toml(piece, "users.toml", &accepted))
    }

    #[test]
    fn what_the_commands_write_is_read_as_the_toml_parser_reads_it() {
        let marks = "A".repeat(43);
        for more in [
            String::new(),
            "account = \"acme\"\nactive = false\nsessions_valid_from = 2026-01-31T12:00:00.123Z\n".to_owned(),
            "scopes = []\n\n# a comment = \"x\"\n".to_owned(),
            "  scopes = [\"read\", \"write\"]  \n".to_owned(),
            "profile = { email = \"a@x\", name = \"Ada # 1\" }\n".to_owned(),
            format!("rehashed = {{ hash = \"{marks}\", mark = \"{marks}\" }}\n"),
        ] {
            for newline in ["\n", "\r\n"] {
                let piece =
                    format!("[[users]]\nsubject = \"s\"\nusername = \"\u{e5}da\"\npassword = \"{HASH}\"\n{more}");
                let (plain, toml) = both(&piece.replace('\n', newline));
                assert!(plain.is_some(), "{piece}");
                assert_eq!(plain, toml, "{piece}");
            }
        }
    }

    #[test]
    fn whatever_is_read_here_means_the_same_to_the_toml_parser() {
        let lines = [
            "",
            "#",
            "# \u{7f}",
            "# a\rb",
            "active",
            "active = true",
            "active = \"true\"",
            "active = True",
            "active=false",
            "active = true # yes",
            "\"active\" = true",
            "account = \"acme\"",
            "account = \"\"",
            "account = \"a/b\"",
            "account = 'acme'",
            "account = \"a\" # \"b\"",
            "account = \"a\\u0062\"",
            "account = \"\"\"acme\"\"\"",
            "account = \"ac\tme\"",
            "account\t= \"acme\"",
            "account =\u{a0}\"acme\"",
            "account = \"acme\" \"b\"",
            "account == \"acme\"",
            "scopes = [\"read\",\"write\",]",
            "scopes = [\"read\",, \"write\"]",
            "scopes = [,]",
            "scopes = [\"read write\"]",
            "scopes = [\"a,b\"]",
            "scopes = [\"a\", 1]",
            "scopes = [[]]",
            "scopes = \"read\"",
            "sessions_valid_from = 2026-01-31T12:00:00Z",
            "sessions_valid_from = 2026-01-31T12:00:00.Z",
            "sessions_valid_from = 2026-01-31T12:00:00.1234Z",
            "sessions_valid_from = 2026-01-31T24:00:00Z",
            "sessions_valid_from = 2026-02-31T12:00:00Z",
            "sessions_valid_from = 2026-01-31T12:00:60Z",
            "sessions_valid_from = 2026-01-31T12:00:00",
            "sessions_valid_from = 2026-01-31 12:00:00Z",
            "sessions_valid_from = \"2026-01-31T12:00:00Z\"",
            "sessions_valid_from = 1",
            "profile = {}",
            "profile = { a = \"1\", a = \"2\" }",
            "profile = { a = \"1\", }",
            "profile = { a.b = \"1\" }",
            "profile = { \"a\" = \"1\" }",
            "profile = { a = 1 }",
            "profile = { a = \"x, y = \" }",
            "rehashed = { hash = \"x\", mark = \"y\" }",
            "rehashed = { hash = \"x\" }",
            "subject = \"t\"",
            "unknown = \"x\"",
            "[users.profile]",
            "[[users]]",
            "username.x = \"x\"",
        ];
        let mut read = 0;
        for first in lines {
            for second in lines {
                let piece = format!(
                    "[[users]]\n{first}\nsubject = \"s\"\nusername = \"ada\"\npassword = \"{HASH}\"\n{second}\n"
                );
                let (plain, toml) = both(&piece);
                if plain.is_some() {
                    read += 1;
                    assert_eq!(plain, toml, "{piece}");
                }
            }
        }
        assert!(read > 20, "{read} of them are plain");
        for piece in
            ["", "[[users]]", "[[users]] # x\nsubject = \"s\"", "subject = \"s\"", "[[users]]\nsubject = \"s\"\n"]
        {
            assert_eq!(both(piece).0, None, "{piece}");
        }
    }
}
