//! Curves as SVG.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::combinators::IntoLogRange as _;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::host::Growth;

const SIZE: (u32, u32) = (960, 400);
const COLOURS: [RGBColor; 3] =
    [RGBColor(0x1b, 0x6c, 0xa8), RGBColor(0xc2, 0x4d, 0x2c), RGBColor(0x3a, 0x8a, 0x3f)];

/// A curve: its name and its points.
type Curve<'a> = (&'a str, Vec<(f64, f64)>);

/// Draws how time and memory grow, side by side.
pub(super) fn draw(file: &Path, growth: &Growth) -> Result<()> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", file.display());
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let (left, right) = root.split_horizontally(SIZE.0 / 2);
    let pick = |what: fn(&super::host::Point) -> Option<f64>| -> Vec<Curve<'_>> {
        let points = |points: &[super::host::Point]| {
            // Curves have no exact numbers of things anyway.
            points
                .iter()
                .filter_map(|point| Some((f64::from(u32::try_from(point.count).ok()?), what(point)?)))
                .collect()
        };
        growth.curves.iter().map(|(name, of)| (name.as_str(), points(of))).collect()
    };
    let seconds = pick(|point| Some(point.seconds * 1e3));
    let memory = pick(|point| Some(f64::from(u32::try_from(point.peak?).ok()?) / 1024.0));
    let title = format!("{}: ms", growth.title);
    chart(&left, &title, &growth.along, &seconds, range(&seconds, |point| point.1).log_scale())
        .map_err(|error| failed(&error))?;
    // From nothing on, so that what is flat looks flat.
    chart(&right, "peak memory: MiB", &growth.along, &memory, 0.0..range(&memory, |point| point.1).end)
        .map_err(|error| failed(&error))?;
    root.present().map_err(|error| failed(&error))
}

type Failure = Box<dyn std::error::Error>;

/// From the least to the most of all curves, with some room.
fn range(curves: &[Curve<'_>], of: fn(&(f64, f64)) -> f64) -> Range<f64> {
    let all = || curves.iter().flat_map(|(_, points)| points).map(of);
    all().fold(f64::MAX, f64::min) / 1.5..all().fold(f64::MIN, f64::max) * 1.5
}

fn chart<Y>(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    along: &str,
    curves: &[Curve<'_>],
    upwards: Y,
) -> Result<(), Failure>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(range(curves, |point| point.0).log_scale(), upwards)?;
    let number = |number: &f64| number.to_string();
    chart
        .configure_mesh()
        .x_desc(along)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for ((name, points), colour) in curves.iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(name.replace('`', ""))
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}
