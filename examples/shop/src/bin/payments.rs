//! The service `payments`: charges customers, once per order. Its code is in `src/payments.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shop::service::main("payments", shop::payments::routes)
}
