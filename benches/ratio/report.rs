//! Prints the table as rows finish, the geometric means, and the same as JSON.
//!
//! Knows costs and errors only; a row that failed keeps its place and says why.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::rows::{Kind, Row};
use crate::run::{Bench, Counter};

/// Costs at one size (start-up, smoke) or two, or why there are none.
pub type Costs = Result<Vec<u64>, String>;

pub struct Line {
    pub name: &'static str,
    pub kind: Kind,
    pub sizes: (u64, u64),
    pub native: Costs,
    pub qemu: Option<Costs>,
    pub xrun: Costs,
    /// Largest resident memory in KiB, native and under xrun (start-up rows).
    pub peak: Option<(u64, u64)>,
}

impl Line {
    pub fn new(row: &Row) -> Line {
        Line {
            name: row.name,
            kind: row.kind,
            sizes: (row.small, row.large),
            native: Err("not run".to_string()),
            qemu: None,
            xrun: Err("not run".to_string()),
            peak: None,
        }
    }

    /// Ratio of the slopes between the two sizes, where both sides have two.
    pub fn slope(&self, side: &Costs) -> Option<f64> {
        let (native, side) = (self.native.as_ref().ok()?, side.as_ref().ok()?);
        let ([n0, n1], [s0, s1]) = (&native[..], &side[..]) else { return None };
        (n1 > n0 && s1 > s0).then(|| (s1 - s0) as f64 / (n1 - n0) as f64)
    }

    /// Ratio of whole runs at the larger size.
    fn whole(&self, side: &Costs) -> Option<f64> {
        let (native, side) = (self.native.as_ref().ok()?, side.as_ref().ok()?);
        Some(*side.last()? as f64 / *native.last()? as f64)
    }

    fn errors(&self) -> Vec<String> {
        let mut errors = vec![];
        if let Err(e) = &self.native {
            errors.push(format!("native: {e}"));
        }
        if let Some(Err(e)) = &self.qemu {
            errors.push(format!("qemu: {e}"));
        }
        if let Err(e) = &self.xrun {
            errors.push(format!("xrun: {e}"));
        }
        errors
    }
}

fn unit(bench: &Bench) -> &'static str {
    match bench.counter {
        Counter::Plugin { .. } | Counter::Log | Counter::Perf => "AArch64 instructions",
        Counter::Absent => "nanoseconds",
    }
}

pub fn head(bench: &Bench, qemu: bool) {
    match &bench.counter {
        Counter::Plugin { .. } => println!("counting AArch64 instructions with qemu's insn plugin, -cpu {}", bench.cpu),
        Counter::Log => println!("counting AArch64 instructions in the log of qemu-aarch64-static, -cpu {}", bench.cpu),
        Counter::Perf => println!("counting AArch64 instructions in user space with perf stat"),
        Counter::Absent => println!(
            "no instruction counter: outputs are compared and WALL TIME is shown, which says little under an emulator;\n\
             give a qemu-aarch64 with plugins as INSN=DIR, or use an AArch64 host with perf"
        ),
    }
    if !qemu {
        println!("qemu-x86_64 is left out");
    }
    println!("\n{:<14}{:<10}{:>12}  {:>9}{:>9}  {:>9}{:>9}", "", "", "native", "qemu", "xrun", "qemu", "xrun");
    println!(
        "{:<14}{:<10}{:>12}  {:>9}{:>9}  {:>9}{:>9}",
        "row", "kind", "millions", "slope", "slope", "whole", "whole"
    );
}

fn cell(ratio: Option<f64>) -> String {
    ratio.map_or("-".to_string(), |r| format!("{r:.2}"))
}

pub fn line(line: &Line) {
    let native = match &line.native {
        Ok(costs) => costs.last().map_or("-".into(), |&c| format!("{:.3}", c as f64 / 1e6)),
        Err(_) => "FAILED".to_string(),
    };
    let shown = |side: &Costs, ratio: Option<f64>| match side {
        Err(_) => "FAILED".to_string(),
        Ok(_) => cell(ratio),
    };
    let qemu = |ratio: fn(&Line, &Costs) -> Option<f64>| match &line.qemu {
        None => "-".to_string(),
        Some(side) => shown(side, ratio(line, side)),
    };
    println!(
        "{:<14}{:<10}{:>12}  {:>9}{:>9}  {:>9}{:>9}",
        line.name,
        line.kind.name(),
        native,
        qemu(Line::slope),
        shown(&line.xrun, line.slope(&line.xrun)),
        qemu(Line::whole),
        shown(&line.xrun, line.whole(&line.xrun)),
    );
    for error in line.errors() {
        println!("{:<14}{error}", "");
    }
    let _ = std::io::stdout().flush();
}

/// Geometric mean and how many values are in it.
fn mean(values: impl Iterator<Item = f64>) -> Option<(f64, usize)> {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), v| (sum + v.ln(), n + 1));
    (n > 0).then(|| ((sum / n as f64).exp(), n))
}

fn slopes<'a>(lines: &'a [Line], of: impl Fn(&Kind) -> bool + 'a, qemu: bool) -> impl Iterator<Item = f64> + 'a {
    lines.iter().filter(move |l| of(&l.kind)).filter_map(move |l| match qemu {
        false => l.slope(&l.xrun),
        true => l.slope(l.qemu.as_ref()?),
    })
}

pub fn summary(lines: &[Line]) {
    println!();
    let groups: [(&str, fn(&Kind) -> bool); 2] = [("compute rows", |k| k.compute()), ("tools", |k| *k == Kind::Tool)];
    for (label, of) in groups {
        let all = lines.iter().filter(|l| of(&l.kind)).count();
        if all == 0 {
            continue;
        }
        let show = |m: Option<(f64, usize)>| m.map_or("-".to_string(), |(g, n)| format!("{g:.2} ({n} of {all})"));
        println!(
            "slope, geometric mean, {label}: xrun {}, qemu-x86_64 {}",
            show(mean(slopes(lines, of, false))),
            show(mean(slopes(lines, of, true))),
        );
    }
    for line in lines.iter().filter(|l| l.kind == Kind::Startup) {
        let millions = |costs: &Costs| {
            costs
                .as_ref()
                .ok()
                .and_then(|c| c.first())
                .map_or("failed".to_string(), |&c| format!("{:.2} M", c as f64 / 1e6))
        };
        println!(
            "start-up, {}: native {}, xrun {}, qemu-x86_64 {}",
            line.name,
            millions(&line.native),
            millions(&line.xrun),
            line.qemu.as_ref().map_or("-".to_string(), millions),
        );
        if let Some((native, xrun)) = line.peak {
            let over = (xrun as f64 - native as f64) / 1024.0;
            println!("peak memory, {}: xrun {over:.1} MiB over native", line.name);
        }
    }
    let failed: Vec<_> = lines.iter().filter(|l| l.xrun.is_err()).map(|l| l.name).collect();
    if !failed.is_empty() {
        println!("rows that fail under xrun: {}", failed.join(" "));
    }
    println!("{} passed, {} failed", lines.len() - failed.len(), failed.len());
}

pub fn json(path: &Path, bench: &Bench, lines: &[Line]) -> std::io::Result<()> {
    let side = |line: &Line, costs: &Costs| -> Value {
        match costs {
            Ok(c) => json!({ "cost": c, "slope": line.slope(costs), "whole": line.whole(costs) }),
            Err(e) => json!({ "error": e }),
        }
    };
    let rows: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "name": line.name,
                "kind": line.kind.name(),
                "sizes": [line.sizes.0, line.sizes.1],
                "native": side(line, &line.native),
                "qemu": line.qemu.as_ref().map(|q| side(line, q)),
                "xrun": side(line, &line.xrun),
                "peak_kib": line.peak.map(|(native, xrun)| json!({ "native": native, "xrun": xrun })),
            })
        })
        .collect();
    let compute = |qemu| mean(slopes(lines, |k| k.compute(), qemu)).map(|(g, _)| g);
    let whole = json!({
        "unit": unit(bench),
        "cpu": bench.cpu,
        "compute_slope_mean": { "xrun": compute(false), "qemu": compute(true) },
        "rows": rows,
    });
    std::fs::write(path, format!("{whole:#}\n"))
}
