//! The sessions of one store in another.

use support::CONFIG;

use super::{place_of, server, store_of};

#[tokio::test(flavor = "multi_thread")]
async fn c31_sessions_go_on_in_a_copied_store_and_revoked_ones_stay_revoked() {
    let server = server();
    crate::redis::copy::there_and_back(&place_of(CONFIG), &store_of(&server)).await;
}
