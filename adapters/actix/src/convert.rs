//! actix-web 4 has the types of http 0.2, the gate those of http 1: by name and value.

use super::*;

/// The head of a request as the gate judges it; `None` if it cannot be one of http 1.
pub(crate) fn head(request: &ServiceRequest) -> Option<http::request::Parts> {
    // The layer above has removed the token and judged the request: its head says so.
    if let Some(PermittedHead(head)) = request.extensions().get() {
        return Some(head.clone());
    }
    let mut head = http::Request::new(()).into_parts().0;
    head.method = http::Method::from_bytes(request.method().as_str().as_bytes()).ok()?;
    head.uri = request.uri().to_string().parse().ok()?;
    head.version = match request.version() {
        actix_web::http::Version::HTTP_10 => http::Version::HTTP_10,
        actix_web::http::Version::HTTP_2 => http::Version::HTTP_2,
        _ => http::Version::HTTP_11,
    };
    for (name, value) in request.headers() {
        let name = http::HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        head.headers.append(name, http::HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    if let Some(address) = request.peer_addr() {
        head.extensions.insert(rotogate::gate::Peer::new(address.ip(), request.app_config().secure()));
    }
    Some(head)
}

/// Appends headers of http 1. Each of them is valid in http 0.2, too.
pub(crate) fn append(from: &http::HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_str().as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        {
            to.append(name, value);
        }
    }
}

pub(crate) fn response(reply: http::Response<Bytes>) -> HttpResponse {
    let (head, body) = reply.into_parts();
    let status = StatusCode::from_u16(head.status.as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::new(status);
    append(&head.headers, response.headers_mut());
    // actix-web writes the length itself.
    response.headers_mut().remove("content-length");
    response.set_body(body).map_into_boxed_body()
}
