//! Access tokens: their form, and the claims of those whose signature holds.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rotogate::clock::Timestamp;
use rotogate_core::token::keyring::{KeyMaterial, Keyring, RefreshKeys, RefreshSecret, SigningKey};
use rotogate_core::token::{Algorithm, IssuerRules, Verifier};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::input::target;
use crate::json::names_members_once;

const ISSUER: &str = "https://gate.test";
const LEEWAY: u64 = 30;
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
/// The secret of the HS256 key of these targets.
const SECRET: &[u8; 32] = b"a secret of the fuzz targets: 32";
const GOOD: &str = "{\"alg\":\"HS256\",\"kid\":\"fuzz\",\"typ\":\"at+jwt\"}\n{\"iss\":\"https://gate.test\",\"sub\":\"ada\",\
                    \"aud\":\"api\",\"exp\":1700000600,\"iat\":1700000000,\"jti\":\"j\",\"client_id\":\"web\"}";
/// Stands for a good token in the corpus …
const PLACEHOLDER: char = '@';
/// … and this for one without its last character, which holds bits that mean nothing.
const SHORTENED: char = '~';

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let material = KeyMaterial::new(URL_SAFE_NO_PAD.encode(SECRET).into_bytes());
    let key = SigningKey::from_material_named(Algorithm::Hs256, &material, "fuzz").unwrap();
    let refresh = RefreshKeys::new(1, &[(1, RefreshSecret::generate().unwrap())]).unwrap();
    let keyring = Keyring::from_parts(Uuid::nil(), key, Vec::new(), refresh).unwrap();
    let own = IssuerRules::own(ISSUER, vec!["api".into()], &keyring, Duration::from_secs(LEEWAY));
    Verifier::new(vec![own]).unwrap()
});

static TOKEN: LazyLock<String> = LazyLock::new(|| {
    let (header, claims) = GOOD.split_once('\n').unwrap();
    signed(header.as_bytes(), claims.as_bytes())
});

fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

target!(
    /// Only the key's holder can sign, and a token has one spelling: of all texts, one is accepted.
    access_token,
    &["@", "~", ".", "=", "==", "..", "-_", "+/", "A", "\0", " ", "\n", "eyJhbGciOiJub25lIn0", "%2e"],
    |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let text = text.replace(PLACEHOLDER, &TOKEN).replace(SHORTENED, &TOKEN[..TOKEN.len() - 1]);
        if VERIFIER.verify(&text, NOW, NOW).is_ok() {
            assert_eq!(text, *TOKEN, "a second spelling of a token is taken");
        }
    }
);

target!(
    /// A signature alone does not make a token: what is taken keeps requirements J1 and J4 to J11, read by another
    /// parser, and says the same when it is printed and read again.
    signed_claims,
    &[
        "\n", "{", "}", "[", "]", ",", ":", "\"", "\\u0061lg", "1e400", "-1", "9223372036854775808", "1700000000.5", "null",
        "true", "\"crit\":[],", "\"b64\":false,", "\"jwk\":{},", "\"jku\":\"x\",", "\"x5u\":\"x\",", "\"alg\":\"none\",",
        "\"alg\":\"HS384\",", "\"exp\":1,", "\"nbf\":1700000031,", "\"cnf\":{},", "\"x5t#S256\":\"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2\",", "\"x5t#S256\":1,", "\"gen\":1,", "\"sid\":\"x\",",
        "\"sub\":[\"ada\"],", "application/at+jwt", "AT+JWT", "\u{feff}", "[[[[[[[[[[[[[[[[[", "\\ud800", "\\u0000",
    ],
    |input| {
        let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
        let (header, claims) = (&input[..at], input.get(at + 1..).unwrap_or_default());
        let Ok(token) = VERIFIER.verify(&signed(header, claims), NOW, NOW) else { return };

        assert!(names_members_once(header) && names_members_once(claims), "J11");
        assert!(header.len() <= 1024, "J10");
        let header = object(header);
        assert_eq!(header["alg"], "HS256", "J1");
        for name in ["crit", "b64", "zip", "enc", "jwk"] {
            assert!(!header.contains_key(name), "J4, J5: {name}");
        }
        let typ = header["typ"].as_str().unwrap().to_ascii_lowercase();
        assert_eq!(typ.strip_prefix("application/").unwrap_or(&typ), "at+jwt", "J6");
        assert!(header.get("kid").is_none_or(|kid| kid == "fuzz"), "J3");

        let said = object(claims);
        let seconds = |name: &str| said.get(name).map(|time| time.as_f64().expect("J7"));
        let now = NOW.as_secs() as f64;
        let leeway = LEEWAY as f64;
        assert!(seconds("exp").expect("J7") + leeway > now, "J7");
        for name in ["nbf", "iat"] {
            // A fraction of a second is not looked at.
            assert!(seconds(name).is_none_or(|time| time >= 0.0 && time < now + leeway + 1.0), "J7: {name}");
        }
        assert_eq!(said["iss"], ISSUER, "J8");
        let subject = said["sub"].as_str().expect("J9");
        assert!((1..=256).contains(&subject.len()) && subject.bytes().all(|byte| byte.is_ascii_graphic()), "J9");
        assert!(said["jti"].is_string() && said["client_id"].is_string(), "J9");
        let bound = |member: &str| said.get("cnf").and_then(|cnf| cnf.get(member)).map(|text| text.as_str().expect("R14"));
        assert_eq!(token.bound_to().map(|key| key.to_string()).as_deref(), bound("jkt"), "R14");
        let certificate = token.certificate().map(ToString::to_string);
        assert_eq!(certificate.as_deref(), bound("x5t#S256"), "R14");
        let members = said.get("cnf").map_or(0, |cnf| cnf.as_object().expect("R14").len());
        let bindings = usize::from(token.bound_to().is_some()) + usize::from(token.certificate().is_some());
        assert_eq!(members, bindings, "R14");
        assert_eq!((&*token.subject, &token.claims()), (subject, &said), "J11: the last of two members, or the first?");

        let again = signed(GOOD.split_once('\n').unwrap().0.as_bytes(), &serde_json::to_vec(&token.claims()).unwrap());
        let again = VERIFIER.verify(&again, NOW, NOW).unwrap();
        assert_eq!((again.session, again.scope, again.subject), (token.session, token.scope, token.subject));
        // A printed fraction may read as a slightly different double.
        assert!(again.expires.since(token.expires).max(token.expires.since(again.expires)).as_millis() <= 1);
    }
);

fn object(bytes: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(bytes).expect("J11: JSON, and an object")
}
