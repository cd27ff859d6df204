//! Log messages about mistakes of an application.

use rotogate::gate::NewSession;
use support::events::Events;
use tracing::Level;

#[tokio::test]
async fn a_requirement_that_no_token_meets_is_said_once_the_application_states_it() {
    let gate = crate::gate().await;
    let lines = Events::collect(|metadata| *metadata.level() <= Level::WARN);
    let _ = gate.require().role("self:boss").role("boss").scope("read write").any_scope(["a", "b"]);
    assert_eq!(lines.taken(), []);
    let _ = gate.require().role("kc:boss").scope("a\"b").any_scope(["c", "d\\"]);
    let said: Vec<_> = lines.taken().into_iter().map(|line| line["message"].clone()).collect();
    let [role, scope, any] = &said[..] else { panic!("{said:?}") };
    assert!(role.starts_with("`require()`: no trusted issuer is named before the colon"), "{role}");
    assert!(scope.starts_with("malformed scope") && scope == any, "{said:?}");
    let unknown = gate.set_trusted("nobody", rotogate::token::IssuerKeys::unknown()).unwrap_err().to_string();
    assert!(unknown.starts_with("no trusted issuer is named \"nobody\""), "{unknown}");
}

#[tokio::test]
async fn two_living_gates_on_one_store_are_a_mistake_and_a_gate_after_another_is_none() {
    let store =
        std::sync::Arc::new(rotogate_core::store::MemoryStore::new("https://api.test", std::time::Duration::ZERO));
    let lines = Events::collect(|metadata| *metadata.level() <= Level::ERROR);
    let builder = crate::builder().leeway(std::time::Duration::ZERO).shared_store(store);
    let first = builder.clone().build().await.unwrap();
    assert_eq!(lines.taken(), []);
    let second = builder.build().await.unwrap();
    let said = lines.taken();
    let [line] = &said[..] else { panic!("{said:?}") };
    assert!(line["message"].starts_with("another gate in this process uses the same store"), "{line:?}");
    drop((first, second));
}

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
