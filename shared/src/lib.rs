//! The common crate of all functions: storage access, OTP logic and the HTTP edge.
//!
//! Functions depend on this crate and never on each other. Nothing here knows which function it
//! serves.

pub mod api;
mod aws;
pub mod challenge;
pub mod config;
pub mod current;
pub mod device;
pub mod iam;
pub mod lambda;
pub mod name;
pub mod otp;
pub mod phone;
pub mod random;
pub mod secret;
pub mod sessions;
pub mod sign_in;
pub mod sms;
pub mod store;
pub mod telemetry;
pub mod test_numbers;
pub mod token;
pub mod users;
