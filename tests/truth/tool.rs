//! The command-line side of the truth machinery: records what the CPU under it does (`record`), checks translations of
//! invented cases against it (`fuzz`), and is itself the AArch64 half of that check (`serve`).

#[path = "mod.rs"]
mod truth;

#[cfg(target_arch = "x86_64")]
mod fuzz;
#[cfg(target_arch = "x86_64")]
mod record;
#[cfg(target_arch = "aarch64")]
mod serve;

use std::process::ExitCode;

#[cfg(target_arch = "x86_64")]
const USAGE: &str = "\
usage: truth record DIR [--cases N]            record fixtures for every instruction form on this CPU
       truth fuzz --server PROG [options]      compare this CPU with PROG, this program built for AArch64
         --emulator CMD  run PROG with this (default: qemu-aarch64-static)
         --cpus A,B,..   CPU models to emulate (default: cortex-a72,neoverse-n1,neoverse-v1,max)
         --time SECONDS  how long (default 20)   --cases N   or how many cases
         --seed N        (default: from the clock)   --case N  only this case of the seed
         --mode N        0 whole regions, 1 one instruction each; +2 ordered accesses (default: all in turn)
         --single, --blocks   only single instructions, or only blocks
         --only TEXT     only forms whose name contains TEXT (several, by commas)
         --failures N    stop after so many different failures (default 10)
         --save FILE     append the shrunk failures to FILE, in fixture form
";
#[cfg(not(target_arch = "x86_64"))]
const USAGE: &str = "usage: truth serve      run cases from standard input through the translator\n";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        #[cfg(target_arch = "x86_64")]
        Some("record") => record::main(&args[1..]),
        #[cfg(target_arch = "x86_64")]
        Some("fuzz") => fuzz::main(&args[1..]),
        #[cfg(target_arch = "aarch64")]
        Some("serve") => serve::main(),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}
