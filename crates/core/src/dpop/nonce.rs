//! Nonces (RFC 9449 §8). A nonce is an authenticated time and is not stored. Gates with the same keyring accept each
//! other's nonces.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::Timestamp;
use crate::random::are_equal;
use crate::token::keyring::RefreshKeys;

pub(crate) const LIFETIME: Duration = Duration::from_secs(300);
/// After this age, a response contains a new nonce.
const RENEWED_FROM: Duration = Duration::from_secs(150);
const TIME: usize = 8;
const TAG: usize = 16;

pub(crate) fn issue(keys: &RefreshKeys, now: Timestamp) -> Option<String> {
    let time = now.as_millis().to_be_bytes();
    let tag = *keys.nonce_tags(&time).first()?;
    Some(URL_SAFE_NO_PAD.encode([&time[..], &tag].concat()))
}

pub(crate) fn issued_at(keys: &RefreshKeys, nonce: &str, now: Timestamp, leeway: Duration) -> Option<Timestamp> {
    let bytes: [u8; TIME + TAG] = URL_SAFE_NO_PAD.decode(nonce).ok()?.try_into().ok()?;
    let (time, tag) = bytes.split_first_chunk::<TIME>()?;
    let issued = Timestamp::from_millis(u64::from_be_bytes(*time));
    // Another gate's clock may be ahead of ours.
    let in_time = issued <= now.plus(leeway) && now.since(issued) < LIFETIME;
    let genuine = keys.nonce_tags(time).iter().any(|good| are_equal(good, tag));
    (in_time && genuine).then_some(issued)
}

pub(crate) fn is_old(issued: Timestamp, now: Timestamp) -> bool {
    now.since(issued) >= RENEWED_FROM
}
