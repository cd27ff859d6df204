//! Reads the body of a request to an endpoint (requirements A4, A10, A11). A small body is accepted from any client.
//! The gate reads a larger body only with a valid token, in the head or in the first bytes of the body. Until a valid
//! token is found, a request whose body arrives slowly holds a permit from a small pool.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::request::Parts;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::super::Inner;
use crate::dialect::Dialect;
use crate::gate::body_pieces::BodyPieces;
use rotogate_core::credential::{self, Credential, Places};
use rotogate_core::denial::{Denial, NotGood};
use rotogate_core::overload::{Holder, PoolPermit, Refusal};
use rotogate_core::token::verify::IssuerRules;
use rotogate_core::verify_cache::{Check, Introspected};

const BODY_TIMEOUT: Duration = Duration::from_secs(3);
const KNOWN_CALLER_BODY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Unread {
    TooLong,
    TooSlow,
    Broken,
    Shed(Refusal),
    Undecided(Denial),
}

pub(super) struct Reading<'a> {
    pub(super) gate: &'a Inner,
    pub(super) dialect: &'a dyn Dialect,
    pub(super) operation: &'static str,
    pub(super) parts: &'a Parts,
}

impl Reading<'_> {
    pub(super) async fn read<B>(&self, body: B) -> Result<(Bytes, Option<PoolPermit>), Unread>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        if body.is_end_stream() {
            return Ok((Bytes::new(), None));
        }
        let small = self.gate.max_endpoint_body;
        let large =
            self.dialect.protocol().and_then(|own| own.max_body(self.operation)).map_or(small, |own| own.max(small));
        let mut holder = self.gate.holder(self.parts);
        let (began, mut time) = (Instant::now(), BODY_TIMEOUT);
        let (mut known, mut waits) = (false, None);
        let mut room =
            self.gate.running.overload.buffered.take(holder, 0).map_err(|_| Unread::Shed(Refusal::Buffered))?;
        let mut pieces = BodyPieces::default();
        let mut body = pin!(body.map_err(Into::into));
        loop {
            let mut frame = pin!(body.frame());
            let frame = match poll_fn(|cx| Poll::Ready(Pin::new(&mut frame).poll(cx))).await {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    if waits.is_none() && !known {
                        let place = self.gate.running.overload.bodies.enter(holder);
                        waits = Some(place.map_err(|_| Unread::Shed(Refusal::Bodies))?);
                    }
                    tokio::time::timeout_at(began + time, frame).await.map_err(|_| Unread::TooSlow)?
                }
            };
            let Some(frame) = frame else { break };
            let frame: Frame<B::Data> = frame.map_err(|_: Box<dyn std::error::Error + Send + Sync>| Unread::Broken)?;
            let Ok(data) = frame.into_data() else { continue };
            let length = pieces.so_far().len() + data.remaining();
            if length > large {
                return Err(Unread::TooLong);
            }
            if length > small && !known {
                let begun = pieces.so_far();
                let missing = (small - begun.len()).min(data.chunk().len());
                let begun = [begun, data.chunk().get(..missing).unwrap_or_default()].concat();
                let caller = self.caller(&begun).await.map_err(Unread::Undecided)?.ok_or(Unread::TooLong)?;
                (known, time, waits, holder) = (true, KNOWN_CALLER_BODY_TIMEOUT, None, Some(caller));
                let kept = length - data.remaining();
                room = self.room(holder, kept)?;
            }
            room.grow(data.remaining()).map_err(|_| Unread::Shed(Refusal::Buffered))?;
            pieces.push(data);
        }
        drop(waits);
        Ok((pieces.whole(), Some(room)))
    }

    fn room(&self, holder: Option<Holder>, bytes: usize) -> Result<PoolPermit, Unread> {
        self.gate.running.overload.buffered.take(holder, bytes).map_err(|_| Unread::Shed(Refusal::Buffered))
    }

    /// Returns the holder of the valid token in the head or at the start of the body.
    ///
    /// # Errors
    /// The token could not be checked. If a limiter prevented the check, the token does not count as invalid
    /// (requirement R15).
    async fn caller(&self, begun: &[u8]) -> Result<Option<Holder>, Denial> {
        let sources = self.dialect.sources();
        let places = Places { query: sources.query, cookies: [sources.cookie, None], dpop: false };
        let in_head = credential::extract_from(&self.parts.headers, self.parts.uri.query(), places).ok().flatten();
        if let Some(found) = in_head
            && let Some(holder) = self.holder_of(&found.token).await?
        {
            return Ok(Some(holder));
        }
        match self.dialect.protocol().and_then(|own| own.token_in(self.operation, begun)) {
            Some(token) => self.holder_of(token.expose_secret()).await,
            None => Ok(None),
        }
    }

    /// Returns the holder of a valid token.
    async fn holder_of(&self, token: &str) -> Result<Option<Holder>, Denial> {
        let gate = self.gate;
        let any = |_: &IssuerRules| true;
        let address = gate.client_address(self.parts);
        let check = |introspected: Option<&Introspected>| {
            let check = Check { taken: Some(&any), ..Check::from(Credential::new(token)) };
            gate.checker.check(check, || gate.shown(address).after(introspected), &mut ())
        };
        let checked = match check(None) {
            Err(Denial::IntrospectionUnavailable(_)) => {
                let wait =
                    gate.checker.awaited_introspection(token, Some(&any), gate.engine.limits().knows(address.into()));
                let introspected = match wait {
                    Some(wait) => wait.ended().await,
                    None => None,
                };
                check(introspected.as_ref())
            }
            checked => checked,
        };
        match checked {
            Ok(verified) => Ok(Some(verified.holder())),
            Err(denial) => NotGood::from_denial(denial).map(|_| None),
        }
    }
}
