//! Prints a configuration as a `gateway.toml` with every value in force, defaults included: for comparison, and to be
//! read again. The sections print themselves with these helpers.

use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use rotogate_core::limit::Rate;

/// Replaces a secret. Read again, it is a hash that no secret has, and a warning.
pub(super) const MASK: &str = "(masked)";

pub(super) fn put(table: &mut Table, key: &str, value: impl Into<Value>) {
    table.insert(key.to_owned(), value.into());
}

pub(super) fn put_some(table: &mut Table, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        put(table, key, value);
    }
}

pub(super) fn list<T>(items: &[T], one: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(one).collect())
}

pub(super) fn texts<T: ToString>(items: &[T]) -> Value {
    list(items, |item| item.to_string().into())
}

pub(super) fn number(n: impl TryInto<i64>) -> Value {
    Value::Integer(n.try_into().unwrap_or(i64::MAX))
}

pub(super) fn time(duration: Duration) -> Value {
    rotogate_core::clock::written(duration).into()
}

pub(super) fn rate(rate: Rate) -> Value {
    let Rate { burst, every } = rate;
    format!("{burst}/{}", rotogate_core::clock::written(every.saturating_mul(burst.get()))).into()
}

/// An absolute path, which means the same in a file elsewhere.
pub(super) fn path(path: &Path) -> Value {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string().into()
}
