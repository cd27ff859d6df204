//! Nine hours of a browser without its user.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Attack 35.
#[tokio::test]
async fn b11_a_page_that_polls_for_nine_hours_does_not_keep_its_session() {
    let world = World::new().await;
    let (cookie, begun) = world.cookie().await;
    let pairs = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    let mut live = 0_u64;
    for _ in 0..9 * 60 {
        let reply = world.get("/auth/session", &pairs).await;
        assert_eq!((reply.status(), reply.headers().get_all(SET_COOKIE).iter().count()), (StatusCode::OK, 0));
        let text = body(reply).await;
        live += u64::from(text.contains("\"authenticated\":true"));
        // A prefetch and a request that the table refuses are not activity either.
        let prefetch = [pairs[0], pairs[1], ("sec-purpose", "prefetch")];
        world.get("/both", &prefetch).await;
        assert_ne!(world.get("/both", &[pairs[0], ("sec-fetch-site", "cross-site")]).await.status(), StatusCode::OK);
        world.time.advance(MINUTE);
    }
    assert_eq!(live, IDLE.as_secs() / 60, "to the idle end, and no minute longer");
    assert_eq!(world.record(&begun).await.revision, 1);
    assert_eq!(world.get("/both", &pairs).await.status(), StatusCode::UNAUTHORIZED);
}

/// The attack of the issue beside it: an open event stream.
#[tokio::test]
async fn b11_an_event_stream_that_is_open_for_nine_hours_ends_at_the_idle_end() {
    let world = World::new().await;
    let begun = world.begin("ada").await;
    let stream = Lease::for_caller(&world.gate.0.leases, Some(&caller(&world, &begun).await), OnExpiry::Close);
    let mut open = 0_u64;
    for _ in 0..9 * 60 {
        world.gate.0.ask_about_browsers().await;
        stream.note_activity();
        open += u64::from(stream.check().is_ok());
        world.time.advance(MINUTE);
    }
    assert_eq!(open, IDLE.as_secs() / 60);
    assert_eq!(world.record(&begun).await.revision, 1);
}

async fn body(reply: Reply) -> String {
    use http_body_util::BodyExt as _;
    let bytes = reply.into_body().collect().await.unwrap_or_else(|_| panic!("a whole body")).to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}
