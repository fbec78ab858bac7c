//! `migrate`'s check of the account's SMS set-up.

use harness::{Function, Invocation, SmsAccount};
use serde_json::{Value, json};
use tokio::process::Command as Process;

/// Out of the sandbox, with a limit that was raised, a delivery log and a number that sends.
fn good_account() -> SmsAccount {
    SmsAccount {
        in_sandbox: false,
        origination_numbers: vec![
            ("+18005550100", "US", &["SMS", "VOICE"], "ACTIVE"),
            ("+18005550101", "US", &["SMS"], "PENDING"),
        ],
        attributes: vec![
            ("MonthlySpendLimit", "500"),
            ("DefaultSMSType", "Transactional"),
            (
                "DeliveryStatusIAMRole",
                "arn:aws:iam::123456789012:role/SnsDelivery",
            ),
            ("DeliveryStatusSuccessSamplingRate", "100"),
        ],
        ..SmsAccount::default()
    }
}

/// As AWS makes one.
fn fresh_account() -> SmsAccount {
    SmsAccount {
        in_sandbox: true,
        attributes: vec![("MonthlySpendLimit", "1")],
        ..SmsAccount::default()
    }
}

/// An American number with this end. moto has opted out those that end with 99.
fn american(end: &str) -> String {
    let random = harness::random_number() % 1_000_000;
    let (of_exchange, line) = (random / 10_000, random / 100 % 100);
    format!("+14155{of_exchange:02}{line:02}{end}")
}

fn masked(phone: &str) -> String {
    format!("{}*****{}", &phone[..5], &phone[10..])
}

/// The function `migrate` with a database that is not there: this command needs none.
async fn start(account: SmsAccount) -> Function {
    let endpoint = account.serve().await;
    let settings = [
        ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL_SNS", &endpoint),
    ];
    Function::start("migrate", settings).await
}

/// The report of the Lambda function, which holds no whole number.
async fn report(account: SmsAccount, phone: Option<&str>) -> Value {
    let mut migrate = start(account).await;
    let event = match phone {
        Some(phone) => json!({"command": "sms", "phone_number": phone}),
        None => json!({"command": "sms"}),
    };
    let Invocation::Responded(report) = migrate.invoke(&event).await else {
        panic!("{:#?}", migrate.log())
    };
    if let Some(phone) = phone {
        assert!(!report.to_string().contains(&phone[1..]), "{report}");
    }
    report
}

/// The sentences about what is in the way, one for each of these beginnings.
#[track_caller]
fn assert_in_the_way(report: &Value, beginnings: &[&str]) {
    let sentences = report["in_the_way"].as_array().unwrap();
    assert_eq!(sentences.len(), beginnings.len(), "{report:#}");
    for (sentence, beginning) in sentences.iter().zip(beginnings) {
        assert!(
            sentence.as_str().unwrap().starts_with(beginning),
            "{report:#}"
        );
    }
}

const SANDBOX: &str = "The account is in the SMS sandbox";

#[tokio::test]
async fn of_a_good_account_it_reports_the_facts_and_nothing_in_the_way() {
    let phone = american("00");
    assert_eq!(
        report(good_account(), Some(&phone)).await,
        json!({
            "region": "us-east-1",
            "in_sandbox": false,
            "sandbox_numbers": [],
            "settings": {
                "monthly_spend_limit_usd": "500",
                "default_sms_type": "Transactional",
                "delivery_log_role": "arn:aws:iam::123456789012:role/SnsDelivery",
                "delivery_log_success_percent": "100",
            },
            "origination_numbers": [
                {"number": "+18005550100", "country": "US", "capabilities": ["SMS", "VOICE"],
                 "status": "ACTIVE"},
                {"number": "+18005550101", "country": "US", "capabilities": ["SMS"],
                 "status": "PENDING"},
            ],
            "phone": {"number": masked(&phone), "opted_out": false},
            "in_the_way": [],
            "not_checked": [],
        })
    );
}

#[tokio::test]
async fn the_sandbox_and_the_limit_of_a_fresh_account_are_in_the_way() {
    let fresh = report(fresh_account(), None).await;
    assert_in_the_way(&fresh, &[SANDBOX, "The monthly spend limit is 1 USD"]);
    assert_eq!(fresh["phone"], Value::Null);
    let no_settings = SmsAccount {
        attributes: Vec::new(),
        ..fresh_account()
    };
    let unset = report(no_settings, None).await;
    assert_in_the_way(&unset, &[SANDBOX, "No monthly spend limit is set"]);
    assert_eq!(unset["settings"]["delivery_log_role"], Value::Null);
}

#[tokio::test]
async fn in_the_sandbox_only_a_verified_number_gets_messages() {
    let [verified, pending, other] = ["01", "02", "03"].map(american);
    let account = SmsAccount {
        in_sandbox: true,
        sandbox_numbers: vec![(verified.clone(), "Verified"), (pending.clone(), "Pending")],
        ..good_account()
    };
    for phone in [&pending, &other] {
        let report = report(account.clone(), Some(phone)).await;
        let not_verified = format!("{} is not verified", masked(phone));
        assert_in_the_way(&report, &[SANDBOX, &not_verified]);
        assert!(!report.to_string().contains(&verified[1..]), "{report}");
    }
    let report = report(account, Some(&verified)).await;
    assert_in_the_way(&report, &[SANDBOX]);
    assert_eq!(
        report["sandbox_numbers"],
        json!([
            {"number": masked(&verified), "status": "Verified"},
            {"number": masked(&pending), "status": "Pending"},
        ])
    );
}

#[tokio::test]
async fn an_opt_out_is_in_the_way() {
    let phone = american("99");
    let report = report(good_account(), Some(&phone)).await;
    assert_eq!(report["phone"]["opted_out"], true);
    assert_in_the_way(&report, &[&format!("{} has opted out", masked(&phone))]);
}

#[tokio::test]
async fn the_us_need_an_active_number_of_the_us() {
    let with = |origination_numbers| SmsAccount {
        origination_numbers,
        ..good_account()
    };
    let none = || with(vec![("+447700900000", "GB", &["SMS"], "ACTIVE")]);
    let needs_one = "Carriers in the US refuse";
    let american = american("00");
    assert_in_the_way(&report(none(), Some(&american)).await, &[needs_one]);
    assert_in_the_way(&report(none(), Some("+4915112345678")).await, &[]);
    assert_in_the_way(&report(none(), None).await, &[]);
    let voice = with(vec![("+18005550100", "US", &["VOICE"], "ACTIVE")]);
    assert_in_the_way(&report(voice, Some(&american)).await, &[needs_one]);
    let pending = with(vec![("+18005550100", "US", &["SMS"], "PENDING")]);
    let not_yet = "The origination number +18005550100 is PENDING";
    assert_in_the_way(&report(pending, Some(&american)).await, &[not_yet]);
}

#[tokio::test]
async fn an_action_that_is_denied_is_reported_and_hides_no_other() {
    const ACTIONS: [&str; 5] = [
        "ListSMSSandboxPhoneNumbers",
        "GetSMSSandboxAccountStatus",
        "GetSMSAttributes",
        "ListOriginationNumbers",
        "CheckIfPhoneNumberIsOptedOut",
    ];
    let phone = american("99");
    let reason = |action| format!("{action}: AuthorizationError (HTTP 403)");
    for denied in ACTIONS {
        let account = SmsAccount {
            in_sandbox: true,
            denied: vec![denied],
            ..good_account()
        };
        let report = report(account, Some(&phone)).await;
        assert_eq!(report["not_checked"], json!([reason(denied)]));
        let facts = [
            "sandbox_numbers",
            "in_sandbox",
            "settings",
            "origination_numbers",
        ];
        let facts = facts.map(|fact| &report[fact]);
        let opted_out = &report["phone"]["opted_out"];
        for (action, fact) in ACTIONS.iter().zip(facts.into_iter().chain([opted_out])) {
            assert_eq!(fact.is_null(), *action == denied, "{report:#}");
        }
    }
    let account = SmsAccount {
        denied: ACTIONS.to_vec(),
        ..fresh_account()
    };
    let report = report(account, Some(&phone)).await;
    assert_eq!(report["not_checked"], json!(ACTIONS.map(reason)));
    assert_in_the_way(&report, &[]);
}

#[tokio::test]
async fn an_event_that_is_wrong_fails_and_its_number_is_not_quoted() {
    let mut migrate = start(good_account()).await;
    let phone = american("00");
    let digits: u64 = phone[1..].parse().unwrap();
    for bad in [
        json!({"command": "sms", "phone_number": digits}),
        json!({"command": "sms", "phone_number": format!("{phone}0")}),
        json!({"command": "sms", "phone_number": &phone[1..]}),
        json!({"command": "sms", "phone_number": [phone]}),
        json!({"command": "sms", "phone": phone}),
        json!({"command": "up", "phone_number": phone}),
        json!({"command": phone}),
    ] {
        assert!(
            matches!(migrate.invoke(&bad).await, Invocation::Failed),
            "{bad}"
        );
        let log = migrate.log().join("\n");
        assert!(!log.contains(&phone[1..]), "{log}");
    }
}

/// The command line with nothing in its environment but these settings: its success, and what it
/// prints.
async fn run(words: &[&str], settings: &[(&str, &str)]) -> (bool, String) {
    let output = Process::new(harness::binary("migrate").await)
        .args(words)
        .env_clear()
        .envs([
            ("AWS_ACCESS_KEY_ID", "testing"),
            ("AWS_SECRET_ACCESS_KEY", "testing"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ])
        .envs(settings.iter().copied())
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), printed)
}

#[tokio::test]
async fn on_the_command_line_it_needs_no_database_and_prints_a_fact_a_line() {
    let phone = american("99");
    let account = SmsAccount {
        sandbox_numbers: vec![(phone.clone(), "Verified")],
        origination_numbers: Vec::new(),
        denied: vec!["GetSMSAttributes"],
        ..fresh_account()
    };
    let endpoint = account.serve().await;
    let settings = [
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL_SNS", &*endpoint),
    ];
    let (succeeded, printed) = run(&["sms", &phone], &settings).await;
    assert!(succeeded, "{printed}");
    let masked = masked(&phone);
    for (line, expected) in printed.lines().zip([
        "region: us-east-1",
        "SMS sandbox: yes",
        &format!("number in the sandbox: {masked} Verified"),
        "origination numbers: none",
        &format!("{masked}: opted out"),
        "not checked: GetSMSAttributes: AuthorizationError (HTTP 403)",
        "in the way: The account is in the SMS sandbox",
        &format!("in the way: {masked} has opted out"),
        "in the way: Carriers in the US",
    ]) {
        assert!(line.starts_with(expected), "{expected}: {printed}");
    }
    assert_eq!(printed.lines().count(), 9, "{printed}");

    let endpoint = good_account().serve().await;
    let settings = [
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL_SNS", &*endpoint),
    ];
    let (succeeded, printed) = run(&["sms"], &settings).await;
    assert!(
        succeeded && printed.ends_with("in the way: nothing\n"),
        "{printed}"
    );
}

#[tokio::test]
async fn without_a_region_or_with_a_wrong_number_the_command_line_says_so() {
    let (succeeded, printed) = run(&["sms"], &[]).await;
    assert!(
        !succeeded && printed.contains("AWS_REGION is not set"),
        "{printed}"
    );
    let (succeeded, printed) = run(&["sms", "+141555526"], &[("AWS_REGION", "us-east-1")]).await;
    assert!(
        !succeeded && printed.contains("not a possible phone number"),
        "{printed}"
    );
    assert!(!printed.contains("141555526"), "{printed}");
}

#[tokio::test]
async fn an_sns_that_cannot_be_reached_is_not_checked() {
    let closed = format!("http://127.0.0.1:{}", harness::free_port());
    let settings = [
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL_SNS", &*closed),
    ];
    let (succeeded, printed) = run(&["sms"], &settings).await;
    assert!(succeeded, "{printed}");
    assert_eq!(printed.matches("not checked: ").count(), 4, "{printed}");
    assert!(
        printed.ends_with("in the way: nothing of what was checked\n"),
        "{printed}"
    );
}
