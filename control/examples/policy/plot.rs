//! Lines over time, as SVG.
#![allow(unreachable_pub, reason = "an example is no crate anybody looks into")]

use std::fmt::Write;

/// A line with a name.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Lines over a common axis that begins at nothing.
pub struct Plot {
    pub title: String,
    pub x: String,
    pub y: String,
    pub lines: Vec<Line>,
    /// Moments with a name.
    pub marks: Vec<(f64, String)>,
    /// The end of the upright axis.
    pub top: f64,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const COLOURS: [&str; 4] = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd"];

impl Plot {
    /// The plot, whole.
    pub fn svg(&self) -> String {
        let end = self.lines.iter().flat_map(|line| &line.points).map(|(x, _)| *x).fold(1.0, f64::max);
        let (inner_w, inner_h) = (WIDTH - LEFT - 20.0, HEIGHT - TOP - 50.0);
        let x = |value: f64| LEFT + value / end * inner_w;
        let y = |value: f64| TOP + inner_h - (value / self.top).min(1.0) * inner_h;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
            self.title
        );
        for step in 0..=5 {
            let value = self.top * f64::from(step) / 5.0;
            let at = y(value);
            let _ = write!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>\n",
                LEFT + inner_w,
                LEFT - 6.0,
                at + 4.0,
            );
        }
        for step in 0..=6 {
            let value = end * f64::from(step) / 6.0;
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{value:.0}</text>",
                x(value),
                HEIGHT - 30.0
            );
        }
        for (at, name) in &self.marks {
            let at = x(*at);
            let _ = write!(
                out,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.0}\" stroke=\"#999\" stroke-dasharray=\"4 3\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.0}\" fill=\"#555\">{name}</text>\n",
                TOP + inner_h,
                at + 4.0,
                TOP + 12.0,
            );
        }
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let points: Vec<String> = line.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
            let _ = writeln!(
                out,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.3\" points=\"{}\"/>",
                points.join(" ")
            );
        }
        for (at, (line, colour)) in self.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let from = WIDTH - 300.0 + at as f64 * 95.0;
            let _ = writeln!(
                out,
                "<text x=\"{from:.0}\" y=\"{:.0}\" fill=\"{colour}\">\u{25a0} {}</text>",
                HEIGHT - 8.0,
                line.name
            );
        }
        let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{:.0}\">{} over {}</text>\n</svg>", HEIGHT - 8.0, self.y, self.x);
        out
    }
}
