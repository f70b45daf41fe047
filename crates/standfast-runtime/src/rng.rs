/// A source of chance that repeats from its seed (wyrand, as `fastrand` implements it).
///
/// It decides timing and targets; it is not for secrets.
#[derive(Debug, Clone)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// The sequence of this seed.
    pub fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A sequence that differs from process to process.
    pub fn from_entropy() -> Self {
        Self(fastrand::Rng::new())
    }

    /// A sequence of its own for a part, so that how often one part asks does not change what another gets.
    #[must_use]
    pub fn fork(&mut self, part: &str) -> Self {
        let salt = part.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::seeded(self.0.u64(..) ^ salt)
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.0.usize(..bound) }
    }

    /// A number from 0 up to but not including 1.
    pub fn fraction(&mut self) -> f64 {
        self.0.f64()
    }

    /// The time to the next arrival of a Poisson process, in units of its mean.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.0.f64()).ln()
    }

    /// One of `items`; `None` when there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_forks_are_independent() {
        let run = |asked: usize| {
            let mut root = Rng::seeded(7);
            let (mut a, mut b) = (root.fork("a"), root.fork("b"));
            (0..asked).for_each(|_| assert_ne!(a.bits(), a.bits()));
            b.bits()
        };
        assert_eq!(run(0), run(100));
        let mean = {
            let mut r = Rng::seeded(1);
            (0..20_000).map(|_| r.exponential()).sum::<f64>() / 20_000.0
        };
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
    }
}
