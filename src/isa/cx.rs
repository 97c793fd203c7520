//! The lowering context: what a row's function works with. Operand fetch and write-back, partial-register merges, addresses and memory
//! ordering, the static form of the flags, exits: each is done once, here or in a child module, so that a row says only what is particular to its instruction.

use super::Decline;
use crate::emit::int::{Dmb, fits_offset};
use crate::emit::{Addr, Cond, Label, Masm, Sz, V, X, ZR};
use crate::facts::Facts;
use crate::guest::{Flags, Region};
use crate::host::HostFeatures;
use iced_x86::{Instruction, OpKind, Register};
use std::mem::offset_of;
use xrun_runtime::abi::{self, Thunk};
use xrun_runtime::engine::{Entry, Exit, FlagForm, Mark, Ordering, Trap};
use xrun_runtime::helpers::Helper;
use xrun_runtime::state::CpuState;

/// Pointer to `CpuState`.
pub const STATE: X = X(abi::STATE);
/// PF source: PF is the even parity of its low byte.
pub const PF: X = X(abi::PF);
/// AF source: AF is bit 4 of it xor [`PF`].
pub const AF: X = X(abi::AF);
/// The link register, free as one more scratch outside calls.
pub const LINK: X = X(abi::LINK);
const SHADOW: X = X(abi::SHADOW);

/// What the bits above an 8- or 16-bit operand hold when it is fetched (up to bit 31; 32- and 64-bit operands are used through
/// W or X registers and need none of it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ext {
    Any,
    Zero,
    Sign,
}

/// Where an operand lives, with its address computed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A guest general register or part of one: host register, lowest bit, size in bytes.
    Reg {
        x: X,
        lsb: u32,
        bytes: u32,
    },
    Mem {
        at: Addr,
        bytes: u32,
    },
    Imm {
        value: u64,
        bytes: u32,
    },
}

impl Place {
    pub fn bytes(self) -> u32 {
        match self {
            Place::Reg { bytes, .. } | Place::Mem { bytes, .. } | Place::Imm { bytes, .. } => bytes,
        }
    }

    pub fn is_mem(self) -> bool {
        matches!(self, Place::Mem { .. })
    }
}

/// Where AF comes from, given the result `r` PF comes from: AF = bit 4 of `a ^ b ^ r`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfFrom {
    /// `a ^ b` is this constant: logic operations (undefined, here 0), `a` added to itself.
    Const(u8),
    /// `r = a + b`.
    AddImm(u64),
    AddReg(X),
    /// `r = a - b`.
    SubImm(u64),
    SubReg(X),
    /// `a ^ b` has been put into [`AF`] already.
    Stored,
}

/// Where PF and AF are. Most results are never asked for either, so they are left where the instruction put its result until that register is
/// about to change or an edge needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pa {
    /// In [`PF`] and [`AF`].
    Stored,
    Lazy {
        r: X,
        af: AfFrom,
    },
}

/// The static state of the flags at a point of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FlagState {
    form: FlagForm,
    pa: Pa,
}

const CANONICAL: FlagState = FlagState { form: FlagForm::Direct, pa: Pa::Stored };

type ColdFn<'a> = Box<dyn FnOnce(&mut Cx<'a>) + 'a>;

enum Cold<'a> {
    Exit { label: Label, site: u32, target: u64, inside: Option<Label> },
    Edge { label: Label, flags: FlagState, live: Flags, target: u64 },
    Trap { label: Label, pc: u64, trap: Trap, flags: FlagState },
    Miss { label: Label, target: X, thunk: Thunk, flags: FlagState },
    Custom { label: Label, at: usize, flags: FlagState, f: ColdFn<'a> },
}

/// See the file's head.
pub struct Cx<'a> {
    pub m: Masm,
    pub region: &'a Region,
    pub facts: &'a Facts,
    pub host: HostFeatures,
    pub ordering: Ordering,
    /// Index of the instruction being lowered.
    pub at: usize,
    flags: FlagState,
    labels: Vec<Option<Label>>,
    cold: Vec<Cold<'a>>,
    pub(crate) exits: Vec<Exit>,
    pub(crate) inside: Vec<(usize, Label)>,
    pub(crate) landings: Vec<Entry>,
    pub(crate) marks: Vec<Mark>,
    tmp: u8,
    vtmp: u8,
}

/// Size class of an operand of `bytes`: X for 8, else W.
pub fn sz(bytes: u32) -> Sz {
    if bytes == 8 { Sz::X } else { Sz::W }
}

/// The host register of a guest register, its lowest bit there and its size in bytes. `None` for anything but general registers.
pub fn gpr(r: Register) -> Option<(X, u32, u32)> {
    if !r.is_gpr() {
        return None;
    }
    let high = matches!(r, Register::AH | Register::BH | Register::CH | Register::DH);
    let n = r.full_register().number();
    Some((X(abi::GPR[n]), if high { 8 } else { 0 }, r.size() as u32))
}

/// The pinned host register of guest general register `n` (x86 number).
pub fn pinned(n: usize) -> X {
    X(abi::GPR[n])
}

impl<'a> Cx<'a> {
    pub fn new(region: &'a Region, facts: &'a Facts, host: HostFeatures, ordering: Ordering) -> Cx<'a> {
        let n = region.insts.len();
        Cx {
            m: Masm::new(),
            region,
            facts,
            host,
            ordering,
            at: 0,
            flags: CANONICAL,
            labels: vec![None; n],
            cold: Vec::new(),
            exits: Vec::new(),
            inside: Vec::new(),
            landings: Vec::new(),
            marks: Vec::with_capacity(n),
            tmp: 0,
            vtmp: 0,
        }
    }

    /// Opens instruction `at`: binds its label, brings flags to canonical form at joins, frees scratch registers, sets the mark.
    pub(crate) fn begin(&mut self, at: usize) {
        self.at = at;
        if self.region.insts[at].join {
            self.canonical(self.facts.live_in[at]);
            let l = self.label_of(at);
            self.m.bind(l);
        }
        self.tmp = 0;
        self.vtmp = 0;
        self.keep_pa();
        self.mark();
    }

    /// Before an instruction overwrites a register that PF or AF still come from: saves what is needed.
    fn keep_pa(&mut self) {
        let live = self.facts.live_in[self.at];
        let Pa::Lazy { r, af } = self.flags.pa else {
            return;
        };
        if !live.intersects(Flags::P | Flags::A) {
            self.flags.pa = Pa::Stored;
            return;
        }
        let written = crate::guest::written_gprs(&self.region.insts[self.at].i);
        let hit = |x: X| written & (1 << x.0) != 0;
        match af {
            AfFrom::AddReg(b) | AfFrom::SubReg(b) if hit(r) || hit(b) => self.store_pa(live),
            _ if hit(r) => {
                self.m.mov(Sz::W, PF, r);
                self.flags.pa = Pa::Lazy { r: PF, af };
            }
            _ => {}
        }
    }

    /// Brings PF and AF into their registers as far as `live` asks.
    fn store_pa(&mut self, live: Flags) {
        let Pa::Lazy { r, af } = self.flags.pa else {
            return;
        };
        self.flags.pa = Pa::Stored;
        if !live.intersects(Flags::P | Flags::A) {
            return;
        }
        if r != PF {
            self.m.mov(Sz::W, PF, r);
        }
        if !live.contains(Flags::A) {
            return;
        }
        match af {
            AfFrom::Stored => {}
            AfFrom::Const(c) => self.m.movz(Sz::W, AF, u16::from(c), 0),
            AfFrom::AddImm(k) => {
                self.m.sub_imm(Sz::W, AF, PF, k as u32 & 0x1f);
                self.flip_bits(k);
            }
            AfFrom::SubImm(k) => {
                self.m.add_imm(Sz::W, AF, PF, k as u32 & 0x1f);
                self.flip_bits(k);
            }
            AfFrom::AddReg(b) => {
                self.m.sub(Sz::W, AF, PF, b);
                self.m.eor(Sz::W, AF, AF, b);
            }
            AfFrom::SubReg(b) => {
                self.m.add(Sz::W, AF, PF, b);
                self.m.eor(Sz::W, AF, AF, b);
            }
        }
    }

    /// Only bit 4 of AF's source counts.
    fn flip_bits(&mut self, k: u64) {
        if k & 0x10 != 0 {
            self.m.eor_imm(Sz::W, AF, AF, 0x10);
        }
    }

    /// Says where PF and AF of this instruction come from: the result `r`, and `af`. Nothing is emitted unless they are live and `r` is
    /// a scratch register. A register named in `af` must be a pinned one this instruction does not change.
    pub fn set_pa(&mut self, r: X, af: AfFrom) {
        let live = self.live();
        self.flags.pa = Pa::Stored;
        if !live.intersects(Flags::P | Flags::A) {
            return;
        }
        let keep = abi::GPR.contains(&r.0) || r == PF;
        if !keep {
            self.m.mov(Sz::W, PF, r);
        }
        self.flags.pa = Pa::Lazy { r: if keep { r } else { PF }, af };
    }

    /// Host words from here on belong to the current instruction with flags in the current form.
    pub fn mark(&mut self) {
        let mark = Mark { word: self.m.here(), guest: self.region.insts[self.at].i.ip(), flags: self.flags.form };
        self.marks.push(mark);
    }

    fn label_of(&mut self, at: usize) -> Label {
        if let Some(l) = self.labels[at] {
            return l;
        }
        let l = self.m.label();
        self.labels[at] = Some(l);
        l
    }

    // ---- scratch -------------------------------------------------------------------------------------------------

    /// A fresh scratch register, valid to the end of this guest instruction. There are ten.
    pub fn tmp(&mut self) -> X {
        let x = X(abi::SCRATCH[usize::from(self.tmp)]);
        self.tmp += 1;
        x
    }

    /// A fresh scratch vector register, valid to the end of this guest instruction. There are sixteen.
    pub fn vtmp(&mut self) -> V {
        let v = V(abi::VSCRATCH[usize::from(self.vtmp)]);
        self.vtmp += 1;
        v
    }

    // ---- operands ------------------------------------------------------------------------------------------------

    /// Operand `n` of `i`. For memory this computes the address; it must be called before anything the address depends on is written.
    pub fn place(&mut self, i: &Instruction, n: u32) -> Result<Place, Decline> {
        match i.op_kind(n) {
            OpKind::Register => {
                let (x, lsb, bytes) = gpr(i.op_register(n)).ok_or(Decline::Unsupported("register class"))?;
                Ok(Place::Reg { x, lsb, bytes })
            }
            OpKind::Memory => {
                let bytes = i.memory_size().size() as u32;
                let at = self.addr(i, bytes);
                Ok(Place::Mem { at, bytes })
            }
            k if is_immediate(k) => {
                let bytes = self.op0_bytes(i);
                let value = i.immediate(n) & mask(bytes);
                Ok(Place::Imm { value, bytes })
            }
            _ => Err(Decline::Unsupported("operand kind")),
        }
    }

    fn op0_bytes(&self, i: &Instruction) -> u32 {
        match i.op_kind(0) {
            OpKind::Register => i.op_register(0).size() as u32,
            OpKind::Memory => i.memory_size().size() as u32,
            _ => 8,
        }
    }

    /// The operand's value in a register. 32- and 64-bit registers come back as the pinned register itself; everything else in a scratch.
    pub fn get(&mut self, p: Place, ext: Ext) -> X {
        match p {
            Place::Reg { x, lsb: 0, bytes: 4 | 8 } => x,
            Place::Reg { x, lsb: 0, .. } if ext == Ext::Any => x,
            Place::Reg { x, lsb, bytes } => {
                let t = self.tmp();
                match ext {
                    Ext::Sign => self.m.sbfx(Sz::W, t, x, lsb, bytes * 8),
                    _ => self.m.ubfx(Sz::W, t, x, lsb, bytes * 8),
                }
                t
            }
            Place::Mem { at, bytes } => {
                let t = self.tmp();
                match ext {
                    Ext::Sign if bytes < 4 => self.load_signed(bytes, Sz::W, t, at),
                    _ => self.load(bytes, t, at),
                }
                t
            }
            Place::Imm { value: 0, .. } => ZR,
            Place::Imm { value, bytes } => {
                let t = self.tmp();
                let v = match (ext, bytes) {
                    (Ext::Sign, 1) => value as i8 as u32 as u64,
                    (Ext::Sign, 2) => value as i16 as u32 as u64,
                    _ => value,
                };
                self.m.mov_imm(t, v);
                t
            }
        }
    }

    /// A register a result for `p` may be computed into: the pinned register for whole 32/64-bit registers, else a scratch. [`Cx::set`] finishes the job.
    pub fn target(&mut self, p: Place) -> X {
        match p {
            Place::Reg { x, lsb: 0, bytes: 4 | 8 } => x,
            _ => self.tmp(),
        }
    }

    /// Writes `v` to the operand: merges 8- and 16-bit parts, zero-extends 32 bits (SDM vol. 1, 3.4.1.1), or stores. When `v` is the pinned
    /// register itself it was written by a W or X instruction already and nothing is emitted.
    pub fn set(&mut self, p: Place, v: X) {
        match p {
            Place::Reg { x, bytes: 8, .. } => {
                if x != v {
                    self.m.mov(Sz::X, x, v);
                }
            }
            Place::Reg { x, bytes: 4, .. } => {
                if x != v {
                    self.m.mov(Sz::W, x, v);
                }
            }
            Place::Reg { x, lsb, bytes } => self.m.bfi(Sz::X, x, v, lsb, bytes * 8),
            Place::Mem { at, bytes } => self.store(bytes, v, at),
            Place::Imm { .. } => {}
        }
    }

    // ---- memory --------------------------------------------------------------------------------------------------

    /// The address of the memory operand of `i`, in a form an access of `bytes` can use under the current ordering.
    pub fn addr(&mut self, i: &Instruction, bytes: u32) -> Addr {
        let disp = i.memory_displacement64() as i64;
        let seg = i.segment_prefix();
        let wide = i.memory_base().size() != 4 && i.memory_index().size() != 4;
        let plain = self.ordering == Ordering::Plain;
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
                _ => {}
            }
        }
        Addr::Off(self.lea(i, true), 0)
    }

    /// The effective address of the memory operand in a register; with the segment base if `segment`. The register may be a pinned one: do not write it.
    pub fn lea(&mut self, i: &Instruction, segment: bool) -> X {
        let seg = match i.segment_prefix() {
            Register::FS if segment => Some(offset_of!(CpuState, fs_base)),
            Register::GS if segment => Some(offset_of!(CpuState, gs_base)),
            _ => None,
        };
        let disp = i.memory_displacement64();
        let narrow = i.memory_base().size() == 4 || i.memory_index().size() == 4;
        let base = match i.memory_base() {
            Register::RIP | Register::EIP => None,
            r => gpr(r).map(|g| g.0),
        };
        let index = gpr(i.memory_index()).map(|g| g.0);
        let scale = i.memory_index_scale().trailing_zeros();
        let size = if narrow { Sz::W } else { Sz::X };
        let mut cur = match (base, index) {
            (Some(b), None) => Some(b),
            (Some(b), Some(x)) => {
                let t = self.tmp();
                self.m.add_lsl(size, t, b, x, scale);
                Some(t)
            }
            (None, Some(x)) if scale == 0 => Some(x),
            (None, Some(x)) => {
                let t = self.tmp();
                self.m.lsl(size, t, x, scale);
                Some(t)
            }
            (None, None) => None,
        };
        cur = match cur {
            None => {
                let t = self.tmp();
                self.m.mov_imm(t, if narrow { disp & 0xffff_ffff } else { disp });
                Some(t)
            }
            Some(c) if disp != 0 => {
                let t = self.tmp();
                self.add_const(size, t, c, disp as i64);
                Some(t)
            }
            Some(c) if narrow && (base.is_none() || index.is_none()) => {
                let t = self.tmp();
                self.m.mov(Sz::W, t, c);
                Some(t)
            }
            c => c,
        };
        let cur = cur.unwrap_or(ZR);
        match seg {
            Some(off) => {
                let t = self.tmp();
                self.m.ldr(8, t, Addr::Off(STATE, off as i32));
                self.m.add(Sz::X, t, t, cur);
                t
            }
            None => cur,
        }
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
            let t = self.tmp();
            self.m.mov_imm(t, v as u64);
            self.m.add(size, d, n, t);
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
        if self.ordering == Ordering::Plain {
            return self.m.ldr(bytes, d, at);
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
        if self.ordering == Ordering::Plain {
            return self.m.ldrs(bytes, to, d, at);
        }
        self.load(bytes, d, at);
        self.m.sbfx(to, d, d, 0, bytes * 8);
    }

    /// A guest store of the low `bytes` of `s`, ordered as x86 orders stores.
    pub fn store(&mut self, bytes: u32, s: X, at: Addr) {
        if self.ordering == Ordering::Plain {
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

    /// A guest vector load of `bytes` (4, 8, 16), rest of the register zero: a plain load and, when ordered, DMB ISHLD after it.
    pub fn load_v(&mut self, bytes: u32, d: V, at: Addr) {
        self.m.ldr_v(bytes, d, at);
        if self.ordering == Ordering::Tso {
            self.m.dmb(Dmb::Ishld);
        }
    }

    /// A guest vector store: when ordered, DMB ISHST before it.
    pub fn store_v(&mut self, bytes: u32, s: V, at: Addr) {
        if self.ordering == Ordering::Tso {
            self.m.dmb(Dmb::Ishst);
        }
        self.m.str_v(bytes, s, at);
    }

    // ---- flags ---------------------------------------------------------------------------------------------------

    /// Flags this instruction writes that something may read afterwards.
    pub fn live(&self) -> Flags {
        self.facts.live_out[self.at] & self.region.insts[self.at].flags.writes
    }

    /// Flags live after this instruction, whoever wrote them.
    pub fn live_out(&self) -> Flags {
        self.facts.live_out[self.at]
    }

    pub fn form(&self) -> FlagForm {
        self.flags.form
    }

    /// Declares how NZCV holds the guest's flags from here on.
    pub fn set_form(&mut self, f: FlagForm) {
        self.flags.form = f;
    }

    /// Inverts C: one word with FEAT_FlagM, else three.
    fn flip_carry(&mut self) {
        if self.host.flagm {
            self.m.cfinv();
        } else {
            self.m.mrs_nzcv(LINK);
            self.m.eor_imm(Sz::X, LINK, LINK, 1 << 29);
            self.m.msr_nzcv(LINK);
        }
    }

    /// Brings all flags to canonical form as far as `live` needs it: NZCV with C = CF, PF and AF in their registers.
    pub fn canonical(&mut self, live: Flags) {
        self.store_pa(live);
        match self.flags.form {
            FlagForm::Direct => {}
            FlagForm::CarryInverted => {
                if live.contains(Flags::C) {
                    self.flip_carry();
                }
            }
            FlagForm::FloatCompare => self.expand_float_compare(live, true),
        }
        self.flags.form = FlagForm::Direct;
    }

    /// Makes C hold CF (`inverted` false) or its inverse, for ADC, SBB and their like.
    pub fn carry_as(&mut self, inverted: bool) {
        let want = if inverted { FlagForm::CarryInverted } else { FlagForm::Direct };
        if self.flags.form == FlagForm::FloatCompare {
            self.expand_float_compare(Flags::all(), !inverted);
        } else if self.flags.form != want {
            self.flip_carry();
        }
        self.flags.form = want;
    }

    /// FCMP's flags to x86's: ZF = Z|V, CF = C clear or V, PF = V, SF = OF = AF = 0 (SDM vol. 2, UCOMISD; Arm ARM, FPCompare).
    fn expand_float_compare(&mut self, live: Flags, direct: bool) {
        if live.intersects(Flags::P | Flags::A) {
            // Odd parity (1) when ordered: PF clear. AF = bit 4 of PF ^ AF = 0.
            self.m.cset(PF, Cond::Vc);
            self.m.mov(Sz::W, AF, PF);
        }
        if live.intersects(Flags::NZCV) {
            if self.host.flagm2 {
                self.m.axflag();
                if direct && live.contains(Flags::C) {
                    self.m.cfinv();
                }
            } else {
                // less: N; equal: Z C; greater: C; unordered: C V.
                self.m.csinc(Sz::W, LINK, ZR, ZR, Cond::Ne);
                self.m.csinc(Sz::W, LINK, LINK, ZR, Cond::Vc);
                self.m.lsl(Sz::W, LINK, LINK, 30);
                let t = self.tmp();
                self.m.cset(t, if direct { Cond::Lt } else { Cond::Ge });
                self.m.orr_lsl(Sz::W, LINK, LINK, t, 29);
                self.m.msr_nzcv(LINK);
            }
        }
    }

    // ---- control flow --------------------------------------------------------------------------------------------

    /// Code run rarely: `f` is emitted after the region's main line, at a label this returns. It sees this instruction's flag form and may use scratch
    /// registers this instruction has not taken; it must end in a branch (back to a label, or a trap).
    pub fn cold(&mut self, f: impl FnOnce(&mut Cx<'a>) + 'a) -> Label {
        let label = self.m.label();
        self.cold.push(Cold::Custom { label, at: self.at, flags: self.flags, f: Box::new(f) });
        label
    }

    /// A label whose code raises `trap` at the current instruction.
    pub fn trap_label(&mut self, trap: Trap) -> Label {
        let label = self.m.label();
        let pc = self.region.insts[self.at].i.ip();
        self.cold.push(Cold::Trap { label, pc, trap, flags: self.flags });
        label
    }

    /// Raises `trap` here with `pc` as the guest address it reports.
    pub fn trap(&mut self, trap: Trap, pc: u64) {
        self.canonical(Flags::all());
        self.m.mov_imm(X(0), pc);
        self.m.mov_imm(X(1), trap as u64);
        self.thunk(Thunk::Trap, false);
    }

    /// `ldr x8, thunk; br/blr x8`.
    fn thunk(&mut self, t: Thunk, link: bool) {
        let off = offset_of!(CpuState, thunks) + 8 * t as usize;
        self.m.ldr(8, X(8), Addr::Off(STATE, off as i32));
        if link {
            self.m.blr(X(8));
        } else {
            self.m.br(X(8));
        }
    }

    /// Calls a helper with its arguments already in x0-x2. Flags must be in `Direct` form: call [`Cx::canonical`] first. Afterwards x0 is the result, x1-x9 and
    /// v0-v15 are garbage, guest registers are what the helper left.
    pub fn call_helper(&mut self, h: Helper) {
        debug_assert_eq!(self.flags, CANONICAL);
        self.m.movz(Sz::W, X(9), h as u16, 0);
        self.thunk(Thunk::Helper, true);
    }

    /// Calls a helper that looks at its arguments only.
    pub fn call_pure(&mut self, h: Helper) {
        self.m.movz(Sz::W, X(9), h as u16, 0);
        self.thunk(Thunk::HelperPure, true);
    }

    /// SYSCALL: leaves with the address of the next instruction.
    pub fn exit_syscall(&mut self, next: u64) {
        self.canonical(Flags::all());
        self.m.mov_imm(X(0), next);
        self.thunk(Thunk::Syscall, false);
    }

    /// A label to branch to for guest address `target`, with flags in the current form and `live` needed there. `site` is where the branch will be.
    pub fn edge(&mut self, target: u64, live: Flags) -> Label {
        let fix_pa = self.flags.pa != Pa::Stored && live.intersects(Flags::P | Flags::A);
        let fix_nzcv = match self.flags.form {
            FlagForm::Direct => false,
            FlagForm::CarryInverted => live.contains(Flags::C),
            FlagForm::FloatCompare => !live.is_empty(),
        };
        if fix_pa || fix_nzcv {
            let label = self.m.label();
            self.cold.push(Cold::Edge { label, flags: self.flags, live, target });
            return label;
        }
        self.direct(target)
    }

    /// The label for a branch at the next word to `target`: in the region, or an exit.
    fn direct(&mut self, target: u64) -> Label {
        let stub = self.m.label();
        let site = self.m.here();
        if let Some(k) = self.region.index_of(target) {
            let inside = self.label_of(k);
            if k <= self.at {
                self.cold.push(Cold::Exit { label: stub, site, target, inside: Some(inside) });
            }
            return inside;
        }
        self.cold.push(Cold::Exit { label: stub, site, target, inside: None });
        stub
    }

    /// Goes to guest address `target` for good.
    pub fn jump(&mut self, target: u64, live: Flags) {
        self.canonical(live);
        let l = self.direct(target);
        self.m.b(l);
    }

    /// The shadow-stack half of CALL: pushes {`ret`, where `landing` is}. `landing` must directly follow the BL or BLR.
    /// A return point that reads flags must not be reached by the short way, which does not bring them: its entry never matches.
    fn push_shadow(&mut self, ret: X, landing: Label) {
        let flags_at_return = match self.region.falls_to(self.at) {
            Some(next) => self.facts.live_in[next],
            None => self.facts.live_return[self.at],
        };
        let ret = if flags_at_return.is_empty() { ret } else { ZR };
        self.m.adr(LINK, landing);
        self.m.stp_pre(ret, LINK, SHADOW, -16);
    }

    /// Ends a direct CALL: `ret` holds the return address, already pushed on the guest's stack.
    pub fn call_direct(&mut self, target: u64, ret: X, ret_pc: u64) {
        let live = self.facts.live_target[self.at];
        self.canonical(live);
        let landing = self.m.label();
        self.push_shadow(ret, landing);
        let stub = self.m.label();
        let site = self.m.here();
        self.cold.push(Cold::Exit { label: stub, site, target, inside: None });
        self.m.bl(stub);
        self.land(landing, ret_pc);
    }

    /// Ends an indirect CALL to the address in `target`.
    pub fn call_indirect(&mut self, target: X, ret: X, ret_pc: u64) {
        let landing = self.m.label();
        self.push_shadow(ret, landing);
        self.lookup(target, true);
        self.land(landing, ret_pc);
    }

    fn land(&mut self, landing: Label, ret_pc: u64) {
        self.m.bind(landing);
        self.landings.push(Entry { guest: ret_pc, word: self.m.here(), reads_flags: false });
        self.flags = CANONICAL;
        if self.region.falls_to(self.at).is_none() {
            self.at_end(ret_pc, Flags::all());
        }
    }

    /// Leaves to `next`, which does not follow in the region.
    pub(crate) fn at_end(&mut self, next: u64, live: Flags) {
        self.canonical(live);
        let stub = self.m.label();
        let site = self.m.here();
        self.cold.push(Cold::Exit { label: stub, site, target: next, inside: None });
        self.m.b(stub);
    }

    /// Jumps to the guest address in `target`: eight words through the shared lookup table, which holds only entries that read no flags.
    /// The cold way brings all flags.
    pub fn jump_indirect(&mut self, target: X) {
        self.lookup(target, false);
    }

    fn lookup(&mut self, target: X, link: bool) {
        let miss = self.m.label();
        self.cold.push(Cold::Miss { label: miss, target, thunk: Thunk::Indirect, flags: self.flags });
        let (t, e) = (self.tmp(), self.tmp());
        self.m.ldr(8, t, Addr::Off(STATE, offset_of!(CpuState, lookup) as i32));
        self.m.ubfx(Sz::X, e, target, 0, abi::LOOKUP_BITS);
        self.m.ldr(4, e, Addr::Idx(t, e, 2));
        self.m.add(Sz::X, e, e, t);
        self.m.ldr(8, t, Addr::Off(e, -8));
        self.m.sub(Sz::X, t, t, target);
        self.m.cbnz(Sz::X, t, miss);
        if link {
            self.m.blr(e);
        } else {
            self.m.br(e);
        }
    }

    /// RET to the address in `target`, already popped: through the shadow stack.
    pub fn ret_to(&mut self, target: X) {
        let miss = self.m.label();
        self.cold.push(Cold::Miss { label: miss, target, thunk: Thunk::ReturnMiss, flags: self.flags });
        let t = self.tmp();
        self.m.ldp_post(t, LINK, SHADOW, 16);
        self.m.sub(Sz::X, t, t, target);
        self.m.cbnz(Sz::X, t, miss);
        self.m.ret(LINK);
    }

    /// Emits everything that was put off.
    pub(crate) fn finish_cold(&mut self) {
        let mut n = 0;
        while n < self.cold.len() {
            let batch = std::mem::take(&mut self.cold);
            for c in batch {
                self.emit_cold(c);
            }
            n = 0;
        }
    }

    fn emit_cold(&mut self, c: Cold<'a>) {
        match c {
            Cold::Exit { label, site, target, inside } => {
                // The u64 after the BLR must be aligned to 8.
                if self.m.here() % 2 == 1 {
                    self.m.nop();
                }
                self.m.bind(label);
                let stub = self.m.here();
                self.thunk(Thunk::Direct, true);
                self.m.quad(target);
                let at = self.exits.len();
                self.exits.push(Exit { site, stub, target, inside: None });
                if let Some(l) = inside {
                    self.inside.push((at, l));
                }
            }
            Cold::Edge { label, flags, live, target } => {
                self.m.bind(label);
                self.flags = flags;
                self.tmp = 0;
                self.canonical(live);
                // Past the end, so that an edge to any instruction of the region counts as a back edge.
                self.at = self.region.insts.len();
                let l = self.direct(target);
                self.m.b(l);
            }
            Cold::Trap { label, pc, trap, flags } => {
                self.m.bind(label);
                self.flags = flags;
                self.trap(trap, pc);
            }
            Cold::Miss { label, target, thunk, flags } => {
                self.m.bind(label);
                self.flags = flags;
                self.tmp = abi::SCRATCH.len() as u8 - 1;
                self.canonical(Flags::all());
                if target != X(0) {
                    self.m.mov(Sz::X, X(0), target);
                }
                self.thunk(thunk, false);
            }
            Cold::Custom { label, at, flags, f } => {
                self.m.bind(label);
                self.at = at;
                self.flags = flags;
                self.mark();
                f(self);
            }
        }
    }
}

/// The mask of an operand of `bytes`.
pub fn mask(bytes: u32) -> u64 {
    if bytes >= 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 }
}

fn is_immediate(k: OpKind) -> bool {
    matches!(
        k,
        OpKind::Immediate8
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate32to64
            | OpKind::Immediate64
            | OpKind::Immediate8_2nd
    )
}
