//! Phone numbers that no other test uses, and what was sent to them.

use serde_json::Value;

/// A German mobile number, one of fifty million. Its last three digits are none that tests give to
/// [`neighbour`], and do not end in 99, which moto takes for opted out.
pub fn fresh_phone() -> String {
    let (range, last) = (crate::random_number() % 100_000, crate::random_number());
    let last = 500 + last % 499;
    let last = if last % 100 == 99 { last - 1 } else { last };
    format!("+49151{range:05}{last}")
}

/// Another number of the same range. `last` is below 500, or 999.
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
