//! What the allocator of the system is asked for.

/// Has free memory given back to the system. May take some milliseconds for each hundred megabytes.
///
/// The allocator of glibc keeps what was freed behind the last piece that is in use, in every arena, so a
/// burst that is over would count as memory of the process for good.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no crate wraps `malloc_trim`; the only unsafe code of the program")]
pub(crate) fn give_back() {
    // SAFETY: it takes a number, and touches nothing but free memory of the allocator, under its locks.
    unsafe { libc::malloc_trim(0) };
}

/// Has free memory given back to the system: other allocators do so by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) const fn give_back() {}
