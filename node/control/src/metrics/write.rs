//! Metric families, written one sample at a time.

use std::fmt::Error;

use prometheus_client::{
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
    },
    metrics::MetricType,
};

/// Labels of a sample: names and values.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// A family of counters. The encoder adds `_total` to its name.
pub(super) struct Counters<'a>(MetricEncoder<'a>);

impl<'a> Counters<'a> {
    pub(super) fn begin(
        encoder: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
    ) -> Result<Self, Error> {
        Ok(Self(encoder.encode_descriptor(name, help, None, MetricType::Counter)?))
    }

    pub(super) fn sample(
        &mut self,
        labels: Labels<'_>,
        value: impl EncodeCounterValue,
    ) -> Result<(), Error> {
        if labels.is_empty() {
            return self.0.encode_counter::<NoLabelSet, _, u64>(&value, None);
        }
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }
}

/// A family of gauges.
pub(super) struct Gauges<'a>(MetricEncoder<'a>);

impl<'a> Gauges<'a> {
    pub(super) fn begin(
        encoder: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
    ) -> Result<Self, Error> {
        Ok(Self(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?))
    }

    pub(super) fn sample(
        &mut self,
        labels: Labels<'_>,
        value: impl EncodeGaugeValue,
    ) -> Result<(), Error> {
        if labels.is_empty() {
            return self.0.encode_gauge(&value);
        }
        self.0.encode_family(&labels)?.encode_gauge(&value)
    }
}

/// A family of histograms.
pub(super) struct Histograms<'a>(MetricEncoder<'a>);

impl<'a> Histograms<'a> {
    pub(super) fn begin(
        encoder: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
    ) -> Result<Self, Error> {
        Ok(Self(encoder.encode_descriptor(name, help, None, MetricType::Histogram)?))
    }

    /// One with `counts` within each of `bounds`, and beyond them.
    pub(super) fn sample(
        &mut self,
        labels: Labels<'_>,
        sum: u64,
        bounds: &[u64],
        counts: &[u64],
    ) -> Result<(), Error> {
        let bounds = bounds.iter().map(|bound| *bound as f64).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts.iter().copied()).collect();
        let count = counts.iter().sum();
        self.0
            .encode_family(&labels)?
            .encode_histogram::<NoLabelSet>(sum as f64, count, &buckets, None)
    }
}

/// Writes an information metric. The encoder adds `_info` to its name.
pub(super) fn info(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    labels: Labels<'_>,
) -> Result<(), Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
}

/// Writes a gauge that stands alone.
pub(super) fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> Result<(), Error> {
    Gauges::begin(encoder, name, help)?.sample(&[], value)
}
