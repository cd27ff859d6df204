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
