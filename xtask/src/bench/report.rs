//! Medians, ratios, the printed table and the JSON file.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::terminal::{bold, green, red};
use crate::workbench::AgentKind;

/// One line of the table.
pub(super) struct Figure {
    name: &'static str,
    unit: &'static str,
    most_ratio: f64,
    most: Option<f64>,
    ours: Vec<f64>,
    python: Vec<f64>,
}

impl Figure {
    /// A figure that should be at most `most_ratio` of the Python agent's, and at most `most` in its unit.
    pub(super) fn new(name: &'static str, unit: &'static str, most_ratio: f64, most: Option<f64>) -> Self {
        Self {
            name,
            unit,
            most_ratio,
            most,
            ours: Vec::new(),
            python: Vec::new(),
        }
    }

    /// A figure that is told without being judged.
    pub(super) fn noted(name: &'static str, unit: &'static str) -> Self {
        Self::new(name, unit, f64::INFINITY, None)
    }

    fn is_judged(&self) -> bool {
        self.most_ratio.is_finite() || self.most.is_some()
    }

    /// Whether there is any value.
    pub(super) fn is_measured(&self) -> bool {
        !(self.ours.is_empty() && self.python.is_empty())
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Adds one measured value.
    pub(super) fn add(&mut self, kind: AgentKind, value: f64) {
        match kind {
            AgentKind::Ours => self.ours.push(value),
            AgentKind::Python => self.python.push(value),
        }
    }

    fn ratio(&self) -> Option<f64> {
        (!self.python.is_empty()).then(|| median(&self.ours) / median(&self.python))
    }

    fn reached(&self) -> bool {
        self.ratio().is_none_or(|ratio| ratio <= self.most_ratio)
            && self.most.is_none_or(|most| median(&self.ours) <= most)
    }

    fn json(&self) -> Value {
        let side = |samples: &[f64]| match samples {
            [] => Value::Null,
            _ => json!({"median": median(samples), "samples": samples}),
        };
        json!({
            "figure": self.name, "unit": self.unit, "ours": side(&self.ours), "python": side(&self.python),
            "ratio": self.ratio(), "ratio_at_most": self.most_ratio, "at_most": self.most, "reached": self.reached(),
        })
    }
}

/// The middle value; the mean of the two middle ones for an even number.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Prints the table.
pub(super) fn print(figures: &[Figure]) {
    println!();
    println!(
        "{}",
        bold(&format!(
            "{:<44} {:>12} {:>12} {:>10} {:>10}",
            "median", "this agent", "Python", "ratio", "at most"
        ))
    );
    for figure in figures {
        let show = |value: f64| format!("{value:.4} {}", figure.unit);
        let python = if figure.python.is_empty() {
            "-".to_owned()
        } else {
            show(median(&figure.python))
        };
        let ratio = figure
            .ratio()
            .map_or_else(|| "-".to_owned(), |ratio| format!("1/{:.1}", 1.0 / ratio));
        let most = if figure.most_ratio.is_finite() {
            format!("1/{:.0}", 1.0 / figure.most_ratio)
        } else {
            "-".to_owned()
        };
        let line = format!(
            "{:<44} {:>12} {python:>12} {ratio:>10} {most:>10}",
            figure.name,
            show(median(&figure.ours))
        );
        let verdict = if !figure.is_judged() {
            String::new()
        } else if figure.reached() {
            green("reached")
        } else {
            red("missed")
        };
        println!("{line}  {verdict}");
    }
    println!();
}

/// Writes everything that was measured.
pub(super) fn write(figures: &[Figure], quick: bool, file: &Path) -> Result<()> {
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let document = json!({
        "schema": 1, "quick": quick, "processors": processors, "agent_version": env!("CARGO_PKG_VERSION"),
        "python_agent": super::PYTHON_AGENT, "figures": figures.iter().map(Figure::json).collect::<Vec<_>>(),
    });
    std::fs::write(file, format!("{document:#}\n")).with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_figure_is_reached_by_ratio_and_by_value() {
        let mut figure = Figure::new("x", "s", 0.1, Some(0.5));
        figure.add(AgentKind::Ours, 0.4);
        assert!(figure.reached());
        figure.add(AgentKind::Python, 3.0);
        assert!(!figure.reached());
        figure.add(AgentKind::Python, 30.0);
        assert!(figure.reached());
    }
}
