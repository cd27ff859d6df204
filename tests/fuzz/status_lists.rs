//! Status lists of other issuers: signed by their key, whatever they say.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer;
use rotogate::clock::Timestamp;
use rotogate_core::token::verify::{Keys, SentStatusList};
use serde_json::Value;

use crate::assertions::{KEY, keys};
use crate::input::target;
use crate::json::names_members_once;

const URL: &str = "https://idp.test/status/1";
const ISSUER: &str = "https://idp.test";
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const LEEWAY: Duration = Duration::from_secs(30);

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::Live(keys().into()));

target!(
    /// S8: a list that is read is that of its URL, of its time, and no value has more bits than it says.
    status_list,
    &[
        "{", "}", "[", "]", ",", ":", "\"", "null", "1e9", "-1", "1700000000", "\"iat\":1700000000,", "\"exp\":1700000300,",
        "\"ttl\":30,", "\"bits\":1,", "\"bits\":8,", "\"lst\":\"eNrbuRgAAhcBXQ\"", "\"sub\":\"https://idp.test/status/1\",",
        "\"iss\":\"https://idp.test\",", "\\u0000", "[[[[[[[[[[[[[",
    ],
    |input| {
        let header = r#"{"alg":"EdDSA","typ":"statuslist+jwt","kid":"k"}"#;
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(input));
        let text = format!("{message}.{}", URL_SAFE_NO_PAD.encode(KEY.sign(message.as_bytes()).to_bytes()));
        let sent = SentStatusList { text: &text, url: URL, issuer: ISSUER, keys: &KEYS, known: Some(NOW), leeway: LEEWAY };
        let Ok(list) = sent.read(NOW, NOW) else { return };
        assert!(names_members_once(input));
        let claims: Value = serde_json::from_slice(input).unwrap();
        assert_eq!(claims["sub"], URL);
        assert!(claims.get("iss").is_none_or(|issuer| issuer == ISSUER));
        assert!((NOW..=NOW.plus(LEEWAY)).contains(&list.issued_at) && list.expires.plus(LEEWAY) > NOW);
        let bits = claims["status_list"]["bits"].as_u64().unwrap();
        assert!((0..64).all(|index| list.value(index).is_none_or(|value| u64::from(value) < 1 << bits)));
        assert_eq!(list.value(u64::MAX), None);
    }
);
