//! What clients do: commands and queries of the ledger example, and the books kept a second time.
//!
//! Relies on CBOR for bodies and on the ledger's documented rules, not on its code. Promises commands of
//! which none may count twice unnoticed, refusals included. Knows no session.

use std::collections::BTreeMap;

use bytes::Bytes;
use ciborium::Value;

use crate::random::Random;

/// Accounts that all clients of a group share.
const ACCOUNTS: u64 = 12;
/// The greatest amount of one command.
const AMOUNT_MAX: u64 = 500;

/// An answer of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// That it was done, and no more.
    Nothing,
    /// A balance.
    Balance(u64),
    /// How many commands of each kind were carried out, and the sum of all balances.
    Reading(Reading),
}

/// The ledger as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    opened: u64,
    deposits: u64,
    withdrawals: u64,
    transfers: u64,
    total: u64,
}

impl Answer {
    /// Whether a body says this.
    #[must_use]
    pub fn is(&self, body: &[u8]) -> bool {
        match self {
            Self::Nothing => body.is_empty(),
            Self::Balance(balance) => {
                ciborium::from_reader::<u64, _>(body).is_ok_and(|told| told == *balance)
            }
            Self::Reading(reading) => {
                ciborium::from_reader::<Reading, _>(body).is_ok_and(|told| told == *reading)
            }
        }
    }
}

/// Makes the commands of one client.
#[derive(Debug)]
pub struct Workload {
    random: Random,
    /// Accounts are opened by whoever comes first; each client tries a few.
    to_open: Vec<String>,
}

impl Workload {
    /// The workload of a client.
    #[must_use]
    pub fn new(client: u32, random: Random) -> Self {
        let mine = (0..ACCOUNTS).filter(|number| number % 3 == u64::from(client) % 3 || *number < 2);
        Self { random, to_open: mine.map(name).collect() }
    }

    /// The next command: its name and body.
    pub fn command(&mut self) -> (String, Bytes) {
        if let Some(account) = self.to_open.pop() {
            return ("open".to_owned(), body(&[("account", account.into())]));
        }
        let account = self.account();
        let amount = self.random.between(1, AMOUNT_MAX);
        match self.random.below(10) {
            0..=4 => command("deposit", &[("account", account.into()), ("amount", amount.into())]),
            5 | 6 => command("withdraw", &[("account", account.into()), ("amount", amount.into())]),
            _ => {
                let to = self.account();
                command("transfer", &[("from", account.into()), ("to", to.into()), ("amount", amount.into())])
            }
        }
    }

    /// The next query: its name and body.
    pub fn query(&mut self) -> (String, Bytes) {
        reading_query()
    }

    fn account(&mut self) -> String {
        name(self.random.below(ACCOUNTS))
    }
}

/// The query for the ledger as a whole.
#[must_use]
pub fn reading_query() -> (String, Bytes) {
    ("statistics".to_owned(), Bytes::new())
}

fn name(number: u64) -> String {
    format!("account-{number}")
}

fn command(name: &str, fields: &[(&str, Value)]) -> (String, Bytes) {
    (name.to_owned(), body(fields))
}

fn body(fields: &[(&str, Value)]) -> Bytes {
    let map = fields.iter().map(|(name, value)| (Value::from(*name), value.clone())).collect();
    let mut out = Vec::new();
    ciborium::into_writer(&Value::Map(map), &mut out).expect("a map of texts and numbers has a CBOR form");
    Bytes::from(out)
}

/// The books of a ledger, kept by rules written a second time.
#[derive(Clone, Debug, Default)]
pub struct Books {
    balances: BTreeMap<String, u64>,
    reading: Reading,
}

/// The outcome of a command on the books.
pub type Booked = Result<Answer, &'static str>;

impl Books {
    /// Books one command: its answer, or the name under which it is refused.
    ///
    /// # Errors
    ///
    /// The name of the refusal.
    pub fn book(&mut self, name: &str, body: &[u8]) -> Booked {
        let fields: BTreeMap<String, Value> = ciborium::from_reader(body).map_err(|_| "malformed")?;
        let text = |field: &str| fields.get(field).and_then(Value::as_text).unwrap_or_default().to_owned();
        let amount = fields.get("amount").and_then(Value::as_integer).and_then(|n| u64::try_from(n).ok());
        let amount = amount.unwrap_or_default();
        match name {
            "open" => self.open(text("account")),
            _ if amount == 0 => Err("zero-amount"),
            "deposit" => self.deposit(&text("account"), amount),
            "withdraw" => self.withdraw(&text("account"), amount),
            "transfer" => self.transfer(&text("from"), &text("to"), amount),
            _ => Err("unknown-command"),
        }
    }

    /// The ledger as a whole.
    #[must_use]
    pub fn reading(&self) -> Answer {
        Answer::Reading(self.reading)
    }

    fn open(&mut self, account: String) -> Booked {
        if self.balances.contains_key(&account) {
            return Err("already-open");
        }
        self.balances.insert(account, 0);
        self.reading.opened += 1;
        Ok(Answer::Nothing)
    }

    fn deposit(&mut self, account: &str, amount: u64) -> Booked {
        let balance = self.balances.get_mut(account).ok_or("not-open")?;
        *balance += amount;
        self.reading.deposits += 1;
        self.reading.total += amount;
        Ok(Answer::Balance(*balance))
    }

    fn withdraw(&mut self, account: &str, amount: u64) -> Booked {
        let balance = self.balances.get_mut(account).ok_or("not-open")?;
        *balance = balance.checked_sub(amount).ok_or("insufficient-funds")?;
        self.reading.withdrawals += 1;
        self.reading.total -= amount;
        Ok(Answer::Balance(*balance))
    }

    fn transfer(&mut self, from: &str, to: &str, amount: u64) -> Booked {
        if from == to {
            return Err("same-account");
        }
        let source = *self.balances.get(from).ok_or("not-open")?;
        let target = *self.balances.get(to).ok_or("not-open")?;
        let left = source.checked_sub(amount).ok_or("insufficient-funds")?;
        self.balances.insert(from.to_owned(), left);
        self.balances.insert(to.to_owned(), target + amount);
        self.reading.transfers += 1;
        Ok(Answer::Balance(left))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn book(books: &mut Books, name: &str, fields: &[(&str, Value)]) -> Booked {
        books.book(name, &body(fields))
    }

    #[test]
    fn the_books_refuse_what_the_ledger_refuses_and_money_is_conserved() {
        let mut books = Books::default();
        let account = |name: &str| ("account", Value::from(name));
        let amount = |amount: u64| ("amount", Value::from(amount));
        assert_eq!(book(&mut books, "deposit", &[account("a"), amount(5)]), Err("not-open"));
        assert_eq!(book(&mut books, "open", &[account("a")]), Ok(Answer::Nothing));
        assert_eq!(book(&mut books, "open", &[account("a")]), Err("already-open"));
        assert_eq!(book(&mut books, "open", &[account("b")]), Ok(Answer::Nothing));
        assert_eq!(book(&mut books, "deposit", &[account("a"), amount(5)]), Ok(Answer::Balance(5)));
        assert_eq!(book(&mut books, "withdraw", &[account("a"), amount(6)]), Err("insufficient-funds"));
        let transfer =
            |amount: u64| [("from", Value::from("a")), ("to", "b".into()), ("amount", amount.into())];
        assert_eq!(book(&mut books, "transfer", &transfer(3)), Ok(Answer::Balance(2)));
        assert_eq!(book(&mut books, "transfer", &transfer(3)), Err("insufficient-funds"));
        assert_eq!(books.balances.values().sum::<u64>(), books.reading.total);
    }

    #[test]
    fn an_answer_is_told_from_another() {
        let mut five = Vec::new();
        ciborium::into_writer(&5_u64, &mut five).unwrap();
        assert!(Answer::Balance(5).is(&five) && !Answer::Balance(6).is(&five));
        assert!(Answer::Nothing.is(&[]) && !Answer::Nothing.is(&five));
        assert!(!Answer::Reading(Reading::default()).is(&five));
    }
}
