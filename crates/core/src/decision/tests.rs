use super::*;

#[test]
fn k27_only_the_boolean_true_permits() {
    let read = |body: &str| PolicyDecision::read(body.as_bytes());
    assert_eq!(read(r#"{"decision":true}"#), Ok(PolicyDecision::Permit));
    assert_eq!(read(r#"{"decision":true,"context":{"id":"1"},"more":[1]}"#), Ok(PolicyDecision::Permit));
    for denied in [
        r#"{"decision":false}"#,
        r#"{"decision":false,"context":null}"#,
        r#"{"decision":false,"context":{}}"#,
        r#"{"decision":false,"context":{"acr_values":7}}"#,
        r#"{"decision":false,"context":{"acr_values":""}}"#,
        r#"{"decision":false,"context":{"acr_values":[1]}}"#,
        r#"{"decision":false,"context":{"acr_values":"a\", error=\"b"}}"#,
        r#"{"decision":false,"context":{"acr_values":"a\nb"}}"#,
    ] {
        assert_eq!(read(denied), Ok(PolicyDecision::Deny), "{denied}");
    }
    assert_eq!(
        read(r#"{"decision":false,"context":{"acr_values":"gold urn:x"}}"#),
        Ok(PolicyDecision::StepUp("gold urn:x".into()))
    );
    assert_eq!(
        read(r#"{"decision":false,"context":{"acr_values":["a","b"]}}"#),
        Ok(PolicyDecision::StepUp("a b".into()))
    );
    for undecided in [
        "",
        "true",
        "[true]",
        "<html>",
        "{}",
        r#"{"decision":"true"}"#,
        r#"{"decision":1}"#,
        r#"{"decision":null}"#,
        r#"{"PolicyDecision":true}"#,
        r#"{"decision":true,"decision":false}"#,
        r#"{"decision":false,"decision":true}"#,
        r#"{"decision":true,"context":7}"#,
        r#"{"decision":true"#,
        r#"{"decision":true}{}"#,
        "\u{feff}{\"decision\":true}",
    ] {
        assert!(read(undecided).is_err(), "{undecided}");
    }
    let long = format!("{{\"decision\":true,\"x\":\"{}\"}}", "a".repeat(MAX_ANSWER));
    assert!(read(&long).is_err());
}

#[test]
fn k28_an_answer_counts_for_a_minute_at_most() {
    #[derive(Debug)]
    struct Nobody;
    #[async_trait]
    impl DecisionPoint for Nobody {
        async fn decide(&self, _: &[u8], _: &str) -> Result<PolicyDecision, DecisionFault> {
            Err(DecisionFault::new("nobody"))
        }
        fn identity(&self) -> Box<[u8]> {
            Box::default()
        }
    }
    let hour = Duration::from_secs(3600);
    let rules = DecisionPointRules { allow: hour, ..DecisionPointRules::new("pdp", Nobody) };
    assert_eq!(rules.kept_for(&PolicyDecision::Permit), DecisionPointRules::MAX_KEPT);
    assert_eq!(rules.kept_for(&PolicyDecision::StepUp("a".into())), DecisionPointRules::DENY);
}
