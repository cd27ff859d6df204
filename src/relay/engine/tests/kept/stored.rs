//! A check of a token, without an exchange: I77.

use super::*;

async fn stored(relay: &Relay, n: usize) -> Option<String> {
    relay.stored(refresh(n)).await.unwrap().map(|reply| text(&reply))
}

#[tokio::test]
async fn i77_a_replaced_token_is_reported_for_as_long_as_a_refresh_accepts_it() {
    for is_used in [false, true] {
        let setting = Setting::new();
        let relay = setting.relay();
        assert_eq!(stored(&relay, 0).await, None, "the provider decides");
        assert_eq!(pair(&relay, refresh(0)).await, Some(1));
        assert!(stored(&relay, 0).await.unwrap().contains("refresh-1"));
        setting.world.pass(23 * HOUR);
        assert!(stored(&relay, 0).await.unwrap().contains("refresh-1"), "a refresh would exchange this one");
        if is_used {
            // Who has a token checked has received it.
            assert_eq!(stored(&relay, 1).await, None);
        } else {
            setting.world.pass(2 * HOUR);
        }
        assert_eq!(stored(&relay, 0).await, None);
        assert_eq!(setting.provider.presented(), ["refresh-0"], "a check sends nothing");
        assert_eq!(pair(&relay, refresh(0)).await, None);
    }
}

#[tokio::test]
async fn i77_a_token_whose_session_ended_here_or_that_the_provider_refused_is_not_reported() {
    let setting = Setting::new();
    let relay = setting.relay();
    assert_eq!(pair(&relay, refresh(0)).await, Some(1));
    setting.world.pass(HOUR);
    setting.world.ended.2.has_ended.store(true, Ordering::SeqCst);
    assert_eq!(stored(&relay, 0).await, None);
    assert_eq!(pair(&relay, refresh(0)).await, None, "refused");
    assert_eq!(stored(&relay, 0).await, None, "although the refusal is stored");
}
