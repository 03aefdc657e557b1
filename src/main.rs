//! The program `retune`.

use std::process::ExitCode;

fn main() -> ExitCode {
    retune::cli::main()
}
