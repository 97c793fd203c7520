//! Loading real files into this process, on any host: the mappings are read back, nothing is run.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// An ELF file with text at page 0, and data at 0x2f00 of its address space whose zeros reach into the next pages.
fn image(relocatable: bool, base: u64, interp: Option<&str>) -> Vec<u8> {
    let mut b = vec![0xccu8; 0x2000];
    b[..64].fill(0);
    b[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let phnum = 2 + u8::from(interp.is_some());
    b[16..20].copy_from_slice(&[if relocatable { 3 } else { 2 }, 0, 62, 0]);
    b[24..32].copy_from_slice(&(base + 0x800).to_le_bytes());
    b[32..40].copy_from_slice(&64u64.to_le_bytes());
    b[54..58].copy_from_slice(&[56, 0, phnum, 0]);
    let mut phdr = |i: usize, t: u32, flags: u32, rest: [u64; 6]| {
        let at = 64 + i * 56;
        b[at..at + 4].copy_from_slice(&t.to_le_bytes());
        b[at + 4..at + 8].copy_from_slice(&flags.to_le_bytes());
        for (j, v) in rest.into_iter().enumerate() {
            b[at + 8 + j * 8..at + 16 + j * 8].copy_from_slice(&v.to_le_bytes());
        }
    };
    phdr(0, 1, 5, [0, base, base, 0x1000, 0x1000, 0x1000]);
    phdr(1, 1, 6, [0x1f00, base + 0x2f00, base + 0x2f00, 0x80, 0x2000, 0x1000]);
    if let Some(name) = interp {
        phdr(2, 3, 4, [0x900, base + 0x900, base + 0x900, name.len() as u64 + 1, name.len() as u64 + 1, 1]);
        b[0x900..0x900 + name.len()].copy_from_slice(name.as_bytes());
        b[0x900 + name.len()] = 0;
    }
    b
}

/// A directory of this test's own, with files in it.
fn files(name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("xrun-load-{}-{name}", std::process::id()));
    for (file, bytes) in files {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, bytes).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    }
    dir
}

fn word(at: u64) -> u64 {
    access::get(at).expect("mapped")
}

/// Loads into a space of its own; several can live in one process.
fn load(config: &Config) -> Result<(Space, CpuState, Layout), LoadError> {
    access::catch_faults_in_tests();
    let program = find(config)?;
    let interp = interpreter(config, &program)?;
    let layout = lay_out(0, &[0x5a; 56]);
    let mut space = Space::new();
    space.end = usable_end();
    space.mmap_base = layout.mmap_base;
    let loaded = build(&mut space, config, &layout, program, interp, &[b"K=V".to_vec()], &[0x5a; 56])?;
    Ok((space, loaded.cpu, layout))
}

fn auxv_at(cpu: &CpuState) -> std::collections::HashMap<u64, u64> {
    let mut at = cpu.gpr[gpr::RSP];
    for _ in 0..2 {
        while word(at) != 0 {
            at += 8;
        }
        at += 8;
    }
    let mut all = std::collections::HashMap::new();
    while word(at) != at::NULL {
        all.insert(word(at), word(at + 8));
        at += 16;
    }
    all
}

#[test]
fn fixed_addresses_zero_tails_and_holes() {
    let base = 0x30_0000_0000;
    let dir = files("fixed", &[("p", &image(false, base, None))]);
    let config = Config { program: dir.join("p"), args: vec![b"one".to_vec()], ..Config::default() };
    let (space, cpu, _) = load(&config).expect("loads");
    assert_eq!(cpu.rip, base + 0x800);
    assert_eq!(cpu.gpr[gpr::RSP] % 16, 0);
    assert_eq!(word(cpu.gpr[gpr::RSP]), 2);
    assert_eq!(word(base + 0x2f00), 0xcccc_cccc_cccc_cccc);
    assert_eq!(word(base + 0x2f78), 0xcccc_cccc_cccc_cccc);
    for at in [0x2f80, 0x2ff8, 0x3000, 0x4ef8, 0x4ff8] {
        assert_eq!(word(base + at), 0, "{at:#x}");
    }
    let prots: Vec<_> = space.vmas.parts(base..base + 0x6000).into_iter().map(|(r, v)| (r, v.prot.bits())).collect();
    let want = [(base..base + 0x1000, 5), (base + 0x2000..base + 0x3000, 3), (base + 0x3000..base + 0x5000, 3)];
    assert_eq!(prots, want);
    assert!(space.brk_start >= base + 0x5000 && space.brk_start % PAGE == 0);
    let aux = auxv_at(&cpu);
    assert_eq!((aux[&at::PHDR], aux[&at::PHNUM], aux[&at::ENTRY], aux[&at::BASE]), (base + 64, 2, base + 0x800, 0));
    // The same place again is refused: something is there.
    assert!(matches!(load(&config), Err(LoadError::Map { .. })));
    std::fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn relocatable_with_interpreter_under_a_prefix() {
    let name = "/lib64/ld-of-this-test.so";
    let program = image(true, 0, Some(name));
    let dir = files("pie", &[("p", &program), ("root/lib64/ld-of-this-test.so", &image(true, 0, None))]);
    let config = Config { program: dir.join("p"), ..Config::default() };
    let e = load(&config).expect_err("no interpreter").to_string();
    assert!(e.contains(name) && e.contains("-L DIR"), "{e}");
    let config = Config { prefix: Some(dir.join("root")), ..config };
    let (_, cpu, layout) = load(&config).expect("loads");
    let aux = auxv_at(&cpu);
    assert_eq!(aux[&at::PHDR], layout.program_base + 64);
    assert_eq!(aux[&at::ENTRY], layout.program_base + 0x800);
    assert_eq!(cpu.rip, aux[&at::BASE] + 0x800);
    assert!(aux[&at::BASE] < layout.mmap_base && aux[&at::BASE] > layout.program_base);
    std::fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn scripts_and_what_cannot_be_run() {
    let elf = image(true, 0, None);
    let dir = files(
        "script",
        &[("p", &elf), ("cut", &elf[..0x1f10]), ("arm", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0")],
    );
    let p = dir.join("p");
    std::fs::write(dir.join("s"), format!("#! {} -x y \nrest", p.display())).expect("written");
    std::fs::write(dir.join("lost"), "#!/no/such/interpreter\n").expect("written");
    std::fs::write(dir.join("plain"), "text").expect("written");
    for f in ["s", "lost"] {
        std::fs::set_permissions(dir.join(f), std::fs::Permissions::from_mode(0o755)).expect("permissions");
    }
    let with = |f: &str| Config { program: dir.join(f), args: vec![b"z".to_vec()], ..Config::default() };
    let found = find(&with("s")).expect("an interpreter");
    let script = dir.join("s").into_os_string().into_vec();
    assert_eq!(found.argv, [p.into_os_string().into_vec(), b"-x y".to_vec(), script, b"z".to_vec()]);
    for (file, code, part) in [
        ("lost", 127, "/no/such/interpreter"),
        ("none", 127, "no such file"),
        ("plain", 126, "not executable"),
        (".", 126, "directory"),
        ("cut", 126, "truncated"),
        ("arm", 126, "truncated"),
    ] {
        let e = find(&with(file)).err().unwrap_or_else(|| panic!("{file} loads"));
        assert_eq!(e.exit_code(), code, "{file}: {e}");
        assert!(e.to_string().contains(part), "{file}: {e}");
        assert!(!e.to_string().contains('\n'));
    }
    std::fs::remove_dir_all(dir).expect("removed");
}

/// Damaged files all the way through mapping: loaded or refused with a line, and nothing of this process hit.
#[test]
fn damaged_files_load_or_say_why() {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let good = image(true, 0, None);
    let dir = files("damaged", &[("p", &good)]);
    let config = Config { program: dir.join("p"), ..Config::default() };
    let (mut loaded, mut refused) = (0, 0);
    for _ in 0..200 {
        let mut b = good.clone();
        for _ in 0..1 + next() % 3 {
            // ELF header or program headers; mostly whole fields.
            let at = (next() % 22) as usize * 8;
            let v = match next() % 4 {
                0 => next() % 0x1_0000,
                1 => 1 << (next() % 64),
                2 => u64::MAX - next() % 0x1000,
                _ => next(),
            };
            let len = [1, 2, 4, 8][(next() % 4) as usize];
            b[at..at + len].copy_from_slice(&v.to_le_bytes()[..len]);
        }
        std::fs::write(&config.program, &b).expect("written");
        match load(&config) {
            Ok((space, ..)) => {
                loaded += 1;
                for (r, _) in space.vmas.iter() {
                    host::munmap(r.start, r.end - r.start).expect("the guest's");
                }
            }
            Err(e) => {
                refused += 1;
                assert!(!e.to_string().contains('\n') && e.exit_code() >= 126);
            }
        }
    }
    assert!(loaded > 5 && refused > 30, "{loaded} {refused}");
    std::fs::remove_dir_all(dir).expect("removed");
}
