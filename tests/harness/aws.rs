//! moto, which serves Secrets Manager as well as SNS.

use serde_json::{Value, json};

use crate::{random_number, variable};

/// The address of moto.
pub fn moto() -> String {
    variable("AWS_ENDPOINT_URL_SNS")
        .expect("AWS_ENDPOINT_URL_SNS: run through scripts/with-services.sh --sns --pgbouncer")
}

/// Makes a secret, with this text or without a value, and returns its ARN.
pub async fn create_secret(text: Option<&str>) -> String {
    let name = format!("otp-auth-{:016x}", random_number());
    let mut request = json!({"Name": name});
    if let Some(text) = text {
        request["SecretString"] = text.into();
    }
    let reply = secrets_manager("CreateSecret", &request).await;
    reply["ARN"].as_str().unwrap().to_owned()
}

/// Replaces the text of a secret.
pub async fn put_secret(arn: &str, text: &str) {
    let request = json!({"SecretId": arn, "SecretString": text});
    let reply = secrets_manager("PutSecretValue", &request).await;
    assert_eq!(reply["ARN"], arn);
}

/// The text of a secret, if it has one.
pub async fn secret_text(arn: &str) -> Option<String> {
    let reply = secrets_manager("GetSecretValue", &json!({"SecretId": arn})).await;
    reply["SecretString"].as_str().map(str::to_owned)
}

/// SNS's settings for the account.
pub async fn sms_attributes() -> String {
    let form = "Action=GetSMSAttributes&Version=2010-03-31";
    let reply = request(
        "sns",
        "application/x-www-form-urlencoded",
        "",
        form.to_owned(),
    );
    reply.await.text().await.unwrap()
}

async fn secrets_manager(operation: &str, body: &Value) -> Value {
    let target = format!("secretsmanager.{operation}");
    let json = "application/x-amz-json-1.1";
    let reply = request("secretsmanager", json, &target, body.to_string());
    reply.await.json().await.unwrap()
}

async fn request(service: &str, kind: &str, target: &str, body: String) -> reqwest::Response {
    let signature = format!(
        "AWS4-HMAC-SHA256 Credential=testing/20261122/us-east-1/{service}/aws4_request, \
         SignedHeaders=host, Signature=0"
    );
    reqwest::Client::new()
        .post(moto())
        .header("X-Amz-Target", target)
        .header("Content-Type", kind)
        .header("Authorization", signature)
        .body(body)
        .send()
        .await
        .unwrap()
}
