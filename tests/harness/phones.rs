//! Phone numbers that no other test uses, and what was sent to them.

use serde_json::Value;

/// A German mobile number, one of a hundred million.
pub fn fresh_phone() -> String {
    format!("+49151{:08}", crate::random_number() % 100_000_000)
}

/// Another number of the same range, of which there are a thousand.
pub fn neighbour(phone: &str, last: usize) -> String {
    format!("{}{last:03}", &phone[..phone.len() - 3])
}

/// The messages that moto's SNS was given for this number, oldest first.
pub async fn messages_to(phone: &str) -> Vec<String> {
    let endpoint = crate::variable("AWS_ENDPOINT_URL_SNS")
        .expect("AWS_ENDPOINT_URL_SNS: run through scripts/with-services.sh --sns --pgbouncer");
    let data: Value = reqwest::get(format!("{endpoint}/moto-api/data.json"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let messages = data["sns"]["SMS"].as_array().into_iter().flatten();
    messages
        .filter(|sms| sms["phone_number"] == phone)
        .map(|sms| sms["message"].as_str().unwrap().to_owned())
        .collect()
}
