//! How delays scatter: the shapes of iproute2's tables (tc-netem(8), `distribution`), reckoned here.

use std::sync::OnceLock;

/// How delays scatter. What the spread means is the shape's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Distribution {
    /// From delay - spread to delay + spread.
    Uniform,
    /// The spread is the standard deviation; cut off at four of them.
    Normal,
    /// Pareto with an exponent of 3, moved to a mean near 0 and stretched so that its tail begins below the spread; cut
    /// off at four spreads.
    Pareto,
    /// A quarter normal, three quarters Pareto, of the same quantile.
    ParetoNormal,
}

/// Quantiles in a table, as many as netem's have.
const ENTRIES: usize = 16_384;
/// Where netem's 16-bit tables end.
const CUT: f64 = 4.0;
/// Steps of the normal distribution's integral in a standard deviation.
const STEPS: i32 = 2_000;

impl Distribution {
    /// How far from the delay, in spreads, for a number that's uniform from 0 to below 1.
    pub(crate) fn quantile(self, uniform: f64) -> f64 {
        match self {
            Self::Uniform => 2.0 * uniform - 1.0,
            Self::Normal => normal(uniform),
            Self::Pareto => pareto(uniform),
            Self::ParetoNormal => 0.25 * normal(uniform) + 0.75 * pareto(uniform),
        }
    }
}

fn pareto(uniform: f64) -> f64 {
    // (x - 1.5) * 4/3 of x = (1 - u)^(-1/3), whose mean is 1.5.
    let value = (1.0 - uniform).powf(-1.0 / 3.0);
    ((value - 1.5) * 4.0 / 3.0).min(CUT)
}

fn normal(uniform: f64) -> f64 {
    static TABLE: OnceLock<Vec<f64>> = OnceLock::new();
    let table = TABLE.get_or_init(normal_quantiles);
    table.get((uniform * ENTRIES as f64) as usize).copied().unwrap_or_default()
}

/// The middle of each of the table's equal shares, by summing up the density.
fn normal_quantiles() -> Vec<f64> {
    let step = 1.0 / f64::from(STEPS);
    let mut table = Vec::with_capacity(ENTRIES);
    let mut below = 0.0;
    for index in -6 * STEPS..6 * STEPS {
        let middle = (f64::from(index) + 0.5) * step;
        below += (-middle * middle / 2.0).exp() / std::f64::consts::TAU.sqrt() * step;
        while table.len() < ENTRIES && (table.len() as f64 + 0.5) / ENTRIES as f64 <= below {
            table.push(middle.clamp(-CUT, CUT));
        }
    }
    table.resize(ENTRIES, CUT);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and standard deviation.
    fn moments(distribution: Distribution) -> (f64, f64) {
        let values: Vec<f64> = (0..100_000).map(|i| distribution.quantile((f64::from(i) + 0.5) / 1e5)).collect();
        let mean = values.iter().sum::<f64>() / 1e5;
        (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 1e5).sqrt())
    }

    #[test]
    fn the_shapes_are_as_wide_as_they_say() {
        for (distribution, mean, deviation) in [
            (Distribution::Uniform, 0.0, 1.0 / 3f64.sqrt()),
            (Distribution::Normal, 0.0, 1.0),
            // Cut off: the whole one's mean is 0, and its deviation 1.155. What's beyond (4.5 of x) takes 4/3 / (2 * 4.5^2).
            (Distribution::Pareto, -0.033, 0.821),
        ] {
            let (m, d) = moments(distribution);
            assert!((m - mean).abs() < 0.02 && (d - deviation).abs() < 0.03, "{distribution:?}: {m} {d}");
        }
    }

    #[test]
    fn the_quantiles_are_those_of_iproute2s_tables() {
        // normal.dist, pareto.dist and paretonormal.dist of iproute2 6.1, divided by 8192: the 5th, 50th and 95th
        // percentiles.
        for (distribution, expected) in [
            (Distribution::Normal, [-1.645, 0.0, 1.645]),
            (Distribution::Pareto, [-0.644, -0.320, 1.619]),
            (Distribution::ParetoNormal, [-0.894, -0.240, 1.626]),
        ] {
            for (share, expected) in [0.05, 0.5, 0.95].into_iter().zip(expected) {
                let found = distribution.quantile(share);
                assert!((found - expected).abs() < 0.01, "{distribution:?} {share}: {found}, not {expected}");
            }
        }
    }
}
