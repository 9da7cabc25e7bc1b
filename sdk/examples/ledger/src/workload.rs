//! The commands that ship with the ledger, and their form as lines of JSON.
//!
//! Relies on the SDK's generator, whose draws never change. Promises the same 10,000 commands for ever:
//! `commands.jsonl` is this module's output. Knows no client.
//!
//! ```text
//! cargo run -p quorate-ledger --example workload > sdk/examples/ledger/commands.jsonl
//! ```

use quorate_sdk::{Random, cbor, named};
use serde_json::Value;

use crate::Command;

/// How many commands ship.
pub const COMMANDS: usize = 10_000;
/// How many accounts are opened, by the first commands.
pub const ACCOUNTS: u64 = 100;
/// What fixes the draws.
const SEED: &[u64] = &[0x1ed9e7];
/// The greatest amount of a deposit.
const DEPOSIT_MAX: u64 = 1_000;
/// The greatest amount of a withdrawal or transfer; above what many accounts hold.
const REMOVAL_MAX: u64 = 2_500;

/// Why a line is not a command.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It is not JSON.
    #[error("not a line of JSON ({0}); write {{\"command\":\"open\",\"body\":{{\"account\":\"a\"}}}}")]
    Json(#[from] serde_json::Error),
    /// It is not of the form.
    #[error("the line needs a text `command` and a `body`")]
    Form,
    /// The ledger has no such command.
    #[error("not a command of the ledger: {0}")]
    Command(#[from] named::NamedError),
    /// The body has no form in CBOR.
    #[error("the body cannot be encoded: {0}")]
    Body(#[from] quorate_sdk::CodecError),
}

fn account(number: u64) -> String {
    format!("account-{number:03}")
}

/// The commands that ship: first every account is opened, then come deposits, withdrawals and
/// transfers, some of which must be refused.
#[must_use]
pub fn commands() -> Vec<Command> {
    let mut random = Random::from_seed(SEED);
    let opening = (0..ACCOUNTS).map(|number| Command::Open { account: account(number) });
    let mut commands: Vec<Command> = opening.collect();
    commands.extend((0..ACCOUNTS).map(|number| Command::Deposit { account: account(number), amount: 1_000 }));
    while commands.len() < COMMANDS {
        commands.push(draw(&mut random));
    }
    commands
}

fn draw(random: &mut Random) -> Command {
    let any = |random: &mut Random| account(random.below(ACCOUNTS));
    match random.below(100) {
        0..45 => Command::Deposit { account: any(random), amount: 1 + random.below(DEPOSIT_MAX) },
        45..65 => Command::Withdraw { account: any(random), amount: 1 + random.below(REMOVAL_MAX) },
        65..95 => {
            Command::Transfer { from: any(random), to: any(random), amount: 1 + random.below(REMOVAL_MAX) }
        }
        // What follows is always refused.
        95 => Command::Open { account: any(random) },
        96 => Command::Deposit { account: format!("nobody-{}", random.below(10)), amount: 1 },
        97 => Command::Withdraw { account: any(random), amount: 0 },
        98 => {
            let same = any(random);
            Command::Transfer { from: same.clone(), to: same, amount: 1 }
        }
        _ => Command::Withdraw { account: any(random), amount: u64::MAX },
    }
}

/// A command as one line: `{"command":"deposit","body":{..}}`.
#[must_use]
pub fn to_line(command: &Command) -> String {
    let quoted = |text: &String| Value::from(text.as_str()).to_string();
    // Written out, since the order in which a JSON library puts fields depends on its features.
    let (name, body) = match command {
        Command::Open { account } => ("open", format!("{{\"account\":{}}}", quoted(account))),
        Command::Deposit { account, amount } => {
            ("deposit", format!("{{\"account\":{},\"amount\":{amount}}}", quoted(account)))
        }
        Command::Withdraw { account, amount } => {
            ("withdraw", format!("{{\"account\":{},\"amount\":{amount}}}", quoted(account)))
        }
        Command::Transfer { from, to, amount } => {
            let (from, to) = (quoted(from), quoted(to));
            ("transfer", format!("{{\"from\":{from},\"to\":{to},\"amount\":{amount}}}"))
        }
    };
    format!("{{\"command\":\"{name}\",\"body\":{body}}}")
}

/// Reads a line, the way that a client turns JSON into a command of any component.
///
/// # Errors
///
/// [`LineError`] for whatever is not a command of the ledger.
pub fn from_line(line: &str) -> Result<Command, LineError> {
    let value: Value = serde_json::from_str(line)?;
    let name = value["command"].as_str().ok_or(LineError::Form)?;
    let body = value.get("body").ok_or(LineError::Form)?;
    Ok(named::decode(name, &cbor::to_vec(body)?)?)
}
