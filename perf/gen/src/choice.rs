//! Which context the next frame belongs to.

/// A generator of numbers that look random (xorshift64*), the same in each run.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed; zero is taken for another.
    pub fn new(seed: u64) -> Random {
        Random(if seed == 0 { 1 } else { seed })
    }

    fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        // The upper half of the product with the bound is even enough and needs no division.
        (((self.word() >> 32) * u64::from(bound)) >> 32) as u32
    }

    fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How contexts are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    /// Each as likely as any other.
    Uniform,
    /// The n-th most popular is 1/nˢ as likely as the first.
    Zipf(f64),
    /// All in turn.
    Turns,
}

impl Law {
    /// `uniform`, `turns`, `zipf` (an exponent of one), or `zipf:EXPONENT`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Law, String> {
        match (text, text.strip_prefix("zipf:").map(str::parse::<f64>)) {
            ("uniform", _) => Ok(Law::Uniform),
            ("turns", _) => Ok(Law::Turns),
            ("zipf", _) => Ok(Law::Zipf(1.0)),
            (_, Some(Ok(exponent))) if exponent > 0.0 && exponent.is_finite() => Ok(Law::Zipf(exponent)),
            _ => Err(format!("{text} is none of uniform, turns, zipf, zipf:EXPONENT")),
        }
    }
}

/// Chooses contexts.
#[derive(Clone, Debug)]
pub struct Choice {
    bound: u32,
    random: Random,
    /// Drawn beforehand where drawing is slow, or in turn.
    drawn: Vec<u32>,
    turn: usize,
    law: Law,
}

/// Draws made beforehand.
const DRAWS: usize = 1 << 20;

impl Choice {
    /// Of `contexts` contexts.
    pub fn new(law: Law, contexts: u32, seed: u64) -> Choice {
        let mut random = Random::new(seed);
        let drawn = match law {
            Law::Uniform => Vec::new(),
            Law::Turns => permutation(contexts, &mut random),
            Law::Zipf(exponent) => {
                // Popular contexts are neighbours in nothing.
                let names = permutation(contexts, &mut Random::new(1));
                let zipf = Zipf::new(contexts, exponent);
                (0..DRAWS).map(|_| names[zipf.draw(&mut random) as usize]).collect()
            }
        };
        Choice { bound: contexts, random, drawn, turn: 0, law }
    }

    /// The next one.
    #[inline]
    pub fn draw(&mut self) -> u32 {
        if self.law == Law::Uniform {
            return self.random.below(self.bound);
        }
        let drawn = self.drawn.get(self.turn).copied().unwrap_or_default();
        self.turn += 1;
        if self.turn == self.drawn.len() {
            self.turn = 0;
        }
        drawn
    }
}

/// The numbers below `count` in an order that looks random.
pub fn permutation(count: u32, random: &mut Random) -> Vec<u32> {
    let mut all: Vec<u32> = (0..count).collect();
    for at in (1..all.len()).rev() {
        all.swap(at, random.below(at as u32 + 1) as usize);
    }
    all
}

/// Zipf's law by rejection and inversion (Hörmann and Derflinger 1996): no table, whatever the number of contexts.
struct Zipf {
    exponent: f64,
    low: f64,
    high: f64,
    most: f64,
}

impl Zipf {
    fn new(count: u32, exponent: f64) -> Zipf {
        let most = f64::from(count);
        let mut zipf = Zipf { exponent, low: 0.0, high: 0.0, most };
        (zipf.low, zipf.high) = (zipf.integral(1.5) - 1.0, zipf.integral(most + 0.5));
        zipf
    }

    /// The area under 1/xˢ, up to a constant.
    fn integral(&self, x: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { x.ln() } else { (x.powf(power) - 1.0) / power }
    }

    fn inverse(&self, area: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { area.exp() } else { (1.0 + area * power).powf(1.0 / power) }
    }

    /// A rank, counted from zero.
    fn draw(&self, random: &mut Random) -> u32 {
        loop {
            let area = self.high + random.unit() * (self.low - self.high);
            let rank = self.inverse(area).round().clamp(1.0, self.most);
            if area >= self.integral(rank + 0.5) - rank.powf(-self.exponent) {
                return rank as u32 - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_has_each_number_once() {
        let mut all = permutation(1000, &mut Random::new(3));
        assert!(all.iter().zip(0..).filter(|(drawn, at)| **drawn == *at).count() < 20);
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..1000));
    }

    #[test]
    fn zipf_draws_each_rank_as_often_as_the_law_says() {
        for exponent in [0.7, 1.0, 1.3] {
            let (zipf, mut random) = (Zipf::new(100, exponent), Random::new(9));
            let mut seen = [0u32; 100];
            for _ in 0..400_000 {
                seen[zipf.draw(&mut random) as usize] += 1;
            }
            let whole: f64 = (1..=100).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for rank in [1, 2, 5, 20, 100] {
                let expected = 400_000.0 * f64::from(rank).powf(-exponent) / whole;
                let found = f64::from(seen[rank as usize - 1]);
                assert!((found - expected).abs() < 6.0 * expected.sqrt(), "{exponent}, {rank}: {found} of {expected}");
            }
        }
    }

    #[test]
    fn uniform_draws_reach_everything_and_nothing_else() {
        let mut choice = Choice::new(Law::Uniform, 50, 4);
        let mut seen = [0; 50];
        for _ in 0..5000 {
            seen[choice.draw() as usize] += 1;
        }
        assert!(seen.iter().all(|&times| (50..200).contains(&times)), "{seen:?}");
    }

    #[test]
    fn laws_are_told_or_refused() {
        assert_eq!(Law::parse("zipf:0.9"), Ok(Law::Zipf(0.9)));
        assert!(Law::parse("zipf:-1").is_err() && Law::parse("even").is_err());
    }
}
