//! Hashes that the makers' own libraries wrote: Django 5.2, passlib 1.7.4 with argon2-cffi and bcrypt 4.0; and those of
//! the documentation and the tests of Spring Security, ASP.NET Core Identity, firebase/scrypt and libsodium.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use super::*;

const PASSWORD: &str = "correct horse";
const FIREBASE: &str = r#"{
    "algorithm": "SCRYPT",
    "base64_signer_key": "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==",
    "base64_salt_separator": "Bw==",
    "rounds": 8,
    "mem_cost": 14
}"#;

fn all() -> Accepted {
    Accepted {
        legacy: Legacy::NAMES.iter().map(|(_, scheme)| *scheme).collect(),
        firebase: Some(firebase::Parameters::from_json(FIREBASE).unwrap()),
        spring: pbkdf2::Spring::default(),
    }
}

fn verify(text: &str, password: &str) -> bool {
    let hash = PasswordHash::parse(text, &all()).unwrap_or_else(|error| panic!("{text}: {error}"));
    hash.matches(password.as_bytes(), &mut Vec::new())
}

#[track_caller]
fn made_by_its_library(scheme: &str, text: &str, password: &str) {
    assert_eq!(PasswordHash::parse(text, &all()).map(|hash| hash.scheme()).map_err(|e| e.0), Ok(scheme), "{text}");
    assert!(verify(text, password), "{text}");
    for wrong in [&format!("{password}x"), &password[1..], ""] {
        assert!(!verify(text, wrong), "{text} {wrong}");
    }
}

fn refused(text: &str) -> &'static str {
    match PasswordHash::parse(text, &all()) {
        Err(BadHash(why)) => why,
        Ok(hash) => panic!("{text} is accepted: {hash:?}"),
    }
}

#[test]
fn i30_argon2_of_passlib_django_spring_and_php() {
    let id = "$argon2id$v=19$m=64,t=2,p=8$NIaQktJ67z1njNE6J0SoNQ$j5zEy8je57uNfwBGcADgujHxV/JlcJ4A8qEgjE4Ojdc";
    made_by_its_library("argon2id", id, PASSWORD);
    made_by_its_library("argon2id", &format!("{{argon2}}{id}"), PASSWORD);
    made_by_its_library("argon2id", &format!("{{argon2@SpringSecurity_v5_8}}{id}"), PASSWORD);
    let i = "$argon2i$v=19$m=64,t=2,p=1$htAao7R2rlUKwTgHwHjP+Q$yhKNjb/sT+lE7l2tR5W+FxnsobkkTs33xuOkVrTPeg0";
    made_by_its_library("argon2i", i, PASSWORD);
    let django = "argon2$argon2id$v=19$m=64,t=2,p=2$c2Vhc2FsdHNlYXNhbHQwMA$d97J0J3sW9MvmnFVgZbRgTFqJWbs+4sZgcW9+PBnsiI";
    made_by_its_library("argon2id", django, PASSWORD);
    for (m, t, p) in [(262_145, 1, 1), (64, 21, 1), (128, 1, 9), (u32::MAX, u32::MAX, 1)] {
        let dear = id.replace("m=64,t=2,p=8", &format!("m={m},t={t},p={p}"));
        assert!(refused(&dear).contains("m must be at most 262144") || m == u32::MAX, "{dear}");
    }
    for bad in [id.replace("argon2id", "argon2d"), id.replace("v=19", "v=16"), id.replace("$v=19", "")] {
        refused(&bad);
    }
}

#[test]
fn i30_bcrypt_of_passlib_django_spring_and_php() {
    let own = "$2b$04$mVcgOk.KkzulJ1pCQt2NpOtZcqrvDYLqb2GUts5zMYGWcpE/nsn.6";
    made_by_its_library("bcrypt", own, PASSWORD);
    for text in [own.replace("2b", "2y"), own.replace("2b", "2a"), format!("{{bcrypt}}{own}")] {
        made_by_its_library("bcrypt", &text, PASSWORD);
    }
    made_by_its_library("bcrypt", "bcrypt$$2b$04$eP5FrNB5er0dBrpHUawPmu4FJWWkdXZv4OwGAheekXCuPaPSd1cEe", PASSWORD);
    let django = "bcrypt_sha256$$2b$04$aB2JOfMtfBVTlN1OxvjSS.qIOo9QifSm8JrHWcsp6j5l1u9vNCAfy";
    made_by_its_library("bcrypt-sha256", django, PASSWORD);
    let passlib = "$bcrypt-sha256$v=2,t=2b,r=4$hduYcNzw6W9XlE4/WR77ce$k2oVRmWYY5WezttVcUBGJ76cdYTG/be";
    made_by_its_library("bcrypt-sha256", passlib, PASSWORD);
    // bcrypt read 72 of the hundred letters.
    let long = "$2b$04$qQ.BC/VZ6lwyHV1trUQzau8BM9CZ8H3t8gbW2p.xLNdymdR9c3Xs.";
    assert!(verify(long, &"x".repeat(100)) && verify(long, &"x".repeat(72)) && !verify(long, &"x".repeat(71)));
    assert!(refused(&own.replace("$04$", "$16$")).contains("at most 15"));
    assert!(refused(&own.replace("$2b$", "$2x$")).contains("2x"));
    for bad in [
        &own[..59],
        &format!("{own}."),
        &own.replace("$04$", "$03$"),
        &own.replace("$04$", "$4$"),
        &own.replace("04", "+4"),
    ] {
        refused(bad);
    }
}

#[test]
fn i30_pbkdf2_of_django_and_passlib() {
    for (scheme, text) in [
        ("pbkdf2-sha256", "pbkdf2_sha256$1000$seasalt8seasalt8seasalt$ERn9ISUu7/jpw7t1FT3s5w7ZgUFStVKKigIYguwbI3A="),
        ("pbkdf2-sha1", "pbkdf2_sha1$1000$seasalt8seasalt8seasalt$mFvyImQoVyQAJVWL0UzKd7hQrSE="),
        ("pbkdf2-sha1", "$pbkdf2$1000$0dpbSykFoDQGgJCSUooRAg$jHm38Qm9qRc6N9B1fiXFQGAcRi4"),
        ("pbkdf2-sha256", "$pbkdf2-sha256$1000$OYdQKsUYo7Q2JkTonbN2Tg$EwbxH8Hg8t8JWVv4SL7ubxHocJUbIpjkiwHSljV1Plw"),
        (
            "pbkdf2-sha512",
            "$pbkdf2-sha512$1000$LAVgrLVWao3ROickpDRGCA$XITC5IgRl3xHpWic6tQVV/Kwv88g/Fn5n1g2JCNe6bN7q6r5D1s9DKPAHC7ybZRa/ZRzq0MMXo2RoSgZuBYgsw",
        ),
    ] {
        made_by_its_library(scheme, text, PASSWORD);
        for dear in ["5000001", "4294967295", "99999999999999999999"] {
            assert!(refused(&text.replace("$1000$", &format!("${dear}$"))).contains("at most 5000000"), "{text}");
        }
        for bad in ["0", "-1", "+1000", "01000", "", "1e3"] {
            refused(&text.replace("$1000$", &format!("${bad}$")));
        }
        refused(&text[..text.len() - 4]);
    }
}

#[test]
fn i30_asp_net_core_identity() {
    let password = "my password";
    made_by_its_library("asp-net-v2", "AAABAgMEBQYHCAkKCwwNDg+ukCEMDf0yyQ29NYubggHIVY0sdEUfdyeM+E1LtH1uJg==", password);
    for text in [
        "AQAAAAAAAAD6AAAAEAhftMyfTJylOlZT+eEotFXd1elee8ih5WsjXaR3PA9M",
        "AQAAAAEAA9CQAAAAIESkQuj2Du8Y+kbc5lcN/W/3NiAZFEm11P27nrSN5/tId+bR1SwV8CO1Jd72r4C08OLvplNlCDc3oQZ8efcW+jQ=",
        "AQAAAAIAAAAyAAAAEOMwvh3+FZxqkdMBz2ekgGhwQ4B6pZWND6zgESBuWiHw",
        "AQAAAAIAAAD6AAAAIJbVi5wbMR+htSfFp8fTw8N8GOS/Sje+S/4YZcgBfU7EQuqv4OkVYmc4VJl9AGZzmRTxSkP7LtVi9IWyUxX8IAAfZ8v+ZfhjCcudtC1YERSqE1OEdXLW9VukPuJWBBjLuw==",
        "AQAAAAIAAYagAAAAEAABAgMEBQYHCAkKCwwNDg/Q8A0WMKbtHQJQ2DHCdoEeeFBrgNlldq6vH4qX/CGqGQ==",
    ] {
        made_by_its_library("asp-net-v3", text, password);
        let mut bytes = STANDARD.decode(text).unwrap();
        bytes[5..9].copy_from_slice(&5_000_001_u32.to_be_bytes());
        assert!(refused(&STANDARD.encode(&bytes)).contains("at most 5000000"));
        bytes[5..9].copy_from_slice(&[0; 4]);
        refused(&STANDARD.encode(&bytes));
        bytes[5..9].copy_from_slice(&1_u32.to_be_bytes());
        bytes[9..13].copy_from_slice(&u32::MAX.to_be_bytes());
        refused(&STANDARD.encode(&bytes));
    }
    // Damaged hashes from the tests of that library.
    for bad in [
        "AAABAgMEBQYHCAkKCwwNDg+ukCEMDf0yyQ29NYubggE=",
        "AAABAgMEBQYHCAkKCwwNDg+ukCEMDf0yyQ29NYubggHIVY0sdEUfdyeM+E1LtH1uJgAAAAAAAAAAAAA=",
        "AQAAAAIAAAAyAAAAEOMwvh3+FZxqkdMBz2ekgGhwQ4A=",
    ] {
        refused(bad);
    }
    // The format gives no length of the key, so more bytes are another key.
    assert!(!verify("AQAAAAIAAAAyAAAAEOMwvh3+FZxqkdMBz2ekgGhwQ4B6pZWND6zgESBuWiHwAAAAAAAAAAAA", password));
}

#[test]
fn i30_pbkdf2_and_scrypt_of_spring() {
    let pbkdf2 = "{pbkdf2}5d923b44a6d129f3ddf3e3c8d29412723dcbde72445e8ef6bf3b508fbf17fa4ed4d6b99ca763d8dc";
    made_by_its_library("pbkdf2-sha1", pbkdf2, "password");
    let scrypt = "{scrypt}$e0801$8bWJaSu2IKSn9Z9kM+TPXfOc/9bdYSrN1oD9qfVThWEwdRTnO7re7Ei+fUZRJ68k9lTyuTeUp4of4g24hHnazw==$OAOec05+bXxvuu/1qZ6NUR+xQYvYv7BeL1QxwRpY5Pc=";
    made_by_its_library("scrypt", scrypt, "password");
    assert!(refused(&scrypt.replace("$e0801$", "$110801$")).contains("64 MiB"));
    assert!(refused(&scrypt.replace("$e0801$", "$ff0801$")).contains("64 MiB"));
    assert!(refused(&scrypt.replace("$e0801$", "$e0809$")).contains("p at most 8"));

    // Own iterations and an own secret; made with Python's hashlib as Spring's documentation describes it.
    let own = "{pbkdf2@SpringSecurity_v5_8}000102030405060708090a0b0c0d0e0f";
    let accepted = |iterations, secret: Option<&str>| Accepted {
        spring: pbkdf2::Spring { iterations, secret: secret.map(SecretString::from) },
        ..Accepted::default()
    };
    let expected = "7ed3c710fbed0837a9524fcab854d92c6d77d39b4d325f73308a79fd1eb511aa";
    let verify = |accepted: &Accepted| {
        let hash = PasswordHash::parse(&format!("{own}{expected}"), accepted).unwrap();
        hash.matches(PASSWORD.as_bytes(), &mut Vec::new())
    };
    assert!(verify(&accepted(Some(1000), Some("pepper"))));
    assert!(!verify(&accepted(Some(1000), None)) && !verify(&accepted(Some(1001), Some("pepper"))));
    assert!(PasswordHash::parse(pbkdf2, &accepted(Some(5_000_001), None)).is_err());
    for bad in ["{pbkdf2@SpringSecurity_v9}00", "{pbkdf2}00", "{pbkdf2}zz", "{pbkdf2}0"] {
        refused(bad);
    }
}

#[test]
fn i30_scrypt_of_django_passlib_and_crypt() {
    let django = "scrypt$1024$seasalt$8$5$U5L/E4s8HSw/x7c2z5Ose/wRS4Ex+nZFwhoeVl7Y/Ivmfxi7M91P9jpq7MYsDfV9WCzv+HMsQaovdkOikEuBXg==";
    made_by_its_library("scrypt", django, PASSWORD);
    let passlib = "$scrypt$ln=10,r=8,p=1$ec9Zaw3BGEOIMab03vt/Dw$yKh3AGCVJum4sojyXYJFKEtAu1DE3C3+SC0dG9VA37I";
    made_by_its_library("scrypt", passlib, PASSWORD);
    let crypt = "$7$C6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D";
    made_by_its_library("scrypt", crypt, "pleaseletmein");
    for dear in [
        django.replace("$1024$", "$131072$"),
        django.replace("$8$5$", "$8$9$"),
        django.replace("$8$5$", "$4294967295$1$"),
        passlib.replace("ln=10", "ln=17"),
        passlib.replace("ln=10", "ln=64"),
        passlib.replace("p=1", "p=9"),
        crypt.replace("C6....", "Z6...."),
        crypt.replace("C6....", "Czzzzz"),
    ] {
        assert!(refused(&dear).contains("64 MiB"), "{dear}");
    }
    for bad in [
        django.replace("$1024$", "$1023$"),
        passlib.replace("ln=10", "ln=0"),
        passlib.replace("r=8", "r=0"),
        passlib.replace("p=1", "p=1,x=1"),
        crypt.replace("C6", "!6"),
        "$7$C6".to_owned(),
    ] {
        refused(&bad);
    }
}

#[test]
fn i30_firebase() {
    let parameters = firebase::Parameters::from_json(FIREBASE).unwrap();
    let hash = "lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==";
    let text = parameters.hash_of("42xEC+ixf3L2lw==", hash).unwrap();
    assert!(text.starts_with("$firebase-scrypt$m=14,r=8$"), "{text}");
    made_by_its_library("firebase-scrypt", &text, "user1password");
    assert_eq!(parameters.hash_of("42xEC-ixf3L2lw", &hash.replace('+', "-").replace('/', "_")), Some(text.clone()));
    assert!(refused(&text.replace("m=14", "m=16")).contains("at most 15"));
    assert!(PasswordHash::parse(&text, &Accepted::default()).is_err(), "without the key of its project");
    for bad in [text.replace("m=14", "m=x"), text.replace("$m=14,r=8", ""), text[..text.len() - 8].to_owned()] {
        refused(&bad);
    }
    assert!(!format!("{parameters:?}").contains("jxspr8"));
    for (from, to) in [("jxspr8", "!"), ("\"Bw==\"", "7"), ("14", "40"), ("8,", "0,"), ("rounds", "round")] {
        let error = firebase::Parameters::from_json(&FIREBASE.replacen(from, to, 1)).unwrap_err();
        assert!(!error.contains("Ki0RYycVU8"), "{error}");
    }
}

#[test]
fn i30_weak_schemes_only_if_they_are_listed() {
    for (name, text) in [
        ("phpass", "$P$527Jy5p567gnWMrfAM8U7N/CPgeTqU."),
        ("phpass", "$H$527Jy5p567gnWMrfAM8U7N/CPgeTqU."),
        ("sha256-crypt", "$5$rounds=1000$OUzeZBzb8CgMNyr7$A1G0qWjcyPz55WNr33QK7WneWsa5SCvCnUKcThXcSG8"),
        (
            "sha512-crypt",
            "$6$rounds=1000$w8fvJrINHJaJ7YZM$hnPkvI92LAuxPjzXhYecFk1mijFqxaECONDlGr6UyiZvt0rV7k3yY3N294m9Mx18chY4JjQVWptG5S3W/5xej1",
        ),
        (
            "sha512-crypt",
            "$6$I5hKTyVTzOKkQ5ya$JT6RD4X1kppJ6MqFX9YtqgjJ.Ss1RJpI85RP/GQtxnRWm8IjmdXX04GP.EDgvbOv3o5eU1FZ3y.Rao0HjG9An.",
        ),
    ] {
        made_by_its_library(name, text, PASSWORD);
        let BadHash(why) = PasswordHash::parse(text, &Accepted::default()).unwrap_err();
        assert!(why.contains(&format!("hashes = [\"{name}\"]")), "{why}");
        let others = Legacy::NAMES.iter().filter(|(other, _)| *other != name).map(|(_, scheme)| *scheme).collect();
        assert!(PasswordHash::parse(text, &Accepted { legacy: others, ..Accepted::default() }).is_err(), "{name}");
        assert!(
            refused(
                &text
                    .replace("rounds=1000", "rounds=1000001")
                    .replace("$P$5", "$P$I")
                    .replace("$H$5", "$H$z")
                    .replace("$6$I5", "$6$rounds=99999999999$I5")
            )
            .contains("at most 1000000")
        );
        assert!(!PasswordHash::parse(text, &all()).unwrap().is_ours());
    }
    refused("$6$rounds=999$w8fvJrINHJaJ7YZM$hnPkvI92");
}

#[test]
fn i30_what_is_plain_or_without_salt_never_passes() {
    for bad in [
        "",
        "hunter2",
        "{noop}hunter2",
        "{MD5}5f4dcc3b5aa765d61d8327deb882cf99",
        "{SHA-256}5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
        "{sha256}97cde38028ad898ebc02e690819fa220e88c62e0699403e94fff291cfffaf8410849f27605abcbc0",
        "{LDAP}{SSHA}x",
        "{}x",
        "5f4dcc3b5aa765d61d8327deb882cf99",
        "5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8",
        "md5$salt$5f4dcc3b5aa765d61d8327deb882cf99",
        "unsalted_md5$5f4dcc3b5aa765d61d8327deb882cf99",
        "sha1$$22e6217f026c7a395f0840c1ffbdb163072419e7",
        "crypt$$ab1Hv2Lg7ltQo",
        "$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/",
        "$apr1$saltsalt$x",
        "!",
        "!$2b$04$mVcgOk.KkzulJ1pCQt2NpOtZcqrvDYLqb2GUts5zMYGWcpE/nsn.6",
        "*0",
        "$2b$",
        "$$$",
        "$",
        "pbkdf2_sha256$1000$$ERn9ISUu7/jpw7t1FT3s5w7ZgUFStVKKigIYguwbI3A=",
        "aGVsbG8gd29ybGQ=",
    ] {
        assert!(!refused(bad).contains("hunter2"));
    }
    refused(&"A".repeat(MAX_TEXT + 1));
}

#[test]
fn i30_our_own_hash_is_the_only_one_that_is_not_replaced() {
    let own = super::super::hash(&SecretString::from(PASSWORD)).unwrap();
    assert!(PasswordHash::parse(&own, &Accepted::default()).unwrap().is_ours());
    for other in [
        own.replace("t=2", "t=3"),
        own.replace("argon2id", "argon2i"),
        "$2b$04$mVcgOk.KkzulJ1pCQt2NpOtZcqrvDYLqb2GUts5zMYGWcpE/nsn.6".to_owned(),
    ] {
        assert!(!PasswordHash::parse(&other, &Accepted::default()).unwrap().is_ours(), "{other}");
    }
}

#[test]
fn i32_the_parts_of_a_class_make_up_the_share() {
    let time = |class: CostClass| match class {
        CostClass::Bcrypt { cost } => f64::from(1_u32 << cost),
        CostClass::Scrypt { log_n, r, p } => f64::from((1_u32 << log_n) * r * p),
        CostClass::Argon2(cost) => cost.work() as f64,
        CostClass::Pbkdf2 { iterations: rounds, .. }
        | CostClass::Phpass { rounds }
        | CostClass::ShaCrypt { rounds, .. } => f64::from(rounds),
    };
    for whole in [
        CostClass::Argon2(Cost::default()),
        CostClass::Bcrypt { cost: 12 },
        CostClass::Bcrypt { cost: 15 },
        CostClass::Pbkdf2 { bits: 256, iterations: 600_000 },
        CostClass::Scrypt { log_n: 14, r: 8, p: 5 },
        CostClass::Phpass { rounds: 1 << 13 },
        CostClass::ShaCrypt { bits: 512, rounds: 656_000 },
    ] {
        for share in [0.0, 0.01, 0.1, 0.25, 0.333, 0.5, 0.77, 0.99] {
            let parts: f64 = whole.share(share).into_iter().map(time).sum();
            let missing = share - parts / time(whole);
            assert!((-0.001..0.011).contains(&missing), "{whole:?} {share}: {missing} is missing");
            assert!(whole.share(share).into_iter().all(|part| part.dummy().is_ok()), "{whole:?} {share}");
            assert!(whole.share(share).iter().all(|part| part.memory_kib() <= whole.memory_kib()), "{whole:?} {share}");
        }
        assert!(whole.dummy().is_ok_and(|dummy| dummy.class() == whole), "{whole:?}");
    }
}
