//! `rotogate keys`, beside a running gate.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use rotogate::token::Algorithm;
use rotogate_core::token::keyring::KeyMaterial;
use serde_json::Value;

use support::{CONFIG, Gate, Place, Tokens, key_file, until};

/// A new key in a file of mode 0600, made by OpenSSL if it is installed and knows the kind, or by the test.
fn new_key(place: &Place, name: &str, algorithm: Algorithm) -> String {
    let path = place.path(name);
    let arguments: &[&str] = match algorithm {
        Algorithm::EdDsa => &["-algorithm", "ed25519"],
        Algorithm::Es256 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        Algorithm::Es384 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512 => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        _ => &[],
    };
    let made = !arguments.is_empty()
        && Command::new("openssl").arg("genpkey").args(arguments).output().is_ok_and(|output| {
            fs::write(&path, &output.stdout).unwrap();
            output.status.success()
        });
    if !made {
        fs::write(&path, KeyMaterial::generate(algorithm).unwrap().expose()).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn header(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap()
}

async fn until_signed_with(gate: &Gate, kid: &str) {
    until("tokens are signed with the new key", async || header(&gate.login().await.access)["kid"] == kid).await;
}

#[tokio::test]
async fn j16_a_key_of_each_algorithm_is_imported_into_a_running_gate_and_old_tokens_still_verify() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let mut all = vec![gate.login().await];
    for algorithm in Algorithm::ALL {
        let file = new_key(&place, &format!("{algorithm}.pem"), algorithm);
        let name = algorithm.to_string();
        let imported = place.json(&["keys", "import", &file, "--algorithm", &name, "--sign"], "");
        assert_eq!(imported["state"], "signing");
        until_signed_with(&gate, imported["kid"].as_str().unwrap()).await;
        let tokens = gate.login().await;
        assert_eq!(header(&tokens.access)["alg"], name);
        all.push(tokens);
    }
    for tokens in &all {
        assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
        assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::OK);
    }
    let keys = place.json_lines(&["keys", "list"]);
    assert_eq!(keys.len(), 13);
    assert_eq!(keys.iter().filter(|key| key["state"] == "signing").count(), 1);
    assert_eq!(place.done(&["keys", "list"], "").stdout.lines().count(), 13);
    assert_eq!(gate.stop(), Some(0));
    let gate = place.start();
    for tokens in &all {
        assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
    }
}

/// Takes the key that signed a token out of the keyring.
fn take_out(place: &Place, access: &str) {
    let index = place.path("data/keys/keyring.toml");
    let mut keyring: toml::Table = fs::read_to_string(&index).unwrap().parse().unwrap();
    let gone = header(access)["kid"].clone();
    keyring["signing"].as_array_mut().unwrap().retain(|key| key["kid"].as_str() != gone.as_str());
    fs::write(&index, keyring.to_string()).unwrap();
}

#[tokio::test]
async fn j16_a_key_that_is_taken_out_of_the_keyring_ends_its_tokens() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let old = gate.login().await;
    let file = new_key(&place, "mine.pem", Algorithm::Es256);
    let imported = place.json(&["keys", "import", &file, "--algorithm", "ES256", "--sign"], "");
    until_signed_with(&gate, imported["kid"].as_str().unwrap()).await;
    let new = gate.login().await;
    assert_eq!(gate.get("/", &old.access).await.status, StatusCode::OK);

    take_out(&place, &old.access);
    gate.until_refused(&old.access).await;
    assert_eq!(gate.get("/", &new.access).await.status, StatusCode::OK);
    // The session continues: its refresh token was never signed by that key.
    let next = gate.refresh(&old.refresh).await.tokens();
    assert_eq!(gate.get("/", &next.access).await.status, StatusCode::OK);
}

#[tokio::test]
async fn j16_a_broken_file_of_another_issuer_does_not_keep_a_key_of_ours_in_force() {
    let issuer = "[[issuers]]\nurl = \"https://idp.test/\"\naudience = [\"x\"]\neverywhere = true\njwks_file = \"idp.pem\"\nalgorithm = \
                  \"EdDSA\"\n";
    let place = Place::new(&format!("{CONFIG}{issuer}"));
    let public = pem::Pem::new(
        "PUBLIC KEY",
        [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], &ED25519_BASE].concat(),
    );
    fs::write(place.path("idp.pem"), pem::encode(&public)).unwrap();
    let gate = place.start();
    let old = gate.login().await;
    let file = new_key(&place, "mine.pem", Algorithm::EdDsa);
    let imported = place.json(&["keys", "import", &file, "--algorithm", "EdDSA", "--sign"], "");
    until_signed_with(&gate, imported["kid"].as_str().unwrap()).await;
    fs::write(place.path("idp.pem"), "nothing").unwrap();
    until("the log says so", async || gate.log().contains("the old ones stay in force")).await;
    take_out(&place, &old.access);
    gate.until_refused(&old.access).await;
}

/// A point of the curve: its base point (RFC 8032 §5.1).
const ED25519_BASE: [u8; 32] = {
    let mut point = [0x66; 32];
    point[0] = 0x58;
    point
};

#[tokio::test]
async fn a_keyring_whose_mode_is_mended_is_taken_up() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let old = gate.login().await;
    let file = new_key(&place, "mine.pem", Algorithm::EdDsa);
    let imported = place.json(&["keys", "import", &file, "--algorithm", "EdDSA", "--sign"], "");
    until_signed_with(&gate, imported["kid"].as_str().unwrap()).await;
    let index = place.path("data/keys/keyring.toml");
    fs::set_permissions(&index, fs::Permissions::from_mode(0o644)).unwrap();
    take_out(&place, &old.access);
    until("the log says so", async || gate.log().contains(&format!("chmod 600 {}", index.display()))).await;
    assert_eq!(gate.get("/", &old.access).await.status, StatusCode::OK);
    fs::set_permissions(&index, fs::Permissions::from_mode(0o600)).unwrap();
    gate.until_refused(&old.access).await;
}

#[tokio::test]
async fn a_broken_keyring_is_kept_out_loudly_while_the_gate_serves() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let tokens = gate.login().await;
    fs::write(place.path("data/keys/keyring.toml"), "version = 1\n").unwrap();
    until("the log says so", async || gate.log().contains("the old ones stay in force")).await;
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
    assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::OK);
}

#[test]
fn what_is_no_key_for_the_algorithm_is_refused() {
    let place = Place::new(CONFIG);
    assert!(place.fails(&["keys", "list"], "").contains("data/keys"), "no keyring yet");
    drop(place.start());
    let listed = || {
        let mut keys = place.json_lines(&["keys", "list"]);
        for key in &mut keys {
            // It grows while the test runs.
            assert!(key.as_object_mut().unwrap().remove("age").is_some());
        }
        keys
    };
    let before = listed();
    let file = new_key(&place, "ed.pem", Algorithm::EdDsa);
    assert!(place.fails(&["keys", "import", &file, "--algorithm", "ES256"], "").contains(&file));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let said = place.fails(&["keys", "import", &file, "--algorithm", "EdDSA"], "");
    assert!(said.contains(&format!("chmod 600 {file}")), "{said}");
    let ran = place.run(&["keys", "import", &file, "--algorithm", "none"], "");
    assert!(ran.code == Some(2) && ran.stderr.contains("accepted are EdDSA"), "{ran:?}");
    assert_eq!(listed(), before);
}

#[tokio::test]
async fn p17_a_rotation_under_load_refuses_nothing_and_signs_after_the_key_was_published() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let first = gate.login().await;
    let old = header(&first.access)["kid"].as_str().unwrap().to_owned();
    let ran = place.run(&["keys", "rotate", "--after", "4m"], "");
    assert!(ran.code == Some(2) && ran.stderr.contains("at least 5m"), "{ran:?}");
    assert_eq!(place.json_lines(&["keys", "list"]).len(), 1);

    let mut rotation = place.command().args(["keys", "rotate"]).stdout(Stdio::piped()).spawn().unwrap();
    let published = async || gate.call(Method::GET, "/.well-known/jwks.json", &[], "").await.json();
    until("the new key is published", async || published().await["keys"].as_array().unwrap().len() == 2).await;
    let listed = place.json_lines(&["keys", "list"]);
    let new = listed.iter().find(|key| key["state"] == "verifying").unwrap()["kid"].as_str().unwrap().to_owned();
    let mut held = vec![first];
    let pass = async |held: &[Tokens]| {
        for tokens in held {
            assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
        }
    };
    for _ in 0..5 {
        let tokens = gate.login().await;
        assert_eq!(header(&tokens.access)["kid"], old.as_str(), "it was published a moment ago");
        held.push(tokens);
    }
    pass(&held).await;
    assert!(rotation.try_wait().unwrap().is_none(), "it waits");
    // The time of the file is the time of the publication. Now that is long ago.
    // A file's name does not begin with a hyphen.
    let name = key_file(&new);
    let file = fs::File::options().append(true).open(place.path("data/keys").join(name)).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    until("tokens are signed with the new key", async || {
        let tokens = gate.login().await;
        let is_new = header(&tokens.access)["kid"] == new.as_str();
        held.push(tokens);
        pass(&held[held.len() - 2..]).await;
        is_new
    })
    .await;
    let done = rotation.wait_with_output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && said.contains(&format!("{new} is now used for new tokens")), "{said}");
    pass(&held).await;
    for tokens in &held {
        assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::OK);
    }
    let said = place.fails(&["keys", "retire", &old], "");
    assert!(said.contains("access tokens that it signed may be in use"), "{said}");
    pass(&held[..1]).await;

    // A secret of refresh tokens is not published, so it changes at once.
    let rotated = place.done(&["keys", "rotate", "--refresh"], "").stdout;
    assert!(rotated.contains("refresh-2 is now used for new tokens"), "{rotated}");
    let said = place.fails(&["keys", "retire", "refresh-1"], "");
    assert!(said.contains("is still needed"), "{said}");
}

#[test]
fn c28_mistakes_about_keys_are_refused_with_the_remedy_and_change_nothing() {
    let place = Place::new(CONFIG);
    for command in
        [&["keys", "list"][..], &["keys", "add"], &["keys", "promote", "x"], &["keys", "retire", "x", "--force"]]
    {
        let said = place.fails(command, "");
        assert!(said.contains("no `keyring.toml`") && said.contains("rotogate keys init"), "{said}");
    }
    let old = place.json(&["keys", "init"], "")["kid"].as_str().unwrap().to_owned();
    let index = || fs::read_to_string(place.path("data/keys/keyring.toml")).unwrap();
    let before = index();
    let said = place.fails(&["keys", "init"], "");
    assert!(said.contains("the folder has a key ring already"), "{said}");
    for name in ["nosuch", "-nosuch", "refresh-x"] {
        for more in [&[][..], &["--force"]] {
            for command in ["promote", "retire"] {
                let said = place.fails(&[&["keys", command, name], more].concat(), "");
                assert!(said.contains(&format!("there is no key {name}; see rotogate keys list\n")), "{said}");
                let said = place.fails(&[&["keys", command], more, &["refresh-7"]].concat(), "");
                assert!(said.contains("there is no key refresh-7; see rotogate keys list --refresh"), "{said}");
            }
        }
    }
    for name in [&old, "refresh-1"] {
        for more in [&[][..], &["--force"]] {
            let said = place.fails(&[&["keys", "retire", name], more].concat(), "");
            assert!(said.contains(&format!("{name} is in use here")) && said.contains("keys promote"), "{said}");
        }
        place.done(&["keys", "promote", name], "");
    }
    assert_eq!(index(), before);
    let next = place.json(&["keys", "add"], "")["kid"].as_str().unwrap().to_owned();
    assert!(place.fails(&["keys", "promote", &next], "").contains("published before"));
    place.done(&["keys", "promote", &next, "--force"], "");
    assert!(place.fails(&["keys", "retire", &old], "").contains("may be in use"));
    place.done(&["keys", "retire", &old, "--force"], "");
    assert!(!index().contains(&old) && !place.path("data/keys").join(key_file(&old)).exists());
}
