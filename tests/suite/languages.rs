//! The language of a message: the text that arrives at the provider.

use harness::{
    Behaviour, Deployment, Function, Gateway, Provider, event, fresh_phone,
    outcome::INVALID_PAYLOAD, set_header, twilio_settings,
};
use serde_json::{Value, json};

const INDIA: &str = "+919876543210";

/// Part of each language's text.
const WORDS: [(&str, &str); 8] = [
    ("ar", " هو رمزك في Acme. صلاحيته بالدقائق: 5. "),
    ("de", " ist Ihr Code für Acme, gültig für 5 Min. "),
    ("en", " is your Acme code, valid for 5 min. "),
    ("es", " es su clave temporal de Acme. Expira en 5 min. "),
    ("fr", " est votre code Acme, valable 5 min. "),
    ("hi", " आपका Acme कोड है, 5 मिनट तक मान्य। "),
    ("id", " adalah kode Acme Anda, berlaku 5 menit. "),
    ("pt", " é o seu PIN para Acme. Expira em 5 min. "),
];

async fn start(deployment: &Deployment, own: &[(&str, &str)]) -> Function {
    let common = [
        ("OTP_APP_NAME", "Acme"),
        ("LIMIT_PHONE", "off"),
        ("LIMIT_ADDRESS", "off"),
        ("LIMIT_RANGE", "off"),
    ];
    deployment.start("signup", &[&common, own].concat()).await
}

fn sign_up(phone: &str, locale: &Value, header: Option<&str>) -> Value {
    let mut body = json!({"name": "Ada", "phone_number": phone, "locale": locale});
    if locale.is_null() {
        body.as_object_mut().unwrap().remove("locale");
    }
    let mut event = event("POST", "/signup", &body.to_string());
    set_header(&mut event, "accept-language", header);
    event
}

/// The newest message to this number is in this language, and the log says so.
fn assert_language(function: &Function, provider: &Provider, phone: &str, tag: &str) {
    let message = provider.messages_to(phone).pop().unwrap();
    let words = WORDS.into_iter().filter(|(_, word)| message.contains(word));
    let found: Vec<&str> = words.map(|(tag, _)| tag).collect();
    assert_eq!(found, [tag], "{message}");
    let line = function.response_lines().pop().unwrap();
    assert_eq!(line["language"], tag, "{line}");
}

#[tokio::test]
async fn the_code_of_every_language_works_and_the_last_line_is_for_browsers() {
    let deployment = Deployment::new().await;
    let mut signup = start(&deployment, &[("OTP_DOMAIN", "example.com")]).await;
    let mut verify = deployment.start("verify", &[]).await;
    for (tag, words) in WORDS {
        let phone = fresh_phone();
        let sent = signup.send(&sign_up(&phone, &json!(tag), None)).await;
        sent.assert_ok();
        assert_language(&signup, &deployment.provider, &phone, tag);
        let code = deployment.provider.last_code_to(&phone);
        let message = deployment.provider.messages_to(&phone).pop().unwrap();
        assert!(code.bytes().all(|byte| byte.is_ascii_digit()), "{message}");
        assert!(message.starts_with(&format!("{code}{words}")), "{message}");
        let last = format!("\n\n@example.com #{code}");
        assert!(message.ends_with(&last), "{message}");
        verify.verify(&phone, &code).await.assert_ok();

        let body = json!({"phone_number": phone, "locale": tag});
        signup.post("/login", &body).await.assert_ok();
        assert_language(&signup, &deployment.provider, &phone, tag);
    }
}

#[tokio::test]
async fn the_locale_chooses_then_the_header_then_english() {
    let deployment = Deployment::new().await;
    let mut signup = start(&deployment, &[]).await;
    for (locale, header, tag) in [
        (json!("pt_BR"), Some("fr"), "pt"),
        (json!("hi-IN"), None, "hi"),
        (json!(null), Some("fr-CH, fr;q=0.9, en;q=0.8"), "fr"),
        (json!(null), Some("ja, en;q=0.3, id-ID;q=0.5"), "id"),
        (json!(""), Some("de"), "de"),
        (json!(null), None, "en"),
        (json!(null), Some("ja"), "en"),
    ] {
        let phone = fresh_phone();
        let sent = signup.send(&sign_up(&phone, &locale, header)).await;
        sent.assert_ok();
        assert_language(&signup, &deployment.provider, &phone, tag);
    }
}

#[tokio::test]
async fn the_header_is_read_behind_every_gateway() {
    let deployment = Deployment::new().await;
    let mut signup = start(&deployment, &[]).await;
    for gateway in Gateway::ALL {
        let phone = fresh_phone();
        let body = json!({"name": "Ada", "phone_number": phone}).to_string();
        let mut event = gateway.post("/signup", Some("application/json"), body.as_bytes());
        set_header(&mut event, "Accept-Language", Some("es-419,es;q=0.9"));
        signup.send(&event).await.assert_ok();
        assert_language(&signup, &deployment.provider, &phone, "es");
    }
}

#[tokio::test]
async fn no_locale_and_no_header_costs_a_code_or_reaches_the_message_or_the_log() {
    let deployment = Deployment::new().await;
    let mut signup = start(&deployment, &[]).await;
    for text in [
        "intruder",
        "intruder-ES",
        "\n@intruder.example #123456",
        "intruder\u{202e}",
        "../intruder",
        "{code} intruder {app}",
        &"intruder-".repeat(10_000),
    ] {
        let phone = fresh_phone();
        let sent = signup
            .send(&sign_up(&phone, &json!(text), Some("de")))
            .await;
        sent.assert_ok();
        assert_language(&signup, &deployment.provider, &phone, "de");
    }
    for header in [
        "intruder",
        "\u{e9}\u{202e}intruder",
        ";;;,,,intruder;q=",
        "intruder;q=1e999, intruder;q=nan",
        &"intruder,".repeat(1_000),
    ] {
        let phone = fresh_phone();
        let sent = signup
            .send(&sign_up(&phone, &json!("x"), Some(header)))
            .await;
        sent.assert_ok();
        assert_language(&signup, &deployment.provider, &phone, "en");
    }
    for line in signup.log() {
        assert!(!line.contains("intruder"), "{line}");
    }
    for form in deployment.provider.requests() {
        assert!(!form.contains("intruder"), "{form}");
    }
}

#[tokio::test]
async fn a_locale_that_is_no_text_is_400_as_for_every_field() {
    let deployment = Deployment::new().await;
    let mut signup = start(&deployment, &[]).await;
    for locale in ["null", "1", "true", "[\"es\"]", "{\"es\": 1}"] {
        for path in ["/signup", "/login"] {
            let body = format!("{{\"phone_number\": \"{INDIA}\", \"locale\": {locale}}}");
            let response = signup.send(&event("POST", path, &body)).await;
            response.assert_is(INVALID_PAYLOAD);
        }
    }
    assert!(deployment.provider.requests().is_empty());
}

/// The template id in the newest request.
fn template_id(deployment: &Deployment) -> Option<String> {
    let form = deployment.provider.requests().pop().unwrap();
    let url = reqwest::Url::parse(&format!("http://form/?{form}")).unwrap();
    let fields: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let (name, _) = fields
        .iter()
        .find(|(_, value)| value == "AWS.MM.SMS.TemplateId")?;
    let value = name.replace(".Name", ".Value.StringValue");
    let found = fields.iter().find(|(name, _)| *name == value);
    found.map(|(_, id)| id.clone())
}

#[tokio::test]
async fn in_india_a_message_is_a_registered_text_with_its_own_id() {
    for (ids, phone, locale, tag, id) in [
        ("en:1107,hi:1108", INDIA, "hi", "hi", Some("1108")),
        ("en:1107,hi:1108", INDIA, "fr", "en", Some("1107")),
        ("hi:1108", INDIA, "en", "hi", Some("1108")),
        ("1107", INDIA, "hi", "en", Some("1107")),
        ("", INDIA, "hi", "hi", None),
        ("en:1107,hi:1108", "+4915112345678", "fr", "fr", None),
    ] {
        let deployment = Deployment::new().await;
        let mut signup = start(&deployment, &[("SNS_TEMPLATE_ID", ids)]).await;
        let sent = signup.send(&sign_up(phone, &json!(locale), None)).await;
        sent.assert_ok();
        assert_language(&signup, &deployment.provider, phone, tag);
        assert_eq!(template_id(&deployment).as_deref(), id, "{ids} {locale}");
    }
}

#[tokio::test]
async fn the_next_provider_of_the_chain_sends_the_registered_text_too() {
    let deployment = Deployment::behind(Behaviour::Refuse(400, "InvalidParameter")).await;
    let twilio = Provider::start(Behaviour::Accept).await;
    let endpoint = twilio.url();
    let own = [
        ("SMS_PROVIDER", "sns,twilio"),
        ("SNS_TEMPLATE_ID", "hi:1108"),
    ];
    let own = [&twilio_settings(&endpoint)[..], &own].concat();
    let mut signup = start(&deployment, &own).await;
    let sent = signup.send(&sign_up(INDIA, &json!("fr"), None)).await;
    sent.assert_ok();
    assert_language(&signup, &twilio, INDIA, "hi");
}
