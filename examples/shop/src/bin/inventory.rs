//! The service `inventory`: reserves stock, once per order. Its code is in `src/inventory.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shop::service::main("inventory", shop::inventory::routes)
}
