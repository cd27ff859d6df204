//! The streams of security events: from the configuration to a running gate.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::issuers::RemoteIssuers;
use super::provider_client::{credentials, http_client, target};
use crate::server::error::{Faults, KeyFault, ServerError};
use rotogate::Gate;
use rotogate::program::DeliveredEvent;
use rotogate::remote_keys;
use rotogate_config::{Config, ConfigErrors, StreamConfig, StreamDelivery, TrustedIssuer, read_event_token};
use rotogate_core::clock::Timestamp;
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;
use rotogate_core::store::relay::RelayStore;
use rotogate_signals::{
    Access, Delivery, NotTaken, StreamError, StreamGate, StreamPlan, StreamSettings, Streams, inspect,
};

/// A running gate, for its streams.
#[derive(Debug)]
pub(super) struct GateOfStreams {
    pub(super) gate: Gate,
    pub(super) issuer: Arc<str>,
    records: Arc<dyn RelayStore>,
    is_shared: bool,
}

impl GateOfStreams {
    pub(super) fn new(gate: &Gate, config: &Config) -> Result<Self, ServerError> {
        let records = gate.records().ok_or_else(|| ServerError::Unusable("the store keeps no records".to_owned()))?;
        let issuer = config.issuer.url.as_str().into();
        Ok(Self { gate: gate.clone(), issuer, records, is_shared: config.store.is_shared() })
    }
}

#[async_trait]
impl StreamGate for GateOfStreams {
    async fn take(&self, issuer: &str, audience: &[Box<str>], set: SecretString) -> Result<(), NotTaken> {
        let event = DeliveredEvent { issuer, audience, token: set.expose_secret() };
        self.gate.take_event(event).await.map(drop).map_err(|error| match error {
            Error::Denied(Denial::RefusedEvent(flaw)) => NotTaken::Refused(flaw),
            Error::Denied(_) | Error::Failed(_) => NotTaken::Undecided,
        })
    }

    fn note_critical_members(&self, issuer: &str, members: Vec<Box<str>>) {
        // Does nothing if a reload has removed the issuer.
        self.gate.note_critical_members(issuer, members);
    }

    fn records(&self) -> Arc<dyn RelayStore> {
        Arc::clone(&self.records)
    }

    fn seals(&self, message: &[u8]) -> Vec<Vec<u8>> {
        self.gate.record_seals(message)
    }

    fn is_shared(&self) -> bool {
        self.is_shared
    }

    fn now(&self) -> Timestamp {
        self.gate.engine_time()
    }
}

/// The streams of a gate that starts. No stream runs yet.
pub(crate) fn of_gate(gate: &Gate, config: &Config) -> Result<Streams, ServerError> {
    let streams = Streams::new(Arc::new(GateOfStreams::new(gate, config)?)).map_err(ServerError::part)?;
    gate.watch_streams(Arc::new(streams.clone()));
    Ok(streams)
}

/// The streams of a configuration. Reads their files.
///
/// # Errors
/// The files that cannot be used, each reported at its key.
pub(crate) fn plans(config: &Config, issuers: &RemoteIssuers) -> Result<Vec<StreamPlan>, ConfigErrors> {
    let mut faults = Faults::new(config);
    let plans = config.issuers.iter().enumerate().filter_map(|(index, issuer)| {
        faults.good(format_args!("issuers[{index}]"), plan(config, issuer, issuer.stream.as_ref()?, issuers))
    });
    let plans = plans.collect();
    faults.result(plans)
}

fn plan(
    config: &Config,
    issuer: &TrustedIssuer,
    stream: &StreamConfig,
    issuers: &RemoteIssuers,
) -> Result<StreamPlan, KeyFault> {
    let StreamConfig {
        transmitter,
        delivery,
        audience,
        client,
        token_file,
        token_url,
        scopes,
        events,
        hosts,
        verify_every,
        ca,
    } = stream;
    let http = http_client("stream.ca", ca.as_deref())?;
    let access = match client {
        Some(client) => {
            credentials(client).map_err(|KeyFault { key, message }| KeyFault::new(format!("stream.{key}"), message))?;
            let client = client.clone();
            Access::Client {
                credentials: Arc::new(move || credentials(&client).map_err(|fault| fault.message)),
                token_url: match token_url.as_deref().and_then(|url| target("stream.token_url", url).ok()) {
                    Some(target) => Arc::new(move || Some(target.clone())),
                    None => issuers.discovered(&issuer.name, remote_keys::token_target),
                },
                scope: scopes.to_string(),
            }
        }
        None => Access::File(token_file.clone().unwrap_or_default()),
    };
    let mut push = String::new();
    let delivery = match (delivery, &issuer.events) {
        (StreamDelivery::Push, Some(endpoint)) => {
            let file = endpoint.token_file.as_deref().unwrap_or_else(|| std::path::Path::new(""));
            let token = read_event_token(file).map_err(|message| KeyFault::new("events.token_file", message))?;
            let public_url = config.server.public_url.to_string();
            push = format!("{}{}", public_url.trim_end_matches('/'), endpoint.path);
            Delivery::Push(push.clone(), token)
        }
        (StreamDelivery::Push, None) | (StreamDelivery::Poll, _) => Delivery::Poll,
    };
    let boxed = |all: &[String]| all.iter().map(|one| one.as_str().into()).collect();
    Ok(StreamPlan {
        settings: StreamSettings {
            issuer: issuer.name.as_str().into(),
            iss: issuer.url.as_str().into(),
            transmitter: transmitter.as_str().into(),
            hosts: boxed(hosts),
            audience: boxed(audience),
            events: boxed(events),
            delivery,
            verify_every: *verify_every,
        },
        access,
        http,
        // The fingerprint has the paths of files, not their content.
        fingerprint: format!("{} {stream:?} {push}", issuer.url),
    })
}

/// Asks each transmitter once, for `check --online`. Returns a line for each answer, or the transmitters that failed
/// with the reasons.
pub(crate) async fn inspect_all(config: &Config, issuers: &RemoteIssuers) -> Result<Vec<String>, ConfigErrors> {
    let (mut lines, mut faults) = (Vec::new(), Faults::new(config));
    for mut plan in plans(config, issuers)? {
        let name = Arc::clone(&plan.settings.issuer);
        let index = config.issuers.iter().position(|issuer| *issuer.name == *name).unwrap_or_default();
        // No keys are fetched in the background here, so no discovery document is known.
        if let Access::Client { token_url, .. } = &mut plan.access
            && token_url().is_none()
            && let Some(source) = config.issuers.get(index).and_then(|issuer| issuer.keys.remote())
            && let Ok(found) = remote_keys::inspect(source.issuer.clone()).await
        {
            let target = found.metadata.and_then(|metadata| remote_keys::token_target(&metadata));
            *token_url = Arc::new(move || target.clone());
        }
        match inspect(plan).await {
            Ok(found) => lines.extend(found.into_iter().map(|line| format!("issuer {name}: {line}"))),
            Err(error) => {
                let key = match error {
                    StreamError::Access(_) => "client",
                    _ => "transmitter",
                };
                faults.add(&format!("issuers[{index}].stream.{key}"), error.to_string());
            }
        }
    }
    faults.result(lines)
}
