//! The slopes as a picture: one bar a row for xrun, one for qemu-x86_64, on a logarithmic scale on which native code is 1. Plain SVG 1.1 without scripts
//! or fonts of its own, legible on light and dark ground.

use std::fmt::Write;

use crate::report::Line;

const ROW: f64 = 16.0;
const NAMES: f64 = 110.0;
const WIDTH: f64 = 640.0;
const RIGHT: f64 = 50.0;
const TOP: f64 = 46.0;
/// The ends of the scale.
const LEAST: f64 = 0.25;
const MOST: f64 = 400.0;

fn x(ratio: f64) -> f64 {
    NAMES + WIDTH * (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln()
}

/// The picture of `lines`, with `title` above; rows without a slope are left out.
pub fn svg(title: &str, lines: &[Line]) -> String {
    let rows: Vec<_> =
        lines.iter().filter_map(|l| Some((l, l.slope(&l.xrun)?, l.qemu.as_ref().and_then(|q| l.slope(q))))).collect();
    let bottom = TOP + ROW * rows.len() as f64;
    let (width, height) = (NAMES + WIDTH + RIGHT, bottom + 30.0);
    let mut s = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#808080\">\n\
         <text x=\"{NAMES}\" y=\"14\" font-size=\"13\">{title}</text>\n"
    );
    for tick in [0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0] {
        let (at, wide) = (x(tick), if tick == 1.0 { 1.5 } else { 0.4 });
        let _ = writeln!(
            s,
            "<line x1=\"{at:.1}\" y1=\"{:.0}\" x2=\"{at:.1}\" y2=\"{bottom:.0}\" stroke=\"#808080\" stroke-width=\"{wide}\"/>\
             <text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{tick}</text>",
            TOP - 6.0,
            bottom + 14.0
        );
    }
    let bar = |s: &mut String, y: f64, height: f64, ratio: f64, colour: &str| {
        let (a, b) = (x(1.0).min(x(ratio)), x(1.0).max(x(ratio)));
        let _ = write!(
            s,
            "<rect x=\"{a:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height}\" fill=\"{colour}\"/>",
            (b - a).max(1.0)
        );
    };
    for (n, (line, xrun, qemu)) in rows.iter().enumerate() {
        let y = TOP + ROW * n as f64;
        let _ = write!(s, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", NAMES - 6.0, y + 11.0, line.name);
        bar(&mut s, y + 2.0, 7.0, *xrun, "#2f81c7");
        if let Some(qemu) = qemu {
            bar(&mut s, y + 9.0, 4.0, *qemu, "#c9a227");
        }
        let _ = writeln!(
            s,
            "<text x=\"{:.1}\" y=\"{:.1}\">{xrun:.2}</text>",
            x(xrun.max(qemu.unwrap_or(1.0))) + 4.0,
            y + 10.0
        );
    }
    let _ = writeln!(
        s,
        "<rect x=\"{NAMES}\" y=\"22\" width=\"10\" height=\"7\" fill=\"#2f81c7\"/><text x=\"{}\" y=\"30\">xrun</text>\
         <rect x=\"{}\" y=\"22\" width=\"10\" height=\"7\" fill=\"#c9a227\"/><text x=\"{}\" y=\"30\">qemu-x86_64</text>\n</svg>",
        NAMES + 14.0,
        NAMES + 60.0,
        NAMES + 74.0
    );
    s
}
