//! A page that holds everything it needs: no script, no font, no picture from elsewhere.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    svg::{Axis, Line, Scale, chart, escape},
    table::{mebibytes, number, usage},
};
use crate::record::{Moment, Run, Summary};

const STYLE: &str = include_str!("style.css");

/// Time, with the warm-up shaded.
fn time(runs: &[&Run]) -> Axis {
    let warm = runs.iter().flat_map(|run| &run.moments).filter(|moment| moment.warming_up);
    let shaded = warm.map(|moment| moment.at).fold(0.0, f64::max);
    Axis { title: "time since the beginning (s)", scale: Scale::Even, shaded }
}

const fn axis(title: &'static str, scale: Scale) -> Axis {
    Axis { title, scale, shaded: 0.0 }
}

/// The page about some runs. Those of the same scenario with the same options stand together.
pub(crate) fn render(runs: &[Run]) -> String {
    let mut groups: BTreeMap<(usize, &str, &str), Vec<&Run>> = BTreeMap::new();
    for run in runs {
        let Summary { scenario, options, .. } = &run.summary;
        let first = runs.iter().position(|other| {
            (&other.summary.scenario, &other.summary.options) == (scenario, options)
        });
        groups.entry((first.unwrap_or_default(), scenario, options)).or_default().push(run);
    }
    let mut page = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Load test</title><style>{STYLE}</style></head><body><main><h1>Load test</h1>\
         <p>Made by <code>parlour load</code>. Latency counts from the moment in which an operation \
         was due. What is shaded is the warm-up, which does not count. CPU per operation is all that the server has used, divided by the number of \
         operations of that kind.</p>"
    );
    for ((_, scenario, options), runs) in groups {
        section(&mut page, scenario, options, &runs);
    }
    page.push_str("</main></body></html>\n");
    page
}

/// Writing to a string does not fail.
fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = page.write_fmt(text);
}

fn section(page: &mut String, scenario: &str, options: &str, runs: &[&Run]) {
    put(
        page,
        format_args!(
            "<section><h2>{}</h2><p><code>{}</code></p>",
            escape(scenario),
            escape(options)
        ),
    );
    table(page, runs);
    page.push_str("<div class=\"charts\">");
    for kind in kinds(runs) {
        page.push_str(&latency_over_time(runs, &kind));
        page.push_str(&percentiles(runs, &kind));
        page.push_str(&throughput(runs, &kind));
    }
    page.push_str(&resources(runs));
    page.push_str("</div>");
    for run in runs {
        remarks(page, &run.summary);
    }
    page.push_str("</section>");
}

/// The kinds of operations that have a chart, the most important first.
fn kinds(runs: &[&Run]) -> Vec<String> {
    let mut kinds: Vec<String> = Vec::new();
    for series in runs.iter().flat_map(|run| &run.summary.series) {
        if series.count > 0 && !kinds.contains(&series.name) {
            kinds.push(series.name.clone());
        }
    }
    kinds
}

fn table(page: &mut String, runs: &[&Run]) {
    page.push_str(
        "<div class=\"wide\"><table><thead><tr><th>server</th><th>operation</th><th>count</th>\
         <th>per second</th><th>p50 (ms)</th><th>p90 (ms)</th><th>p99 (ms)</th><th>p99.9 (ms)</th>\
         <th>max (ms)</th><th>server CPU (ms per operation)</th><th>errors</th>\
         <th>server memory, at most (MiB)</th></tr></thead><tbody>",
    );
    for run in runs {
        let Summary { label, series, errors, server, .. } = &run.summary;
        for totals in series {
            let cpu = totals.server_cpu.map_or_else(|| "–".to_owned(), number);
            let memory =
                server.as_ref().map_or_else(|| "–".to_owned(), |used| mebibytes(used.rss_peak));
            let errors: u64 = errors.values().sum();
            let latencies = [totals.p50, totals.p90, totals.p99, totals.p999, totals.max];
            let latencies = latencies.map(|value| format!("<td>{}</td>", number(value))).concat();
            put(
                page,
                format_args!(
                    "<tr><th>{}</th><th>{}</th><td>{}</td><td>{}</td>{latencies}<td>{cpu}</td>\
                 <td>{errors}</td><td>{memory}</td></tr>",
                    escape(label),
                    escape(&totals.name),
                    totals.count,
                    number(totals.per_second),
                ),
            );
        }
    }
    page.push_str("</tbody></table></div>");
}

/// A line per run, of what `value` finds in each second.
fn over_time(
    runs: &[&Run],
    name: &str,
    dashed: bool,
    value: impl Fn(&Moment) -> Option<f64>,
) -> Vec<Line> {
    let lines = runs.iter().enumerate().map(|(colour, run)| {
        let points = run.moments.iter().filter_map(|moment| Some((moment.at, value(moment)?)));
        Line { name: join(&run.summary.label, name), colour, dashed, points: points.collect() }
    });
    lines.collect()
}

fn join(label: &str, name: &str) -> String {
    if name.is_empty() { label.to_owned() } else { format!("{label}, {name}") }
}

fn latency_over_time(runs: &[&Run], kind: &str) -> String {
    let rate = |moment: &Moment| moment.series.get(kind).filter(|rate| rate.count > 0).copied();
    let median = over_time(runs, "p50", false, |moment| rate(moment).map(|rate| rate.p50));
    let tail = over_time(runs, "p99", true, |moment| rate(moment).map(|rate| rate.p99));
    let lines = [median, tail].concat();
    let title = format!("Latency of “{kind}” over time");
    chart(&title, time(runs), axis("latency (ms)", Scale::Powers), &lines)
}

fn percentiles(runs: &[&Run], kind: &str) -> String {
    let lines = runs.iter().enumerate().filter_map(|(colour, run)| {
        let totals = run.summary.series.iter().find(|totals| totals.name == kind)?;
        // More nines than there are operations say nothing.
        let known = 100.0 - 100.0 / (totals.count.max(2) as f64);
        let points = totals.curve.iter().filter(|(part, _)| *part <= known).copied().collect();
        Some(Line { name: run.summary.label.clone(), colour, dashed: false, points })
    });
    let lines: Vec<_> = lines.collect();
    let across = axis("percentile", Scale::Nines);
    let title = format!("Percentiles of “{kind}”");
    chart(&title, across, axis("latency (ms)", Scale::Powers), &lines)
}

fn throughput(runs: &[&Run], kind: &str) -> String {
    let lines =
        over_time(runs, "", false, |moment| moment.series.get(kind).map(|rate| rate.per_second));
    let title = format!("Throughput of “{kind}”");
    chart(&title, time(runs), axis("operations per second", Scale::Even), &lines)
}

/// CPU and memory.
fn resources(runs: &[&Run]) -> String {
    let mut lines = Vec::new();
    for (colour, run) in runs.iter().enumerate() {
        let cores = |used: fn(&Moment) -> Option<f64>| {
            let pairs = run.moments.windows(2).filter_map(move |pair| {
                let [before, after] = pair else { return None };
                let elapsed = after.at - before.at;
                // The last look may come a moment after the one before it.
                (elapsed > 0.2).then_some(())?;
                Some((after.at, (used(after)? - used(before)?) / elapsed))
            });
            pairs.collect::<Vec<_>>()
        };
        let label = &run.summary.label;
        let server = cores(|moment| moment.server.map(|used| used.cpu));
        lines.push(Line { name: label.clone(), colour, dashed: false, points: server });
        let own = cores(|moment| Some(moment.generator.cpu));
        lines.push(Line { name: join(label, "generator"), colour, dashed: true, points: own });
    }
    let memory = over_time(runs, "", false, |moment| {
        moment.server.map(|used| used.rss as f64 / f64::from(1 << 20))
    });
    chart("CPU", time(runs), axis("cores in use", Scale::Even), &lines)
        + &chart(
            "Memory",
            time(runs),
            axis("resident memory of the server (MiB)", Scale::Even),
            &memory,
        )
}

fn remarks(page: &mut String, summary: &Summary) {
    let loops = match summary.rate {
        Some(rate) => format!("open loop at {} per second", number(rate)),
        None => "closed loop".to_owned(),
    };
    let mut said = vec![format!("{:.1} s measured, {loops}, {}", summary.seconds, summary.target)];
    said.extend(summary.server.as_ref().map(|used| format!("server: {}", usage(used))));
    said.push(format!("generator: {}", usage(&summary.generator)));
    let errors = summary.errors.iter().map(|(name, count)| format!("{count} times {name}"));
    said.extend(errors);
    said.push(match &summary.verification {
        None => "nothing was verified".to_owned(),
        Some(verdict) if verdict.good() => {
            format!("verified: {} {}: all there, once, in order", verdict.checked, verdict.what)
        }
        Some(verdict) => format!(
            "VERIFICATION FAILED: of {} {}: {} lost, {} doubled, {} out of order",
            verdict.checked, verdict.what, verdict.lost, verdict.doubled, verdict.disordered
        ),
    });
    said.extend(summary.notes.iter().cloned());
    let said = said.iter().map(|line| format!("<li>{}</li>", escape(line))).collect::<String>();
    put(page, format_args!("<h3>{}</h3><ul>{said}</ul>", escape(&summary.label)));
    stages(page, summary);
}

/// Where the time of events went inside the server.
fn stages(page: &mut String, summary: &Summary) {
    if summary.stages.is_empty() {
        return;
    }
    page.push_str(
        "<table><thead><tr><th>stage inside the server</th><th>count</th><th>mean (µs)</th>\
         <th>p50 (µs)</th><th>p99 (µs)</th></tr></thead><tbody>",
    );
    for stage in &summary.stages {
        let times = [stage.mean, stage.p50, stage.p99];
        let times = times.map(|millis| format!("<td>{}</td>", number(millis * 1e3))).concat();
        let (name, count) = (escape(&stage.name), stage.count);
        put(page, format_args!("<tr><th>{name}</th><td>{count}</td>{times}</tr>"));
    }
    page.push_str("</tbody></table>");
}
