use ipnet::IpNet;
use proptest::prelude::*;

use super::encoded::{IdentityText, identity_values};
use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn names(map: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

fn all(map: &HeaderMap, name: &str) -> Vec<String> {
    map.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
}

fn strip(pairs: &[(&str, &str)], policy: &RoutePolicy) -> HeaderMap {
    let mut map = headers(pairs);
    ProtectedNames::new(["x-tenant", "Org_Unit.Name"]).strip_untrusted(&mut map, policy);
    map
}

#[test]
fn t3_identity_headers_of_a_client_go_in_every_spelling() {
    for policy in [
        RoutePolicy::default(),
        RoutePolicy { keep_underscore_headers: true, keep_override_headers: true, ..RoutePolicy::default() },
    ] {
        for name in [
            "x-auth-subject",
            "X-AUTH-Subject",
            "x_auth_subject",
            "x-auth_subject",
            "x.auth.subject",
            "x~auth-subject",
            "X-Auth-Anything",
            "x-user-id",
            "x_user",
            "x-remote-user",
            "remote-user",
            "Remote_User",
            "remote-groups",
            "x-forwarded-user",
            "x-forwarded_email",
            "x-forwarded-groups",
            "x-forwarded-preferred-username",
            "x-webauth-user",
            "x-tenant",
            "x_tenant",
            "X.Tenant",
            "org-unit-name",
            "org_unit_name",
        ] {
            let left = strip(&[(name, "admin"), (name, "root"), ("accept", "*/*")], &policy);
            assert_eq!(names(&left), ["accept"], "{name}");
        }
    }
}

#[test]
fn t17_binary_metadata_that_would_tell_who_is_asking_go_as_well() {
    for name in [
        "x-auth-subject-bin",
        "x-tenant-bin",
        "x_tenant-bin",
        "x-forwarded-user-bin",
        "authorization-bin",
        "x-user-bin",
    ] {
        let left = strip(&[(name, "AAH/"), ("x-trace-bin", "AAH/")], &RoutePolicy::default());
        assert_eq!(names(&left), ["x-trace-bin"], "{name}");
    }
}

#[test]
fn t3_ordinary_headers_pass_untouched() {
    let pairs = [
        ("host", "a"),
        ("accept", "*/*"),
        ("user-agent", "x"),
        ("x-request-id", "1"),
        ("x-authority", "1"),
        ("x-users", "1"),
        ("x-tenants", "1"),
        ("x-forwarded-for", "1.1.1.1"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("referer", "x"),
        ("range", "bytes=0-"),
        ("authorization", "Bearer a"),
    ];
    assert_eq!(strip(&pairs, &RoutePolicy::default()), headers(&pairs));
}

#[test]
fn t4_other_names_with_an_underscore_pass_only_where_a_route_keeps_them() {
    assert!(strip(&[("x_custom", "1")], &RoutePolicy::default()).is_empty());
    let keep = RoutePolicy { keep_underscore_headers: true, ..RoutePolicy::default() };
    assert_eq!(names(&strip(&[("x_custom", "1")], &keep)), ["x_custom"]);
    for name in [
        "content_length",
        "transfer_encoding",
        "x_forwarded_for",
        "x.forwarded.proto",
        "x_real_ip",
        "proxy",
        "proxy_authorization",
    ] {
        assert!(strip(&[(name, "1")], &keep).is_empty(), "{name}");
    }
}

#[test]
fn t6_overrides_of_method_and_url_pass_only_where_a_route_keeps_them() {
    let keep = RoutePolicy { keep_override_headers: true, ..RoutePolicy::default() };
    for name in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x-forwarded-uri",
    ] {
        assert!(strip(&[(name, "DELETE")], &RoutePolicy::default()).is_empty(), "{name}");
        assert_eq!(names(&strip(&[(name, "DELETE")], &keep)), [name]);
        let disguised = name.replace('-', "_");
        assert!(strip(&[(&disguised, "DELETE")], &keep).is_empty(), "{disguised}");
    }
}

#[test]
fn t5_connection_names_nothing_that_is_set_later() {
    let mut map = strip(
        &[
            ("connection", "close, X-Auth-Subject, x-hop"),
            ("connection", "authorization"),
            ("x-hop", "1"),
            ("authorization", "Bearer a"),
        ],
        &RoutePolicy::default(),
    );
    assert_eq!(all(&map, "connection"), ["close"]);
    assert_eq!(names(&map), ["authorization", "connection"]);
    map.insert("x-auth-subject", HeaderValue::from_static("alice"));
    remove_hop_by_hop(&mut map);
    assert_eq!(names(&map), ["authorization", "x-auth-subject"]);
}

#[test]
fn t5_a_connection_that_is_not_ascii_names_nothing_either() {
    let mut map = headers(&[("x-hop", "1")]);
    map.insert(CONNECTION, HeaderValue::from_bytes(b"close, x-auth-subject, \xff").unwrap());
    ProtectedNames::default().strip_untrusted(&mut map, &RoutePolicy::default());
    assert_eq!(names(&map), ["x-hop"]);
}

#[test]
fn t5_hop_by_hop_headers_go_and_essential_ones_stay_whatever_connection_says() {
    let essential = [
        "authorization",
        "host",
        "content-length",
        "content-type",
        "cookie",
        "x-auth-subject",
        "x-forwarded-for",
        "remote-user",
    ];
    let mut map = headers(&essential.map(|name| (name, "1")));
    for name in essential {
        map.append(CONNECTION, HeaderValue::from_static(name));
    }
    map.append(CONNECTION, HeaderValue::from_static("Keep-Alive, x-hop ,,transfer-encoding"));
    for name in [
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "upgrade",
        "transfer-encoding",
        "te",
        "expect",
    ] {
        map.append(name, HeaderValue::from_static("1"));
    }
    remove_hop_by_hop(&mut map);
    let mut expected = essential.to_vec();
    expected.sort_unstable();
    assert_eq!(names(&map), expected);
}

#[test]
fn t5_a_usual_connection_does_not_hide_the_others() {
    for lines in [&["keep-alive"][..], &["close"], &["Keep-Alive"], &["keep-alive", "x-hop"], &["close, x-hop"]] {
        let mut map = headers(&[("x-hop", "1"), ("accept", "*/*")]);
        for line in lines {
            map.append(CONNECTION, HeaderValue::from_static(line));
        }
        remove_hop_by_hop(&mut map);
        let named = lines.iter().any(|line| line.contains("x-hop"));
        assert_eq!(names(&map), if named { &["accept"][..] } else { &["accept", "x-hop"] }, "{lines:?}");
    }
}

#[test]
fn t5_te_keeps_only_trailers() {
    for (te, kept) in [("trailers", true), ("gzip, Trailers", true), ("gzip", false), ("trailers;q=1", false)] {
        let mut map = headers(&[("te", te), ("connection", "te")]);
        remove_hop_by_hop(&mut map);
        assert_eq!(map.get("te").is_some_and(|v| v == "trailers"), kept, "{te}");
        assert_eq!(map.contains_key("te"), kept);
        assert_eq!(map.get("connection").is_some_and(|v| v == "te"), kept);
    }
}

#[test]
fn t14_the_token_stays_here_unless_the_route_forwards_it() {
    let pairs = [("authorization", "Bearer a"), ("proxy-authorization", "Basic b"), ("accept", "*/*")];
    let mut map = headers(&pairs);
    strip_credentials(&mut map, &RoutePolicy::default());
    assert_eq!(names(&map), ["accept"]);
    let mut map = headers(&pairs);
    strip_credentials(&mut map, &RoutePolicy { forward_token: true, ..RoutePolicy::default() });
    assert_eq!(names(&map), ["accept", "authorization"]);
}

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|net| net.parse().unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn t6_the_client_is_the_last_address_that_no_trusted_proxy_has() {
    let trusted = nets(&["10.0.0.0/8", "::1/128"]);
    let table = [
        ("1.2.3.4", &["9.9.9.9"][..], "1.2.3.4"),
        ("10.0.0.1", &["9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", &["6.6.6.6, 9.9.9.9, 10.0.0.2"], "9.9.9.9"),
        ("10.0.0.1", &["6.6.6.6", "9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", &["6.6.6.6, junk"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, junk, 10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &[""], "10.0.0.1"),
        ("10.0.0.1", &["10.0.0.7"], "10.0.0.7"),
        ("10.0.0.1", &["9.9.9.9:1234"], "9.9.9.9"),
        ("::1", &["[2001:db8::5]:443"], "2001:db8::5"),
        ("::1", &["[2001:db8::5]"], "2001:db8::5"),
        ("::ffff:10.0.0.1", &["::ffff:9.9.9.9"], "9.9.9.9"),
    ];
    for (peer, lines, expected) in table {
        let map = headers(&lines.iter().map(|l| ("x-forwarded-for", *l)).collect::<Vec<_>>());
        assert_eq!(client_ip(&map, ip(peer), &trusted), ip(expected), "{peer} {lines:?}");
        assert_eq!(client_ip(&map, ip(peer), &[]), ip(peer).to_canonical(), "an empty list trusts nobody");
    }
}

fn rewritten(pairs: &[(&str, &str)], peer: &str) -> HeaderMap {
    let mut map = headers(pairs);
    let peer = Peer::new(ip(peer), false);
    forwarded(&mut map, &peer, Some(&HeaderValue::from_static("api.test")), &nets(&["10.0.0.0/8"]));
    map
}

/// RFC 7541 §7.1.3.
#[test]
fn what_is_one_callers_is_in_no_table_of_http2() {
    let text = "ann".into();
    assert!(identity_values([IdentityText::Claim(text)]).iter().all(HeaderValue::is_sensitive));
    for peer in ["1.2.3.4", "10.0.0.1"] {
        let map = rewritten(&[("x-forwarded-for", "6.6.6.6")], peer);
        assert!(map["x-forwarded-for"].is_sensitive());
        assert!(!map["x-forwarded-proto"].is_sensitive() && !map["x-forwarded-host"].is_sensitive());
    }
}

#[test]
fn t6_forwarding_headers_of_a_stranger_are_replaced() {
    let map = rewritten(
        &[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.test"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/x"),
            ("true-client-ip", "6.6.6.6"),
        ],
        "1.2.3.4",
    );
    assert_eq!(names(&map), ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
    assert_eq!(all(&map, "x-forwarded-for"), ["1.2.3.4"]);
    assert_eq!(all(&map, "x-forwarded-proto"), ["http"]);
    assert_eq!(all(&map, "x-forwarded-host"), ["api.test"]);
}

#[test]
fn t6_a_trusted_proxy_is_believed_back_to_the_client_and_no_further() {
    let map = rewritten(
        &[
            ("x-forwarded-for", "6.6.6.6, 9.9.9.9, 10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "www.test"),
            ("forwarded", "for=6.6.6.6"),
        ],
        "10.0.0.1",
    );
    assert_eq!(all(&map, "x-forwarded-for"), ["9.9.9.9, 10.0.0.2, 10.0.0.1"]);
    assert_eq!(all(&map, "x-forwarded-proto"), ["https"]);
    assert_eq!(all(&map, "x-forwarded-host"), ["www.test"]);
    assert!(!map.contains_key("forwarded"));
    for (named, scheme) in [
        ("HTTPS", "https"),
        ("wss", "https"),
        ("WSS", "https"),
        ("ws", "http"),
        ("https, https", "https"),
        ("https,http", "https"),
        ("http, https", "http"),
        ("", "http"),
        (",https", "http"),
        ("httpsx", "http"),
    ] {
        assert_eq!(
            all(&rewritten(&[("x-forwarded-proto", named)], "10.0.0.1"), "x-forwarded-proto"),
            [scheme],
            "{named}"
        );
        assert_eq!(
            all(&rewritten(&[("x-forwarded-proto", named)], "1.2.3.4"), "x-forwarded-proto"),
            ["http"],
            "{named}"
        );
    }
    let odd = rewritten(&[("x-forwarded-proto", "javascript"), ("x-forwarded-host", "a b")], "10.0.0.1");
    assert_eq!(all(&odd, "x-forwarded-proto"), ["http"]);
    assert_eq!(all(&odd, "x-forwarded-host"), ["api.test"]);
}

#[test]
fn t4_claims_become_visible_ascii_and_stay_different() {
    let table = [
        ("alice", "alice"),
        ("read write", "read write"),
        (" a ", "%20a%20"),
        ("a\r\nx-auth-subject: b", "a%0D%0Ax-auth-subject: b"),
        ("a\0", "a%00"),
        ("é", "%C3%A9"),
        ("100%", "100%25"),
        ("%20", "%2520"),
        ("", ""),
        (" ", "%20"),
        ("\u{7f}\t", "%7F%09"),
    ];
    for (claim, value) in table {
        assert_eq!(identity_value(claim), value, "{claim:?}");
    }
}

#[test]
fn a9_an_ipv6_address_counts_as_its_64_and_a_proxy_as_nobody() {
    let of = |text: &str| Holder::address(text.parse().unwrap());
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:ffff:ffff:ffff"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("::ffff:203.0.113.1"), of("203.0.113.1"));
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    let mut headers = HeaderMap::new();
    let client = |headers: &HeaderMap, peer: &str| Peer::new(peer.parse().unwrap(), false).client_of(headers, &trusted);
    assert_eq!(client(&headers, "10.0.0.1"), None);
    assert_eq!(client(&headers, "203.0.113.1"), Some(of("203.0.113.1")));
    headers.insert("x-forwarded-for", "198.51.100.7".parse().unwrap());
    assert_eq!(client(&headers, "10.0.0.1"), Some(of("198.51.100.7")));
    assert_eq!(client(&headers, "203.0.113.1"), Some(of("203.0.113.1")), "a stranger's word is nothing");
    headers.insert("x-forwarded-for", "10.0.0.9".parse().unwrap());
    assert_eq!(client(&headers, "10.0.0.1"), Some(of("10.0.0.9")), "a client among the proxies");
}

proptest! {
    #[test]
    fn t4_every_claim_gives_a_value_that_reads_back(claim in "\\PC*|[\\x00-\\x7f]*") {
        let value = identity_value(&claim);
        let text = value.to_str().unwrap();
        prop_assert_eq!(text.trim(), text);
        let back = percent_encoding::percent_decode_str(text).decode_utf8().unwrap();
        prop_assert_eq!(back, claim);
    }

    #[test]
    fn t3_no_spelling_of_a_protected_name_survives(
        base in prop_oneof![Just("x-auth-subject"), Just("remote-user"), Just("x-user-email"), Just("x-tenant")],
        swaps in proptest::collection::vec(prop_oneof![Just('-'), Just('_'), Just('.'), Just('~'), Just('!')], 20),
        upper in proptest::collection::vec(any::<bool>(), 20),
    ) {
        let mut swaps = swaps.into_iter();
        let spelled: String = base.chars().zip(upper).map(|(c, up)| match c {
            '-' => swaps.next().unwrap(),
            c if up => c.to_ascii_uppercase(),
            c => c,
        }).collect();
        prop_assert!(strip(&[(&spelled, "x")], &RoutePolicy::default()).is_empty(), "{}", spelled);
    }
}

#[test]
fn t4_roles_are_joined_by_commas_that_no_role_can_bring() {
    let list = |roles: &[&str]| {
        let roles: Vec<Box<str>> = roles.iter().map(|role| (*role).into()).collect();
        let values = identity_values([IdentityText::Claim("a b".into()), IdentityText::List(&roles)]);
        assert_eq!(values[0], "a b");
        values[1].to_str().unwrap().to_owned()
    };
    assert_eq!(list(&["admin", "clerk"]), "admin,clerk");
    assert_eq!(list(&["a,b", "100%", "%2C"]), "a%2Cb,100%25,%252C");
    assert_eq!(list(&[" x", "chef de salle", "größe", "a\r\nb"]), "%20x,chef%20de%20salle,gr%C3%B6%C3%9Fe,a%0D%0Ab");
    assert_eq!(list(&[]), "");
}
