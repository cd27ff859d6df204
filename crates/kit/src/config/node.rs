//! TOML values with their positions in the file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};
use toml::value::Datetime;

use super::Problems;

/// The position of a value.
#[derive(Clone, Debug)]
pub enum ValueOrigin {
    /// A byte range in the file.
    File(Range<usize>),
    /// An environment variable.
    Env(String),
}

/// A value with its position.
#[derive(Clone, Debug)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// The position of the value.
    pub origin: ValueOrigin,
    /// The position of the key.
    pub key: ValueOrigin,
}

/// A value from a file or an environment variable.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string.
    String(String),
    /// An integer.
    Integer(i64),
    /// A fraction, or an integer outside the range of `i64`.
    OtherNumber(String),
    /// `true` or `false`.
    Bool(bool),
    /// A date, a time, or both.
    Datetime(Datetime),
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(BTreeMap<String, Node>),
    /// An environment variable, which can be read as a scalar or as a list with commas.
    Env(String),
}

impl Value {
    /// The value as a string, or `None` for other types.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Env(text) => Some(text),
            _ => None,
        }
    }

    /// The value for error messages, without credentials in a URL.
    pub fn describe(&self) -> String {
        match self {
            Self::String(text) | Self::Env(text) => format!("\"{}\"", printable(&without_userinfo(text))),
            Self::Integer(n) => n.to_string(),
            Self::OtherNumber(text) => text.clone(),
            Self::Bool(b) => b.to_string(),
            Self::Datetime(d) => d.to_string(),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// Removes user and password from a URL. The password may contain an unescaped `@`.
fn without_userinfo(text: &str) -> Cow<'_, str> {
    let found = text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)));
    found.map_or(Cow::Borrowed(text), |(scheme, host)| format!("{scheme}://…@{host}").into())
}

/// Escapes and truncates untrusted text for an error message.
pub fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    shown
}

/// Parses a file. Returns `None` if the file is not valid TOML.
pub fn parse(text: &str, problems: &Problems<'_>) -> Option<Node> {
    let (root, is_whole) = parse_sound(text, problems);
    is_whole.then_some(root)
}

/// Parses the valid part of a file. Also returns whether the whole file is valid.
pub fn parse_sound(text: &str, problems: &Problems<'_>) -> (Node, bool) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let (span, is_whole) = (table.span(), errors.is_empty());
    for error in errors {
        let origin = error.span().map(ValueOrigin::File);
        problems.add(origin.as_ref(), "", format!("not TOML: {}", error.message().replace('\n', ", ")));
    }
    let value = convert_table(table.get_ref());
    (Node { value, origin: ValueOrigin::File(span.clone()), key: ValueOrigin::File(span) }, is_whole)
}

fn convert_table(table: &DeTable<'_>) -> Value {
    let entry = |(key, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
        (key.get_ref().to_string(), convert(value, ValueOrigin::File(key.span())))
    };
    Value::Table(table.iter().map(entry).collect())
}

fn convert(value: &toml::Spanned<DeValue<'_>>, key: ValueOrigin) -> Node {
    let origin = ValueOrigin::File(value.span());
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Value::Integer(n),
            Err(_) => Value::OtherNumber(n.to_string()),
        },
        DeValue::Float(f) => Value::OtherNumber(f.to_string()),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(d) => Value::Datetime(*d),
        DeValue::Array(list) => {
            Value::List(list.iter().map(|node| convert(node, ValueOrigin::File(node.span()))).collect())
        }
        DeValue::Table(table) => convert_table(table),
    };
    Node { value, origin, key }
}
