//! The ids of requests.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use rotogate_core::headers::unindexed;

/// The maximum length of a proxy's id, in bytes.
const MAX_ID_BYTES: usize = 128;

/// Returns a trusted proxy's request id if it is unique and needs no escaping.
pub(crate) fn trusted(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let bytes = value.as_bytes();
    let is_sound = |b: &u8| b.is_ascii_alphanumeric() || b"._~+/=:-".contains(b);
    ((1..=MAX_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(is_sound)).then(|| unindexed(value.clone()))
}

/// Creates a UUIDv7 (RFC 9562 §5.7). An id is not secret, so a fast random generator is sufficient.
pub(crate) fn new(micros: u64) -> HeaderValue {
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let id = uuid::Builder::from_unix_timestamp_millis(micros / 1000, &random).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    id.hyphenated().encode_lower(&mut text);
    // Clones of the header value share this allocation.
    let shared = Bytes::from_owner(text);
    unindexed(HeaderValue::from_maybe_shared(shared).unwrap_or_else(|_| HeaderValue::from_static("-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: HeaderName = HeaderName::from_static("x-request-id");

    fn taken(values: &[&str]) -> Option<HeaderValue> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(NAME, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        trusted(&headers, &NAME)
    }

    #[test]
    fn o21_an_id_is_taken_over_only_in_a_sound_form() {
        let long = "a".repeat(128);
        for good in ["a", "01890a5d-ac96-774b-bcce-b302099a8057", "Root=1-67891233-abcdef:x/y~z+._", &long] {
            let id = taken(&[good]).unwrap();
            assert!(id == good && id.is_sensitive());
        }
        let too_long = "a".repeat(129);
        for bad in ["", "a b", "a\"b", "a\\b", "a\tb", "é", "{}", "a,b", "<x>", &too_long] {
            assert_eq!(taken(&[bad]), None, "{bad}");
        }
        assert_eq!(taken(&["a", "b"]), None);
        assert_eq!(taken(&[]), None);
    }

    #[test]
    fn o21_an_id_of_ours_is_a_uuid_of_its_time_and_no_two_are_the_same() {
        let micros = 1_700_000_000_123_456;
        assert!(new(micros).is_sensitive(), "each id is unique, so HPACK must not index it");
        let all: std::collections::BTreeSet<String> =
            (0..10_000).map(|_| new(micros).to_str().unwrap().to_owned()).collect();
        assert_eq!(all.len(), 10_000);
        for id in all {
            let id = uuid::Uuid::parse_str(&id).unwrap();
            assert_eq!(id.get_version_num(), 7);
            assert_eq!(id.get_timestamp().unwrap().to_unix().0, 1_700_000_000);
        }
    }
}
