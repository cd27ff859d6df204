//! Log lines with flat fields, as JSON or `key=value`.

use std::cell::RefCell;

use rotogate_config::LogFormat;
use rotogate_core::context::is_deceptive;
use rotogate_core::session::SessionId;
use rotogate_core::token::verify::beginning;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// The maximum length of an untrusted string, in bytes, before and after escaping. A line has at most 8 KiB.
const MAX_FOREIGN_BYTES: usize = 256;
const MAX_ESCAPED_BYTES: usize = 512;
/// The maximum length of a string from the program itself, in bytes.
const MAX_OWN_BYTES: usize = 4096;

#[derive(Debug)]
pub(crate) struct LogLine {
    bytes: Vec<u8>,
    format: LogFormat,
    truncated: bool,
}

thread_local! {
    /// Buffers that this thread can reuse.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

pub(crate) trait FieldKey {
    /// Writes the name with the separators of the format.
    fn write(self, format: LogFormat, bytes: &mut Vec<u8>);

    /// Like [`Self::write`], with the opening quote of a JSON string.
    fn write_before_string(self, format: LogFormat, bytes: &mut Vec<u8>);
}

/// A field name that is known at compile time, see [`key!`].
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) json: &'static str,
    pub(crate) json_string: &'static str,
    pub(crate) text: &'static str,
}

// The function is inlined, so that the name is copied without a function call.
impl FieldKey for Known {
    #[inline(always)]
    fn write(self, format: LogFormat, bytes: &mut Vec<u8>) {
        match format {
            LogFormat::Json => bytes.extend_from_slice(self.json.as_bytes()),
            LogFormat::Text => bytes.extend_from_slice(self.text.as_bytes()),
        }
    }

    #[inline(always)]
    fn write_before_string(self, format: LogFormat, bytes: &mut Vec<u8>) {
        match format {
            LogFormat::Json => bytes.extend_from_slice(self.json_string.as_bytes()),
            LogFormat::Text => bytes.extend_from_slice(self.text.as_bytes()),
        }
    }
}

impl FieldKey for &str {
    fn write(self, format: LogFormat, bytes: &mut Vec<u8>) {
        let (before, after) = match format {
            LogFormat::Json => (",\"", "\":"),
            LogFormat::Text => (" ", "="),
        };
        for part in [before, self, after] {
            bytes.extend_from_slice(part.as_bytes());
        }
    }

    fn write_before_string(self, format: LogFormat, bytes: &mut Vec<u8>) {
        self.write(format, bytes);
        if format == LogFormat::Json {
            bytes.push(b'"');
        }
    }
}

/// An empty key, for a value that is written without a name.
#[derive(Clone, Copy)]
pub(crate) struct Bare;

impl FieldKey for Bare {
    fn write(self, _: LogFormat, bytes: &mut Vec<u8>) {
        if !bytes.is_empty() {
            bytes.push(b' ');
        }
    }

    fn write_before_string(self, format: LogFormat, bytes: &mut Vec<u8>) {
        self.write(format, bytes);
    }
}

/// Creates a [`Known`] field name.
macro_rules! key {
    ($name:literal) => {
        $crate::log::line::Known {
            json: concat!(",\"", $name, "\":"),
            json_string: concat!(",\"", $name, "\":\""),
            text: concat!(" ", $name, "="),
        }
    };
}
pub(crate) use key;

const MAX_SPARE_BUFFERS: usize = 64;
const BUFFER_BYTES: usize = 1024;

impl LogLine {
    pub(crate) fn new(format: LogFormat, micros: u64) -> Self {
        let mut line = Self::fields(format);
        if format == LogFormat::Json {
            line.bytes.extend_from_slice(b"{\"timestamp\":\"");
        }
        line.time(micros);
        if format == LogFormat::Json {
            line.bytes.push(b'"');
        }
        line
    }

    /// Creates a buffer for fields that are copied into other lines.
    pub(super) fn fields(format: LogFormat) -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self { bytes: spare.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES)), format, truncated: false }
    }

    pub(super) fn written(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn add(&mut self, fields: &[u8]) {
        self.bytes.extend_from_slice(fields);
    }

    fn time(&mut self, micros: u64) {
        let (second, part) = (micros / 1_000_000, micros % 1_000_000);
        SECOND.with_borrow_mut(|(known, text)| {
            if *known != second {
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
                *text = humantime::format_rfc3339_seconds(time).to_string();
                // The time zone is written after the fraction.
                text.truncate(text.len().saturating_sub(1));
                *known = second;
            }
            self.bytes.extend_from_slice(text.as_bytes());
        });
        let mut digits = *b".000000Z";
        let mut rest = part;
        for digit in digits.iter_mut().skip(1).take(6).rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        self.bytes.extend_from_slice(&digits);
    }

    #[inline(always)]
    fn key(&mut self, key: impl FieldKey) {
        key.write(self.format, &mut self.bytes);
    }

    /// Adds a word of visible ASCII without quotes and backslashes.
    #[inline(always)]
    pub(crate) fn word(&mut self, key: impl FieldKey, word: impl AsRef<[u8]>) {
        key.write_before_string(self.format, &mut self.bytes);
        self.bytes.extend_from_slice(word.as_ref());
        if self.format == LogFormat::Json {
            self.bytes.push(b'"');
        }
    }

    pub(crate) fn session(&mut self, key: impl FieldKey, session: SessionId) {
        let mut text = [0; Hyphenated::LENGTH];
        self.word(key, Uuid::from_bytes(*session.as_bytes()).hyphenated().encode_lower(&mut text).as_bytes());
    }

    /// Adds a string from outside, truncated and escaped.
    #[inline(always)]
    pub(crate) fn text(&mut self, key: impl FieldKey, text: &str) {
        if self.format == LogFormat::Json && text.len() <= MAX_FOREIGN_BYTES && is_plain(text.as_bytes()) {
            return self.word(key, text);
        }
        self.key(key);
        self.value(text, MAX_FOREIGN_BYTES, MAX_ESCAPED_BYTES);
    }

    /// Adds bytes from outside, truncated and escaped.
    #[inline(always)]
    pub(crate) fn bytes(&mut self, key: impl FieldKey, bytes: &[u8]) {
        if self.format == LogFormat::Json && bytes.len() <= MAX_FOREIGN_BYTES && is_plain(bytes) {
            return self.word(key, bytes);
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => self.text(key, text),
            Err(_) => self.text(key, &String::from_utf8_lossy(bytes)),
        }
    }

    /// Adds a string that the program itself created. It may contain untrusted text.
    #[inline(always)]
    pub(crate) fn own(&mut self, key: impl FieldKey, text: &str) {
        if self.format == LogFormat::Json && text.len() <= MAX_OWN_BYTES && is_plain(text.as_bytes()) {
            return self.word(key, text);
        }
        self.key(key);
        self.value(text, MAX_OWN_BYTES, MAX_OWN_BYTES);
    }

    #[inline(always)]
    pub(crate) fn number(&mut self, key: impl FieldKey, number: u64) {
        self.key(key);
        self.bytes.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    pub(crate) fn signed(&mut self, key: impl FieldKey, number: i64) {
        self.key(key);
        self.bytes.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    pub(crate) fn flag(&mut self, key: impl FieldKey, flag: bool) {
        self.key(key);
        self.bytes.extend_from_slice(if flag { b"true" } else { b"false" });
    }

    pub(crate) fn address(&mut self, key: impl FieldKey, address: std::net::IpAddr) {
        use std::io::Write;
        self.key(key);
        let quote = self.format == LogFormat::Json;
        if quote {
            self.bytes.push(b'"');
        }
        let _ = write!(self.bytes, "{}", address.to_canonical());
        if quote {
            self.bytes.push(b'"');
        }
    }

    pub(super) fn lead(&mut self, text: &str) {
        self.bytes.push(b' ');
        self.escaped(text, MAX_OWN_BYTES, MAX_OWN_BYTES);
    }

    pub(super) fn raw(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    #[inline(never)]
    fn value(&mut self, text: &str, most: usize, most_escaped: usize) {
        let is_bare = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/+@,;*{}()[]!?&%$#|^".contains(&b);
        if self.format == LogFormat::Text && !text.is_empty() && text.len() <= most && text.bytes().all(is_bare) {
            self.bytes.extend_from_slice(text.as_bytes());
            return;
        }
        self.bytes.push(b'"');
        let is_cut = self.escaped(text, most, most_escaped);
        self.bytes.push(b'"');
        self.truncated |= is_cut;
    }

    /// Escapes characters as in JSON, and also characters that affect a terminal. Returns whether the string was
    /// truncated.
    fn escaped(&mut self, text: &str, most: usize, most_escaped: usize) -> bool {
        let head = beginning(text, most);
        if is_plain(head.as_bytes()) {
            self.bytes.extend_from_slice(head.as_bytes());
            return head.len() < text.len();
        }
        let end = self.bytes.len() + most_escaped;
        for c in head.chars() {
            let mut piece = [0; 12];
            let length = escape(c, &mut piece);
            if self.bytes.len() + length > end {
                return true;
            }
            self.bytes.extend_from_slice(piece.get(..length).unwrap_or_default());
        }
        head.len() < text.len()
    }

    pub(crate) fn copy(&self) -> Self {
        let mut bytes = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        bytes.extend_from_slice(&self.bytes);
        Self { bytes, format: self.format, truncated: self.truncated }
    }

    pub(crate) fn end(mut self, take: impl FnOnce(&[u8])) {
        if self.truncated {
            self.flag("rotogate.truncated", true);
        }
        if self.format == LogFormat::Json {
            self.bytes.push(b'}');
        }
        self.bytes.push(b'\n');
        take(&self.bytes);
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() == 0 || bytes.capacity() > 4 * BUFFER_BYTES {
            return;
        }
        bytes.clear();
        // Access to the thread-local value fails while the thread ends.
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < MAX_SPARE_BUFFERS
            {
                spare.push(bytes);
            }
        });
    }
}

/// Returns whether a string needs no quotes or escapes. Without an early exit, the loop checks several bytes at a time.
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, b| plain & matches!(b, b' '..=b'~') & (*b != b'"') & (*b != b'\\'))
}

fn escape(c: char, piece: &mut [u8; 12]) -> usize {
    let short = match c {
        '"' => Some(b'"'),
        '\\' => Some(b'\\'),
        '\n' => Some(b'n'),
        '\r' => Some(b'r'),
        '\t' => Some(b't'),
        _ => None,
    };
    if let Some(letter) = short {
        [piece[0], piece[1]] = [b'\\', letter];
        return 2;
    }
    if !is_deceptive(c) {
        return c.encode_utf8(piece).len();
    }
    let code = u32::from(c);
    let mut at = 2;
    [piece[0], piece[1]] = [b'\\', b'u'];
    for shift in [12, 8, 4, 0] {
        let digit = u8::try_from((code >> shift) & 0xf).unwrap_or_default();
        if let Some(place) = piece.get_mut(at) {
            *place = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(format: LogFormat, fill: impl FnOnce(&mut LogLine)) -> String {
        let mut line = LogLine::new(format, 1_700_000_000_000_042);
        fill(&mut line);
        let mut out = Vec::new();
        line.end(|bytes| out.extend_from_slice(bytes));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn o18_a_line_is_flat_and_its_values_are_plain() {
        let fill = |line: &mut LogLine| {
            line.word("event.dataset", "x");
            line.text("url.path", "/a b\"\n\u{85}é");
            line.number("n", u64::MAX);
            line.signed("s", -1);
            line.flag("f", false);
            line.address("a", "::ffff:127.0.0.1".parse().unwrap());
        };
        assert_eq!(
            written(LogFormat::Json, fill),
            "{\"timestamp\":\"2023-11-14T22:13:20.000042Z\",\"event.dataset\":\"x\",\"url.path\":\"/a b\\\"\\n\\u0085é\",\
             \"n\":18446744073709551615,\"s\":-1,\"f\":false,\"a\":\"127.0.0.1\"}\n"
        );
        assert_eq!(
            written(LogFormat::Text, fill),
            "2023-11-14T22:13:20.000042Z event.dataset=x url.path=\"/a b\\\"\\n\\u0085é\" n=18446744073709551615 s=-1 f=false a=127.0.0.1\n"
        );
    }

    #[test]
    fn o18_a_value_without_a_key_is_one_word_or_in_quotes() {
        let mut line = LogLine::fields(LogFormat::Text);
        for text in ["GET", "/a", "x 4 ms\nGET /\u{1b}[2J\"\u{202e}"] {
            line.text(Bare, text);
        }
        let written = "GET /a \"x 4 ms\\nGET /\\u001b[2J\\\"\\u202e\"";
        assert_eq!(String::from_utf8_lossy(line.written()), written);
    }

    #[test]
    fn o19_what_is_too_long_is_cut_and_said_to_be() {
        let long = "é".repeat(200);
        let line = written(LogFormat::Json, |line| line.text("k", &long));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["k"].as_str().unwrap().len(), 256);
        assert_eq!(value["rotogate.truncated"], true);
        let controls = written(LogFormat::Json, |line| line.text("k", &"\u{1}".repeat(256)));
        assert!(controls.len() < 600 && controls.contains("truncated"), "{controls}");
    }

    proptest! {
        #[test]
        fn o18_whatever_is_written_is_one_line_of_json_and_holds_no_control(text in "\\PC{0,40}|.{0,300}|[\\x00-\\x20\"\\\\\u{80}-\u{9f}\u{2028}]{0,300}") {
            let line = written(LogFormat::Json, |line| {
                line.text("a", &text);
                line.own("b", &text);
            });
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            let text_of = |key: &str| value[key].as_str().unwrap().to_owned();
            prop_assert!(text.starts_with(&text_of("a")) && text.starts_with(&text_of("b")));
            prop_assert!(line.strip_suffix('\n').unwrap().chars().all(|c| !c.is_control()));
            let plain = written(LogFormat::Text, |line| line.text("a", &text));
            let is_clean = plain.strip_suffix('\n').unwrap().chars().all(|c| !c.is_control() && c != '\u{2028}');
            prop_assert!(is_clean);
        }
    }
}
