//! Routes, and what they require. A request that matches no route is refused.
//!
//! ```
//! use rotogate::route::{Route, RoutePolicy};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let public = Route::new("/docs/{*rest}", RoutePolicy::public());
//! let orders = Route::new("/orders/{id}", RoutePolicy::default().scope("orders.read")?);
//! let builder = rotogate::Gate::builder().route(public).route(orders);
//! # let _ = builder;
//! # Ok(()) }
//! ```

#[doc(inline)]
pub use rotogate_core::claim::condition::Condition;
#[doc(inline)]
pub use rotogate_core::route::{Auth, Credentials, LimitPer, Mcp, RateLimit, Resource, Route, RoutePolicy};
#[doc(inline)]
pub use rotogate_core::session::step_up::StepUp;
