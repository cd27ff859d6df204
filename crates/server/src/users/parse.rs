//! Parses `users.toml`, in pieces of one user each.
//!
//! The tree of a whole file takes ten times the memory of its text. A file is mostly `[[users]]` tables, and each of
//! them is a TOML document of its own, so it is cut before these lines, and the TOML parser reads piece after piece.
//! What a piece means does not depend on the others, so a user whose piece did not change is not parsed again. A file
//! that does not divide in this way, or has a mistake, is parsed as a whole, and every mistake is reported.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;

use super::{UserChange, UsersFile};
use crate::config::raw::{self, Problems, Section, Value};
use crate::config::value;
use rotogate::clock::Timestamp;
use rotogate::directory::{PasswordMark, User, is_valid_subject};
use rotogate::password::{Accepted, CostClass, PasswordHash, Passwords, SecretHash};
use rotogate::private_file::{open_private, read_private};
use rotogate::session::Scope;
use rotogate::token::claims::CLIENT_PREFIX;
use rotogate::token::verify::is_subject;
use zeroize::Zeroizing;

/// A user, in as little memory as is sensible: there may be many.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) subject: Box<str>,
    pub(super) username: Box<str>,
    pub(super) account: Option<Box<str>>,
    pub(super) active: bool,
    sessions_valid_from: Timestamp,
    scopes: Scope,
    /// As JSON; `None` if it is empty.
    profile: Option<Box<str>>,
    pub(super) hash: SecretHash,
    class: CostClass,
    /// The mark of the password, if the hash was replaced while the password stayed.
    mark: Option<Box<PasswordMark>>,
}

impl Entry {
    /// The mark of the password: the same as long as the password is, although a login may replace its hash.
    pub(super) fn mark(&self) -> PasswordMark {
        self.mark.as_deref().copied().unwrap_or_else(|| PasswordMark::of(self.hash.expose().as_bytes()))
    }

    pub(super) fn user(&self) -> User {
        let profile = self.profile.as_deref().and_then(|json| serde_json::from_str(json).ok());
        let mut user = User::new(self.subject.clone())
            .active(self.active)
            .sessions_valid_from(self.sessions_valid_from)
            .password_mark(self.mark())
            .scopes(self.scopes.clone());
        (user.account, user.profile) = (self.account.clone(), profile.unwrap_or_default());
        user
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        // Without `..`: a new field must be compared.
        let Self { subject, username, account, active, sessions_valid_from, scopes, profile, hash, class: _, mark } =
            self;
        *subject == other.subject
            && *username == other.username
            && *account == other.account
            && *active == other.active
            && *sessions_valid_from == other.sessions_valid_from
            && *scopes == other.scopes
            && *profile == other.profile
            && *hash == other.hash
            && *mark == other.mark
    }
}

/// The users, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Users {
    entries: Vec<Arc<Entry>>,
    /// Indexes of the entries, sorted by subject, and by account and name.
    by_subject: Vec<u32>,
    by_name: Vec<u32>,
    /// The digest of each entry's piece of the file; `None` if the file was parsed as a whole.
    pieces: Option<Vec<[u8; 16]>>,
    dearest: CostClass,
}

impl PartialEq for Users {
    fn eq(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|(one, two)| Arc::ptr_eq(one, two) || one == two)
    }
}

impl Users {
    fn new(entries: Vec<Arc<Entry>>, pieces: Option<Vec<[u8; 16]>>) -> Self {
        let sorted = |order: &dyn Fn(&Entry, &Entry) -> std::cmp::Ordering| {
            let mut indexes: Vec<u32> = (0..).take(entries.len()).collect();
            let entry = |index: &u32| usize::try_from(*index).ok().and_then(|index| entries.get(index));
            indexes.sort_unstable_by(|one, two| match (entry(one), entry(two)) {
                (Some(one), Some(two)) => order(one, two),
                _ => std::cmp::Ordering::Equal,
            });
            indexes
        };
        let by_subject = sorted(&|one, two| one.subject.cmp(&two.subject));
        let by_name = sorted(&|one, two| one.name().cmp(&two.name()));
        Self { by_subject, by_name, pieces, dearest: CostClass::default(), entries }
    }

    pub(super) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    pub(super) fn by_subject(&self, subject: &str) -> Option<&Arc<Entry>> {
        self.find(&self.by_subject, |entry| (*entry.subject).cmp(subject))
    }

    /// Each entry with its piece of the text, if the text is in pieces.
    pub(super) fn with_pieces(&self, text: &str) -> Option<Vec<(&Arc<Entry>, Range<usize>)>> {
        self.pieces.as_ref()?;
        Some(self.entries.iter().zip(pieces(text)).collect())
    }

    /// Whether the file was parsed in pieces.
    pub(super) fn are_in_pieces(&self) -> bool {
        self.pieces.is_some()
    }

    pub(super) fn by_name(&self, account: Option<&str>, username: &str) -> Option<&Arc<Entry>> {
        self.find(&self.by_name, |entry| entry.name().cmp(&(account, username)))
    }

    fn find(&self, sorted: &[u32], order: impl Fn(&Entry) -> std::cmp::Ordering) -> Option<&Arc<Entry>> {
        let entry = |index: &u32| self.entries.get(usize::try_from(*index).ok()?);
        let at = sorted.binary_search_by(|index| entry(index).map_or(std::cmp::Ordering::Less, |e| order(e))).ok()?;
        entry(sorted.get(at)?)
    }

    /// Whether each subject, and each name in its account, is there once.
    fn are_distinct(&self) -> bool {
        let entry = |index: &u32| self.entries.get(usize::try_from(*index).ok()?);
        let differ = |sorted: &[u32], is_same: &dyn Fn(&Entry, &Entry) -> bool| {
            sorted.iter().zip(sorted.iter().skip(1)).all(|(one, two)| match (entry(one), entry(two)) {
                (Some(one), Some(two)) => !is_same(one, two),
                _ => false,
            })
        };
        differ(&self.by_subject, &|one, two| one.subject == two.subject)
            && differ(&self.by_name, &|one, two| one.name() == two.name())
    }

    /// The class whose checks take the longest, of the classes in use. Every check takes as long, so that its duration
    /// does not tell whether a user exists (A2, I32).
    pub(super) fn dearest(&self) -> CostClass {
        self.dearest
    }

    /// Finds the dearest class. Blocks if a class was not measured yet.
    pub(super) fn measure(&mut self, passwords: &Passwords) {
        self.dearest = passwords.dearest(self.entries.iter().map(|entry| entry.class));
    }

    /// A class that few users have and that makes every login slow: less than a thousandth of the users, and checks of
    /// more than four times the time of the usual class. With the number of its users.
    pub(super) fn lone_dear(&self, passwords: &Passwords) -> Option<(CostClass, usize)> {
        let mut numbers: BTreeMap<CostClass, usize> = BTreeMap::new();
        for entry in &self.entries {
            *numbers.entry(entry.class).or_default() += 1;
        }
        let usual = *numbers.iter().max_by_key(|(_, number)| **number)?.0;
        let number = *numbers.get(&self.dearest)?;
        let is_dear = || passwords.time_of(self.dearest) > passwords.time_of(usual) * 4;
        (number * 1000 < self.entries.len() && is_dear()).then_some((self.dearest, number))
    }

    /// The users that differ in `now`, and the number of new ones.
    pub(super) fn changes(&self, now: &Self) -> (Vec<UserChange>, usize) {
        let same = |(one, two): &(&Arc<Entry>, &Arc<Entry>)| Arc::ptr_eq(one, two);
        let head = self.entries.iter().zip(&now.entries).take_while(same).count();
        let tail =
            self.entries.iter().skip(head).rev().zip(now.entries.iter().skip(head).rev()).take_while(same).count();
        let changed = |users: &Self| head..users.entries.len() - tail;
        let mut changes = Vec::new();
        for old in self.entries.get(changed(self)).unwrap_or_default() {
            let new = now.by_subject(&old.subject);
            if new.is_some_and(|new| Arc::ptr_eq(new, old)) {
                continue;
            }
            let (before, after) = (old.user(), new.map(|new| new.user()));
            if after.as_ref() != Some(&before) {
                changes.push(UserChange { before, after });
            }
        }
        let added = now.entries.get(changed(now)).unwrap_or_default();
        (changes, added.iter().filter(|new| self.by_subject(&new.subject).is_none()).count())
    }
}

impl Entry {
    fn name(&self) -> (Option<&str>, &str) {
        (self.account.as_deref(), &self.username)
    }
}

/// Reads the file, which must be private. Users that `known` has of the same text are taken from there.
pub(super) fn read(file: &UsersFile, known: &Users) -> Result<Users, String> {
    match read_in_blocks(file, known)? {
        Some(users) => Ok(users),
        None => parse(&read_private(file.path())?, file, known),
    }
}

/// How much of a file is in memory at once.
const BLOCK: usize = 4 << 20;

/// Reads the file block by block; `None` if it is not in pieces.
fn read_in_blocks(file: &UsersFile, known: &Users) -> Result<Option<Users>, String> {
    let mut opened = open_private(file.path(), false)?;
    let mut reading = Reading::new(file, known);
    // All of it at once: a buffer that grows leaves copies behind that are not wiped.
    let mut buffer = Zeroizing::new(Vec::with_capacity(2 * BLOCK));
    loop {
        let block = u64::try_from(BLOCK).unwrap_or(u64::MAX);
        let read = opened.by_ref().take(block).read_to_end(&mut buffer);
        let is_end = read.map_err(|error| format!("{}: cannot be read: {error}", file.path().display()))? == 0;
        let valid = match std::str::from_utf8(&buffer) {
            // The end of the block may be within a character.
            Err(error) if !is_end && error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Ok(None),
            Ok(text) => text.len(),
        };
        let text = buffer.get(..valid).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
        // The last piece may go on in the next block.
        let end = if is_end { valid } else { pieces(text).last().map_or(0, |last| last.start) };
        let taken = text.get(..end).and_then(|text| reading.push(text));
        if taken.is_none() || buffer.len() - end > BLOCK {
            return Ok(None);
        }
        if is_end {
            return Ok(reading.finish());
        }
        buffer.drain(..end);
    }
}

/// Reports every problem of the text, one on each line.
pub(super) fn parse(text: &str, file: &UsersFile, known: &Users) -> Result<Users, String> {
    let name = file.path().display().to_string();
    let mut reading = Reading::new(file, known);
    if let Some(users) = reading.push(text).and_then(|()| reading.finish()) {
        return Ok(users);
    }
    let problems = Problems::new(&name, text);
    let users = raw::parse(text, &problems).map(|root| as_a_whole(&Section::root(&root, &problems), file.accepted()));
    match (problems.into_errors(), users) {
        (None, Some(users)) => Ok(users),
        (Some(errors), _) => Err(errors.to_string()),
        // Without a tree there is at least one problem.
        (None, None) => Err(format!("{name}: cannot be read")),
    }
}

/// The pieces of a text, from each line `[[users]]` to the next one. What is before the first is none of them.
pub(super) fn pieces(text: &str) -> Vec<Range<usize>> {
    let is_head = |line: &str| {
        let rest = line.strip_prefix("[[users]]").map(str::trim);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
    };
    let mut starts = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if is_head(line) {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// Reads a text of which each piece is a document with one user. A cut within a text of several lines leaves a piece that
/// is no document.
struct Reading<'a> {
    name: String,
    accepted: &'a Accepted,
    known: &'a Users,
    /// Where in `known` the next piece is, if nothing was changed there.
    next: usize,
    /// The pieces of `known`, once one is elsewhere.
    by_digest: Option<HashMap<[u8; 16], usize>>,
    entries: Vec<Arc<Entry>>,
    digests: Vec<[u8; 16]>,
    is_begun: bool,
}

impl<'a> Reading<'a> {
    fn new(file: &'a UsersFile, known: &'a Users) -> Self {
        Self {
            name: file.path().display().to_string(),
            accepted: file.accepted(),
            known,
            next: 0,
            by_digest: None,
            entries: Vec::with_capacity(known.entries.len()),
            digests: Vec::with_capacity(known.entries.len()),
            is_begun: false,
        }
    }

    /// Reads whole pieces. `None` if this is something else.
    fn push(&mut self, text: &str) -> Option<()> {
        let pieces = pieces(text);
        let head = text.get(..pieces.first().map_or(text.len(), |first| first.start))?;
        if self.is_begun {
            head.is_empty().then_some(())?;
        } else {
            let problems = Problems::new(&self.name, head);
            match raw::parse(head, &problems)?.value {
                Value::Table(table) if table.is_empty() => self.is_begun = true,
                _ => return None,
            }
        }
        let mut new = Vec::new();
        let mut found = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let piece = text.get(piece)?;
            let digest = short_digest(piece);
            let entry = self.known_entry(&digest);
            if entry.is_none() {
                new.push(piece);
            }
            found.push(entry);
            self.digests.push(digest);
        }
        let mut new = parallel(&new, |piece| single(piece, &self.name, self.accepted))?.into_iter().map(Arc::new);
        for entry in found {
            self.entries.push(entry.or_else(|| new.next())?);
        }
        Some(())
    }

    fn known_entry(&mut self, digest: &[u8; 16]) -> Option<Arc<Entry>> {
        let pieces = self.known.pieces.as_deref()?;
        let at = if pieces.get(self.next) == Some(digest) {
            self.next
        } else {
            let by_digest = self
                .by_digest
                .get_or_insert_with(|| pieces.iter().enumerate().map(|(at, digest)| (*digest, at)).collect());
            *by_digest.get(digest)?
        };
        self.next = at + 1;
        self.known.entries.get(at).cloned()
    }

    fn finish(mut self) -> Option<Users> {
        self.entries.shrink_to_fit();
        self.digests.shrink_to_fit();
        let users = Users::new(self.entries, Some(self.digests));
        users.are_distinct().then_some(users)
    }
}

/// Enough pieces that a further thread is worth its start.
const PIECES_PER_THREAD: usize = 2000;

/// Parses pieces on as many threads as are useful.
fn parallel<T: Send>(pieces: &[&str], parse: impl Fn(&str) -> Option<T> + Sync) -> Option<Vec<T>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = (pieces.len() / PIECES_PER_THREAD).clamp(1, cores.min(8));
    if threads == 1 {
        return pieces.iter().map(|piece| parse(piece)).collect();
    }
    let share = pieces.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let parse = &parse;
        let started: Vec<_> = pieces
            .chunks(share)
            .map(|share| scope.spawn(move || share.iter().map(|piece| parse(piece)).collect::<Option<Vec<T>>>()))
            .collect();
        let mut all = Vec::with_capacity(pieces.len());
        for thread in started {
            all.extend(thread.join().ok()??);
        }
        Some(all)
    })
}

fn short_digest(text: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.iter_mut().zip(digest(&SHA256, text.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    short
}

/// The user of a piece that has one and no mistake.
fn single(piece: &str, file: &str, accepted: &Accepted) -> Option<Entry> {
    let problems = Problems::new(file, piece);
    let root = raw::parse(piece, &problems)?;
    let root = Section::root(&root, &problems);
    let mut users = entries(&root, accepted);
    root.finish();
    let user = users.pop().filter(|_| users.is_empty())?;
    problems.into_errors().is_none().then_some(user)
}

fn entries(root: &Section<'_>, accepted: &Accepted) -> Vec<Entry> {
    let read = |section: Section<'_>| {
        let entry = entry(&section, accepted);
        section.finish();
        entry
    };
    root.sections("users").into_iter().filter_map(read).collect()
}

fn as_a_whole(root: &Section<'_>, accepted: &Accepted) -> Users {
    let mut entries = Vec::new();
    let (mut subjects, mut names) = (HashSet::new(), HashSet::new());
    for section in root.sections("users") {
        let entry = entry(&section, accepted);
        section.finish();
        let Some(entry) = entry else { continue };
        if !subjects.insert(entry.subject.clone()) {
            section.blame("subject", format!("\"{}\" is listed twice", entry.subject));
        }
        if !names.insert((entry.account.clone(), entry.username.clone())) {
            let name = raw::printable(&entry.username);
            section.blame("username", format!("\"{name}\" is listed twice in one account"));
        }
        entries.push(Arc::new(entry));
    }
    root.finish();
    Users::new(entries, None)
}

/// One user; `None` if a required part was refused.
fn entry(section: &Section<'_>, accepted: &Accepted) -> Option<Entry> {
    let subject = section.require("subject", "the sub of the user's tokens", subject);
    let username = section.require("username", "the name to log in with", name);
    let account = section.get("account", account);
    let password =
        section.require("password", "a password hash; see rotogate user passwd and import", |v| hash(v, accepted));
    let active = section.get("active", value::boolean).unwrap_or(true);
    let sessions_valid_from = section.get("sessions_valid_from", moment).unwrap_or(Timestamp::ZERO);
    let scopes = section.list("scopes", value::scope).unwrap_or_default();
    let scopes = Scope::parse(&scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")).unwrap_or_default();
    let profile = profile(&section.section("profile"));
    let rehashed = rehashed(&section.section("rehashed"));
    let (hash, class) = password?;
    // Of another hash: somebody changed the password by hand.
    let mark = rehashed.filter(|(of, _)| *of == PasswordMark::of(hash.expose().as_bytes()));
    Some(Entry {
        subject: subject?,
        username: username?,
        account,
        active,
        sessions_valid_from,
        scopes,
        profile: (!profile.is_empty()).then(|| serde_json::Value::from_iter(profile).to_string().into()),
        hash,
        class,
        mark: mark.map(|(_, mark)| Box::new(mark)),
    })
}

fn subject(v: &Value) -> Result<Box<str>, String> {
    match v {
        Value::String(s) if is_valid_subject(s) => Ok(s.as_str().into()),
        Value::String(s) if is_subject(s) => {
            Err(format!("\"{}\" begins with \"{CLIENT_PREFIX}\", as the subjects of clients do", raw::printable(s)))
        }
        other => Err(format!("expected 1 to 256 visible ASCII characters, found {}", other.describe())),
    }
}

fn name(v: &Value) -> Result<Box<str>, String> {
    match v {
        Value::String(s) if is_valid_name(s) => Ok(s.as_str().into()),
        other => {
            Err(format!("expected a text of at most 256 bytes without control characters, found {}", other.describe()))
        }
    }
}

fn account(v: &Value) -> Result<Box<str>, String> {
    match v {
        Value::String(s) if is_valid_account(s) => Ok(s.as_str().into()),
        other => Err(format!("expected 1 to 256 visible ASCII characters, none of them /, found {}", other.describe())),
    }
}

pub(super) fn is_valid_name(name: &str) -> bool {
    (1..=256).contains(&name.len()) && !name.contains(char::is_control)
}

/// An account is one segment in the path of an endpoint.
pub(super) fn is_valid_account(account: &str) -> bool {
    is_subject(account) && !account.contains('/')
}

/// The value may be a password that was mistaken for its hash: it is never repeated.
fn hash(v: &Value, accepted: &Accepted) -> Result<(SecretHash, CostClass), String> {
    match v {
        Value::String(s) => match PasswordHash::parse(s, accepted) {
            Ok(hash) => Ok((SecretHash::new(s.clone()), hash.class())),
            Err(e) => Err(format!("is {e}")),
        },
        _ => Err("expected a password hash, such as \"$argon2id$v=19$…\"".to_owned()),
    }
}

/// What the gate writes when a login replaced the hash: the mark of the new hash, and the mark that the password keeps.
fn rehashed(section: &Section<'_>) -> Option<(PasswordMark, PasswordMark)> {
    let (hash, mark) = (section.get("hash", mark), section.get("mark", mark));
    section.finish();
    hash.zip(mark)
}

fn mark(v: &Value) -> Result<PasswordMark, String> {
    let text = match v {
        Value::String(s) => MARK.decode(s).ok(),
        _ => None,
    };
    let bytes = text.and_then(|bytes| bytes.try_into().ok());
    bytes.map(PasswordMark::from_bytes).ok_or_else(|| "expected what the gate wrote here; remove rehashed".to_owned())
}

/// How a mark is written.
pub(super) const MARK: base64::engine::GeneralPurpose = base64::engine::general_purpose::URL_SAFE_NO_PAD;

fn moment(v: &Value) -> Result<Timestamp, String> {
    let parsed = match v {
        Value::Integer(ms) => u64::try_from(*ms).ok().map(Timestamp::from_millis),
        Value::Datetime(d) => instant(&d.to_string()),
        _ => None,
    };
    parsed.ok_or_else(|| {
        format!(
            "expected a time in UTC such as 2026-01-31T12:00:00Z, or milliseconds since 1970, found {}",
            v.describe()
        )
    })
}

/// A time in UTC, as RFC 3339 writes it. A fraction of a millisecond counts as a whole one.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    let since = humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from((since + Duration::from_nanos(999_999)).as_millis()).ok().map(Timestamp::from_millis)
}

fn profile(section: &Section<'_>) -> BTreeMap<String, serde_json::Value> {
    let mut fields = BTreeMap::new();
    for (key, v) in section.free() {
        match json(v) {
            Some(field) => {
                fields.insert(key.to_owned(), field);
            }
            None => section.blame(key, "holds a number that JSON cannot represent"),
        }
    }
    fields
}

fn json(v: &Value) -> Option<serde_json::Value> {
    Some(match v {
        Value::String(s) | Value::Env(s) => s.as_str().into(),
        Value::Integer(n) => (*n).into(),
        Value::OtherNumber(text) => serde_json::Number::from_f64(text.replace('_', "").parse().ok()?)?.into(),
        Value::Bool(b) => (*b).into(),
        Value::Datetime(d) => d.to_string().into(),
        Value::List(list) => list.iter().map(|node| json(&node.value)).collect::<Option<Vec<_>>>()?.into(),
        Value::Table(table) => {
            let field = |(key, node): (&String, &raw::Node)| Some((key.clone(), json(&node.value)?));
            table.iter().map(field).collect::<Option<serde_json::Map<_, _>>>()?.into()
        }
    })
}
