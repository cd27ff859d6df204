//! The dialects on the real binary, as their own clients speak them.

mod envelope;
mod meshydb;
mod metadata;
mod my_sessions;
