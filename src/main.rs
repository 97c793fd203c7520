//! The command: parses its arguments, installs the translator, hands over to the runtime.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use xrun::cli::{self, Command};
use xrun::host::HostFeatures;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1);
    let command = if xrun_runtime::binfmt::preserved_argv0() {
        cli::preserved(args).map(Command::Run).ok_or_else(|| "no program given".into())
    } else {
        cli::parse(args)
    };
    let text = match command {
        Ok(Command::Run(config)) => {
            let (hwcap, hwcap2) = xrun_runtime::host_hwcap();
            let host = HostFeatures::from_hwcap(hwcap, hwcap2).with_counter(xrun_runtime::host_counter_hz());
            xrun::install(host);
            xrun_runtime::run(config)
        }
        Ok(Command::Tool(name, _)) if name == "syscalls" => Ok(xrun_runtime::linux::table::listing()),
        Ok(Command::Tool(name, _)) if name == "isa" => Ok(xrun::isa::table::listing()),
        Ok(Command::Tool(name, args)) if name == "binfmt" => match xrun::binfmt::run(args.into_iter()) {
            Ok((text, true)) => Ok(text),
            Ok((text, false)) => {
                print!("{text}");
                return ExitCode::FAILURE;
            }
            Err(e) => Err(e.to_string()),
        },
        Ok(Command::Tool(name, args)) if name == "cache" => xrun::cache::run(&args),
        Ok(Command::Tool(name, args)) => {
            let args = args.iter().map(|a| a.to_string_lossy().into_owned());
            let text = if name == "explain" { xrun::inspect::explain(args) } else { xrun::inspect::dump(args) };
            text.map_err(|e| e.to_string())
        }
        Ok(Command::Help) => Ok(cli::HELP.into()),
        Ok(Command::Version) => Ok(format!("xrun {}\n", env!("CARGO_PKG_VERSION"))),
        Err(e) => Err(e),
    };
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("xrun: {e}");
            ExitCode::from(2)
        }
    }
}
