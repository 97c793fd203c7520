//! What the host CPU can do, as a value passed in. Probing is the runtime's business; here it is only named, so that any
//! machine can translate for any other.

/// AArch64 features that change which instructions are emitted (Arm ARM, A2.3 onwards; the HWCAP names).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HostFeatures {
    /// LDADD, SWP, CAS and the like (v8.1).
    pub lse: bool,
    /// LDAPR (v8.3).
    pub lrcpc: bool,
    /// LDAPUR, STLUR with an offset (v8.4).
    pub lrcpc2: bool,
    /// Unaligned ordered accesses inside 16 bytes do not fault; LDP/STP of 16 aligned bytes are atomic (v8.4).
    pub lse2: bool,
    /// CFINV, RMIF, SETF8, SETF16 (v8.4).
    pub flagm: bool,
    /// AXFLAG, XAFLAG (v8.5).
    pub flagm2: bool,
    /// FPCR.NEP, AH (v8.7).
    pub afp: bool,
    /// FRINT32Z and the like (v8.5).
    pub frint: bool,
    pub crc32: bool,
    pub aes: bool,
    pub pmull: bool,
    pub sha2: bool,
    /// The time-stamp counter is CNTVCT_EL0 shifted left by this.
    pub tsc_shift: u8,
}

impl HostFeatures {
    /// Armv8.0 with CRC32 and crypto: Cortex-A72.
    pub const V8_0: HostFeatures = HostFeatures {
        lse: false,
        lrcpc: false,
        lrcpc2: false,
        lse2: false,
        flagm: false,
        flagm2: false,
        afp: false,
        frint: false,
        crc32: true,
        aes: true,
        pmull: true,
        sha2: true,
        tsc_shift: 0,
    };
    /// Armv8.2 with LRCPC: Neoverse N1.
    pub const V8_2: HostFeatures = HostFeatures { lse: true, lrcpc: true, ..Self::V8_0 };
    /// Armv8.4: Neoverse V1.
    pub const V8_4: HostFeatures = HostFeatures { lrcpc2: true, lse2: true, flagm: true, ..Self::V8_2 };
    /// All that is known here.
    pub const MAX: HostFeatures = HostFeatures { flagm2: true, afp: true, frint: true, ..Self::V8_4 };

    /// The four sets every test runs on, with their names.
    pub const ALL: [(&'static str, HostFeatures); 4] =
        [("v8.0", Self::V8_0), ("v8.2", Self::V8_2), ("v8.4", Self::V8_4), ("max", Self::MAX)];
}

/// Bits of AT_HWCAP and AT_HWCAP2 on AArch64 Linux (kernel, `Documentation/arch/arm64/elf_hwcaps.rst`).
mod hwcap {
    pub const AES: u64 = 1 << 3;
    pub const PMULL: u64 = 1 << 4;
    pub const SHA2: u64 = 1 << 6;
    pub const CRC32: u64 = 1 << 7;
    pub const ATOMICS: u64 = 1 << 8;
    pub const LRCPC: u64 = 1 << 15;
    pub const USCAT: u64 = 1 << 25;
    pub const ILRCPC: u64 = 1 << 26;
    pub const FLAGM: u64 = 1 << 27;
    pub const FLAGM2: u64 = 1 << 7;
    pub const FRINT: u64 = 1 << 8;
    pub const AFP: u64 = 1 << 20;
}

impl HostFeatures {
    /// The features the kernel reports in the auxiliary vector.
    pub fn from_hwcap(hwcap: u64, hwcap2: u64) -> HostFeatures {
        let has = |bit| hwcap & bit != 0;
        let has2 = |bit| hwcap2 & bit != 0;
        HostFeatures {
            lse: has(hwcap::ATOMICS),
            lrcpc: has(hwcap::LRCPC),
            lrcpc2: has(hwcap::ILRCPC),
            lse2: has(hwcap::USCAT),
            flagm: has(hwcap::FLAGM),
            flagm2: has2(hwcap::FLAGM2),
            afp: has2(hwcap::AFP),
            frint: has2(hwcap::FRINT),
            crc32: has(hwcap::CRC32),
            aes: has(hwcap::AES),
            pmull: has(hwcap::PMULL),
            sha2: has(hwcap::SHA2),
            tsc_shift: 0,
        }
    }

    /// With the time-stamp counter scaled up from the host counter's `hz` to at least 1 GHz, the order of what x86 programs expect.
    pub fn with_counter(self, hz: u64) -> HostFeatures {
        let mut tsc_shift = 0;
        while hz != 0 && hz << tsc_shift < 1_000_000_000 && tsc_shift < 16 {
            tsc_shift += 1;
        }
        HostFeatures { tsc_shift, ..self }
    }
}
