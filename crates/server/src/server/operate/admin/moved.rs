//! The paths of the version before `/v1`, for one release.

use http::header::LOCATION;
use http::{HeaderValue, Response, StatusCode};

use super::problem::{Code, Refusal};
use super::{Body, full};

/// The answer for a former path; `None` for every other path.
pub(super) fn answer(path: &str, query: Option<&str>) -> Option<Result<Response<Body>, Refusal>> {
    let new = match path {
        "/sessions" => format!("/v1/sessions{}", renamed(query)),
        "/store/backup" | "/users/reload" => format!("/v1{path}"),
        "/revocations" => {
            let what = "POST /v1/revocations takes its target as JSON: {\"subject\": \"…\"}";
            return Some(Err(Refusal::new(Code::Gone, what)));
        }
        _ if path.starts_with("/sessions/") => format!("/v1{path}"),
        _ => return None,
    };
    let mut response = Response::new(full(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    // A path that was parsed, or a query that was written anew, has no other bytes.
    if let Ok(location) = HeaderValue::try_from(new) {
        response.headers_mut().insert(LOCATION, location);
    }
    Some(Ok(response))
}

/// `after` is `cursor` now.
fn renamed(query: Option<&str>) -> String {
    let Some(query) = query else { return String::new() };
    let mut text = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        text.append_pair(if name == "after" { "cursor" } else { &name }, &value);
    }
    format!("?{}", text.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_path_leads_to_the_new_one() {
        let leads = |path, query| match answer(path, query) {
            Some(Ok(response)) => response.headers()[LOCATION].to_str().unwrap().to_owned(),
            Some(Err(refusal)) => refusal.code.word().to_owned(),
            None => "nowhere".to_owned(),
        };
        for (path, query, new) in [
            ("/sessions", None, "/v1/sessions"),
            ("/sessions", Some("user=a%20b&after=x&limit=3"), "/v1/sessions?user=a+b&cursor=x&limit=3"),
            ("/sessions/x/revoke", None, "/v1/sessions/x/revoke"),
            ("/store/backup", None, "/v1/store/backup"),
            ("/users/reload", None, "/v1/users/reload"),
            ("/revocations", Some("all"), "gone"),
            ("/sessionsx", None, "nowhere"),
            ("/v1/sessions", None, "nowhere"),
        ] {
            assert_eq!(leads(path, query), new, "{path}");
        }
    }
}
