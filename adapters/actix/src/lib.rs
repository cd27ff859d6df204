//! rotogate in an actix-web 4 service: [`layer`] around the whole application, [`require`] around single resources, and
//! [`Caller`] as an extractor.
//!
//! ```no_run
//! use actix_web::{App, HttpServer, web};
//! use rotogate::Gate;
//! use rotogate_actix::Caller;
//!
//! async fn me(caller: Caller) -> String {
//!     caller.subject().to_owned()
//! }
//!
//! # async fn serve(gate: Gate) -> std::io::Result<()> {
//! HttpServer::new(move || {
//!     App::new()
//!         .route("/me", web::get().to(me))
//!         .service(web::resource("/admin").wrap(rotogate_actix::require(gate.require().scope("admin"))).to(me))
//!         .wrap(rotogate_actix::layer(&gate)) // the outermost middleware: the last `wrap`
//! })
//! .bind("127.0.0.1:3000")?
//! .run()
//! .await
//! # }
//! ```
//!
//! The routes of the gate decide which path needs a token, as with `gate.layer()`. The gate answers its own endpoints
//! (refresh, revocation, JWK set, metadata). A response of unknown length, or with more than 1 MiB, breaks off when its
//! caller's session ends; so does a WebSocket, on a route that permits upgrades.

use std::error::Error as StdError;
use std::future::{Future, Ready, ready};
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, EitherBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{StatusCode, Uri};
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse};
use bytes::Bytes;
use rotogate::gate::{Judgement, PermittedRequest, RequireLayer};
use rotogate::{Gate, Identity};

mod convert;
mod endpoint;

type BoxError = Box<dyn StdError>;

/// A response of known length is long, and ends with its caller's session, if it has more bytes than this.
const LONG_RESPONSE: u64 = 1024 * 1024;

/// The gate around a whole application. It must be the outermost middleware, which is the last `wrap` of an `App`: the others
/// then see requests without tokens.
pub fn layer(gate: &Gate) -> GateMiddleware {
    GateMiddleware(Judge::Gate(gate.clone()))
}

/// The conditions of `gate.require()` around a scope or a resource: beneath [`layer`], or alone.
pub fn require(conditions: RequireLayer) -> GateMiddleware {
    GateMiddleware(Judge::Require(conditions))
}

/// A middleware: the result of [`layer`] and [`require`].
#[derive(Clone, Debug)]
pub struct GateMiddleware(Judge);

#[derive(Clone, Debug)]
enum Judge {
    Gate(Gate),
    Require(RequireLayer),
}

impl<S, B> Transform<S, ServiceRequest> for GateMiddleware
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<GuardedBody<B>>>;
    type Error = actix_web::Error;
    type InitError = ();
    type Transform = GatedService<S>;
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(GatedService { service: Rc::new(service), judge: self.0.clone() }))
    }
}

/// A service behind a [`GateMiddleware`].
#[derive(Debug)]
pub struct GatedService<S> {
    service: Rc<S>,
    judge: Judge,
}

/// The head of the request as a [`layer`] permitted it: a [`require`] beneath judges that one.
struct PermittedHead(http::request::Parts);

impl<S, B> Service<ServiceRequest> for GatedService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<GuardedBody<B>>>;
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    forward_ready!(service);

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let (service, judge) = (Rc::clone(&self.service), self.judge.clone());
        Box::pin(async move {
            let Some(head) = convert::head(&request) else {
                return Ok(request.into_response(HttpResponse::new(StatusCode::BAD_REQUEST)).map_into_right_body());
            };
            let judgement = match &judge {
                Judge::Gate(gate) => gate.judge(&head).await,
                Judge::Require(conditions) => conditions.judge(&head).await,
            };
            match (judgement, &judge) {
                (Judgement::Permitted(permitted), _) => {
                    if !apply(&permitted, &mut request) {
                        let refused = HttpResponse::new(StatusCode::BAD_REQUEST);
                        return Ok(request.into_response(refused).map_into_right_body());
                    }
                    let mut response = service.call(request).await?;
                    convert::append(permitted.reply_headers(), response.headers_mut());
                    Ok(response.map_body(|_, body| EitherBody::left(GuardedBody { body, permitted })))
                }
                (Judgement::Refused(reply), _) => {
                    Ok(request.into_response(convert::response(reply)).map_into_right_body())
                }
                (_, Judge::Gate(gate)) => {
                    let response = endpoint::answer(gate, head, &mut request).await?;
                    Ok(request.into_response(response).map_into_right_body())
                }
                // No condition names an endpoint.
                (_, Judge::Require(_)) => {
                    let unknown = HttpResponse::new(StatusCode::INTERNAL_SERVER_ERROR);
                    Ok(request.into_response(unknown).map_into_right_body())
                }
            }
        })
    }
}

/// Makes the request the one that the gate permitted. False if actix-web cannot represent it.
fn apply(permitted: &PermittedRequest, request: &mut ServiceRequest) -> bool {
    let headers = request.headers_mut();
    for name in permitted.remove() {
        headers.remove(name.as_str());
    }
    for name in permitted.set().keys() {
        headers.remove(name.as_str());
    }
    convert::append(permitted.set(), headers);
    let head = permitted.head();
    let Ok(uri) = head.uri.to_string().parse::<Uri>() else { return false };
    if uri != *request.uri() {
        request.match_info_mut().get_mut().update(&uri);
        request.head_mut().uri = uri;
    }
    let mut extensions = request.extensions_mut();
    if let Some(identity) = permitted.identity() {
        extensions.insert(Caller(identity));
    }
    extensions.insert(PermittedHead(head.clone()));
    true
}

pin_project_lite::pin_project! {
    /// The body of a response that ends with its caller's session. The request counts among those of its caller until the
    /// body is dropped.
    pub struct GuardedBody<B> {
        #[pin]
        body: B,
        permitted: Box<PermittedRequest>,
    }
}

impl<B: MessageBody> MessageBody for GuardedBody<B> {
    type Error = BoxError;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let this = self.project();
        let is_long = match this.body.size() {
            BodySize::None => false,
            BodySize::Sized(length) => length > LONG_RESPONSE,
            BodySize::Stream => true,
        };
        if is_long && let Poll::Ready(reason) = pin!(this.permitted.ended()).poll(cx) {
            return Poll::Ready(Some(Err(format!("response ended with its caller's session: {reason}").into())));
        }
        this.body.poll_next(cx).map_err(Into::into)
    }
}

/// The caller of a request, as an extractor. For routes that need no token, `Option<Caller>`: `None` is also the answer
/// where no gate is in front of the handler, which the log then says at each request, because actix-web drops the error.
#[derive(Clone, Debug)]
pub struct Caller(pub Identity);

impl Deref for Caller {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0
    }
}

impl FromRequest for Caller {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, actix_web::Error>>;

    /// # Errors
    /// 401 on a route that needs no token, for a request without one; 500 where no gate is in front.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let extensions = request.extensions();
        ready(match (extensions.get::<Self>(), extensions.get::<PermittedHead>()) {
            (Some(caller), _) => Ok(caller.clone()),
            (None, Some(_)) => {
                Err(actix_web::error::ErrorUnauthorized("the handler needs a caller, and there is none"))
            }
            (None, None) => {
                const WHY: &str = "there is no gate in front of the handler";
                tracing::error!(path = request.path(), "{WHY}");
                Err(actix_web::error::ErrorInternalServerError(WHY))
            }
        })
    }
}
