use super::*;

fn s(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[test]
fn o1_an_upstream_is_written_so_that_it_can_be_compared() {
    for (text, name, port) in
        [("http://App:81", "App", 81), ("http://[::1]:81", "::1", 81), ("http://10.0.0.1", "10.0.0.1", 80)]
    {
        let Ok(UpstreamUrl::Http(url)) = upstream_url(&s(text)) else { panic!("{text}") };
        assert_eq!((url.name(), url.port()), (name, port));
        let h2c = text.replace("http://", "h2c://");
        let Ok(UpstreamUrl::H2c(url)) = upstream_url(&s(&h2c)) else { panic!("{h2c}") };
        assert_eq!((url.name(), url.port()), (name, port));
        let https = text.replace("http://", "https://");
        let Ok(UpstreamUrl::Https(url)) = upstream_url(&s(&https)) else { panic!("{https}") };
        assert_eq!((url.name(), url.port()), (name, if port == 80 { 443 } else { port }));
    }
    for bad in [
        "http://127.1:8081",
        "http://2130706433:8081",
        "http://0x7f000001",
        "http://127.0.0.1.:1",
        "http://a/b",
        "http://a/",
        "http://u:p@a",
        "http://a:0",
        "http://a:99999",
        "http://a:",
        "ftp://a",
        "a:80",
        "",
        "http://",
        "http://a?x",
        "http://a#x",
        "https://127.1",
        "https://a/b",
        "https://u@a",
        "h2c://127.1:8081",
        "h2c://a/b",
        "h2c://u@a",
        "h2c://",
        "h2c:a",
        "h2c://http://a",
    ] {
        assert!(upstream_url(&s(bad)).is_err(), "{bad}");
    }
}

#[test]
fn t19_an_origin_is_written_as_a_browser_writes_it() {
    assert!(cors_origin(&s("https://app.example.com")).is_ok());
    assert!(cors_origin(&s("http://localhost:3000")).is_ok());
    for bad in ["*", "null", "https://app.example.com/", "https://App.example.com", "https://a:443", "a", ""] {
        assert!(cors_origin(&s(bad)).is_err(), "{bad}");
    }
}

#[test]
fn t6_trusting_every_proxy_is_refused() {
    assert_eq!(network(&s("10.0.0.7")).unwrap().to_string(), "10.0.0.7/32");
    assert_eq!(network(&s("10.1.2.3/8")).unwrap().to_string(), "10.0.0.0/8");
    for bad in ["0.0.0.0/0", "::/0", "10.0.0.0/33", "proxy"] {
        assert!(network(&s(bad)).is_err(), "{bad}");
    }
}

#[test]
fn t4_an_identity_header_is_one_that_the_gate_may_set() {
    assert!(header("x-auth-subject").is_ok());
    for bad in ["x_auth_subject", "Host", "connection", "x-forwarded-for", "content-length", "a b", ""] {
        assert!(header(bad).is_err(), "{bad}");
    }
}
