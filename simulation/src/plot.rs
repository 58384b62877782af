//! Plots as SVG on a white panel, readable on light and dark pages.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::*,
    style::{
        full_palette::GREY_700,
        text_anchor::{HPos, Pos, VPos},
    },
};

/// Width and height in pixels.
const SIZE: (u32, u32) = (760, 420);

const FONT: &str = "sans-serif";

const COLORS: [RGBColor; 4] =
    [RGBColor(31, 96, 176), RGBColor(214, 96, 30), RGBColor(46, 140, 80), RGBColor(140, 70, 160)];

/// A line with its name in the legend.
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// The texts of a plot.
pub struct Texts<'a> {
    /// The title.
    pub title: &'a str,
    /// The title of the horizontal axis, with its unit.
    pub x: &'a str,
    /// The title of the vertical axis, with its unit.
    pub y: &'a str,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn area(path: &Path) -> anyhow::Result<Area<'_>> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(error)?;
    Ok(area)
}

fn error(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("cannot draw the plot: {error}")
}

fn bounds(lines: &[Line]) -> ((f64, f64), (f64, f64)) {
    let range = |of: fn(&(f64, f64)) -> f64| {
        let values = lines.iter().flat_map(|line| line.points.iter().map(of));
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
    };
    (range(|point| point.0), range(|point| point.1))
}

/// Writes a number of an axis.
fn label(number: &f64) -> String {
    match number.abs() {
        1e6.. => format!("{} M", number / 1e6),
        1e3.. => format!("{} k", number / 1e3),
        _ => format!("{}", (number * 1e6).round() / 1e6),
    }
}

macro_rules! draw {
    ($area:expr, $texts:expr, $lines:expr, $x:expr, $y:expr, $points:expr) => {{
        let mut chart = ChartBuilder::on(&$area)
            .caption($texts.title, (FONT, 18))
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d($x, $y)
            .map_err(error)?;
        chart
            .configure_mesh()
            .x_desc($texts.x)
            .y_desc($texts.y)
            .axis_desc_style((FONT, 14))
            .label_style((FONT, 13))
            .x_label_formatter(&label)
            .y_label_formatter(&label)
            .max_light_lines(0)
            .draw()
            .map_err(error)?;
        for (line, color) in $lines.iter().zip(COLORS) {
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))
                .map_err(error)?
                .label(line.name.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
            if $points {
                let dots = line.points.iter().map(|point| Circle::new(*point, 3, color.filled()));
                chart.draw_series(dots).map_err(error)?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.9))
            .border_style(GREY_700)
            .label_font((FONT, 13))
            .draw()
            .map_err(error)?;
        $area.present().map_err(error)?;
    }};
}

/// Draws lines on two logarithmic axes.
///
/// # Errors
/// When the file cannot be written.
pub fn logarithmic(path: &Path, texts: &Texts<'_>, lines: &[Line]) -> anyhow::Result<()> {
    let (x, y) = bounds(lines);
    let area = area(path)?;
    let x = (x.0..x.1 * 1.2).log_scale();
    let y = (y.0 / 2.0..y.1 * 10.0).log_scale();
    draw!(area, texts, lines, x, y, true);
    Ok(())
}

/// Draws lines on two linear axes that begin at 0.
///
/// # Errors
/// When the file cannot be written.
pub fn linear(path: &Path, texts: &Texts<'_>, lines: &[Line]) -> anyhow::Result<()> {
    let (x, y) = bounds(lines);
    let area = area(path)?;
    draw!(area, texts, lines, 0.0..x.1, 0.0..y.1 * 1.35, false);
    Ok(())
}

/// Draws horizontal bars, each with its name and number.
///
/// # Errors
/// When the file cannot be written.
pub fn bars(path: &Path, title: &str, bars: &[(String, f64)]) -> anyhow::Result<()> {
    let area = area(path)?;
    let most = bars.iter().map(|bar| bar.1).fold(1.0, f64::max);
    let text = |size: u32| (FONT, size).into_font().color(&BLACK);
    let middle = text(18).pos(Pos::new(HPos::Center, VPos::Center));
    area.draw(&Text::new(title.to_owned(), (SIZE.0 as i32 / 2, 28), middle)).map_err(error)?;
    let step = (SIZE.1 as i32 - 70) / bars.len().max(1) as i32;
    for (index, (name, number)) in bars.iter().enumerate() {
        let (top, left) = (58 + step * index as i32, 290);
        let width = (number / most * 380.0).max(1.0) as i32;
        let color = if name.starts_with("Streamer") { COLORS[0] } else { RGBColor(150, 160, 175) };
        let bar = Rectangle::new([(left, top), (left + width, top + step * 3 / 5)], color.filled());
        area.draw(&bar).map_err(error)?;
        let at = top + step * 3 / 10;
        let name_style = text(14).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(name.clone(), (left - 10, at), name_style)).map_err(error)?;
        let number_style = text(14).pos(Pos::new(HPos::Left, VPos::Center));
        let number = crate::table::count(*number as u64);
        area.draw(&Text::new(number, (left + width + 8, at), number_style)).map_err(error)?;
    }
    area.present().map_err(error)
}
