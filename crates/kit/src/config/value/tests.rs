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
