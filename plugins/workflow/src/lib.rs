//! Durable cases in the CNCF Serverless Workflow DSL 1.0, as a replicated state machine.
//!
//! Relies on the SDK only. Promises that a case survives whatever its group survives, and that no case can
//! harm another. Knows no network: what reaches outside is offered to workers.

pub mod jq;
pub mod value;
