//! Guest memory: effective addresses (SDM vol. 1, 3.7.5) and accesses in the order x86 allows. The only place that knows how an ordering is emitted.

use super::{Cx, STATE, gpr};
use crate::emit::imm::fits_add;
use crate::emit::int::{Dmb, fits_offset};
use crate::emit::{Addr, Sz, V, X, ZR};
use iced_x86::{Instruction, Register};
use std::mem::offset_of;
use xrun_runtime::abi;
use xrun_runtime::engine::Ordering;
use xrun_runtime::state::CpuState;

/// Where the base of the memory operand's segment is, if it is not zero (SDM vol. 1, 3.4.4).
fn segment_base(i: &Instruction) -> Option<Addr> {
    let at = match i.segment_prefix() {
        Register::FS => offset_of!(CpuState, fs_base),
        Register::GS => offset_of!(CpuState, gs_base),
        _ => return None,
    };
    Some(Addr::Off(STATE, at as i32))
}

impl Cx<'_> {
    /// The address of the memory operand of `i`, in a form an access of `bytes` can use under the current ordering.
    pub fn addr(&mut self, i: &Instruction, bytes: u32) -> Addr {
        let disp = i.memory_displacement64() as i64;
        let seg = i.segment_prefix();
        let wide = i.memory_base().size() != 4 && i.memory_index().size() != 4;
        let plain = self.ordering != Ordering::Tso;
        let near = |host: &crate::host::HostFeatures| {
            fits_offset(bytes, disp) && (plain || disp == 0 || host.lrcpc2 && (-256..256).contains(&disp))
        };
        let (no_base, no_index) = (i.memory_base() == Register::None, i.memory_index() == Register::None);
        if wide
            && no_base
            && no_index
            && near(&self.host)
            && let Some(base) = segment_base(i)
        {
            // Thread-local variables.
            let s = self.tmp();
            self.m.ldr(8, s, base);
            return Addr::Off(s, disp as i32);
        }
        if wide
            && plain
            && no_index
            && disp == 0
            && let (Some(base), Some((b, ..))) = (segment_base(i), gpr(i.memory_base()))
        {
            let s = self.tmp();
            self.m.ldr(8, s, base);
            return Addr::Idx(s, b, 0);
        }
        if seg != Register::FS && seg != Register::GS && wide {
            let base = gpr(i.memory_base()).map(|g| g.0);
            let index = gpr(i.memory_index()).map(|g| g.0);
            let scale = i.memory_index_scale().trailing_zeros();
            match (base, index) {
                (Some(b), None)
                    if i.memory_base() != Register::RIP && fits_offset(bytes, disp) && (plain || disp == 0) =>
                {
                    return Addr::Off(b, disp as i32);
                }
                (Some(b), None) if !plain && self.host.lrcpc2 && (-256..256).contains(&disp) => {
                    return Addr::Off(b, disp as i32);
                }
                (Some(b), Some(x)) if plain && disp == 0 && (scale == 0 || 1 << scale == bytes) => {
                    return Addr::Idx(b, x, scale as u8);
                }
                (Some(b), Some(x)) if plain && fits_offset(bytes, disp) => {
                    let t = self.tmp();
                    self.m.add_lsl(Sz::X, t, b, x, scale);
                    return Addr::Off(t, disp as i32);
                }
                // A displacement that takes words of its own is added by the access.
                (Some(b), None) if plain && i.memory_base() != Register::RIP && !fits_add(disp.unsigned_abs()) => {
                    let t = self.tmp();
                    self.m.mov_imm(t, disp as u64);
                    return Addr::Idx(b, t, 0);
                }
                (None, Some(x)) if plain && disp != 0 && (scale == 0 || 1 << scale == bytes) => {
                    let t = self.tmp();
                    self.m.mov_imm(t, disp as u64);
                    return Addr::Idx(t, x, scale as u8);
                }
                _ => {}
            }
        }
        Addr::Off(self.lea(i, true), 0)
    }

    /// The effective address of the memory operand in a register; with the segment base if `segment`. The register may be a pinned one: do not write it.
    pub fn lea(&mut self, i: &Instruction, segment: bool) -> X {
        let disp = i.memory_displacement64();
        let narrow = i.memory_base().size() == 4 || i.memory_index().size() == 4;
        let base = match i.memory_base() {
            Register::RIP | Register::EIP => None,
            r => gpr(r).map(|g| g.0),
        };
        let index = gpr(i.memory_index()).map(|g| g.0);
        let scale = i.memory_index_scale().trailing_zeros();
        let size = if narrow { Sz::W } else { Sz::X };
        // One scratch register holds every step; what else is needed on the way is free again afterwards.
        let kept = self.tmp;
        let t = self.tmp();
        let mut cur = match (base, index) {
            (Some(b), None) => Some(b),
            (Some(b), Some(x)) => {
                self.m.add_lsl(size, t, b, x, scale);
                Some(t)
            }
            (None, Some(x)) if scale == 0 => Some(x),
            (None, Some(x)) => {
                self.m.lsl(size, t, x, scale);
                Some(t)
            }
            (None, None) => None,
        };
        cur = match cur {
            None => {
                self.m.mov_imm(t, if narrow { disp & 0xffff_ffff } else { disp });
                Some(t)
            }
            Some(c) if disp != 0 => {
                self.add_const(size, t, c, disp as i64);
                Some(t)
            }
            Some(c) if narrow && c != t => {
                self.m.mov(Sz::W, t, c);
                Some(t)
            }
            c => c,
        };
        let mut cur = cur.unwrap_or(ZR);
        if let Some(base) = segment.then(|| segment_base(i)).flatten() {
            let s = self.tmp();
            self.m.ldr(8, s, base);
            self.m.add(Sz::X, t, s, cur);
            cur = t;
        }
        self.tmp = kept + u8::from(cur == t);
        cur
    }

    /// LEA: the effective address, without a segment, cut to `size`, in `d`.
    pub fn lea_into(&mut self, i: &Instruction, d: X, size: Sz) {
        let narrow = i.memory_base().size() == 4 || i.memory_index().size() == 4;
        let base = match i.memory_base() {
            Register::RIP | Register::EIP => None,
            r => gpr(r).map(|g| g.0),
        };
        let index = gpr(i.memory_index()).map(|g| g.0);
        let scale = i.memory_index_scale().trailing_zeros();
        let disp = i.memory_displacement64();
        // Only the low half counts, of the address or of the result.
        let w = if narrow { Sz::W } else { size };
        let disp = if w == Sz::W { disp & 0xffff_ffff } else { disp };
        let offset = if w == Sz::W { i64::from(disp as i32) } else { disp as i64 };
        let fits = crate::emit::imm::fits_add(offset.unsigned_abs());
        match (base, index) {
            (None, None) => self.m.mov_imm(d, disp),
            (Some(b), None) => self.add_const(w, d, b, offset),
            (Some(b), Some(x)) if offset == 0 => self.m.add_lsl(w, d, b, x, scale),
            (Some(b), Some(x)) if fits => {
                self.m.add_lsl(w, d, b, x, scale);
                self.add_const(w, d, d, offset);
            }
            (Some(b), Some(x)) => {
                let t = self.tmp();
                self.m.mov_imm(t, disp);
                self.m.add(w, t, t, b);
                self.m.add_lsl(w, d, t, x, scale);
            }
            (None, Some(x)) => {
                if offset == 0 && scale == 0 {
                    self.m.mov(w, d, x);
                } else if offset == 0 {
                    self.m.lsl(w, d, x, scale);
                } else {
                    let t = self.tmp();
                    self.m.mov_imm(t, disp);
                    self.m.add_lsl(w, d, t, x, scale);
                }
            }
        }
    }

    /// Adds the base of the instruction's segment to `t`, if it has one.
    pub fn add_segment(&mut self, i: &Instruction, t: X) {
        let Some(base) = segment_base(i) else { return };
        let s = self.tmp();
        self.m.ldr(8, s, base);
        self.m.add(Sz::X, t, t, s);
    }

    /// `d = n + v`; at most two words and one scratch.
    pub fn add_const(&mut self, size: Sz, d: X, n: X, v: i64) {
        let v = if size == Sz::W { i64::from(v as i32) } else { v };
        if v == 0 {
            if d != n {
                self.m.mov(size, d, n);
            }
        } else if crate::emit::imm::fits_add(v as u64) {
            self.m.add_imm(size, d, n, v as u32);
        } else if crate::emit::imm::fits_add(v.unsigned_abs()) {
            self.m.sub_imm(size, d, n, v.unsigned_abs() as u32);
        } else {
            let kept = self.tmp;
            let t = self.tmp();
            self.m.mov_imm(t, v as u64);
            self.m.add(size, d, n, t);
            self.tmp = kept;
        }
    }

    /// As [`Cx::addr_reg`], for the only use there is of `at`: in its own scratch register if it has one.
    pub fn take_addr(&mut self, at: Addr) -> X {
        let own = |x: X| abi::SCRATCH.contains(&x.0);
        match at {
            Addr::Idx(n, x, s) if own(n) || own(x) => {
                let d = if own(n) { n } else { x };
                self.m.add_lsl(Sz::X, d, n, x, u32::from(s));
                d
            }
            at => self.addr_reg(at),
        }
    }

    /// The address in one register, for ordered accesses, exclusives and atomics.
    pub fn addr_reg(&mut self, at: Addr) -> X {
        match at {
            Addr::Off(n, 0) => n,
            Addr::Off(n, off) => {
                let t = self.tmp();
                self.add_const(Sz::X, t, n, i64::from(off));
                t
            }
            Addr::Idx(n, x, s) => {
                let t = self.tmp();
                self.m.add_lsl(Sz::X, t, n, x, u32::from(s));
                t
            }
        }
    }

    /// A guest load of `bytes` (1, 2, 4, 8), zero-extended to 64 bits, ordered as x86 orders loads.
    pub fn load(&mut self, bytes: u32, d: X, at: Addr) {
        self.access();
        if self.ordering == Ordering::Plain {
            return self.m.ldr(bytes, d, at);
        }
        if self.ordering == Ordering::Fenced {
            self.m.ldr(bytes, d, at);
            return self.m.dmb(Dmb::Ishld);
        }
        if self.host.lrcpc2
            && let Addr::Off(n, off) = at
            && off != 0
            && (-256..256).contains(&off)
        {
            return self.m.ldapur(bytes, d, n, off);
        }
        let n = self.addr_reg(at);
        if self.host.lrcpc {
            self.m.ldapr(bytes, d, n);
        } else {
            self.m.ldar(bytes, d, n);
        }
    }

    /// As [`Cx::load`], sign-extended to `to`.
    pub fn load_signed(&mut self, bytes: u32, to: Sz, d: X, at: Addr) {
        self.access();
        if self.ordering == Ordering::Plain {
            return self.m.ldrs(bytes, to, d, at);
        }
        self.load(bytes, d, at);
        self.m.sbfx(to, d, d, 0, bytes * 8);
    }

    /// A guest store of the low `bytes` of `s`, ordered as x86 orders stores.
    pub fn store(&mut self, bytes: u32, s: X, at: Addr) {
        self.access();
        if self.ordering == Ordering::Plain {
            return self.m.str(bytes, s, at);
        }
        if self.ordering == Ordering::Fenced {
            self.m.dmb(Dmb::Ishst);
            return self.m.str(bytes, s, at);
        }
        if self.host.lrcpc2
            && let Addr::Off(n, off) = at
            && off != 0
            && (-256..256).contains(&off)
        {
            return self.m.stlur(bytes, s, n, off);
        }
        let n = self.addr_reg(at);
        self.m.stlr(bytes, s, n);
    }

    /// A guest vector load of `bytes` (1, 2, 4, 8, 16), rest of the register zero: a plain load and, when ordered, DMB ISHLD after it.
    pub fn load_v(&mut self, bytes: u32, d: V, at: Addr) {
        self.access();
        self.m.ldr_v(bytes, d, at);
        if self.ordering != Ordering::Plain {
            self.m.dmb(Dmb::Ishld);
        }
    }

    /// A guest vector store: when ordered, DMB ISHST before it.
    pub fn store_v(&mut self, bytes: u32, s: V, at: Addr) {
        self.access();
        if self.ordering != Ordering::Plain {
            self.m.dmb(Dmb::Ishst);
        }
        self.m.str_v(bytes, s, at);
    }

    /// The address in a form that 16 bytes at it and 16 bytes after them can be accessed with: a register and a multiple of 16 that LDP takes, or else
    /// the register alone.
    fn pair_addr(&mut self, at: Addr) -> (X, i32) {
        match at {
            Addr::Off(n, off) if off % 16 == 0 && (-1024..1008).contains(&off) => (n, off),
            _ => (self.addr_reg(at), 0),
        }
    }

    /// A guest load of 32 bytes.
    pub fn load_v_pair(&mut self, lo: V, hi: V, at: Addr) {
        let (n, off) = self.pair_addr(at);
        self.access();
        self.m.ldp_q(lo, hi, n, off);
        if self.ordering != Ordering::Plain {
            self.m.dmb(Dmb::Ishld);
        }
    }

    /// A guest store of 32 bytes.
    pub fn store_v_pair(&mut self, lo: V, hi: V, at: Addr) {
        let (n, off) = self.pair_addr(at);
        self.access();
        if self.ordering != Ordering::Plain {
            self.m.dmb(Dmb::Ishst);
        }
        self.m.stp_q(lo, hi, n, off);
    }
}
