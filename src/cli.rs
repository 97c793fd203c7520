//! The command line of running a program: `xrun [OPTIONS] PROGRAM [ARGUMENTS]`. Parsed by hand, because every program started pays for
//! it; options end at the first argument that is none. Knows nothing of what running means.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

use xrun_runtime::config::Config;

/// What `xrun --help` says.
pub const HELP: &str = "\
xrun runs x86_64 Linux programs on AArch64 Linux.

usage: xrun [OPTIONS] PROGRAM [ARGUMENTS]
       xrun explain PROGRAM ADDRESS
       xrun dump --stage=STAGE PROGRAM ADDRESS
       xrun isa
       xrun syscalls
       xrun binfmt install | uninstall | status
       xrun cache status | clear | warm PROGRAM [ARGUMENTS]

options:
  -L DIR           look for the interpreter and libraries under DIR when they are not at their own paths
  -0, --argv0 NAME give the program NAME as its argv[0]
      --no-cache   keep no translations for the next process, and take none (XRUN_CACHE: their directory, or off)
      --strace     write a line for every system call to standard error
      --emulator COMMAND
                   the command this xrun itself runs under, for programs that the program executes
  -h, --help       this text
  -V, --version    the version

To run a program that is called like a command, give its path: xrun ./dump
";

/// What is to be done.
#[derive(Debug)]
pub enum Command {
    Run(Config),
    /// `explain`, `dump`, `isa`, `syscalls` or `binfmt` with the arguments behind it.
    Tool(String, Vec<OsString>),
    Help,
    Version,
}

/// Parses the arguments after xrun's own name. An error is a line for the user.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut config = Config { cache: true, ..Config::default() };
    let mut args = args;
    loop {
        let Some(arg) = args.next() else { return Err("no program given; try xrun --help".into()) };
        let bytes = arg.as_encoded_bytes();
        let mut value = |name: &str| args.next().ok_or(format!("{name} needs a value"));
        match bytes {
            b"-L" => config.prefix = Some(value("-L")?.into()),
            b"-0" | b"--argv0" => config.argv0 = Some(value("-0")?.into_vec()),
            b"--no-cache" => config.cache = false,
            b"--strace" => config.strace = true,
            b"--strace-fd" => config.strace_fd = value("--strace-fd")?.to_str().and_then(|n| n.parse().ok()),
            b"--emulator" => config.emulator = words(value("--emulator")?)?,
            b"-h" | b"--help" => return Ok(Command::Help),
            b"-V" | b"--version" => return Ok(Command::Version),
            b"--" => match args.next() {
                Some(program) => return Ok(run(config, program, args)),
                None => return Err("no program given after --".into()),
            },
            b"cache" => {
                let what = args.next();
                if what.as_deref() != Some("warm".as_ref()) {
                    return Ok(Command::Tool("cache".into(), what.into_iter().chain(args).collect()));
                }
                config.cache_report = true;
                let mut program = args.next();
                if program.as_deref() == Some("--".as_ref()) {
                    program = args.next();
                }
                let program = program.ok_or("no program given to warm the cache with")?;
                return Ok(run(config, program, args));
            }
            b"explain" | b"dump" | b"isa" | b"syscalls" | b"binfmt" => {
                let name = String::from_utf8_lossy(bytes).into_owned();
                return Ok(Command::Tool(name, args.collect()));
            }
            _ if bytes.starts_with(b"-") && bytes.len() > 1 => {
                return Err(format!("unknown option {}; try xrun --help", arg.display()));
            }
            _ => return Ok(run(config, arg, args)),
        }
    }
}

/// The words of a command, separated by blanks.
fn words(command: OsString) -> Result<Vec<CString>, String> {
    let bytes = command.into_vec();
    let words = bytes.split(|&b| b == b' ').filter(|w| !w.is_empty());
    words.map(|w| CString::new(w).map_err(|e| e.to_string())).collect()
}

fn run(mut config: Config, program: OsString, args: impl Iterator<Item = OsString>) -> Command {
    config.program = program.into();
    config.args = args.map(OsString::into_vec).collect();
    Command::Run(config)
}

/// The arguments as binfmt_misc passes them with its P flag: program, argv[0], the rest.
pub fn preserved(mut args: impl Iterator<Item = OsString>) -> Option<Config> {
    let program = args.next()?.into();
    let argv0 = args.next().map(OsString::into_vec);
    let args = args.map(OsString::into_vec).collect();
    Some(Config { program, argv0, args, cache: true, ..Config::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(args: &[&str]) -> Result<Command, String> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn options_end_at_the_program() {
        let Ok(Command::Run(c)) = parse_all(&["-L", "/root", "-0", "me", "--strace", "./p", "-L", "x"]) else {
            panic!("a run")
        };
        assert_eq!(c.program.to_str(), Some("./p"));
        assert_eq!(c.args, [b"-L".to_vec(), b"x".to_vec()]);
        assert_eq!(c.argv0.as_deref(), Some(&b"me"[..]));
        assert_eq!(c.prefix.as_deref().and_then(|p| p.to_str()), Some("/root"));
        assert!(c.strace);
        let Ok(Command::Run(c)) = parse_all(&["--", "--strace"]) else { panic!("a run") };
        assert_eq!(c.program.to_str(), Some("--strace"));
    }

    #[test]
    fn says_what_is_missing() {
        assert!(parse_all(&[]).is_err_and(|e| e.contains("no program")));
        assert!(parse_all(&["-L"]).is_err_and(|e| e.contains("-L needs")));
        assert!(parse_all(&["--nonsense", "p"]).is_err_and(|e| e.contains("--nonsense")));
        assert!(matches!(parse_all(&["dump", "--stage=host"]), Ok(Command::Tool(..))));
    }
}
