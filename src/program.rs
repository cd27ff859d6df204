//! The API that only the program `rotogate-server` needs. It may change in any release, and docs.rs does not show it, as
//! it does not show further methods of [`Gate`](crate::Gate), [`Sessions`](crate::gate::Sessions) and
//! [`Authorizer`](crate::gate::Authorizer).

pub use crate::dialect::answer::Answer;
pub use crate::dialect::browser::look::{Localized, Logo, PageSettings, text_names};
pub use crate::dialect::browser::page::{HTML, put_request_id};
pub use crate::dialect::browser::texts::Language;
pub use crate::dialect::browser::{LoginPage, NAME as BROWSER, PROFILE as BROWSER_PROFILE};
pub use crate::dialect::command::CommandHandler;
pub use crate::dialect::events::{Events, Notice};
pub use crate::dialect::kuzzle::actions::is_controller;
pub use crate::dialect::kuzzle::http::{COOKIE as KUZZLE_COOKIE, HOST_COOKIE as KUZZLE_HOST_COOKIE};
pub use crate::dialect::protocol::Protocol;
pub use crate::dialect::registry::{
    ENVELOPE, KUZZLE, MY_KEYS, MY_SESSIONS, NAMES, OAUTH2, by_name, protocol as protocol_of,
};
#[cfg(feature = "http-client")]
pub use crate::exchange::HttpExchanger;
pub use crate::gate::program::*;
#[cfg(feature = "introspection")]
pub use rotogate_issuers::introspection::{HttpIntrospector, KUZZLE_PREFIX, KuzzleIntrospector, KuzzleSecret};
#[cfg(feature = "browser-oidc")]
pub use rotogate_issuers::login::OWN_PARAMETERS;

/// The messages of the dialect `knox`.
#[cfg(feature = "grpc")]
pub mod knox {
    pub use crate::dialect::knox::proto::*;
}

/// Returns whether a login or logout at `path` may redirect to `to`. `listed` are the allowed origins.
pub fn is_login_target<'a>(to: &str, path: &str, listed: impl IntoIterator<Item = &'a str>) -> bool {
    use crate::dialect::browser::target::{LoginTarget, LoginTargets};
    let listed = listed.into_iter().map(Into::into).collect();
    let targets = LoginTargets { origin: String::new(), path: path.to_owned(), listed };
    to == "/" || targets.admit(to) != LoginTarget::ROOT
}
