//! Which YMM registers a loop works with: those that 256-bit instructions of its region name.

use crate::guest::Region;
use iced_x86::OpKind;

/// Their numbers, the most named ones first.
pub fn named(region: &Region) -> Vec<u8> {
    let mut count = [0u32; 16];
    for x in &region.insts {
        for n in (0..x.i.op_count()).filter_map(|n| number(&x.i, n)) {
            count[usize::from(n)] += 1;
        }
    }
    let mut all: Vec<u8> = (0..16).filter(|&n| count[usize::from(n)] != 0).collect();
    all.sort_by_key(|&n| std::cmp::Reverse(count[usize::from(n)]));
    all
}

/// The YMM register that is operand `n`.
fn number(i: &iced_x86::Instruction, n: u32) -> Option<u8> {
    (i.op_kind(n) == OpKind::Register && i.op_register(n).is_ymm()).then(|| i.op_register(n).number() as u8)
}
