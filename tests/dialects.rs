//! The dialects on the real binary, as their own clients speak them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

mod dialects {
    mod envelope;
    mod meshydb;
    mod metadata;
}
