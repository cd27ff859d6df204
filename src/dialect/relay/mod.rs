//! In front of a provider that rotates refresh tokens by itself: each refresh token reaches the provider once, and its
//! answer is given again within a grace period.
//!
//! | wire | exchange | with `password` granted | revocation |
//! |---|---|---|---|
//! | [`Wire::OAuth`] | `POST` of a form at the path (RFC 6749 §6) | any other grant, by its name | RFC 7009, at a path of its own |
//!
//! The dialect reads requests and writes replies; [`crate::relay`] has the rules.

use async_trait::async_trait;
use http::{HeaderMap, Method};

use super::{Answer, Call, Command, CommandHandler, Dialect, Outcome, RelayRequest, Reply, ServedPath};
use crate::denial::Denial;
use crate::fault::Error;
use crate::reason::Reason;
use crate::relay::ProviderReply;

mod oauth;

#[cfg(test)]
mod tests;

/// The dialect's name in `gateway.toml`.
pub const NAME: &str = "relay";
/// The grant that is not passed through, but exchanged once.
pub const REFRESH_TOKEN: &str = "refresh_token";

const TOKEN: &str = "token";
const REVOCATION: &str = "revocation";

/// The protocol of clients and provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// RFC 6749.
    #[default]
    OAuth,
}

/// The dialect. See the module.
#[derive(Clone, Debug)]
pub struct RelayDialect {
    /// The protocol.
    pub wire: Wire,
    /// The grants that are served. All but `refresh_token` are passed through.
    pub grants: Vec<String>,
    /// The id of the gate's client, which the provider adds to each request. `None`: what clients send is passed on.
    pub client: Option<String>,
    /// Where revocations arrive.
    pub revocation_path: Option<String>,
}

impl Default for RelayDialect {
    fn default() -> Self {
        Self { wire: Wire::OAuth, grants: vec![REFRESH_TOKEN.to_owned()], client: None, revocation_path: None }
    }
}

impl RelayDialect {
    fn serves_grant(&self, grant: &str) -> bool {
        self.grants.iter().any(|served| served == grant)
    }

    fn read_request(&self, call: &Call<'_>) -> Result<RelayRequest, Denial> {
        match self.wire {
            Wire::OAuth => oauth::read(self, call),
        }
    }

    fn reply(&self, call: &Call<'_>, reply: &ProviderReply) -> (Reply, Reason) {
        let is_granted = reply.status == 200;
        let written = match self.wire {
            Wire::OAuth => oauth::reply(call, reply),
        };
        (written, if is_granted { Reason::ANSWERED } else { Reason::PROVIDER_REFUSED })
    }

    fn refusal(&self, call: &Call<'_>, error: &Error) -> Reply {
        match self.wire {
            Wire::OAuth => oauth::refusal(call.headers, error),
        }
    }
}

#[async_trait]
impl Dialect for RelayDialect {
    fn name(&self) -> &'static str {
        NAME
    }

    fn default_path(&self) -> &'static str {
        match self.wire {
            Wire::OAuth => "/auth/token",
        }
    }

    fn serves(&self, base: &str) -> Vec<ServedPath> {
        let served = |operation, template: &str| ServedPath {
            operation,
            template: template.to_owned(),
            methods: &[Method::POST],
            spellings: &[],
        };
        match self.wire {
            Wire::OAuth => {
                let revocation = self.revocation_path.as_deref().map(|path| served(REVOCATION, path));
                std::iter::once(served(TOKEN, base)).chain(revocation).collect()
            }
        }
    }

    fn read(&self, _: &Call<'_>) -> Result<Command, Denial> {
        Err(Denial::MalformedRequest("a request to the provider is answered as a whole"))
    }

    fn write(&self, call: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply {
        match outcome {
            // No command is executed here.
            Ok(_) => self.refusal(call, &Denial::NoRoute.into()),
            Err(error) => self.refusal(call, &error),
        }
    }

    async fn answer(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
        let answered = match self.read_request(call) {
            Ok(request) => gate.relay(request).await,
            Err(denial) => Err(denial.into()),
        };
        match answered {
            Ok(reply) => self.reply(call, &reply).into(),
            Err(error) => (self.refusal(call, &error), Reason::from(&error)).into(),
        }
    }

    fn refuse(&self, headers: &HeaderMap, denial: Denial) -> Option<Reply> {
        match self.wire {
            Wire::OAuth => {
                let _ = (headers, denial);
                None
            }
        }
    }
}
