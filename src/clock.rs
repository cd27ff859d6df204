//! Time as the gate sees it. [`TimeSource`] reads the machine's clocks, and tests can set a `ManualTime`.
//!
//! ```
//! use std::time::Duration;
//! use rotogate::clock::Timestamp;
//!
//! let login = Timestamp::from_secs(1_800_000_000);
//! assert_eq!(login.plus(Duration::from_secs(60)).since(login), Duration::from_secs(60));
//! ```

#[cfg(feature = "test-util")]
#[doc(inline)]
pub use rotogate_core::clock::ManualTime;
#[doc(inline)]
pub use rotogate_core::clock::{TimeSource, Timestamp};
