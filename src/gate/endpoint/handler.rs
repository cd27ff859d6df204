//! Executes the commands of a dialect, each in its own task.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

use super::execute::{self, CommandRequest, ProofOfPossession};
use crate::dialect::events::Notice;
use crate::dialect::{Command, CommandHandler, Outcome, OwnSessionsRequest};
use crate::gate::Inner;
use crate::gate::possession::PresentedProof;
use crate::gate::to_its_end::to_its_end;
use crate::gate::verdict::{Recipient, Who};
use rotogate_core::denial::Denial;
use rotogate_core::engine::{Arrival, HeldUp, Origin, OwnSessions, PresentedDevice};
use rotogate_core::fault::Error;
use rotogate_core::thumbprint::CertificateThumbprint;

pub(in crate::gate) struct EndpointHandler<'a> {
    pub(in crate::gate) gate: &'a Arc<Inner>,
    pub(in crate::gate) endpoint: usize,
    pub(in crate::gate) account: Option<&'a str>,
    pub(in crate::gate) origin: Origin,
    pub(in crate::gate) arrived: Arrival,
    /// The device cookie, for a session that is bound to a device.
    pub(in crate::gate) device: PresentedDevice,
    pub(in crate::gate) proof: Option<Arc<PresentedProof>>,
    pub(in crate::gate) certificate: Option<CertificateThumbprint>,
    /// For the access log: the recipient of the tokens, or the refused client.
    pub(in crate::gate) recipient: OnceLock<Who>,
}

#[async_trait]
impl CommandHandler for EndpointHandler<'_> {
    async fn execute(&self, command: Command) -> Result<Outcome, Error> {
        let (gate, index) = (Arc::clone(self.gate), self.endpoint);
        let (account, origin, arrived) = (self.account.map(str::to_owned), self.origin.clone(), self.arrived);
        let (proof, certificate) = (self.proof.clone(), self.certificate);
        let executing = async move {
            match gate.endpoints.get(index) {
                Some(endpoint) => {
                    let presented = ProofOfPossession { proof: proof.as_deref(), certificate };
                    let request = CommandRequest { account: account.as_deref(), origin: &origin, arrived, presented };
                    execute::execute(&gate, endpoint, command, request).await
                }
                None => Err(Denial::NoRoute.into()),
            }
        };
        let outcome = self.finished(executing).await;
        if let Ok(Outcome::Issued(issued)) = &outcome {
            let client = self.origin.note.client().map(|client| client.id.clone());
            let recipient = Recipient { subject: issued.subject.clone(), session: issued.session, client };
            let _ = self.recipient.set(Who::Issued(Box::new(recipient)));
        }
        outcome
    }

    async fn own_sessions(&self, request: OwnSessionsRequest) -> Result<OwnSessions, Error> {
        let (gate, index) = (Arc::clone(self.gate), self.endpoint);
        let (account, origin, device) = (self.account.map(str::to_owned), self.origin.clone(), self.device);
        self.finished(async move {
            let by = (account.as_deref(), device, &origin);
            match gate.endpoints.get(index) {
                Some(endpoint) => execute::own_sessions(&gate, endpoint, request, by).await,
                None => Err(Denial::NoRoute.into()),
            }
        })
        .await
    }

    async fn end_elsewhere(&self, notice: Notice) -> Result<(), Error> {
        let (gate, origin) = (Arc::clone(self.gate), self.origin.clone());
        self.finished(async move { execute::end_elsewhere(&gate, &notice, &origin).await }).await
    }

    async fn own_keys(&self, request: crate::dialect::OwnKeysRequest) -> Result<crate::dialect::OwnKeys, Error> {
        let (gate, index) = (Arc::clone(self.gate), self.endpoint);
        let (account, origin, device) = (self.account.map(str::to_owned), self.origin.clone(), self.device);
        self.finished(async move {
            let by = (account.as_deref(), device, &origin);
            match (gate.endpoints.get(index), &gate.running.api_keys) {
                (Some(endpoint), Some(keys)) => execute::own_keys((&gate, keys), endpoint, request, by).await,
                _ => Err(Denial::NoRoute.into()),
            }
        })
        .await
    }

    async fn relay(&self, request: crate::dialect::RelayRequest) -> Result<crate::relay::ProviderReply, Error> {
        let (gate, index, origin) = (Arc::clone(self.gate), self.endpoint, self.origin.clone());
        self.finished(async move {
            match gate.endpoints.get(index).and_then(|endpoint| endpoint.relay.as_ref()) {
                Some(relay) => relay.answer(&gate, request, &origin).await,
                None => Err(Denial::NoRoute.into()),
            }
        })
        .await
    }

    async fn relay_stored(
        &self,
        presented: crate::relay::Presented,
    ) -> Result<Option<crate::relay::ProviderReply>, Error> {
        let (gate, index, origin) = (Arc::clone(self.gate), self.endpoint, self.origin.clone());
        self.finished(async move {
            match gate.endpoints.get(index).and_then(|endpoint| endpoint.relay.as_ref()) {
                Some(relay) => relay.stored(&gate, presented, &origin).await,
                None => Err(Denial::NoRoute.into()),
            }
        })
        .await
    }
}

impl EndpointHandler<'_> {
    async fn finished<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let outcome = to_its_end(work).await;
        self.tell(&outcome);
        outcome
    }

    pub(super) fn tell<T>(&self, outcome: &Result<T, Error>) {
        self.gate.running.faults.tell(outcome, || self.gate.engine.clock().source().monotonic());
        let Err(error) = outcome else { return };
        self.gate.engine.tell_held_up(error, &self.origin, HeldUp::default);
        if let Some(refused) = self.origin.note.refused() {
            let _ = self.recipient.set(Who::HeldUp(Box::new(refused)));
        }
    }
}
