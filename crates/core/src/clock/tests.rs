use super::*;

const T0: Timestamp = Timestamp::from_secs(1_700_000_000);
const LEEWAY: Duration = Duration::from_secs(30);

#[test]
fn a_clock_that_follows_a_store_hardly_steps_back_and_minds_no_wall_clock() {
    let time = ManualTime::at(T0.plus(Duration::from_secs(20)));
    time.advance(Duration::from_secs(100));
    let mono = time.monotonic();
    let clock = EngineClock::start_with_store(time.clone(), (mono, mono), T0, LEEWAY);
    assert_eq!((clock.now(), clock.tick()), (T0, ClockState::Skewed), "the wall clock is 120 s ahead");
    time.set_wall(T0.plus(LEEWAY));
    assert_eq!((clock.tick(), clock.now()), (ClockState::Good, T0));
    // The answer took four seconds: the store read its time in the middle.
    time.advance(Duration::from_secs(4));
    clock.follow_store((mono, time.monotonic()), T0.plus(Duration::from_secs(3)));
    assert_eq!(clock.now(), T0.plus(Duration::from_secs(5)));
    clock.follow_store((time.monotonic(), time.monotonic()), T0);
    assert_eq!(clock.now(), T0.plus(Duration::from_millis(4999)));
    // A store whose clock jumps is not followed.
    clock.follow_store((time.monotonic(), time.monotonic()), T0.plus(2 * MAX_JUMP));
    assert_eq!(clock.now(), T0.plus(Duration::from_millis(4999)));
    assert_eq!((clock.state(), clock.tick()), (ClockState::Jumped, ClockState::Jumped), "nothing is minted or swept");
    clock.follow_store((time.monotonic(), time.monotonic()), T0.plus(Duration::from_millis(4999)));
    assert_eq!(clock.state(), ClockState::Good);
    time.set_wall(T0.minus(LEEWAY));
    assert_eq!(clock.tick(), ClockState::Skewed);
    assert_eq!(clock.at(mono), T0.plus(Duration::from_millis(999)));
}

#[test]
fn a_clock_stepped_back_reopens_nothing() {
    let time = ManualTime::at(T0);
    let clock = EngineClock::start(time.clone(), Timestamp::ZERO, LEEWAY);
    time.advance(Duration::from_secs(10));
    clock.tick();
    let before = clock.now();
    time.set_wall(T0.minus(Duration::from_secs(86_400)));
    clock.tick();
    assert_eq!(clock.now(), before);
    time.advance(Duration::from_secs(1));
    assert_eq!(clock.now(), before.plus(Duration::from_secs(1)));
}

#[test]
fn a_clock_that_jumps_ahead_is_not_followed() {
    let time = ManualTime::at(T0);
    let clock = EngineClock::start(time.clone(), Timestamp::ZERO, LEEWAY);
    time.set_wall(T0.plus(Duration::from_secs(3601)));
    assert_eq!(clock.tick(), ClockState::Jumped);
    assert_eq!(clock.now(), T0);
    assert_eq!(clock.latest(), T0.plus(Duration::from_secs(3601)), "and what expires has expired");
    time.set_wall(T0.plus(Duration::from_secs(5)));
    assert_eq!(clock.tick(), ClockState::Good);
    assert_eq!(clock.latest(), T0.plus(Duration::from_secs(5)));
    assert_eq!(clock.now(), T0.plus(Duration::from_secs(5)));
}

#[test]
fn o26_time_that_passes_while_the_machine_sleeps_counts_and_stops_nothing() {
    let time = ManualTime::at(T0);
    let clock = EngineClock::start(time.clone(), Timestamp::ZERO, LEEWAY);
    // CLOCK_BOOTTIME counts the sleep: both clocks are a night later.
    time.advance(Duration::from_secs(8 * 3600));
    assert_eq!(clock.now(), T0.plus(Duration::from_secs(8 * 3600)), "before anybody asks for a tick");
    assert_eq!(clock.tick(), ClockState::Good);
}

#[test]
fn o26_what_expires_is_judged_by_the_later_of_the_two_clocks() {
    let time = ManualTime::at(T0);
    let clock = EngineClock::start(time.clone(), Timestamp::ZERO, LEEWAY);
    let year = T0.plus(Duration::from_secs(365 * 86_400));
    time.set_wall(year);
    assert_eq!(clock.tick(), ClockState::Jumped);
    assert_eq!(clock.now_and_latest(), (T0, year));
    time.set_wall(T0.minus(Duration::from_secs(86_400)));
    assert_eq!(clock.tick(), ClockState::Good);
    assert_eq!(clock.now_and_latest(), (T0, T0), "a wall clock that is behind prolongs nothing");
}

#[test]
#[cfg(target_os = "linux")]
fn o26_the_clock_of_the_machine_is_the_one_that_counts_a_suspension() {
    let uptime = || {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        Duration::from_secs_f64(text.split(' ').next().unwrap().parse().unwrap())
    };
    let (before, read) = (uptime(), Monotonic::now().0);
    let hundredth = Duration::from_millis(10);
    assert!(before <= read && read <= uptime() + hundredth, "{before:?} {read:?}");
}

#[test]
fn a_store_from_the_future_stops_minting_until_the_wall_clock_is_there() {
    let time = ManualTime::at(T0);
    let clock = EngineClock::start(time.clone(), T0.plus(Duration::from_secs(60)), LEEWAY);
    assert_eq!(clock.tick(), ClockState::Behind);
    assert_eq!(clock.now(), T0.plus(Duration::from_secs(60)));
    time.advance(Duration::from_secs(30));
    assert_eq!(clock.tick(), ClockState::Good);
}

#[test]
fn creation_and_not_before_of_one_millisecond_are_told_apart() {
    let clock = EngineClock::start(ManualTime::at(T0), Timestamp::ZERO, LEEWAY);
    let before = clock.stamp_creation(Timestamp::ZERO).unwrap();
    let cut = clock.stamp_not_before();
    let after = clock.stamp_creation(Timestamp::ZERO).unwrap();
    let second_cut = clock.stamp_not_before();
    assert!(before <= cut && after > cut && after <= second_cut);
    assert!(clock.stamp_creation(T0.plus(LEEWAY)).is_none());
}
