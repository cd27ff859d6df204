//! Prints a configuration with all values, including defaults. The output is valid TOML.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, Method, Uri};
use ipnet::IpNet;
use toml::{Table, Value};

use rotogate_core::claim::ClaimPath;
use rotogate_core::claim::Role;
use rotogate_core::headers::HeaderPattern;
use rotogate_core::http_client::Proxy;
use rotogate_core::limit::Rate;
use rotogate_core::route::{CallPattern, LimitPer, McpCalls};
use rotogate_core::session::Scope;
use rotogate_core::token::Algorithm;
use rotogate_kit::config::CertificateAndKey;
use rotogate_proxy::UpstreamUrl;

/// The text that is printed instead of a secret.
pub(super) const MASK: &str = "(masked)";

pub(crate) trait Print {
    #[cfg(test)]
    const KEYS: &'static [crate::declare::Key] = &[];

    fn print(&self) -> Value;
}

/// A type with a fixed list of values.
pub trait Words: Copy + PartialEq + 'static {
    /// All values, each with its word in `gateway.toml`.
    const WORDS: &'static [(&'static str, Self)];
}

pub(crate) trait Put {
    #[cfg(test)]
    const KEYS: &'static [crate::declare::Key];

    /// `key` is `..` if the value has several keys.
    fn put(&self, table: &mut Table, key: &str);
}

/// `None` if the value is not set.
pub(crate) fn word(words: &[(&'static str, bool)], value: impl Into<Option<bool>>) -> Option<&'static str> {
    let value = value.into()?;
    words.iter().find(|(_, known)| *known == value).map(|(word, _)| *word)
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl<T: Print + ?Sized> Put for T {
    #[cfg(test)]
    const KEYS: &'static [crate::declare::Key] = <T as Print>::KEYS;

    fn put(&self, table: &mut Table, key: &str) {
        match self.print() {
            Value::Table(inner) if key == ".." => table.extend(inner),
            value => drop(table.insert(key.to_owned(), value)),
        }
    }
}

impl<T: Print> Put for Option<T> {
    #[cfg(test)]
    const KEYS: &'static [crate::declare::Key] = <T as Print>::KEYS;

    fn put(&self, table: &mut Table, key: &str) {
        if let Some(value) = self {
            value.put(table, key);
        }
    }
}

impl<T: Print> Print for Vec<T> {
    #[cfg(test)]
    const KEYS: &'static [crate::declare::Key] = <T as Print>::KEYS;

    fn print(&self) -> Value {
        Value::Array(self.iter().map(Print::print).collect())
    }
}

impl<T: Print> Print for BTreeMap<String, T> {
    fn print(&self) -> Value {
        Value::Table(self.iter().map(|(key, value)| (key.clone(), value.print())).collect())
    }
}

impl<T: Words> Print for T {
    fn print(&self) -> Value {
        T::WORDS.iter().find(|(_, known)| known == self).map_or("", |(word, _)| *word).into()
    }
}

impl Print for bool {
    fn print(&self) -> Value {
        (*self).into()
    }
}

impl Print for Duration {
    fn print(&self) -> Value {
        rotogate_core::clock::written(*self).into()
    }
}

impl Print for Rate {
    fn print(&self) -> Value {
        let Self { burst, every } = self;
        format!("{burst}/{}", rotogate_core::clock::written(every.saturating_mul(burst.get()))).into()
    }
}

impl Print for Scope {
    fn print(&self) -> Value {
        Value::Array(self.iter().map(Value::from).collect())
    }
}

impl Print for PathBuf {
    /// Makes the path absolute, so that the output can be used in another folder.
    fn print(&self) -> Value {
        std::path::absolute(self).unwrap_or_else(|_| self.clone()).display().to_string().into()
    }
}

impl Print for (Duration, Duration) {
    fn print(&self) -> Value {
        Value::Array(vec![self.0.print(), self.1.print()])
    }
}

impl Print for CertificateAndKey {
    fn print(&self) -> Value {
        let (cert, key) = self;
        let mut table = Table::new();
        cert.put(&mut table, "cert");
        key.put(&mut table, "key");
        table.into()
    }
}

impl Print for NonZeroUsize {
    fn print(&self) -> Value {
        self.get().print()
    }
}

impl Print for NonZeroU32 {
    fn print(&self) -> Value {
        self.get().print()
    }
}

impl Print for Uri {
    /// Omits a path of `/`.
    fn print(&self) -> Value {
        let text = self.to_string();
        if self.path() == "/" { text.trim_end_matches('/').into() } else { text.into() }
    }
}

impl Print for f64 {
    fn print(&self) -> Value {
        (*self).into()
    }
}

macro_rules! printed_as_text {
    ($($Type:ty),*) => { $(
        impl Print for $Type {
            fn print(&self) -> Value {
                self.to_string().into()
            }
        }
    )* };
}
printed_as_text!(
    str,
    &str,
    String,
    Box<str>,
    Arc<str>,
    CallPattern,
    McpCalls,
    ClaimPath,
    HeaderName,
    HeaderPattern,
    IpNet,
    Method,
    PathAndQuery,
    Role
);
printed_as_text!(Algorithm, LimitPer, Proxy, SocketAddr, UpstreamUrl);

macro_rules! printed_as_number {
    ($($Type:ty),*) => { $(
        impl Print for $Type {
            fn print(&self) -> Value {
                Value::Integer((*self).try_into().unwrap_or(i64::MAX))
            }
        }
    )* };
}
printed_as_number!(usize, u64, u32, u16);

#[cfg(test)]
pub(crate) use for_tests::printed;

pub(super) fn put(table: &mut Table, key: &str, value: impl Into<Value>) {
    table.insert(key.to_owned(), value.into());
}

#[cfg(test)]
mod for_tests {
    use super::*;

    impl Print for rotogate_kit::config::value::Share {
        fn print(&self) -> Value {
            match self {
                Self::Amount(amount) => amount.print(),
                Self::Percent(percent) => format!("{percent}%").into(),
            }
        }
    }

    pub(crate) fn printed(value: &impl Put) -> Value {
        let mut table = Table::new();
        value.put(&mut table, "value");
        table.remove("value").unwrap_or_else(|| "none".into())
    }
}
