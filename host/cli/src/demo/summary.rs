//! What the demonstration found.
//!
//! Relies on the ledger's audit. Promises the keys of `cargo xtask demo --output json`, and that nothing
//! counts as held unless all of it is. Knows no cluster.

use std::path::Path;
use std::time::Duration;

use quorate_ledger::audit::Report;
use serde_json::{Value, json};

use crate::output::{pairs, table};

/// One replica at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The node it runs on.
    pub node: u64,
    /// The last entry it applied.
    pub applied_index: u64,
    /// Digest of its state there, in hexadecimal digits.
    pub state_digest: String,
}

/// Whether there are several replicas, all at the same index with the same state.
pub fn agree(replicas: &[Replica]) -> bool {
    let same = |pair: &[Replica]| {
        pair[0].applied_index == pair[1].applied_index && pair[0].state_digest == pair[1].state_digest
    };
    replicas.len() > 1 && replicas.windows(2).all(same)
}

/// Replicas for programs.
pub fn replicas_json(replicas: &[Replica]) -> Vec<Value> {
    let of = |replica: &Replica| {
        json!({
            "node": replica.node, "applied_index": replica.applied_index,
            "state_digest": replica.state_digest,
        })
    };
    replicas.iter().map(of).collect()
}

/// Replicas for people.
pub fn replicas_table(replicas: &[Replica]) -> String {
    let rows = replicas.iter().map(|replica| {
        [replica.node.to_string(), replica.applied_index.to_string(), replica.state_digest.clone()]
    });
    table(&["node", "applied index", "state digest"], rows)
}

/// What became of a node's lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lies {
    /// The node that lied.
    pub node: u64,
    /// What the proofs say that the group's log holds, each verified.
    pub proofs: Vec<String>,
    /// Proofs that do not hold, or are about another node.
    pub wrong: usize,
}

impl Lies {
    /// Whether the liar was found out, and nobody else was called one.
    fn are_found(&self) -> bool {
        !self.proofs.is_empty() && self.wrong == 0
    }
}

/// All that was found.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Commands in the file.
    pub commands: usize,
    /// What the audit says.
    pub report: Report,
    /// The longest silence around the kill of the leader.
    pub failover: Duration,
    /// The longest silence around the kill of all nodes, if they were killed.
    pub recovery: Option<Duration>,
    /// What the log proves, if a node lied.
    pub lies: Option<Lies>,
    /// From the first command to the last answer, both outages included.
    pub elapsed: Duration,
    /// Acknowledged commands that the ledger refused.
    pub refused: usize,
    /// Every replica.
    pub replicas: Vec<Replica>,
}

impl Summary {
    /// Whether all replicas are at the same index with the same state.
    #[must_use]
    pub fn agrees(&self) -> bool {
        agree(&self.replicas)
    }

    /// Whether all that the demonstration promises is so.
    #[must_use]
    pub fn held(&self) -> bool {
        let lies_found = self.lies.as_ref().is_none_or(Lies::are_found);
        let all = self.report.acknowledged == self.commands as u64;
        self.report.is_clean() && all && self.agrees() && lies_found
    }

    fn commands_per_second(&self) -> f64 {
        self.report.acknowledged as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "acknowledged": self.report.acknowledged,
            "lost": self.report.lost,
            "duplicated": self.report.duplicated,
            "conserved": self.report.conserved,
            "failover_ms": millis(self.failover),
            "recovery_ms": self.recovery.map(millis),
            "liar": self.lies.as_ref().map(|lies| lies.node),
            "evidence": self.lies.as_ref().map(|lies| lies.proofs.clone()),
            "commands_per_second": self.commands_per_second().round(),
            "replicas": replicas_json(&self.replicas),
            "refused": self.refused,
            "agreed": self.agrees(),
        })
    }

    /// For people. `kept` is where the cluster can be started again.
    #[must_use]
    pub fn to_text(&self, kept: Option<&Path>) -> String {
        let report = &self.report;
        let mut lines = vec![
            (
                "acknowledged",
                format!(
                    "{} of {} commands ({} refused by the ledger)",
                    report.acknowledged, self.commands, self.refused
                ),
            ),
            ("lost", report.lost.to_string()),
            ("duplicated", report.duplicated.to_string()),
            ("money conserved", format!("{} (total {})", yes(report.conserved), report.total)),
            (
                "fail-over",
                format!("{} ms without an answer when the leader was killed", millis(self.failover)),
            ),
            ("commands/s", format!("{:.0}, both outages included", self.commands_per_second())),
            ("replicas agree", yes(self.agrees()).to_owned()),
        ];
        lines.extend(self.recovery.map(|recovery| {
            let text = format!("{} ms without an answer when every node was killed", millis(recovery));
            ("recovery", text)
        }));
        if let Some(lies) = &self.lies {
            let text =
                format!("node {}; the log proves it with {} of its lies", lies.node, lies.proofs.len());
            lines.push(("lied", text));
            lines.extend(lies.proofs.iter().map(|proof| ("evidence", proof.clone())));
        }
        let head = pairs(&lines);
        let replicas = replicas_table(&self.replicas);
        let problems: String = report.problems.iter().map(|problem| format!("\n  {problem}")).collect();
        let again = match kept {
            Some(directory) => format!(
                "\n  quorate dev --data {}       this cluster again, with its data",
                directory.display()
            ),
            None => String::new(),
        };
        format!(
            "{head}\n{replicas}{problems}\n\nWhat to try next:{again}\n  \
             quorate dev                                a cluster of your own\n  \
             quorate bench                              how fast it is on this machine\n  \
             cargo xtask sim --seeds 100                thousands of failures in simulated time"
        )
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn yes(holds: bool) -> &'static str {
    if holds { "yes" } else { "NO" }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate_ledger::audit::{Audit, Told};
    use quorate_ledger::{Account, Command};

    use super::*;

    fn deposit(amount: u64) -> Command {
        Command::Deposit { account: "a".into(), amount }
    }

    /// Two deposits were acknowledged; the ledger holds `balance` after `applied` commands.
    fn summary(balance: u64, applied: u64) -> Summary {
        let mut audit = Audit::default();
        audit.note(&deposit(5), Told::Done);
        audit.note(&deposit(7), Told::Done);
        let ledger = BTreeMap::from([("a".to_owned(), Account { balance, applied })]);
        let replica = |node| Replica { node, applied_index: 9, state_digest: "ab".into() };
        Summary {
            commands: 2,
            report: audit.compare(&ledger),
            failover: Duration::from_millis(210),
            recovery: Some(Duration::from_millis(900)),
            lies: None,
            elapsed: Duration::from_secs(1),
            refused: 0,
            replicas: vec![replica(1), replica(2), replica(3)],
        }
    }

    #[test]
    fn a_clean_run_holds() {
        let summary = summary(12, 2);
        assert!(summary.held());
        let value = summary.to_json();
        assert_eq!(
            (&value["lost"], &value["duplicated"], &value["conserved"]),
            (&json!(0), &json!(0), &json!(true))
        );
        assert_eq!(value["failover_ms"], 210);
        assert_eq!(value["replicas"][2]["node"], 3);
    }

    #[test]
    fn a_planted_loss_is_found() {
        let summary = summary(5, 1);
        assert!(!summary.held());
        assert_eq!((summary.report.lost, summary.report.conserved), (1, false));
    }

    #[test]
    fn a_planted_duplicate_is_found() {
        let summary = summary(17, 3);
        assert!(!summary.held());
        assert_eq!((summary.report.duplicated, summary.report.conserved), (1, false));
    }

    #[test]
    fn money_from_nowhere_is_found() {
        let summary = summary(13, 2);
        assert!(!summary.held());
        assert!(!summary.report.conserved);
    }

    #[test]
    fn a_command_without_an_answer_does_not_hold() {
        let unanswered = Summary { commands: 3, ..summary(12, 2) };
        assert!(!unanswered.held());
    }

    #[test]
    fn a_liar_must_be_found_and_nobody_else() {
        let with = |proofs: &[&str], wrong| {
            let proofs = proofs.iter().map(|&proof| proof.to_owned()).collect();
            Summary { lies: Some(Lies { node: 4, proofs, wrong }), ..summary(12, 2) }
        };
        assert!(with(&["two votes"], 0).held());
        assert!(!with(&[], 0).held());
        assert!(!with(&["two votes"], 1).held());
        assert_eq!(with(&["two votes"], 0).to_json()["evidence"], json!(["two votes"]));
    }

    #[test]
    fn replicas_that_differ_do_not_hold() {
        let mut other = summary(12, 2);
        other.replicas[1].state_digest = "cd".into();
        assert!(!other.held());
        let mut behind = summary(12, 2);
        behind.replicas[2].applied_index = 8;
        assert!(!behind.held());
        assert!(!Summary { replicas: Vec::new(), ..summary(12, 2) }.held());
    }
}
