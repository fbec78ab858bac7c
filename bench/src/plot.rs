//! Where a cold and a warm request spend their time, as an SVG.

use std::fmt::Write;

use crate::{
    starts::{Measured, Parts, Starts},
    table::Times,
};

/// The parts of a bar, from the left, and their colours.
const PARTS: [(&str, &str); 7] = [
    ("start of an empty function", "#b8b8b8"),
    ("rest of the start", "#6f6f6f"),
    ("Runtime API", "#d9d9d9"),
    ("our code", "#e69f00"),
    ("Redis", "#d55e00"),
    ("Postgres", "#0072b2"),
    ("SMS provider", "#009e73"),
];

const WIDTH: f64 = 840.0;
const LABELS: f64 = 170.0;
const BARS: f64 = 600.0;
const ROW: f64 = 26.0;

/// Medians in milliseconds, one for each of `PARTS`.
type Bar = [f64; PARTS.len()];

pub fn draw(measured: &Measured) -> String {
    let Measured {
        empty,
        signup,
        secure,
        verify,
        session,
    } = measured;
    let rows = [
        ("empty function", empty),
        ("sign-up", signup),
        ("sign-up, SNS, all TLS", secure),
        ("verify", verify),
        ("refresh", session),
    ];
    let floor = median(&empty.start);
    let cold = rows.map(|(label, starts)| (label, cold(starts, floor)));
    let warm = rows.map(|(label, starts)| (label, request(&starts.warm, &starts.warm_parts)));
    let mut svg = String::new();
    let mut y = 24.0;
    panel(
        &mut svg,
        &mut y,
        "A cold request: the start, and the first request",
        &cold,
    );
    panel(&mut svg, &mut y, "A warm request", &warm);
    for (index, (name, colour)) in (0_u8..).zip(PARTS) {
        let x = 16.0 + f64::from(index % 4) * 206.0;
        let y = y + f64::from(index / 4) * 20.0;
        rectangle(&mut svg, [x, y, 12.0, 12.0], colour);
        text(&mut svg, [x + 18.0, y + 11.0], "", name);
    }
    let height = y + 40.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n{svg}</svg>\n"
    )
}

fn cold(starts: &Starts, floor: f64) -> Bar {
    let mut bar = request(&starts.first, &starts.first_parts);
    bar[0] = floor;
    bar[1] = median(&starts.start) - floor;
    bar
}

fn request(times: &Times, parts: &Parts) -> Bar {
    let [latency, redis, postgres, provider] = [
        &parts.latency,
        &parts.redis,
        &parts.postgres,
        &parts.provider,
    ]
    .map(median);
    let api = median(times) - latency;
    let own = latency - redis - postgres - provider;
    [0.0, 0.0, api, own, redis, postgres, provider]
}

/// Milliseconds; none for what did not happen.
fn median(times: &Times) -> f64 {
    if times.is_empty() {
        0.0
    } else {
        times.median() / 1e3
    }
}

fn panel(svg: &mut String, y: &mut f64, title: &str, rows: &[(&str, Bar)]) {
    text(svg, [16.0, *y], " font-weight=\"bold\"", title);
    *y += 12.0;
    let longest = rows.iter().map(|(_, bar)| bar.iter().sum());
    let scale = BARS / longest.fold(0.0, f64::max);
    for (label, bar) in rows {
        text(svg, [16.0, *y + 14.0], "", label);
        let mut x = LABELS;
        for (part, (_, colour)) in bar.iter().zip(PARTS) {
            let width = part.max(0.0) * scale;
            rectangle(svg, [x, *y, width, ROW - 8.0], colour);
            x += width;
        }
        let total = format!("{:.2} ms", bar.iter().sum::<f64>());
        text(svg, [x + 6.0, *y + 14.0], "", &total);
        *y += ROW;
    }
    *y += 28.0;
}

fn rectangle(svg: &mut String, [x, y, width, height]: [f64; 4], colour: &str) {
    let _infallible = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
         fill=\"{colour}\"/>"
    );
}

fn text(svg: &mut String, [x, y]: [f64; 2], style: &str, text: &str) {
    let _infallible = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\"{style}>{text}</text>");
}
