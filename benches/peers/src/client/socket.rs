//! WebSockets.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{HOST, Target, Wire};
use crate::serve::BODY;

/// The length of a message.
const LENGTH: usize = 256;

/// A WebSocket, opened at the first request with its token.
pub struct Client {
    target: Arc<Target>,
    socket: Option<WebSocketStream<Wire>>,
}

impl Client {
    pub fn new(target: &Arc<Target>) -> Self {
        Self { target: Arc::clone(target), socket: None }
    }

    pub async fn ask(&mut self, token: Option<&str>) -> Result<u16> {
        if self.socket.is_none() {
            let mut request = format!("ws://{HOST}{}", self.target.path).into_client_request()?;
            if let Some(token) = token {
                request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
            }
            self.socket = match client_async(request, self.target.wire().await?).await {
                Ok((socket, _)) => Some(socket),
                Err(Error::Http(refusal)) => return Ok(refusal.status().as_u16()),
                Err(error) => bail!(error),
            };
        }
        let socket = self.socket.as_mut().context("a socket")?;
        let sent = Message::binary(&BODY[..LENGTH]);
        socket.send(sent.clone()).await?;
        let answer = socket.next().await.context("the socket was closed")??;
        ensure!(answer == sent, "another message came back");
        Ok(200)
    }
}
