use serde_json::json;

use super::ClaimValue::{Boolean, Integer, Text};
use super::kept::MAX_KEPT;
use super::*;
use crate::random;

fn claims(value: Value) -> Map<String, Value> {
    let Value::Object(claims) = value else { panic!("{value}") };
    claims
}

fn condition(claim: &str, comparison: Comparison) -> Condition {
    Condition::new(claim, comparison).unwrap()
}

fn holds(comparison: Comparison, claim: &Value) -> bool {
    let conditions = Conditions::new(vec![condition("a", comparison)], Vec::new()).unwrap();
    let param = |name: &str| (name == "org").then_some("acme%2Fx");
    KeptConditions::judged(&conditions, &claims(json!({ "a": claim }))).hold(param)
}

#[test]
fn k22_each_comparison_holds_for_its_type_alone() {
    use Comparison::{Ends, Equals, Exists, Has, Max, Min, Not, OneOf, Param, Starts};
    let text = |text: &str| Text(text.into());
    let table: Vec<(Comparison, Vec<Value>, Vec<Value>)> = vec![
        (Equals(text("7")), vec![json!("7")], vec![json!(7), json!("07"), json!(["7"]), json!(null)]),
        (Equals(Integer(7)), vec![json!(7)], vec![json!("7"), json!(7.0), json!(true), json!(8)]),
        (Equals(Integer(1)), vec![json!(1)], vec![json!(true), json!(1.0)]),
        (Equals(Boolean(true)), vec![json!(true)], vec![json!("true"), json!(1), json!(false)]),
        (OneOf(vec![text("a"), Integer(7)]), vec![json!("a"), json!(7)], vec![json!("7"), json!(["a"]), json!("b")]),
        (
            Has(text("mfa")),
            vec![json!(["pwd", "mfa"])],
            vec![json!("mfa"), json!("pwd mfa"), json!([["mfa"]]), json!([])],
        ),
        (Has(Integer(7)), vec![json!([7])], vec![json!(["7"]), json!([7.0]), json!(7)]),
        (
            Not(vec![text("free")]),
            vec![json!("pro"), json!("")],
            vec![json!("free"), json!(7), json!(["pro"]), json!(null)],
        ),
        (Not(vec![text("a"), text("b")]), vec![json!("c")], vec![json!("a"), json!("b"), json!(false)]),
        (Not(vec![Boolean(false)]), vec![json!(true)], vec![json!(false), json!("true"), json!(1)]),
        (Starts("ab".into()), vec![json!("ab"), json!("abc")], vec![json!("a"), json!("xab"), json!(["ab"])]),
        (Ends("@x.test".into()), vec![json!("a@x.test")], vec![json!("a@x.test.evil"), json!("x.test"), json!(1)]),
        (Min(3), vec![json!(3), json!(u64::MAX)], vec![json!(2), json!("3"), json!(3.0), json!(1e3), json!(-5)]),
        (Max(3), vec![json!(3), json!(-9)], vec![json!(4), json!("3"), json!(2.5), json!(u64::MAX)]),
        (Exists, vec![json!("x"), json!(false), json!({}), json!([])], vec![json!(null)]),
        (
            Param("org".into()),
            vec![json!("acme%2Fx")],
            vec![json!("acme/x"), json!("acme%2fx"), json!("Acme%2Fx"), json!(7)],
        ),
        (Param("other".into()), vec![], vec![json!("acme%2Fx"), json!("")]),
    ];
    for (comparison, good, bad) in table {
        for (claim, expected) in good.iter().map(|one| (one, true)).chain(bad.iter().map(|one| (one, false))) {
            assert_eq!(holds(comparison.clone(), claim), expected, "{comparison:?} {claim}");
        }
        let missing = Conditions::new(vec![condition("b", comparison)], Vec::new()).unwrap();
        assert!(!KeptConditions::judged(&missing, &claims(json!({ "a": 1 }))).hold(|_| Some("")), "{missing}");
    }
}

#[test]
fn k22_the_names_of_members_and_claims_within_others_are_read() {
    let token = claims(json!({ "orgs": { "acme": { "plan": "pro" } }, "https://x.test/level": 3 }));
    let all = |list: &[(&str, Comparison)]| {
        let list = list.iter().map(|(claim, comparison)| condition(claim, comparison.clone())).collect();
        KeptConditions::judged(&Conditions::new(list, Vec::new()).unwrap(), &token).decided()
    };
    assert_eq!(all(&[("orgs{}", Comparison::Has(Text("acme".into())))]), Some(true));
    assert_eq!(all(&[("orgs{}", Comparison::Has(Text("plan".into())))]), Some(false));
    assert_eq!(all(&[("orgs{}", Comparison::Exists)]), Some(true));
    assert_eq!(all(&[("orgs.acme.plan", Comparison::Equals(Text("pro".into())))]), Some(true));
    assert_eq!(all(&[("\"https://x.test/level\"", Comparison::Min(3))]), Some(true));
}

/// The specification of a comparison, as directly as possible.
fn naive(one: &Condition, claims: &Map<String, Value>, param: &str) -> bool {
    let value = |value: &ClaimValue| match value {
        Text(text) => json!(text),
        Integer(number) => json!(number),
        Boolean(is) => json!(is),
    };
    let Some(claim) = claims.get(&one.claim.to_string()) else { return false };
    match &one.comparison {
        Comparison::Equals(wanted) => *claim == value(wanted),
        Comparison::OneOf(wanted) => wanted.iter().any(|wanted| *claim == value(wanted)),
        Comparison::Has(wanted) => claim.as_array().is_some_and(|list| list.contains(&value(wanted))),
        Comparison::Not(unwanted) => unwanted.iter().all(|one| {
            let one = value(one);
            one != *claim
                && (one.is_string(), one.is_i64(), one.is_boolean())
                    == (claim.is_string(), claim.is_i64(), claim.is_boolean())
        }),
        Comparison::Starts(start) => claim.as_str().is_some_and(|claim| claim.starts_with(&**start)),
        Comparison::Ends(end) => claim.as_str().is_some_and(|claim| claim.ends_with(&**end)),
        Comparison::Min(least) => claim.as_i64().is_some_and(|claim| claim >= *least),
        Comparison::Max(most) => claim.as_i64().is_some_and(|claim| claim <= *most),
        Comparison::Exists => !claim.is_null(),
        Comparison::Param(_) => claim.as_str() == Some(param),
    }
}

/// Draws numbers below a bound.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // Steele and others, "Fast splittable pseudorandom number generators", 2014.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap()
    }

    fn value(&mut self) -> ClaimValue {
        match self.roll(5) {
            0 => Text("a".into()),
            1 => Text("ab".into()),
            2 => Integer(1),
            3 => Integer(2),
            _ => Boolean(self.roll(2) == 0),
        }
    }

    fn condition(&mut self) -> Condition {
        let claim = ["x", "y", "z"][self.roll(3)];
        let one = self.value();
        condition(
            claim,
            match self.roll(10) {
                0 => Comparison::Equals(one),
                1 => Comparison::OneOf(vec![one, self.value()]),
                2 => Comparison::Has(one),
                3 => Comparison::Not(vec![one]),
                4 => Comparison::Starts("a".into()),
                5 => Comparison::Ends("b".into()),
                6 => Comparison::Min(2),
                7 => Comparison::Max(1),
                8 => Comparison::Exists,
                _ => Comparison::Param("p".into()),
            },
        )
    }

    fn claim(&mut self) -> Value {
        let plain = [
            json!("a"),
            json!("ab"),
            json!(1),
            json!(2),
            json!(1.0),
            json!(true),
            json!(false),
            json!(null),
            json!({}),
        ];
        match self.roll(11) {
            at @ 0..9 => plain[at].clone(),
            _ => json!([plain[self.roll(9)], plain[self.roll(9)]]),
        }
    }
}

#[test]
fn k22_all_conditions_together_are_what_a_naive_evaluator_says() {
    let seed = u64::from_le_bytes(*random::random::<8>().unwrap());
    let mut dice = Dice(seed);
    let mut held = 0;
    for _ in 0..20_000 {
        let when: Vec<_> = (0..dice.roll(3)).map(|_| dice.condition()).collect();
        let any: Vec<Vec<_>> =
            (0..dice.roll(3)).map(|_| (0..1 + dice.roll(2)).map(|_| dice.condition()).collect()).collect();
        let Ok(all) = Conditions::new(when, any) else { continue };
        let mut token = Map::new();
        for name in ["x", "y", "z"] {
            if dice.roll(4) > 0 {
                token.insert(name.to_owned(), dice.claim());
            }
        }
        let param = ["a", "ab"][dice.roll(2)];
        let is = |one: &Condition| naive(one, &token, param);
        let expected =
            all.when.iter().all(is) && (all.when_any.is_empty() || all.when_any.iter().any(|list| list.iter().all(is)));
        let kept = KeptOfToken::default();
        let judged = kept.conditions(&all, || token.clone());
        let again = kept.conditions(&all, || panic!("the claims are read once"));
        let shown = format!("seed {seed}: {all:?} {token:?} {param}");
        assert_eq!(judged.hold(|_| Some(param)), expected, "{shown}");
        assert_eq!(again.hold(|_| Some(param)), expected, "{shown}");
        assert!(judged.decided().is_none_or(|decided| decided == expected), "{shown}");
        assert_eq!(unmet_condition(&all, &token, &|_| Some(param.to_owned())).is_none(), expected, "{shown}");
        held += usize::from(expected);
    }
    assert!(held > 500, "{held}");
}

#[test]
fn k23_conditions_that_cannot_be_meant_are_refused() {
    let wrong =
        |comparison: Comparison| Conditions::new(vec![condition("a", comparison)], Vec::new()).unwrap_err().to_string();
    let long: Box<str> = "x".repeat(MAX_TEXT + 1).into();
    assert_eq!(wrong(Comparison::Starts(long.clone())), "a starts: a string is longer than 256 bytes");
    assert_eq!(wrong(Comparison::Equals(Text(long))), "a equals: a string is longer than 256 bytes");
    assert!(wrong(Comparison::OneOf(Vec::new())).contains("the list is empty"));
    assert!(wrong(Comparison::Not(vec![Integer(1), Text("a".into())])).contains("several types"));
    assert!(wrong(Comparison::Ends("".into())).contains("every string begins and ends with it"));
    assert!(wrong(Comparison::OneOf(vec![Integer(1); 17])).contains("more than 16"));
    let names = Conditions::new(vec![condition("a{}", Comparison::Min(1))], Vec::new());
    assert!(names.unwrap_err().to_string().contains("use { has"));
    let many = |count: usize| Conditions::new(vec![condition("a", Comparison::Exists); count], Vec::new());
    assert!(many(17).unwrap_err().problem().starts_with("there are 17 comparisons"));
    assert!(many(16).is_ok());
    assert!(Conditions::new(Vec::new(), vec![Vec::new()]).unwrap_err().problem().starts_with("there is no comparison"));
}

#[test]
fn k24_words_about_conditions_have_no_value() {
    let secret = "s3cret";
    let all = Conditions::new(
        vec![condition("org.id", Comparison::Equals(Text(secret.into())))],
        vec![
            vec![condition("dept", Comparison::OneOf(vec![Text(secret.into())]))],
            vec![condition("level", Comparison::Min(3))],
        ],
    )
    .unwrap();
    assert_eq!(all.to_string(), "org.id equals, dept one of, level min");
    let none = |_: &str| None;
    assert_eq!(unmet_condition(&all, &claims(json!({})), &none).unwrap(), ("when", "org.id equals".to_owned()));
    let half = claims(json!({ "org": { "id": secret } }));
    let unmet = ("when_any", "none of when_any: dept one of; level min".to_owned());
    assert_eq!(unmet_condition(&all, &half, &none), Some(unmet));
    assert_eq!(unmet_condition(&all, &claims(json!({ "org": { "id": secret }, "level": 3 })), &none), None);
}

#[test]
fn k22_a_token_keeps_the_results_of_a_bounded_number_of_routes() {
    let kept = KeptOfToken::default();
    let all: Vec<_> = (0..=MAX_KEPT)
        .map(|_| Conditions::new(vec![condition("a", Comparison::Exists)], Vec::new()).unwrap())
        .collect();
    for one in &all {
        assert_eq!(kept.conditions(one, || claims(json!({ "a": 1 }))).decided(), Some(true));
    }
    assert_eq!(kept.conditions(&all[1], || panic!("it is kept")).decided(), Some(true));
    assert_eq!(kept.conditions(&all[0], || claims(json!({}))).decided(), Some(false), "the oldest was dropped");
}
