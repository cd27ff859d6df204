//! The gate's own endpoints: it reads the body itself, under its own limits of size and time.

use futures_core::Stream;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;

use super::*;

/// A body that ended early must not look whole to the gate.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request's body ended early")
    }
}

impl StdError for Broken {}

pub(crate) async fn answer(
    gate: &Gate,
    head: http::request::Parts,
    request: &mut ServiceRequest,
) -> Result<HttpResponse, actix_web::Error> {
    let (mut sender, body) = Channel::<Bytes, Broken>::new(1);
    let mut payload = request.take_payload();
    let reading = async move {
        loop {
            let next = std::future::poll_fn(|cx| Pin::new(&mut payload).poll_next(cx)).await;
            match next {
                Some(Ok(bytes)) => {
                    if sender.send_data(bytes).await.is_err() {
                        return;
                    }
                }
                Some(Err(_)) => return sender.abort(Broken),
                None => return,
            }
        }
    };
    let mut reading = pin!(reading);
    let mut is_read = false;
    let mut answering = pin!(gate.answer(http::Request::from_parts(head, body)));
    let reply = std::future::poll_fn(|cx| {
        if !is_read {
            is_read = reading.as_mut().poll(cx).is_ready();
        }
        answering.as_mut().poll(cx)
    })
    .await;
    let (head, body) = reply.into_parts();
    let body = body.collect().await.map_err(actix_web::error::ErrorInternalServerError)?.to_bytes();
    Ok(convert::response(http::Response::from_parts(head, body)))
}
