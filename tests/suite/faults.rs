//! Whatever breaks: the response is in time and right, and nothing is lost. The cells of
//! docs/reliability.md.

mod connections;
mod deadlines;
mod processes;
mod schedules;
