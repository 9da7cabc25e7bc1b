//! The ledger through the native host, against a model, and the audit against planted faults.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_sdk::prelude::Rejection;
use quorate_sdk::testing::TestHost;

use crate::audit::{Audit, Report, Told};
use crate::{Account, Command, Event, Ledger, Query, Statistics, workload};

fn open(account: &str) -> Command {
    Command::Open { account: account.into() }
}

fn deposit(account: &str, amount: u64) -> Command {
    Command::Deposit { account: account.into(), amount }
}

fn withdraw(account: &str, amount: u64) -> Command {
    Command::Withdraw { account: account.into(), amount }
}

fn transfer(from: &str, to: &str, amount: u64) -> Command {
    Command::Transfer { from: from.into(), to: to.into(), amount }
}

/// All accounts, page by page.
fn accounts(host: &TestHost<Ledger>, limit: u32) -> BTreeMap<String, Account> {
    let mut all = BTreeMap::new();
    let mut after = None;
    loop {
        let query = Query::Accounts { after: after.take(), limit: Some(limit) };
        let page: Vec<(String, Account)> = host.query(query).unwrap();
        assert!(page.len() <= limit as usize);
        after = page.last().map(|(name, _)| name.clone());
        all.extend(page);
        if after.is_none() {
            return all;
        }
    }
}

/// The ledger's rules without a store: what each command does to balances, or the name of its refusal.
fn model(balances: &mut BTreeMap<String, u64>, command: &Command) -> Result<(), &'static str> {
    let zero = |amount: u64| if amount == 0 { Err("zero-amount") } else { Ok(()) };
    match command {
        Command::Open { account } if account.is_empty() || account.len() > 64 => return Err("bad-name"),
        Command::Open { account } if balances.contains_key(account) => return Err("already-open"),
        Command::Open { account } => {
            balances.insert(account.clone(), 0);
        }
        Command::Deposit { account, amount } => {
            zero(*amount)?;
            let total: u64 = balances.values().sum();
            let balance = balances.get_mut(account).ok_or("not-open")?;
            total.checked_add(*amount).ok_or("too-much")?;
            *balance += amount;
        }
        Command::Withdraw { account, amount } => {
            zero(*amount)?;
            let balance = balances.get_mut(account).ok_or("not-open")?;
            *balance = balance.checked_sub(*amount).ok_or("insufficient-funds")?;
        }
        Command::Transfer { from, to, amount } => {
            zero(*amount)?;
            if from == to {
                return Err("same-account");
            }
            let source = *balances.get(from).ok_or("not-open")?;
            let target = *balances.get(to).ok_or("not-open")?;
            balances.insert(from.clone(), source.checked_sub(*amount).ok_or("insufficient-funds")?);
            balances.insert(to.clone(), target + amount);
        }
    }
    Ok(())
}

fn any_command() -> impl Strategy<Value = Command> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("c"), Just("")].prop_map(str::to_owned);
    let amount = || prop_oneof![0u64..50, Just(u64::MAX)];
    prop_oneof![
        name().prop_map(|account| Command::Open { account }),
        (name(), amount()).prop_map(|(account, amount)| Command::Deposit { account, amount }),
        (name(), amount()).prop_map(|(account, amount)| Command::Withdraw { account, amount }),
        (name(), name(), amount()).prop_map(|(from, to, amount)| Command::Transfer { from, to, amount }),
    ]
}

proptest! {
    #[test]
    fn every_command_does_what_the_model_does(
        batches in proptest::collection::vec(proptest::collection::vec(any_command(), 1..12), 1..8),
    ) {
        let mut host = TestHost::<Ledger>::new();
        let mut balances = BTreeMap::new();
        let mut audit = Audit::default();
        for batch in batches {
            let outcomes = host.apply_batch(batch.clone()).unwrap();
            for (command, outcome) in batch.iter().zip(outcomes) {
                let expected = model(&mut balances, command);
                let told = outcome.as_ref().map(|_| ()).map_err(|refused| refused.name.as_str());
                prop_assert_eq!(told, expected);
                audit.note(command, if outcome.is_ok() { Told::Done } else { Told::Rejected });
            }
        }
        let ledger = accounts(&host, 2);
        prop_assert_eq!(host.query::<u64>(Query::Total).unwrap(), balances.values().sum::<u64>());
        let actual: BTreeMap<String, u64> =
            ledger.iter().map(|(name, account)| (name.clone(), account.balance)).collect();
        prop_assert_eq!(actual, balances);
        let report = audit.compare(&ledger);
        prop_assert!(report.is_clean(), "{:?}", report);
        host.check_determinism();
    }
}

#[test]
fn every_refusal_has_its_code_and_leaves_nothing_behind() {
    let mut host = TestHost::<Ledger>::new();
    for command in [open("a"), open("b"), deposit("a", 10)] {
        host.apply(command).unwrap();
    }
    let before = (host.state(), host.events());
    for (command, code, name) in [
        (deposit("nobody", 1), 200, "not-open"),
        (open("a"), 201, "already-open"),
        (withdraw("a", 11), 202, "insufficient-funds"),
        (transfer("a", "b", 11), 202, "insufficient-funds"),
        (deposit("a", 0), 203, "zero-amount"),
        (transfer("a", "a", 1), 204, "same-account"),
        (open(""), 205, "bad-name"),
        (open(&"x".repeat(65)), 205, "bad-name"),
        (deposit("b", u64::MAX), 206, "too-much"),
    ] {
        let refused = host.apply(command).unwrap_err();
        assert_eq!((refused.code, refused.name.as_str()), (code, name), "{refused}");
    }
    assert_eq!((host.state(), host.events()), before);
}

#[test]
fn answers_and_queries_tell_balances() {
    let mut host = TestHost::<Ledger>::new();
    let answers: Vec<u64> = host
        .apply_batch([open("a"), open("b"), deposit("a", 10), transfer("a", "b", 4), withdraw("b", 1)])
        .unwrap()
        .into_iter()
        .skip(2)
        .map(|outcome| outcome.unwrap().read().unwrap())
        .collect();
    assert_eq!(answers, [10, 6, 3]);
    assert_eq!(
        host.query::<Account>(Query::Balance { account: "a".into() }).unwrap(),
        Account { balance: 6, applied: 3 }
    );
    assert_eq!(host.query::<u64>(Query::Total).unwrap(), 9);
    assert_eq!(
        host.query::<Statistics>(Query::Statistics).unwrap(),
        Statistics { opened: 2, deposits: 1, withdrawals: 1, transfers: 1, total: 9 }
    );
    let unknown: Result<Account, Rejection> = host.query(Query::Balance { account: "c".into() });
    assert_eq!(unknown.unwrap_err().name, "not-open");
}

#[test]
fn watchers_see_every_change() {
    let mut host = TestHost::<Ledger>::new();
    host.apply_batch([open("a"), open("b"), deposit("a", 10), transfer("a", "b", 4)]).unwrap();
    let events: Vec<Event> = host.events().iter().skip(2).map(|event| event.read().unwrap()).collect();
    let changed =
        |account: &str, amount, balance| Event::Changed { account: account.into(), amount, balance };
    assert_eq!(events, [changed("a", 10, 10), changed("a", -4, 6), changed("b", 4, 4)]);
    assert_eq!(host.events()[0].key, b"a");
}

/// The shipped commands carried out in order, with what clients are told.
fn shipped() -> (BTreeMap<String, Account>, Vec<(Command, Told)>) {
    let mut host = TestHost::<Ledger>::new();
    let mut told = Vec::new();
    for batch in workload::commands().chunks(256) {
        let outcomes = host.apply_batch(batch.to_vec()).unwrap();
        told.extend(batch.iter().cloned().zip(outcomes.iter().map(|outcome| match outcome {
            Ok(_) => Told::Done,
            Err(_) => Told::Rejected,
        })));
    }
    (accounts(&host, 30), told)
}

fn audit(told: &[(Command, Told)], ledger: &BTreeMap<String, Account>) -> Report {
    let mut audit = Audit::default();
    told.iter().for_each(|(command, told)| audit.note(command, *told));
    audit.compare(ledger)
}

#[test]
fn the_shipped_commands_are_what_the_generator_makes() {
    let shipped = include_str!("../commands.jsonl");
    let lines: Vec<&str> = shipped.lines().collect();
    assert_eq!(lines.len(), workload::COMMANDS);
    for (number, (line, command)) in lines.iter().zip(workload::commands()).enumerate() {
        assert_eq!(
            *line,
            workload::to_line(&command),
            "line {}; run the example `workload` again",
            number + 1
        );
        assert_eq!(workload::from_line(line).unwrap(), command, "line {}", number + 1);
    }
    assert!(workload::from_line("{\"command\":\"steal\",\"body\":{}}").is_err());
    assert!(workload::from_line("{\"command\":\"open\",\"body\":{\"account\":5}}").is_err());
    assert!(workload::from_line("{\"body\":{}}").is_err());
}

#[test]
fn the_shipped_commands_are_mostly_done_and_often_refused() {
    let (ledger, told) = shipped();
    let refused = told.iter().filter(|(_, told)| *told == Told::Rejected).count();
    assert!((500..4_000).contains(&refused), "{refused} of {} refused", told.len());
    let report = audit(&told, &ledger);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.acknowledged, workload::COMMANDS as u64);
    assert!(report.total > 0);
}

#[test]
fn the_audit_sees_lost_repeated_and_forged_commands() {
    let (ledger, mut told) = shipped();
    let done = told
        .iter()
        .rposition(|(command, told)| *told == Told::Done && matches!(command, Command::Deposit { .. }));
    let (command, _) = told[done.unwrap()].clone();

    told.push((command.clone(), Told::Done));
    let lost = audit(&told, &ledger);
    assert_eq!((lost.lost, lost.duplicated, lost.conserved), (1, 0, false));
    told.pop();

    told.remove(done.unwrap());
    let repeated = audit(&told, &ledger);
    assert_eq!((repeated.lost, repeated.duplicated, repeated.conserved), (0, 1, false));

    told.push((command.clone(), Told::Nothing));
    assert!(audit(&told, &ledger).is_clean(), "it may have been carried out once");

    let mut forged = ledger.clone();
    forged.get_mut(command.account()).unwrap().balance += 1_000_000;
    assert!(!audit(&told, &forged).conserved);
    let mut stranger = ledger;
    stranger.insert("stranger".into(), Account { balance: 0, applied: 1 });
    assert_eq!(audit(&told, &stranger).duplicated, 1);
}
