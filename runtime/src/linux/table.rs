//! What a row of the system call table is, and the ways to look one up. The rows are in [`super::rows`].
//!
//! A row says a call's number and name on x86_64, the kinds of its arguments, and how it is answered. The kinds drive
//! `--strace`, the check that pointers lie in the guest's address space, what the kernel may write, and the printed list.

use super::errno::Answer;
use super::rows::ROWS;
use crate::abi::{CALL_DIRECT, CALL_LONG, CALL_MORE, CALL_POINTERS, CALL_SIGRETURN};
use crate::thread::{Calls, NO_CALLS, Thread};

/// Answers one system call. Arguments are the guest's six, in order.
pub type Handler = fn(&mut Thread, [u64; 6]) -> Answer;

/// How a system call is answered.
#[derive(Clone, Copy)]
pub enum How {
    /// The host's call of this number takes the same arguments and gives the same results.
    Pass(i64),
    /// A function of this module's.
    Call(Handler),
    /// A function of this module's; what it leaves out.
    Partial(Handler, &'static str),
    /// ENOSYS, and why.
    Missing(&'static str),
    /// ENOSYS, as on a current x86_64 kernel.
    NotInLinux,
}

/// Named bits or values, for printing.
pub type Names = &'static [(u64, &'static str)];

/// What an argument is.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    Fd,
    /// A directory to start a relative path from, or AT_FDCWD.
    Dfd,
    Int,
    Uint,
    Hex,
    /// An address that is not accessed, or is checked by what manages memory.
    Addr,
    /// A pointer to anything, null allowed.
    Ptr,
    Path,
    Str,
    /// Bytes the call reads; their count is argument n.
    In(u8),
    /// Bytes the call writes, at most argument n, as many as it returns.
    Out(u8),
    /// An iovec array read from, of argument n elements.
    IovIn(u8),
    /// An iovec array written to, of argument n elements.
    IovOut(u8),
    Msg,
    /// A socket address to read, of argument n bytes.
    SockAddr(u8),
    Len,
    Off,
    Mode,
    Sig,
    SigSet,
    Flags(Names),
    Enum(Names),
    OFlags,
    StatOut,
    FdPair,
    Wstatus,
    Ts,
    Tv,
    Strv,
    Envp,
}

impl Arg {
    /// Whether this argument is a pointer the kernel follows.
    pub const fn is_pointer(self) -> bool {
        use Arg::*;
        matches!(
            self,
            Ptr | Path
                | Str
                | In(_)
                | Out(_)
                | IovIn(_)
                | IovOut(_)
                | Msg
                | SockAddr(_)
                | SigSet
                | StatOut
                | FdPair
                | Wstatus
                | Ts
                | Tv
                | Strv
                | Envp
        )
    }
}

/// One system call.
#[derive(Clone, Copy)]
pub struct Row {
    pub number: u16,
    pub name: &'static str,
    pub args: &'static [Arg],
    pub how: How,
    /// Bit n: argument n is a pointer.
    pub pointers: u8,
}

impl Row {
    pub const fn new(number: u16, name: &'static str, args: &'static [Arg], how: How) -> Row {
        let mut pointers = 0;
        let mut i = 0;
        while i < args.len() {
            if args[i].is_pointer() {
                pointers |= 1 << i;
            }
            i += 1;
        }
        Row { number, name, args, how, pointers }
    }
}

/// One more than the highest number in the table.
pub const END: usize = ROWS[ROWS.len() - 1].number as usize + 1;

/// Index into `ROWS` by number, or `NONE`.
static BY_NUMBER: [u16; END] = {
    let mut t = [NONE; END];
    let mut i = 0;
    while i < ROWS.len() {
        assert!(i == 0 || ROWS[i - 1].number < ROWS[i].number);
        t[ROWS[i].number as usize] = i as u16;
        i += 1;
    }
    t
};
const NONE: u16 = u16::MAX;

/// rt_sigreturn's number on x86_64.
const RT_SIGRETURN: u16 = 15;

/// The calls that the syscall thunk makes itself: all that are passed on as they are, and rt_sigreturn.
pub static DIRECT: Calls = {
    let mut t = NO_CALLS;
    let mut i = 0;
    while i < ROWS.len() {
        let r = &ROWS[i];
        if let How::Pass(nr) = r.how {
            assert!(nr >= 0 && nr < 1 << 16);
            let long = if r.args.len() > 3 { CALL_LONG } else { 0 };
            let pointers = if r.pointers != 0 { CALL_POINTERS | (r.pointers as u32) << 16 } else { 0 };
            let more = if long | pointers != 0 { CALL_MORE | CALL_DIRECT | long | pointers } else { 0 };
            t[r.number as usize] = more | nr as u32;
        }
        if r.number == RT_SIGRETURN {
            t[r.number as usize] = CALL_MORE | CALL_SIGRETURN;
        }
        i += 1;
    }
    t
};

/// The row of a system call number.
#[inline]
pub fn row(number: u64) -> Option<&'static Row> {
    let i = *BY_NUMBER.get(usize::try_from(number).ok()?)?;
    ROWS.get(usize::from(i))
}

/// The whole table as text, one line a call: number, name, how it is answered. `docs/syscalls.md` is this text below a heading.
pub fn listing() -> String {
    use std::fmt::Write;
    let mut out = String::from("| number | call | answered by | note |\n| --- | --- | --- | --- |\n");
    for r in ROWS {
        let (by, note) = match r.how {
            How::Pass(_) => ("the host's", ""),
            How::Call(_) => ("xrun", ""),
            How::Partial(_, why) => ("xrun, in part", why),
            How::Missing(why) => ("ENOSYS", why),
            How::NotInLinux => ("ENOSYS", "as on x86_64 Linux"),
        };
        let _ = writeln!(out, "| {} | {} | {} | {} |", r.number, r.name, by, note);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup() {
        assert_eq!(row(0).unwrap().name, "read");
        assert_eq!(row(231).unwrap().name, "exit_group");
        assert_eq!(row(435).unwrap().name, "clone3");
        assert!(row(400).is_none());
        assert!(row(1 << 40).is_none());
        assert!(row(END as u64).is_none());
    }

    #[test]
    fn the_page_is_current() {
        let count = |wanted: fn(&How) -> bool| ROWS.iter().filter(|r| wanted(&r.how)).count();
        let page = format!(
            "# System calls\n\nWhat becomes of every x86_64 system call. Written from the table in `runtime/src/linux/rows.rs`, which \
             `xrun syscalls` prints too;\nafter a change there: `BLESS=1 cargo test -p xrun-runtime the_page_is_current`.\n\n\
             Of {} numbers, {} go to the host's own call, {} are answered by xrun, {} of those in part, {} are not supported yet, and {} \
             are ENOSYS on\nx86_64 Linux too. A call that is missing returns ENOSYS.\n\n{}",
            ROWS.len(),
            count(|h| matches!(h, How::Pass(_))),
            count(|h| matches!(h, How::Call(_) | How::Partial(..))),
            count(|h| matches!(h, How::Partial(..))),
            count(|h| matches!(h, How::Missing(_))),
            count(|h| matches!(h, How::NotInLinux)),
            listing()
        );
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/syscalls.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            there == page,
            "docs/syscalls.md is not what the table says: BLESS=1 cargo test -p xrun-runtime the_page"
        );
    }

    /// Names and numbers against the C library's headers of an x86_64 machine.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn numbers_are_the_kernels() {
        let Ok(text) = std::fs::read_to_string("/usr/include/x86_64-linux-gnu/asm/unistd_64.h") else {
            eprintln!("no kernel headers here: not compared");
            return;
        };
        let mut seen = 0;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("#define"), Some(name), Some(number)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Some(name) = name.strip_prefix("__NR_") else { continue };
            let number: u64 = number.parse().unwrap();
            assert_eq!(row(number).map(|r| r.name), Some(name), "number {number}");
            seen += 1;
        }
        assert!(seen > 300);
    }
}
