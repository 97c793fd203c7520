//! The rows of the benchmark: which program, at which two sizes, counted as what.
//!
//! Pure data. Sizes are chosen so that the larger run executes about 10 to 20 million AArch64
//! instructions natively and the smaller a quarter of that: the slope between them has start-up and
//! translation taken out, and the whole table stays a matter of minutes under an emulator.

/// What a row measures; `compute` rows enter the geometric mean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Integer,
    Memory,
    Branches,
    Calls,
    Float,
    Simd,
    X87,
    Atomics,
    Kernel,
    Code,
    Tool,
    Startup,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Integer => "integer",
            Kind::Memory => "memory",
            Kind::Branches => "branches",
            Kind::Calls => "calls",
            Kind::Float => "float",
            Kind::Simd => "simd",
            Kind::X87 => "x87",
            Kind::Atomics => "atomics",
            Kind::Kernel => "kernel",
            Kind::Code => "code",
            Kind::Tool => "tool",
            Kind::Startup => "start-up",
        }
    }

    /// Rows of generated code alone: no kernel, no second thread, no different twin.
    pub fn compute(self) -> bool {
        matches!(self, Kind::Integer | Kind::Memory | Kind::Branches | Kind::Calls | Kind::Float | Kind::Simd)
    }
}

/// Where a row's program comes from.
#[derive(Clone, Copy)]
pub enum Program {
    /// `benches/programs/NAME.{c,cc}`, built for both architectures, static.
    Source,
    /// A Debian program of the unpacked roots, by its path under the root. In the arguments `{N}` is
    /// the size, `{F}` a file of that many bytes of text, `{F.gz}` (`.bz2`, `.xz`) that file packed.
    Tool(&'static str, &'static [&'static str]),
}

pub struct Row {
    pub name: &'static str,
    pub kind: Kind,
    pub program: Program,
    pub small: u64,
    pub large: u64,
}

const fn source(name: &'static str, kind: Kind, small: u64, large: u64) -> Row {
    Row { name, kind, program: Program::Source, small, large }
}

const fn tool(name: &'static str, path: &'static str, args: &'static [&'static str], small: u64, large: u64) -> Row {
    Row { name, kind: Kind::Tool, program: Program::Tool(path, args), small, large }
}

/// Rows a quick check runs (`--smoke`): one of each kind that is quick.
pub const SMOKE: &[&str] = &[
    "hello",
    "true",
    "hash",
    "matmul",
    "fib",
    "strings",
    "nbody",
    "simd_int",
    "x87",
    "atomic2",
    "signals",
    "jit",
    "sha256sum",
];

pub const ROWS: &[Row] = &[
    Row { name: "hello", kind: Kind::Startup, program: Program::Source, small: 0, large: 0 },
    Row { name: "true", kind: Kind::Startup, program: Program::Tool("usr/bin/true", &[]), small: 0, large: 0 },
    Row {
        name: "perl-start",
        kind: Kind::Startup,
        program: Program::Tool("usr/bin/perl", &["-e", "1"]),
        small: 0,
        large: 0,
    },
    Row {
        name: "python-start",
        kind: Kind::Startup,
        program: Program::Tool("usr/bin/python3", &["-c", "pass"]),
        small: 0,
        large: 0,
    },
    source("hash", Kind::Integer, 120, 480),
    source("sieve", Kind::Integer, 10, 40),
    source("crc", Kind::Integer, 50, 200),
    source("sha256", Kind::Integer, 1000, 4000),
    source("collatz", Kind::Integer, 6000, 24000),
    source("matmul", Kind::Integer, 6, 24),
    source("interp", Kind::Integer, 10000, 40000),
    source("sort", Kind::Integer, 6, 24),
    source("bignum", Kind::Integer, 250, 1000),
    source("division", Kind::Integer, 80000, 320000),
    source("bits", Kind::Integer, 25000, 100000),
    source("lz", Kind::Integer, 5, 20),
    source("memcpy", Kind::Memory, 30000, 120000),
    source("strings", Kind::Memory, 150, 600),
    source("format", Kind::Memory, 600, 2400),
    source("chase", Kind::Memory, 400000, 1600000),
    source("list", Kind::Memory, 15, 60),
    source("statemachine", Kind::Branches, 20, 80),
    source("bsearch", Kind::Branches, 25000, 100000),
    source("fib", Kind::Calls, 300, 1200),
    source("virtual", Kind::Calls, 2000, 8000),
    source("mutual", Kind::Calls, 2500, 10000),
    source("nbody", Kind::Float, 2500, 10000),
    source("mandelbrot", Kind::Float, 128, 512),
    source("spectral", Kind::Float, 30, 120),
    source("fft", Kind::Float, 100, 400),
    source("simd_int", Kind::Simd, 500, 2000),
    source("simd_float", Kind::Simd, 400, 1600),
    source("x87", Kind::X87, 150000, 600000),
    source("atomic1", Kind::Atomics, 50000, 200000),
    source("atomic2", Kind::Atomics, 50000, 200000),
    source("ordering2", Kind::Atomics, 200, 800),
    source("mutex", Kind::Atomics, 30000, 120000),
    source("syscalls", Kind::Kernel, 20000, 80000),
    source("signals", Kind::Kernel, 2000, 8000),
    source("jit", Kind::Code, 300, 1200),
    source("throw", Kind::Code, 30, 120),
    tool("bzip2", "usr/bin/bzip2", &["-c", "{F}"], 50_000, 200_000),
    tool("bunzip2", "usr/bin/bzip2", &["-dc", "{F.bz2}"], 100_000, 400_000),
    tool("pbunzip2", "usr/bin/pbzip2", &["-dc", "-p2", "{F.bz2}"], 100_000, 400_000),
    tool("gzip", "usr/bin/gzip", &["-nc", "{F}"], 100_000, 400_000),
    tool("gunzip", "usr/bin/gzip", &["-dc", "{F.gz}"], 500_000, 2_000_000),
    tool("xz", "usr/bin/xz", &["-c", "-T1", "-3", "{F}"], 30_000, 120_000),
    tool("unxz", "usr/bin/xz", &["-dc", "{F.xz}"], 200_000, 800_000),
    tool("zstd", "usr/bin/zstd", &["-qc", "--single-thread", "-3", "{F}"], 300_000, 1_200_000),
    tool("sha256sum", "usr/bin/sha256sum", &["{F}"], 300_000, 1_200_000),
    tool("openssl", "usr/bin/openssl", &["dgst", "-sha512", "-r", "{F}"], 500_000, 2_000_000),
    tool("sort-tool", "usr/bin/sort", &["{F}"], 50_000, 200_000),
    tool("grep", "usr/bin/grep", &["-cE", "(sub|def) [a-z_]+\\(", "{F}"], 500_000, 2_000_000),
    tool("sed", "usr/bin/sed", &["-n", "s/\\([a-z]*\\)_\\([a-z]*\\)/\\2-\\1/p", "{F}"], 50_000, 200_000),
    tool(
        "awk",
        "usr/bin/mawk",
        &["{ n += NF; c[$1]++ } END { for (k in c) m += c[k]; print n, m }", "{F}"],
        200_000,
        800_000,
    ),
    tool("factor", "usr/bin/factor", &["{N}"], 1_000_000_016_000_000_063, 18_446_743_979_220_271_189),
    tool(
        "perl",
        "usr/bin/perl",
        &[
            "-e",
            "my ($s, %h) = (0); for my $i (1 .. {N}) { $h{$i % 97} .= chr(65 + $i % 26); $s += length($h{$i % 89} // '') * $i } print \"$s\\n\";",
        ],
        5_000,
        20_000,
    ),
    tool(
        "python3",
        "usr/bin/python3",
        &[
            "-S",
            "-c",
            "s = 0; d = {}\nfor i in range({N}):\n    d[i % 97] = d.get(i % 89, 0) + i\n    s += d[i % 97] ^ i\nprint(s)",
        ],
        5_000,
        20_000,
    ),
    tool(
        "lua",
        "usr/bin/lua5.4",
        &[
            "-e",
            "local s, t = 0, {} for i = 1, {N} do t[i % 97] = (t[i % 89] or 0) + i; s = s ~ t[i % 97] end print(s)",
        ],
        30_000,
        120_000,
    ),
    tool(
        "sqlite3",
        "usr/bin/sqlite3",
        &[
            ":memory:",
            "with recursive n(i) as (values(1) union all select i + 1 from n where i < {N}) select sum(i * 7 % 13), count(distinct i % 101) from n;",
        ],
        1_000,
        4_000,
    ),
];
