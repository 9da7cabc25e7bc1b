//! Numbers that look random and are the same on every replica.
//!
//! Relies on nothing. Promises that a seed fixes every draw for ever: the generator is part of what
//! replicas agree on and is never changed. Knows not where the seed comes from. Whoever reads the log
//! can compute the draws, so secrets must not be made of them.

/// The generator xoshiro256**, by Blackman and Vigna, seeded through their SplitMix64.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

/// One step of SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Random {
    /// A generator; every word of the seed matters.
    #[must_use]
    pub fn from_seed(seed: &[u64]) -> Self {
        let mut mix = 0;
        for word in seed {
            mix = split_mix(&mut mix) ^ word;
        }
        // SplitMix64 never repeats a word within its period, so the state is not the forbidden zero.
        Self { state: std::array::from_fn(|_| split_mix(&mut mix)) }
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let drawn = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        drawn
    }

    /// A number below `bound`, each as likely as the others; 0 when there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        // Lemire's method: the upper half of a product, redrawn where it would favour small numbers.
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// One of the items, if there are any.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_never_change() {
        // A change here would make replicas of different builds disagree.
        let mut random = Random::from_seed(&[1, 2, 3]);
        let drawn: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(drawn, [17_548_968_075_976_109_068, 1_391_377_774_211_083_746, 3_700_759_225_267_787_947]);
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // The first outputs of the reference implementation from the state 1, 2, 3, 4.
        let mut random = Random { state: [1, 2, 3, 4] };
        let drawn: Vec<u64> = (0..4).map(|_| random.next_u64()).collect();
        assert_eq!(drawn, [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn every_word_of_the_seed_matters() {
        let first = |seed: &[u64]| Random::from_seed(seed).next_u64();
        let draws = [first(&[]), first(&[0]), first(&[1, 0]), first(&[0, 1]), first(&[0, 0]), first(&[1, 1])];
        for (place, draw) in draws.iter().enumerate() {
            assert!(!draws[..place].contains(draw), "draw {place} repeats");
        }
    }

    #[test]
    fn bounded_draws_stay_below_and_reach_everything() {
        let mut random = Random::from_seed(&[7]);
        let mut seen = [0u32; 5];
        for _ in 0..1_000 {
            seen[random.below(5) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (140..260).contains(count)), "{seen:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
        assert_eq!(random.choose::<u8>(&[]), None);
    }
}
