//! Routes and endpoints that are bound to listeners.

use std::net::SocketAddr;

use support::{CONFIG, Place, raw};

const LISTENERS: &str = "[[server.listeners]]\naddress = \"127.0.0.1:0\"\nname = \"public\"\n\
                         [[server.listeners]]\naddress = \"127.0.0.1:0\"\nname = \"internal\"\n[admin]";

fn config(more: &str) -> String {
    let config = CONFIG.replace("listen = \"127.0.0.1:0\"\npublic_url", "public_url").replacen("[admin]", LISTENERS, 1);
    let endpoint = "dialect = \"oauth2\"\npath = \"/{account}/connect/token\"\n";
    config.replace(endpoint, &format!("{endpoint}listeners = [\"public\"]\n")) + more
}

fn status(address: SocketAddr, method: &str, path: &str) -> u16 {
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: gate.test\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    raw(address, request.as_bytes()).split(' ').nth(1).unwrap().parse().unwrap()
}

const ROUTES: &str = "[[routes]]\npath = \"/public/metrics\"\nauth = \"none\"\nupstream = \"app\"\nmethods = [\"PATCH\"]\n\
                      listeners = [\"public\"]\n\
                      [[routes]]\npath = \"/public/metrics\"\nauth = \"none\"\nupstream = \"app\"\nmethods = [\"GET\"]\n\
                      listeners = [\"internal\"]\n\
                      [[routes]]\npath = \"/both\"\nauth = \"none\"\nupstream = \"app\"\nlisteners = [\"internal\", \"public\"]\n";

#[test]
fn a_route_and_an_endpoint_serve_only_the_listeners_that_they_name() {
    let place = Place::new(&config(ROUTES));
    let gate = place.start();
    let [public, internal] = [gate.addresses[0], gate.addresses[1]];
    for (address, method, path, expected) in [
        (public, "GET", "/public/x", 200),
        (internal, "GET", "/public/x", 200),
        (public, "GET", "/both", 200),
        (internal, "GET", "/both", 200),
        (internal, "GET", "/public/metrics", 200),
        // The wider route of all listeners does not take its place.
        (internal, "DELETE", "/public/metrics", 405),
        (public, "GET", "/public/metrics", 404),
        (public, "DELETE", "/public/metrics", 405),
        (public, "GET", "/public/metrics/more", 200),
        // An endpoint answers 404, and the route of all paths, which would be 401, does not get its requests.
        (public, "POST", "/acme/connect/token", 400),
        (internal, "POST", "/acme/connect/token", 404),
        (internal, "POST", "/acme/connect/revocation", 404),
        (internal, "GET", "/.well-known/jwks.json", 200),
    ] {
        assert_eq!(status(address, method, path), expected, "{method} {path}");
    }
    // `Allow` does not reveal routes of another listener.
    for (address, allowed) in [(public, "PATCH"), (internal, "GET, HEAD")] {
        let said = raw(address, b"DELETE /public/metrics HTTP/1.1\r\nhost: gate.test\r\nconnection: close\r\n\r\n");
        assert!(said.contains(&format!("\r\nallow: {allowed}\r\n")), "{said}");
    }
}

#[test]
fn a_name_that_no_listener_has_and_one_that_two_have_are_mistakes() {
    let place = Place::new(&config(&ROUTES.replacen("\"public\"", "\"publik\"", 1)));
    let said = place.run(&["check"], "").stderr;
    let expected = "routes[2].listeners[0]: there is no listener with the name \"publik\"; did you mean \"public\"?";
    assert!(said.contains(expected), "{said}");
    place.write_config(&config("").replace("name = \"internal\"", "name = \"public\""));
    let said = place.run(&["check"], "").stderr;
    assert!(said.contains("server.listeners[1].name: \"public\" is already the name of the listener in"), "{said}");
    place.write_config(&config(&ROUTES.replacen("[\"public\"]", "[]", 1)));
    let said = place.run(&["check"], "").stderr;
    assert!(said.contains("routes[2].listeners: is empty, so no listener would serve this entry"), "{said}");
}
