//! The recorded fixtures against whatever is at hand: on x86_64 the CPU under this process (are they still what a CPU does?), on
//! AArch64 the translator (does it do what the CPU did?).

mod truth;

use truth::mask;
use truth::state::{Case, Outcome};
use truth::text::{Recorded, parse};

/// Name, text and cases of each file.
fn fixtures() -> Vec<(String, String, Vec<Recorded>)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/oracle");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect(dir) {
        let path = entry.expect("a directory entry").path();
        if path.extension().is_some_and(|e| e == "txt") {
            let text = std::fs::read_to_string(&path).expect("a readable file");
            let cases = parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert!(!cases.is_empty(), "{} holds no case", path.display());
            files.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), text, cases));
        }
    }
    assert!(!files.is_empty(), "no fixtures in {dir}");
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files
}

/// Runs every case of the files that `counts` says by `run` (`None`: not done yet, counted) and prints a table; returns a report of what differs.
fn replay(counts: impl Fn(&str) -> bool, mut run: impl FnMut(&Case) -> Option<Outcome>) -> Result<(), String> {
    let mut report = String::new();
    let mut failures = 0;
    println!("{:10} {:>7} {:>8} {:>9}", "family", "same", "differ", "declined");
    for (family, _, cases) in fixtures().into_iter().filter(|f| counts(&f.1)) {
        let (mut same, mut differ, mut declined) = (0, 0, 0);
        for r in cases {
            let Some(got) = run(&r.case) else {
                declined += 1;
                continue;
            };
            let differences = mask::differences(&r.outcome, &got, r.undefined);
            if differences.is_empty() {
                same += 1;
                continue;
            }
            differ += 1;
            failures += 1;
            if failures <= 40 {
                let mut text = String::new();
                r.print(&mut text);
                report += &format!("\n{family}: {text}");
                for d in differences {
                    report += &format!("  ! {d}\n");
                }
            }
        }
        println!("{family:10} {same:7} {differ:8} {declined:9}");
    }
    if failures == 0 { Ok(()) } else { Err(format!("{failures} cases differ\n{report}")) }
}

/// Where manuals leave a choice, makers choose differently: what another maker's CPU recorded is run too, but may differ.
#[cfg(target_arch = "x86_64")]
#[test]
fn this_cpu_does_what_was_recorded() {
    let mut native = truth::native::Native::new().expect("a CPU to run on");
    let here = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let vendor = here.lines().find_map(|l| l.strip_prefix("vendor_id\t: ")).unwrap_or("unknown").to_string();
    let own = |text: &str| text.lines().nth(1).is_some_and(|l| l.contains(&vendor));
    let mut run = |case: &Case| {
        let mut code = iced_x86::Decoder::new(64, &case.code, iced_x86::DecoderOptions::NONE);
        let here = code.iter().all(|i| truth::feature::missing(i.code(), truth::feature::native).is_none());
        here.then(|| native.run(case))
    };
    if let Err(report) = replay(own, &mut run) {
        panic!("{report}");
    }
    if let Err(report) = replay(|text| !own(text), &mut run) {
        println!("{report}\nrecorded on another maker's CPU");
    }
}

#[cfg(target_arch = "aarch64")]
#[test]
fn translations_do_what_was_recorded() {
    use truth::translated::{Mode, Translated};
    let mut translated = Translated::new().expect("the fixed addresses");
    for mode in (0..Mode::COUNT).map(Mode::from_number) {
        println!("{mode:?}");
        let result = replay(
            |_| true,
            |case| {
                let o = translated.run(case, mode);
                o.fault.is_none_or(|f| f.signal != truth::state::UNSUPPORTED).then_some(o)
            },
        );
        if let Err(report) = result {
            panic!("{mode:?}: {report}");
        }
    }
}

/// The text form loses nothing.
#[test]
fn fixtures_print_as_they_are_read() {
    for (family, text, cases) in fixtures() {
        let head: String = text.lines().take_while(|l| l.starts_with('#')).map(|l| format!("{l}\n")).collect();
        let mut printed = head;
        for c in &cases {
            c.print(&mut printed);
        }
        assert!(printed == text, "{family}.txt does not print as it reads");
    }
}
