//! Parses `users.toml`, in pieces of one user each.
//!
//! The tree of a whole file takes ten times the memory of its text. A file is mostly `[[users]]` tables, and each of
//! them is a TOML document of its own, so it is cut before these lines, and the TOML parser reads piece after piece.
//! What a piece means does not depend on the others, so a user whose piece did not change is not parsed again. Of a
//! piece in the usual form no tree is made (`plain`). A file that does not divide in this way, or has a mistake, is
//! parsed as a whole, and every mistake is reported.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::UsersFile;
use super::entry::{Entry, Fields};
use super::list::Users;
use super::plain::PlainReader;
use crate::config::raw::{self, Problems, Section, Value};
use rotogate_core::password::Accepted;
use rotogate_core::private_file::{open_private, read_private};
use zeroize::Zeroizing;

/// Reads the file, which must be private. Users that `known` has of the same text are taken from there.
pub(super) fn read(file: &UsersFile, known: &Users) -> Result<Users, String> {
    match read_in_blocks(file, known)? {
        Some(users) => Ok(users),
        None => parse(&read_private(file.path())?, file, known),
    }
}

/// How much of a file is in memory at once.
const BLOCK: usize = 512 << 10;

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

/// What new users must differ from: hashes of the subjects and names in a file. It takes a hundredth of the memory of
/// its users.
pub(super) struct Outline {
    state: RandomState,
    /// Sorted.
    subjects: Vec<u64>,
    names: Vec<u64>,
}

impl Outline {
    pub(super) fn has_subject(&self, subject: &str) -> bool {
        self.subjects.binary_search(&self.state.hash_one(subject)).is_ok()
    }

    pub(super) fn has_name(&self, name: (Option<&str>, &str)) -> bool {
        self.names.binary_search(&self.state.hash_one(name)).is_ok()
    }
}

/// Reads the whole text as [`parse`] does, and keeps an outline. `None` if it is not in pieces, or has a mistake.
pub(super) fn outline(text: &str, file: &UsersFile) -> Option<Outline> {
    let (state, name) = (RandomState::new(), file.path().display().to_string());
    let pieces = pieces(text);
    is_empty_document(text.get(..pieces.first().map_or(text.len(), |first| first.start))?, &name)?;
    let pieces: Vec<&str> = pieces.into_iter().map(|piece| text.get(piece)).collect::<Option<_>>()?;
    let hashes = parallel(&pieces, |plain, piece| {
        let entry = plain.entry(piece, file.accepted()).or_else(|| single(piece, &name, file.accepted()))?;
        Some((state.hash_one(&*entry.subject), state.hash_one(entry.name())))
    })?;
    let (mut subjects, mut names): (Vec<u64>, Vec<u64>) = hashes.into_iter().unzip();
    for hashes in [&mut subjects, &mut names] {
        hashes.sort_unstable();
        // If one is there twice, the whole file says which.
        hashes.is_sorted_by(|one, next| one < next).then_some(())?;
    }
    Some(Outline { state, subjects, names })
}

/// Whether a text has nothing but comments and blanks.
fn is_empty_document(text: &str, name: &str) -> Option<()> {
    match raw::parse(text, &Problems::new(name, text))?.value {
        Value::Table(table) if table.is_empty() => Some(()),
        _ => None,
    }
}

/// The pieces of a text, from each line `[[users]]` to the next one. What is before the first is none of them.
pub(super) fn pieces(text: &str) -> Vec<Range<usize>> {
    const HEAD: &[u8] = b"[[users]]";
    let bytes = text.as_bytes();
    let is_head = |at: &usize| {
        let begins_a_line = at.checked_sub(1).is_none_or(|before| bytes.get(before) == Some(&b'\n'));
        let rest = text.get(at + HEAD.len()..).unwrap_or_default();
        let rest = rest.split('\n').next().unwrap_or_default().trim();
        begins_a_line && (rest.is_empty() || rest.starts_with('#'))
    };
    let starts: Vec<usize> = memchr::memmem::find_iter(bytes, HEAD).filter(is_head).collect();
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
            is_empty_document(head, &self.name)?;
            self.is_begun = true;
        }
        let pieces: Vec<&str> = pieces.into_iter().map(|piece| text.get(piece)).collect::<Option<_>>()?;
        let digests = parallel(&pieces, |_, piece| Some(short_digest(piece)))?;
        let mut new = Vec::new();
        let mut found = Vec::with_capacity(pieces.len());
        for (piece, digest) in pieces.into_iter().zip(digests) {
            let entry = self.known_entry(&digest);
            if entry.is_none() {
                new.push(piece);
            }
            found.push(entry);
            self.digests.push(digest);
        }
        let single = |plain: &mut PlainReader, piece: &str| {
            let usual = plain.entry(piece, self.accepted);
            usual.or_else(|| single(piece, &self.name, self.accepted))
        };
        let mut new = parallel(&new, single)?.into_iter().map(Arc::new);
        for entry in found {
            self.entries.push(entry.or_else(|| new.next())?);
        }
        Some(())
    }

    fn known_entry(&mut self, digest: &[u8; 16]) -> Option<Arc<Entry>> {
        let pieces = self.known.pieces.as_deref()?;
        let at = if pieces.get(self.next) == Some(digest) {
            self.next
        } else if self.by_digest.is_none() && self.next == pieces.len() {
            // After all that are known, in their order: a new one.
            return None;
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
        let users = Users::new(self.entries, Some(self.digests), self.known);
        users.are_distinct().then_some(users)
    }
}

/// Enough pieces that a further thread is worth its start.
const PIECES_PER_THREAD: usize = 400;

/// Parses pieces on as many threads as are useful.
fn parallel<T: Send>(pieces: &[&str], parse: impl Fn(&mut PlainReader, &str) -> Option<T> + Sync) -> Option<Vec<T>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = (pieces.len() / PIECES_PER_THREAD).clamp(1, cores.min(8));
    let all_of = |share: &[&str]| {
        let mut reader = PlainReader::default();
        share.iter().map(|piece| parse(&mut reader, piece)).collect::<Option<Vec<T>>>()
    };
    if threads == 1 {
        return all_of(pieces);
    }
    let share = pieces.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let all_of = &all_of;
        let started: Vec<_> = pieces.chunks(share).map(|share| scope.spawn(move || all_of(share))).collect();
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
pub(super) fn single(piece: &str, file: &str, accepted: &Accepted) -> Option<Entry> {
    let problems = Problems::new(file, piece);
    let root = raw::parse(piece, &problems)?;
    let root = Section::root(&root, &problems);
    let mut users = entries(&root, accepted);
    root.finish();
    let user = users.pop().filter(|_| users.is_empty())?;
    problems.into_errors().is_none().then_some(user)
}

fn entries(root: &Section<'_>, accepted: &Accepted) -> Vec<Entry> {
    root.sections("users").into_iter().filter_map(|section| Fields::read(&section, accepted).entry()).collect()
}

fn as_a_whole(root: &Section<'_>, accepted: &Accepted) -> Users {
    let mut entries = Vec::new();
    let (mut subjects, mut names) = (HashSet::new(), HashSet::new());
    for section in root.sections("users") {
        let Some(entry) = Fields::read(&section, accepted).entry() else { continue };
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
    Users::new(entries, None, &Users::default())
}
