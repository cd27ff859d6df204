//! Conditions on the caller's claims (the configuration keys `when` and `when_any`).
//!
//! A condition is data, not a program, so its evaluation takes bounded time.
//!
//! A comparison is false if the claim is missing or has another type.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use super::ClaimPath;
use crate::invalid::InvalidValue;

mod kept;

pub use kept::{KeptConditions, KeptOfToken};

const MAX_COMPARISONS: usize = 16;
/// The maximum length of a compared string, in bytes.
const MAX_TEXT: usize = 256;

/// A value that a claim is compared with. Types are never converted, so neither `"7"` nor 7.0 equals the integer 7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimValue {
    /// A string, compared byte for byte.
    Text(Box<str>),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Boolean(bool),
}

impl TryFrom<Value> for ClaimValue {
    type Error = InvalidValue;

    fn try_from(value: Value) -> Result<Self, InvalidValue> {
        let refuse = || InvalidValue::new("expected a string, a whole number, true or false");
        match value {
            Value::String(text) => Ok(Self::Text(text.into())),
            Value::Number(number) => number.as_i64().map(Self::Integer).ok_or_else(refuse),
            Value::Bool(is) => Ok(Self::Boolean(is)),
            Value::Null | Value::Array(_) | Value::Object(_) => Err(refuse()),
        }
    }
}

fn values(all: impl IntoIterator<Item = impl Into<Value>>) -> Result<Vec<ClaimValue>, InvalidValue> {
    all.into_iter().map(|one| one.into().try_into()).collect()
}

impl ClaimValue {
    /// Returns `None` if the claim has a different type.
    fn compare(&self, claim: &Value) -> Option<bool> {
        match (self, claim) {
            (Self::Text(text), Value::String(claim)) => Some(**text == **claim),
            (Self::Integer(number), claim) => Some(integer(claim)? == i128::from(*number)),
            (Self::Boolean(is), Value::Bool(claim)) => Some(is == claim),
            _ => None,
        }
    }

    fn is_in(&self, claim: &Value) -> bool {
        self.compare(claim) == Some(true)
    }
}

/// Returns `None` for 7.0, which does not count as a whole number.
fn integer(claim: &Value) -> Option<i128> {
    claim.as_i64().map(i128::from).or_else(|| claim.as_u64().map(i128::from))
}

/// The required value of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal to this value.
    Equals(ClaimValue),
    /// The claim equals one of these values.
    OneOf(Vec<ClaimValue>),
    /// The claim is a list with this element, or an object with this member if the path ends with `{}`.
    Has(ClaimValue),
    /// The claim has the same type as these values, but equals none of them.
    Not(Vec<ClaimValue>),
    /// The claim is a string that begins with this prefix.
    Starts(Box<str>),
    /// The claim is a string that ends with this suffix.
    Ends(Box<str>),
    /// The claim is a whole number of at least this value.
    Min(i64),
    /// The claim is a whole number of at most this value.
    Max(i64),
    /// The claim is present and not null.
    Exists,
    /// The claim is a string that equals the path parameter with this name.
    Param(Box<str>),
}

impl Comparison {
    /// The name of this comparison in `gateway.toml`.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Equals(_) => "equals",
            Self::OneOf(_) => "one of",
            Self::Has(_) => "has",
            Self::Not(_) => "not",
            Self::Starts(_) => "starts",
            Self::Ends(_) => "ends",
            Self::Min(_) => "min",
            Self::Max(_) => "max",
            Self::Exists => "exists",
            Self::Param(_) => "param",
        }
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let (values, text): (&[ClaimValue], _) = match self {
            Self::Equals(value) | Self::Has(value) => (std::slice::from_ref(value), None),
            Self::OneOf(values) | Self::Not(values) => (values, None),
            Self::Starts(text) | Self::Ends(text) | Self::Param(text) => (&[], Some(&**text)),
            Self::Min(_) | Self::Max(_) | Self::Exists => (&[], None),
        };
        let texts = values.iter().filter_map(|value| match value {
            ClaimValue::Text(text) => Some(&**text),
            ClaimValue::Integer(_) | ClaimValue::Boolean(_) => None,
        });
        texts.chain(text)
    }

    fn problem(&self) -> Option<&'static str> {
        if self.texts().any(|text| text.len() > MAX_TEXT) {
            return Some("a string is longer than 256 bytes");
        }
        match self {
            Self::OneOf(values) | Self::Not(values) if values.is_empty() => {
                Some("the list is empty; expected at least one value")
            }
            Self::OneOf(values) | Self::Not(values) if values.len() > MAX_COMPARISONS => {
                Some("the list has more than 16 values; instead, let the issuer put these callers into a group")
            }
            Self::Not(values) if values.windows(2).any(|pair| !pair[0].is_like(&pair[1])) => {
                Some("the values have several types, but must all have the same type")
            }
            Self::Starts(text) | Self::Ends(text) if text.is_empty() => {
                Some("the string is empty, so any text would match: every string begins and ends with it")
            }
            _ => None,
        }
    }
}

impl ClaimValue {
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Compares one claim with a string, a whole number or a boolean. Types are never converted, so `"7"` does not equal 7.
/// A missing claim never meets the condition.
///
/// ```
/// use rotogate::route::Condition;
///
/// let paid = Condition::not("org.plan", ["free"])?;
/// let second_factor = Condition::has("amr", "mfa")?;
/// // The token's tenant must equal the tenant in the path.
/// let tenant = Condition::param("org_id", "org")?;
/// assert_eq!(tenant.to_string(), "org_id param");
/// # let _ = (paid, second_factor);
/// # Ok::<(), rotogate::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    claim: ClaimPath,
    comparison: Comparison,
}

/// Each constructor takes the path of the claim.
impl Condition {
    /// The claim equals this value.
    ///
    /// # Errors
    /// The path cannot be parsed, or the value is not a string, a whole number or a boolean.
    pub fn equals(claim: &str, value: impl Into<Value>) -> Result<Self, InvalidValue> {
        Self::new(claim, Comparison::Equals(value.into().try_into()?))
    }

    /// The claim equals one of these values.
    ///
    /// # Errors
    /// The path cannot be parsed, or a value is not a string, a whole number or a boolean.
    pub fn one_of(claim: &str, all: impl IntoIterator<Item = impl Into<Value>>) -> Result<Self, InvalidValue> {
        Self::new(claim, Comparison::OneOf(values(all)?))
    }

    /// The claim is a list with this element, or an object with this member if the path ends with `{}`.
    ///
    /// # Errors
    /// The path cannot be parsed, or the value is not a string, a whole number or a boolean.
    pub fn has(claim: &str, value: impl Into<Value>) -> Result<Self, InvalidValue> {
        Self::new(claim, Comparison::Has(value.into().try_into()?))
    }

    /// The claim has the same type as these values, but equals none of them.
    ///
    /// # Errors
    /// The path cannot be parsed, or a value is not a string, a whole number or a boolean.
    pub fn not(claim: &str, all: impl IntoIterator<Item = impl Into<Value>>) -> Result<Self, InvalidValue> {
        Self::new(claim, Comparison::Not(values(all)?))
    }

    /// The claim is a string that begins with this prefix.
    ///
    /// # Errors
    /// The path cannot be parsed.
    pub fn starts(claim: &str, text: &str) -> Result<Self, InvalidValue> {
        Self::new(claim, Comparison::Starts(text.into()))
    }

    /// The claim is a string that ends with this suffix.
    ///
    /// # Errors
    /// The path cannot be parsed.
    pub fn ends(claim: &str, text: &str) -> Result<Self, InvalidValue> {
        Self::new(claim, Comparison::Ends(text.into()))
    }

    /// The claim is a whole number of at least this value.
    ///
    /// # Errors
    /// The path cannot be parsed.
    pub fn min(claim: &str, least: i64) -> Result<Self, InvalidValue> {
        Self::new(claim, Comparison::Min(least))
    }

    /// The claim is a whole number of at most this value.
    ///
    /// # Errors
    /// The path cannot be parsed.
    pub fn max(claim: &str, most: i64) -> Result<Self, InvalidValue> {
        Self::new(claim, Comparison::Max(most))
    }

    /// The claim is present and not null.
    ///
    /// # Errors
    /// The path cannot be parsed.
    pub fn exists(claim: &str) -> Result<Self, InvalidValue> {
        Self::new(claim, Comparison::Exists)
    }

    /// The claim is a string that equals the path parameter with this name.
    ///
    /// # Errors
    /// The path cannot be parsed.
    pub fn param(claim: &str, name: &str) -> Result<Self, InvalidValue> {
        Self::new(claim, Comparison::Param(name.into()))
    }

    /// The claim's path.
    pub const fn claim(&self) -> &ClaimPath {
        &self.claim
    }
}

impl Condition {
    /// A condition on the claim at this path.
    ///
    /// # Errors
    /// The path cannot be parsed.
    #[doc(hidden)]
    pub fn new(claim: &str, comparison: Comparison) -> Result<Self, InvalidValue> {
        Ok(Self { claim: ClaimPath::parse(claim)?, comparison })
    }

    /// The comparison that the claim must satisfy.
    #[doc(hidden)]
    pub const fn comparison(&self) -> &Comparison {
        &self.comparison
    }

    /// Returns why the condition is invalid.
    pub fn problem(&self) -> Option<&'static str> {
        let of_members = matches!(&self.comparison, Comparison::Has(ClaimValue::Text(_)) | Comparison::Exists);
        match self.comparison.problem() {
            None if self.claim.is_of_names() && !of_members => {
                Some("a claim that ends with {} means the names of an object's members; use { has = \"…\" }")
            }
            problem => problem,
        }
    }

    fn judge<'a>(&self, claims: &'a Map<String, Value>) -> ConditionVerdict<'_, 'a> {
        let Some(claim) = self.claim.find(claims).filter(|claim| !claim.is_null()) else {
            return ConditionVerdict::Known(false);
        };
        let text = claim.as_str();
        ConditionVerdict::Known(match &self.comparison {
            Comparison::Equals(value) => value.is_in(claim),
            Comparison::OneOf(values) => values.iter().any(|value| value.is_in(claim)),
            Comparison::Has(ClaimValue::Text(name)) if self.claim.is_of_names() => {
                claim.as_object().is_some_and(|members| members.contains_key(&**name))
            }
            Comparison::Has(value) => claim.as_array().is_some_and(|list| list.iter().any(|one| value.is_in(one))),
            Comparison::Not(values) => values.iter().all(|value| value.compare(claim) == Some(false)),
            Comparison::Starts(start) => text.is_some_and(|text| text.starts_with(&**start)),
            Comparison::Ends(end) => text.is_some_and(|text| text.ends_with(&**end)),
            Comparison::Min(least) => integer(claim).is_some_and(|claim| claim >= i128::from(*least)),
            Comparison::Max(most) => integer(claim).is_some_and(|claim| claim <= i128::from(*most)),
            Comparison::Exists => claim.is_object() || !self.claim.is_of_names(),
            Comparison::Param(name) => match text.filter(|text| text.len() <= MAX_TEXT) {
                Some(text) => return ConditionVerdict::Param(name, text),
                None => false,
            },
        })
    }
}

/// Prints the claim and the operator, but never a value.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.claim, self.comparison.word())
    }
}

/// The result of a condition. `Param` contains a path parameter and the value that it must have.
enum ConditionVerdict<'c, 'a> {
    Known(bool),
    Param(&'c str, &'a str),
}

/// The conditions of a route, for [`RoutePolicy::conditions`](crate::route::RoutePolicy::conditions).
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Identifies these conditions in result caches.
    id: u64,
    when: Vec<Condition>,
    when_any: Vec<Vec<Condition>>,
    has_params: bool,
}

impl PartialEq for Conditions {
    fn eq(&self, other: &Self) -> bool {
        (&self.when, &self.when_any) == (&other.when, &other.when_any)
    }
}

impl Eq for Conditions {}

impl Conditions {
    /// Creates conditions. Every condition in `when` must be met. If `when_any` is not empty, all conditions in one of
    /// its lists must also be met.
    ///
    /// # Errors
    /// There are no comparisons or more than 16, a list of `when_any` is empty, or a comparison is invalid.
    pub fn new(when: Vec<Condition>, when_any: Vec<Vec<Condition>>) -> Result<Self, InvalidValue> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let all = Self { id: NEXT.fetch_add(1, Ordering::Relaxed), when, when_any, has_params: false };
        if all.iter().next().is_none() || all.when_any.iter().any(Vec::is_empty) {
            return Err(InvalidValue::new("there is no comparison; add at least one, or remove the condition"));
        }
        let problem = all.iter().find_map(|one| Some((one, one.problem()?)));
        if let Some((condition, why)) = problem {
            return Err(InvalidValue::new(format!("{condition}: {why}")));
        }
        let count = all.iter().count();
        if count > MAX_COMPARISONS {
            let most = "at most 16 are allowed. Let the service or a layer of the application check the rest";
            return Err(InvalidValue::new(format!("there are {count} comparisons; {most}")));
        }
        let has_params = all.params().next().is_some();
        Ok(Self { has_params, ..all })
    }

    /// The conditions that must all be met.
    pub fn when(&self) -> &[Condition] {
        &self.when
    }

    /// The lists of conditions. All conditions in at least one list must be met.
    pub fn when_any(&self) -> &[Vec<Condition>] {
        &self.when_any
    }

    /// All conditions.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.when.iter().chain(self.when_any.iter().flatten())
    }

    pub(crate) fn params(&self) -> impl Iterator<Item = &str> {
        self.iter().filter_map(|one| match &one.comparison {
            Comparison::Param(name) => Some(&**name),
            _ => None,
        })
    }

    pub(crate) const fn has_params(&self) -> bool {
        self.has_params
    }
}

/// Describes the unmet conditions. Returns the configuration key, and a description without values. `None` if the
/// claims meet all conditions.
pub fn unmet_condition(
    all: &Conditions,
    claims: &Map<String, Value>,
    params: &impl Fn(&str) -> Option<String>,
) -> Option<(&'static str, String)> {
    let holds = |one: &Condition| match one.judge(claims) {
        ConditionVerdict::Known(holds) => holds,
        ConditionVerdict::Param(name, text) => params(name).is_some_and(|param| param == text),
    };
    if let Some(one) = all.when.iter().find(|one| !holds(one)) {
        return Some(("when", one.to_string()));
    }
    if all.when_any.is_empty() || all.when_any.iter().any(|table| table.iter().all(holds)) {
        return None;
    }
    let failing = all.when_any.iter().filter_map(|table| table.iter().find(|one| !holds(one)));
    let named: Vec<_> = failing.map(ToString::to_string).collect();
    Some(("when_any", format!("none of when_any: {}", named.join("; "))))
}

/// Prints each claim with its operator, but never a value.
impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.iter().enumerate() {
            write!(f, "{}{one}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
