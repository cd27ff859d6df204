//! `when` and `when_any` of a route.

use toml::{Table, Value};

use super::TrustedIssuer;
use rotogate_core::claim::condition::{ClaimValue, Comparison, Condition, Conditions};
use rotogate_core::route::{RoutePolicy, WarningKind};
use rotogate_kit::config::{Node, Section, Value as Raw, nearest, printable};

const OPERATORS: [&str; 8] = ["has", "not", "starts", "ends", "min", "max", "exists", "param"];

/// Reads the conditions of a route.
pub(super) fn read(section: &Section<'_>, issuers: &[String], trusted: &[TrustedIssuer]) -> Option<Conditions> {
    let key = if section.has("when") { "when" } else { "when_any" };
    if !section.has(key) {
        return None;
    }
    let when = if section.has("when") { read_table(&section.section("when")) } else { Vec::new() };
    let any: Vec<_> = match section.has("when_any") {
        true => section.sections("when_any").iter().map(read_table).collect(),
        false => Vec::new(),
    };
    if section.is_bad() {
        return None;
    }
    match Conditions::new(when, any) {
        Ok(conditions) => {
            warn_of_users(section, key, &conditions, issuers, trusted);
            Some(conditions)
        }
        Err(error) => {
            section.blame(key, error.to_string());
            None
        }
    }
}

/// Reads the conditions of a table. Each claim has a value, a list of values, or a table of operators.
fn read_table(table: &Section<'_>) -> Vec<Condition> {
    let mut all = Vec::new();
    for (claim, wanted) in table.free() {
        match read_claim(claim, wanted) {
            Ok(conditions) => all.extend(conditions),
            Err(message) => table.blame(claim, message),
        }
    }
    all
}

fn read_claim(claim: &str, wanted: &Raw) -> Result<Vec<Condition>, String> {
    let comparisons = match wanted {
        Raw::Table(operators) if operators.is_empty() => {
            return Err(format!("does not contain an operator; expected one or more of {}", OPERATORS.join(", ")));
        }
        Raw::Table(operators) => {
            operators.iter().map(|(word, node)| comparison(claim, word, &node.value)).collect::<Result<Vec<_>, _>>()?
        }
        Raw::List(values) => vec![Comparison::OneOf(scalars(values)?)],
        one => vec![Comparison::Equals(scalar(one)?)],
    };
    let condition = |comparison| {
        let condition = Condition::new(claim, comparison).map_err(|error| error.to_string())?;
        match condition.problem() {
            Some(why) => Err(format!("{}: {why}", condition.comparison().word())),
            None => Ok(condition),
        }
    };
    comparisons.into_iter().map(condition).collect()
}

fn comparison(claim: &str, word: &str, value: &Raw) -> Result<Comparison, String> {
    let text = || match value {
        Raw::String(text) => Ok(text.as_str().into()),
        other => Err(format!("{word}: expected a string, found {}", other.describe())),
    };
    let number = || match value {
        Raw::Integer(number) => Ok(*number),
        other => Err(format!("{word}: expected a whole number, found {}", other.describe())),
    };
    let in_word = |why| format!("{word}: {why}");
    Ok(match word {
        "has" => Comparison::Has(scalar(value).map_err(in_word)?),
        "not" => Comparison::Not(match value {
            Raw::List(values) => scalars(values).map_err(in_word)?,
            one => vec![scalar(one).map_err(in_word)?],
        }),
        "starts" => Comparison::Starts(text()?),
        "ends" => Comparison::Ends(text()?),
        "min" => Comparison::Min(number()?),
        "max" => Comparison::Max(number()?),
        "exists" => match value {
            Raw::Bool(true) => Comparison::Exists,
            other => {
                let found = other.describe();
                return Err(format!(
                    "exists: expected true, because no condition accepts a request whose token lacks the claim; \
                     found {found}"
                ));
            }
        },
        "param" => Comparison::Param(text()?),
        unknown => return Err(unknown_word(claim, unknown)),
    })
}

fn unknown_word(claim: &str, word: &str) -> String {
    let shown = printable(word);
    match nearest(word, &OPERATORS) {
        Some(near) => format!("unknown operator {shown}; did you mean {near}?"),
        None => format!(
            "unknown operator {shown}; expected one of {}. To compare a claim inside another claim, write its path \
             in quotation marks: \"{}.{shown}\"",
            OPERATORS.join(", "),
            printable(claim)
        ),
    }
}

fn scalars(values: &[Node]) -> Result<Vec<ClaimValue>, String> {
    values.iter().map(|node| scalar(&node.value)).collect()
}

fn scalar(value: &Raw) -> Result<ClaimValue, String> {
    match value {
        Raw::String(text) => Ok(ClaimValue::Text(text.as_str().into())),
        Raw::Integer(number) => Ok(ClaimValue::Integer(*number)),
        Raw::Bool(is) => Ok(ClaimValue::Boolean(*is)),
        other => Err(format!("expected a string, a whole number, true or false, found {}", other.describe())),
    }
}

/// Warns about conditions on claims that the users of an issuer can set themselves.
fn warn_of_users(
    section: &Section<'_>,
    key: &str,
    conditions: &Conditions,
    issuers: &[String],
    trusted: &[TrustedIssuer],
) {
    let policy = RoutePolicy { issuers: issuers.to_vec(), ..RoutePolicy::default() };
    for issuer in trusted.iter().filter(|issuer| policy.takes(&issuer.name, issuer.everywhere)) {
        let Some(preset) = issuer.preset else { continue };
        let is_users = |one: &&Condition| {
            let name = one.claim().segments().next().unwrap_or_default();
            preset.claims_of_users().any(|known| known == name)
        };
        if let Some(condition) = conditions.iter().find(is_users) {
            let (claim, issuer) = (condition.claim(), printable(&issuer.name));
            let message = format!(
                "users of \"{issuer}\" ({}) can set the claim `{claim}` themselves; name a claim that only the \
                 issuer's administrators can set",
                preset.word()
            );
            section.warn(WarningKind::ClaimOfUsers, key, message);
        }
    }
}

pub(super) fn put(conditions: &Conditions, table: &mut Table) {
    let list = |list: &[Condition]| {
        let mut all = Table::new();
        for one in list {
            let claim = one.claim().to_string();
            let (word, value) = printed(one.comparison());
            let others = all.remove(&claim);
            all.insert(
                claim,
                match (word, others) {
                    (None, _) => value,
                    (Some(word), Some(Value::Table(mut operators))) => {
                        operators.insert(word.to_owned(), value);
                        operators.into()
                    }
                    (Some(word), _) => Table::from_iter([(word.to_owned(), value)]).into(),
                },
            );
        }
        Value::Table(all)
    };
    if !conditions.when().is_empty() {
        table.insert("when".to_owned(), list(conditions.when()));
    }
    if !conditions.when_any().is_empty() {
        table.insert("when_any".to_owned(), Value::Array(conditions.when_any().iter().map(|one| list(one)).collect()));
    }
}

fn printed(comparison: &Comparison) -> (Option<&'static str>, Value) {
    let one = |value: &ClaimValue| match value {
        ClaimValue::Text(text) => Value::from(&**text),
        ClaimValue::Integer(number) => Value::from(*number),
        ClaimValue::Boolean(is) => Value::from(*is),
    };
    let word = Some(comparison.word());
    match comparison {
        Comparison::Equals(value) => (None, one(value)),
        Comparison::OneOf(values) => (None, Value::Array(values.iter().map(one).collect())),
        Comparison::Has(value) => (word, one(value)),
        Comparison::Not(values) => (word, Value::Array(values.iter().map(one).collect())),
        Comparison::Starts(text) | Comparison::Ends(text) | Comparison::Param(text) => (word, Value::from(&**text)),
        Comparison::Min(number) | Comparison::Max(number) => (word, Value::from(*number)),
        Comparison::Exists => (word, true.into()),
    }
}
