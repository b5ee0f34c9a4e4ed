//! `cargo run --example gate -- FILE...`: the faults of MSL files; fails if there is one.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut faults = 0;
    for path in std::env::args().skip(1) {
        let checked = std::fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| msl_gate::check(&text, &path, &Default::default()).map_err(|error| error.to_string()));
        match checked {
            Ok(found) => {
                found.iter().for_each(|fault| println!("{fault}"));
                faults += found.len();
            }
            Err(error) => {
                println!("{path}: {error}");
                faults += 1;
            }
        }
    }
    if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
