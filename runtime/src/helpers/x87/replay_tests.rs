//! The unit in software, one instruction at a time as the CPU decodes it, and the cases recorded from a CPU in `fixtures/x87.txt`, which replay anywhere.
//! `X87_RECORD=1 cargo test -p xrun-runtime record_cases` writes that file anew on an x86_64 CPU.

use super::ops::{Arith, Format, implied};
use crate::helpers::f80::Order;
use crate::state::{CpuState, X87};

/// An instruction as the CPU takes it: escape byte (low three bits of the opcode) and ModRM. Memory forms use [rsi].
#[derive(Clone, Copy, Debug)]
pub struct Inst {
    pub esc: u8,
    pub modrm: u8,
}

/// What a run leaves: the unit, 16 bytes of memory, EFLAGS.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub cpu: CpuState,
    pub mem: [u8; 16],
    pub flags: u64,
}

/// The same in software. `None`: not an instruction of the unit.
pub fn model(i: Inst, cpu: &CpuState, mem: [u8; 16]) -> Option<Outcome> {
    let mut cpu = cpu.clone();
    let mut flags = 0x44; // as XOR leaves them: ZF and PF
    let mut mem = mem;
    let low = u64::from_le_bytes(mem[..8].try_into().expect("8 bytes"));
    let high = u16::from_le_bytes([mem[8], mem[9]]);
    let (reg, rm) = (i.modrm >> 3 & 7, i.modrm & 7);
    let x = &mut cpu.x87;
    let mut store = |x: &mut X87, f: Format, chop: bool, pop: bool| {
        let len = [4, 8, 2, 4, 8, 10, 10][f as usize];
        let s = x.store(f, chop);
        x.status = s.status;
        if s.write {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&s.low.to_le_bytes());
            bytes[8..10].copy_from_slice(&s.high.to_le_bytes());
            mem[..len].copy_from_slice(&bytes[..len]);
            if pop {
                x.pop();
            }
        }
    };
    if i.modrm < 0xc0 {
        let format = [Format::F32, Format::I32, Format::F64, Format::I16][usize::from(i.esc >> 1)];
        match (i.esc, reg) {
            (0 | 2 | 4 | 6, 2 | 3) => x.compare_memory(format, low, reg == 3),
            (0 | 2 | 4 | 6, _) => x.arith_memory(Arith::from_raw(reg.into()), format, low),
            (1 | 3 | 5 | 7, 0) => x.load(format, low, 0),
            (3 | 5 | 7, 1) => store(x, if i.esc == 5 { Format::I64 } else { format }, true, true),
            (1 | 3 | 5 | 7, 2 | 3) => store(x, format, false, reg == 3),
            (3, 5) => x.load(Format::F80, low, high),
            (3, 7) => store(x, Format::F80, false, true),
            (7, 4) => x.load(Format::Bcd, low, high),
            (7, 5) => x.load(Format::I64, low, 0),
            (7, 6) => store(x, Format::Bcd, false, true),
            (7, 7) => store(x, Format::I64, false, true),
            _ => return None,
        }
    } else {
        let arith = Arith::from_raw(reg.into());
        let reversed = Arith::from_raw(if reg >= 4 { reg ^ 1 } else { reg }.into());
        let mut to_flags = |o: Order| {
            flags = match o {
                Order::Greater => 0,
                Order::Less => 1,
                Order::Equal => 0x40,
                Order::Unordered => 0x45,
            };
        };
        match (i.esc, reg) {
            (0, 2 | 3) => x.compare(rm, false, u8::from(reg == 3)),
            (0, _) => x.arith(arith, 0, rm, false),
            (1, 0) => x.load_register(rm),
            (1, 1) => x.exchange(rm),
            (1, 4..=7) => match i.modrm {
                0xe2 | 0xe3 | 0xe6 | 0xe7 | 0xef => return None,
                op => x.implied(op),
            },
            // The flags are ZF and PF: not below, equal, unordered.
            (2, 0..=3) => x.move_if(rm, reg != 0),
            (3, 0..=3) => x.move_if(rm, reg == 0),
            (2, 5) if rm == 1 => x.compare(1, true, 2),
            (3, 5 | 6) => to_flags(x.compare_flags(rm, reg == 5, false)),
            (7, 5 | 6) => to_flags(x.compare_flags(rm, reg == 5, true)),
            (4, 0 | 1 | 4..=7) => x.arith(reversed, rm, 0, false),
            (6, 0 | 1 | 4..=7) => x.arith(reversed, rm, 0, true),
            (6, 3) if rm == 1 => x.compare(1, false, 2),
            (5, 2 | 3) => x.store_register(rm, reg == 3),
            (5, 4 | 5) => x.compare(rm, true, u8::from(reg == 5)),
            _ => return None,
        }
    }
    Some(Outcome { cpu, mem, flags })
}

/// The fields of a line: escape byte, ModRM, then the state before and after, each as [`print_state`] writes it, all in hexadecimal.
pub fn print_state(x: &X87, mem: &[u8; 16]) -> String {
    let regs: Vec<String> = x.regs.iter().map(|r| format!("{:x}:{:x}", r.sign_exp, r.mantissa)).collect();
    let mem = u128::from_le_bytes(*mem);
    format!("{:x} {:x} {:x} {:x} {} {mem:x}", x.control, x.status, x.top, x.in_use, regs.join(" "))
}

fn parse_state(words: &[&str]) -> Option<(X87, [u8; 16])> {
    let hex = |w: &str| u64::from_str_radix(w, 16).ok();
    let mut x = X87 {
        control: hex(words[0])? as u16,
        status: hex(words[1])? as u16,
        top: hex(words[2])? as u8,
        in_use: hex(words[3])? as u8,
        ..X87::default()
    };
    for (r, w) in x.regs.iter_mut().zip(&words[4..12]) {
        let (se, m) = w.split_once(':')?;
        (r.sign_exp, r.mantissa) = (hex(se)? as u16, hex(m)?);
    }
    let mem = u128::from_str_radix(words[12], 16).ok()?;
    Some((x, mem.to_le_bytes()))
}

/// Distance in units of the last place, where two states differ in values only.
pub fn ulps_apart(a: &X87, b: &X87) -> u128 {
    let line = |r: &crate::state::X87Reg| i128::from(r.sign_exp) << 63 | i128::from(r.mantissa & !(1 << 63));
    a.regs.iter().zip(&b.regs).map(|(a, b)| (line(a) - line(b)).unsigned_abs()).max().unwrap_or(0)
}

pub fn is_transcendental(i: Inst) -> bool {
    use implied::{F2XM1, FCOS, FPATAN, FPTAN, FSIN, FSINCOS, FYL2X, FYL2XP1};
    i.esc == 1 && matches!(i.modrm, F2XM1 | FYL2X | FPTAN | FPATAN | FYL2XP1 | FSINCOS | FSIN | FCOS)
}

#[test]
fn recorded_cases_replay() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/x87.txt");
    let text = std::fs::read_to_string(path).expect(path);
    let mut count = 0;
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let byte = |w: &str| u8::from_str_radix(w, 16).expect(line);
        let i = Inst { esc: byte(words[0]) & 7, modrm: byte(words[1]) };
        let (before, mem) = parse_state(&words[2..15]).expect(line);
        let (want, want_mem) = parse_state(&words[15..28]).expect(line);
        let want_flags = u64::from_str_radix(words[28], 16).expect(line);
        let cpu = CpuState { x87: before, ..CpuState::default() };
        let got = model(i, &cpu, mem).expect(line);
        let x = &got.cpu.x87;
        // The hardware promises less than one unit for these; which way it rounded then differs too.
        let (ulps, mask) = if is_transcendental(i) { (1, !0x200) } else { (0, !0) };
        assert!(ulps_apart(x, &want) <= ulps, "{line}\ngot {}", print_state(x, &got.mem));
        assert_eq!(
            (x.control, x.status & mask, x.top, x.in_use, got.mem, got.flags & 0x8d5),
            (want.control, want.status & mask, want.top, want.in_use, want_mem, want_flags),
            "{line}\ngot {}",
            print_state(x, &got.mem)
        );
        count += 1;
    }
    assert!(count > 1500, "only {count} cases");
}
