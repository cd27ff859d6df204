//! The receivers of security events: from the configuration to a running gate.

use std::sync::Arc;

use async_trait::async_trait;

use super::provider_client::http_client;
use super::streams::GateOfStreams;
use crate::server::error::{Faults, KeyFault, ServerError};
use rotogate::Gate;
use rotogate_config::{Config, ConfigErrors, ReceiverConfig};
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_core::engine::ended::{End, EndPlace, EndedBatch};
use rotogate_core::private_file::{read_private, trusted};
use rotogate_core::store::{Cursor, StoreError};
use rotogate_core::token::event_key::EventKey;
use rotogate_core::token::keyring::KeyMaterial;
use rotogate_signals::{ReceiverGate, ReceiverPlan, ReceiverSettings, Receivers, greet};

#[async_trait]
impl ReceiverGate for GateOfStreams {
    fn issuer(&self) -> Arc<str> {
        Arc::clone(&self.issuer)
    }

    fn adopted(&self) -> Timestamp {
        self.gate.adopted()
    }

    async fn ended_since(&self, after: Cursor) -> Result<(EndedBatch, Cursor), StoreError> {
        self.gate.ended_since(after).await
    }

    async fn next_ends(
        &self,
        batch: &EndedBatch,
        clients: &[Box<str>],
        place: EndPlace,
    ) -> Result<(Vec<End>, Option<EndPlace>), StoreError> {
        self.gate.next_ends(batch, clients, place).await
    }
}

/// The receivers of a gate that starts. No event is sent to them yet.
pub(crate) fn of_gate(gate: &Gate, config: &Config) -> Result<Receivers, ServerError> {
    Receivers::new(Arc::new(GateOfStreams::new(gate, config)?)).map_err(ServerError::part)
}

/// The receivers of a configuration. Reads their files.
///
/// # Errors
/// The files that cannot be used, each reported at its key.
pub(crate) fn plans(config: &Config, gate: Option<&Gate>) -> Result<Vec<ReceiverPlan>, ConfigErrors> {
    let (mut faults, all) = (Faults::new(config), config.receivers.iter().enumerate());
    let plans = all.filter_map(|(index, it)| faults.good(format_args!("receivers[{index}]"), plan(it, gate)));
    let plans = plans.collect();
    faults.result(plans)
}

fn plan(receiver: &ReceiverConfig, gate: Option<&Gate>) -> Result<ReceiverPlan, KeyFault> {
    let ReceiverConfig { name, url, audience, token_file, key_file, clients, ca } = receiver;
    let http = http_client("ca", ca.as_deref())?;
    let private = |file| trusted::check_folders(file).and_then(|()| read_private(file));
    private(token_file).map_err(|message| KeyFault::new("token_file", message))?;
    let pem = private(key_file).map_err(|message| KeyFault::new("key_file", message))?;
    let key = EventKey::new(&KeyMaterial::new(pem.as_bytes().to_vec()));
    let key = key.map_err(|error| KeyFault::new("key_file", format!("{}: {error}", key_file.display())))?;
    if gate.is_some_and(|gate| gate.signs_with(&key.published())) {
        let message = "is a key of the keyring, which signs access tokens: expected a key for events alone";
        return Err(KeyFault::new("key_file", message));
    }
    Ok(ReceiverPlan {
        settings: ReceiverSettings {
            name: name.as_str().into(),
            url: url.as_str().into(),
            audience: audience.as_str().into(),
            token_file: token_file.clone(),
            clients: clients.iter().map(|client| client.as_str().into()).collect(),
        },
        // The fingerprint has the paths of files, not their content, and the name of the signing key.
        fingerprint: format!("{receiver:?} {}", key.kid()),
        key: Arc::new(key),
        http,
    })
}

/// Sends events to these receivers from now on, and publishes their keys.
pub(crate) fn begin(plans: Vec<ReceiverPlan>, gate: &Gate, receivers: &Receivers) {
    let mut keys: Vec<_> = plans.iter().map(|plan| plan.key.published()).collect();
    keys.dedup();
    gate.publish_event_keys(keys);
    receivers.replace(plans);
}

/// Sends each receiver a verification event, for `check --online`. Returns a line for each answer.
///
/// # Errors
/// The receivers that failed, each with the reason.
pub(crate) async fn inspect(config: &Config) -> Result<Vec<String>, ConfigErrors> {
    let (mut lines, mut faults) = (Vec::new(), Faults::new(config));
    for (index, plan) in plans(config, None)?.into_iter().enumerate() {
        let name = Arc::clone(&plan.settings.name);
        match greet(plan, config.issuer.url.as_str(), SystemTime::new().wall()).await {
            Ok(found) => lines.push(format!("receiver {name}: {found}")),
            Err(error) => faults.add(&format!("receivers[{index}].url"), error.to_string()),
        }
    }
    faults.result(lines)
}
