//! The world outside the order workflow: what its payment, warehouse, billing and courier answer.
//!
//! Relies on the fields of an order that say what happens to it. Promises to remember what was done for
//! each order, so that something done twice is seen. Knows no cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// The functions that the workflow calls.
pub const FUNCTIONS: [&str; 5] = ["payment", "warehouse", "billing", "refund", "courier"];
/// What a declined card comes to.
pub const DECLINED: &str = "https://example.com/errors/declined";
/// What missing goods come to within a case.
const OUT_OF_STOCK: &str = "https://example.com/errors/out-of-stock";
/// What missing goods come to in the end.
pub const CANCELLED: &str = "https://example.com/errors/cancelled";

/// What a worker says about a work item.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is done.
    Done(Value),
    /// It cannot be done; none is the connection's fault.
    Failed(Option<Value>),
    /// Nothing is ever said.
    Silence,
}

/// What happened outside.
#[derive(Debug, Default)]
pub struct Shop {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Orders whose connection to the payment has failed.
    failed: BTreeSet<String>,
    /// How often something was done and accepted, by function and order.
    done: BTreeMap<(String, String), u64>,
}

impl Shop {
    /// Does what a work item asks for.
    pub fn answer(&self, function: &str, arguments: &Value) -> Answer {
        let text = |key: &str| arguments[key].as_str().unwrap_or_default();
        let order = text("order");
        let failed = |kind: &str, status: u16, title: &str| {
            Answer::Failed(Some(json!({ "type": kind, "status": status, "title": title })))
        };
        match function {
            "payment" if text("card") == "declined" => failed(DECLINED, 402, "The card was declined"),
            "payment" if text("card") == "flaky" && self.seen().failed.insert(order.to_owned()) => {
                Answer::Failed(None)
            }
            "payment" => Answer::Done(json!({ "payment": format!("pay-{order}") })),
            "warehouse" if text("stock") == "short" => failed(OUT_OF_STOCK, 409, "There are no goods"),
            "warehouse" => Answer::Done(json!({ "parcel": format!("parcel-{order}") })),
            "billing" => Answer::Done(json!({ "invoice": format!("invoice-{order}") })),
            "refund" => Answer::Done(json!({ "refunded": arguments["payment"] })),
            "courier" if text("courier") == "silent" => Answer::Silence,
            "courier" => Answer::Done(json!({ "carrier": "bicycle" })),
            _ => Answer::Failed(None),
        }
    }

    /// Notes that the group accepted what was done.
    pub fn accepted(&self, function: &str, order: &str) {
        *self.seen().done.entry((function.to_owned(), order.to_owned())).or_default() += 1;
    }

    /// How often something was done for an order.
    pub fn count(&self, function: &str, order: &str) -> u64 {
        self.seen().done.get(&(function.to_owned(), order.to_owned())).copied().unwrap_or_default()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an order must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is completed.
    Completed,
    /// It ends in an error of this type.
    Faulted(&'static str),
}

/// How an order must end, by its fields.
#[must_use]
pub fn end_of(order: &Value) -> End {
    match (order["card"].as_str(), order["stock"].as_str()) {
        (Some("declined"), _) => End::Faulted(DECLINED),
        (_, Some("short")) => End::Faulted(CANCELLED),
        _ => End::Completed,
    }
}

/// How often each function must have been done for an order. A courier may have been replaced by the post
/// and what is invoiced beside missing goods may be interrupted, so these are only bounded.
#[must_use]
pub fn done_of(order: &Value) -> [(&'static str, u64); 3] {
    match end_of(order) {
        End::Completed => [("payment", 1), ("warehouse", 1), ("refund", 0)],
        End::Faulted(DECLINED) => [("payment", 0), ("warehouse", 0), ("refund", 0)],
        End::Faulted(_) => [("payment", 1), ("warehouse", 0), ("refund", 1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaky_connection_fails_once_for_each_order() {
        let shop = Shop::default();
        let pay = |order: &str| shop.answer("payment", &json!({ "order": order, "card": "flaky" }));
        assert_eq!(pay("a"), Answer::Failed(None));
        assert_eq!(pay("b"), Answer::Failed(None));
        assert_eq!(pay("a"), Answer::Done(json!({ "payment": "pay-a" })));
    }

    #[test]
    fn every_fate_of_an_order_is_told_by_its_fields() {
        let order = |card: &str, stock: &str| json!({ "card": card, "stock": stock });
        assert_eq!(end_of(&order("good", "full")), End::Completed);
        assert_eq!(end_of(&order("flaky", "full")), End::Completed);
        assert_eq!(end_of(&order("declined", "short")), End::Faulted(DECLINED));
        assert_eq!(end_of(&order("good", "short")), End::Faulted(CANCELLED));
    }

    #[test]
    fn what_was_done_twice_is_counted_twice() {
        let shop = Shop::default();
        shop.accepted("payment", "a");
        shop.accepted("payment", "a");
        assert_eq!((shop.count("payment", "a"), shop.count("payment", "b")), (2, 0));
    }
}
