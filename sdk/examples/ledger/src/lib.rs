//! A ledger: accounts, deposits, withdrawals and transfers, with invariants that a lost or repeated
//! command breaks visibly.
//!
//! Relies on the SDK only. Promises that no balance falls below zero, that the sum of all balances is
//! what was deposited less what was withdrawn, and that every account counts the commands it carried
//! out. Deliberately not idempotent: a deposit that is applied twice is counted twice. Knows nothing of
//! sessions; that commands are applied once is the host's work, which this makes checkable.
//!
//! ```text
//! accounts/<name> = { balance, applied }     `applied` counts commands that name the account first
//! statistics      = { opened, deposits, withdrawals, transfers, total }
//! ```

#[cfg(not(target_arch = "wasm32"))]
pub mod audit;
#[cfg(not(target_arch = "wasm32"))]
pub mod workload;

use quorate_sdk::prelude::*;

/// The longest account name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The most accounts in one answer.
pub const PAGE_MAX: u32 = 500;

const ACCOUNTS: Map<String, Account> = Map::new("accounts");
const STATISTICS: Value<Statistics> = Value::new("statistics");

/// What changes the ledger. Amounts are whole units above zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Opens an account with nothing in it.
    Open {
        /// 1 to [`NAME_BYTES_MAX`] bytes.
        account: String,
    },
    /// Brings money in; answers with the balance.
    Deposit {
        /// An open account.
        account: String,
        /// How much.
        amount: u64,
    },
    /// Takes money out; answers with the balance.
    Withdraw {
        /// An open account.
        account: String,
        /// At most its balance.
        amount: u64,
    },
    /// Moves money; answers with the balance of the account it came from.
    Transfer {
        /// An open account.
        from: String,
        /// Another open account.
        to: String,
        /// At most the balance of `from`.
        amount: u64,
    },
}

impl Command {
    /// The account that counts this command.
    #[must_use]
    pub fn account(&self) -> &str {
        match self {
            Self::Open { account } | Self::Deposit { account, .. } | Self::Withdraw { account, .. } => {
                account
            }
            Self::Transfer { from, .. } => from,
        }
    }
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// One account.
    Balance {
        /// Its name.
        account: String,
    },
    /// Accounts in the order of their names, with those names.
    Accounts {
        /// Only names after this one: the last of the page before.
        #[serde(default)]
        after: Option<String>,
        /// How many at most; [`PAGE_MAX`] if it is left out or greater.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// The sum of all balances.
    Total,
    /// How many commands of each kind were carried out.
    Statistics,
}

/// What watchers are shown, about the account's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// An account was opened.
    Opened {
        /// Its name.
        account: String,
    },
    /// Money came in, or went out if `amount` is below zero.
    Changed {
        /// Where.
        account: String,
        /// By how much.
        amount: i128,
        /// What is there now.
        balance: u64,
    },
}

/// One account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What is in it.
    pub balance: u64,
    /// How many commands were carried out that name it first: opening, deposits, withdrawals, and
    /// transfers from it.
    pub applied: u64,
}

/// The ledger as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Accounts that were opened.
    pub opened: u64,
    /// Deposits that were carried out.
    pub deposits: u64,
    /// Withdrawals that were carried out.
    pub withdrawals: u64,
    /// Transfers that were carried out.
    pub transfers: u64,
    /// The sum of all balances.
    pub total: u64,
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, Reject)]
pub enum Refused {
    /// The account is not open.
    #[reject(code = 200, message = "account `{account}` is not open")]
    NotOpen {
        /// Its name.
        account: String,
    },
    /// The account is open already.
    #[reject(code = 201, message = "account `{account}` is open already")]
    AlreadyOpen {
        /// Its name.
        account: String,
    },
    /// The balance does not suffice.
    #[reject(code = 202, message = "account `{account}` has {balance}, which is less than {amount}")]
    InsufficientFunds {
        /// Its name.
        account: String,
        /// What is in it.
        balance: u64,
        /// What was asked for.
        amount: u64,
    },
    /// The amount is zero.
    #[reject(code = 203, message = "an amount is at least 1")]
    ZeroAmount,
    /// A transfer names one account twice.
    #[reject(code = 204, message = "a transfer needs two accounts, and both are `{account}`")]
    SameAccount {
        /// Its name.
        account: String,
    },
    /// The name is empty or too long.
    #[reject(code = 205, message = "an account's name has 1 to 64 bytes, this one {bytes}")]
    BadName {
        /// Its length.
        bytes: usize,
    },
    /// The sum of all balances would exceed 64 bits.
    #[reject(code = 206, message = "the ledger cannot hold {amount} more")]
    TooMuch {
        /// What was to come in.
        amount: u64,
    },
}

/// The ledger.
pub struct Ledger;

impl StateMachine for Ledger {
    const NAME: &'static str = "ledger";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    type Command = Command;
    type Query = Query;
    type Event = Event;

    fn apply(ctx: &mut Context, command: Command) -> Result<Answer, Rejection> {
        match command {
            Command::Open { account } => open(ctx, &account),
            Command::Deposit { account, amount } => deposit(ctx, &account, amount),
            Command::Withdraw { account, amount } => withdraw(ctx, &account, amount),
            Command::Transfer { from, to, amount } => transfer(ctx, &from, &to, amount),
        }
    }

    fn query(view: &View, query: Query) -> Result<Answer, Rejection> {
        match query {
            Query::Balance { account } => answer(find(view, &account)?),
            Query::Accounts { after, limit } => {
                let limit = limit.unwrap_or(PAGE_MAX).min(PAGE_MAX) as usize;
                let accounts = match after {
                    Some(after) => ACCOUNTS.after(view, &after),
                    None => ACCOUNTS.iter(view),
                };
                answer(accounts.take(limit).collect::<Vec<_>>())
            }
            Query::Total => answer(statistics(view).total),
            Query::Statistics => answer(statistics(view)),
        }
    }
}

fn statistics(from: &impl Read) -> Statistics {
    STATISTICS.get(from).unwrap_or_default()
}

fn find(from: &impl Read, account: &str) -> Result<Account, Refused> {
    ACCOUNTS.get(from, account).ok_or_else(|| Refused::NotOpen { account: account.into() })
}

fn positive(amount: u64) -> Result<(), Refused> {
    if amount > 0 { Ok(()) } else { Err(Refused::ZeroAmount) }
}

/// The balance of `account` less `amount`.
fn less(account: &str, balance: u64, amount: u64) -> Result<u64, Refused> {
    let short = || Refused::InsufficientFunds { account: account.into(), balance, amount };
    balance.checked_sub(amount).ok_or_else(short)
}

fn show_change(ctx: &mut Context, account: &str, amount: i128, balance: u64) {
    let event = Event::Changed { account: account.into(), amount, balance };
    ctx.emit_about(account.as_bytes(), &event);
}

fn open(ctx: &mut Context, account: &str) -> Result<Answer, Rejection> {
    if !(1..=NAME_BYTES_MAX).contains(&account.len()) {
        return Err(Refused::BadName { bytes: account.len() }.into());
    }
    if ACCOUNTS.contains(ctx, account) {
        return Err(Refused::AlreadyOpen { account: account.into() }.into());
    }
    let mut sums = statistics(ctx);
    sums.opened += 1;
    STATISTICS.set(ctx, &sums);
    ACCOUNTS.insert(ctx, account, &Account { balance: 0, applied: 1 });
    ctx.emit_about(account.as_bytes(), &Event::Opened { account: account.into() });
    done()
}

fn deposit(ctx: &mut Context, account: &str, amount: u64) -> Result<Answer, Rejection> {
    positive(amount)?;
    let mut found = find(ctx, account)?;
    let mut sums = statistics(ctx);
    // The total bounds every balance, so no other sum can overflow.
    sums.total = sums.total.checked_add(amount).ok_or(Refused::TooMuch { amount })?;
    sums.deposits += 1;
    found.balance += amount;
    found.applied += 1;
    STATISTICS.set(ctx, &sums);
    ACCOUNTS.insert(ctx, account, &found);
    show_change(ctx, account, amount.into(), found.balance);
    answer(found.balance)
}

fn withdraw(ctx: &mut Context, account: &str, amount: u64) -> Result<Answer, Rejection> {
    positive(amount)?;
    let mut found = find(ctx, account)?;
    found.balance = less(account, found.balance, amount)?;
    found.applied += 1;
    let mut sums = statistics(ctx);
    sums.total -= amount;
    sums.withdrawals += 1;
    STATISTICS.set(ctx, &sums);
    ACCOUNTS.insert(ctx, account, &found);
    show_change(ctx, account, -i128::from(amount), found.balance);
    answer(found.balance)
}

fn transfer(ctx: &mut Context, from: &str, to: &str, amount: u64) -> Result<Answer, Rejection> {
    positive(amount)?;
    if from == to {
        return Err(Refused::SameAccount { account: from.into() }.into());
    }
    let mut source = find(ctx, from)?;
    let mut target = find(ctx, to)?;
    source.balance = less(from, source.balance, amount)?;
    source.applied += 1;
    target.balance += amount;
    let mut sums = statistics(ctx);
    sums.transfers += 1;
    STATISTICS.set(ctx, &sums);
    ACCOUNTS.insert(ctx, from, &source);
    ACCOUNTS.insert(ctx, to, &target);
    show_change(ctx, from, -i128::from(amount), source.balance);
    show_change(ctx, to, amount.into(), target.balance);
    answer(source.balance)
}

quorate_sdk::export!(Ledger);

#[cfg(test)]
mod tests;
