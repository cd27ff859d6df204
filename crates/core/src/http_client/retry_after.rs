use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, HeaderName, RETRY_AFTER};
use httpdate::parse_http_date;

/// The delay in `Retry-After` (RFC 9110 §10.2.3), which is a number of seconds or a date. A date is compared with the
/// `Date` of the same response, because clocks may differ. If `Date` is missing, returns `None`.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let wait = text(RETRY_AFTER)?;
    if let Ok(seconds) = wait.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (until, now) = (parse_http_date(wait).ok()?, parse_http_date(text(DATE)?).ok()?);
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn d12_a_wait_is_seconds_or_a_date_by_the_clock_of_the_server() {
        const NOON: &str = "Sat, 21 Nov 2026 12:00:00 GMT";
        let said = |wait: &'static str, date: Option<&'static str>| {
            let date = date.map(|date| (DATE, HeaderValue::from_static(date)));
            let headers = [(RETRY_AFTER, HeaderValue::from_static(wait))].into_iter().chain(date).collect();
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        for (wait, date, seconds) in [
            ("7", None, Some(7)),
            (" 7 ", Some(NOON), Some(7)),
            ("Sat, 21 Nov 2026 12:01:30 GMT", Some(NOON), Some(90)),
            ("Saturday, 21-Nov-26 12:01:30 GMT", Some(NOON), Some(90)),
            ("Sat, 21 Nov 2026 11:00:00 GMT", Some(NOON), Some(0)),
            (NOON, None, None),
            (NOON, Some("noon"), None),
            ("-1", Some(NOON), None),
            ("soon", Some(NOON), None),
        ] {
            assert_eq!(said(wait, date), seconds, "{wait}");
        }
    }
}
