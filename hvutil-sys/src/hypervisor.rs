//! Which hypervisor this machine runs under, by its own word.

/// The name that the hypervisor gives itself (CPUID leaf 0x4000_0000): `Microsoft Hv`, `KVMKVMKVM`, `VMwareVMware`. `None` on bare metal, and on
/// processors other than x86-64.
#[must_use]
pub fn name() -> Option<String> {
    signature().map(|bytes| {
        let text: Vec<u8> = bytes
            .into_iter()
            .filter(|byte| byte.is_ascii_graphic() || *byte == b' ')
            .collect();
        String::from_utf8_lossy(&text).trim().to_owned()
    })
}

#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "newer compilers call CPUID safe")]
fn signature() -> Option<Vec<u8>> {
    use std::arch::x86_64::__cpuid;
    /// A bit of leaf 1, ECX that processors leave clear and hypervisors set.
    const HYPERVISOR: u32 = 1 << 31;
    // SAFETY: every x86-64 processor has CPUID and leaf 1; it reads no memory.
    let basic = unsafe { __cpuid(1) };
    if basic.ecx & HYPERVISOR == 0 {
        return None;
    }
    // SAFETY: as above; a hypervisor that sets the bit answers this leaf, and any other answer is harmless.
    let leaf = unsafe { __cpuid(0x4000_0000) };
    let words = [leaf.ebx, leaf.ecx, leaf.edx];
    Some(words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

#[cfg(not(target_arch = "x86_64"))]
fn signature() -> Option<Vec<u8>> {
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_name_agrees_with_what_the_kernel_has_seen() {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let is_guest = flags
            .lines()
            .filter(|line| line.starts_with("flags"))
            .any(|line| line.split_whitespace().any(|flag| flag == "hypervisor"));
        assert_eq!(
            super::name().is_some(),
            is_guest && cfg!(target_arch = "x86_64")
        );
        if let Some(name) = super::name() {
            assert!(
                !name.is_empty() && !name.contains(char::is_control),
                "{name:?}"
            );
        }
    }
}
