//! The API that only the program `rotogate-server` needs, with the feature `program`. It has no promise of
//! compatibility: it changes with the program. [`Gate`](crate::Gate), [`Sessions`](crate::gate::Sessions) and
//! [`Authorizer`](crate::gate::Authorizer) have further methods with this feature.

pub use crate::dialect::kuzzle::actions::is_controller;
pub use crate::dialect::registry::{NAMES, by_name};
pub use crate::gate::program::*;
#[cfg(feature = "introspection")]
pub use rotogate_issuers::introspection::HttpIntrospector;

/// The messages of the dialect `knox`.
#[cfg(feature = "grpc")]
pub mod knox {
    pub use crate::dialect::knox::proto::*;
}
