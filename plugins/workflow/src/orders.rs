//! The orders that ship with the example, and workers that answer for its functions.
//!
//! Relies on the SDK's generator, whose draws never change. Promises the same 1,000 orders for ever:
//! `examples/order-fulfilment/orders.jsonl` is this module's output. Knows no client: whoever runs the
//! example claims work items and hands their arguments to a [`Shop`].
//!
//! ```text
//! cargo run -p quorate-workflow --example orders > plugins/workflow/examples/order-fulfilment/orders.jsonl
//! ```

use std::collections::BTreeMap;

use quorate_sdk::Random;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The example's definition.
pub const DEFINITION: &str = include_str!("../examples/order-fulfilment/workflow.yaml");
/// The orders that ship with it, one for each line.
pub const ORDERS: &str = include_str!("../examples/order-fulfilment/orders.jsonl");
/// How many orders ship.
pub const COUNT: u64 = 1_000;
/// The functions that the example calls, those that end an order first: whoever claims in this order
/// finishes what is begun before it begins more.
pub const FUNCTIONS: [&str; 5] = ["refund", "ship", "invoice", "pick", "charge"];
/// The type of the error that ends an order whose card is declined.
const DECLINED: &str = "https://quorate.dev/examples/errors/payment-declined";
/// What fixes the draws.
const SEED: &[u64] = &[0x0de5];

/// How an order must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It completes, shipped.
    Shipped,
    /// It completes, paid back, since something is out of stock.
    OutOfStock,
    /// It completes, paid back, since nobody ships it in time.
    NotShipped,
    /// It faults, since the card is declined.
    PaymentDeclined,
}

impl End {
    /// How an order ended, of what the query `case` answers for it; none if no order may end so.
    #[must_use]
    pub fn of_case(view: &Value) -> Option<Self> {
        match view["status"].as_str()? {
            "completed" => Self::deserialize(&view["output"]["status"]).ok(),
            "faulted" => (view["error"]["type"] == DECLINED).then_some(Self::PaymentDeclined),
            _ => None,
        }
    }

    /// What must have been done outside for an order that ends so.
    #[must_use]
    pub fn done(self) -> Done {
        let (charged, shipped, paid_back) = match self {
            Self::Shipped => (1, 1, 0),
            Self::OutOfStock | Self::NotShipped => (1, 0, 1),
            Self::PaymentDeclined => (0, 0, 0),
        };
        Done { charged, shipped, paid_back }
    }
}

/// How often something was done outside for one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Its card was charged.
    pub charged: u32,
    /// It was shipped.
    pub shipped: u32,
    /// All that had been charged was paid back.
    pub paid_back: u32,
}

/// An order: a case's business key and input, and how it must end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The business key.
    pub key: String,
    /// The input.
    pub input: Value,
    /// How it must end.
    pub end: End,
}

/// The orders.
#[must_use]
pub fn orders() -> Vec<Order> {
    let mut random = Random::from_seed(SEED);
    (0..COUNT).map(|number| draw(&mut random, number)).collect()
}

fn draw(random: &mut Random, number: u64) -> Order {
    let key = format!("order-{number:04}");
    let end = match random.below(100) {
        0..85 => End::Shipped,
        85..90 => End::OutOfStock,
        90..93 => End::NotShipped,
        _ => End::PaymentDeclined,
    };
    // Every tenth bank is busy at first.
    let card = match end {
        End::PaymentDeclined => "declined",
        _ if random.below(10) == 0 => "busy",
        _ => "good",
    };
    let count = 1 + random.below(3);
    let mut lines: Vec<Value> = (0..count)
        .map(|_| {
            let sku = format!("sku-{:03}", random.below(200));
            json!({ "sku": sku, "quantity": 1 + random.below(5), "price": 100 * (1 + random.below(90)) })
        })
        .collect();
    if end == End::OutOfStock {
        lines.push(json!({ "sku": "sold-out", "quantity": 1, "price": 900 }));
    }
    let carrier = if end == End::NotShipped { "nobody" } else { "post" };
    let input = json!({ "order": key, "card": card, "carrier": carrier, "lines": lines });
    Order { key, input, end }
}

/// Workers for the example's functions, with what they did.
#[derive(Clone, Debug, Default)]
pub struct Shop {
    accounts: BTreeMap<String, Account>,
}

/// What the shop knows of one order.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// How often its bank was asked.
    asked: u32,
    /// What was charged less what was paid back.
    paid: i64,
    done: Done,
}

/// What a worker says of a work item.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// It is done, with this output.
    Done(Value),
    /// It failed, with this error.
    Failed(Value),
    /// Nothing: the worker does not answer.
    Nothing,
}

impl Shop {
    /// Does what a function is for. A function that is called twice for one work item does it twice, so
    /// whoever calls must not; that is what claims are for.
    pub fn answer(&mut self, function: &str, arguments: &Value) -> Said {
        let order = arguments["order"].as_str().unwrap_or_default();
        let number = order.trim_start_matches("order-");
        let amount = arguments["amount"].as_i64().unwrap_or_default();
        let account = self.accounts.entry(order.to_owned()).or_default();
        match function {
            "charge" => {
                account.asked += 1;
                match arguments["card"].as_str() {
                    Some("declined") => return failed(402, "Declined"),
                    Some("busy") if account.asked < 3 => return failed(503, "Busy"),
                    _ => {}
                }
                account.paid += amount;
                account.done.charged += 1;
                Said::Done(json!({ "payment": format!("pay-{number}") }))
            }
            "pick" => {
                let lines = arguments["lines"].as_array().map_or(&[][..], Vec::as_slice);
                if lines.iter().any(|line| line["sku"] == "sold-out") {
                    return failed(409, "Out of stock");
                }
                Said::Done(json!({ "parcel": format!("parcel-{number}") }))
            }
            "invoice" => Said::Done(json!({ "invoice": format!("invoice-{number}") })),
            "ship" if arguments["carrier"] == "nobody" => Said::Nothing,
            "ship" => {
                account.done.shipped += 1;
                Said::Done(json!({ "shipment": format!("ship-{number}") }))
            }
            "refund" if account.paid != amount => failed(422, "Not what was paid"),
            "refund" => {
                account.paid = 0;
                account.done.paid_back += 1;
                Said::Done(json!({ "refunded": amount }))
            }
            _ => failed(404, "No such function"),
        }
    }

    /// What was done for an order.
    #[must_use]
    pub fn done(&self, order: &str) -> Done {
        self.accounts.get(order).map(|account| account.done).unwrap_or_default()
    }
}

fn failed(status: u16, title: &str) -> Said {
    Said::Failed(json!({ "status": status, "title": title }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::tests::{Group, json as read};
    use crate::{Command, Started};

    /// Answers all work that is offered; whether there was any.
    fn work(group: &mut Group, shop: &mut Shop) -> bool {
        let mut any = false;
        for function in FUNCTIONS {
            while let Some(claimed) = group.claim(function) {
                any = true;
                let arguments = serde_json::from_str(&claimed.arguments.to_json()).unwrap();
                let (item, token) = (claimed.item, claimed.token);
                let command = match shop.answer(function, &arguments) {
                    Said::Done(output) => {
                        Command::Complete { item, token, output: Some(read(&output.to_string())) }
                    }
                    Said::Failed(error) => {
                        Command::Fail { item, token, error: Some(read(&error.to_string())) }
                    }
                    Said::Nothing => continue,
                };
                group.host.apply(command).unwrap();
            }
        }
        any
    }

    #[test]
    fn the_shipped_file_holds_these_orders() {
        let lines: Vec<Order> = ORDERS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, orders());
    }

    #[test]
    fn every_order_ends_as_it_must_and_nobody_pays_for_nothing() {
        let mut group = Group::new();
        group.define(DEFINITION).unwrap();
        let mut shop = Shop::default();
        let mut cases = Vec::new();
        // Every tenth order keeps the test quick; the demonstration runs them all.
        for order in orders().into_iter().step_by(10) {
            let command = Command::Start {
                namespace: "shop".into(),
                name: "order-fulfilment".into(),
                version: None,
                key: Some(order.key.clone()),
                input: Some(read(&order.input.to_string())),
            };
            cases.push((group.host.apply(command).unwrap().read::<Started>().unwrap().case, order));
        }
        for _ in 0..80 {
            while work(&mut group, &mut shop) {}
            group.pass(200);
        }
        for (case, order) in cases {
            let view = serde_json::to_value(group.case(case)).unwrap();
            assert_eq!(End::of_case(&view), Some(order.end), "{order:?}: {view}");
            assert_eq!(shop.done(&order.key), order.end.done(), "{order:?}");
        }
        group.host.check_determinism();
    }

    #[test]
    fn only_the_ends_that_an_order_may_have_are_ends() {
        let view = |status: &str, output: &str, kind: &str| {
            let (output, error) = (json!({ "status": output }), json!({ "type": kind }));
            json!({ "status": status, "output": output, "error": error })
        };
        assert_eq!(End::of_case(&view("completed", "not-shipped", "")), Some(End::NotShipped));
        assert_eq!(End::of_case(&view("faulted", "", DECLINED)), Some(End::PaymentDeclined));
        for other in [
            view("completed", "lost", ""),
            view("faulted", "shipped", "https://serverlessworkflow.io/spec/1.0.0/errors/runtime"),
            view("waiting", "shipped", DECLINED),
        ] {
            assert_eq!(End::of_case(&other), None, "{other}");
        }
    }

    #[test]
    fn a_refund_of_another_amount_or_a_second_one_is_refused() {
        let mut shop = Shop::default();
        let mut ask = |function: &str, amount: u32| {
            shop.answer(function, &json!({ "order": "order-1", "card": "good", "amount": amount }))
        };
        assert!(matches!(ask("charge", 5), Said::Done(_)));
        assert!(matches!(ask("refund", 4), Said::Failed(_)));
        assert!(matches!(ask("refund", 5), Said::Done(_)));
        assert!(matches!(ask("refund", 5), Said::Failed(_)));
        assert_eq!(shop.done("order-1"), Done { charged: 1, shipped: 0, paid_back: 1 });
    }
}
