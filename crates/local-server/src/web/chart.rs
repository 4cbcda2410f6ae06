//! Scalars as line charts in SVG: one chart for each metric, one line for each of its variants. Pure.
//!
//! Lines differ by dashes as well as by colour, and every line's last value stands beside its name.

use maud::{Markup, html};
use serde_json::Value;

/// Charts on one page, and lines in one chart; the rest is counted.
const MOST_CHARTS: usize = 60;
const MOST_LINES: usize = 8;
/// Up to this many points each is marked, so that it can be seen where they are.
const MARKED_POINTS: usize = 25;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 22.0;

struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

/// Smallest and largest value, apart even when there is only one.
#[derive(Clone, Copy)]
struct Range {
    low: f64,
    high: f64,
}

impl Range {
    /// `margin` is what a single value gets on both sides.
    fn of(values: impl Iterator<Item = f64>, margin: fn(f64) -> f64) -> Option<Self> {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > high {
            return None;
        }
        if low == high {
            return Some(Self {
                low: low - margin(low),
                high: high + margin(high),
            });
        }
        Some(Self { low, high })
    }

    /// Where a value lies between 0 and 1. Halved, so that the largest range does not overflow.
    fn part(self, value: f64) -> f64 {
        (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0)
    }
}

/// All charts of a reply of `events.scalar_metrics_iter_histogram`; nothing when there are none.
pub(super) fn section(metrics: &Value) -> Markup {
    let mut metrics: Vec<_> = metrics.as_object().into_iter().flatten().collect();
    if metrics.is_empty() {
        return html! {};
    }
    // What the SDK measures of the machine comes after what the code reports.
    metrics.sort_by_key(|(name, _)| name.starts_with(':'));
    html! {
        section aria-labelledby="scalars-title" {
            h2 #scalars-title { "Scalars" }
            div.charts {
                @for (name, variants) in metrics.iter().take(MOST_CHARTS) { (chart(name, variants)) }
            }
            @if metrics.len() > MOST_CHARTS {
                p.hint { (metrics.len() - MOST_CHARTS) " more metrics are not shown." }
            }
        }
    }
}

fn chart(name: &str, variants: &Value) -> Markup {
    let all: Vec<Line<'_>> = variants
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, curve)| line(name, curve))
        .collect();
    let lines = &all[..all.len().min(MOST_LINES)];
    let points = || lines.iter().flat_map(|line| &line.points);
    let iterations = Range::of(points().map(|point| point.0), |_| 1.0);
    let tenth = |value: f64| if value == 0.0 { 1.0 } else { value.abs() * 0.1 };
    let ranges = iterations.zip(Range::of(points().map(|point| point.1), tenth));
    html! {
        figure {
            figcaption { (name) }
            @if let Some((x, y)) = ranges { (drawing(name, lines, x, y)) }
            ul.legend {
                @for (index, line) in lines.iter().enumerate() {
                    li {
                        svg.sample viewBox="0 0 24 8" aria-hidden="true" {
                            line class={ "line-" (index) } x1="0" y1="4" x2="24" y2="4" {}
                        }
                        (line.name) ": " (line.points.last().map_or_else(|| "–".to_owned(), |last| number(last.1)))
                    }
                }
            }
            @if all.len() > lines.len() { p.hint { (all.len() - lines.len()) " more lines are not shown." } }
        }
    }
}

fn line<'a>(name: &'a str, curve: &Value) -> Line<'a> {
    let values = |axis: &str| curve[axis].as_array().cloned().unwrap_or_default();
    let points = values("x")
        .iter()
        .zip(values("y").iter())
        .filter_map(|(x, y)| Some((x.as_f64()?, y.as_f64()?)))
        .filter(|(x, y)| x.is_finite() && y.is_finite())
        .collect();
    Line { name, points }
}

fn drawing(name: &str, lines: &[Line<'_>], x: Range, y: Range) -> Markup {
    let across = |value: f64| LEFT + x.part(value) * (WIDTH - LEFT - RIGHT);
    let down = |value: f64| HEIGHT - BOTTOM - y.part(value) * (HEIGHT - TOP - BOTTOM);
    let middle = y.low / 2.0 + y.high / 2.0;
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ "Line chart of " (name) } {
            @for value in [y.low, middle, y.high] {
                line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(place(down(value))) y2=(place(down(value))) {}
                text x=(LEFT - 6.0) y=(place(down(value) + 4.0)) text-anchor="end" { (number(value)) }
            }
            text x=(LEFT) y=(HEIGHT - 6.0) { (number(x.low)) }
            text x=(WIDTH - RIGHT) y=(HEIGHT - 6.0) text-anchor="end" { (number(x.high)) }
            @for (index, line) in lines.iter().enumerate() {
                polyline class={ "line-" (index) } points=(
                    line.points
                        .iter()
                        .map(|point| format!("{},{}", place(across(point.0)), place(down(point.1))))
                        .collect::<Vec<_>>()
                        .join(" ")
                ) {}
                @if line.points.len() <= MARKED_POINTS {
                    @for point in &line.points {
                        circle class={ "line-" (index) } cx=(place(across(point.0))) cy=(place(down(point.1))) r="2.5" {}
                    }
                }
            }
        }
    }
}

/// A coordinate; a tenth is finer than any screen.
fn place(value: f64) -> String {
    format!("{value:.1}")
}

/// A value in few characters.
fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(0.001..100_000.0).contains(&size) {
        return format!("{value:.2e}");
    }
    let text = if size < 10.0 {
        format!("{value:.4}")
    } else {
        format!("{value:.2}")
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_short() {
        for (value, shown) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (1.0, "1"),
            (-3.25, "-3.25"),
            (1234.567, "1234.57"),
            (99_999.0, "99999"),
            (0.000_012, "1.20e-5"),
            (3e12, "3.00e12"),
        ] {
            assert_eq!(number(value), shown);
        }
    }

    #[test]
    fn strange_values_are_drawn_inside_the_chart_or_left_out() {
        let metrics = json!({
            "<b>loss</b>": {"one": {"x": [3], "y": [0.0]}},
            "huge": {"a": {"x": [-9e18, 9e18], "y": [-1.7e308, 1.7e308]}, "b": {"x": [0, 1], "y": [null, 5]}},
            "none": {"a": {"x": [], "y": []}},
        });
        let shown = section(&metrics).into_string();
        assert!(!shown.contains("<b>") && shown.contains("&lt;b&gt;"), "{shown}");
        assert!(!shown.contains("NaN") && !shown.contains("inf"), "{shown}");
        assert_eq!(shown.matches("role=\"img\"").count(), 2);
    }
}
