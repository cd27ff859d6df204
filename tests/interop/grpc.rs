//! Real gRPC clients against the real binary: `grpcio` (Python), with nothing but server reflection, and `@grpc/grpc-js`
//! (Node). `tests/interop/grpc/run.sh` installs them, pinned, into `target/interop-cache`. User, password and profile are
//! new in each run.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use serde_json::json;
use support::{CONFIG, Place, keep_secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn grpcio_works_unchanged() {
    works("python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_js_works_unchanged() {
    works("node").await;
}

/// The suite can fail: with a fault planted in the rules of the gate, the client reports the fault and its place.
#[tokio::test(flavor = "multi_thread")]
async fn grpcio_sees_a_reuse_that_is_ignored_and_a_replay_that_is_refused() {
    sees_faults("python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_js_sees_a_reuse_that_is_ignored_and_a_replay_that_is_refused() {
    sees_faults("node").await;
}

async fn works(client: &str) {
    let output = drive(client, "").await;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // A replayed success of another run would name another user.
    assert!(output.status.success() && stdout.ends_with("all is well\n"), "{client}: {stdout}{stderr}");
}

async fn sees_faults(client: &str) {
    for (fault, seen) in [
        ("profile = { on_reuse = \"deny\" }\n", "a refresh token that comes back late\n"),
        ("profile = { grace = \"0s\", lost_response_window = \"0s\" }\n", "a reply that is lost\n"),
        ("profile = { access_ttl = \"20m\" }\n", "login\n"),
    ] {
        let output = drive(client, fault).await;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success() && stdout.ends_with(seen), "{client} with {fault}: {stdout}{stderr}");
    }
}

/// Runs a client against a gate whose endpoint has these further settings.
async fn drive(client: &str, more: &str) -> Output {
    let upstream = crate::grpc::upstream::start().await;
    let config = format!(
        "{CONFIG}\n[[clients]]\nid = \"knox\"\n[[endpoints]]\ndialect = \"knox\"\n{more}\
         [[upstreams]]\nname = \"rpc\"\nurls = [\"h2c://{upstream}\"]\n\
         [[routes]]\npath = \"/test.Echo/{{method}}\"\nupstream = \"rpc\"\n"
    );
    let place = Place::new(&config);
    drop(place.start());
    let id = Uuid::new_v4().simple().to_string();
    let (email, subject, password) = (format!("{id}@example.com"), format!("u-{id}"), format!("pw-{}", Uuid::new_v4()));
    keep_secret(&password);
    let ran = place.run(&["user", "add", &email, "--subject", &subject, "--scopes", "read"], &password);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let users = place.path("data/users.toml");
    let more = format!(
        "[users.profile]\nfirst_name = \"Ada\"\nlast_name = \"{id}\"\nemail = \"{email}\"\nrole = \"admin\"\n\
         avatar = \"https://img.example/{id}\"\nphone = \"+1 555 555 5555\"\ndids = [\"did:a:{id}\", \"did:b:2\"]\n\
         external_ids = {{ crm = \"{id}\" }}\nmetadata = {{ level = 3.5 }}\n"
    );
    fs::write(&users, fs::read_to_string(&users).unwrap() + &more).unwrap();
    let profile = json!({
        "uuid": subject, "first_name": "Ada", "last_name": id, "email": email, "role": "ROLE_ADMIN",
        "avatar": format!("https://img.example/{id}"), "phone": "+1 555 555 5555",
        "dids": [format!("did:a:{id}"), "did:b:2"], "external_ids": {"crm": id}, "metadata": {"level": 3.5},
    });
    let gate = place.start();
    let cutting = cutting(gate.address).await;
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/interop/grpc/run.sh");
    Command::new("bash")
        .arg(script)
        .arg(client)
        .env("INTEROP_GATE", gate.address.to_string())
        .env("INTEROP_CUTTING", cutting.to_string())
        .env("INTEROP_EMAIL", email)
        .env("INTEROP_PASSWORD", password)
        .env("INTEROP_PROFILE", profile.to_string())
        .env("no_proxy", "127.0.0.1")
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .await
        .unwrap()
}

/// A proxy to the gate that breaks off when the gate has answered a call: the client does not even get the head.
async fn cutting(gate: SocketAddr) -> SocketAddr {
    const HEADERS: u8 = 1;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut from_gate, mut to_gate) = TcpStream::connect(gate).await.unwrap().into_split();
                let (mut from_client, mut to_client) = client.into_split();
                let there = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_gate).await });
                // Frame by frame (RFC 9113 §4.1).
                let mut head = [0; 9];
                while from_gate.read_exact(&mut head).await.is_ok() && head[3] != HEADERS {
                    let mut payload = vec![0; usize::from(head[1]) * 256 + usize::from(head[2])];
                    if from_gate.read_exact(&mut payload).await.is_err() {
                        break;
                    }
                    if to_client.write_all(&[&head[..], &payload].concat()).await.is_err() {
                        break;
                    }
                }
                there.abort();
            });
        }
    });
    address
}
