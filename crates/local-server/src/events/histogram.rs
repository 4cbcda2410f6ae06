//! Thinning of a curve to a bounded number of points. Pure.

/// Thins `points`, ordered by x, to at most `samples` points.
///
/// A curve that is short enough is returned as it is, except that points with the same x become their mean.
/// Otherwise the range of x is cut into `samples` equal whole-numbered intervals, counted from the smallest x; each
/// interval that holds points becomes one point: its start, and the mean of its values.
pub(crate) fn sample(points: &[(i64, f64)], samples: usize) -> (Vec<i64>, Vec<f64>) {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return (Vec::new(), Vec::new());
    };
    let samples = samples.max(1);
    let interval = if points.len() <= samples {
        1
    } else {
        let range = i128::from(last.0) - i128::from(first.0) + 1;
        let samples = samples as i128;
        (range + samples - 1) / samples
    };
    let start = i128::from(first.0);
    let (mut xs, mut ys) = (Vec::new(), Vec::new());
    let mut rest = points;
    while let Some(&(x, _)) = rest.first() {
        let bucket = (i128::from(x) - start) / interval;
        let end = rest.partition_point(|&(x, _)| (i128::from(x) - start) / interval <= bucket);
        let (inside, after) = rest.split_at(end);
        // The mean is taken incrementally: the sum of large values could overflow to infinity.
        let mut mean = 0.0;
        for (seen, &(_, y)) in inside.iter().enumerate() {
            mean += (y - mean) / (seen + 1) as f64;
        }
        // A bucket starts at or before one of its points, all of which are 64-bit.
        xs.push(i64::try_from(start + bucket * interval).unwrap_or(x));
        ys.push(mean);
        rest = after;
    }
    (xs, ys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(xs: impl IntoIterator<Item = i64>) -> Vec<(i64, f64)> {
        xs.into_iter().map(|x| (x, x as f64)).collect()
    }

    #[test]
    fn a_short_curve_is_kept() {
        assert_eq!(sample(&line([0, 7, 9]), 3), (vec![0, 7, 9], vec![0.0, 7.0, 9.0]));
        assert_eq!(sample(&[], 3), (vec![], vec![]));
    }

    #[test]
    fn a_long_curve_becomes_means_of_equal_intervals() {
        assert_eq!(sample(&line(0..6), 3), (vec![0, 2, 4], vec![0.5, 2.5, 4.5]));
        assert_eq!(sample(&line(1..8), 1), (vec![1], vec![4.0]));
    }

    #[test]
    fn equal_x_become_their_mean() {
        assert_eq!(
            sample(&[(5, 1.0), (5, 3.0), (6, 4.0)], 10),
            (vec![5, 6], vec![2.0, 4.0])
        );
    }

    #[test]
    fn the_whole_range_of_integers_does_not_overflow() {
        let (xs, _) = sample(&[(i64::MIN, 1.0), (0, 2.0), (i64::MAX, 3.0)], 2);
        assert_eq!(xs, vec![i64::MIN, 0]);
    }

    proptest! {
        #[test]
        fn bounded_ordered_and_within_the_values(
            mut points in prop::collection::vec((any::<i64>(), -1e6..1e6), 1..200),
            samples in 1usize..50,
        ) {
            points.sort_by_key(|p| p.0);
            let (xs, ys) = sample(&points, samples);
            prop_assert_eq!(xs.len(), ys.len());
            prop_assert!(xs.len() <= samples.min(points.len()));
            prop_assert!(xs.windows(2).all(|w| w[0] < w[1]));
            prop_assert_eq!(xs[0], points[0].0);
            let low = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
            let high = points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(ys.iter().all(|y| *y >= low - 1e-6 && *y <= high + 1e-6));
        }
    }
}
