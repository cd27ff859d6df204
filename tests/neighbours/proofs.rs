//! Bound tokens behind a neighbour: the URL of a proof is the client's URL, which the gate makes from the facts.

use serde_json::json;
use support::stub::{HEAD, ROUTES};
use support::wire::Wire;

use super::attacks::{Must, Row, asked};
use super::scene::Scene;
use crate::dpop::Holder;

const CLIENT: &str = "[[clients]]\nid = \"bound\"\ndpop = \"required\"\n";

#[test]
fn n39_n31_the_url_of_a_proof_is_that_of_the_facts() {
    for neighbour in ["nginx", "traefik", "caddy", "haproxy", "envoy"] {
        let keys = format!("kind = \"{neighbour}\"\ntrusted_proxies = [\"127.0.0.1/32\"]");
        let scene = Scene::on(&format!("{HEAD}{CLIENT}"), &keys, ROUTES);
        let holder = Holder::new(1);
        let fields = [
            ("grant_type", "password"),
            ("client_id", "bound"),
            ("username", "demo"),
            ("password", &*scene.gate.password),
        ];
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let mut wire = Wire::open(scene.gate.address);
        let login = holder.proof("POST", "http://gate.test/connect/token", None, &json!({}));
        let lines = ["Host: gate.test", "Content-Type: application/x-www-form-urlencoded", &login].join("\r\n");
        wire.send(format!("POST /connect/token HTTP/1.1\r\n{lines}\r\nContent-Length: {}\r\n\r\n{form}", form.len()));
        let reply = wire.reply();
        assert_eq!(reply.status, 200, "{reply:?}");
        let tokens = reply.json();
        let access = tokens["access_token"].as_str().unwrap();
        for secret in ["access_token", "refresh_token"] {
            support::keep_secret(tokens[secret].as_str().unwrap());
        }
        let row = Row { id: "", host: "gate.test", target: "/private/a?b=c", headers: &[], must: Must::Own };
        let verdict = |scheme: &str, method: &str, url: &str| {
            let proof = holder.proof(method, url, Some(access), &json!({}));
            asked(&scene, neighbour, &row, Some(&format!("Authorization: {scheme} {access}\r\n{proof}")))
        };
        let good = verdict("DPoP", "GET", "http://gate.test/private/a");
        assert_eq!(good.status, 200, "{neighbour}: {good:?}");
        assert!(!good.header("x-auth-subject").is_empty());
        for (scheme, method, url) in [
            ("DPoP", "GET", "http://gate/"),
            ("DPoP", "GET", "http://gate.test/public/a"),
            ("DPoP", "POST", "http://gate.test/private/a"),
            ("Bearer", "GET", "http://gate.test/private/a"),
        ] {
            assert_eq!(verdict(scheme, method, url).status, 401, "{neighbour}: {scheme} {method} {url}");
        }
    }
}
