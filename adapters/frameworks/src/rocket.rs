//! A resource server on Rocket: the gate is a fairing, which sends what it does not permit to a route of its own.
//!
//! Rocket removes no header of a request: those that the gate would remove are empty. Its cookies are those of the client.
//!
//! ```sh
//! cargo run --bin on-rocket -- https://idp.example.com/realms/x
//! ```

use std::error::Error;
use std::io::Cursor;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::request::Parts;
use http_body_util::{BodyExt, Full};
use rocket::data::ToByteUnit;
use rocket::fairing::{self, Fairing, Info, Kind};
use rocket::http::uri::Origin;
use rocket::http::{Header, Method, Status};
use rocket::outcome::Outcome;
use rocket::request::{self, FromRequest};
use rocket::route::{self, Handler};
use rocket::{Build, Config, Data, Request, Response, Rocket, Route, get, routes};
use rotogate::gate::{Judgement, Peer, PermittedRequest};
use rotogate::{Gate, Identity, ResourceServer};

/// The path of the route for requests that the gate does not permit.
const REPLY: &str = "/rotogate-reply";

/// The decision of the gate, in the cache of the request: a permit counts for its caller until the reply is complete.
enum Judged {
    Permitted {
        caller: Option<Identity>,
        permit: Mutex<Box<PermittedRequest>>,
    },
    Refused(Mutex<Option<http::Response<Bytes>>>),
    Endpoint(Box<Parts>),
    /// There is no gate in front.
    Not,
}

/// The gate in front of all routes.
struct Gated(Gate);

#[rocket::async_trait]
impl Fairing for Gated {
    fn info(&self) -> Info {
        Info { name: "rotogate", kind: Kind::Ignite | Kind::Request | Kind::Response }
    }

    async fn on_ignite(&self, rocket: Rocket<Build>) -> fairing::Result {
        Ok(rocket.mount("/", [Route::new(Method::Post, REPLY, Reply(self.0.clone()))]))
    }

    async fn on_request(&self, request: &mut Request<'_>, _: &mut Data<'_>) {
        let judged = match head(request) {
            Some(head) => match self.0.judge(&head).await {
                Judgement::Permitted(permit) => {
                    apply(&permit, request);
                    Judged::Permitted { caller: permit.identity(), permit: Mutex::new(permit) }
                }
                Judgement::Refused(reply) => Judged::Refused(Mutex::new(Some(reply))),
                _ => Judged::Endpoint(Box::new(head)),
            },
            None => Judged::Refused(Mutex::default()),
        };
        if !matches!(judged, Judged::Permitted { .. }) {
            request.set_method(Method::Post);
            request.set_uri(Origin::parse(REPLY).unwrap_or(Origin::ROOT));
        }
        request.local_cache(|| judged);
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        if let Judged::Permitted { permit, .. } = request.local_cache(|| Judged::Not) {
            let permit = permit.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, value) in permit.reply_headers() {
                response.adjoin_raw_header(name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned());
            }
        }
    }
}

/// The head of a request as the gate judges it; `None` if it cannot be one.
fn head(request: &Request<'_>) -> Option<Parts> {
    let mut head = http::Request::new(()).into_parts().0;
    head.method = request.method().as_str().parse().ok()?;
    head.uri = request.uri().to_string().parse().ok()?;
    for header in request.headers().iter() {
        let name = http::HeaderName::from_bytes(header.name().as_str().as_bytes()).ok()?;
        head.headers.append(name, header.value().parse().ok()?);
    }
    if !head.headers.contains_key("host") {
        head.headers.insert("host", request.host()?.to_string().parse().ok()?);
    }
    if let Some(address) = request.remote() {
        head.extensions.insert(Peer::new(address.ip(), false));
    }
    Some(head)
}

/// Makes the request the one that the gate permitted.
fn apply(permit: &PermittedRequest, request: &mut Request<'_>) {
    if let Ok(uri) = Origin::parse_owned(permit.head().uri.to_string()) {
        request.set_uri(uri);
    }
    for name in permit.remove() {
        request.replace_header(Header::new(name.to_string(), ""));
    }
    for name in permit.set().keys() {
        let values = permit.set().get_all(name).iter();
        for (index, value) in values.enumerate() {
            let header = Header::new(name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned());
            if index == 0 { request.replace_header(header) } else { request.add_header(header) }
        }
    }
}

/// The route of what the gate does not permit.
#[derive(Clone)]
struct Reply(Gate);

#[rocket::async_trait]
impl Handler for Reply {
    async fn handle<'r>(&self, request: &'r Request<'_>, data: Data<'r>) -> route::Outcome<'r> {
        let reply = match request.local_cache(|| Judged::Not) {
            Judged::Refused(reply) => reply.lock().unwrap_or_else(PoisonError::into_inner).take(),
            // One of the gate's own endpoints, which reads the body.
            Judged::Endpoint(head) => {
                let Ok(body) = data.open(64.kibibytes()).into_bytes().await else {
                    return Outcome::Error(Status::BadRequest);
                };
                if !body.is_complete() {
                    return Outcome::Error(Status::PayloadTooLarge);
                }
                let body = Full::new(Bytes::from(body.into_inner()));
                let (head, body) = self.0.answer(http::Request::from_parts(*head.clone(), body)).await.into_parts();
                body.collect().await.ok().map(|body| http::Response::from_parts(head, body.to_bytes()))
            }
            // A client has requested the path of the fairing's own route.
            Judged::Permitted { .. } | Judged::Not => return Outcome::Error(Status::NotFound),
        };
        reply.map_or(Outcome::Error(Status::BadRequest), |reply| Outcome::Success(response(reply)))
    }
}

fn response<'r>(reply: http::Response<Bytes>) -> Response<'r> {
    let (head, body) = reply.into_parts();
    let mut response = Response::new();
    response.set_status(Status::new(head.status.as_u16()));
    // Rocket writes the length itself.
    for (name, value) in head.headers.iter().filter(|(name, _)| *name != "content-length") {
        response.adjoin_raw_header(name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    response.set_sized_body(body.len(), Cursor::new(body));
    response
}

/// The caller of a request, as a guard. A handler without it does not know its caller, but is behind the gate as well.
struct Caller(Identity);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Caller {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> request::Outcome<Self, ()> {
        match request.local_cache(|| Judged::Not) {
            Judged::Permitted { caller: Some(caller), .. } => Outcome::Success(Self(caller.clone())),
            _ => Outcome::Error((Status::InternalServerError, ())),
        }
    }
}

#[get("/me")]
fn me(caller: Caller) -> String {
    caller.0.subject().to_owned()
}

/// The headers of a request that tell who calls.
struct Seen(String);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Seen {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> request::Outcome<Self, ()> {
        // An empty one is a header that the gate removes.
        let header = |name| request.headers().get(name).find(|value| !value.is_empty());
        Outcome::Success(Self(format!("{:?} {:?}", header("x-auth-subject"), header("authorization"))))
    }
}

#[get("/seen")]
fn seen(seen: Seen) -> String {
    seen.0
}

/// Serves until the process ends.
pub async fn serve(gate: Gate, port: u16) -> Result<(), Box<dyn Error>> {
    let config = Config { port, ..Config::default() };
    rocket::custom(config).attach(Gated(gate)).mount("/", routes![me, seen]).launch().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::args().nth(1).ok_or("usage: on-rocket ISSUER")?;
    let gate = ResourceServer::discover(&issuer).audience("api").build().await?;
    serve(gate, 3000).await
}
