//! Draws a scenario's main figure as bars: the median, with a line from minimum to maximum.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use super::{Range, Report, shown};
use crate::scenario::Scenario;
use crate::server::Peer;

const WIDTH: u32 = 720;
const BAR: u32 = 44;
const MARGIN: u32 = 70;

pub(super) fn draw(report: &Report, scenario: &Scenario, file: &Path) -> anyhow::Result<()> {
    let bars: Vec<(Peer, Range)> = scenario
        .peers
        .iter()
        .filter_map(|peer| Some((*peer, report.range(scenario.name, *peer, scenario.plot)?)))
        .collect();
    let most = bars.iter().map(|(_, range)| range.most).fold(f64::MIN_POSITIVE, f64::max) * 1.15;
    let height = MARGIN + BAR * bars.len() as u32;
    let area = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    paint(&area, scenario, &bars, most).map_err(|error| anyhow!("{}: {error}", file.display()))
}

fn paint(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    scenario: &Scenario,
    bars: &[(Peer, Range)],
    most: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: {}", scenario.name, scenario.plot), ("sans-serif", 16))
        .margin_right(16)
        .x_label_area_size(28)
        .y_label_area_size(210)
        .build_cartesian_2d(0.0..most, (0..bars.len().saturating_sub(1)).into_segmented())?;
    let name = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(at) => bars.get(bars.len() - 1 - at).map_or("", |(peer, _)| peer.name()).to_owned(),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_max_light_lines(0)
        .y_label_formatter(&name)
        .label_style(("sans-serif", 13))
        .draw()?;
    for (at, (peer, range)) in bars.iter().rev().enumerate() {
        let color = match peer {
            Peer::Native => RGBColor(38, 111, 197),
            Peer::Socketioxide => RGBColor(110, 168, 226),
            Peer::Floor => RGBColor(60, 140, 90),
            _ => RGBColor(150, 150, 150),
        };
        let (low, high) = (SegmentValue::Exact(at), SegmentValue::Exact(at + 1));
        let mut bar = Rectangle::new([(0.0, low), (range.median, high)], color.filled());
        bar.set_margin(8, 8, 0, 0);
        chart.draw_series([bar])?;
        let middle = SegmentValue::CenterOf(at);
        chart.draw_series([PathElement::new(
            vec![(range.least, middle.clone()), (range.most, middle.clone())],
            BLACK,
        )])?;
        chart.draw_series([Text::new(
            format!("  {}", shown(range.median)),
            (range.most, middle),
            ("sans-serif", 13),
        )])?;
    }
    area.present()?;
    Ok(())
}
