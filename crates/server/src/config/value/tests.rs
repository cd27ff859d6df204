use super::*;

fn s(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[test]
fn sizes_and_rates_are_read_with_their_units() {
    let size = size(1, 1 << 40);
    assert_eq!(size(&s("16KiB")), Ok(16_384));
    assert_eq!(size(&s("2 MiB")), Ok(2 << 20));
    assert_eq!(size(&Value::Integer(7)), Ok(7));
    for bad in ["16kb", "KiB", "-1", "1.5MiB", "99999999999999999999GiB", "0"] {
        assert!(size(&s(bad)).is_err(), "{bad}");
    }
    assert_eq!(rate(&s("10/1m")), Ok(Rate::new(10, Duration::from_secs(6))));
    for bad in ["0/1m", "10", "10/0s", "x/1m", "10/x", "10/1", "-1/1m"] {
        assert!(rate(&s(bad)).is_err(), "{bad}");
    }
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
