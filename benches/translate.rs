//! How long translation takes: nanoseconds per guest instruction, over regions of a real program.
//!
//! The guest code is Debian's static busybox for amd64 (`make roots`): compiled C with library code in
//! it, a hundred thousand instructions and more. Regions start one behind the other, every few kilobytes, so every
//! kind of code is met. Nothing runs; the translator is pure. Criterion's throughput is guest
//! instructions; the time per instruction is printed before.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use goblin::elf::Elf;
use goblin::elf::program_header::{PF_X, PT_LOAD};
use xrun::Translator;
use xrun::guest::Region;
use xrun::host::HostFeatures;
use xrun_runtime::engine::{Engine, Extent, GuestCode, Ordering, Request};

/// The executable segment of a file.
struct Text {
    start: u64,
    bytes: Vec<u8>,
}

impl GuestCode for Text {
    fn fetch(&self, addr: u64, buf: &mut [u8]) -> usize {
        let from = addr.checked_sub(self.start).and_then(|at| self.bytes.get(at as usize..)).unwrap_or_default();
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        n
    }
}

fn busybox() -> Result<(Text, u64), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/roots/amd64/usr/bin/busybox");
    let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}; make roots unpacks it", path.display()))?;
    let elf = Elf::parse(&bytes).map_err(|e| e.to_string())?;
    let segment = elf
        .program_headers
        .iter()
        .find(|p| p.p_type == PT_LOAD && p.p_flags & PF_X != 0)
        .ok_or("no executable segment")?;
    let text = Text { start: segment.p_vaddr, bytes: bytes[segment.file_range()].to_vec() };
    Ok((text, elf.entry))
}

/// Entries of regions and how many instructions those hold together.
fn regions(text: &Text, extent: Extent) -> (Vec<u64>, u64) {
    let (mut entries, mut instructions) = (vec![], 0);
    let end = text.start + text.bytes.len() as u64;
    let mut block = text.start;
    while block < end {
        // A few regions in a row, then on: the whole program would only take longer.
        let mut pc = block;
        for _ in 0..4 {
            let Ok(region) = Region::find(pc, extent, text) else { break };
            let Some(last) = region.insts.last() else { break };
            entries.push(pc);
            instructions += region.insts.len() as u64;
            pc = last.i.next_ip().max(pc + 1);
        }
        block += 8192;
    }
    (entries, instructions)
}

fn translation(criterion: &mut Criterion) {
    let (text, _) = match busybox() {
        Ok(found) => found,
        Err(e) => {
            eprintln!("translate: {e}");
            return;
        }
    };
    let translator = Translator { host: HostFeatures::V8_2 };
    let mut group = criterion.benchmark_group("translate");
    for (name, extent, ordering) in [
        ("cold", Extent::Cold, Ordering::default()),
        ("loop", Extent::Loop, Ordering::default()),
        ("cold-tso", Extent::Cold, Ordering::Tso),
    ] {
        let (entries, instructions) = regions(&text, extent);
        let all = || {
            for &pc in &entries {
                let _ = black_box(translator.translate(Request { ordering, extent, ..Request::at(pc) }, &text));
            }
        };
        all();
        let start = Instant::now();
        all();
        let per = start.elapsed().as_nanos() as f64 / instructions as f64;
        println!("translate/{name}: {instructions} instructions in {} regions, {per:.0} ns each", entries.len());
        group.throughput(Throughput::Elements(instructions));
        group.bench_function(name, |b| b.iter(all));
    }
    group.finish();
}

criterion_group! { name = benches; config = Criterion::default().sample_size(20); targets = translation }
criterion_main!(benches);
