//! The services `flights`, `hotels` and `cars` of `examples/trip`. Their code is in `src/bookings.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shop::service::main("bookings", shop::bookings::routes)
}
