//! Entries as the kernel prints them, and the commands on a directory that stands for the kernel's table: files that take what is
//! written to them, which a test can look at.

use super::*;

/// /proc/sys/fs/binfmt_misc/qemu-x86_64 as Debian's qemu-user-static makes it.
const QEMU: &str = "enabled
interpreter /usr/libexec/qemu-binfmt/x86_64-binfmt-P
flags: POCF
offset 0
magic 7f454c4602010100000000000000000002003e00
mask fffffffffffefe00fffffffffffffffffeffffff
";
const AARCH64: &str = "enabled
interpreter /usr/bin/qemu-aarch64-static
flags: PF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
";
const EXTENSION: &str = "enabled\ninterpreter /usr/bin/cli\nflags: \nextension .exe\n";
const DOS: &str = "enabled\ninterpreter /usr/bin/wine\nflags: \noffset 0\nmagic 4d5a\n";

fn table(name: &str, entries: &[(&str, &str)]) -> Table {
    let dir = std::env::temp_dir().join(format!("xrun-binfmt-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    for (file, text) in [("register", ""), ("status", "enabled\n")].iter().chain(entries) {
        std::fs::write(dir.join(file), text).unwrap();
    }
    Table { dir }
}

fn written(t: &Table, file: &str) -> String {
    std::fs::read_to_string(t.dir.join(file)).unwrap()
}

fn own() -> Entry {
    own_entry(Path::new("/usr/bin/xrun")).unwrap()
}

#[test]
fn reads_what_the_kernel_prints() {
    let e = Entry::parse("qemu-x86_64", QEMU).unwrap();
    assert_eq!((e.interpreter.as_str(), e.flags.as_str()), ("/usr/libexec/qemu-binfmt/x86_64-binfmt-P", "POCF"));
    assert!(e.is_for_x86_64());
    assert!(!Entry::parse("qemu-aarch64", AARCH64).unwrap().is_for_x86_64());
    assert!(!Entry::parse("DOSWin", DOS).unwrap().is_for_x86_64());
    assert_eq!(Entry::parse("cli", EXTENSION), None);
    for junk in ["", "enabled", "enabled\nmagic xyz\ninterpreter /x\n", "magic 7f\noffset 99999999999999999999\n"] {
        let _ = Entry::parse("junk", junk);
    }
}

#[test]
fn takes_programs_and_appimages() {
    let mut head = [0u8; 64];
    head[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0");
    assert!(own().takes(&head));
    head[16] = 2;
    assert!(own().takes(&head));
    // AppImage, type 2: "AI" and 2 from offset 8 on.
    head[8..11].copy_from_slice(b"AI\x02");
    assert!(own().takes(&head));
    for (at, value) in [(4, 1), (5, 2), (16, 1), (16, 4), (18, 183), (0, 0x7e)] {
        let mut other = head;
        other[at] = value;
        assert!(!own().takes(&other), "byte {at} = {value}");
    }
    assert!(!own().takes(&head[..19]));
}

#[test]
fn replaces_and_says_what() {
    let t = table("replace", &[("qemu-x86_64", QEMU), ("qemu-aarch64", AARCH64), ("cli", EXTENSION)]);
    let (said, _) = install(&t, own()).unwrap();
    assert!(
        said.contains("replaced /usr/libexec/qemu-binfmt/x86_64-binfmt-P (entry qemu-x86_64, flags POCF)"),
        "{said}"
    );
    assert_eq!(
        written(&t, "register"),
        r":xrun-x86_64:M:0:\x7f\x45\x4c\x46\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00:\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xfe\xff\xff\xff:/usr/bin/xrun:POCF"
    );
    assert!(written(&t, "qemu-x86_64").starts_with("-1"));
    assert_eq!(written(&t, "qemu-aarch64"), AARCH64);
}

#[test]
fn tells_its_own_from_others() {
    let mine = QEMU.replace("x86_64-binfmt-P", "xrun");
    let t = table("own", &[(NAME, &mine), ("qemu-x86_64", QEMU)]);
    assert!(status(&t).unwrap().1);
    let (said, _) = uninstall(&t).unwrap();
    assert!(said.contains("removed") && said.contains("left alone"), "{said}");
    assert!(written(&t, NAME).starts_with("-1"));
    assert_eq!(written(&t, "qemu-x86_64"), QEMU);
    let t = table("none", &[("qemu-aarch64", AARCH64)]);
    assert_eq!(status(&t).unwrap(), ("no entry for x86_64 programs\n".into(), false));
    assert!(uninstall(&t).unwrap().0.contains("not registered"));
}

#[test]
fn says_what_is_wrong() {
    let run = |args: &[&str]| super::run(args.iter().map(OsString::from)).map_err(|e| e.to_string());
    assert!(run(&["--dir", "/nowhere", "status"]).unwrap_err().contains("mount -t binfmt_misc"));
    assert!(run(&["--dir"]).unwrap_err().contains("needs a value"));
    assert!(run(&["explode"]).unwrap_err().contains("explode"));
    assert!(run(&[]).unwrap_err().contains("--help"));
    assert!(own_entry(Path::new("/a:b")).unwrap_err().to_string().contains("colon"));
    let error = |kind| Error::at(Path::new("/d/register"), io::Error::from(kind)).to_string();
    assert!(error(ErrorKind::PermissionDenied).contains("needs root"));
    assert!(error(ErrorKind::ReadOnlyFilesystem).contains("read-only"));
}
