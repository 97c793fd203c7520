//! The machine state of a case, the outcome of running it, and their form on a pipe. Plain data: nothing here runs code.

use super::{DATA, DATA_RW, STACK, WINDOW, WINDOW_SIZE};

/// Everything a case can read or change. x87 registers are by *physical* number, as in `xrun_runtime::state::X87`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub gpr: [u64; 16],
    pub rip: u64,
    pub flags: u64,
    pub xmm: [u128; 16],
    pub ymm_hi: [u128; 16],
    pub mxcsr: u32,
    pub fcw: u16,
    /// With TOP in bits 11-13.
    pub fsw: u16,
    /// One bit per physical register in use.
    pub in_use: u8,
    pub fpr: [(u64, u16); 8],
    pub gs_base: u64,
    /// The bytes at [`WINDOW`].
    pub mem: Vec<u8>,
}

/// The state cases are written relative to: every register holds a value of its own, so that a clobbered one shows.
impl Default for State {
    fn default() -> Self {
        let pattern = |tag: u64| 0x0101_0101_0101_0101 * tag;
        let mut gpr = std::array::from_fn(|n| pattern(0x10 + n as u64));
        gpr[4] = STACK;
        Self {
            gpr,
            rip: super::START,
            flags: 0x202,
            xmm: std::array::from_fn(|n| {
                u128::from(pattern(0x40 + n as u64)) << 64 | u128::from(pattern(0x50 + n as u64))
            }),
            ymm_hi: std::array::from_fn(|n| {
                u128::from(pattern(0x60 + n as u64)) << 64 | u128::from(pattern(0x70 + n as u64))
            }),
            mxcsr: 0x1f80,
            fcw: 0x37f,
            fsw: 0,
            in_use: 0,
            fpr: [(0, 0); 8],
            gs_base: 0,
            mem: (0..WINDOW_SIZE).map(|i| (i * 7 + 3) as u8).collect(),
        }
    }
}

/// Stands for a signal number where the translator declined an instruction it knows but does not do yet.
pub const UNSUPPORTED: i32 = -1;

/// A signal the code raised, as its handler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub signal: i32,
    pub code: i32,
    pub addr: u64,
}

/// Code and the state it starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub code: Vec<u8>,
    pub state: State,
}

/// The state when the code reached its end (the byte after the last) or raised a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub state: State,
    pub fault: Option<Fault>,
    /// A digest of the writable bytes outside the window; 0 when all are still zero.
    pub rest: u64,
}

/// FNV-1a over the writable bytes outside the window, in 8-byte steps; 0 for all zero. `data` is the whole of [`DATA_RW`].
pub fn rest_digest(data: &[u8]) -> u64 {
    let window = (WINDOW - DATA) as usize;
    debug_assert_eq!(data.len(), DATA_RW);
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut seen = 0;
    for part in [&data[..window], &data[window + WINDOW_SIZE..]] {
        for chunk in part.chunks_exact(8) {
            let v = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
            seen |= v;
            hash = (hash ^ v).wrapping_mul(0x100_0000_01b3);
        }
    }
    if seen == 0 { 0 } else { hash }
}

/// Writes and reads the binary form: fixed layout, little endian.
pub struct Wire;

/// Bytes of a [`State`] in binary form.
pub const STATE_BYTES: usize = 16 * 8 + 8 + 8 + 16 * 16 * 2 + 4 + 2 + 2 + 1 + 8 * 10 + 8 + WINDOW_SIZE;
/// Bytes of an [`Outcome`] in binary form.
pub const OUTCOME_BYTES: usize = STATE_BYTES + 4 + 4 + 8 + 8;

impl Wire {
    pub fn put_state(out: &mut Vec<u8>, s: &State) {
        for v in s.gpr.iter().chain([&s.rip, &s.flags]) {
            out.extend_from_slice(&v.to_le_bytes());
        }
        for v in s.xmm.iter().chain(&s.ymm_hi) {
            out.extend_from_slice(&v.to_le_bytes());
        }
        out.extend_from_slice(&s.mxcsr.to_le_bytes());
        out.extend_from_slice(&s.fcw.to_le_bytes());
        out.extend_from_slice(&s.fsw.to_le_bytes());
        out.push(s.in_use);
        for (m, e) in &s.fpr {
            out.extend_from_slice(&m.to_le_bytes());
            out.extend_from_slice(&e.to_le_bytes());
        }
        out.extend_from_slice(&s.gs_base.to_le_bytes());
        out.extend_from_slice(&s.mem);
    }

    pub fn put_outcome(out: &mut Vec<u8>, o: &Outcome) {
        Self::put_state(out, &o.state);
        let f = o.fault.unwrap_or(Fault { signal: 0, code: 0, addr: 0 });
        out.extend_from_slice(&f.signal.to_le_bytes());
        out.extend_from_slice(&f.code.to_le_bytes());
        out.extend_from_slice(&f.addr.to_le_bytes());
        out.extend_from_slice(&o.rest.to_le_bytes());
    }

    /// `None` when `bytes` is too short.
    pub fn state(bytes: &mut &[u8]) -> Option<State> {
        let mut s = State::default();
        for v in &mut s.gpr {
            *v = u64::from_le_bytes(take(bytes)?);
        }
        s.rip = u64::from_le_bytes(take(bytes)?);
        s.flags = u64::from_le_bytes(take(bytes)?);
        for v in s.xmm.iter_mut().chain(&mut s.ymm_hi) {
            *v = u128::from_le_bytes(take(bytes)?);
        }
        s.mxcsr = u32::from_le_bytes(take(bytes)?);
        s.fcw = u16::from_le_bytes(take(bytes)?);
        s.fsw = u16::from_le_bytes(take(bytes)?);
        s.in_use = take::<1>(bytes)?[0];
        for (m, e) in &mut s.fpr {
            *m = u64::from_le_bytes(take(bytes)?);
            *e = u16::from_le_bytes(take(bytes)?);
        }
        s.gs_base = u64::from_le_bytes(take(bytes)?);
        s.mem = take::<WINDOW_SIZE>(bytes)?.to_vec();
        Some(s)
    }

    pub fn outcome(bytes: &mut &[u8]) -> Option<Outcome> {
        let state = Self::state(bytes)?;
        let signal = i32::from_le_bytes(take(bytes)?);
        let code = i32::from_le_bytes(take(bytes)?);
        let addr = u64::from_le_bytes(take(bytes)?);
        let rest = u64::from_le_bytes(take(bytes)?);
        Some(Outcome { state, fault: (signal != 0).then_some(Fault { signal, code, addr }), rest })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}
