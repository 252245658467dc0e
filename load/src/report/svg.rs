//! Line charts with axes, as SVG that takes its colours from the page.

use std::fmt::Write as _;

use super::table::number;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
/// Half of the longest label fits here, which stands in the middle below its tick.
const RIGHT: f64 = 28.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 48.0;

/// About how many labels an even axis has.
const TICKS: f64 = 6.0;

/// How an axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Evenly, from 0.
    Even,
    /// By powers of ten.
    Powers,
    /// Percentiles, by how many nines they have.
    Nines,
}

/// One axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// What it is about, with the unit.
    pub(super) title: &'static str,
    pub(super) scale: Scale,
    /// Up to here it is shaded: what happened there does not count.
    pub(super) shaded: f64,
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    /// Which of the page's colours it has.
    pub(super) colour: usize,
    pub(super) dashed: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// How many colours the page has.
pub(super) const COLOURS: usize = 6;

impl Scale {
    /// Where a value stands before it is fitted; what has no place on the scale stands nowhere.
    fn place(self, value: f64) -> Option<f64> {
        match self {
            Self::Even => Some(value),
            Self::Powers => (value > 0.0).then(|| value.log10()),
            Self::Nines => (value < 100.0).then(|| -(1.0 - value / 100.0).log10()),
        }
    }

    /// The ends of the axis, and what is written at it.
    fn frame(self, places: impl Iterator<Item = f64> + Clone) -> (f64, f64, Vec<(f64, String)>) {
        let low = places.clone().fold(f64::INFINITY, f64::min);
        let high = places.fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        match self {
            Self::Even => {
                let step = round_step(high.max(f64::EPSILON) / TICKS);
                let count = (high / step).ceil().max(1.0);
                let ticks = (0..=count as u32).map(|tick| f64::from(tick) * step);
                (0.0, count * step, ticks.map(|value| (value, short(value))).collect())
            }
            Self::Powers => {
                let (low, high) = (low.floor(), high.ceil().max(low.floor() + 1.0));
                let ticks = (low as i32..=high as i32).map(f64::from);
                (low, high, ticks.map(|place| (place, short(10_f64.powf(place)))).collect())
            }
            Self::Nines => {
                let names = [
                    (0.0, "0"),
                    (90.0, "90"),
                    (99.0, "99"),
                    (99.9, "99.9"),
                    (99.99, "99.99"),
                    (99.999, "99.999"),
                ];
                let ticks = names
                    .into_iter()
                    .filter_map(|(value, name)| Some((self.place(value)?, name.to_owned())));
                let high = high.max(1.0);
                (0.0, high, ticks.filter(|(place, _)| *place <= high + 1e-9).collect())
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, not less than this.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

/// A number at an axis: no more digits than it has.
fn short(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text that stands between tags.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A chart with its legend; nothing if there is nothing to draw.
pub(super) fn chart(title: &str, x: Axis, y: Axis, lines: &[Line]) -> String {
    let placed: Vec<Vec<(f64, f64)>> = lines
        .iter()
        .map(|line| {
            let points = line.points.iter();
            points
                .filter_map(|(left, up)| Some((x.scale.place(*left)?, y.scale.place(*up)?)))
                .collect()
        })
        .collect();
    if placed.iter().all(Vec::is_empty) {
        return String::new();
    }
    let all = placed.iter().flatten();
    let across = x.scale.frame(all.clone().map(|point| point.0));
    let upward = y.scale.frame(all.map(|point| point.1));
    let fit_x =
        |place: f64| LEFT + (place - across.0) / (across.1 - across.0) * (WIDTH - LEFT - RIGHT);
    let fit_y = |place: f64| {
        HEIGHT - BOTTOM - (place - upward.0) / (upward.1 - upward.0) * (HEIGHT - TOP - BOTTOM)
    };
    let mut svg = format!(
        "<figure><figcaption>{0}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"{0}\">",
        escape(title)
    );
    if x.shaded > 0.0 {
        let (right, height) = (fit_x(x.shaded.min(across.1)), HEIGHT - TOP - BOTTOM);
        put(
            &mut svg,
            format_args!(
                "<rect class=\"shade\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{height}\">\
             <title>warm-up</title></rect>",
                right - LEFT
            ),
        );
    }
    grid(&mut svg, &across.2, &upward.2, fit_x, fit_y);
    titles(&mut svg, x, y);
    for (line, points) in lines.iter().zip(&placed) {
        let fitted =
            points.iter().map(|(left, up)| format!("{:.1},{:.1}", fit_x(*left), fit_y(*up)));
        let dashed = if line.dashed { " dashed" } else { "" };
        let points = fitted.collect::<Vec<_>>().join(" ");
        put(
            &mut svg,
            format_args!(
                "<polyline class=\"line c{}{dashed}\" points=\"{points}\"><title>{}</title></polyline>",
                line.colour % COLOURS,
                escape(&line.name)
            ),
        );
    }
    svg.push_str("</svg>");
    legend(&mut svg, lines);
    svg.push_str("</figure>");
    svg
}

/// Writing to a string does not fail.
fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = svg.write_fmt(text);
}

fn grid(
    svg: &mut String,
    across: &[(f64, String)],
    upward: &[(f64, String)],
    fit_x: impl Fn(f64) -> f64,
    fit_y: impl Fn(f64) -> f64,
) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for (place, label) in across {
        let x = fit_x(*place);
        put(
            svg,
            format_args!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 16.0
            ),
        );
    }
    for (place, label) in upward {
        let y = fit_y(*place);
        put(
            svg,
            format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 6.0,
                y + 4.0
            ),
        );
    }
}

fn titles(svg: &mut String, x: Axis, y: Axis) {
    let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
    put(
        svg,
        format_args!(
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text class=\"axis\" x=\"14\" y=\"{middle:.1}\" text-anchor=\"middle\" \
         transform=\"rotate(-90 14 {middle:.1})\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 10.0,
            escape(x.title),
            escape(y.title)
        ),
    );
}

fn legend(svg: &mut String, lines: &[Line]) {
    svg.push_str("<ul class=\"legend\">");
    for line in lines.iter().filter(|line| !line.points.is_empty()) {
        let dashed = if line.dashed { " dashed" } else { "" };
        let highest = line.points.iter().map(|point| point.1).fold(0.0, f64::max);
        put(
            svg,
            format_args!(
                "<li><span class=\"key k{}{dashed}\"></span>{} <small>(at most {})</small></li>",
                line.colour % COLOURS,
                escape(&line.name),
                number(highest)
            ),
        );
    }
    svg.push_str("</ul>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)]) -> Line {
        Line { name: "<a & b>".to_owned(), colour: 1, dashed: true, points: points.to_vec() }
    }

    #[test]
    fn axes_have_round_labels() {
        let labels = |scale: Scale, places: &[f64]| {
            let (_, _, ticks) = scale.frame(places.iter().copied());
            ticks.into_iter().map(|(_, label)| label).collect::<Vec<_>>()
        };
        assert_eq!(labels(Scale::Even, &[0.0, 23.0]), ["0", "5", "10", "15", "20", "25"]);
        assert_eq!(labels(Scale::Powers, &[-0.7, 1.2]), ["0.1", "1", "10", "100"]);
        assert_eq!(labels(Scale::Nines, &[0.0, 2.0]), ["0", "90", "99"]);
        assert_eq!(labels(Scale::Even, &[]).first().map(String::as_str), Some("0"));
    }

    #[test]
    fn a_chart_is_well_formed_and_harmless() {
        let x = Axis { title: "time (s)", scale: Scale::Even, shaded: 0.5 };
        let y = Axis { title: "latency (ms)", scale: Scale::Powers, shaded: 0.0 };
        let svg = chart("A <title>", x, y, &[line(&[(0.0, 0.0), (1.0, 2.0), (2.0, 3.0)])]);
        assert!(!svg.contains("<a & b>") && svg.contains("&lt;a &amp; b&gt;"), "{svg}");
        assert!(svg.contains("latency (ms)") && svg.contains("time (s)"));
        assert!(svg.contains("warm-up"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        // What has no logarithm has no point.
        let points = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next());
        assert_eq!(points.map(|points| points.split(' ').count()), Some(2));
        assert_eq!(chart("Nothing", x, y, &[line(&[])]), "");
    }
}
