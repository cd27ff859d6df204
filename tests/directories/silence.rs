//! A first server that goes away silently while connections to it are open.

use futures_util::future::join_all;
use http::StatusCode;
use support::proxy::Proxy;
use support::{Gate, until};

/// The first server is behind `proxy`, and the second is good: one request at most has no answer.
pub(super) async fn goes_silent(gate: &Gate, proxy: &Proxy, password: &str) {
    // Held back until there are several connections, which concurrent logins need.
    let before = proxy.accepted().len();
    proxy.hold(true);
    let logins = join_all((0..4).map(|_| gate.log_in("demo", password)));
    let released = async {
        until("each login has a connection", async || proxy.accepted().len() >= before + 4).await;
        proxy.hold(false);
    };
    let (answers, ()) = tokio::join!(logins, released);
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK), "{answers:?}");

    proxy.hold(true);
    gate.log_in("demo", password).await;
    let answer = gate.log_in("demo", password).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}
