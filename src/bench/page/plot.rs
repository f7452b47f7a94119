//! Lines and points as SVG, with `plotters`.

use plotters::backend::SVGBackend;
use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    drawing::IntoDrawingArea,
    element::{Circle, PathElement},
    series::LineSeries,
    style::{BLACK, Color, Palette, Palette99, WHITE},
};

const SIZE: (u32, u32) = (860, 380);

/// A direction of a plot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    label: &'static str,
    is_log: bool,
}

impl Axis {
    /// From 0 on.
    pub(super) fn linear(label: &'static str) -> Self {
        Self { label, is_log: false }
    }

    /// Of what is above 0.
    pub(super) fn log(label: &'static str) -> Self {
        Self { label, is_log: true }
    }

    fn has(self, value: f64) -> bool {
        value.is_finite() && (!self.is_log || value > 0.0)
    }

    /// Where a value stands.
    fn place(self, value: f64) -> f64 {
        if self.is_log { value.log10() } else { value }
    }

    fn range(self, values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
        let (low, high) = values
            .map(|value| self.place(value))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let low = if self.is_log { low } else { low.min(0.0) };
        let room = ((high - low) * 0.05).max(if self.is_log { 0.05 } else { 1e-3 });
        (if self.is_log { low - room } else { low })..high + room
    }

    /// What stands at a place, in words.
    fn say(self, place: f64) -> String {
        let value = if self.is_log { 10_f64.powf(place) } else { place };
        match value.abs() {
            large if large >= 100.0 => format!("{value:.0}"),
            some if some >= 1.0 || some == 0.0 => format!("{value:.1}"),
            // A share of a thousandth needs its digits.
            _ => format!("{value:.5}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        }
    }
}

/// What is drawn of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    Line,
    Points,
}

/// Points of one name, in the order in which they're joined.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// An SVG element. Points that an axis hasn't are left out. `Err`: what the library says.
pub(super) fn plot(x: Axis, y: Axis, marks: Marks, lines: &[Line]) -> Result<String, String> {
    let points = || lines.iter().flat_map(|line| &line.points).filter(|(at, value)| x.has(*at) && y.has(*value));
    if points().next().is_none() {
        return Ok(String::new());
    }
    let mut svg = String::new();
    let mut drawn = || -> Result<(), Box<dyn std::error::Error + '_>> {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(x.range(points().map(|point| point.0)), y.range(points().map(|point| point.1)))?;
        let (say_x, say_y) = (|place: &f64| x.say(*place), |place: &f64| y.say(*place));
        chart
            .configure_mesh()
            .x_desc(x.label)
            .y_desc(y.label)
            .x_label_formatter(&say_x)
            .y_label_formatter(&say_y)
            .light_line_style(WHITE)
            .draw()?;
        for (i, line) in lines.iter().enumerate() {
            let colour = Palette99::pick(i).to_rgba();
            let here = line.points.iter().filter(|(at, value)| x.has(*at) && y.has(*value));
            let here: Vec<_> = here.map(|(at, value)| (x.place(*at), y.place(*value))).collect();
            let series = match marks {
                Marks::Line => chart.draw_series(LineSeries::new(here, colour.stroke_width(2)))?,
                Marks::Points => chart.draw_series(here.into_iter().map(|point| Circle::new(point, 5, colour.filled())))?,
            };
            series.label(&line.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(3)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
        Ok(())
    };
    drawn().map_err(|error| error.to_string())?;
    Ok(svg)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn line(points: &[(f64, f64)]) -> Line {
        Line { name: "one".to_owned(), points: points.to_vec() }
    }

    #[test]
    fn a_plot_has_a_mark_for_each_point_that_its_axes_have() {
        let (x, y) = (Axis::linear("x"), Axis::log("y"));
        let svg = plot(x, y, Marks::Points, &[line(&[(0.0, 1.0), (1.0, 10.0), (2.0, 0.0), (f64::NAN, 1.0)])]).unwrap();
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("one") && svg.starts_with("<svg"));
        // One point has no extent, and none is no plot.
        assert!(plot(x, y, Marks::Line, &[line(&[(3.0, 3.0)])]).unwrap().contains("<polyline"));
        assert_eq!(plot(x, y, Marks::Line, &[line(&[(3.0, -3.0)])]).unwrap(), "");
    }

    #[test]
    fn numbers_have_the_digits_that_they_need() {
        let (linear, log) = (Axis::linear(""), Axis::log(""));
        assert_eq!([0.0, 12.34, 123.4].map(|value| linear.say(value)), ["0.0", "12.3", "123"]);
        assert_eq!([-3.0, 2.0].map(|place| log.say(place)), ["0.001", "100"]);
    }
}
