//! Writes metric families with the names, labels and help texts of [`metric_families`](rotogate_kit::metric_families).

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use rotogate_core::counters::CountedDurations;
use rotogate_kit::durations::{BUCKET_SECONDS, Durations};
use rotogate_kit::metric_families::{Family, Kind};

pub(crate) struct ScrapeOutput<'a, 'e>(&'a mut DescriptorEncoder<'e>);

pub(crate) struct Series<'a> {
    family: &'static Family,
    encoder: MetricEncoder<'a>,
}

impl<'a, 'e> ScrapeOutput<'a, 'e> {
    pub(crate) fn new(encoder: &'a mut DescriptorEncoder<'e>) -> Self {
        Self(encoder)
    }

    /// Begins a family, which may have no series.
    pub(crate) fn family(&mut self, family: &'static Family) -> Result<Series<'_>, fmt::Error> {
        let kind = match family.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        Ok(Series { family, encoder: self.0.encode_descriptor(family.name, family.help, None, kind)? })
    }

    pub(crate) fn all<L, N, const LABELS: usize>(
        &mut self,
        family: &'static Family,
        series: impl IntoIterator<Item = ([L; LABELS], N)>,
    ) -> fmt::Result
    where
        L: AsRef<str>,
        N: EncodeCounterValue + EncodeGaugeValue + Copy,
    {
        let mut all = self.family(family)?;
        series.into_iter().try_for_each(|(labels, value)| all.add(labels.each_ref().map(AsRef::as_ref), value))
    }

    /// Writes a family with one label, and a series for each value.
    pub(crate) fn each<L, N>(
        &mut self,
        family: &'static Family,
        series: impl IntoIterator<Item = (L, N)>,
    ) -> fmt::Result
    where
        L: AsRef<str>,
        N: EncodeCounterValue + EncodeGaugeValue + Copy,
    {
        self.all(family, series.into_iter().map(|(label, value)| ([label], value)))
    }

    /// Writes a family with at most one series, without labels.
    pub(crate) fn maybe<N>(&mut self, family: &'static Family, value: Option<N>) -> fmt::Result
    where
        N: EncodeCounterValue + EncodeGaugeValue + Copy,
    {
        self.all(family, value.map(|value| ([""; 0], value)))
    }

    pub(crate) fn one<N>(&mut self, family: &'static Family, value: N) -> fmt::Result
    where
        N: EncodeCounterValue + EncodeGaugeValue + Copy,
    {
        self.family(family)?.add([], value)
    }
}

impl Series<'_> {
    pub(crate) fn add<N, const LABELS: usize>(&mut self, labels: [&str; LABELS], value: N) -> fmt::Result
    where
        N: EncodeCounterValue + EncodeGaugeValue + Copy,
    {
        let kind = self.family.kind;
        self.with(labels, |encoder| match kind {
            Kind::Counter => encoder.encode_counter::<NoLabelSet, N, f64>(&value, None),
            Kind::Gauge | Kind::Histogram => encoder.encode_gauge(&value),
        })
    }

    /// Adds a histogram with the buckets of [`BUCKET_SECONDS`].
    pub(crate) fn add_durations<const LABELS: usize>(
        &mut self,
        labels: [&str; LABELS],
        durations: &Durations,
    ) -> fmt::Result {
        self.add_histogram(labels, &BUCKET_SECONDS, &durations.buckets, durations.sum)
    }

    pub(crate) fn add_counted<const LABELS: usize>(
        &mut self,
        labels: [&str; LABELS],
        counted: &CountedDurations,
    ) -> fmt::Result {
        self.add_histogram(labels, counted.bounds, &counted.buckets, counted.sum)
    }

    pub(crate) fn add_histogram<const LABELS: usize>(
        &mut self,
        labels: [&str; LABELS],
        bounds: &[f64],
        buckets: &[u64],
        sum: f64,
    ) -> fmt::Result {
        let count = buckets.iter().sum();
        let buckets: Vec<(f64, u64)> = bounds.iter().copied().zip(buckets.iter().copied()).collect();
        self.with(labels, |encoder| encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None))
    }

    fn with<const LABELS: usize>(
        &mut self,
        labels: [&str; LABELS],
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        debug_assert_eq!(self.family.labels.len(), LABELS, "{}", self.family.name);
        if LABELS == 0 {
            return write(&mut self.encoder);
        }
        let labels: Vec<(&str, &str)> = self.family.labels.iter().copied().zip(labels).collect();
        write(&mut self.encoder.encode_family(&labels)?)
    }
}
