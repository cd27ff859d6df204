//! Readers of single values. Each error message states what was expected.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Value, nearest};
use rotogate_core::limit::Rate;
use rotogate_core::session::Scope;

/// The maximum duration in a configuration, which avoids overflows.
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Returns the error for an unexpected value.
///
/// # Errors
/// Always.
pub fn unexpected<T>(expected: &str, found: &Value) -> Result<T, String> {
    Err(format!("expected {expected}, found {}", found.describe()))
}

/// Parses a string. `expected` is for the error message.
pub fn parsed<T>(value: &Value, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, String> {
    value.as_text().and_then(parse).map_or_else(|| unexpected(expected, value), Ok)
}

/// A string that satisfies `fits`. The string may be empty.
pub fn matching(value: &Value, expected: &str, fits: impl FnOnce(&str) -> bool) -> Result<String, String> {
    parsed(value, expected, |text| fits(text).then(|| text.to_owned()))
}

/// A non-empty string without control characters.
pub fn text(value: &Value) -> Result<String, String> {
    let fits = |text: &str| !text.is_empty() && !text.contains(char::is_control);
    matching(value, "a string that is not empty and has no control characters", fits)
}

/// A [text] that satisfies `fits`.
pub fn fitting(value: &Value, expected: &str, fits: impl FnOnce(&str) -> bool) -> Result<String, String> {
    text(value)?;
    matching(value, expected, fits)
}

/// A single value or a list.
pub fn one_or_several<T>(value: &Value, read: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, String> {
    match value {
        Value::List(several) => several.iter().map(|one| read(&one.value)).collect(),
        one => read(one).map(|one| vec![one]),
    }
}

/// A [text] that passes a check.
pub fn checked<E: ToString>(value: &Value, check: impl FnOnce(&str) -> Result<(), E>) -> Result<String, String> {
    let text = text(value)?;
    check(&text).map_err(|error| error.to_string())?;
    Ok(text)
}

/// A path, resolved relative to `folder`.
pub fn path_in(folder: &Path) -> impl Fn(&Value) -> Result<PathBuf, String> {
    move |value| text(value).map(|path| folder.join(path))
}

/// `true` or `false`.
pub fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(b) => Ok(*b),
        Value::Env(s) if s == "true" => Ok(true),
        Value::Env(s) if s == "false" => Ok(false),
        other => unexpected("true or false", other),
    }
}

/// A number within inclusive bounds.
pub fn count<T: TryFrom<usize>>(min: usize, max: usize) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let n = match value {
            Value::Integer(n) => usize::try_from(*n).ok(),
            Value::Env(s) => s.parse().ok(),
            _ => None,
        };
        let within = n.filter(|n| (min..=max).contains(n)).and_then(|n| T::try_from(n).ok());
        within.map_or_else(|| unexpected(&format!("a whole number from {min} to {max}"), value), Ok)
    }
}

/// A number from 1 to a bound.
pub fn nonzero(max: usize) -> impl Fn(&Value) -> Result<NonZeroU32, String> {
    move |value| count::<u32>(1, max)(value).map(|n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN))
}

/// A number from 0 to 1.
pub fn fraction(value: &Value) -> Result<f64, String> {
    let n = match value {
        Value::Integer(n) => i32::try_from(*n).ok().map(f64::from),
        Value::OtherNumber(s) | Value::Env(s) => s.parse().ok(),
        _ => None,
    };
    match n {
        Some(n) if (0.0..=1.0).contains(&n) => Ok(n),
        _ => unexpected("a number from 0 to 1, such as 0.1", value),
    }
}

/// An amount or a percentage.
#[derive(Clone, Copy, Debug)]
pub enum Share {
    /// An amount.
    Amount(u64),
    /// A percentage.
    Percent(u64),
}

impl Share {
    /// Converts the share to an amount of at least 1.
    pub fn to_amount(self, whole: usize) -> usize {
        let amount = match self {
            Self::Amount(amount) => amount,
            Self::Percent(percent) => (whole as u64).saturating_mul(percent).div_ceil(100),
        };
        usize::try_from(amount).unwrap_or(usize::MAX).max(1)
    }
}

/// A positive number, size or percentage.
pub fn share(value: &Value) -> Result<Share, String> {
    let parsed = match value {
        Value::Integer(n) => u64::try_from(*n).ok().map(Share::Amount),
        Value::String(s) | Value::Env(s) => match s.strip_suffix('%') {
            Some(percent) => percent.trim().parse().ok().filter(|percent| *percent <= 100).map(Share::Percent),
            None => parse_size(s).map(Share::Amount),
        },
        _ => None,
    };
    let is_some = |share: &Share| !matches!(share, Share::Amount(0) | Share::Percent(0));
    match parsed.filter(is_some) {
        Some(share) => Ok(share),
        None => unexpected("a number above 0, or a percentage such as \"10%\"", value),
    }
}

/// A size in bytes, with or without a unit.
pub fn size<T: TryFrom<u64>>(min: u64, max: u64) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let n = match value {
            Value::Integer(n) => u64::try_from(*n).ok(),
            Value::String(s) | Value::Env(s) => parse_size(s),
            _ => None,
        };
        match n.map(|n| T::try_from(n).ok().filter(|_| (min..=max).contains(&n))) {
            Some(Some(n)) => Ok(n),
            Some(None) => unexpected(&format!("between {min} and {max} bytes"), value),
            None => unexpected("a size such as 16384, \"16KiB\" or \"10MiB\"", value),
        }
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text.get(digits.len()..)?.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// A duration with a unit, at most 100 years.
pub fn duration(value: &Value) -> Result<Duration, String> {
    const EXPECTED: &str = "a duration such as \"30s\", \"10m\" or \"1h 30m\"";
    match value {
        Value::String(s) | Value::Env(s) => match humantime::parse_duration(s) {
            Ok(d) if d <= MAX_DURATION => Ok(d),
            Ok(_) => unexpected("a duration of at most 100 years", value),
            Err(_) => unexpected(EXPECTED, value),
        },
        Value::Integer(n) => Err(format!("expected {EXPECTED}, found {n}; write the unit too, as in \"{n}s\"")),
        other => unexpected(EXPECTED, other),
    }
}

/// A duration within inclusive bounds.
pub fn duration_within(min: Duration, max: Duration) -> impl Fn(&Value) -> Result<Duration, String> {
    move |value| {
        let d = duration(value)?;
        let show = rotogate_core::clock::written;
        if d < min {
            return unexpected(&format!("at least {}", show(min)), value);
        }
        if d > max {
            return unexpected(&format!("at most {}", show(max)), value);
        }
        Ok(d)
    }
}

/// A rate such as `"10/1m"`: a burst of ten, refilled at ten per minute.
pub fn rate(value: &Value) -> Result<Rate, String> {
    parsed(value, "a rate such as \"10/1m\": ten at once, and ten more every minute", parse_rate)
}

fn parse_rate(text: &str) -> Option<Rate> {
    let (burst, period) = text.split_once('/')?;
    let burst: NonZeroU32 = burst.trim().parse().ok()?;
    let period = humantime::parse_duration(period.trim()).ok().filter(|d| *d <= Duration::from_secs(7 * 86_400))?;
    let every = period.checked_div(burst.get()).filter(|d| !d.is_zero())?;
    Some(Rate { burst, every })
}

/// Reads one of several words. Words in `later` are reserved for later versions.
pub fn word<T: Copy>(words: &[(&str, T)], later: &[&str]) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let expected = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ");
        let (Value::String(found) | Value::Env(found)) = value else { return unexpected(&expected, value) };
        if let Some((_, meaning)) = words.iter().find(|(name, _)| name == found) {
            return Ok(*meaning);
        }
        let shown = value.describe();
        if later.contains(&found.as_str()) {
            return Err(format!("{shown} comes in a later version; expected {expected}"));
        }
        Err(match nearest(found, &names) {
            Some(near) => format!("unknown value {shown}; did you mean \"{near}\"?"),
            None => format!("expected {expected}, found {shown}"),
        })
    }
}

/// Reads a word that this build supports. `features` maps other words to the Cargo features that they need.
pub fn word_of_build<T: Copy>(words: &[(&str, T)], features: &[(&str, &str)]) -> impl Fn(&Value) -> Result<T, String> {
    let known = word(words, &[]);
    move |value| {
        let (Value::String(found) | Value::Env(found)) = value else { return known(value) };
        let is_missing = |(word, _): &&(&str, &str)| word == found && !words.iter().any(|(known, _)| known == word);
        match features.iter().find(is_missing) {
            Some((_, feature)) => Err(needs_feature(&value.describe(), feature)),
            None => known(value),
        }
    }
}

/// The error message for a setting that needs a missing Cargo feature.
pub fn needs_feature(setting: &str, feature: &str) -> String {
    format!(
        "{setting} needs the feature {feature}, which this program is built without: install a package of rotogate, which \
         has all features, or build it with `cargo install --path crates/server --features {feature}`"
    )
}

/// An IP address with a port.
pub fn address(value: &Value) -> Result<SocketAddr, String> {
    parsed(value, "an address and port such as \"127.0.0.1:8080\" or \"[::1]:8080\"", |text| text.parse().ok())
}

/// Scope tokens, separated by spaces.
pub fn scope(value: &Value) -> Result<Scope, String> {
    Scope::parse(&text(value)?).map_err(|e| format!("{}: {e}", value.describe()))
}

#[cfg(test)]
mod tests;
