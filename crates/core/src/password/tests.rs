use super::*;

const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

fn secret(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

#[tokio::test]
async fn the_right_password_and_no_other_is_taken() {
    let passwords = Passwords::new(1, 1);
    let phc = hash(&secret("correct horse")).unwrap();
    assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
    assert_eq!(cost_of(&phc), Ok(Cost::default()));
    assert!(passwords.verify(&secret("correct horse"), &phc).await.unwrap());
    assert!(!passwords.verify(&secret("correct horsf"), &phc).await.unwrap());
    assert!(!passwords.verify(&secret(""), &phc).await.unwrap());
}

#[tokio::test]
async fn a_hash_made_elsewhere_is_understood() {
    // From the tests of the reference implementation (phc-winner-argon2, src/test.c): two lanes.
    let phc = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
    assert!(Passwords::new(1, 0).verify(&secret("password"), phc).await.unwrap());
}

#[tokio::test]
async fn a2_every_check_costs_one_run() {
    let passwords = Passwords::new(1, 1);
    let phc = hash_with(&secret("right"), CHEAP).unwrap();
    passwords.verify(&secret("right"), &phc).await.unwrap();
    assert_eq!(passwords.runs(), 1);
    passwords.verify(&secret("wrong"), &phc).await.unwrap();
    assert_eq!(passwords.runs(), 2);
    passwords.check(&secret("wrong"), None, CostClass::Argon2(CHEAP)).await.unwrap();
    assert_eq!(passwords.runs(), 3);
}

#[tokio::test]
async fn i69_a_password_is_compared_as_typed_and_then_composed() {
    const COMPOSED: &str = "gr\u{fc}\u{df}e";
    const DECOMPOSED: &str = "gru\u{308}\u{df}e";
    let passwords = Passwords::new(1, 1);
    for stored in [COMPOSED, DECOMPOSED] {
        let phc = hash_with(&secret(stored), CHEAP).unwrap();
        for typed in [COMPOSED, DECOMPOSED] {
            assert!(passwords.verify(&secret(typed), &phc).await.unwrap(), "{stored:?} {typed:?}");
        }
        assert!(!passwords.verify(&secret("grusse"), &phc).await.unwrap());
    }
    // A system that composed nothing made this hash.
    let imported = argon::hash(DECOMPOSED.as_bytes(), CHEAP).unwrap();
    assert!(passwords.verify(&secret(DECOMPOSED), &imported).await.unwrap());
    // A second spelling costs a second run, whether there is a user or not, and whatever the cost of the hash.
    let dearest = Cost { memory_kib: 64, ..CHEAP };
    for (typed, spellings) in [("wrong", 1), ("wrong\u{fc}", 1), ("wrongu\u{308}", 2)] {
        for hash in [None, Some(parse(&imported).unwrap())] {
            let before = passwords.work();
            assert!(!passwords.check(&secret(typed), hash, CostClass::Argon2(dearest)).await.unwrap());
            let work = passwords.work() - before;
            let whole = spellings * dearest.work();
            assert!(work <= whole && work + 20 >= whole, "{typed:?}: {work} of {whole}");
        }
    }
}

#[tokio::test]
async fn a2_a_cheaper_hash_is_made_up_for() {
    let passwords = Passwords::new(1, 1);
    for (own, dearest) in [
        (CHEAP, Cost { memory_kib: 64, passes: 3, lanes: 1 }),
        (CHEAP, Cost { memory_kib: 64, passes: 3, lanes: 4 }),
        (Cost { memory_kib: 64, passes: 1, lanes: 1 }, Cost { memory_kib: 16, passes: 10, lanes: 2 }),
        (Cost { memory_kib: 16, passes: 2, lanes: 1 }, Cost { memory_kib: 48, passes: 1, lanes: 1 }),
    ] {
        let phc = hash_with(&secret("right"), own).unwrap();
        for password in ["right", "wrong"] {
            let before = passwords.work();
            assert_eq!(
                passwords
                    .check(&secret(password), Some(parse(&phc).unwrap()), CostClass::Argon2(dearest))
                    .await
                    .unwrap(),
                password == "right"
            );
            let work = passwords.work() - before;
            assert!(work <= dearest.work() && work + 10 >= dearest.work(), "{own:?} up to {dearest:?}: {work}");
        }
    }
    // A run of at least this cost gets no addition.
    let phc = hash_with(&secret("right"), Cost { memory_kib: 64, passes: 3, lanes: 1 }).unwrap();
    let before = passwords.runs();
    for dearest in [CHEAP, Cost { memory_kib: 64, passes: 3, lanes: 1 }] {
        assert!(
            passwords.check(&secret("right"), Some(parse(&phc).unwrap()), CostClass::Argon2(dearest)).await.unwrap()
        );
    }
    assert_eq!(passwords.runs(), before + 2);
}

#[tokio::test]
async fn a3_the_memory_of_runs_is_kept_for_as_many_as_may_run_and_holds_nothing() {
    let passwords = Passwords::new(2, 64);
    let phc = hash_with(&secret("right"), CHEAP).unwrap();
    let dearer = hash_with(&secret("right"), Cost { memory_kib: 16, ..CHEAP }).unwrap();
    let right = secret("right");
    let checks = (0..20).map(|n| passwords.verify(&right, if n % 3 == 0 { &dearer } else { &phc }));
    assert!(futures_util::future::join_all(checks).await.into_iter().all(|matches| matches.unwrap()));
    let kept = passwords.memory.0.lock();
    assert!((1..=2).contains(&kept.len()), "{}", kept.len());
    assert!(kept.iter().flatten().all(|block| block.as_ref().iter().all(|word| *word == 0)));
}

#[tokio::test]
async fn a3_a_password_over_1024_bytes_is_false_without_any_work() {
    let passwords = Passwords::new(1, 1);
    let long = secret(&"x".repeat(MAX_PASSWORD));
    let phc = hash_with(&long, CHEAP).unwrap();
    assert!(passwords.verify(&long, &phc).await.unwrap());
    let longer = secret(&"x".repeat(MAX_PASSWORD + 1));
    assert!(!passwords.verify(&longer, &phc).await.unwrap());
    passwords.check(&longer, None, CostClass::Argon2(CHEAP)).await.unwrap();
    assert_eq!(passwords.runs(), 1);
    assert_eq!(hash(&longer).unwrap_err().problem(), "the password is longer than 1024 bytes");
    assert_eq!(hash(&secret("")).unwrap_err().problem(), "the password is empty");
}

#[tokio::test]
async fn a3_a_check_beyond_the_queue_is_told_to_come_again() {
    let passwords = Passwords::new(1, 1);
    let phc = hash_with(&secret("right"), CHEAP).unwrap();
    let running = Arc::clone(&passwords.running).try_acquire_owned().unwrap();
    let right = secret("right");
    let mut waiting = Box::pin(passwords.verify(&right, &phc));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let mut second = Box::pin(passwords.verify(&right, &phc));
    assert!(futures_util::poll!(&mut second).is_pending());
    assert!(matches!(passwords.verify(&right, &phc).await, Err(DirectoryError::Busy)));
    assert_eq!(passwords.runs(), 0, "none ran while the only permit was taken");
    drop(second);
    drop(running);
    assert!(waiting.await.unwrap());
    assert!(passwords.verify(&right, &phc).await.unwrap(), "the queue is free again");
}

#[tokio::test]
async fn a3_a_check_of_much_memory_takes_the_places_of_several() {
    let passwords = Passwords::new(2, 8);
    let right = secret("right");
    let cheap = hash_with(&right, CHEAP).unwrap();
    let large = CostClass::Argon2(Cost { memory_kib: SHARE_KIB + 1, ..CHEAP });
    let one = Arc::clone(&passwords.running).try_acquire_many_owned(SHARE_KIB).unwrap();
    assert!(passwords.verify(&right, &cheap).await.unwrap(), "there is a place for a usual one");
    let mut waiting = Box::pin(passwords.check(&right, None, large));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(one);
    assert!(!waiting.await.unwrap(), "without a hash, no password is right");
    // A run that needs more memory than the bound runs alone.
    let larger = CostClass::Argon2(Cost { memory_kib: 3 * SHARE_KIB, ..CHEAP });
    assert!(!passwords.check(&right, None, larger).await.unwrap());
}

#[test]
fn a3_a_stored_hash_beyond_the_caps_is_refused() {
    let phc = |kind: &str, v: u32, m: u32, t: u32, p: u32| {
        format!("${kind}$v={v}$m={m},t={t},p={p}$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG")
    };
    assert!(cost_of(&phc("argon2id", 19, 65_536, 10, 4)).is_ok());
    for bad in [
        phc("argon2id", 19, 65_537, 1, 1),
        phc("argon2id", 19, 19_456, 11, 1),
        phc("argon2id", 19, 19_456, 1, 5),
        phc("argon2id", 16, 19_456, 2, 1),
        phc("argon2i", 19, 19_456, 2, 1),
        phc("argon2d", 19, 19_456, 2, 1),
        phc("argon2id", 19, 1, 1, 1),
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ".to_owned(),
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$AAAA".to_owned(),
        "$2b$12$abcdefghijklmnopqrstuv".to_owned(),
        "secret".to_owned(),
        String::new(),
    ] {
        assert!(cost_of(&bad).is_err(), "{bad}");
    }
}
