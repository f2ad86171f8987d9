//! Curves as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::combinators::IntoLogRange as _;
use plotters::prelude::*;

use super::host::Growth;

const SIZE: (u32, u32) = (960, 400);
const COLOURS: [RGBColor; 2] = [RGBColor(0x1b, 0x6c, 0xa8), RGBColor(0xc2, 0x4d, 0x2c)];

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
    chart(&left, &format!("{}: ms", growth.title), &growth.along, &seconds)
        .map_err(|error| failed(&error))?;
    chart(&right, "peak memory: MiB", &growth.along, &memory).map_err(|error| failed(&error))?;
    root.present().map_err(|error| failed(&error))
}

type Failure = Box<dyn std::error::Error>;

fn chart(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    along: &str,
    curves: &[Curve<'_>],
) -> Result<(), Failure> {
    let all = || curves.iter().flat_map(|(_, points)| points);
    let range = |of: fn(&(f64, f64)) -> f64| {
        let low = all().map(of).fold(f64::MAX, f64::min);
        let high = all().map(of).fold(f64::MIN, f64::max);
        low / 1.5..high * 1.5
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(range(|point| point.0).log_scale(), range(|point| point.1).log_scale())?;
    chart.configure_mesh().x_desc(along).light_line_style(WHITE.mix(0.0)).draw()?;
    for ((name, points), colour) in curves.iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(*name)
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
