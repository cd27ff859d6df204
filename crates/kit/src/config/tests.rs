use super::*;

#[test]
fn the_nearest_name_is_the_one_meant() {
    let known = ["access_ttl", "session_ttl", "idle_ttl", "grace"];
    assert_eq!(nearest("acess_ttl", &known), Some("access_ttl"));
    assert_eq!(nearest("garce", &known), Some("grace"));
    assert_eq!(nearest("colour", &known), None);
}

#[test]
fn positions_count_lines_and_characters_from_one() {
    let text = "a = 1\nß = \"é\" # x\nb = 2";
    let place = |at| Problems::new("file", text).line_and_column(at);
    assert_eq!(place(0), (1, 1));
    assert_eq!(place(text.find('#').unwrap()), (2, 9));
    assert_eq!(place(text.find('b').unwrap()), (3, 1));
    assert_eq!(place(10_000), (3, 6));
}

/// The value of a bound in this text, and the key that is refused, if any.
fn bound_in(text: &str) -> (usize, Option<String>) {
    let problems = Problems::new("file", text);
    let root = parse(text, &problems).unwrap();
    let section = Section::root(&root, &problems);
    let bound = section.for_tests().get_or("bound", value::count(1, 9), 7);
    section.finish();
    drop(section);
    (bound, problems.into_errors().map(|errors| errors.iter().map(|error| error.key.clone()).collect()))
}

#[test]
fn a_bound_for_tests_is_read_with_failpoints_alone_and_never_by_its_own_name() {
    assert_eq!(bound_in(""), (7, None));
    assert_eq!(bound_in("bound = 3\n"), (7, Some("bound".to_owned())));
    let (read, refused) = match cfg!(feature = "failpoints") {
        true => ((3, None), "for_tests.other"),
        false => ((7, Some("for_tests".to_owned())), "for_tests"),
    };
    assert_eq!(bound_in("for_tests = { bound = 3 }\n"), read);
    assert_eq!(bound_in("for_tests = { other = 3 }\n"), (7, Some(refused.to_owned())));
}

#[test]
fn p38_a_rejected_value_is_shown_without_the_password_of_its_url() {
    for (text, shown) in [
        ("http://u:hunter2@h/x", "\"http://…@h/x\""),
        ("redis://:hun/ter2@h:6379", "\"redis://…@h:6379\""),
        ("postgres://u:hunt@er2@h/db?a=b", "\"postgres://…@h/db?a=b\""),
        ("http://h/x?user=a", "\"http://h/x?user=a\""),
        ("a@b", "\"a@b\""),
    ] {
        assert_eq!(Value::String(text.to_owned()).describe(), shown);
        assert_eq!(Value::Env(text.to_owned()).describe(), shown);
    }
}
