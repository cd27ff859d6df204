//! A piece of `users.toml` in the form that `rotogate user` writes: keys with a scalar, a list of scalars or an inline
//! table of scalars. It is read from the events of the TOML parser, without a tree, in less than half the time.
//!
//! What is read here means the same as in a tree. A piece in any other form, or with a mistake, is read from its tree,
//! which also says what is wrong.

use std::borrow::Cow;
use std::slice::Iter;

use toml_parser::decoder::{Encoding, IntegerRadix, ScalarKind};
use toml_parser::lexer::Token;
use toml_parser::parser::{Event, EventKind, EventReceiver, RecursionGuard, ValidateWhitespace, parse_document};
use toml_parser::{ErrorSink, ParseError, Source, Span};

use super::entry::{self, Entry, Fields};
use crate::config::raw::Value;
use crate::config::value;
use rotogate_core::password::Accepted;
use rotogate_core::session::Scope;

/// Deeper than any value that is read here.
const MAX_DEPTH: u32 = 2;

/// Reads pieces. The memory for one is used for the next.
#[derive(Default)]
pub(super) struct PlainReader {
    tokens: Vec<Token>,
    events: Events,
}

impl PlainReader {
    /// The user of a piece; `None` if the piece has another form, or a mistake.
    pub(super) fn entry(&mut self, piece: &str, accepted: &Accepted) -> Option<Entry> {
        let source = Source::new(piece);
        self.tokens.clear();
        self.tokens.extend(source.lex());
        self.events.0.clear();
        let mut error = None;
        let mut checked = ValidateWhitespace::new(&mut self.events, source);
        parse_document(&self.tokens, &mut RecursionGuard::new(&mut checked, MAX_DEPTH), &mut error);
        let mut piece = Piece { source, events: self.events.0.iter(), error };
        let fields = piece.fields(accepted)?;
        // Also of keys and scalars.
        if piece.error.is_some() { None } else { fields.entry() }
    }
}

/// The events that have a meaning. Comments and blanks have none, once they are validated.
#[derive(Default)]
struct Events(Vec<Event>);

impl Events {
    fn push(&mut self, kind: EventKind, encoding: Option<Encoding>, span: Span) {
        self.0.push(Event::new_unchecked(kind, encoding, span));
    }
}

impl EventReceiver for Events {
    fn std_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.push(EventKind::StdTableOpen, None, span);
    }
    fn std_table_close(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.push(EventKind::StdTableClose, None, span);
    }
    fn array_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.push(EventKind::ArrayTableOpen, None, span);
    }
    fn array_table_close(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.push(EventKind::ArrayTableClose, None, span);
    }
    fn inline_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        self.push(EventKind::InlineTableOpen, None, span);
        true
    }
    fn inline_table_close(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.push(EventKind::InlineTableClose, None, span);
    }
    fn array_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        self.push(EventKind::ArrayOpen, None, span);
        true
    }
    fn array_close(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.push(EventKind::ArrayClose, None, span);
    }
    fn simple_key(&mut self, span: Span, encoding: Option<Encoding>, _: &mut dyn ErrorSink) {
        self.push(EventKind::SimpleKey, encoding, span);
    }
    fn key_sep(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.push(EventKind::KeySep, None, span);
    }
    fn key_val_sep(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.push(EventKind::KeyValSep, None, span);
    }
    fn scalar(&mut self, span: Span, encoding: Option<Encoding>, _: &mut dyn ErrorSink) {
        self.push(EventKind::Scalar, encoding, span);
    }
    fn value_sep(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.push(EventKind::ValueSep, None, span);
    }
    fn error(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.push(EventKind::Error, None, span);
    }
}

/// A piece while it is read. Each method takes the events of what it reads, and returns `None` if they are others.
struct Piece<'s, 'e> {
    source: Source<'s>,
    events: Iter<'e, Event>,
    error: Option<ParseError>,
}

impl<'s> Piece<'s, '_> {
    fn fields(&mut self, accepted: &Accepted) -> Option<Fields> {
        self.next(EventKind::ArrayTableOpen)?;
        (self.key()? == "users").then_some(())?;
        self.next(EventKind::ArrayTableClose)?;
        let mut fields = Fields::default();
        let (mut has_profile, mut has_rehashed) = (false, false);
        while !self.events.as_slice().is_empty() {
            let key = self.key()?;
            self.next(EventKind::KeyValSep)?;
            // Without a branch for others: a new key is read from the tree until it is read here.
            match &*key {
                "subject" => put(&mut fields.subject, entry::subject(&self.scalar()?).ok()?)?,
                "username" => put(&mut fields.username, entry::name(&self.scalar()?).ok()?)?,
                "account" => put(&mut fields.account, entry::account(&self.scalar()?).ok()?)?,
                "password" => put(&mut fields.password, entry::hash(&self.scalar()?, accepted).ok()?)?,
                "active" => put(&mut fields.active, value::boolean(&self.scalar()?).ok()?)?,
                "sessions_valid_from" => {
                    put(&mut fields.sessions_valid_from, entry::moment(&self.scalar()?).ok()?)?;
                }
                "scopes" => put(&mut fields.scopes, self.scopes()?)?,
                "profile" if !has_profile => {
                    has_profile = true;
                    self.table(|key, value| {
                        let is_new = fields.profile.insert(key.to_owned(), entry::json(&value)?).is_none();
                        is_new.then_some(())
                    })?;
                }
                "rehashed" if !has_rehashed => {
                    has_rehashed = true;
                    let (mut hash, mut mark) = (None, None);
                    self.table(|key, value| match key {
                        "hash" => put(&mut hash, entry::mark(&value).ok()?),
                        "mark" => put(&mut mark, entry::mark(&value).ok()?),
                        _ => None,
                    })?;
                    fields.rehashed = hash.zip(mark);
                }
                _ => return None,
            }
        }
        Some(fields)
    }

    fn next(&mut self, kind: EventKind) -> Option<&Event> {
        self.events.next().filter(|event| event.kind() == kind)
    }

    /// A key of one part.
    fn key(&mut self) -> Option<Cow<'s, str>> {
        let event = *self.next(EventKind::SimpleKey)?;
        let mut text = Cow::Borrowed("");
        self.source.get(event)?.decode_key(&mut text, &mut self.error);
        Some(text)
    }

    fn scalar(&mut self) -> Option<Value> {
        let event = *self.next(EventKind::Scalar)?;
        let mut text = Cow::Borrowed("");
        Some(match self.source.get(event)?.decode_scalar(&mut text, &mut self.error) {
            ScalarKind::String => Value::String(text.into_owned()),
            ScalarKind::Boolean(value) => Value::Bool(value),
            ScalarKind::DateTime => Value::Datetime(text.parse().ok()?),
            ScalarKind::Integer(IntegerRadix::Dec) => Value::Integer(text.parse().ok()?),
            ScalarKind::Integer(_) | ScalarKind::Float => return None,
        })
    }

    /// Scopes, each a text of its own.
    fn scopes(&mut self) -> Option<Scope> {
        self.next(EventKind::ArrayOpen)?;
        let mut all = String::new();
        self.until(EventKind::ArrayClose, |this| match this.scalar()? {
            Value::String(scope) if !scope.is_empty() && !scope.contains(char::is_whitespace) => {
                all.push_str(if all.is_empty() { "" } else { " " });
                all.push_str(&scope);
                Some(())
            }
            _ => None,
        })?;
        Scope::parse(&all).ok()
    }

    fn table(&mut self, mut take: impl FnMut(&str, Value) -> Option<()>) -> Option<()> {
        self.next(EventKind::InlineTableOpen)?;
        self.until(EventKind::InlineTableClose, |this| {
            let key = this.key()?;
            this.next(EventKind::KeyValSep)?;
            take(&key, this.scalar()?)
        })
    }

    /// Reads values with what separates them. The parser has checked that it stands between them.
    fn until(&mut self, close: EventKind, mut read: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        loop {
            let kind = self.events.as_slice().first()?.kind();
            if kind == close {
                self.next(close)?;
                return Some(());
            }
            if kind == EventKind::ValueSep {
                self.next(kind)?;
            } else {
                read(self)?;
            }
        }
    }
}

/// Fills a place, once.
fn put<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::super::parse::single;
    use super::*;
    use rotogate_core::clock::Timestamp;

    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
    const MARK: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn piece(more: &str) -> String {
        format!("[[users]]\nsubject = \"s-1\"\nusername = \"ada\"\npassword = \"{HASH}\"\n{more}")
    }

    /// What the events say, which is what the tree says, or nothing.
    fn read(piece: &str) -> Option<Entry> {
        let tree = single(piece, "users.toml", &Accepted::default());
        let plain = PlainReader::default().entry(piece, &Accepted::default());
        if plain.is_some() {
            assert_eq!(plain, tree, "{piece}");
        }
        plain
    }

    #[test]
    fn the_usual_form_is_read_as_its_tree_is() {
        for more in [
            "",
            "active = false\n",
            "account = \"acme\" # a comment\n\n# and another\n",
            "account = 'acme'\r\nactive = true\r\n",
            "\"account\" = \"\"\"\nacme\"\"\"\n",
            "account = \"\\u0061cme\"\n",
            "sessions_valid_from = 2026-01-31T12:00:00.123Z\n",
            "sessions_valid_from = 1769860800123\nscopes = []\n",
            "scopes = [\"read\", 'write',\n  # more\n  \"admin\",\n]\n",
            "profile = {}\n",
            "profile = { b = 1, \"a b\" = true, email = \"ada@example.com\", since = 2026-01-31, nul = -5 }\n",
            &format!("rehashed = {{ hash = \"{MARK}\", mark = \"{MARK}\" }}\n"),
            &format!("rehashed = {{ mark = \"{MARK}\" }}"),
        ] {
            assert!(read(&piece(more)).is_some(), "{more}");
        }
        let found = read(&piece("scopes = [\"read\", \"write\"]\nprofile = { b = 1, a = \"x\" }\n")).unwrap().user();
        assert_eq!(
            (found.scopes.as_str(), &found.profile["a"], &found.profile["b"]),
            ("read write", &"x".into(), &1.into())
        );
        let moment = read(&piece("sessions_valid_from = 2026-01-31T12:00:00.123Z\n")).unwrap().user();
        assert_eq!(moment.sessions_valid_from, Timestamp::from_millis(1_769_860_800_123));
    }

    #[test]
    fn another_form_and_every_mistake_are_left_to_the_tree() {
        for (more, is_sound) in [
            // Sound, in a form of its own.
            ("[users.profile]\nemail = \"x\"\n", true),
            ("profile.email = \"x\"\n", true),
            ("profile = { a = { b = 1 } }\n", true),
            ("profile = { a = [1, 2] }\n", true),
            ("profile = { a.b = 1 }\n", true),
            ("profile = { a = 1.5 }\n", true),
            ("sessions_valid_from = 0x10\n", true),
            ("scopes = [\"read write\"]\n", true),
            // Mistakes.
            ("active = 1\n", false),
            ("active = true\nactive = true\n", false),
            ("subject = \"s-2\"\n", false),
            ("account = \"a/b\"\n", false),
            ("account = \"a\\qb\"\n", false),
            ("account = \"acme\n", false),
            ("account = \n", false),
            ("account \"acme\"\n", false),
            ("= \"acme\"\n", false),
            ("account = \"acme\" \"x\"\n", false),
            ("acount = \"acme\"\n", false),
            ("# a bell: \u{7}\n", false),
            ("active = true\rscopes = []\n", false),
            ("scopes = [\"read\" \"write\"]\n", false),
            ("scopes = [,]\n", false),
            ("scopes = [\"read\"\n", false),
            ("scopes = [\"a\\\\b\"]\n", false),
            ("scopes = \"read\"\n", false),
            ("profile = { a = 1, a = 2 }\n", false),
            ("profile = { a = 1 }\nprofile = { b = 1 }\n", false),
            ("profile = { a = }\n", false),
            ("profile = { = 1 }\n", false),
            ("profile = { a = nan }\n", false),
            ("profile = { a = 2026-13-31 }\n", false),
            ("rehashed = { hash = \"x\" }\n", false),
            ("rehashed = { other = 1 }\n", false),
            ("sessions_valid_from = 2026-01-31\n", false),
            ("sessions_valid_from = -1\n", false),
            ("[user]\n", false),
        ] {
            assert_eq!(read(&piece(more)), None, "{more}");
            assert_eq!(single(&piece(more), "users.toml", &Accepted::default()).is_some(), is_sound, "{more}");
        }
        for text in [
            "",
            "users = []\n",
            "[users]\n",
            "[[other]]\n",
            "[[users.other]]\n",
            "[[users]]\n",
            "[[users]]\nsubject = \"s\"\nusername = \"s\"\n",
            &piece("").replace("argon2id", "md5"),
            &format!("{}{}", piece(""), piece("")),
            &piece(&format!("profile = {}1{}\n", "[".repeat(100_000), "]".repeat(100_000))),
            &piece(&format!("profile = {}", "{a=".repeat(100_000))),
        ] {
            assert_eq!(read(text), None, "{}", text.get(..80).unwrap_or(text));
        }
    }

    #[test]
    fn a_reader_keeps_nothing_of_the_piece_before() {
        let mut reader = PlainReader::default();
        let accepted = Accepted::default();
        let first = reader.entry(&piece("account = \"acme\"\n"), &accepted).unwrap();
        assert_eq!(first.account.as_deref(), Some("acme"));
        assert!(reader.entry(&piece("account = \n"), &accepted).is_none());
        assert_eq!(reader.entry(&piece(""), &accepted).unwrap().account, None);
    }
}
