//! Checks a ledger against what its clients were told, without knowing the order of the commands.
//!
//! Relies on what the ledger promises: a command that was carried out raises the count of exactly one
//! account and moves exactly its amount. Promises to tell lost from repeated commands. Knows no cluster.
//!
//! For each account, of the commands that name it first:
//!
//! ```text
//! done           <= applied <= done + unknown      less: lost            more: repeated
//! moved by done   = balance                        while nothing is unknown
//! ```

use std::collections::BTreeMap;

use crate::{Account, Command};

/// What a client was told of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was carried out.
    Done,
    /// It was refused.
    Rejected,
    /// Nothing: it may have been carried out, at most once.
    Nothing,
}

/// What must be in an account if the ledger told the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Expected {
    /// Commands carried out that name it first.
    done: u64,
    /// Commands of unknown outcome that name it first.
    unknown: u64,
    /// What the commands that were carried out moved in, less what they moved out.
    balance: i128,
    /// The most that commands of unknown outcome may have moved in.
    unknown_in: i128,
    /// The most that commands of unknown outcome may have moved out.
    unknown_out: i128,
}

/// What clients were told so far.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    accounts: BTreeMap<String, Expected>,
    acknowledged: u64,
}

/// What the audit found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Commands whose outcome a client was told, refusals included.
    pub acknowledged: u64,
    /// Commands that were told to be carried out and are not in the ledger.
    pub lost: u64,
    /// Times that a command was carried out again, or although it was refused.
    pub duplicated: u64,
    /// Whether every balance, and so their sum, is what the commands explain.
    pub conserved: bool,
    /// The sum of all balances.
    pub total: u64,
    /// What is wrong, account by account; the first few.
    pub problems: Vec<String>,
}

/// How many problems a report spells out.
const PROBLEMS_MAX: usize = 20;

impl Report {
    /// Whether nothing was lost, repeated or created.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.conserved
    }
}

impl Audit {
    /// Notes what a client was told of a command. Any order will do.
    pub fn note(&mut self, command: &Command, told: Told) {
        if told != Told::Nothing {
            self.acknowledged += 1;
        }
        if told == Told::Rejected {
            return;
        }
        let known = told == Told::Done;
        let first = self.accounts.entry(command.account().to_owned()).or_default();
        if known {
            first.done += 1;
        } else {
            first.unknown += 1;
        }
        match command {
            Command::Open { .. } => {}
            Command::Deposit { account, amount } => self.move_in(account, *amount, known),
            Command::Withdraw { account, amount } => self.move_out(account, *amount, known),
            Command::Transfer { from, to, amount } => {
                self.move_out(from, *amount, known);
                self.move_in(to, *amount, known);
            }
        }
    }

    fn move_in(&mut self, account: &str, amount: u64, known: bool) {
        let expected = self.accounts.entry(account.to_owned()).or_default();
        let side = if known { &mut expected.balance } else { &mut expected.unknown_in };
        *side += i128::from(amount);
    }

    fn move_out(&mut self, account: &str, amount: u64, known: bool) {
        let expected = self.accounts.entry(account.to_owned()).or_default();
        if known {
            expected.balance -= i128::from(amount);
        } else {
            expected.unknown_out += i128::from(amount);
        }
    }

    /// The sum of all balances that the commands known to be carried out explain.
    #[must_use]
    pub fn expected_total(&self) -> i128 {
        self.accounts.values().map(|expected| expected.balance).sum()
    }

    /// Compares with every account of the ledger, by name.
    #[must_use]
    pub fn compare(&self, ledger: &BTreeMap<String, Account>) -> Report {
        let mut report = Report {
            acknowledged: self.acknowledged,
            lost: 0,
            duplicated: 0,
            conserved: true,
            total: 0,
            problems: Vec::new(),
        };
        let mut names: Vec<&String> = self.accounts.keys().chain(ledger.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let expected = self.accounts.get(name).copied().unwrap_or_default();
            let actual = ledger.get(name).copied().unwrap_or_default();
            report.total = report.total.saturating_add(actual.balance);
            if let Some(problem) = judge(&mut report, expected, actual)
                && report.problems.len() < PROBLEMS_MAX
            {
                report.problems.push(format!("{name}: {problem}"));
            }
        }
        report
    }
}

/// Counts what is wrong with one account and says it.
fn judge(report: &mut Report, expected: Expected, actual: Account) -> Option<String> {
    let lost = expected.done.saturating_sub(actual.applied);
    let duplicated = actual.applied.saturating_sub(expected.done + expected.unknown);
    report.lost += lost;
    report.duplicated += duplicated;
    let balance = i128::from(actual.balance);
    let least = expected.balance - expected.unknown_out;
    let most = expected.balance + expected.unknown_in;
    let explained = (least..=most).contains(&balance);
    report.conserved &= explained;
    if lost == 0 && duplicated == 0 && explained {
        return None;
    }
    Some(format!(
        "{} commands done, {} unknown, {} in the ledger; balance {least} to {most} told, {balance} there",
        expected.done, expected.unknown, actual.applied
    ))
}
