//! Real OAuth 2 clients against the real binary.
fn main() {}
