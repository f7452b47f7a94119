//! The stateful fuzz target's body on inputs out of seeds: what coverage finds is `fuzz/`'s affair, that it holds at all is shown
//! here. `PEERLANE_STATEFUL=10000` for more of them.

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use crate::number;

#[path = "../../fuzz/src/stateful.rs"]
mod target;

/// The corpus, too: what it once found isn't back.
#[test]
fn the_corpus_harms_nobody() {
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/stateful")).unwrap() {
        target::stateful(&std::fs::read(file.unwrap().path()).unwrap());
    }
}

#[test]
fn a_client_that_keeps_to_no_rule_harms_no_other() {
    for seed in 0..number("PEERLANE_STATEFUL", 100) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut input = vec![0; rng.random_range(0..600)];
        rng.fill_bytes(&mut input);
        let ran = std::panic::catch_unwind(|| target::stateful(&input));
        assert!(ran.is_ok(), "seed {seed}");
    }
}
