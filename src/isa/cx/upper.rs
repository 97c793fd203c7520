//! Upper halves of YMM registers. The only place that knows where they are: in `CpuState`, each with a bit that says whether it counts (see
//! `xrun_runtime::state::CpuState::upper_live`). Rows ask for one, and write one, by its number.
//!
//! Writes go through at once, so a fault, an exit or a helper finds them, and nothing here has to be undone. What is known along a straight run
//! saves looking: an
//! upper half that was read or written counts, one that was zeroed is not zeroed again.
//!
//! In a region with a loop, the registers its 256-bit instructions name most have *homes*, vector registers that hold copies of their upper
//! halves. At every join of such a region all upper halves that it names count, and the homes hold theirs (loaded before its first instruction), so that a
//! loop only stores. All of that can be brought about at any point without the guest's noticing.

use super::{Cx, STATE};
use crate::emit::{Addr, Sz, V, X, ZR};
use crate::isa::sse::float::FIX_FIRST;
use std::mem::offset_of;
use xrun_runtime::abi;
use xrun_runtime::state::CpuState;

const LIVE: Addr = Addr::Off(STATE, offset_of!(CpuState, upper_live) as i32);

fn slot(n: usize) -> Addr {
    Addr::Off(STATE, (offset_of!(CpuState, ymm_hi) + 16 * n) as i32)
}

/// Scratch vector registers that can be homes: not the ones NaNs are set right in, and not the first few.
const HOMES: std::ops::Range<u8> = 4..FIX_FIRST;

/// What is known at a point of the code, one bit a register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uppers {
    /// Its bit is set: memory holds it.
    live: u16,
    /// Its bit is clear.
    zero: u16,
    /// Its home holds it as well.
    held: u16,
    /// [`WORD`] holds the word of bits, as it is in memory: to the end of the instruction, unless somebody takes the register.
    pub(super) word: bool,
}

/// The last scratch register that is handed out.
pub(super) const WORD: X = X(abi::SCRATCH[abi::SCRATCH.len() - 1]);

/// The homes of a region, and the scratch vector registers they leave.
#[derive(Clone, Debug)]
pub(crate) struct Homes {
    of: [Option<V>; 16],
    /// All registers whose upper halves the region names, if it has a loop.
    named: u16,
    /// The first so many count.
    scratch: [u8; 16],
    left: u8,
}

impl Homes {
    /// `named`: by how much they are used.
    pub(super) fn new(named: &[u8]) -> Homes {
        let mut homes = Homes { of: [None; 16], named: 0, scratch: abi::VSCRATCH, left: abi::VSCRATCH.len() as u8 };
        // As nearly everywhere.
        if named.is_empty() {
            return homes;
        }
        for (&n, home) in named.iter().zip(HOMES) {
            homes.of[usize::from(n)] = Some(V(home));
        }
        homes.named = named.iter().fold(0, |all, n| all | 1 << n);
        homes.left = 0;
        for v in abi::VSCRATCH {
            if !homes.of.contains(&Some(V(v))) {
                homes.scratch[usize::from(homes.left)] = v;
                homes.left += 1;
            }
        }
        homes
    }
}

impl Cx<'_> {
    /// Scratch vector register `k`, if there are as many.
    pub(super) fn scratch_vector(&self, k: u8) -> Option<V> {
        match self.homes_off {
            true => abi::VSCRATCH.get(usize::from(k)).map(|&v| V(v)),
            false => self.homes.scratch[..usize::from(self.homes.left)].get(usize::from(k)).map(|&v| V(v)),
        }
    }

    /// How many scratch vector registers are not needed for setting NaNs right. They come first.
    pub fn free_of_fixing(&self) -> u8 {
        (0..).take_while(|&k| self.scratch_vector(k).is_some_and(|v| v.0 < FIX_FIRST)).count() as u8
    }

    fn home(&self, n: usize) -> Option<V> {
        if self.homes_off { None } else { self.homes.of[n] }
    }

    /// Lets the instruction about to be lowered have all scratch vector registers. False if it had them.
    pub(super) fn leave_homes(&mut self) -> bool {
        self.uppers.held = 0;
        !std::mem::replace(&mut self.homes_off, true) && self.homes.named != 0
    }

    /// The word of bits in [`WORD`] if that is free, else in a fresh scratch register.
    fn word_of_bits(&mut self) -> X {
        if usize::from(self.tmp) == abi::SCRATCH.len() {
            let t = self.tmp();
            self.m.ldr(4, t, LIVE);
            return t;
        }
        if !self.uppers.word {
            self.m.ldr(4, WORD, LIVE);
            self.uppers.word = true;
        }
        WORD
    }

    /// Forgets what was known: where a helper or a callee has been.
    pub(super) fn forget_uppers(&mut self) {
        self.uppers = Uppers::default();
    }

    /// A call has overwritten all scratch vector registers. Code that is out of line goes back to where the homes are counted on.
    pub(super) fn homes_lost(&mut self) {
        self.uppers.held = 0;
        if !self.out_of_line {
            self.uppers.word = false;
        } else {
            if self.uppers.word {
                self.m.ldr(4, WORD, LIVE);
            }
            for (n, home) in self.homes.of.into_iter().enumerate() {
                match home {
                    // Memory need not hold it.
                    Some(v) if self.uppers.zero & 1 << n != 0 => self.m.zero_v(v),
                    Some(v) => self.m.ldr_v(16, v, slot(n)),
                    None => {}
                }
            }
        }
    }

    /// Brings upper halves to what is known of them at joins. `reached`: from the instruction before, too.
    pub(super) fn join_uppers(&mut self, reached: bool) {
        let homes = self.homes.of;
        let held = (0..16).filter(|&n| homes[n].is_some()).fold(0, |all, n| all | 1 << n);
        let want = Uppers { live: self.homes.named, zero: 0, held, word: false };
        if reached && self.uppers.live & want.live != want.live || self.uppers.held & held != held {
            for n in (0..16).filter(|n| reached && want.live & 1 << n != 0) {
                self.make_sure(n);
                if homes[n].is_some() {
                    self.upper(n);
                }
            }
        }
        self.uppers = want;
    }

    /// Brings upper halves to what was known of them at an earlier point, after which some were at most cleared: those that counted count, and the homes hold
    /// theirs.
    pub(super) fn restore_uppers(&mut self, known: Uppers) {
        (self.tmp, self.homes_off, self.uppers.word) = (0, false, false);
        for n in 0..16 {
            if known.live & 1 << n != 0 {
                self.make_sure(n);
            }
            if known.held & !self.uppers.held & 1 << n != 0 {
                self.upper(n);
            }
        }
        self.uppers = Uppers { word: false, ..known };
    }

    /// The upper half of YMM `n` in a vector register, not to be written.
    pub fn upper(&mut self, n: usize) -> V {
        let bit = 1u16 << n;
        let home = self.home(n);
        if let Some(v) = home
            && self.uppers.held & bit != 0
        {
            return v;
        }
        let v = home.unwrap_or_else(|| self.vtmp());
        if self.uppers.zero & bit != 0 {
            self.m.zero_v(v);
        } else {
            self.make_sure(n);
            self.m.ldr_v(16, v, slot(n));
        }
        if home.is_some() {
            self.uppers.held |= bit;
        }
        v
    }

    /// Has memory hold the upper half of YMM `n`, zero or not, for its lanes to be written there; its address.
    pub fn upper_in_memory(&mut self, n: usize) -> Addr {
        self.make_sure(n);
        self.uppers.held &= !(1 << n);
        slot(n)
    }

    /// Has the bit of YMM `n` set.
    fn make_sure(&mut self, n: usize) {
        let bit = 1u16 << n;
        if self.uppers.live & bit != 0 {
            return;
        }
        let t = self.word_of_bits();
        if self.uppers.zero & bit != 0 {
            self.make_live(n, t);
        } else {
            let back = self.m.label();
            let cold = self.cold(move |cx| {
                cx.make_live(n, t);
                cx.m.b(back);
            });
            self.m.tbz(t, n as u32, cold);
            self.m.bind(back);
        }
        self.uppers.live |= bit;
        self.uppers.zero &= !bit;
    }

    /// Stores a zero where the upper half of YMM `n` belongs and sets its bit, in memory and in `t`, which holds the word of bits.
    fn make_live(&mut self, n: usize, t: X) {
        for half in 0..2 {
            self.m.str(8, ZR, Addr::Off(STATE, (offset_of!(CpuState, ymm_hi) + 16 * n + 8 * half) as i32));
        }
        self.m.orr_imm(Sz::W, t, t, 1 << n);
        self.m.str(4, t, LIVE);
    }

    /// A vector register to compute the new upper half of YMM `n` in, for [`Cx::set_upper`]. It may be the one [`Cx::upper`] gave for the old one.
    pub fn upper_target(&mut self, n: usize) -> V {
        match self.home(n) {
            Some(v) => v,
            None => self.vtmp(),
        }
    }

    /// The upper half of YMM `n` becomes `v`. After the last access that can fault.
    pub fn set_upper(&mut self, n: usize, v: V) {
        let bit = 1u16 << n;
        self.look_for_fp_trap();
        self.m.str_v(16, v, slot(n));
        if let Some(home) = self.home(n) {
            if v != home {
                self.m.mov_v(home, v);
            }
            self.uppers.held |= bit;
        }
        if self.uppers.live & bit == 0 {
            let t = self.word_of_bits();
            self.m.orr_imm(Sz::W, t, t, bit.into());
            self.m.str(4, t, LIVE);
            self.uppers.live |= bit;
            self.uppers.zero &= !bit;
        }
    }

    /// The upper half of YMM `n` becomes zero. After the last access that can fault.
    pub fn zero_upper(&mut self, n: usize) {
        self.zero_uppers_of(1 << n);
    }

    /// The upper halves of the registers in `which`, bit n for YMM n, become zero. After the last access that can fault.
    pub fn zero_uppers_of(&mut self, which: u16) {
        // Where the loop counts on the bit, the zero is stored.
        let mut stored = which & self.uppers.live & self.homes.named;
        let which = which & !stored & !self.uppers.zero;
        while stored != 0 {
            let n = stored.trailing_zeros() as usize;
            stored &= stored - 1;
            let kept = self.vtmp;
            let v = self.upper_target(n);
            self.m.zero_v(v);
            self.set_upper(n, v);
            self.vtmp = kept;
        }
        if which == 0 {
            return;
        }
        let (kept, mask) = (self.tmp, u64::from(which));
        let t = self.word_of_bits();
        let u = self.tmp();
        let clear = move |cx: &mut Cx<'_>| {
            cx.m.mov_imm(u, mask);
            cx.m.bic(Sz::W, t, t, u);
            cx.m.str(4, t, LIVE);
        };
        if self.uppers.live & which != 0 {
            clear(self);
        } else {
            // Nearly always they are zero already.
            let back = self.m.label();
            let cold = self.cold(move |cx| {
                clear(cx);
                cx.m.b(back);
            });
            if which.is_power_of_two() {
                self.m.tbnz(t, which.trailing_zeros(), cold);
            } else if crate::emit::imm::fits_logical(Sz::W, mask) {
                self.m.and_imm(Sz::W, u, t, mask);
                self.m.cbnz(Sz::W, u, cold);
            } else {
                self.m.cbnz(Sz::W, t, cold);
            }
            self.m.bind(back);
        }
        self.tmp = kept;
        self.uppers.zero |= which;
        self.uppers.live &= !which;
        self.uppers.held &= !which;
    }

    /// All upper halves become zero.
    pub fn zero_uppers(&mut self) {
        if self.uppers.zero != u16::MAX {
            self.m.str(4, ZR, LIVE);
        }
        self.uppers = Uppers { live: 0, zero: u16::MAX, held: 0, word: false };
    }
}
