//! Error numbers of system calls. x86_64 and AArch64 share asm-generic's, so a host errno is the guest's.

/// An errno, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    pub const EFAULT: Errno = Errno(libc::EFAULT);
    pub const EINVAL: Errno = Errno(libc::EINVAL);
    pub const ENOENT: Errno = Errno(libc::ENOENT);
    pub const ENOSYS: Errno = Errno(libc::ENOSYS);
    /// Never seen by the guest: the call was given up for a signal and is to be made again once that is delivered.
    /// The kernel's own internal number for it.
    pub const RESTART: Errno = Errno(512);

    /// Its name, as errno.h has it.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(n, _)| *n == self.0).map_or("E?", |(_, s)| s)
    }
}

impl From<crate::memory::access::BadAddress> for Errno {
    fn from(_: crate::memory::access::BadAddress) -> Errno {
        Errno::EFAULT
    }
}

/// What a system call handler returns: the value for RAX, or an errno.
pub type Answer = Result<i64, Errno>;

macro_rules! names {
    ($($n:ident)*) => {
        const NAMES: &[(i32, &str)] = &[$((libc::$n, stringify!($n)),)* (512, "ERESTARTSYS")];
    };
}
names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV ENODEV
    ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK
    ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ENODATA ENOSTR ETIME ENOSR EPROTO EBADMSG EOVERFLOW EBADFD EILSEQ
    EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT
    EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN
    ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT ENOMEDIUM
    EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON
}
