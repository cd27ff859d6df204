//! The settings of `[tracing]` and the variables of OpenTelemetry, at a start and at a reload.

use std::fs;

use serde_json::{Value, json};

use super::collector::Collector;
use super::{configuration, lines, stopped};
use support::pki::{Pki, write_private};
use support::stub::{Edge, HEAD, ROUTES};
use support::{Place, keep_secret};

#[test]
fn p45_the_variables_of_opentelemetry_count_where_the_section_says_nothing() {
    const SECRET: &str = "otlp-secret-value";
    keep_secret(SECRET);
    for (protocol, named) in [("http", "http/protobuf"), ("grpc", "grpc")] {
        let collector = Collector::start("ok");
        let url = collector.url(protocol);
        let edge = Edge::with(
            &configuration("", ""),
            |_| {},
            |command| {
                command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &url).env("OTEL_EXPORTER_OTLP_PROTOCOL", named);
                command.env("OTEL_EXPORTER_OTLP_HEADERS", format!("x-tenant=a%20b,authorization=Basic {SECRET}"));
                command.env("OTEL_SERVICE_NAME", "from-the-variable").env("OTEL_EXPORTER_OTLP_TIMEOUT", "5000");
                command.env("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=gate-1,service.instance.id=gate-1");
            },
        );
        assert_eq!(edge.ask("GET /public/x", &[]).status, 200);
        let spans = stopped(edge, collector);
        assert_eq!(spans.len(), 2);
        for span in spans {
            let (headers, resource) = (&span["headers"], &span["resource"]);
            assert_eq!(
                (&headers["x-tenant"], &headers["authorization"]),
                (&json!("a b"), &json!(format!("Basic {SECRET}")))
            );
            assert_eq!(
                (&resource["service.name"], &resource["k8s.pod.name"]),
                (&json!("from-the-variable"), &json!("gate-1"))
            );
            assert_eq!(resource["service.instance.id"], "gate-1");
        }
    }
}

#[test]
fn p45_without_the_section_the_variables_turn_nothing_on() {
    let collector = Collector::start("ok");
    let url = collector.url("http");
    let edge = Edge::with(
        &format!("{HEAD}{ROUTES}"),
        |_| {},
        |command| {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
        },
    );
    assert_eq!(edge.ask("GET /public/x", &[]).status, 200);
    assert!(edge.stub.one().all("traceparent").is_empty());
    assert!(stopped(edge, collector).is_empty());
}

#[test]
fn p45_a_collector_is_reached_over_tls_with_headers_of_a_file() {
    const SECRET: &str = "collector-secret-value";
    keep_secret(SECRET);
    let (pki, other) = (Pki::new(), Pki::new());
    for protocol in ["http", "grpc"] {
        let folder = Place::new("");
        pki.issue(&["127.0.0.1"]).write(&folder, "collector");
        let pair = [folder.path("collector.pem"), folder.path("collector.key")];
        let collector = Collector::with_tls("ok", Some([&pair[0], &pair[1]]));
        let url = collector.url(protocol);
        let section = format!(
            "for_tests.protocol = \"{protocol}\"\nendpoint = \"{url}\"\nca = \"ca.pem\"\nheaders_file = \"headers\""
        );
        let start = |pki: &Pki| {
            let files = |place: &Place| {
                fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
                write_private(&place.path("headers"), &format!("authorization: Bearer {SECRET}\n"));
            };
            // The file overrides the variable for the same header.
            Edge::with(&configuration(&section, ""), files, |command| {
                command.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic other,x-tenant=a");
            })
        };
        let edge = start(&other);
        assert_eq!(edge.ask("GET /public/x", &[]).status, 200);
        while edge.series("rotogate_trace_dropped_spans_total{cause=\"not_sent\"}") < 2 {
            std::thread::yield_now();
        }
        let edge = {
            drop(edge);
            start(&pki)
        };
        assert_eq!(edge.ask("GET /public/y", &[]).status, 200);
        let spans = stopped(edge, collector);
        assert_eq!(spans.len(), 2, "only those of the second gate: {spans:#?}");
        let expected = (json!(format!("Bearer {SECRET}")), json!("a"));
        assert!(spans.iter().all(
            |span| (&span["headers"]["authorization"], &span["headers"]["x-tenant"]) == (&expected.0, &expected.1)
        ));
    }
}

/// Writes a configuration, reloads, and waits for the result.
fn reload(edge: &Edge, config: &str) -> Value {
    let of_reload =
        |line: &Value| line["event.action"].as_str().is_some_and(|action| action.starts_with("config.reload"));
    let before = lines(edge).iter().filter(|line| of_reload(line)).count();
    edge.place.write_config(&config.replace("@upstream@", &edge.stub.address.to_string()));
    edge.gate.signal("HUP");
    loop {
        let said: Vec<_> = lines(edge).into_iter().filter(of_reload).collect();
        if let Some(last) = said.get(before) {
            return last.clone();
        }
    }
}

#[test]
fn p5_p45_a_reload_turns_traces_on_and_off_and_reads_the_headers_anew() {
    let (first, second) = (Collector::start("ok"), Collector::start("ok"));
    let off = configuration("", "").replace("[tracing]\nfor_tests.flush_interval = \"100ms\"\n", "");
    let edge = Edge::with(&off, |place| write_private(&place.path("headers"), "x-tenant: one\n"), |_| {});
    let ask = |path: &str| {
        assert_eq!(edge.ask(&format!("GET {path}"), &[]).status, 200);
        edge.stub.one().all("traceparent").len()
    };
    assert_eq!(ask("/public/off"), 0);
    let on = |collector: &Collector| {
        configuration(&format!("endpoint = \"{}\"\nheaders_file = \"headers\"", collector.url("http")), "")
    };
    let line = reload(&edge, &on(&first));
    assert_eq!((&line["event.action"], &line["changed"]), (&json!("config.reload"), &json!("tracing")), "{line}");
    assert_eq!(ask("/public/one"), 1);
    // The same section, with a changed file.
    write_private(&edge.place.path("headers"), "x-tenant: twotwo\n");
    reload(&edge, &on(&first));
    assert_eq!(ask("/public/two"), 1);
    // A file that cannot be used changes nothing.
    write_private(&edge.place.path("headers"), "nonsense\n");
    let line = reload(&edge, &on(&second));
    assert_eq!(line["event.action"], "config.reload_refused", "{line}");
    assert_eq!(ask("/public/three"), 1);
    write_private(&edge.place.path("headers"), "x-tenant: four\n");
    reload(&edge, &on(&second));
    assert_eq!(ask("/public/four"), 1);
    reload(&edge, &off);
    assert_eq!(ask("/public/off"), 0);
    let Edge { gate, .. } = edge;
    assert_eq!(gate.stop(), Some(0));
    let told = |collector: Collector| -> Vec<[String; 2]> {
        let servers = collector.end().into_iter().filter(|span| span["kind"] == 2);
        servers
            .map(|span| {
                [&span["attributes"]["url.path"], &span["headers"]["x-tenant"]]
                    .map(|text| text.as_str().unwrap().to_owned())
            })
            .collect()
    };
    assert_eq!(told(first), [["/public/one", "one"], ["/public/two", "twotwo"], ["/public/three", "twotwo"]]);
    assert_eq!(told(second), [["/public/four", "four"]]);
}

#[test]
fn p45_an_upgrade_in_place_loses_no_span() {
    let collector = Collector::start("ok");
    let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", support::server::free_port()));
    // Nothing is sent before it must be.
    let config = configuration(&format!("endpoint = \"{}\"", collector.url("http")), "").replace("100ms", "60s");
    let config = addresses.iter().fold(config, |config, address| config.replacen("127.0.0.1:0", address, 1));
    let edge = Edge::with(&config, |_| {}, |_| {});
    assert_eq!(edge.ask("GET /public/before", &[]).status, 200);
    edge.gate.signal("USR2");
    while !edge.gate.log().contains("in-place upgrade started") {
        std::thread::yield_now();
    }
    // Waits in the queue of the socket for the successor.
    assert_eq!(edge.ask("GET /public/after", &[]).status, 200);
    let spans = stopped(edge, collector);
    let paths: Vec<_> = spans
        .iter()
        .filter(|span| span["kind"] == 2)
        .map(|span| span["attributes"]["url.path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["/public/before", "/public/after"]);
}

#[test]
fn p45_check_says_what_is_wrong_with_the_files() {
    let place = Place::new(
        &configuration("endpoint = \"http://localhost:4318\"\nheaders_file = \"headers\"\nca = \"ca.pem\"", "")
            .replace("@upstream@", "localhost:1"),
    );
    fs::write(place.path("headers"), "x: 1\n").unwrap();
    let refused = || {
        let ran = place.run(&["check"], "");
        assert_eq!(ran.code, Some(2), "{ran:?}");
        ran.stderr
    };
    let said = refused();
    assert!(said.contains("tracing.headers_file") && said.contains("chmod 600"), "{said}");
    fs::remove_file(place.path("headers")).unwrap();
    write_private(&place.path("headers"), "x: 1\n");
    fs::write(place.path("ca.pem"), "nothing\n").unwrap();
    let said = refused();
    assert!(said.contains("tracing.ca") && said.contains("holds no certificate"), "{said}");
    let pki = Pki::new();
    fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
    place.done(&["check"], "");
}
