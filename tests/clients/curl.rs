//! curl, over both versions of HTTP, to nginx.

use std::fs;
use std::path::Path;

use super::nginx::{Nginx, WAYS};
use super::scene::{Scene, missing, program};
use support::pki::Pki;

const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

/// The answers that curl got: the last head, and all interim heads before it.
struct Got {
    heads: Vec<String>,
    body: Vec<u8>,
}

impl Got {
    fn is(&self, status: u16) -> bool {
        self.heads.last().unwrap().lines().next().unwrap().split(' ').nth(1) == Some(&status.to_string())
    }

    fn header(&self, name: &str) -> &str {
        let lines = self.heads.last().unwrap().lines().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let value = values.next().unwrap_or_default();
        assert_eq!(values.next(), None, "{name} stands twice: {:?}", self.heads);
        value
    }
}

fn curl(scene: &Scene, path: &str, arguments: &[&str]) -> Got {
    let (heads, body) = (scene.place.path("heads"), scene.place.path("body"));
    let _ = fs::remove_file(&body);
    let mut command = program("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--cacert"]).arg(scene.place.path("ca.pem"));
    command.args(["--connect-to", &format!("gate.test:443:{}", scene.address())]);
    command.arg("--dump-header").arg(&heads).arg("--output").arg(&body).args(arguments);
    let output = command.arg(format!("https://gate.test{path}")).output();
    let output = output.unwrap_or_else(|error| missing("curl", "curl", &error));
    assert!(output.status.success(), "{path} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let heads = fs::read_to_string(heads).unwrap();
    let heads = heads.split_terminator("\r\n\r\n").map(str::to_owned).collect();
    Got { heads, body: fs::read(body).unwrap_or_default() }
}

/// Bytes without a repeated part.
fn bytes(length: u32) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn curl_downloads_from_nginx() {
    let pki = Pki::new();
    let nginx = Nginx::start(&pki);
    let (large, text) = (bytes(3_000_001), "words and words\n".repeat(20_000));
    nginx.put("large.bin", &large);
    nginx.put("text.txt", text.as_bytes());
    let scene = Scene::new(&pki, &nginx.routes());
    for version in VERSIONS {
        for way in WAYS {
            let what = format!("{version} {way}");
            let get = |file: &str, arguments: &[&str]| {
                let got = curl(&scene, &format!("/{way}/{file}"), &[&[version], arguments].concat());
                let spoken = if version == "--http2" { "HTTP/2 " } else { "HTTP/1.1 " };
                assert!(got.heads.last().unwrap().starts_with(spoken), "{what}: {:?}", got.heads);
                let upstream = if way == "http2" { "HTTP/2.0" } else { "HTTP/1.1" };
                // nginx says it twice with a 416.
                assert!(got.is(416) || got.header("x-protocol") == upstream, "{what}");
                got
            };
            let whole = get("large.bin", &[]);
            assert!(whole.is(200) && whole.body == large, "{what}");
            assert_eq!(whole.header("content-length"), large.len().to_string(), "{what}");

            let head = get("large.bin", &["--head"]);
            assert!(head.is(200) && head.body == fs::read(scene.place.path("heads")).unwrap(), "{what}");
            assert_eq!(head.header("content-length"), large.len().to_string(), "{what}");

            let part = get("large.bin", &["--range", "1000000-1999999"]);
            assert!(part.is(206) && part.body == large[1_000_000..2_000_000], "{what}");
            assert_eq!(part.header("content-range"), "bytes 1000000-1999999/3000001", "{what}");
            let two = get("large.bin", &["--range", "0-9,100-109"]);
            assert!(two.is(206) && two.header("content-type").starts_with("multipart/byteranges"), "{what}");
            assert!(get("large.bin", &["--range", "9999999-"]).is(416), "{what}");

            // nginx does not know its length, and sends it in chunks.
            let packed = get("text.txt", &["--compressed"]);
            assert!(packed.is(200) && packed.body == text.as_bytes(), "{what}");
            assert_eq!((packed.header("content-encoding"), packed.header("content-length")), ("gzip", ""), "{what}");

            let known = format!("If-None-Match: {}", whole.header("etag"));
            let same = get("large.bin", &["--header", &known]);
            assert!(same.is(304) && same.body.is_empty(), "{what}");
            assert!(get("nothing", &[]).is(404), "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_uploads_to_nginx() {
    let pki = Pki::new();
    let nginx = Nginx::start(&pki);
    let scene = Scene::new(&pki, &nginx.routes());
    let bearer = format!("Authorization: Bearer {}", scene.gate.login().await.access);
    // Not among the arguments, which every user of the machine can read.
    fs::write(scene.place.path("bearer"), &bearer).unwrap();
    let bearer = format!("@{}", scene.place.path("bearer").display());
    for (name, length) in [("empty", 0), ("small", 1000), ("large", 3_000_001)] {
        fs::write(scene.place.path(name), bytes(length)).unwrap();
    }
    let path = |name: &str| scene.place.path(name).display().to_string();
    for version in VERSIONS {
        for way in WAYS {
            for (name, more) in [
                ("empty", &["--header", "Expect:"][..]),
                ("small", &["--header", "Expect:"]),
                ("small", &["--header", "Expect: 100-continue"]),
                ("large", &["--header", "Expect:"]),
                ("large", &["--header", "Expect: 100-continue"]),
                ("large", &["--header", "Expect:", "--header", "Transfer-Encoding: chunked"]),
            ] {
                let what = format!("{version} {way} {name} {more:?}");
                let to = format!("/{way}/up/{name}");
                let kept = nginx.kept(name);
                let _ = fs::remove_file(&kept);
                let file = path(name);
                let upload = [&[version, "--upload-file", &file][..], more].concat();
                assert!(curl(&scene, &to, &upload).is(401), "{what}");
                assert!(!kept.exists(), "{what}");
                let got = curl(&scene, &to, &[upload.as_slice(), &["--header", &bearer]].concat());
                assert!(got.is(201), "{what}: {:?}", got.heads);
                // Over HTTP/2 the library has no way to say it; curl waits for a second, and sends.
                let is_told = version == "--http1.1" && more.contains(&"Expect: 100-continue");
                let interim: &[&str] = if is_told { &["100"] } else { &[] };
                let heads = got.heads.iter().map(|head| head.split(' ').nth(1).unwrap());
                assert_eq!(heads.collect::<Vec<_>>(), [interim, &["201"]].concat(), "{what}: {:?}", got.heads);
                assert!(same(&kept, &scene.place.path(name)), "{what}");
            }
        }
    }
}

fn same(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}
