//! The documents of a transmitter (OpenID SSF 1.0 §7 and §8, RFC 8936), parsed strictly: a duplicate member is refused.
//! This module makes no request.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::{Delivery, StreamSettings};
use rotogate_core::token::verify::strict_object;

/// The most events of one poll.
pub const MAX_EVENTS: usize = 100;
/// The longest text of a transmitter that the gate keeps or repeats, in bytes.
const MAX_NAME: usize = 256;

/// The fault of a document, without any part of the document that could be a secret.
pub type Flaw = String;

impl Delivery {
    /// The name of the delivery method in stream configurations (SSF 1.0 §6.1).
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Poll => "urn:ietf:rfc:8936",
            Self::Push(..) => "urn:ietf:rfc:8935",
        }
    }
}

/// The URL of a transmitter's metadata: the well-known part is inserted before the path (SSF 1.0 §7.2).
pub fn metadata_url(transmitter: &str) -> Option<String> {
    let (scheme, rest) = transmitter.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Some(format!("{scheme}://{authority}/.well-known/ssf-configuration{}", path.trim_end_matches('/')))
}

/// The metadata of a transmitter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The URL to create and change streams.
    pub configuration_endpoint: String,
    /// The URL of the status of streams.
    pub status_endpoint: String,
    /// The URL to request verification events.
    pub verification_endpoint: String,
    /// The URL of the transmitter's keys.
    pub jwks_uri: Option<String>,
    /// The members of complex subjects that a receiver must understand.
    pub critical_members: Vec<Box<str>>,
}

impl Metadata {
    /// Reads the metadata of this transmitter.
    ///
    /// # Errors
    /// The metadata belongs to another transmitter, or lacks a member that the gate needs.
    // Requirement S16: another transmitter's metadata is refused (mix-up).
    pub fn parse(body: &[u8], settings: &StreamSettings) -> Result<Self, Flaw> {
        let document = strict_object(body)?;
        if text(&document, "issuer")? != Some(&*settings.transmitter) {
            return Err("issuer is not exactly the configured transmitter".to_owned());
        }
        let needed = |name: &str| match text(&document, name)? {
            Some(url) => Ok(url.to_owned()),
            None => Err(format!("{name} is missing: without it the gate cannot know whether events arrive")),
        };
        let method = settings.delivery.method();
        if let Some(Value::Array(methods)) = document.get("delivery_methods_supported")
            && !methods.iter().any(|known| known == method)
        {
            return Err(format!("delivery_methods_supported has no {method}: choose the other delivery"));
        }
        Ok(Self {
            configuration_endpoint: needed("configuration_endpoint")?,
            status_endpoint: needed("status_endpoint")?,
            verification_endpoint: needed("verification_endpoint")?,
            jwks_uri: text(&document, "jwks_uri")?.map(str::to_owned),
            critical_members: match document.get("critical_subject_members") {
                None => Vec::new(),
                Some(Value::Array(all)) if all.iter().all(Value::is_string) => {
                    all.iter().filter_map(Value::as_str).map(Into::into).collect()
                }
                Some(_) => return Err("critical_subject_members is not a list of texts".to_owned()),
            },
        })
    }
}

/// The configuration of a stream at its transmitter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The id of the stream.
    pub stream_id: String,
    /// The URL to fetch events, if the stream is polled.
    pub poll_url: Option<String>,
    /// The types of events that the transmitter delivers, if it lists them.
    pub delivered: Option<Vec<String>>,
    /// The shortest time between two requests for a verification event, in seconds.
    pub min_verification_interval: u64,
}

impl Configuration {
    /// Reads the configuration of a stream.
    ///
    /// # Errors
    /// The document is not the configuration of a stream for this gate.
    pub fn parse(body: &[u8], settings: &StreamSettings) -> Result<Self, Flaw> {
        Self::read(&strict_object(body)?, settings)
    }

    /// The first stream for this gate in a list (SSF 1.0 §8.1.1.2), or in a single document.
    ///
    /// # Errors
    /// The list has no stream for this gate.
    pub fn of_list(body: &[u8], settings: &StreamSettings) -> Result<Self, Flaw> {
        // The strict parser reads only objects, so the list is wrapped in one.
        let wrapped = [&b"{\"all\":"[..], body, b"}"].concat();
        let mut why = "it lists no stream".to_owned();
        let all = match strict_object(&wrapped)?.remove("all") {
            Some(Value::Array(all)) => all,
            Some(one) => vec![one],
            None => Vec::new(),
        };
        for one in all.iter().filter_map(Value::as_object) {
            match Self::read(one, settings) {
                Ok(found) => return Ok(found),
                Err(flaw) => why = flaw,
            }
        }
        Err(why)
    }

    // Requirement S16.
    fn read(document: &Map<String, Value>, settings: &StreamSettings) -> Result<Self, Flaw> {
        if text(document, "iss")? != Some(&*settings.iss) {
            return Err("iss of the stream is not the issuer's url".to_owned());
        }
        let audience = match document.get("aud") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(several)) => several.iter().map(|one| one.as_str().unwrap_or_default()).collect(),
            Some(_) | None => Vec::new(),
        };
        if audience.is_empty() || !audience.iter().all(|one| settings.audience.iter().any(|own| **own == **one)) {
            return Err("aud of the stream is not in audience: it is the stream of another receiver".to_owned());
        }
        let delivery = document.get("delivery").and_then(Value::as_object).ok_or("delivery is missing")?;
        let method = settings.delivery.method();
        if text(delivery, "method")? != Some(method) {
            return Err(format!("delivery.method is not {method}"));
        }
        let poll_url = match settings.delivery {
            Delivery::Poll => {
                Some(text(delivery, "endpoint_url")?.ok_or("delivery.endpoint_url is missing")?.to_owned())
            }
            Delivery::Push(..) => None,
        };
        let delivered = document.get("events_delivered").and_then(Value::as_array);
        Ok(Self {
            stream_id: text(document, "stream_id")?.ok_or("stream_id is missing")?.to_owned(),
            poll_url,
            delivered: delivered.map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            min_verification_interval: document
                .get("min_verification_interval")
                .and_then(Value::as_u64)
                .unwrap_or_default(),
        })
    }

    /// The body that creates a stream, or, with its id, changes it.
    pub fn asked(settings: &StreamSettings, stream_id: Option<&str>) -> Value {
        let mut delivery = json!({ "method": settings.delivery.method() });
        if let Delivery::Push(url, token) = &settings.delivery {
            delivery["endpoint_url"] = url.as_str().into();
            delivery["authorization_header"] = format!("Bearer {}", token.expose_secret()).into();
        }
        let mut asked = json!({ "events_requested": settings.events, "delivery": delivery });
        if let Some(id) = stream_id {
            asked["stream_id"] = id.into();
        }
        asked
    }
}

/// The status of a stream (SSF 1.0 §8.1.2): its word, and the transmitter's reason.
///
/// # Errors
/// The document is about another stream, or has an unknown status word.
pub fn status(body: &[u8], stream_id: &str) -> Result<(&'static str, Option<String>), Flaw> {
    let document = strict_object(body)?;
    if text(&document, "stream_id")?.is_some_and(|id| id != stream_id) {
        return Err("stream_id belongs to another stream".to_owned());
    }
    let word = text(&document, "status")?;
    let known = ["enabled", "paused", "disabled"].into_iter().find(|known| Some(*known) == word);
    let reason = document.get("reason").and_then(Value::as_str).map(shown);
    Ok((known.ok_or("status is not enabled, paused or disabled")?, reason))
}

/// The answer to a poll (RFC 8936 §2.4).
#[derive(Debug, Default)]
pub struct Polled {
    /// The events, each with the name for its acknowledgement.
    pub sets: Vec<(String, SecretString)>,
    /// Whether the transmitter has more events now.
    pub has_more: bool,
}

impl Polled {
    /// Reads the answer to a poll. Takes at most the requested number of events; the next poll gets the rest.
    ///
    /// # Errors
    /// The document is not the answer to a poll.
    pub fn parse(body: &[u8]) -> Result<Self, Flaw> {
        let mut document = strict_object(body)?;
        let has_more = match document.get("moreAvailable") {
            None => false,
            Some(more) => more.as_bool().ok_or("moreAvailable is not true or false")?,
        };
        let Some(Value::Object(sets)) = document.remove("sets") else { return Err("sets is not an object".to_owned()) };
        let has_more = has_more || sets.len() > MAX_EVENTS;
        let read = |(jti, set): (String, Value)| match set {
            Value::String(set) if (1..=MAX_NAME).contains(&jti.len()) => Ok((jti, SecretString::from(set))),
            _ => Err("sets has a name that is too long, or a value that is no text".to_owned()),
        };
        Ok(Self { sets: sets.into_iter().take(MAX_EVENTS).map(read).collect::<Result<_, _>>()?, has_more })
    }
}

/// A text of a transmitter, for a log.
pub fn shown(text: &str) -> String {
    text.chars().take(MAX_NAME).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn text<'a>(document: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Flaw> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if (1..=2048).contains(&text.len()) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is not a text of 1 to 2048 bytes")),
    }
}
