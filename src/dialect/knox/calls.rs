//! The calls of the gRPC service. Each call executes one command.

use std::sync::OnceLock;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use prost::Message;
use secrecy::SecretString;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::proto::{
    AuthToken, AuthnWithPasswordRequest, AuthnWithPasswordResponse, GetMeRequest, GetMeResponse,
    RefreshAccessTokenRequest, RefreshAccessTokenResponse, User,
};
use super::{user, words};
use crate::dialect::{Call, Command, CommandHandler, Outcome, RefreshCredential, Reply, ReplyBody, Superseded};
use rotogate_core::credential;
use rotogate_core::denial::Denial;
use rotogate_core::engine::IssuedTokens;
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;

pub(in crate::dialect) const UNREAD: Reason =
    Reason::denied(&Denial::MalformedRequest("the message does not have the type that the call expects"));

pub(super) struct Calling<'a> {
    call: &'a Call<'a>,
    gate: &'a dyn CommandHandler,
    reason: OnceLock<Reason>,
}

impl<'a> Calling<'a> {
    pub(super) fn new(call: &'a Call<'a>, gate: &'a dyn CommandHandler) -> Self {
        Self { call, gate, reason: OnceLock::new() }
    }

    /// Returns the outcome, or [`UNREAD`] if the message could not be decoded.
    pub(super) fn reason(&self) -> Reason {
        self.reason.get().copied().unwrap_or(UNREAD)
    }

    pub(super) async fn authn_with_password(&self) -> Reply {
        let serve = |request: Request<AuthnWithPasswordRequest>| async move {
            let AuthnWithPasswordRequest { email, password } = request.into_inner();
            let password = SecretString::from(password);
            if email.is_empty() {
                return Err(words::empty_field("email"));
            }
            if secrecy::ExposeSecret::expose_secret(&password).is_empty() {
                return Err(words::empty_field("password"));
            }
            let (user, auth_token) = self.issued(Command::login(email, password)).await?;
            Ok(Response::new(AuthnWithPasswordResponse { user, auth_token }))
        };
        unary(self.call, serve).await
    }

    pub(super) async fn refresh_access_token(&self) -> Reply {
        let serve = |request: Request<RefreshAccessTokenRequest>| async move {
            let token = request.into_inner().refresh_token;
            if token.is_empty() {
                return Err(words::empty_field("refresh_token"));
            }
            let refresh = Command::refresh(RefreshCredential::Refresh(token.into()));
            let (user, auth_token) = self.issued(refresh).await?;
            Ok(Response::new(RefreshAccessTokenResponse { user, auth_token }))
        };
        unary(self.call, serve).await
    }

    pub(super) async fn get_me(&self) -> Reply {
        let serve = |_: Request<GetMeRequest>| async move {
            // gRPC metadata are HTTP headers, so a second `Authorization` is rejected (requirement T17).
            let found = credential::extract(self.call.headers, None).and_then(|c| c.ok_or(Denial::NoCredential));
            let access = found.map_err(|denial| self.refused(&denial.into()))?.token().into();
            let user = match self.execute(Command::Check { access, superseded: Superseded::None }).await? {
                Outcome::Checked(Ok(checked)) => match &checked.user {
                    Some(known) => user::known(known),
                    None => user::unknown(&checked.subject, checked.account.as_deref()),
                },
                Outcome::Checked(Err(denial)) => return Err(self.refused(&denial.into())),
                Outcome::Issued(_) | Outcome::Revoked => return Err(unexpected()),
            };
            Ok(Response::new(GetMeResponse { user: Some(user) }))
        };
        unary(self.call, serve).await
    }

    async fn execute(&self, command: Command) -> Result<Outcome, Status> {
        let outcome = self.gate.execute(command).await.map_err(|error| self.refused(&error))?;
        match &outcome {
            Outcome::Checked(Err(_)) => {}
            Outcome::Checked(Ok(_)) | Outcome::Issued(_) | Outcome::Revoked => {
                let _ = self.reason.set(Reason::ANSWERED);
            }
        }
        Ok(outcome)
    }

    async fn issued(&self, command: Command) -> Result<(Option<User>, Option<AuthToken>), Status> {
        match self.execute(command).await? {
            Outcome::Issued(issued) => Ok((issued.user.as_ref().map(user::known), Some(auth_token(&issued)))),
            Outcome::Revoked | Outcome::Checked(_) => Err(unexpected()),
        }
    }

    fn refused(&self, error: &Error) -> Status {
        let _ = self.reason.set(error.into());
        words::status(error)
    }
}

pub(in crate::dialect) async fn unary<Q, A, F>(call: &Call<'_>, serve: impl FnMut(Request<Q>) -> F) -> Reply
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    F: Future<Output = Result<Response<A>, Status>>,
{
    let mut request = http::Request::new(Full::new(call.body.clone()));
    *request.headers_mut() = call.headers.clone();
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default());
    collected(grpc.unary(tower::service_fn(serve), request).await).await
}

/// The commands of this dialect never have these outcomes.
fn unexpected() -> Status {
    Status::internal("unexpected")
}

fn auth_token(issued: &IssuedTokens) -> AuthToken {
    AuthToken {
        token: issued.access_token.expose().to_owned(),
        token_type: "Bearer".to_owned(),
        expires_in: i32::try_from(issued.expires_in).unwrap_or(i32::MAX),
        refresh_token: issued.refresh_token.as_ref().map(|token| token.expose().to_owned()).unwrap_or_default(),
    }
}

/// Collects a response with at most one message, and with trailers.
pub(crate) async fn collected(response: http::Response<tonic::body::Body>) -> Reply {
    let (parts, mut body) = response.into_parts();
    let mut reply = ReplyBody::default();
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            // One frame carries one message.
            Ok(Ok(data)) if reply.data.is_empty() => reply.data = data,
            Ok(Ok(data)) => reply.data = [reply.data, data].concat().into(),
            Ok(Err(frame)) => reply.trailers = frame.into_trailers().ok().map(Box::new),
            Err(status) => return refusal(&status),
        }
    }
    http::Response::from_parts(parts, reply)
}

/// A `Trailers-Only` reply: HTTP 200 with only a gRPC status (requirement T17).
pub(crate) fn refusal(status: &Status) -> Reply {
    status.clone().into_http::<Bytes>().map(ReplyBody::from)
}
