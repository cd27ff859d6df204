//! Notices of other issuers: logout tokens and security events, signed and unsigned, and the bodies that bring them.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use rotogate::clock::Timestamp;
use rotogate::dialect::Call;
use rotogate::program::Events;
use rotogate_core::revocation::Target;
use rotogate_core::token::keyring::{KeyMaterial, Keyring, RefreshKeys, RefreshSecret, SigningKey};
use rotogate_core::token::verify::{Ended, EventEffect, EventProtocol, Reported, SentNotice};
use rotogate_core::token::{Algorithm, IssuerRules, Verifier};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::input::target;
use crate::json::names_members_once;

const ISSUER: &str = "https://idp.test/";
const LEEWAY: Duration = Duration::from_secs(30);
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const SECRET: &[u8; 32] = b"a secret of the targets: notices";
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const ENDING: [&str; 5] = [
    "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
    "https://schemas.openid.net/secevent/risc/event-type/sessions-revoked",
    "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
    "https://schemas.openid.net/secevent/risc/event-type/account-purged",
    "https://schemas.openid.net/secevent/risc/event-type/credential-compromise",
];

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let material = KeyMaterial::new(URL_SAFE_NO_PAD.encode(SECRET).into_bytes());
    let key = SigningKey::from_material_named(Algorithm::Hs256, &material, "fuzz").unwrap();
    let refresh = RefreshKeys::new(1, &[(1, RefreshSecret::generate().unwrap())]).unwrap();
    let keyring = Keyring::from_parts(Uuid::nil(), key, Vec::new(), refresh).unwrap();
    Verifier::new(vec![IssuerRules::own(ISSUER, vec!["api".into()], &keyring, LEEWAY)]).unwrap()
});

fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn reported(protocol: EventProtocol, token: &str) -> Option<Reported> {
    let audience = ["rotogate".into()];
    VERIFIER.reported(SentNotice { protocol, issuer: "self", audience: &audience, token }, NOW, NOW).ok()
}

type Object = Map<String, Value>;

/// Header and claims of an input, with what the notice ends if it is good.
fn judged(protocol: EventProtocol, input: &[u8]) -> Option<(Object, Object, Reported)> {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (header, claims) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    // Unsigned, it ends nothing, whatever it says.
    let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    assert_eq!(reported(protocol, &unsigned), None);
    if let Ok(text) = std::str::from_utf8(input) {
        assert_eq!(reported(protocol, text), None, "the corpus holds no signed text");
    }
    let reported = reported(protocol, &signed(header, claims))?;
    assert!(names_members_once(header) && names_members_once(claims));
    let (header, claims): (Object, Object) =
        (serde_json::from_slice(header).unwrap(), serde_json::from_slice(claims).unwrap());
    assert_eq!((&header["alg"], &claims["iss"]), (&"HS256".into(), &ISSUER.into()));
    let is_ours = |aud: &Value| aud == "rotogate";
    assert!(is_ours(&claims["aud"]) || claims["aud"].as_array().is_some_and(|all| all.iter().any(is_ours)));
    // A fraction of a millisecond is not looked at.
    let issued = claims["iat"].as_f64().unwrap();
    assert!(issued < (NOW.as_secs() + LEEWAY.as_secs()) as f64 + 0.001, "`iat` is in the future");
    assert!((reported.told.as_millis() as f64 - issued * 1000.0).abs() <= 1.0);
    assert!((1..=256).contains(&claims["jti"].as_str().unwrap().len()));
    // `null` is an absent claim.
    let claims = claims.into_iter().filter(|(_, value)| !value.is_null()).collect();
    Some((header, claims, reported))
}

/// Never an entry of another issuer, nor one for all.
fn is_of_the_issuer(target: &Target) -> bool {
    match target {
        // The names of its sessions follow a character that no issuer's name contains.
        Target::Subject { issuer, .. } | Target::Token { issuer, .. } => issuer
            .strip_prefix(ISSUER)
            .is_some_and(|rest| matches!(rest, "" | "#sid" | "#any-sid" | "#refreshed" | "#refreshed-sid")),
        Target::Session(_) | Target::Client { .. } | Target::Global => false,
    }
}

target!(
    /// N49: what ends anything is a logout token in every respect, and ends what it names alone.
    logout_token,
    &[
        "\n", "{", "}", "[", "]", ",", ":", "\"", "null", "true", "1e9", "-1", "1700000030", "\"nonce\":\"n\",", "\"exp\":1,",
        "\"events\":{},", "\"sid\":\"s-9\",", "\"sub\":\"ada\",", "\"sub\":[\"ada\"],", "logout+jwt", "at+jwt", "secevent+jwt",
        "\"alg\":\"none\",", "\"aud\":[\"rotogate\",1],", "\\u0000", "\\ud800", "[[[[[[[[[[[[[",
    ],
    |input| {
        let Some((header, claims, reported)) = judged(EventProtocol::BackChannelLogout, input) else { return };
        let typ = header.get("typ").map(|typ| typ.as_str().unwrap().to_ascii_lowercase());
        let typ = typ.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ));
        assert!(matches!(typ, None | Some("logout+jwt" | "jwt")), "{typ:?}");
        assert!(claims["events"][LOGOUT].is_object() && !claims.contains_key("nonce"));
        assert!(claims["iat"].as_f64().unwrap() + (300 + LEEWAY.as_secs()) as f64 >= NOW.as_secs() as f64, "too old");
        let Ended::Tokens { entry, also, is_sure, .. } = reported.ended else { panic!("a logout ends something") };
        assert!(entry.until > NOW && is_of_the_issuer(&entry.target), "{entry:?}");
        let named = claims.get("sid").or_else(|| claims.get("sub")).and_then(Value::as_str).unwrap();
        assert!(format!("{:?}", entry.target).contains(&format!("{named:?}")), "{entry:?}");
        assert_eq!(also.is_some(), claims.contains_key("sid") && claims.contains_key("sub"), "{also:?}");
        assert!(also.is_none_or(|also| is_of_the_issuer(&also.target)));
        assert_eq!(is_sure, claims.contains_key("sub"), "no token named a session");
    }
);

target!(
    /// N49, N53: the same for security events. An event of another kind ends nothing.
    security_event,
    &[
        "\n", "{", "}", "[", "]", ",", ":", "\"", "null", "1e9", "-1", "1700000030", "iss_sub", "opaque", "complex", "jwt_id",
        "email", "\"format\":\"iss_sub\",", "\"iss\":\"https://idp.test/\",", "\"sub\":\"ada\",", "\"id\":\"s-9\",", "\"jti\":\"t\",",
        "\"event_timestamp\":1700000000,", "\"session\":{},", "\"user\":{},", "\"txn\":1,", "secevent+jwt", "logout+jwt",
    ],
    |input| {
        let Some((header, claims, reported)) = judged(EventProtocol::SecurityEvents, input) else { return };
        let typ = header["typ"].as_str().unwrap().to_ascii_lowercase();
        assert_eq!(typ.strip_prefix("application/").unwrap_or(&typ), "secevent+jwt");
        let events = claims["events"].as_object().unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(reported.effect == EventEffect::End, ENDING.iter().any(|kind| events.contains_key(*kind)));
        match reported.ended {
            Ended::Nothing => assert_eq!(reported.effect, EventEffect::Log),
            Ended::Tokens { entry, .. } => {
                assert_ne!(reported.effect, EventEffect::Log);
                assert!(entry.until > NOW && is_of_the_issuer(&entry.target), "{entry:?}");
            }
            // No directory knows users of this issuer.
            Ended::Unmatched => {}
            other => panic!("{other:?}"),
        }
    }
);

target!(
    /// The bodies of both endpoints: a form with one `logout_token`, or the token itself.
    notice_body,
    &["&", "=", "logout_token=", "logout_token=a.b.c", "%", "%00", "%ff", "+", "a.b.c", "\r\n", " ", "\0", "logout_tokem=x"],
    |input| {
        let bearer = SecretString::from("a bearer of the fuzz target".to_owned());
        let sent = |endpoint: &Events, kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            let read = endpoint.notice(&Call {
                operation: "event",
                params: &[],
                method: &Method::POST,
                headers: &headers,
                path: "/t",
                query: None,
                body: &Bytes::copy_from_slice(input),
                address: None,
                from_own_origin: true,
            });
            read.ok()
        };
        let logout = Events::back_channel_logout("idp", ["rotogate"]);
        if let Some(Ok(token)) = sent(&logout, "application/x-www-form-urlencoded").map(|notice| notice.token) {
            let named: Vec<_> = form_urlencoded::parse(input).filter(|(name, _)| name == "logout_token").collect();
            assert_eq!((named.len(), &*named[0].1), (1, token.expose_secret()));
        }
        let events = Events::security_events("idp", ["rotogate"], bearer);
        if let Some(notice) = sent(&events, "application/secevent+jwt") {
            assert!(!notice.is_authenticated, "it has no bearer token");
            if let Ok(token) = notice.token {
                assert_eq!(token.expose_secret().as_bytes(), input.trim_ascii());
            }
        }
        let other = sent(&events, "application/json").map(|notice| notice.token.is_ok());
        assert_ne!(other, Some(true), "another type of body");
    }
);
