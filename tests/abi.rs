//! The kernel's headers of both architectures side by side: calls that go to the host as they are rely on structures and constants being the same, and
//! what is not must be known. `fixtures/abi/differences.tsv` lists what differs and the file that settles it.
//!
//! Both C compilers are needed: the machine's own, and the cross compiler for the other side.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

type Facts = BTreeMap<String, String>;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/abi")
}

fn compilers() -> [&'static str; 2] {
    if cfg!(target_arch = "x86_64") { ["gcc", "aarch64-linux-gnu-gcc"] } else { ["x86_64-linux-gnu-gcc", "gcc"] }
}

fn output(compiler: &str, args: &[&str], file: &str) -> String {
    let out = Command::new(compiler).args(args).arg(fixtures().join(file)).output();
    let out = out.unwrap_or_else(|e| panic!("{compiler}: {e}"));
    assert!(out.status.success(), "{compiler}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Sizes and offsets.
fn structures(compiler: &str) -> Facts {
    let assembly = output(compiler, &["-S", "-w", "-o", "-"], "structs.c");
    let facts = assembly.lines().filter_map(|l| l.strip_prefix("@ ")?.rsplit_once(' '));
    facts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Macros that programs use.
fn constants(compiler: &str) -> Facts {
    let macros = output(compiler, &["-E", "-dM"], "headers.h");
    let facts = macros.lines().filter_map(|l| l.strip_prefix("#define ")?.split_once(' '));
    facts.filter(|(name, _)| !name.starts_with('_')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What both sides have and differs, as lines of the list without their last column. A name that one side lacks is its architecture's own, or newer
/// than the other side's headers.
fn differences(facts: fn(&str) -> Facts) -> Vec<String> {
    let [amd64, arm64] = compilers().map(facts);
    assert!(amd64.len() > 250, "{} facts", amd64.len());
    let both = amd64.iter().filter_map(|(name, a)| Some((name, a, arm64.get(name)?)));
    both.filter(|(_, a, b)| a != b).map(|(name, a, b)| format!("{name}\t{a}\t{b}")).collect()
}

#[test]
fn what_differs_is_known() {
    let list = std::fs::read_to_string(fixtures().join("differences.tsv")).expect("the list");
    let mut known = Vec::new();
    for line in list.lines() {
        let (difference, settled) = line.rsplit_once('\t').expect("four columns");
        let file = settled.split(':').next().unwrap_or_default();
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).is_file(), "{line}: there is no {file}");
        known.push(difference.to_owned());
    }
    let found = [differences(structures), differences(constants)].concat();
    let show = |lines: &[&String]| lines.iter().map(|l| format!("  {l}\n")).collect::<String>();
    let unknown: Vec<_> = found.iter().filter(|l| !known.contains(l)).collect();
    let gone: Vec<_> = known.iter().filter(|l| !found.contains(l)).collect();
    assert!(
        unknown.is_empty() && gone.is_empty(),
        "not listed:\n{}listed, but not so:\n{}",
        show(&unknown),
        show(&gone)
    );
}
