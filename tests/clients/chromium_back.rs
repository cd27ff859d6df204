//! What Chromium shows after a logout when the user goes Back.

use serde_json::{Value, json};
use support::until;

use super::chromium_devices::{Scene, Tab, WITHOUT};

const ACCOUNT: &str = "the account of demo";

/// What the page at this path shows, once it is there.
async fn shown(tab: &mut Tab, path: &str) -> String {
    let seen = "document.readyState === 'complete' ? [location.pathname, document.body.innerText] : []";
    let mut text = Value::Null;
    until("the page is there", async || {
        let page = tab.run(seen).await;
        text = page[1].clone();
        page[0] == path
    })
    .await;
    text.as_str().unwrap().to_owned()
}

/// A tab of a session that shows its account, which a cache may keep for a year.
async fn with_account() -> Scene {
    let mut scene = Scene::new("after_logout = \"/public/bye\"\n", WITHOUT).await;
    let page = format!("<title>account</title>{ACCOUNT}");
    scene.edge.stub.put("/app/account", "Cache-Control: private, max-age=31536000\r\n", page.as_bytes());
    scene.edge.stub.put("/public/bye", "", b"<title>bye</title>bye");
    scene.tab.run("location.assign('/app/account')").await;
    assert_eq!(shown(&mut scene.tab, "/app/account").await, ACCOUNT);
    scene
}

/// The place in the history of the tab, and the URLs.
fn history(tab: &mut Tab) -> (usize, Vec<String>) {
    let history = tokio::task::block_in_place(|| tab.command("Page.getNavigationHistory", &json!({})));
    let urls = history["entries"].as_array().unwrap().iter().map(|entry| entry["url"].as_str().unwrap().to_owned());
    (usize::try_from(history["currentIndex"].as_u64().unwrap()).unwrap(), urls.collect())
}

/// What the tab shows when its user goes Back to the account.
async fn account_by_back(tab: &mut Tab) -> String {
    let (from, urls) = history(tab);
    let to = urls.iter().position(|url| url.ends_with("/app/account")).unwrap();
    assert!(to < from, "{urls:?}");
    tab.run(&format!("history.go({to} - {from})")).await;
    let mut text = Value::Null;
    until("Back leads elsewhere", async || {
        text = tab.run("document.readyState === 'complete' ? document.body.innerText : null").await;
        text.is_string() && history(tab).0 == to
    })
    .await;
    text.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b62_chromium_shows_no_page_of_a_session_by_back_after_a_logout() {
    // While the session lives, Back shows the page again.
    let mut scene = with_account().await;
    let tab = &mut scene.tab;
    tab.run("location.assign('/public/page')").await;
    shown(tab, "/public/page").await;
    assert_eq!(account_by_back(tab).await, ACCOUNT);

    // A logout by navigation: the page with the button, then its form.
    tab.run("location.assign('/auth/logout')").await;
    shown(tab, "/auth/logout").await;
    tab.run("document.forms[0].requestSubmit()").await;
    assert_eq!(shown(tab, "/public/bye").await, "bye");
    assert_ne!(account_by_back(tab).await, ACCOUNT);

    // A logout by a script of another page than the account, and of the account itself, which leaves its place in the history.
    let out = "fetch('/auth/logout', { method: 'POST' }).then((answer) => answer.status)";
    let mut scene = with_account().await;
    let tab = &mut scene.tab;
    tab.run("location.assign('/public/page')").await;
    shown(tab, "/public/page").await;
    assert_eq!(tab.run(out).await, 200);
    assert_ne!(account_by_back(tab).await, ACCOUNT);
    let mut scene = with_account().await;
    let tab = &mut scene.tab;
    assert_eq!(tab.run(out).await, 200);
    tab.run("location.replace('/public/bye')").await;
    assert_eq!(shown(tab, "/public/bye").await, "bye");
    let urls = history(tab).1;
    assert!(urls.iter().all(|url| !url.ends_with("/app/account")), "{urls:?}");
}
