//! Where the time of events goes inside the server, as Parlour's metrics tell it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Failure, LoadError},
    http::Endpoint,
    session::Session,
};

/// The histogram, by stage.
const METRIC: &str = "parlour_stage_seconds";

/// Where the metrics are if the URL says nothing else.
const PATH: &str = "/metrics";

/// A page of metrics for Prometheus.
pub(crate) struct Metrics {
    endpoint: Arc<Endpoint>,
    path: String,
}

/// What the server has counted so far, by stage.
pub(crate) type Counted = BTreeMap<String, Buckets>;

/// One histogram of Prometheus.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Buckets {
    /// Upper bounds in seconds, and how many were not above them.
    below: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

/// One stage while it was measured; times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) count: u64,
    pub(crate) mean: f64,
    /// As exact as the server's buckets are.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Metrics {
    /// The page at a URL such as `http://127.0.0.1:8010/metrics`.
    pub(crate) async fn find(url: &str, patience: Duration) -> Result<Self, LoadError> {
        let host = url.find("://").map_or(0, |at| at + 3);
        let path = url[host..].find('/').map_or(url.len(), |at| host + at);
        let (base, path) = url.split_at(path);
        let endpoint = Arc::new(Endpoint::find(base, &[], patience).await?);
        let path = if path.len() > 1 { path } else { PATH }.to_owned();
        let metrics = Self { endpoint, path };
        let counted = metrics.read().await.map_err(|failure| LoadError::Unreachable {
            target: url.to_owned(),
            reason: failure.to_string(),
        })?;
        match counted.is_empty() {
            true => Err(LoadError::Usage(format!("{url} has no {METRIC}: is it Parlour's?"))),
            false => Ok(metrics),
        }
    }

    /// What is counted now.
    pub(crate) async fn read(&self) -> Result<Counted, Failure> {
        let mut session = Session::nobody(&self.endpoint);
        let page = session.ask(Method::GET, &self.path, Bytes::new(), Duration::ZERO).await?;
        Ok(parse(&String::from_utf8_lossy(&page)))
    }
}

fn parse(page: &str) -> Counted {
    let mut all = Counted::new();
    for (line, value) in page.lines().filter_map(|line| line.rsplit_once(' ')) {
        let Some((kind, labels)) = line.strip_prefix(METRIC).and_then(|rest| rest.split_once('{'))
        else {
            continue;
        };
        let label = |name: &str| {
            let labels = labels.trim_end_matches('}').split(',');
            let mut pairs = labels.filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'))
        };
        let (Some(stage), Ok(value)) = (label("stage"), value.parse()) else { continue };
        let buckets = all.entry(stage.to_owned()).or_default();
        match kind {
            "_sum" => buckets.sum = value,
            "_count" => buckets.count = value,
            "_bucket" => {
                // Rust reads `+Inf`, too.
                let bound = label("le").and_then(|bound| bound.parse().ok());
                buckets.below.extend(bound.map(|bound| (bound, value)));
            }
            _ => {}
        }
    }
    all
}

/// What has been counted from one moment to another.
pub(crate) fn between(before: &Counted, after: &Counted) -> Vec<Stage> {
    let none = Buckets::default();
    let stages = after.iter().map(|(name, after)| {
        let new = after.since(before.get(name).unwrap_or(&none));
        Stage {
            name: name.clone(),
            count: new.count as u64,
            mean: new.sum / new.count * 1e3,
            p50: new.quantile(0.5) * 1e3,
            p99: new.quantile(0.99) * 1e3,
        }
    });
    stages.filter(|stage| stage.count > 0).collect()
}

impl Buckets {
    fn since(&self, before: &Self) -> Self {
        let old = |bound: f64| before.below.iter().find(|(other, _)| *other == bound);
        let below = self
            .below
            .iter()
            .map(|(bound, count)| (*bound, count - old(*bound).map_or(0.0, |(_, count)| *count)));
        Self {
            below: below.collect(),
            sum: self.sum - before.sum,
            count: self.count - before.count,
        }
    }

    /// In the bucket in which it must be, as if all in there were spread evenly.
    fn quantile(&self, part: f64) -> f64 {
        let wanted = self.count * part;
        let (mut from, mut passed) = (0.0, 0.0);
        for (bound, below) in &self.below {
            if *below >= wanted && bound.is_finite() {
                let inside = (wanted - passed) / (below - passed).max(f64::EPSILON);
                return from + (bound - from) * inside;
            }
            if bound.is_finite() {
                (from, passed) = (*bound, *below);
            }
        }
        from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP parlour_stage_seconds What events go through
# TYPE parlour_stage_seconds histogram
parlour_stage_seconds_bucket{stage="auth",le="0.001"} 10
parlour_stage_seconds_bucket{stage="auth",le="0.01"} 20
parlour_stage_seconds_bucket{stage="auth",le="+Inf"} 20
parlour_stage_seconds_sum{stage="auth"} 0.1
parlour_stage_seconds_count{stage="auth"} 20
parlour_stage_seconds_count{stage="flush"} 0
other_seconds_count{stage="auth"} 7
"#;

    #[test]
    fn what_was_counted_meanwhile_is_told() {
        let before = parse(PAGE);
        let after = PAGE.replace("} 20", "} 120").replace("} 0.1", "} 0.6");
        let stages = between(&before, &parse(&after));
        let [stage] = stages.as_slice() else { panic!("{stages:?}") };
        assert_eq!((stage.name.as_str(), stage.count), ("auth", 100));
        assert!((stage.mean - 5.0).abs() < 1e-9, "{stage:?}");
        // All hundred are between 1 and 10 ms.
        assert!((stage.p50 - 5.5).abs() < 1e-9 && stage.p99 < 10.0, "{stage:?}");
        assert!(between(&before, &before).is_empty());
    }

    #[test]
    fn what_is_above_all_bounds_is_at_the_last_one() {
        let buckets = parse(&PAGE.replace("le=\"0.01\"} 20", "le=\"0.01\"} 10"));
        assert_eq!(buckets["auth"].quantile(0.99), 0.01);
    }
}
