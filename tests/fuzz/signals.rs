//! Answers of a transmitter of security events: to polls, and about itself and its streams.

use std::sync::LazyLock;
use std::time::Duration;

use rotogate_signals::wire::{Configuration, MAX_EVENTS, Metadata, Polled, status};
use rotogate_signals::{Delivery, StreamSettings};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::input::target;
use crate::json::names_members_once;

static SETTINGS: LazyLock<StreamSettings> = LazyLock::new(|| StreamSettings {
    issuer: "idp".into(),
    iss: "https://idp.test/".into(),
    transmitter: "https://idp.test".into(),
    hosts: Vec::new(),
    audience: vec!["gate".into()],
    events: vec!["e".into()],
    delivery: Delivery::Poll,
    verify_every: Duration::from_secs(3600),
});

target!(
    /// Of a poll, each event is a member of `sets`, as it stands there; there are no more than were asked for, unless more are
    /// announced (S30).
    polled_events,
    &[
        "{\"sets\":{", "}", "},", "\"moreAvailable\":", "true", "false", "null", "\"a\":\"eyJ.e30.x\"", "\"b\":\"\"", "\"\":\"x\"", ":", ",",
        "7", "[", "]", "{", "\"", "\\u0000", "\\u0061",
    ],
    |input| {
        let Ok(polled) = Polled::parse(input) else { return };
        assert!(names_members_once(input), "J11");
        let said: Value = serde_json::from_slice(input).unwrap();
        let sets = said["sets"].as_object().expect("S30");
        assert_eq!(polled.sets.len(), sets.len().min(MAX_EVENTS), "S30");
        assert_eq!(polled.has_more, said["moreAvailable"] == true || sets.len() > MAX_EVENTS, "S17");
        for (jti, set) in &polled.sets {
            assert!((1..=256).contains(&jti.len()), "S30");
            assert_eq!(sets[jti], set.expose_secret(), "S30");
        }
    }
);

target!(
    /// Metadata, streams and their status that are taken are those of the configuration, byte for byte (S16, S30).
    stream_documents,
    &[
        "{\"issuer\":\"https://idp.test\"", "{\"iss\":\"https://idp.test/\"", ",\"aud\":\"gate\"", ",\"aud\":[\"gate\"]",
        ",\"configuration_endpoint\":\"https://idp.test/s\"", ",\"status_endpoint\":\"x\"", ",\"verification_endpoint\":\"y\"",
        ",\"delivery\":{\"method\":\"urn:ietf:rfc:8936\",\"endpoint_url\":\"z\"}", ",\"stream_id\":\"1\"", "{\"status\":\"paused\"",
        ",\"status\":", "\"enabled\"", "null", "7", "[", "]", "{", "}", ",", ":", "\"", "\\u0000",
    ],
    |input| {
        let said = || serde_json::from_slice::<Value>(input).unwrap();
        if let Ok(metadata) = Metadata::parse(input, &SETTINGS) {
            assert!(names_members_once(input), "J11");
            assert_eq!(said()["issuer"], "https://idp.test", "S16");
            assert_eq!(said()["configuration_endpoint"], metadata.configuration_endpoint, "S16");
        }
        if let Ok(stream) = Configuration::parse(input, &SETTINGS) {
            let said = said();
            assert_eq!((&said["iss"], &said["stream_id"]), (&"https://idp.test/".into(), &stream.stream_id.into()), "S16");
            let is_ours = said["aud"] == "gate" || said["aud"].as_array().is_some_and(|all| all.iter().all(|one| one == "gate"));
            assert!(is_ours && said["delivery"]["method"] == "urn:ietf:rfc:8936", "S16");
            assert!(Configuration::of_list(input, &SETTINGS).is_ok());
        }
        let _ = Configuration::of_list(input, &SETTINGS);
        if let Ok((word, _)) = status(input, "1") {
            assert_eq!(said()["status"], word, "S21");
        }
    }
);
