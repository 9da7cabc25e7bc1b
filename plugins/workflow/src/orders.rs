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
/// The functions that the example calls.
pub const FUNCTIONS: [&str; 5] = ["charge", "pick", "invoice", "ship", "refund"];
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
    /// For each order, how often its bank was asked.
    asked: BTreeMap<String, u32>,
    /// For each order, what was charged less what was paid back.
    pub balance: BTreeMap<String, i64>,
    /// For each order, how often it was shipped.
    pub shipped: BTreeMap<String, u32>,
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
        let order = arguments["order"].as_str().unwrap_or_default().to_owned();
        let number = order.trim_start_matches("order-").to_owned();
        let amount = arguments["amount"].as_i64().unwrap_or_default();
        match function {
            "charge" => {
                let asked = self.asked.entry(order.clone()).or_default();
                *asked += 1;
                match arguments["card"].as_str() {
                    Some("declined") => Said::Failed(json!({ "status": 402, "title": "Declined" })),
                    Some("busy") if *asked < 3 => Said::Failed(json!({ "status": 503, "title": "Busy" })),
                    _ => {
                        *self.balance.entry(order).or_default() += amount;
                        Said::Done(json!({ "payment": format!("pay-{number}") }))
                    }
                }
            }
            "pick" => {
                let lines = arguments["lines"].as_array().map_or(&[][..], Vec::as_slice);
                if lines.iter().any(|line| line["sku"] == "sold-out") {
                    return Said::Failed(json!({ "status": 409, "title": "Out of stock" }));
                }
                Said::Done(json!({ "parcel": format!("parcel-{number}") }))
            }
            "invoice" => Said::Done(json!({ "invoice": format!("invoice-{number}") })),
            "ship" if arguments["carrier"] == "nobody" => Said::Nothing,
            "ship" => {
                *self.shipped.entry(order).or_default() += 1;
                Said::Done(json!({ "shipment": format!("ship-{number}") }))
            }
            _ => {
                *self.balance.entry(order).or_default() -= amount;
                Said::Done(json!({ "refunded": amount }))
            }
        }
    }
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
        for _ in 0..60 {
            while work(&mut group, &mut shop) {}
            group.pass(200);
        }
        for (case, order) in cases {
            let view = group.case(case);
            let balance = shop.balance.get(&order.key).copied().unwrap_or_default();
            if order.end == End::PaymentDeclined {
                assert_eq!(group.error(case).0, "payment-declined", "{order:?}");
                assert_eq!(balance, 0, "{order:?}");
                continue;
            }
            let output =
                view.output.unwrap_or_else(|| panic!("{order:?} is {}: {:?}", view.status, view.error));
            let status = serde_json::to_value(order.end).unwrap();
            assert_eq!(
                output.field("status").and_then(crate::value::Value::as_text),
                status.as_str(),
                "{order:?}"
            );
            let shipped = shop.shipped.get(&order.key).copied().unwrap_or_default();
            assert_eq!(
                (balance > 0, shipped),
                (order.end == End::Shipped, u32::from(balance > 0)),
                "{order:?}"
            );
        }
        group.host.check_determinism();
    }
}
