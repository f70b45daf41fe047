//! The service `orders`: takes orders: reserves, charges, records. Its code is in `src/orders.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shop::service::main("orders", shop::orders::routes)
}
