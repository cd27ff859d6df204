//! What traces cost a request that is not recorded (P47): the look at its trace, what the upstream is told of it, and what
//! its access line says of it. The same request with traces off is taken from it, within each round.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench measures, and may stop")]

mod support;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use rotogate::gate::Reason;
use rotogate_core::context::Context;
use rotogate_server::trace::{RequestFacts, RequestTrace, Tracer};
use support::{Case, Heads, interleave, measures};

/// P47, in nanoseconds.
const MOST: f64 = 150.0;
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const CONFIG: &str = "[server]\npublic_url = \"http://gate.test\"\n[issuer]\naudience = [\"api\"]\n";

/// All that a request does for its trace.
fn request(tracer: Option<&Arc<Tracer>>, mut request: Request<Full<Bytes>>, id: &HeaderValue, is_trusted: bool) {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let is_traced = request.headers().contains_key("traceparent");
    let facts = RequestFacts { is_trusted, is_traced, micros: 1, id, client: address, peer: address, scheme: "http" };
    let trace = RequestTrace::begin(tracer, &mut request, &facts);
    let mut line = [0; 256];
    let mut end = 0;
    trace.trace().log(|key, value| {
        for part in [key.as_bytes(), value] {
            line[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
    });
    black_box(line);
    let context = Context::new(id.clone(), address, trace.trace().clone());
    black_box(context);
    black_box(request);
    trace.end(&Method::GET, StatusCode::OK, Reason::PASSED, None);
}

fn main() {
    let rounds = if measures() { 41 } else { 1 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let tracer = |sample: &str| {
        let text = format!("{CONFIG}[tracing]\nendpoint = \"http://127.0.0.1:9\"\nsample = {sample}\n");
        let config = rotogate_config::parse(&text, Path::new("gateway.toml"), &()).unwrap();
        let _entered = runtime.enter();
        Tracer::start(&config, None).unwrap().unwrap()
    };
    let (unsampled, sampled) = (tracer("0"), tracer("1"));
    let id = HeaderValue::from_static("01890a5d-ac96-774b-bcce-b302099a8057");
    let case = |name: &str, tracer: Option<Arc<Tracer>>, given: Option<&'static str>, is_trusted: bool| {
        let (mut heads, id) = (Heads::new(["token"]), id.clone());
        Case::new(name, move || {
            let mut head = heads.request();
            if let Some(given) = given {
                head.headers_mut().insert("traceparent", HeaderValue::from_static(given));
            }
            request(tracer.as_ref(), head, &id, is_trusted);
        })
    };
    let cases = vec![
        case("off", None, None, false),
        case("not recorded", Some(Arc::clone(&unsampled)), None, false),
        case("off, with a trace", None, Some(TRACEPARENT), false),
        case("not recorded, with a trace", Some(Arc::clone(&unsampled)), Some(TRACEPARENT), false),
        case("not recorded, as a trusted proxy says", Some(Arc::clone(&unsampled)), Some(TRACEPARENT), true),
        case("recorded", Some(sampled), None, false),
    ];
    let measured = interleave(cases, rounds);
    measured.print("One thread, the head of a request and its trace", "off");
    if !measures() {
        return;
    }
    println!();
    for (dear, cheap) in [
        ("not recorded", "off"),
        ("not recorded, with a trace", "off, with a trace"),
        ("not recorded, as a trusted proxy says", "off, with a trace"),
    ] {
        let more = measured.difference(dear, cheap);
        let verdict = if more <= MOST { "met" } else { "NOT met" };
        println!("P47: {dear}: {more:.0} ns more than {cheap}; {MOST:.0} at most: {verdict}");
    }
}
