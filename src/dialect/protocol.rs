//! The trait of a wire protocol, as the gate sees it.

use std::fmt;

use async_trait::async_trait;
use http::{HeaderMap, StatusCode};
use secrecy::SecretString;

use super::{
    Answer, Call, Command, CommandHandler, Dialect, OAuthPaths, Outcome, Reply, ServedPath, Sources, StreamedBody,
    reason,
};
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;
use rotogate_core::session::profile::ProfileOverride;
use rotogate_core::token::claims::TokenStyle;

/// All that the gate asks of a wire protocol. A [`Dialect`] is one whose messages are one command each; the built-in
/// protocols do more.
#[async_trait]
pub trait Protocol: fmt::Debug + Send + Sync + 'static {
    /// The dialect's name in `gateway.toml`.
    fn name(&self) -> &'static str;

    /// The operations at an endpoint whose path is `base`.
    fn serves(&self, base: &str) -> Vec<ServedPath>;

    /// The path of an endpoint that names no path.
    fn default_path(&self) -> &'static str;

    /// The session rules of the protocol. The configuration takes precedence.
    fn profile(&self) -> ProfileOverride {
        ProfileOverride::default()
    }

    /// The client of the dialect's sessions, if the protocol names no client.
    fn client(&self) -> Option<&'static str> {
        None
    }

    /// Does the protocol exchange an access token for the next one, without another refresh credential? Then an access
    /// token of this dialect's sessions, and of no other dialect's, is a refresh credential.
    // Requirement R17.
    fn refreshes_by_access(&self) -> bool {
        false
    }

    /// The form of access token that the protocol's clients need.
    fn token_style(&self) -> TokenStyle {
        TokenStyle::default()
    }

    /// The largest body of a request for this operation, in bytes; `None` for the gate's own bound. The gate reads a
    /// body beyond its own bound only from a client that presents a good token.
    fn max_body(&self, operation: &str) -> Option<usize> {
        let _ = operation;
        None
    }

    /// The token in the beginning of a body, if the protocol puts tokens into bodies. The gate calls this once a body
    /// turns out to be longer than the gate's bound, and passes the bytes read so far.
    fn token_in(&self, operation: &str, begun: &[u8]) -> Option<SecretString> {
        let _ = (operation, begun);
        None
    }

    /// Does the operation serve only requests for an upgrade? The gate sends other requests to the routes.
    fn upgrades(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Does the operation accept any call? Calls that the gate does not answer go to the route of the path.
    fn is_envelope(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Does the gate ask the service behind it, by the route of the path, before it answers the operation?
    fn consults(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Where the protocol's clients put their access token on a data route.
    fn sources(&self) -> Sources {
        Sources::default()
    }

    /// The paths that an OAuth 2 client finds at `base`, for the gate's metadata (RFC 8414); `None` for other
    /// protocols.
    fn oauth(&self, base: &str) -> Option<OAuthPaths> {
        let _ = base;
        None
    }

    /// Reads a request.
    ///
    /// # Errors
    /// The denial of a request that the protocol does not allow.
    fn read(&self, call: &Call<'_>) -> Result<Command, Denial>;

    /// Writes the outcome of a request, or its error.
    fn write(&self, call: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply;

    /// Answers a request: reads it, lets `gate` execute the command, and writes the outcome. Also returns the reason
    /// for the access log.
    async fn answer(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
        let outcome = match self.read(call) {
            Ok(command) => gate.execute(command).await,
            Err(denial) => Err(denial.into()),
        };
        let reason = reason(&outcome);
        Answer::Reply(self.write(call, outcome), reason)
    }

    /// Does `stream` answer this operation while the request body still arrives?
    fn is_streamed(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Answers a request to a streamed operation. The body is not in `call`. The operation reveals no secret and
    /// changes nothing, so it gets no [`CommandHandler`]. Also returns the outcome for the access log.
    async fn stream(&self, call: &Call<'_>, body: StreamedBody) -> (Reply, Reason) {
        drop(body);
        let denial = Denial::NoRoute;
        (self.write(call, Err(denial.into())), denial.into())
    }

    /// Do the headers of a request show a client of this protocol? The gate asks this for refusals on a path of no
    /// endpoint and no route.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let _ = headers;
        false
    }

    /// Refuses a request on a data route, or near an endpoint, in the protocol's own words; `None` for the plain reply.
    fn refuse(&self, headers: &HeaderMap, denial: Denial) -> Option<Reply> {
        let _ = (headers, denial);
        None
    }

    /// Reports a failed request with this status and cause in the protocol's own words; `None` for the plain reply.
    fn failed(&self, status: StatusCode, why: &'static str) -> Option<Reply> {
        let _ = (status, why);
        None
    }
}

#[async_trait]
impl<D: Dialect> Protocol for D {
    fn name(&self) -> &'static str {
        Dialect::name(self)
    }

    fn serves(&self, base: &str) -> Vec<ServedPath> {
        Dialect::serves(self, base)
    }

    fn default_path(&self) -> &'static str {
        Dialect::default_path(self)
    }

    fn profile(&self) -> ProfileOverride {
        Dialect::profile(self)
    }

    fn client(&self) -> Option<&'static str> {
        Dialect::client(self)
    }

    fn refreshes_by_access(&self) -> bool {
        Dialect::refreshes_by_access(self)
    }

    fn sources(&self) -> Sources {
        Dialect::sources(self)
    }

    fn read(&self, call: &Call<'_>) -> Result<Command, Denial> {
        Dialect::read(self, call)
    }

    fn write(&self, call: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply {
        Dialect::write(self, call, outcome)
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        Dialect::knows(self, headers)
    }

    fn refuse(&self, headers: &HeaderMap, denial: Denial) -> Option<Reply> {
        Dialect::refuse(self, headers, denial)
    }
}
