//! Every x87 instruction against the CPU under this process: random and edge values, all rounding and precision modes, masked and unmasked
//! exceptions, full and empty registers; results, tags and the whole status word compared.

use super::image;
use super::ops::implied;
use super::replay_tests::{Inst, Outcome, is_transcendental, model, print_state, ulps_apart};
use crate::state::{CpuState, X87};

/// Executable memory holding `fxrstor64 [rdi]; inst; pushfq; pop rax; fxsave64 [rdx]; fninit; ret`.
struct Native {
    code: *mut u8,
}

impl Native {
    fn new() -> Native {
        let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: a fresh anonymous mapping.
        let p = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        assert!(p != libc::MAP_FAILED);
        Native { code: p.cast() }
    }

    fn run(&self, i: Inst, cpu: &CpuState, mem: [u8; 16]) -> Outcome {
        #[repr(align(64))]
        struct Area([u8; 512]);
        let mut before = Area([0; 512]);
        image::fxsave(cpu, true, &mut before.0);
        let mut after = Area([0; 512]);
        let mut mem = mem;
        let code = [
            0x48,
            0x0f,
            0xae,
            0x0f, // fxrstor64 [rdi]
            0x31,
            0xc0, // xor eax, eax: the status flags are known
            0xd8 | i.esc,
            i.modrm,
            0x9c,
            0x58, // pushfq; pop rax
            0x48,
            0x0f,
            0xae,
            0x02, // fxsave64 [rdx]
            0xdb,
            0xe3,
            0xc3,
        ];
        // SAFETY: the page is writable and executable and longer than `code`; the code keeps to the C ABI, reads 512 bytes at rdi, writes 512 at
        // rdx, and at most 16 at rsi; FNINIT brings the unit back to what the ABI expects; exceptions left pending are never waited for.
        let flags = unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), self.code, code.len());
            let f: extern "C" fn(*const u8, *mut u8, *mut u8) -> u64 = std::mem::transmute(self.code);
            f(before.0.as_ptr(), mem.as_mut_ptr(), after.0.as_mut_ptr())
        };
        let mut cpu = cpu.clone();
        image::fxrstor(&mut cpu, true, &after.0).expect("MXCSR as it was");
        Outcome { cpu, mem, flags }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn mantissa(&mut self) -> u64 {
        let edge = [
            0,
            1,
            1 << 63,
            (1 << 63) | 1,
            u64::MAX,
            u64::MAX - 1,
            0xc000_0000_0000_0000,
            0xc000_0000_0000_0001,
            1 << 62,
            0xffff_ff00_0000_0000,
            0xffff_ff80_0000_0000,
            0x8000_0080_0000_0000,
            0xffff_ffff_ffff_f800,
            0xffff_ffff_ffff_fc00,
            0x8000_0000_0000_0400,
            0x8000_0000_0000_0c00,
            0xc90f_daa2_2168_c235,
        ];
        match self.below(4) {
            0 => self.pick(&edge),
            1 => (1 << 63) | self.next() << self.below(60),
            2 => (1 << 63) | self.next() & self.next() & self.next(),
            _ => (1 << 63) | self.next(),
        }
    }

    fn exponent(&mut self) -> u16 {
        let base = self.pick(&[
            0,
            0,
            1,
            2,
            16383,
            16383,
            16383,
            16383,
            16383 - 1022,
            16383 - 126,
            16383 + 127,
            16383 + 1023,
            0x7ffe,
            0x7fff,
            0x7fff,
            8192,
            24000,
        ]);
        let e = match self.below(5) {
            0 => base,
            1 => base + self.below(4) as i32 - 2,
            2 => base + self.below(70) as i32 - 35,
            3 => 16383 + self.below(130) as i32 - 65,
            _ => self.below(0x8000) as i32,
        };
        e.clamp(0, 0x7fff) as u16
    }

    fn value(&mut self) -> (u64, u16) {
        let sign = (self.below(2) as u16) << 15;
        match self.below(12) {
            0 => (0, sign),
            1 => (1 << 63, sign | 0x7fff),
            2 => (
                (self.below(40) + 1).reverse_bits().rotate_left(8).max(1 << 63),
                sign | (16383 + self.below(12) as u16),
            ),
            3 => self.small_integer(sign),
            _ => (self.mantissa(), sign | self.exponent()),
        }
    }

    fn small_integer(&mut self, sign: u16) -> (u64, u16) {
        let v = self.below(200) + 1;
        let up = v.leading_zeros();
        (v << up, sign | (16383 + 63 - up as u16))
    }

    fn cpu(&mut self, unmasked: bool) -> CpuState {
        let mut cpu = CpuState::default();
        let x = &mut cpu.x87;
        for n in 0..8 {
            (x.regs[n].mantissa, x.regs[n].sign_exp) = self.value();
        }
        // Operations meet mostly ST(0) and a near neighbour: make them alike now and then.
        x.top = self.below(8) as u8;
        if self.below(3) == 0 {
            let (a, b) = (usize::from(x.top), usize::from((x.top + 1) & 7));
            x.regs[b] = x.regs[a];
            if self.below(2) == 0 {
                x.regs[b].sign_exp ^= self.pick(&[0x8000, 1, 2, 3, 0x8001, 0x8003]);
            }
            if self.below(2) == 0 {
                x.regs[b].mantissa ^= self.pick(&[0, 1, 2, 1 << 62, 1 << 11, 1 << 40]);
            }
        }
        x.in_use = match self.below(4) {
            0 => self.next() as u8,
            _ => !(1 << ((x.top + 7) & 7)),
        };
        let masks = if unmasked { self.next() as u16 & 0x3f } else { 0x3f };
        let precision = self.pick(&[0x300, 0x300, 0x300, 0, 0x200, 0x100]);
        x.control = 0x40 | masks | precision | (self.below(4) as u16) << 10;
        // Flags already up, as long as none is pending.
        x.status = self.next() as u16 & 0x4700 | self.next() as u16 & masks & if self.below(2) == 0 { 0x3f } else { 0 };
        cpu
    }

    fn memory(&mut self) -> [u8; 16] {
        let mut m = [0; 16];
        let (mant, se) = self.value();
        let low = match self.below(8) {
            0 => mant,
            1 => f64::from_bits(self.next()).to_bits(),
            2 => {
                let e = self.pick(&[0u64, 0, 1, 2, 1023, 1024, 1022, 2046, 2047, 2047]);
                self.below(2) << 63
                    | e << 52
                    | self.pick(&[0, 1, (1 << 52) - 1, 1 << 51, (1 << 51) + 1, 0x5_5555_5555_5555])
            }
            3 | 4 => {
                let e = self.pick(&[0u64, 0, 1, 2, 127, 128, 126, 254, 255, 255]);
                self.below(2) << 31 | e << 23 | self.pick(&[0, 1, (1 << 23) - 1, 1 << 22, (1 << 22) + 1, 0x55_5555])
            }
            5 => self.below(0x10000),
            6 => (self.below(2000) as i64 - 1000) as u64,
            _ => self.next(),
        };
        m[..8].copy_from_slice(&low.to_le_bytes());
        m[8..10].copy_from_slice(&se.to_le_bytes());
        m
    }
}

fn unit(x: &X87) -> String {
    let regs: Vec<String> = x.regs.iter().map(|r| format!("{:04x}:{:016x}", r.sign_exp, r.mantissa)).collect();
    format!("cw={:04x} sw={:04x} top={} in_use={:02x} {}", x.control, x.status, x.top, x.in_use, regs.join(" "))
}

fn x_is_minus_one(x: &X87) -> bool {
    let v = x.st(0);
    (v.sign_exp, v.mantissa) == (0xbfff, 1 << 63)
}

/// UE in the status and UM in the control word (SDM vol. 1, 8.1.3 and 8.1.5).
const UNDERFLOW: u16 = 1 << 4;

/// Takes the bias of an unmasked underflow (SDM vol. 1, 8.5.5) off the results of `x` that differ from `other`'s. Returns the
/// status bits that tell of an unmasked exception, if this was one.
fn unbias_underflow(x: &mut X87, other: &X87) -> u16 {
    if x.status & UNDERFLOW == 0 || x.control & UNDERFLOW != 0 {
        return 0;
    }
    for (r, o) in x.regs.iter_mut().zip(&other.regs) {
        if r.sign_exp != o.sign_exp && r.sign_exp & 0x7fff >= 24576 {
            r.sign_exp -= 24576;
        }
    }
    0x8080
}

/// Runs `count` random states through `inst`; `ulps` may differ in the last places of results.
fn check(native: &Native, i: Inst, seed: u64, count: u32, unmasked: bool, ulps: u64) -> Result<(), String> {
    let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15 ^ u64::from(i.esc) << 32 ^ u64::from(i.modrm) << 40);
    let mut report = String::new();
    let mut failures = 0;
    for _ in 0..count {
        let (cpu, mem) = (random.cpu(unmasked), random.memory());
        let Some(got) = model(i, &cpu, mem) else { return Ok(()) };
        let want = native.run(i, &cpu, mem);
        let (mut g, mut w) = (got.cpu.x87, want.cpu.x87);
        // Rounded-up depends on the last place, and so does underflow at the smallest normal number.
        let mut status_mask = if ulps > 0 { !0x200 } else { !0 };
        if ulps > 0 && (g.status ^ w.status) & UNDERFLOW != 0 {
            status_mask &= !(UNDERFLOW | unbias_underflow(&mut g, &w) | unbias_underflow(&mut w, &g));
        }
        let (g, w) = (&g, &w);
        let same_regs = ulps_apart(g, w) <= u128::from(ulps);
        // 2^-1 - 1: the manuals say -1/2, this CPU gives its operand back.
        if (i.esc, i.modrm) == (1, implied::F2XM1) && x_is_minus_one(&cpu.x87) {
            continue;
        }
        let same = same_regs
            && (g.status ^ w.status) & status_mask == 0
            && (g.control, g.top, g.in_use) == (w.control, w.top, w.in_use)
            && got.mem == want.mem
            && (got.flags ^ want.flags) & 0x8d5 == 0;
        if !same {
            failures += 1;
            if failures <= 6 {
                report += &format!(
                    "{:02x} {:02x} mem {:02x?}\n  in   {}\n  want {}\n  got  {}\n  mem want {:02x?}\n      got  {:02x?} flags {:x} {:x}\n",
                    0xd8 | i.esc,
                    i.modrm,
                    &mem[..10],
                    unit(&cpu.x87),
                    unit(w),
                    unit(g),
                    &want.mem[..10],
                    &got.mem[..10],
                    want.flags & 0x8d5,
                    got.flags
                );
            }
        }
    }
    if failures == 0 { Ok(()) } else { Err(format!("{failures} of {count} differ\n{report}")) }
}

fn check_all(insts: &[(u8, u8)], count: u32, unmasked: bool, ulps: u64) {
    let native = Native::new();
    let only = std::env::var("X87_ONLY").ok();
    let mut bad = String::new();
    let mut failed = 0;
    for &(esc, modrm) in insts {
        if only.as_ref().is_some_and(|o| *o != format!("{:02x}{modrm:02x}", 0xd8 | esc)) {
            continue;
        }
        if let Err(e) = check(&native, Inst { esc, modrm }, 1, count, unmasked, ulps) {
            bad += &format!("{:02x} {modrm:02x}: {e}\n", 0xd8 | esc);
            failed += 1;
        }
    }
    assert!(failed == 0, "{failed} instructions\n{bad}");
}

fn all() -> Vec<(u8, u8)> {
    let mut v = Vec::new();
    for esc in 0..8u8 {
        for reg in 0..8u8 {
            v.push((esc, reg << 3 | 6));
            for rm in 0..8 {
                v.push((esc, 0xc0 | reg << 3 | rm));
            }
        }
    }
    v.retain(|&(esc, modrm)| !is_transcendental(Inst { esc, modrm }));
    v
}

#[test]
fn exact_instructions_masked() {
    check_all(&all(), 4000, false, 0);
}

#[test]
fn exact_instructions_unmasked() {
    check_all(&all(), 4000, true, 0);
}

const TRANSCENDENTAL: [(u8, u8); 8] = [
    (1, implied::F2XM1),
    (1, implied::FYL2X),
    (1, implied::FPTAN),
    (1, implied::FPATAN),
    (1, implied::FYL2XP1),
    (1, implied::FSINCOS),
    (1, implied::FSIN),
    (1, implied::FCOS),
];

#[test]
fn transcendental_within_one_ulp_masked() {
    check_all(&TRANSCENDENTAL, 6000, false, 1);
}

#[test]
fn transcendental_within_one_ulp_unmasked() {
    check_all(&TRANSCENDENTAL, 6000, true, 1);
}

/// Writes `fixtures/x87.txt` when asked to.
#[test]
fn record_cases() {
    if std::env::var_os("X87_RECORD").is_none() {
        return;
    }
    let native = Native::new();
    let mut text = String::from(
        "# Recorded from an x86_64 CPU by `X87_RECORD=1 cargo test -p xrun-runtime record_cases`; never edited by hand.\n",
    );
    let mut insts = all();
    insts.retain(|&(_, modrm)| modrm < 0xc0 || modrm & 7 < 2 || (0xe0..).contains(&modrm));
    insts.extend(TRANSCENDENTAL);
    for (esc, modrm) in insts {
        let i = Inst { esc, modrm };
        let mut random = Random(u64::from(esc) << 8 ^ u64::from(modrm) ^ 0x5851_f42d_4c95_7f2d);
        for n in 0..if is_transcendental(i) { 40 } else { 8 } {
            let (cpu, mem) = (random.cpu(n % 4 == 3), random.memory());
            if model(i, &cpu, mem).is_none() || (i.modrm == implied::F2XM1 && x_is_minus_one(&cpu.x87)) {
                continue;
            }
            let o = native.run(i, &cpu, mem);
            let (before, after) = (print_state(&cpu.x87, &mem), print_state(&o.cpu.x87, &o.mem));
            text += &format!("{:x} {modrm:x} {before} {after} {:x}\n", 0xd8 | esc, o.flags & 0x8d5);
        }
    }
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/x87.txt"), text).expect("a writable fixture");
}
