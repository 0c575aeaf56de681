//! Host time: how much longer a mode takes than native, by runs in pairs.
//!
//! A machine's clock under an emulator is the host's. One run says little: others use the host too. So the modes run in
//! turns, each pair gives a ratio, and the report has their geometric mean with the interval in which it lies with 95 %
//! confidence (Student's t of the logarithms).

use serde::Serialize;

/// A ratio of times.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub(super) struct Ratio {
    pub(super) mean: f64,
    /// The interval's ends.
    pub(super) low: f64,
    pub(super) high: f64,
    /// How many pairs.
    pub(super) pairs: usize,
}

/// Two-sided 95 % quantiles of Student's t, for 1 to 30 degrees of freedom.
const QUANTILES: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

impl Ratio {
    /// The ratio of pairs (native, mode); `None` for fewer than two.
    pub(super) fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        if pairs.len() < 2 || pairs.iter().any(|(native, mode)| *native <= 0.0 || *mode <= 0.0) {
            return None;
        }
        let count = pairs.len() as f64;
        let logarithms: Vec<f64> = pairs.iter().map(|(native, mode)| (mode / native).ln()).collect();
        let mean = logarithms.iter().sum::<f64>() / count;
        let variance = logarithms.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let quantile = QUANTILES.get(pairs.len() - 2).copied().unwrap_or(1.96);
        let half = quantile * (variance / count).sqrt();
        Some(Self { mean: mean.exp(), low: (mean - half).exp(), high: (mean + half).exp(), pairs: pairs.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pairs_have_an_interval_without_width() {
        let ratio = Ratio::of(&[(2.0, 6.0); 10]).expect("a ratio");
        assert!((ratio.mean - 3.0).abs() < 1e-9 && (ratio.high - ratio.low).abs() < 1e-9);
        assert_eq!(ratio.pairs, 10);
    }

    #[test]
    fn the_interval_holds_the_mean_and_widens_with_the_spread() {
        let narrow = Ratio::of(&[(1.0, 2.0), (1.0, 2.1), (1.0, 1.9)]).expect("a ratio");
        let wide = Ratio::of(&[(1.0, 1.0), (1.0, 4.0), (1.0, 2.0)]).expect("a ratio");
        assert!(narrow.low < narrow.mean && narrow.mean < narrow.high);
        assert!(wide.high - wide.low > narrow.high - narrow.low);
    }

    #[test]
    fn one_pair_is_no_ratio() {
        assert_eq!(Ratio::of(&[(1.0, 2.0)]), None);
    }
}
