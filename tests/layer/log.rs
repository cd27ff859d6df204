//! Log messages about mistakes of an application.

use rotogate::gate::NewSession;
use support::events::Events;
use tracing::Level;

#[tokio::test]
async fn o50_a_client_that_the_application_did_not_register_is_named_with_the_remedy() {
    let gate = crate::gate().await;
    let warnings = Events::collect(|metadata| *metadata.level() <= Level::WARN);
    gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
    assert_eq!(warnings.taken(), []);
    gate.sessions().start(NewSession::new("ada", "mobile")).await.unwrap_err();
    let lines = warnings.taken();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(line["client"], "mobile");
    assert!(line["message"].contains("GateBuilder::client"), "{line:?}");
}
