//! Routes.
pub mod path;
