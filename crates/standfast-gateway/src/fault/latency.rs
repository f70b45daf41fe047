//! How long a delay is.

use std::time::Duration;

use standfast_runtime::Rng;

/// The longest delay of one request.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(600);

/// What delays look like. None is longer than its `max`, and none of those longer than ten minutes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// Anything between two times.
    Uniform {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// Around a mean, as jitter is.
    Normal {
        /// The mean.
        mean: Duration,
        /// The standard deviation.
        deviation: Duration,
        /// What is longer is cut to this.
        max: Duration,
    },
    /// Mostly short, at times several times the mean.
    Exponential {
        /// The mean.
        mean: Duration,
        /// What is longer is cut to this.
        max: Duration,
    },
    /// Mostly near the shortest, now and then very long: a heavy tail.
    Pareto {
        /// The shortest.
        min: Duration,
        /// How light the tail is, above 0; below 1 its mean would be without bound but for `max`.
        shape: f64,
        /// What is longer is cut to this.
        max: Duration,
    },
}

impl Latency {
    /// One delay.
    pub(super) fn sample(self, rng: &mut Rng) -> Duration {
        let (seconds, max) = match self {
            Self::Fixed(time) => return time,
            Self::Uniform { min, max } => {
                (min.as_secs_f64() + max.saturating_sub(min).as_secs_f64() * rng.fraction(), max)
            }
            Self::Normal { mean, deviation, max } => {
                (mean.as_secs_f64() + deviation.as_secs_f64() * standard_normal(rng), max)
            }
            Self::Exponential { mean, max } => (mean.as_secs_f64() * rng.exponential(), max),
            // By inversion: 1 − u is never 0.
            Self::Pareto { min, shape, max } => {
                (min.as_secs_f64() * (1.0 - rng.fraction()).powf(-1.0 / shape), max)
            }
        };
        if seconds < max.as_secs_f64() { Duration::from_secs_f64(seconds.max(0.0)) } else { max }
    }
}

/// Box and Muller, 1958.
fn standard_normal(rng: &mut Rng) -> f64 {
    (2.0 * rng.exponential()).sqrt() * (std::f64::consts::TAU * rng.fraction()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sorted, in milliseconds.
    fn samples(latency: Latency) -> Vec<f64> {
        let mut rng = Rng::seeded(5);
        let mut all: Vec<f64> = (0..20_000).map(|_| latency.sample(&mut rng).as_secs_f64() * 1e3).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < wanted * 0.05, "{found}, not {wanted}");
    }

    #[test]
    fn each_distribution_has_its_middle_its_tail_and_its_cap() {
        let of = |all: &[f64], share: f64| all[(all.len() as f64 * share) as usize];
        let uniform = samples(Latency::Uniform { min: 100 * MS, max: 300 * MS });
        near(of(&uniform, 0.5), 200.0);
        assert!(uniform[0] >= 100.0 && uniform.last().unwrap() <= &300.0);
        let normal = samples(Latency::Normal { mean: 100 * MS, deviation: 20 * MS, max: 130 * MS });
        near(of(&normal, 0.5), 100.0);
        near(of(&normal, 0.159), 80.0);
        assert_eq!(normal.last().unwrap(), &130.0);
        let exponential = samples(Latency::Exponential { mean: 100 * MS, max: 2_000 * MS });
        near(of(&exponential, 0.5), 69.3);
        near(of(&exponential, 0.9), 230.3);
        let pareto = samples(Latency::Pareto { min: 10 * MS, shape: 1.0, max: 500 * MS });
        near(of(&pareto, 0.5), 20.0);
        near(of(&pareto, 0.9), 100.0);
        assert!(pareto[0] >= 10.0);
        assert_eq!(pareto.last().unwrap(), &500.0);
    }

    #[test]
    fn no_delay_is_negative_or_without_end() {
        let wild = Latency::Normal { mean: MS, deviation: 1_000 * MS, max: 5 * MS };
        assert!(samples(wild).iter().all(|millis| (0.0..=5.0).contains(millis)));
        let heavy = Latency::Pareto { min: MS, shape: 1e-9, max: 7 * MS };
        assert!(samples(heavy).iter().all(|millis| (0.0..=7.0).contains(millis)));
    }
}
