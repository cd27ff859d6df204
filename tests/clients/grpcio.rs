//! grpcio (Python), over TLS, to tonic's server: what it calls comes by the server's own reflection, as with grpcurl.

use std::path::Path;

use super::scene::{HOSTS, Scene, program};
use super::tonic;
use support::pki::Pki;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn grpcio_calls_what_tonic_describes() {
    let pki = Pki::new();
    let clear = tonic::start(None).await;
    let secure = tonic::start(Some(&pki.issue(&["127.0.0.1"]))).await;
    let mut more = String::new();
    for (host, urls) in [(HOSTS[1], format!("h2c://{clear}")), (HOSTS[2], format!("https://{secure}"))] {
        let ca = if urls.starts_with("https") { "ca = \"ca.pem\"\n" } else { "" };
        more += &format!(
            "[[upstreams]]\nname = \"{host}\"\nurls = [\"{urls}\"]\n{ca}\
             [[routes]]\nhosts = [\"{host}\"]\npath = \"/test.Echo/{{method}}\"\nupstream = \"{host}\"\n"
        );
        for version in ["v1", "v1alpha"] {
            more += &format!(
                "[[routes]]\nhosts = [\"{host}\"]\npath = \"/grpc.reflection.{version}.ServerReflection/{{method}}\"\n\
                 auth = \"none\"\nupstream = \"{host}\"\n"
            );
        }
    }
    let scene = Scene::new(&pki, &more);
    let token = scene.gate.login().await.access;
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let mut command = program("bash");
    command
        .arg(root.join("tests/interop/grpc/run.sh"))
        .arg("python")
        .arg(root.join("tests/clients/grpcio.py"))
        .env("CLIENTS_GATE", scene.address().to_string())
        .env("CLIENTS_HOSTS", HOSTS[1..].join(" "))
        .env("CLIENTS_CA", scene.place.path("ca.pem"))
        .env("CLIENTS_TOKEN", token);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.ends_with("all is well\n"), "{stdout}{stderr}");
}
