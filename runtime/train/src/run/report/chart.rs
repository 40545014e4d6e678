//! Plots as SVG text, and the same numbers as JSON for the script that shows them under the pointer.

use std::fmt::Write;

use serde::Serialize;

use super::facts::wilson_interval;
use crate::run::metrics::MetricSet;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;
/// Points beyond this are thinned out evenly: the eye sees no difference, and files stay small.
const POINTS_MAX: usize = 1500;
/// Share of the new value in the moving average.
const SMOOTHING: f64 = 0.15;

/// One curve.
#[derive(Clone, Debug)]
pub struct Series {
    pub label: String,
    /// Step and value.
    points: Vec<(f64, f64)>,
    /// Lower and upper bound at each point; empty without.
    band: Vec<(f64, f64)>,
    /// Marks at the points, for the few points of evaluations.
    dots: bool,
}

impl Series {
    /// A metric over the steps.
    pub fn line(label: &str, metric: &str, metrics: &[MetricSet]) -> Self {
        let all: Vec<(f64, f64)> = metrics.iter().filter_map(|set| Some((set.step as f64, set.get(metric)?))).collect();
        let stride = all.len().div_ceil(POINTS_MAX).max(1);
        Series { label: label.to_owned(), points: all.into_iter().step_by(stride).collect(), band: Vec::new(), dots: false }
    }

    /// Accuracy with its interval.
    pub fn accuracy(metrics: &[MetricSet]) -> Self {
        let mut series = Series { dots: true, ..Self::line("accuracy", "", metrics) };
        for set in metrics {
            let (Some(accuracy), Some(n)) = (set.get("eval/accuracy"), set.get("eval/n")) else { continue };
            series.points.push((set.step as f64, accuracy));
            series.band.push(wilson_interval(accuracy * n, n));
        }
        series
    }
}

/// Some curves over the steps.
#[derive(Clone, Debug)]
pub struct Chart {
    title: &'static str,
    note: &'static str,
    pub series: Vec<Series>,
    smoothed: bool,
    from_zero: bool,
    stacked: bool,
}

/// A chart as the template takes it.
#[derive(Serialize)]
pub struct Rendered {
    title: &'static str,
    note: &'static str,
    /// Labels of the legend; empty for one curve, which the title names.
    legend: Vec<String>,
    svg: String,
    data: Data,
}

/// What the script needs.
#[derive(Serialize)]
struct Data {
    x: Vec<f64>,
    /// Place of each step across the plot, 0 to `WIDTH`.
    px: Vec<f64>,
    series: Vec<DataSeries>,
}

#[derive(Serialize)]
struct DataSeries {
    label: String,
    y: Vec<Option<f64>>,
}

impl Chart {
    pub fn new(title: &'static str, note: &'static str, series: Vec<Series>) -> Self {
        Chart { title, note, series, smoothed: false, from_zero: false, stacked: false }
    }

    /// Draws a moving average over the pale curve.
    pub fn smoothed(self) -> Self {
        Chart { smoothed: true, ..self }
    }

    /// Starts the axis at 0.
    pub fn starting_at_zero(self) -> Self {
        Chart { from_zero: true, ..self }
    }

    /// Draws areas on top of each other.
    pub fn stacked(self) -> Self {
        Chart { stacked: true, from_zero: true, ..self }
    }

    /// Leaves out curves without points, and a shaped reward that is the raw one.
    pub fn without_empty_series(mut self) -> Self {
        self.series.retain(|series| !series.points.is_empty());
        let mut kept: Vec<Series> = Vec::new();
        for series in self.series {
            if self.stacked || kept.iter().all(|have| have.points != series.points) {
                kept.push(series);
            }
        }
        Chart { series: kept, ..self }
    }

    pub fn render(&self) -> Rendered {
        let mut steps: Vec<f64> = self.series.iter().flat_map(|series| series.points.iter().map(|(x, _)| *x)).collect();
        steps.sort_by(f64::total_cmp);
        steps.dedup();
        let drawn = self.drawn(&steps);
        let scale = self.scale(&steps, &drawn);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", self.title);
        scale.draw_axes(&mut svg);
        for (i, series) in drawn.iter().enumerate() {
            let color = i % 6 + 1;
            if self.stacked {
                let below = i.checked_sub(1).map(|below| &drawn[below].points);
                area(&mut svg, color, &scale, &series.points, |j| below.map_or(0.0, |points| points[j].1));
                continue;
            }
            if !series.band.is_empty() {
                let upper: Vec<(f64, f64)> =
                    series.points.iter().zip(&series.band).map(|((x, _), (_, high))| (*x, *high)).collect();
                area(&mut svg, color, &scale, &upper, |j| series.band[j].0);
            }
            let smooth = self.smoothed && series.points.len() > 20;
            curve(&mut svg, color, if smooth { "raw" } else { "line" }, &scale, &series.points);
            if smooth {
                curve(&mut svg, color, "line", &scale, &moving_average(&series.points));
            }
            if series.dots || series.points.len() == 1 {
                for (x, y) in &series.points {
                    let _ =
                        write!(svg, "<circle class=\"c{color}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", scale.x(*x), scale.y(*y));
                }
            }
        }
        svg.push_str("</svg>");
        let legend =
            if self.series.len() > 1 { self.series.iter().map(|series| series.label.clone()).collect() } else { Vec::new() };
        let series =
            self.series.iter().map(|series| DataSeries { label: series.label.clone(), y: align(&series.points, &steps) });
        let px = steps.iter().map(|x| (scale.x(*x) * 10.0).round() / 10.0).collect();
        Rendered { title: self.title, note: self.note, legend, svg, data: Data { px, series: series.collect(), x: steps } }
    }

    /// The curves as they are drawn: stacked ones are sums of those below, with a value at each step.
    fn drawn(&self, steps: &[f64]) -> Vec<Series> {
        if !self.stacked {
            return self.series.clone();
        }
        let mut base = vec![0.0; steps.len()];
        let stack = |series: &Series| {
            base.iter_mut().zip(align(&series.points, steps)).for_each(|(sum, value)| *sum += value.unwrap_or(0.0));
            Series { points: steps.iter().copied().zip(base.iter().copied()).collect(), ..series.clone() }
        };
        self.series.iter().map(stack).collect()
    }

    fn scale(&self, steps: &[f64], drawn: &[Series]) -> Scale {
        let values = drawn.iter().flat_map(|series| series.points.iter().map(|(_, y)| *y));
        let bounds = drawn.iter().flat_map(|series| series.band.iter().flat_map(|(low, high)| [*low, *high]));
        let (mut low, mut high) =
            values.chain(bounds).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
        if self.from_zero {
            low = low.min(0.0);
        }
        if high - low < 1e-12 {
            let room = if high == 0.0 { 1.0 } else { high.abs() * 0.1 };
            (low, high) = (if self.from_zero { low } else { low - room }, high + room);
        }
        let step = nice_step(high - low, 5);
        // Rounding noise below 0 (a loss of -1e-5) is not worth a tick of its own.
        if low < 0.0 && -low < step * 0.05 {
            low = 0.0;
        }
        let (first, last) = (steps.first().copied().unwrap_or(0.0), steps.last().copied().unwrap_or(1.0));
        Scale { first, last: last.max(first + 1.0), low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }
}

/// From data to the plot's coordinates.
struct Scale {
    first: f64,
    last: f64,
    low: f64,
    high: f64,
    /// Between two ticks.
    step: f64,
}

impl Scale {
    fn x(&self, step: f64) -> f64 {
        LEFT + (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)
    }

    fn draw_axes(&self, svg: &mut String) {
        for i in 0..=((self.high - self.low) / self.step).round() as i64 {
            let value = self.low + i as f64 * self.step;
            let y = self.y(value);
            // Sums of steps miss 0 by a rounding error, which would be written out.
            let label = short(if value.abs() < self.step * 1e-9 { 0.0 } else { value });
            let _ = write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", WIDTH - RIGHT);
            let _ = write!(svg, "<text class=\"ytick\" x=\"{}\" y=\"{:.1}\">{label}</text>", LEFT - 7.0, y + 3.5);
        }
        let step = nice_step(self.last - self.first, 7).max(1.0);
        let mut at = (self.first / step).ceil() * step;
        while at <= self.last {
            let _ = write!(svg, "<text class=\"xtick\" x=\"{:.1}\" y=\"{}\">{}</text>", self.x(at), HEIGHT - 8.0, short(at));
            at += step;
        }
    }
}

fn curve(svg: &mut String, color: usize, class: &str, scale: &Scale, points: &[(f64, f64)]) {
    let _ = write!(svg, "<polyline class=\"s{color} {class}\" points=\"");
    for (x, y) in points {
        vertex(svg, scale, *x, *y);
    }
    svg.push_str("\"/>");
}

/// The area between the points and `below(index)`.
fn area(svg: &mut String, color: usize, scale: &Scale, points: &[(f64, f64)], below: impl Fn(usize) -> f64) {
    let _ = write!(svg, "<polygon class=\"a{color}\" points=\"");
    for (x, y) in points {
        vertex(svg, scale, *x, *y);
    }
    for (j, (x, _)) in points.iter().enumerate().rev() {
        vertex(svg, scale, *x, below(j));
    }
    svg.push_str("\"/>");
}

fn vertex(svg: &mut String, scale: &Scale, x: f64, y: f64) {
    let _ = write!(svg, "{:.1},{:.1} ", scale.x(x), scale.y(y));
}

/// Exponential moving average without bias at the start.
fn moving_average(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let (mut sum, mut weight) = (0.0, 0.0);
    let mut next = |value: f64| {
        sum = (1.0 - SMOOTHING) * sum + SMOOTHING * value;
        weight = (1.0 - SMOOTHING) * weight + SMOOTHING;
        sum / weight
    };
    points.iter().map(|(x, y)| (*x, next(*y))).collect()
}

/// Values at the given steps; of several at one step the last.
fn align(points: &[(f64, f64)], steps: &[f64]) -> Vec<Option<f64>> {
    let mut rest = points.iter().peekable();
    let value_at = |step: &f64| {
        let mut value = None;
        while let Some((_, y)) = rest.next_if(|(x, _)| x <= step) {
            value = Some(*y);
        }
        value
    };
    steps.iter().map(value_at).collect()
}

/// 1, 2 or 5 times a power of ten, so that `span` has about `ticks` of them.
fn nice_step(span: f64, ticks: u32) -> f64 {
    let rough = span / f64::from(ticks);
    let power = 10f64.powf(rough.log10().floor());
    let factor = match rough / power {
        f if f <= 1.0 => 1.0,
        f if f <= 2.0 => 2.0,
        f if f <= 5.0 => 5.0,
        _ => 10.0,
    };
    factor * power
}

/// A number in few characters.
pub fn short(value: f64) -> String {
    let trimmed =
        |text: String| if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    match value.abs() {
        0.0 => "0".into(),
        a if a >= 1e9 => trimmed(format!("{:.2}", value / 1e9)) + "G",
        a if a >= 1e6 => trimmed(format!("{:.2}", value / 1e6)) + "M",
        a if a >= 1e4 => trimmed(format!("{:.1}", value / 1e3)) + "k",
        a if a >= 100.0 => trimmed(format!("{value:.1}")),
        a if a >= 1e-3 => trimmed(format!("{value:.4}")),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_meaning() {
        let cases =
            [(0.0, "0"), (0.25, "0.25"), (-1.5, "-1.5"), (100.0, "100"), (12_345.0, "12.3k"), (2e6, "2M"), (5e-6, "5.0e-6")];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn stacked_curves_end_at_the_sum() {
        let series = |values: [f64; 2]| Series {
            label: String::new(),
            points: vec![(1.0, values[0]), (2.0, values[1])],
            band: Vec::new(),
            dots: false,
        };
        let chart = Chart::new("t", "", vec![series([1.0, 2.0]), series([3.0, 4.0])]).stacked();
        assert_eq!(chart.drawn(&[1.0, 2.0])[1].points, [(1.0, 4.0), (2.0, 6.0)]);
    }

    #[test]
    fn constant_and_single_points_have_a_plot() {
        for points in [vec![(1.0, 0.0)], vec![(1.0, 5.0), (2.0, 5.0)]] {
            let chart = Chart::new("t", "", vec![Series { label: String::new(), points, band: Vec::new(), dots: false }]);
            let svg = chart.render().svg;
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn moving_average_of_a_constant_is_the_constant() {
        let points: Vec<(f64, f64)> = (0..30).map(|i| (f64::from(i), 2.0)).collect();
        assert!(moving_average(&points).iter().all(|(_, y)| (y - 2.0).abs() < 1e-12));
    }
}
