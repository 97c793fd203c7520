//! Names of flag bits and constants as `--strace` prints them. Values are x86_64's.

use super::table::Names;

macro_rules! names {
    ($($(#[$d:meta])* $set:ident: $($n:ident = $v:expr),* ;)*) => {
        $($(#[$d])* pub const $set: Names = &[$(($v, stringify!($n))),*];)*
    };
}

names! {
    SEEK: SEEK_SET = 0, SEEK_CUR = 1, SEEK_END = 2, SEEK_DATA = 3, SEEK_HOLE = 4;
    PROT: PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4, PROT_GROWSDOWN = 0x100_0000, PROT_GROWSUP = 0x200_0000;
    MAP: MAP_SHARED_VALIDATE = 3, MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_FIXED = 0x10, MAP_ANONYMOUS = 0x20, MAP_32BIT = 0x40,
        MAP_GROWSDOWN = 0x100, MAP_DENYWRITE = 0x800, MAP_EXECUTABLE = 0x1000, MAP_LOCKED = 0x2000, MAP_NORESERVE = 0x4000,
        MAP_POPULATE = 0x8000, MAP_NONBLOCK = 0x10000, MAP_STACK = 0x20000, MAP_HUGETLB = 0x40000, MAP_SYNC = 0x80000,
        MAP_FIXED_NOREPLACE = 0x100000;
    MREMAP: MREMAP_MAYMOVE = 1, MREMAP_FIXED = 2, MREMAP_DONTUNMAP = 4;
    MSYNC: MS_ASYNC = 1, MS_INVALIDATE = 2, MS_SYNC = 4;
    MADV: MADV_NORMAL = 0, MADV_RANDOM = 1, MADV_SEQUENTIAL = 2, MADV_WILLNEED = 3, MADV_DONTNEED = 4, MADV_FREE = 8,
        MADV_REMOVE = 9, MADV_DONTFORK = 10, MADV_DOFORK = 11, MADV_MERGEABLE = 12, MADV_UNMERGEABLE = 13, MADV_HUGEPAGE = 14,
        MADV_NOHUGEPAGE = 15, MADV_DONTDUMP = 16, MADV_DODUMP = 17, MADV_WIPEONFORK = 18, MADV_KEEPONFORK = 19, MADV_COLD = 20,
        MADV_PAGEOUT = 21, MADV_POPULATE_READ = 22, MADV_POPULATE_WRITE = 23;
    SIGHOW: SIG_BLOCK = 0, SIG_UNBLOCK = 1, SIG_SETMASK = 2;
    IOCTL: TCGETS = 0x5401, TCSETS = 0x5402, TCSETSW = 0x5403, TCSETSF = 0x5404, TIOCGPGRP = 0x540f, TIOCSPGRP = 0x5410,
        TIOCGWINSZ = 0x5413, TIOCSWINSZ = 0x5414, FIONREAD = 0x541b, FIONBIO = 0x5421, TIOCSCTTY = 0x540e, TIOCNOTTY = 0x5422,
        FIOCLEX = 0x5451, FIONCLEX = 0x5450, FICLONE = 0x40049409;
    ACCESS: F_OK = 0, R_OK = 4, W_OK = 2, X_OK = 1;
    AF: AF_UNSPEC = 0, AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10, AF_NETLINK = 16, AF_PACKET = 17, AF_ALG = 38, AF_VSOCK = 40;
    SOCK: SOCK_STREAM = 1, SOCK_DGRAM = 2, SOCK_NONBLOCK = 0x800, SOCK_CLOEXEC = 0x80000;
    MSG: MSG_OOB = 1, MSG_PEEK = 2, MSG_DONTROUTE = 4, MSG_CTRUNC = 8, MSG_TRUNC = 0x20, MSG_DONTWAIT = 0x40, MSG_EOR = 0x80,
        MSG_WAITALL = 0x100, MSG_ERRQUEUE = 0x2000, MSG_NOSIGNAL = 0x4000, MSG_MORE = 0x8000, MSG_WAITFORONE = 0x10000,
        MSG_CMSG_CLOEXEC = 0x4000_0000;
    CLONE: CLONE_VM = 0x100, CLONE_FS = 0x200, CLONE_FILES = 0x400, CLONE_SIGHAND = 0x800, CLONE_PIDFD = 0x1000,
        CLONE_PTRACE = 0x2000, CLONE_VFORK = 0x4000, CLONE_PARENT = 0x8000, CLONE_THREAD = 0x10000, CLONE_NEWNS = 0x20000,
        CLONE_SYSVSEM = 0x40000, CLONE_SETTLS = 0x80000, CLONE_PARENT_SETTID = 0x100000, CLONE_CHILD_CLEARTID = 0x200000,
        CLONE_DETACHED = 0x400000, CLONE_UNTRACED = 0x800000, CLONE_CHILD_SETTID = 0x1000000, CLONE_NEWCGROUP = 0x2000000,
        CLONE_NEWUTS = 0x4000000, CLONE_NEWIPC = 0x8000000, CLONE_NEWUSER = 0x10000000, CLONE_NEWPID = 0x20000000,
        CLONE_NEWNET = 0x40000000, CLONE_IO = 0x80000000, SIGCHLD = 0x11;
    WAIT: WNOHANG = 1, WUNTRACED = 2, WEXITED = 4, WCONTINUED = 8, WNOWAIT = 0x1000000, __WNOTHREAD = 0x20000000,
        __WALL = 0x40000000, __WCLONE = 0x80000000;
    FCNTL: F_DUPFD = 0, F_GETFD = 1, F_SETFD = 2, F_GETFL = 3, F_SETFL = 4, F_GETLK = 5, F_SETLK = 6, F_SETLKW = 7, F_SETOWN = 8,
        F_GETOWN = 9, F_SETSIG = 10, F_GETSIG = 11, F_SETOWN_EX = 15, F_GETOWN_EX = 16, F_OFD_GETLK = 36, F_OFD_SETLK = 37,
        F_OFD_SETLKW = 38, F_SETLEASE = 1024, F_GETLEASE = 1025, F_NOTIFY = 1026, F_DUPFD_CLOEXEC = 1030,
        F_SETPIPE_SZ = 1031, F_GETPIPE_SZ = 1032, F_ADD_SEALS = 1033, F_GET_SEALS = 1034;
    RLIMIT: RLIMIT_CPU = 0, RLIMIT_FSIZE = 1, RLIMIT_DATA = 2, RLIMIT_STACK = 3, RLIMIT_CORE = 4, RLIMIT_RSS = 5,
        RLIMIT_NPROC = 6, RLIMIT_NOFILE = 7, RLIMIT_MEMLOCK = 8, RLIMIT_AS = 9, RLIMIT_LOCKS = 10, RLIMIT_SIGPENDING = 11,
        RLIMIT_MSGQUEUE = 12, RLIMIT_NICE = 13, RLIMIT_RTPRIO = 14, RLIMIT_RTTIME = 15;
    PRCTL: PR_SET_PDEATHSIG = 1, PR_GET_PDEATHSIG = 2, PR_GET_DUMPABLE = 3, PR_SET_DUMPABLE = 4, PR_SET_KEEPCAPS = 8,
        PR_SET_NAME = 15, PR_GET_NAME = 16, PR_GET_SECCOMP = 21, PR_SET_SECCOMP = 22, PR_CAPBSET_READ = 23, PR_SET_TIMERSLACK = 29,
        PR_SET_MM = 35, PR_SET_CHILD_SUBREAPER = 36, PR_SET_NO_NEW_PRIVS = 38, PR_GET_NO_NEW_PRIVS = 39, PR_SET_THP_DISABLE = 41,
        PR_CAP_AMBIENT = 47, PR_SET_VMA = 0x53564d41;
    ARCH: ARCH_SET_GS = 0x1001, ARCH_SET_FS = 0x1002, ARCH_GET_FS = 0x1003, ARCH_GET_GS = 0x1004, ARCH_GET_CPUID = 0x1011,
        ARCH_SET_CPUID = 0x1012, ARCH_CET_STATUS = 0x3001, ARCH_SHSTK_ENABLE = 0x5001;
    /// Operations and their option bits.
    FUTEX: FUTEX_PRIVATE = 0x80, FUTEX_CLOCK_REALTIME = 0x100, LOCK_PI2 = 13, CMP_REQUEUE_PI = 12, WAIT_REQUEUE_PI = 11,
        WAKE_BITSET = 10, WAIT_BITSET = 9, TRYLOCK_PI = 8, UNLOCK_PI = 7, LOCK_PI = 6, WAKE_OP = 5, CMP_REQUEUE = 4, REQUEUE = 3,
        WAKE = 1, WAIT = 0;
    CLOCK: CLOCK_REALTIME = 0, CLOCK_MONOTONIC = 1, CLOCK_PROCESS_CPUTIME_ID = 2, CLOCK_THREAD_CPUTIME_ID = 3,
        CLOCK_MONOTONIC_RAW = 4, CLOCK_REALTIME_COARSE = 5, CLOCK_MONOTONIC_COARSE = 6, CLOCK_BOOTTIME = 7, CLOCK_TAI = 11;
    EPOLLCTL: EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL = 2, EPOLL_CTL_MOD = 3;
    AT: AT_SYMLINK_NOFOLLOW = 0x100, AT_EACCESS = 0x200, AT_SYMLINK_FOLLOW = 0x400, AT_NO_AUTOMOUNT = 0x800,
        AT_EMPTY_PATH = 0x1000, AT_STATX_FORCE_SYNC = 0x2000, AT_STATX_DONT_SYNC = 0x4000;
    ATRM: AT_REMOVEDIR = 0x200;
    /// timerfd, signalfd, epoll and inotify share these.
    TFD: NONBLOCK = 0x800, CLOEXEC = 0x80000;
    EFD: EFD_SEMAPHORE = 1, EFD_NONBLOCK = 0x800, EFD_CLOEXEC = 0x80000;
    GRND: GRND_NONBLOCK = 1, GRND_RANDOM = 2, GRND_INSECURE = 4;
    MFD: MFD_CLOEXEC = 1, MFD_ALLOW_SEALING = 2, MFD_HUGETLB = 4, MFD_NOEXEC_SEAL = 8, MFD_EXEC = 16;
    /// open flags without the access mode; O_TMPFILE and O_SYNC come before the bits they contain.
    OPEN: O_TMPFILE = 0o20200000, O_SYNC = 0o4010000, O_CREAT = 0o100, O_EXCL = 0o200, O_NOCTTY = 0o400, O_TRUNC = 0o1000,
        O_APPEND = 0o2000, O_NONBLOCK = 0o4000, O_DSYNC = 0o10000, FASYNC = 0o20000, O_DIRECT = 0o40000, O_LARGEFILE = 0o100000,
        O_DIRECTORY = 0o200000, O_NOFOLLOW = 0o400000, O_NOATIME = 0o1000000, O_CLOEXEC = 0o2000000, O_PATH = 0o10000000;
}

/// `value`'s names joined by `|`, what is left over in hexadecimal.
pub fn bits(names: Names, mut value: u64) -> String {
    let mut out = String::new();
    for &(bit, name) in names {
        if (value & bit == bit && bit != 0) || (bit == 0 && value == 0) {
            if !out.is_empty() {
                out.push('|');
            }
            out.push_str(name);
            value &= !bit;
        }
    }
    if value != 0 || out.is_empty() {
        if !out.is_empty() {
            out.push('|');
        }
        out.push_str(&if value == 0 { "0".into() } else { format!("{value:#x}") });
    }
    out
}

/// The one name of `value`, or its digits.
pub fn one(names: Names, value: u64) -> String {
    match names.iter().find(|(v, _)| *v == value) {
        Some((_, n)) => (*n).into(),
        None if value < 4096 => value.to_string(),
        None => format!("{value:#x}"),
    }
}

/// open(2)'s flags.
pub fn open_flags(value: u64) -> String {
    let mode = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"][(value & 3) as usize];
    match value & !3 & 0xffff_ffff {
        0 => mode.into(),
        rest => format!("{mode}|{}", bits(OPEN, rest)),
    }
}

const SIGNALS: [&str; 32] = [
    "0",
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// A signal's name; real-time ones as SIGRT_n.
pub fn signal(n: u64) -> String {
    match SIGNALS.get(n as usize) {
        Some(s) => (*s).into(),
        None if n <= 64 => format!("SIGRT_{}", n - 32),
        None => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing() {
        assert_eq!(bits(PROT, 3), "PROT_READ|PROT_WRITE");
        assert_eq!(bits(PROT, 0), "0");
        assert_eq!(bits(PROT, 0x11), "PROT_READ|0x10");
        assert_eq!(bits(ACCESS, 0), "F_OK");
        assert_eq!(open_flags(0o2000000), "O_RDONLY|O_CLOEXEC");
        assert_eq!(open_flags(0o20200001), "O_WRONLY|O_TMPFILE");
        assert_eq!(signal(11), "SIGSEGV");
        assert_eq!(signal(34), "SIGRT_2");
    }
}
