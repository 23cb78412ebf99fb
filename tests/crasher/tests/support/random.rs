//! Pseudo-random numbers from a seed that is printed, and can be set with CENOTAPH_TEST_SEED.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "for tests")]

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2014).
pub(crate) fn random() -> impl FnMut() -> u64 {
    let seed = std::env::var("CENOTAPH_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(since.subsec_nanos())
    });
    println!("CENOTAPH_TEST_SEED={seed}");
    let mut state = seed.wrapping_mul(2) | 1;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}
