//! A running gate: the parts from its start, and the parts that a reload replaces.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::outcomes::Outcomes;
use crate::server::build::assemble::GateParts;
use crate::server::listen::addresses::Addresses;
use crate::server::listen::connection_counts::ConnectionCounts;
use crate::server::listen::limits::Limits;
use crate::server::listen::listener::Listener;
use crate::server::listen::tls::Tls;
use crate::server::serve::authorizer::Questions;
use crate::server::serve::request::Serving;
use crate::server::serve::tally::Tally;
use rotogate_config::Config;

#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) parts: GateParts,
    pub(crate) tally: &'static Tally,
    pub(crate) config: ArcSwap<Config>,
    pub(crate) serving: Serving,
    pub(crate) limits: Arc<Limits>,
    pub(crate) outcomes: Outcomes,
    /// In configuration order.
    pub(crate) listeners: Vec<ListenerInForce>,
}

impl Deref for InForce {
    type Target = GateParts;

    fn deref(&self) -> &GateParts {
        &self.parts
    }
}

#[derive(Debug)]
pub(crate) struct ListenerInForce {
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) counts: Arc<ConnectionCounts>,
    pub(super) addresses: Arc<Addresses>,
    pub(super) questions: Option<Arc<Questions>>,
}

impl ListenerInForce {
    pub(crate) fn new(listener: &Listener, questions: Option<Arc<Questions>>) -> Self {
        let (counts, addresses) = (Arc::clone(listener.counts()), Arc::clone(listener.addresses()));
        Self { tls: listener.tls(), counts, addresses, questions }
    }
}
