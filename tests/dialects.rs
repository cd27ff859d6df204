//! The dialects of the real binary, with requests of their own clients.

mod envelope;
mod meshydb;
mod metadata;
mod my_sessions;
