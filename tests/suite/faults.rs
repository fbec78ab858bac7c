//! Whatever breaks: the response is in time and right, and nothing is lost. The cells of
//! docs/reliability.md.

mod connections;
mod deadlines;
mod processes;
mod schedules;

use harness::{Database, PATIENCE, Response};

/// A response, which has to come before the patience ends.
pub async fn in_time(response: impl Future<Output = Response>) -> Response {
    let response = tokio::time::timeout(PATIENCE, response).await;
    response.expect("no response in time")
}

/// How many users have this number.
pub async fn rows(database: &Database, phone: &str) -> i64 {
    let client = database.connect().await;
    let count = "SELECT count(*) FROM users WHERE phone_number = $1";
    client.query_one(count, &[&phone]).await.unwrap().get(0)
}
