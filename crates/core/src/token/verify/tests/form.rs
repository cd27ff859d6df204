//! J10 to J12: size, JSON and base64url.

use super::*;

#[test]
fn j10_sizes_and_depth_are_bounded() {
    let world = world();
    let sized = |n: usize| {
        forge(
            world.own.signer(),
            own_header(world.own.signer()).to_string(),
            with(own_claims(), json!({ "pad": "x".repeat(n) })).to_string(),
        )
    };
    assert!(world.verify(&sized(5000)).is_ok());
    let exact = (5000..6200).map(sized).take_while(|t| t.len() <= MAX_OWN_TOKEN).last().unwrap();
    assert!(world.verify(&exact).is_ok() && exact.len() > MAX_OWN_TOKEN - 4);
    assert_eq!(world.verify(&sized(6200)), Err(shape::OWN_TOO_LONG));
    // Another issuer's tokens may be longer. Without other issuers, the length alone decides.
    let key = &world.idp[2];
    let theirs = |n: usize| {
        let claims = with(idp_claims(), json!({ "groups": ["x".repeat(n)] })).to_string();
        forge(key, own_header(key).to_string(), claims)
    };
    let exact = (17_000..18_400).map(theirs).take_while(|t| t.len() <= MAX_TOKEN).last().unwrap();
    assert!(world.verify(&exact).is_ok() && exact.len() > MAX_TOKEN - 4);
    assert_eq!(world.verify(&theirs(18_400)), Err(shape::TOO_LONG));
    assert_eq!(world.verify(&".".repeat(MAX_TOKEN + 1)), Err(shape::TOO_LONG));
    let rules = IssuerRules::own(OWN, vec!["api".into()], &world.own, Duration::from_secs(30));
    let alone = Verifier::new(vec![rules]).unwrap();
    for length in [MAX_OWN_TOKEN + 1, MAX_TOKEN + 1] {
        assert_eq!(alone.verify(&".".repeat(length), NOW, NOW), Err(shape::OWN_TOO_LONG));
    }

    let header = |n: usize| {
        let text = with(own_header(world.own.signer()), json!({ "pad": "" })).to_string();
        text.replace("\"pad\":\"\"", &format!("\"pad\":\"{}\"", "x".repeat(n - text.len())))
    };
    assert_eq!(header(1024).len(), 1024);
    assert!(world.raw_header(header(1024)).is_ok());
    for n in [1025, 1026, 1027, 3000] {
        assert_eq!(world.raw_header(header(n)), Err(Denial::MalformedToken("the header is longer than 1 KiB")), "{n}");
    }
    let nested = |n: usize| {
        own_claims().to_string().replace("\"api\"", &format!("\"api\",\"deep\":{}{}", "[".repeat(n), "]".repeat(n)))
    };
    assert!(world.raw_claims(nested(15)).is_ok());
    assert!(malformed(&world.raw_claims(nested(16))));
    assert!(malformed(&world.raw_claims(nested(2500))));
}

#[test]
fn j11_duplicate_members_are_refused() {
    let world = world();
    let claims = own_claims().to_string();
    let header = own_header(world.own.signer()).to_string();
    assert!(world.raw_claims(&claims).is_ok());
    for extra in [
        r#""sub":"eve","#,
        r#""sub":"ada","#,
        r#""\u0073ub":"eve","#,
        r#""x":{"a":1,"a":2},"#,
        r#""x":[{"a":{"b":1,"\u0062":1}}],"#,
    ] {
        assert!(malformed(&world.raw_claims(claims.replacen('{', &format!("{{{extra}"), 1))), "{extra}");
    }
    for extra in [r#""alg":"EdDSA","#, r#""\u0061lg":"none","#, r#""k\u0069d":"x","#, r#""x":{"a":1,"a":1},"#] {
        assert!(malformed(&world.raw_header(header.replacen('{', &format!("{{{extra}"), 1))), "{extra}");
    }
}

#[test]
fn j11_what_is_not_one_json_object_in_utf8_is_refused() {
    let world = world();
    for text in [own_claims().to_string(), own_header(world.own.signer()).to_string()] {
        let bytes = text.as_bytes();
        let spoiled = text.replacen(":\"", ":\"\u{1}", 1);
        let mut latin = bytes.to_vec();
        let at = latin.iter().rposition(|b| *b == b'"').unwrap();
        latin.insert(at, 0xe4);
        for bad in [
            [b"\xef\xbb\xbf", bytes].concat(),
            [bytes, b"\0"].concat(),
            [bytes, b"x"].concat(),
            [bytes, b"{}"].concat(),
            [b"[", bytes, b"]"].concat(),
            b"null".to_vec(),
            b"\"x\"".to_vec(),
            b"1".to_vec(),
            Vec::new(),
            spoiled.into_bytes(),
            latin,
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ] {
            assert!(malformed(&world.raw_claims(&bad)), "{}", String::from_utf8_lossy(&bad));
            assert!(malformed(&world.raw_header(&bad)), "{}", String::from_utf8_lossy(&bad));
        }
    }
}

#[test]
fn j12_base64url_is_strict() {
    let world = world();
    let good = world.good();
    for part in 0..3 {
        let edit = |with: &dyn Fn(&str) -> String| {
            let parts: Vec<String> =
                good.split('.').enumerate().map(|(i, p)| if i == part { with(p) } else { p.to_owned() }).collect();
            world.verify(&parts.join("."))
        };
        assert!(edit(&|p| p.to_owned()).is_ok());
        for bad in ["=", "==", "+", "/", " ", "\n", "\r\n", "\t", "%3D", "\u{e4}", "\0"] {
            assert!(malformed(&edit(&|p| format!("{p}{bad}"))), "part {part} and {bad:?}");
            assert!(malformed(&edit(&|p| format!("{bad}{p}"))), "{bad:?} and part {part}");
        }
    }
    // A signature of 64 bytes ends in a character with four unused bits.
    let (rest, last) = good.split_at(good.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = alphabet.find(last).unwrap();
    for low in 1..16 {
        let other = &alphabet[value + low..=value + low];
        assert!(malformed(&world.verify(&format!("{rest}{other}"))));
    }
}
