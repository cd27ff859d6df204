//! B65: a person reads a page where a script gets a problem document.

use super::browser::{EVIL, OWN, SAME_ORIGIN, config, cookie, credentials, post, post_json};
use support::stub::Edge;
use support::wire::Reply;

const HTML: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// Further routes, and an upstream that does not listen.
fn edge() -> Edge {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!(
        "head_timeout = \"300ms\"\n[[upstreams]]\nname = \"gone\"\nurls = [\"http://{gone}\"]\n\
         [[routes]]\npath = \"/gone/{{*rest}}\"\ncredentials = [\"token\", \"session\"]\nupstream = \"gone\"\n\
         [[routes]]\npath = \"/gone-api/{{*rest}}\"\nauth = \"none\"\nupstream = \"gone\"\n\
         [[routes]]\npath = \"/silent\"\ncredentials = [\"session\"]\nupstream = \"app\"\n\
         [[routes]]\npath = \"/scope/{{*rest}}\"\ncredentials = [\"token\", \"session\"]\nscopes = [\"boss\"]\n\
         upstream = \"app\"\n\
         [[routes]]\npath = \"/rate/{{*rest}}\"\ncredentials = [\"session\"]\nupstream = \"app\"\n\
         [[routes.rate]]\nper = \"subject\"\nlimit = \"1/1m\"\n"
    );
    let config = config("", &more).replace("path = \"/{*rest}\"\ncredentials", "path = \"/app/{*rest}\"\ncredentials");
    Edge::with(&config, |_| {}, |_| {})
}

/// The parts that each page has.
#[track_caller]
fn is_page(reply: &Reply, status: u16, sentence: &str) {
    let html = reply.text();
    assert_eq!((reply.status, reply.header("content-type")), (status, "text/html; charset=utf-8"), "{html}");
    assert!(html.contains(&format!("<p role=\"alert\">{sentence}</p>")), "{html}");
    assert_eq!(reply.header("cache-control"), "no-store");
    assert!(reply.all("vary").iter().any(|vary| vary.starts_with("accept")), "{reply:?}");
    assert_eq!((reply.header("x-frame-options"), reply.header("x-content-type-options")), ("DENY", "nosniff"));
    let policy = reply.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-") && policy.contains("form-action 'self'"),
        "{policy}"
    );
    let id = format!("<code>{}</code>", reply.header("x-request-id"));
    assert!(html.contains(&id) && !html.contains("<!--"), "{id}: {html}");
    assert!(!html.contains("<script") && !html.contains("token"), "{html}");
}

const AWAY: &str = "The application does not answer at the moment. Try again in a minute.";
const CLOSED: &str =
    "You are logged in, but this page is not open to your account. Ask your administrator if you need it.";

#[test]
fn b65_a_person_reads_a_page_and_a_script_a_problem_document_with_the_same_status() {
    let edge = edge();
    let held = cookie(&post_json(&edge, &[OWN], &credentials(&edge)));
    let with = |more: &[&str]| -> Vec<String> {
        [&[held.as_str(), SAME_ORIGIN], more].concat().iter().map(ToString::to_string).collect()
    };
    let ask = |line: &str, more: &[&str]| {
        let headers = with(more);
        edge.ask(line, &headers.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(ask("GET /rate/x", &[HTML]).status, 200);
    for (line, status, sentence) in [
        ("GET /gone/x", 502, AWAY),
        ("GET /silent", 504, AWAY),
        ("GET /scope/x", 403, CLOSED),
        ("GET /rate/x", 429, ""),
        ("GET /nothing-here", 404, "There is no page at this address. Check the address, or go to the start page."),
    ] {
        let plain = ask(line, &["Accept: */*"]);
        assert_eq!((plain.status, plain.header("content-type")), (status, "application/problem+json"), "{line}");
        let page = ask(line, &[HTML]);
        let wait = page.all("retry-after").first().map(ToString::to_string).unwrap_or_default();
        let of_limit = format!("You have sent too many requests. Wait {wait} seconds, then try again.");
        is_page(&page, status, if status == 429 { &of_limit } else { sentence });
        // All else stays as it is for a script: challenges, and the time to wait.
        for name in ["www-authenticate", "retry-after", "ratelimit", "ratelimit-policy"] {
            assert_eq!(page.all(name).len(), plain.all(name).len(), "{line}: {name}");
        }
        // In another language, and for HEAD.
        let german = ask(line, &[HTML, "Accept-Language: de-AT,en;q=0.5"]);
        assert!(
            german.text().contains("<html lang=\"de\">") && german.text().contains("Anfragenummer: <code>"),
            "{line}"
        );
        let wrong = ask(line, &[HTML, "Accept-Language: \u{e9};q=9,,;;=,de;q=-1"]);
        assert!(wrong.status == status && wrong.text().contains("<html lang=\"en\">"), "{line}: {}", wrong.text());
    }
    let page = ask("GET /scope/x", &[HTML]);
    assert!(page.text().contains("href=\"https://gate.test/auth/logout\">Log out</a>"), "{}", page.text());
    let page = ask("GET /gone/x", &[HTML]);
    assert!(page.text().contains("<a class=\"button\" href=\"\">Try again</a>"), "{}", page.text());
}

#[test]
fn b65_what_no_person_reads_stays_a_problem_document() {
    let edge = edge();
    let held = cookie(&post_json(&edge, &[OWN], &credentials(&edge)));
    for (line, headers, status) in [
        // A route without browser sessions, whatever it accepts.
        ("GET /gone-api/x", vec![HTML], 502),
        ("GET /tokens/x", vec![HTML], 401),
        // A script, and a client of an API.
        ("GET /gone/x", vec![&*held, SAME_ORIGIN], 502),
        ("GET /gone/x", vec![&*held, SAME_ORIGIN, "Accept: application/json"], 502),
        ("GET /gone/x", vec![&*held, SAME_ORIGIN, "Accept: application/json, text/html;q=0.9"], 502),
        ("GET /gone/x", vec![&*held, SAME_ORIGIN, "Accept: text/html;q=0"], 502),
        ("GET /scope/x", vec!["Authorization: Bearer x", HTML], 401),
        // The state of the session, which scripts ask for.
        ("GET /auth/session", vec![&*held, EVIL, HTML], 403),
    ] {
        let reply = edge.ask(line, &headers);
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (status, "application/problem+json"),
            "{line} {headers:?}"
        );
        assert_eq!(reply.json()["request_id"], reply.header("x-request-id"), "{line}");
        assert!(reply.all("content-security-policy").is_empty());
    }
}

#[test]
fn b65_a_page_tells_a_person_what_another_site_did_and_echoes_nothing() {
    let edge = edge();
    let held = cookie(&post_json(&edge, &[OWN], &credentials(&edge)));
    let evil = "/app/%3Cscript%3Ealert(1)%3C/script%3E?q=%3Cimg";
    let reply = post(&edge, evil, &[&held, EVIL, HTML, "Referer: https://evil.example/<b>"], "");
    is_page(
        &reply,
        403,
        "Another website sent this request, so it was not carried out. Open the page here and try again.",
    );
    for echoed in ["script%3E", "alert(1)", "evil.example", "<img"] {
        assert!(!reply.text().contains(echoed), "{}", reply.text());
    }
    let ours = edge.ask("GET /missing%22%3E%3Cb%3E", &[HTML]);
    assert!(!ours.text().contains("missing"), "{}", ours.text());
}

#[test]
fn b65_an_answer_of_the_upstream_is_never_touched() {
    let edge = edge();
    let held = cookie(&post_json(&edge, &[OWN], &credentials(&edge)));
    for status in [400, 403, 404, 429, 502, 503] {
        let reply = edge.ask(&format!("GET /app/status-{status}"), &[&held, SAME_ORIGIN, HTML]);
        assert_eq!((reply.status, reply.body.len()), (status, 0));
        assert!(reply.all("content-type").is_empty() && reply.all("content-security-policy").is_empty());
    }
    let page = b"<p>of the upstream</p><!--request-id:x-->\n";
    edge.stub.put("/app/own", "X-Own: 1\r\n", page);
    let reply = edge.ask("GET /app/own", &[&held, SAME_ORIGIN, HTML]);
    assert_eq!((reply.status, reply.header("x-own"), reply.body.as_slice()), (200, "1", &page[..]));
}
