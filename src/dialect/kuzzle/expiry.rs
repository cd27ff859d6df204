//! Parses `expiresIn`: a string as in JavaScript's `ms` library, or milliseconds.

use std::time::Duration;

use serde_json::Value;

use super::words::Problem;

const MAX_TEXT_BYTES: usize = 100;
/// The protocol's value for "never expires".
const NEVER: f64 = -1.0;

/// Returns the requested lifetime, or `None` if the gate chooses.
pub(super) fn read(asked: Option<&Value>) -> Result<Option<Duration>, Problem> {
    let Some(asked) = asked else { return Ok(None) };
    let millis = match asked {
        Value::String(text) => millis(text),
        Value::Number(number) => number.as_f64(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let Some(millis) = millis.filter(|millis| millis.is_finite()) else { return Err(bad()) };
    // Every token of this gate expires, so this request is rejected.
    if millis.to_bits() == NEVER.to_bits() {
        return Err(Problem::ttl_exceeded());
    }
    if millis < 1.0 {
        return Err(bad());
    }
    match Duration::try_from_secs_f64(millis / 1000.0) {
        // The times in a token are whole seconds. A token with a shorter lifetime could expire before the reply
        // arrives.
        Ok(ttl) => Ok(Some(ttl.max(Duration::from_secs(1)))),
        Err(_) => Err(Problem::ttl_exceeded()),
    }
}

fn bad() -> Problem {
    Problem::invalid_argument("expiresIn", "a duration of at least a millisecond, such as 2h")
}

/// Returns milliseconds, or `None` if the string is not a duration.
fn millis(text: &str) -> Option<f64> {
    if text.len() > MAX_TEXT_BYTES {
        return None;
    }
    let is_of_number = |c: char| c.is_ascii_digit() || c == '.';
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let end = unsigned.find(|c| !is_of_number(c)).unwrap_or(unsigned.len());
    let (number, unit) = unsigned.split_at_checked(end)?;
    // The `ms` library accepts `.5`, but not `1.`.
    if number.ends_with('.') {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    let scale = scale(unit.trim_start_matches(' '))?;
    let millis = number * scale;
    Some(if unsigned.len() < text.len() { -millis } else { millis })
}

fn scale(unit: &str) -> Option<f64> {
    const SECOND: f64 = 1000.0;
    const MINUTE: f64 = 60.0 * SECOND;
    const HOUR: f64 = 60.0 * MINUTE;
    const DAY: f64 = 24.0 * HOUR;
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => MINUTE,
        "h" | "hr" | "hrs" | "hour" | "hours" => HOUR,
        "d" | "day" | "days" => DAY,
        "w" | "week" | "weeks" => 7.0 * DAY,
        "y" | "yr" | "yrs" | "year" | "years" => 365.25 * DAY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn id(asked: &Value) -> String {
        read(Some(asked)).unwrap_err().id().to_owned()
    }

    #[test]
    fn durations_are_read_as_the_ms_library_does() {
        let table = [
            (json!("2h"), 7200),
            (json!("1 day"), 86_400),
            (json!("3600000"), 3600),
            (json!(3_600_000), 3600),
            (json!("1.5 HRS"), 5400),
            (json!(".5m"), 30),
            (json!("10 msecs"), 1),
            (json!("1w"), 604_800),
            (json!("1y"), 31_557_600),
        ];
        for (asked, seconds) in table {
            assert_eq!(read(Some(&asked)).unwrap(), Some(Duration::from_secs(seconds)), "{asked}");
        }
        assert_eq!(read(None).unwrap(), None);
    }

    #[test]
    fn what_is_no_duration_is_an_invalid_argument() {
        let bad =
            ["", "0", "abc", "1.", "1..2h", "h", "1 h ", "2 fortnights", "-2h", "0.1", "1\u{a0}h", "--1", "1e3", "+1"];
        for text in bad {
            assert_eq!(id(&json!(text)), "api.assert.invalid_argument", "{text}");
        }
        for value in [json!(0), json!(true), json!([]), json!({}), json!("1".repeat(101))] {
            assert_eq!(id(&value), "api.assert.invalid_argument", "{value}");
        }
    }

    #[test]
    fn no_token_lives_for_ever() {
        for value in [json!("-1"), json!(-1), json!(1e300), json!(format!("{}y", "9".repeat(90)))] {
            assert_eq!(id(&value), "security.token.ttl_exceeded", "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,120}", number in any::<f64>()) {
            let _ = read(Some(&json!(text)));
            let _ = read(Some(&json!(number)));
        }
    }
}
