//! The running heart on its own: hand-made translations, no guest instruction set. Each test's "program" is a set of regions at made-up
//! guest addresses; what they compute and how often they leave translated code is checked.
#![cfg(target_arch = "aarch64")]

use std::collections::HashMap;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering as Mem};
use std::sync::{Mutex, Once};
use xrun_runtime::abi::{GPR, LOOKUP_BITS, Thunk};
use xrun_runtime::engine::*;
use xrun_runtime::memory;
use xrun_runtime::state::{CpuState, gpr::*};
use xrun_runtime::thread::{self, Thread};
use xrun_runtime::{code, engine};

/// A region under construction.
#[derive(Default, Clone)]
struct Asm {
    t: Translation,
    stubs: Vec<(u32, u64, Option<u32>)>,
}

const STATE: u32 = 28;
const SHADOW: u32 = 18;

fn g(n: usize) -> u32 {
    u32::from(GPR[n])
}

impl Asm {
    fn new(pc: u64) -> Asm {
        let mut a = Asm::default();
        a.quad(pc);
        let word = a.here();
        a.t.entries.push(Entry { guest: pc, word });
        a.mark(pc);
        a
    }
    fn here(&self) -> u32 {
        self.t.words.len() as u32
    }
    fn put(&mut self, w: u32) -> u32 {
        self.t.words.push(w);
        self.here() - 1
    }
    fn quad(&mut self, v: u64) {
        self.put(v as u32);
        self.put((v >> 32) as u32);
    }
    fn mark(&mut self, guest: u64) {
        self.t.marks.push(Mark { word: self.here(), guest, flags: FlagForm::Direct, replay: false });
    }
    fn movi(&mut self, d: u32, v: u64) {
        for (i, part) in [v, v >> 16, v >> 32, v >> 48].into_iter().enumerate() {
            let op = if i == 0 { 0xd280_0000 } else { 0xf280_0000 };
            self.put(op | (i as u32) << 21 | (part as u32 & 0xffff) << 5 | d);
        }
    }
    fn addi(&mut self, d: u32, n: u32, imm: u32) {
        self.put(0x9100_0000 | imm << 10 | n << 5 | d);
    }
    fn subs(&mut self, d: u32, n: u32, imm: u32) {
        self.put(0xf100_0000 | imm << 10 | n << 5 | d);
    }
    /// An exit through the branch `word`, whose target field is filled in at the end.
    fn exit(&mut self, word: u32, target: u64, inside: Option<u32>) {
        let site = self.put(word);
        self.stubs.push((site, target, inside));
    }
    fn b(&mut self, target: u64) {
        self.exit(0x1400_0000, target, None);
    }
    fn cbnz_back(&mut self, r: u32, target: u64, to: u32) {
        self.exit(0xb500_0000 | r, target, Some(to));
    }
    fn thunk(&mut self, t: Thunk, link: bool) {
        let off = (offset_of!(CpuState, thunks) + 8 * t as usize) as u32;
        self.put(0xf940_0000 | off / 8 << 10 | STATE << 5 | 8);
        self.put(if link { 0xd63f_0100 } else { 0xd61f_0100 });
    }
    fn syscall(&mut self, next: u64) {
        self.movi(0, next);
        self.thunk(Thunk::Syscall, false);
    }
    /// CALL `target`, returning to `ret`, which follows.
    fn call(&mut self, target: u64, ret: u64) {
        self.movi(1, ret);
        self.put(0x1000_0000 | 3 << 5 | 30); // adr x30, .+12
        self.put(0xa9bf_0000 | 30 << 10 | SHADOW << 5 | 1); // stp x1, x30, [x18, #-16]!
        self.exit(0x9400_0000, target, None);
        let word = self.here();
        self.t.landings.push(Entry { guest: ret, word });
        self.mark(ret);
    }
    fn miss(&mut self, target: u32, t: Thunk, cbnz: u32) {
        let delta = self.here() - cbnz;
        self.t.words[cbnz as usize] |= delta << 5;
        if target != 0 {
            self.put(0xaa00_03e0 | target << 16);
        }
        self.thunk(t, false);
    }
    /// RET to the address in `target`.
    fn ret(&mut self, target: u32) {
        self.put(0xa8c1_0000 | 30 << 10 | SHADOW << 5 | 2); // ldp x2, x30, [x18], #16
        self.put(0xcb00_0042 | target << 16); // sub x2, x2, target
        let c = self.put(0xb500_0002);
        self.put(0xd65f_03c0);
        self.miss(target, Thunk::ReturnMiss, c);
    }
    /// Indirect jump to the address in `target`.
    fn br(&mut self, target: u32) {
        self.put(0xf940_0000 | (offset_of!(CpuState, lookup) as u32 / 8) << 10 | STATE << 5 | 3);
        self.put(0xd340_0000 | (LOOKUP_BITS - 1) << 10 | target << 5 | 4); // ubfx x4, target, 0, bits
        self.put(0xb864_7864 | 3 << 5); // ldr w4, [x3, x4, lsl 2]
        self.put(0x8b03_0084); // add x4, x4, x3
        self.put(0xf85f_8083); // ldur x3, [x4, -8]
        self.put(0xcb00_0063 | target << 16);
        let c = self.put(0xb500_0003);
        self.put(0xd61f_0080);
        self.miss(target, Thunk::Indirect, c);
    }
    fn done(mut self) -> Translation {
        for (site, target, inside) in std::mem::take(&mut self.stubs) {
            if self.here() % 2 == 1 {
                self.put(0xd503_201f);
            }
            let stub = self.here();
            self.thunk(Thunk::Direct, true);
            self.quad(target);
            let to = inside.unwrap_or(stub);
            let w = self.t.words[site as usize];
            self.t.words[site as usize] = code::branch::retarget(w, i64::from(to) - i64::from(site)).unwrap();
            self.t.exits.push(Exit { site, stub, target, inside });
        }
        self.t
    }
}

type Program = Mutex<HashMap<u64, Translation>>;
static PROGRAM: std::sync::LazyLock<Program> = std::sync::LazyLock::new(Default::default);
static TRANSLATED: AtomicU64 = AtomicU64::new(0);
static EXITS: AtomicU64 = AtomicU64::new(0);

struct Hand;
impl Engine for Hand {
    fn options(&self) -> Vec<u8> {
        b"by hand".to_vec()
    }

    fn translate(&self, r: Request, code: &dyn GuestCode) -> Result<Translation, TranslateError> {
        TRANSLATED.fetch_add(1, Mem::Relaxed);
        if let Some(t) = PROGRAM.lock().unwrap().get(&r.pc) {
            return Ok(t.clone());
        }
        // Guest code in memory: its one byte is the value to load into RAX; then it exits.
        let mut byte = [0u8];
        if code.fetch(r.pc, &mut byte) == 0 {
            return Err(TranslateError::Fetch(r.pc));
        }
        let mut a = Asm::new(r.pc);
        a.movi(g(RAX), u64::from(byte[0]));
        a.syscall(r.pc);
        a.t.depends.push(r.pc..r.pc + 1);
        Ok(a.done())
    }
    fn cpuid(&self, _: u32, _: u32) -> [u32; 4] {
        [0; 4]
    }
}

/// Tests share the process-wide cache, and count its exits: one at a time.
static ONE: Mutex<()> = Mutex::new(());

fn set_up() -> std::sync::MutexGuard<'static, ()> {
    static START: Once = Once::new();
    let one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    START.call_once(|| {
        engine::install(&Hand);
        thread::set_syscalls(
            |t| {
                EXITS.fetch_add(1, Mem::Relaxed);
                t.exit = Some(t.cpu.gpr[RAX] as i32);
            },
            &thread::NO_CALLS,
        );
        thread::prepare().unwrap();
    });
    one
}

fn install(regions: impl IntoIterator<Item = Asm>) {
    let mut p = PROGRAM.lock().unwrap();
    for a in regions {
        let t = a.done();
        p.insert(t.entries[0].guest, t);
    }
}

fn run(pc: u64, set: impl FnOnce(&mut CpuState)) -> Box<Thread> {
    let mut cpu = CpuState { rip: pc, ..CpuState::default() };
    set(&mut cpu);
    let mut t = Thread::new(cpu);
    thread::run_here(&mut t);
    t
}

/// All registers survive a round trip, and every one is in its own place.
#[test]
fn registers_go_in_and_out() {
    let _one = set_up();
    let mut a = Asm::new(0x1000);
    for r in 0..16 {
        a.addi(g(r), g(r), r as u32 + 1);
    }
    a.put(0x4e30_8610 | 16 << 16); // add v16.16b, v16.16b, v16.16b
    a.put(0xab13_027f | 19 << 16); // adds xzr, x19, x19
    a.syscall(0x1010);
    install([a]);
    let t = run(0x1000, |c| {
        for (i, r) in c.gpr.iter_mut().enumerate() {
            *r = 1000 * i as u64;
        }
        c.gpr[RAX] = (1 << 63) - 1;
        for (i, x) in c.xmm.iter_mut().enumerate() {
            *x = 3 * i as u128 + 1;
        }
        c.pf = 77;
        c.af = 88;
    });
    for r in 1..16 {
        let clobbered = r == RCX || r == R11;
        assert!(clobbered || t.cpu.gpr[r] == 1001 * r as u64 + 1, "{r}");
    }
    assert_eq!(t.cpu.gpr[RAX], 1 << 63);
    // 2^63 + 2^63: zero, carry, overflow.
    assert_eq!(t.cpu.nzcv, 0x7000_0000);
    assert_eq!(t.cpu.gpr[R11] & 0x8d5, 0x841 | 4 * u64::from(77u8.count_ones().is_multiple_of(2)) | (77 ^ 88) & 0x10);
    assert_eq!((t.cpu.pf, t.cpu.af), (77, 88));
    assert_eq!((t.cpu.xmm[0], t.cpu.xmm[15]), (2, 46));
    assert_eq!(t.cpu.rip, 0x1010);
}

/// Two regions that jump to each other leave translated code once each, not once a turn.
#[test]
fn direct_exits_are_chained() {
    let _one = set_up();
    let mut a = Asm::new(0x2000);
    a.addi(g(RAX), g(RAX), 1);
    a.b(0x2100);
    let mut b = Asm::new(0x2100);
    b.subs(g(RBX), g(RBX), 1);
    b.exit(0x5400_0001, 0x2000, None); // b.ne
    b.syscall(0x2110);
    install([a, b]);
    let before = code::stats().0;
    let t = run(0x2000, |c| c.gpr[RBX] = 100_000);
    assert_eq!(t.cpu.gpr[RAX], 100_000);
    let after = code::stats().0;
    // Once as it is met, once more as a loop.
    assert!(after.regions - before.regions <= 4 && after.links - before.links <= 6, "{before:?} {after:?}");
}

/// A call returns through the shadow stack to the place after the BL; recursion deeper than the stack still returns rightly.
#[test]
fn calls_return() {
    let _one = set_up();
    // main: call f; exit.  f: push; if --rbx != 0 call f; rax += 1; ret (return address from a guest stack in RCX.. kept as a counter).
    let mut m = Asm::new(0x3000);
    m.movi(g(RDX), 0x3010);
    m.call(0x3100, 0x3010);
    m.syscall(0x3020);
    let mut f = Asm::new(0x3100);
    f.put(0xf81f_8c00 | g(RSP) << 5 | g(RDX)); // str rdx, [rsp, #-8]!
    f.subs(g(RBX), g(RBX), 1);
    f.exit(0x5400_0000, 0x3180, None); // b.eq
    f.movi(g(RDX), 0x3140);
    f.call(0x3100, 0x3140);
    f.b(0x3180);
    let mut r = Asm::new(0x3180);
    r.addi(g(RAX), g(RAX), 1);
    r.put(0xf840_8400 | g(RSP) << 5 | g(RDX)); // ldr rdx, [rsp], #8
    r.ret(g(RDX));
    // These two are reached when the shadow stack has lost the entry.
    let mut back = Asm::new(0x3140);
    back.b(0x3180);
    let mut end = Asm::new(0x3010);
    end.syscall(0x3020);
    install([m, f, r, back, end]);
    for depth in [1u64, 10, 200_000] {
        let mut stack = vec![0u64; depth as usize + 16];
        let top = stack.as_mut_ptr_range().end as u64;
        let t = run(0x3000, |c| {
            c.gpr[RBX] = depth;
            c.gpr[RSP] = top;
        });
        assert_eq!(t.cpu.gpr[RAX], depth);
        assert_eq!(t.cpu.gpr[RSP], top);
    }
}

/// An indirect jump finds its target in the table from the second time on, also when two targets share a slot.
#[test]
fn indirect_jumps_hit_and_miss() {
    let _one = set_up();
    let other = 0x4100 + (1 << LOOKUP_BITS);
    let mut a = Asm::new(0x4000);
    a.put(0xca00_0000 | g(RSI) << 16 | g(RDI) << 5 | g(RDI)); // eor rdi, rdi, rsi: the other target
    a.br(g(RDI));
    let target = |pc| {
        let mut b = Asm::new(pc);
        b.addi(g(RAX), g(RAX), 1);
        b.subs(g(RBX), g(RBX), 1);
        b.exit(0x5400_0001, 0x4000, None);
        b.syscall(0x4110);
        b
    };
    install([a, target(0x4100), target(other)]);
    for swap in [0, 0x4100 ^ other] {
        let t = run(0x4000, |c| {
            c.gpr[RBX] = 1000;
            c.gpr[RDI] = 0x4100;
            c.gpr[RSI] = swap;
        });
        assert_eq!(t.cpu.gpr[RAX], 1000);
    }
}

fn spinner(pc: u64) -> Asm {
    let mut a = Asm::new(pc);
    let top = a.here();
    a.addi(g(RAX), g(RAX), 1);
    a.cbnz_back(g(RBX), pc, top);
    a.syscall(pc + 16);
    a
}

/// A thread in a loop that never leaves its region is made to leave it, and comes back.
#[test]
fn emptying_the_cache_stops_a_spinning_thread() {
    let _one = set_up();
    // The loop's condition is memory the test writes: ldr rbx, [rdi].
    let mut a = Asm::new(0x5000);
    let top = a.here();
    a.addi(g(RAX), g(RAX), 1);
    a.put(0xf940_0000 | g(RDI) << 5 | g(RBX));
    a.cbnz_back(g(RBX), 0x5000, top);
    a.movi(g(RAX), 7);
    a.syscall(0x5010);
    install([a, spinner(0x5800)]);
    static GO_ON: AtomicU64 = AtomicU64::new(1);
    GO_ON.store(1, Mem::SeqCst);
    let spin = std::thread::spawn(|| run(0x5000, |c| c.gpr[RDI] = &raw const GO_ON as u64).cpu.gpr[RAX]);
    let me = Thread::new(CpuState::default());
    for _ in 0..50 {
        std::thread::sleep(std::time::Duration::from_millis(2));
        code::flush(&me);
    }
    GO_ON.store(0, Mem::SeqCst);
    assert_eq!(spin.join().unwrap(), 7);
}

/// Invalidated code is left by a thread inside it, and not entered again, through chained exits, the table or the shadow stack.
#[test]
fn invalidated_code_does_not_run() {
    let _one = set_up();
    let version = |n: u64| {
        let mut a = Asm::new(0x6000);
        let top = a.here();
        a.addi(g(RAX), g(RAX), 1);
        a.put(0xf900_0000 | g(RDI) << 5 | g(RAX)); // str rax, [rdi]
        // b .+4: qemu 10 does not see from another thread that a block which jumps to itself was patched.
        a.put(0x1400_0001);
        if n == 0 {
            a.cbnz_back(g(RBX), 0x6000, top);
        }
        a.movi(g(RAX), n);
        a.syscall(0x6010);
        a.t.depends.push(0x6000..0x6010);
        a
    };
    install([version(0)]);
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let spin = std::thread::spawn(|| {
        run(0x6000, |c| {
            c.gpr[RBX] = 1;
            c.gpr[RDI] = &raw const SEEN as u64;
        })
        .cpu
        .gpr[RAX]
    });
    while SEEN.load(Mem::SeqCst) < 1000 {
        std::thread::yield_now();
    }
    install([version(9)]);
    let before = code::stats().0.invalidated;
    code::invalidate(0x6008..0x6009);
    assert_eq!(code::stats().0.invalidated, before + 1);
    assert_eq!(spin.join().unwrap(), 9);

    // A return into a dead region.
    let mut m = Asm::new(0x6800);
    m.call(0x6900, 0x6810);
    m.movi(g(RAX), 1);
    m.syscall(0x6820);
    m.t.depends.push(0x6800..0x6820);
    let mut f = Asm::new(0x6900);
    f.movi(0, 0x6910);
    f.thunk(Thunk::Syscall, false);
    let mut back = Asm::new(0x6910);
    back.movi(g(RDX), 0x6810);
    back.ret(g(RDX));
    let mut fresh = Asm::new(0x6810);
    fresh.movi(g(RAX), 2);
    fresh.syscall(0x6820);
    install([m, f, back, fresh]);
    let mut t = Thread::new(CpuState { rip: 0x6800, ..CpuState::default() });
    CALLED.with(|c| c.set(true));
    assert_eq!(thread::run_here(&mut t), 0);
    code::invalidate(0x6800..0x6801);
    t.exit = None;
    thread::run_here(&mut t);
    assert_eq!(t.cpu.gpr[RAX], 2);
}

thread_local! {
    static CALLED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// More code than fits: the cache is emptied and the program goes on.
#[test]
fn a_full_cache_is_emptied() {
    let _one = set_up();
    let mut regions = Vec::new();
    for i in 0..5u64 {
        let pc = 0x7000 + 0x100 * i;
        let mut a = Asm::new(pc);
        a.addi(g(RAX), g(RAX), 1);
        a.subs(g(RBX), g(RBX), 1);
        a.exit(0x5400_0001, 0x7000 + 0x100 * ((i + 1) % 5), None);
        a.syscall(pc + 16);
        let mut t = a.done();
        t.words.resize(9 << 20, 0xd503_201f); // 36 MiB
        regions.push((pc, t));
    }
    PROGRAM.lock().unwrap().extend(regions);
    let before = code::stats().0.flushes;
    let t = run(0x7000, |c| c.gpr[RBX] = 50);
    assert_eq!(t.cpu.gpr[RAX], 50);
    assert!(code::stats().0.flushes > before);
    for i in 0..5u64 {
        PROGRAM.lock().unwrap().remove(&(0x7000 + 0x100 * i));
    }
}

/// Data written next to code, far more often than a page may be written before its code is checked instead of watched; then the code itself.
#[test]
fn writes_next_to_code_do_not_fault_for_ever() {
    let _one = set_up();
    let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let page = memory::mmap(0, 4096, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) as u64;
    memory::access::put(page, &5u8).unwrap();
    let mut w = Asm::new(0x8800);
    w.put(0x3900_0000 | g(RDI) << 5 | g(RBX)); // strb
    w.mark(0x8804);
    w.exit(0x1400_0000, page, None);
    install([w]);
    let write = |to, v| {
        run(0x8800, |c| {
            c.gpr[RDI] = to;
            c.gpr[RBX] = v;
        })
        .cpu
        .gpr[RAX]
    };
    for v in 0..200 {
        assert_eq!(write(page + 100, v), 5);
    }
    assert!(code::is_checked(page));
    let before = code::stats().0.invalidated;
    for v in 0..200 {
        assert_eq!(write(page + 100, v), 5);
    }
    assert_eq!(code::stats().0.invalidated, before);
    for v in 6..9 {
        assert_eq!(write(page, v), v);
    }
    // It writes nothing itself, so it goes on being checked, as long as it changes.
    assert!(code::is_checked(page));
    code::watch_again();
    assert!(code::is_checked(page));
    assert_eq!(write(page + 100, 1), 8);
    code::watch_again();
    assert!(!code::is_checked(page));
    for v in 9..12 {
        assert_eq!(write(page, v), v);
    }
}

/// A store to translated guest code, from translated code: the new bytes run next.
#[test]
fn a_write_to_code_is_seen() {
    let _one = set_up();
    let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let page = memory::mmap(0, 4096, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
    assert!(page > 0);
    let page = page as u64;
    memory::access::put(page, &5u8).unwrap();
    assert_eq!(run(page, |_| ()).cpu.gpr[RAX], 5);
    let mut w = Asm::new(0x8000);
    w.put(0x3900_0000 | g(RDI) << 5 | g(RBX)); // strb
    w.mark(0x8004);
    w.exit(0x1400_0000, page, None);
    install([w]);
    // Far more often than a page may be written before its code is checked instead of watched.
    for v in 6..256 {
        let t = run(0x8000, |c| {
            c.gpr[RDI] = page;
            c.gpr[RBX] = v;
        });
        assert_eq!(t.cpu.gpr[RAX], v);
    }
}
