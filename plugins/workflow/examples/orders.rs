//! Writes the orders that ship with the example to standard output.

use quorate_workflow::orders::orders;

fn main() -> Result<(), serde_json::Error> {
    for order in orders() {
        println!("{}", serde_json::to_string(&order)?);
    }
    Ok(())
}
