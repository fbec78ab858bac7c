//! What more than one function of OTP Auth needs: storage access, OTP logic and the HTTP edge.
//!
//! One module per thing, named after the thing. The functions depend on this crate and never on
//! each other; nothing in here knows which function it serves.

pub mod api;
pub mod aws;
pub mod challenge;
pub mod config;
pub mod connect;
pub mod device;
pub mod otp;
pub mod phone;
mod random;
pub mod serve;
pub mod sessions;
pub mod sms;
pub mod telemetry;
pub mod token;
pub mod users;
