use super::*;
use crate::config::Period;

const OTHERS: OfferedCapacity = OfferedCapacity { takers: 2, rate: 100 };
const NOBODY: OfferedCapacity = OfferedCapacity { takers: 0, rate: 0 };

fn config() -> config::DrainSettings {
    let seconds = Period::from_secs;
    config::DrainSettings {
        delay: seconds(5),
        deadline: seconds(25),
        last_words: seconds(5),
        jitter: 50,
        ..Default::default()
    }
}

fn left(count: usize) -> RemainingClients {
    RemainingClients { unasked: count, open: count }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Runs the drain to its end. Returns the time of each wave, in seconds, and how many sockets the wave closed.
fn waves(
    schedule: &mut DrainSchedule,
    start: Instant,
    mut unasked: usize,
    offer: OfferedCapacity,
) -> Vec<(f64, usize)> {
    let (mut now, mut waves, mut luck) = (start, Vec::new(), 0.3);
    loop {
        luck = -luck;
        match schedule.step(now, left(unasked), offer, luck) {
            DrainStep::Rest | DrainStep::Done => return waves,
            DrainStep::Wait(time) => now += time,
            DrainStep::Close(count, time) => {
                unasked -= count;
                waves.push(((now - start).as_secs_f64(), count));
                now += time;
            }
        }
    }
}

#[test]
fn a_node_serves_until_it_is_told() {
    let now = Instant::now();
    let mut schedule = DrainSchedule::new(config(), now);
    assert_eq!((schedule.step(now, left(5), OTHERS, 0.0), schedule.phase()), (DrainStep::Rest, Phase::Serving));
}

#[test]
fn sockets_stay_for_the_delay_and_then_go_at_the_pace_that_others_take() {
    let start = Instant::now();
    let mut schedule = DrainSchedule::new(config(), start);
    schedule.begin(true, start);
    assert_eq!(
        (schedule.step(start, left(500), OTHERS, 0.0), schedule.phase()),
        (DrainStep::Wait(WAVE), Phase::Leaving)
    );
    let waves = waves(&mut schedule, start, 500, OTHERS);
    assert_eq!(waves.iter().map(|(_, count)| count).sum::<usize>(), 500);
    let (first, last) = (waves[0].0, waves[waves.len() - 1].0);
    assert!((5.0..5.2).contains(&first) && (9.5..10.5).contains(&last), "{first} {last}");
    for second in 5..10 {
        let from = f64::from(second);
        let closed: usize =
            waves.iter().filter(|(at, _)| (from..from + 1.0).contains(at)).map(|(_, count)| count).sum();
        assert!((80..=120).contains(&closed), "{closed} in second {second}");
    }
    assert_eq!(schedule.phase(), Phase::Drained);
}

#[test]
fn the_deadline_wins_over_what_others_can_take() {
    let start = Instant::now();
    let mut schedule = DrainSchedule::new(config(), start);
    schedule.begin(true, start);
    let waves = waves(&mut schedule, start, 15_000, OTHERS);
    let last = waves[waves.len() - 1].0;
    assert!((19.0..=20.3).contains(&last), "{last}");
    // Checks that a drain closes sockets evenly, without a large wave.
    assert!(waves.iter().all(|(_, count)| *count <= 250), "{waves:?}");
}

#[test]
fn nothing_is_waited_for_where_nobody_else_can_be_chosen() {
    let start = Instant::now();
    let mut schedule = DrainSchedule::new(config(), start);
    schedule.begin(true, start);
    let waves = waves(&mut schedule, start, 10, NOBODY);
    assert_eq!(waves.iter().map(|(_, count)| count).sum::<usize>(), 10);
    assert!(waves[0].0 == 0.0 && waves[waves.len() - 1].0 < 0.5, "{waves:?}");
}

#[test]
fn a_limit_slows_the_waves_but_not_beyond_the_deadline() {
    let start = Instant::now();
    let mut schedule = DrainSchedule::new(config::DrainSettings { pace: 10, ..config() }, start);
    schedule.begin(false, start);
    let slow = waves(&mut schedule, start, 50, OTHERS);
    assert!((9.0..11.0).contains(&slow[slow.len() - 1].0), "{slow:?}");
    let mut schedule = DrainSchedule::new(config::DrainSettings { pace: 10, ..config() }, start);
    schedule.begin(false, start);
    let many = waves(&mut schedule, start, 1500, OTHERS);
    assert!(many[many.len() - 1].0 <= 20.3);
}

#[test]
fn whoever_is_left_when_the_time_is_over_goes_at_once() {
    let start = Instant::now();
    let mut schedule = DrainSchedule::new(config(), start);
    schedule.begin(true, start);
    assert_eq!(schedule.step(start + seconds(21.0), left(700), OTHERS, 0.0), DrainStep::Close(700, WAVE));
}

#[test]
fn a_drained_node_can_serve_again_unless_its_process_ends() {
    let start = Instant::now();
    let mut schedule = DrainSchedule::new(config(), start);
    schedule.begin(false, start);
    waves(&mut schedule, start, 3, OTHERS);
    assert_eq!(schedule.phase(), Phase::Drained);
    assert_eq!((schedule.undo(), schedule.phase()), (Ok(()), Phase::Serving));
    schedule.begin(true, start);
    assert_eq!((schedule.undo(), schedule.phase()), (Err(EndIsFinal), Phase::Leaving));
}

#[test]
fn who_slipped_in_while_the_node_was_drained_is_closed_too() {
    let start = Instant::now();
    let mut schedule = DrainSchedule::new(config(), start);
    schedule.begin(false, start);
    assert_eq!(schedule.step(start, left(0), NOBODY, 0.0), DrainStep::Done);
    assert!(matches!(schedule.step(start, left(1), NOBODY, 0.0), DrainStep::Close(1, _)));
    assert_eq!(schedule.step(start, left(0), NOBODY, 0.0), DrainStep::Done);
}

#[test]
fn a_signal_gives_a_node_that_drains_its_own_time_and_no_second_delay() {
    let start = Instant::now();
    let mut schedule = DrainSchedule::new(config(), start);
    schedule.begin(false, start);
    waves(&mut schedule, start, 0, OTHERS);
    schedule.begin(true, start + seconds(1000.0));
    assert_eq!(schedule.step(start + seconds(1000.0), left(0), OTHERS, 0.0), DrainStep::Done);
    assert_eq!(schedule.ends_by(), start + seconds(1025.0));
}

#[test]
fn a_node_is_not_drained_before_its_last_client_is_gone_unless_it_is_time() {
    let start = Instant::now();
    let mut schedule = DrainSchedule::new(config(), start);
    schedule.begin(true, start);
    let slow = RemainingClients { unasked: 0, open: 1 };
    assert_eq!(schedule.step(start, slow, NOBODY, 0.0), DrainStep::Wait(WAVE));
    assert_eq!(schedule.step(start + seconds(20.0), slow, NOBODY, 0.0), DrainStep::Done);
}
