use std::sync::Arc;

use super::Inner;

/// A handle to a gate. Clones are cheap and share all state.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::{NewSession, Whose}, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// // Clones share all state. Use one for the layer, and others in handlers.
/// let admin = gate.clone();
/// let tokens = admin.sessions().start(NewSession::new("ada", "web")).await?;
/// admin.sessions().revoke_all(Whose::Subject(&tokens.subject)).await?;
/// let (_, revocations) = gate.counts();
/// assert_eq!(revocations, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Gate(pub(crate) Arc<Inner>);
