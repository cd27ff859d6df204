//! Servers in Rust, and an imaginary one.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::get;
use http::{Request, Uri};
use http_body_util::BodyExt;
use percent_encoding::percent_decode;
use tower::ServiceExt;

use super::Readings;

/// hyper passes on the target as `http` parses it; a service behind it may decode it once.
pub(crate) fn hyper(targets: &[Vec<u8>]) -> Vec<Readings> {
    let read = |target: &Vec<u8>| {
        let Ok(uri) = Uri::try_from(target.as_slice()) else { return vec![] };
        vec![uri.path().to_owned(), decoded(uri.path().as_bytes())]
    };
    targets.iter().map(read).collect()
}

fn decoded(path: &[u8]) -> String {
    String::from_utf8_lossy(&percent_decode(path).collect::<Vec<u8>>()).into_owned()
}

/// axum's router, which is matchit on the raw path, and its `Path`, which is decoded.
pub(crate) fn axum(targets: &[Vec<u8>]) -> Vec<Readings> {
    let router = Router::new()
        .route("/private/{*rest}", get(async |Path(rest): Path<String>| format!("/private/{rest}")))
        .route("/private", get(async || "/private"))
        .fallback(get(async |uri: Uri| decoded(uri.path().as_bytes())));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read = |target: &Vec<u8>| {
        let Ok(request) = Request::get(target.as_slice()).body(Body::empty()) else { return vec![] };
        let response = runtime.block_on(router.clone().oneshot(request)).unwrap();
        if !response.status().is_success() {
            return vec![];
        }
        let body = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        vec![String::from_utf8_lossy(&body).into_owned()]
    };
    targets.iter().map(read).collect()
}

/// The laxness of all servers in one: decodes repeatedly, reads backslashes as slashes, cuts at NUL, `?` and `#`, cuts
/// parameters and spaces from segments, and then resolves dots.
pub(crate) fn laxest(targets: &[Vec<u8>]) -> Vec<Readings> {
    let read = |target: &Vec<u8>| {
        let path = target.split(|byte| *byte == b'?').next().unwrap();
        let mut bytes = path.to_vec();
        loop {
            let next: Vec<u8> = percent_decode(&bytes).collect();
            if next == bytes {
                break;
            }
            bytes = next;
        }
        let text = String::from_utf8_lossy(&bytes).replace('\\', "/");
        let text = text.split(['\0', '?', '#']).next().unwrap();
        let mut segments: Vec<&str> = Vec::new();
        for segment in text.split('/') {
            match segment.split(';').next().unwrap().trim() {
                "" | "." => {}
                ".." => drop(segments.pop()),
                name => segments.push(name),
            }
        }
        vec![format!("/{}", segments.join("/"))]
    };
    targets.iter().map(read).collect()
}

/// As above, and each path once more in lower case, without dots at the end of segments, and without a slash at the end,
/// as a case-insensitive file system reads them.
pub(crate) fn laxest_of_all(targets: &[Vec<u8>]) -> Vec<Readings> {
    let folded = |reading: &String| {
        let segments = reading.split('/').map(|segment| segment.trim_end_matches(['.', ' ']).to_lowercase());
        let segments: Vec<String> = segments.filter(|segment| !segment.is_empty()).collect();
        format!("/{}", segments.join("/"))
    };
    let all = |readings: Readings| readings.iter().map(folded).chain(readings.clone()).collect();
    laxest(targets).into_iter().map(all).collect()
}
