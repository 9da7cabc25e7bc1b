//! Figures of both sides, and their ratios.
//!
//! Relies on the generator's figures. Promises the median of the rounds' ratios, so that one disturbed
//! round does not decide. Knows neither side.

use std::fmt;

use anyhow::Result;
use quorate_cli::bench::figures::Figures;
use quorate_cli::output::{Output, table};
use serde_json::{Value, json};

/// One round: both sides measured one after the other.
#[derive(Clone, Debug)]
pub struct Round {
    /// This system.
    pub ours: Figures,
    /// The peer.
    pub theirs: Figures,
}

/// All rounds of one shape of load.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Clients, each with one put outstanding.
    pub clients: usize,
    /// Connections that they share.
    pub connections: usize,
    /// In the order in which they were measured.
    pub rounds: Vec<Round>,
}

impl Round {
    /// Our commands per second for one of theirs; above 1 is better.
    fn ratio_commands(&self) -> f64 {
        self.ours.commands_per_second / self.theirs.commands_per_second.max(f64::EPSILON)
    }

    /// Our median latency for one of theirs; below 1 is better.
    fn ratio_p50(&self) -> f64 {
        self.ours.p50_us as f64 / self.theirs.p50_us.max(1) as f64
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ours, theirs } = self;
        write!(
            f,
            "quorate {:.0}/s, median {} us; etcd {:.0}/s, median {} us; {:.1}x the commands, {:.2}x the median",
            ours.commands_per_second,
            ours.p50_us,
            theirs.commands_per_second,
            theirs.p50_us,
            self.ratio_commands(),
            self.ratio_p50(),
        )
    }
}

impl Comparison {
    fn ratio_commands(&self) -> f64 {
        median(self.rounds.iter().map(Round::ratio_commands))
    }

    fn ratio_p50(&self) -> f64 {
        median(self.rounds.iter().map(Round::ratio_p50))
    }

    fn to_json(&self) -> Value {
        let hundredths = |value: f64| (value * 100.0).round() / 100.0;
        let round =
            |round: &Round| json!({ "quorate": round.ours.to_json(), "etcd": round.theirs.to_json() });
        json!({
            "peer": "etcd",
            "clients": self.clients,
            "connections": self.connections,
            "ratio_commands": hundredths(self.ratio_commands()),
            "ratio_p50": hundredths(self.ratio_p50()),
            "rounds": self.rounds.iter().map(round).collect::<Vec<_>>(),
        })
    }

    fn row(&self) -> Vec<String> {
        let middle = |of: fn(&Round) -> f64| median(self.rounds.iter().map(of));
        vec![
            self.clients.to_string(),
            self.connections.to_string(),
            format!("{:.0}", middle(|round| round.ours.commands_per_second)),
            format!("{:.0}", middle(|round| round.theirs.commands_per_second)),
            format!("{:.1}", self.ratio_commands()),
            format!("{:.0}", middle(|round| round.ours.p50_us as f64)),
            format!("{:.0}", middle(|round| round.theirs.p50_us as f64)),
            format!("{:.2}", self.ratio_p50()),
            format!("{:.1}", middle(|round| round.ours.cpu_us_per_command)),
            format!("{:.1}", middle(|round| round.theirs.cpu_us_per_command)),
        ]
    }
}

/// Shows all comparisons.
pub fn show(comparisons: &[Comparison], output: Output) -> Result<()> {
    let value: Vec<_> = comparisons.iter().map(Comparison::to_json).collect();
    let columns = [
        "clients",
        "connections",
        "quorate/s",
        "etcd/s",
        "ratio",
        "quorate us",
        "etcd us",
        "ratio",
        "quorate cpu us",
        "etcd cpu us",
    ];
    output.show(&Value::from(value), || table(&columns, comparisons.iter().map(Comparison::row)))
}

/// The middle value; of an even number, the mean of the two in the middle. Not a number of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(commands_per_second: f64, p50_us: u64) -> Figures {
        Figures {
            commands: 1,
            seconds: 1.0,
            commands_per_second,
            p50_us,
            p99_us: p50_us,
            max_us: p50_us,
            errors: 0,
            cpu_us_per_command: 1.0,
            cpu: Vec::new(),
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 3.0].into_iter()) - 2.5).abs() < 1e-9);
        assert!(median([].into_iter()).is_nan());
    }

    #[test]
    fn one_disturbed_round_does_not_decide_and_raw_figures_stay() {
        let round = |ours, theirs| Round { ours: figures(ours, 100), theirs: figures(theirs, 400) };
        let rounds = vec![round(100.0, 10.0), round(110.0, 10.0), round(5.0, 10.0)];
        let value = Comparison { clients: 256, connections: 16, rounds }.to_json();
        assert_eq!((&value["ratio_commands"], &value["ratio_p50"]), (&json!(10.0), &json!(0.25)));
        assert_eq!(value["rounds"][2]["quorate"]["commands_per_second"], 5.0);
        assert_eq!(value["peer"], "etcd");
    }
}
