//! nghttp: many requests at once over one HTTP/2 connection, and trailers.

use std::fs;

use super::nginx::{Nginx, WAYS};
use super::scene::{Scene, missing, program};
use support::pki::Pki;
use support::stub::Stub;

/// nghttp's output about the frames that it sent and received.
fn nghttp(scene: &Scene, path: &str, arguments: &[&str]) -> String {
    let mut command = program("nghttp");
    command.args(["--verbose", "--null-out", "--timeout=60", "--header=:authority: gate.test"]).args(arguments);
    let output = command.arg(format!("https://{}{path}", scene.address())).output();
    let output = output.unwrap_or_else(|error| missing("nghttp", "nghttp2-client", &error));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{path}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// In how many streams a header was received.
fn received(said: &str, header: &str) -> usize {
    said.lines().filter(|line| line.contains(" recv (stream_id=") && line.ends_with(header)).count()
}

#[test]
fn nghttp_asks_nginx_for_many_things_at_once() {
    let pki = Pki::new();
    let nginx = Nginx::start(&pki);
    nginx.put("some.bin", &[7; 300_000]);
    let scene = Scene::new(&pki, &nginx.routes());
    for way in WAYS {
        let said =
            nghttp(&scene, &format!("/{way}/some.bin"), &["--multiply=50", "--header=accept-encoding: identity"]);
        assert_eq!((received(&said, ":status: 200"), received(&said, "content-length: 300000")), (50, 50), "{said}");
        let data = said.lines().filter_map(|line| line.split_once("recv DATA frame <length="));
        let total: u64 = data.map(|(_, rest)| rest.split(',').next().unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(total, 50 * 300_000, "{way}");
    }
}

#[test]
fn nghttp_sends_and_gets_trailers() {
    let stub = Stub::start();
    let routes = format!(
        "[[upstreams]]\nname = \"stub\"\nurls = [\"http://{}\"]\n\
         [[routes]]\npath = \"/stub/{{*rest}}\"\nauth = \"none\"\nupstream = \"stub\"\n",
        stub.address
    );
    let scene = Scene::new(&Pki::new(), &routes);
    fs::write(scene.place.path("some.txt"), "some data").unwrap();
    let data = format!("--data={}", scene.place.path("some.txt").display());
    let said = nghttp(&scene, "/stub/trailers", &[&data, "--no-content-length", "--trailer=x-sum: 7"]);
    assert_eq!((received(&said, ":status: 200"), received(&said, "x-checksum: abc")), (1, 1), "{said}");
    let got = stub.one();
    assert_eq!((got.method.as_str(), got.body.as_slice()), ("POST", b"some data".as_slice()));
    let [(name, value)] = got.trailers.as_slice() else { panic!("{got:?}") };
    assert_eq!((name.to_ascii_lowercase().as_str(), value.as_str()), ("x-sum", "7"));
}
