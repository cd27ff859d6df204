//! Decisions as an enforcement point (AuthZEN 1.0): a decision point is asked whether a caller may send a request that
//! all rules of its route permit. Any answer but a decision leads to 503.
//!
//! ```
//! use std::sync::Arc;
//! use rotogate::decision::{PolicyDecision, DecisionFault, DecisionPoint, DecisionPointRules, RouteDecision};
//! use rotogate::route::{Route, RoutePolicy};
//!
//! /// Permits reading alone.
//! #[derive(Debug)]
//! struct ReadOnly;
//!
//! #[async_trait::async_trait]
//! impl DecisionPoint for ReadOnly {
//!     async fn decide(&self, question: &[u8], _: &str) -> Result<PolicyDecision, DecisionFault> {
//!         let question: serde_json::Value = serde_json::from_slice(question).map_err(DecisionFault::new)?;
//!         Ok(if question["action"]["name"] == "GET" { PolicyDecision::Permit } else { PolicyDecision::Deny })
//!     }
//!
//!     fn identity(&self) -> Box<[u8]> {
//!         Box::default()
//!     }
//! }
//!
//! let policy = RoutePolicy { decision: Some(Arc::new(RouteDecision::new("own", "order", "{id}"))), ..RoutePolicy::default() };
//! let builder = rotogate::Gate::builder()
//!     .decision_point(DecisionPointRules::new("own", ReadOnly))
//!     .route(Route::new("/orders/{id}", policy));
//! # let _ = builder;
//! ```

#[doc(inline)]
pub use rotogate_core::decision::{DecisionFault, DecisionPoint, DecisionPointRules, PolicyDecision};
#[doc(inline)]
pub use rotogate_core::route::RouteDecision;
