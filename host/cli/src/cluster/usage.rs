//! Processor time of processes, as the kernel counts it.
//!
//! Relies on `/proc`. Promises user and system time of all threads of a process, in ticks of ten
//! milliseconds. Knows nothing of what the processes do.

use std::fs;
use std::time::Duration;

/// The kernel shows times in ticks of this length to every program, whatever its own timer does.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of a process so far; none if it is gone or the system has no `/proc`.
#[must_use]
pub fn processor_time(pid: u32) -> Option<Duration> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads fields 14 and 15 of `/proc/PID/stat`; the program's name, in parentheses, may hold anything.
fn parse(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn user_and_system_time_are_added_whatever_the_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1 1";
        assert_eq!(parse(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse("42 (short) S 1"), None);
    }

    #[test]
    fn this_process_has_a_time_and_no_process_has_none() {
        assert!(processor_time(std::process::id()).is_some());
        assert_eq!(processor_time(u32::MAX), None);
    }
}
