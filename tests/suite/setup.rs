//! Setting up a deployment: the exchange with CloudFormation, the secrets, the schema, the roles and
//! their rights, SNS's settings.

use std::time::Duration;

use harness::{
    Behaviour, Database, Function, Functions, Invocation, PATIENCE, Provider, Sandbox, Service,
    Tokens, create_secret, event, fresh_phone, moto, put_secret, secret_text, set_header,
    signing_key, sms_attributes, until,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tokio_postgres::{NoTls, error::SqlState};

const STACK: &str = "arn:aws:cloudformation:us-east-1:123456789012:stack/otp/feedbeef";

/// The lock that a running setup holds.
const TAKE_LOCK: &str = "SELECT pg_advisory_lock(x'6f74705f73657475'::bigint)";

/// A deployment before its first setup.
struct Stack {
    database: Database,
    sign_in: String,
    signup: String,
    /// Receives the responses.
    cloudformation: Provider,
}

/// All kinds of requests.
const REQUESTS: [&str; 3] = ["Create", "Update", "Delete"];

impl Stack {
    /// Its secrets have no value.
    async fn new() -> Self {
        Self::with_secrets(None, None).await
    }

    async fn with_secrets(sign_in: Option<&Value>, signup: Option<&Value>) -> Self {
        let text = |value: Option<&Value>| value.map(Value::to_string);
        Self {
            database: Database::empty().await,
            sign_in: create_secret(text(sign_in).as_deref()).await,
            signup: create_secret(text(signup).as_deref()).await,
            cloudformation: Provider::start(Behaviour::Accept).await,
        }
    }

    async fn migrate(&self) -> Function {
        self.migrate_with(Sandbox::default(), &[]).await
    }

    /// Later settings replace earlier ones.
    async fn migrate_with(&self, sandbox: Sandbox, own: &[(&str, &str)]) -> Function {
        let (moto, database_url) = (moto(), self.database.url());
        let settings = [
            ("DATABASE_URL", database_url.as_str()),
            ("SIGN_IN_SECRET_ARN", &self.sign_in),
            ("SIGNUP_SECRET_ARN", &self.signup),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL_SNS", &moto),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &moto),
        ];
        let settings = settings.into_iter().chain(own.iter().copied());
        Function::start_in(sandbox, "migrate", settings).await
    }

    fn request(&self, kind: &str, sms: &Value) -> Value {
        let url = format!(
            "{}/response?X-Amz-Signature=5ec5e7",
            self.cloudformation.url()
        );
        let mut request = json!({
            "RequestType": kind,
            "ResponseURL": url,
            "StackId": STACK,
            "RequestId": "feedbeef-feed-beef",
            "LogicalResourceId": "Setup",
            "ResourceType": "Custom::Setup",
            "ResourceProperties": {
                "ServiceToken": "arn:aws:lambda:us-east-1:123456789012:function:migrate",
                "ServiceTimeout": "320",
                "Release": "1",
                "SmsAttributes": sms,
            },
        });
        if kind != "Create" {
            request["PhysicalResourceId"] = "otp-auth-setup".into();
            request["OldResourceProperties"] = json!({"Release": "0"});
        }
        request
    }

    /// Sends a request, and returns the response.
    async fn exchange(&self, migrate: &mut Function, kind: &str) -> Value {
        let request = self.request(kind, &json!({}));
        let seen = self.cloudformation.requests().len();
        assert_null(&migrate.invoke(&request).await, migrate);
        let responses = self.cloudformation.requests_after(seen);
        assert_eq!(responses.len(), 1);
        serde_json::from_str(&responses[0]).unwrap()
    }

    /// Sets up, and returns the reason why that failed.
    async fn failure(&self, migrate: &mut Function) -> String {
        let response = self.exchange(migrate, "Create").await;
        assert_eq!(response["Status"], "FAILED", "{response}");
        response["Reason"].as_str().unwrap().to_owned()
    }

    async fn set_up(&self) {
        let response = self.exchange(&mut self.migrate().await, "Create").await;
        assert_eq!(response["Status"], "SUCCESS", "{response}");
    }

    /// The members of both secrets.
    async fn secrets(&self) -> [Value; 2] {
        let members = async |arn| {
            let text = secret_text(arn).await;
            text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
        };
        [members(&self.sign_in).await, members(&self.signup).await]
    }
}

fn assert_null(invocation: &Invocation, migrate: &Function) {
    let Invocation::Responded(Value::Null) = invocation else {
        panic!("{:#?}", migrate.log())
    };
}

/// The log of a function, which is ended for that.
async fn whole_log(mut migrate: Function) -> String {
    migrate.kill().await;
    migrate.exit().await;
    migrate.log().join("\n")
}

/// The cause in the function's one error line. The runtime writes another one about a failed event.
fn only_error(log: &str) -> String {
    let is_own = |line: &Value| {
        !line["target"]
            .as_str()
            .unwrap()
            .starts_with("lambda_runtime")
    };
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let errors: Vec<Value> = lines
        .filter(|line: &Value| line["level"] == "ERROR" && is_own(line))
        .collect();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors[0]["cause"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn creating_and_updating_set_up_all_and_repeating_changes_nothing() {
    let stack = Stack::new().await;
    let mut migrate = stack.migrate().await;
    let name = stack.database.name();
    let success = |data: Value| {
        json!({
            "Status": "SUCCESS",
            "Reason": "done",
            "PhysicalResourceId": "otp-auth-setup",
            "StackId": STACK,
            "RequestId": "feedbeef-feed-beef",
            "LogicalResourceId": "Setup",
            "Data": data,
        })
    };
    let roles = json!({
        "SignupRole": format!("{name}_signup"),
        "VerifyRole": format!("{name}_verify"),
        "SessionRole": format!("{name}_session"),
    });
    let mut kept = None;
    for kind in ["Create", "Update", "Update"] {
        assert_eq!(
            stack.exchange(&mut migrate, kind).await,
            success(roles.clone())
        );
        assert_eq!(stack.database.count_users().await, 0);
        let [sign_in, signup] = stack.secrets().await;
        for name in ["OTP_PEPPER", "EDGE_SECRET"] {
            assert_eq!(sign_in[name], signup[name]);
            assert_eq!(sign_in[name].as_str().unwrap().len(), 64);
        }
        assert!(signup.get("TOKEN_PRIVATE_KEY").is_none());
        let secrets = kept.get_or_insert_with(|| [sign_in.clone(), signup.clone()]);
        assert_eq!(*secrets, [sign_in, signup], "{kind}");
    }
    let deleted = stack.exchange(&mut migrate, "Delete").await;
    assert_eq!(deleted, success(json!({})));
    assert_eq!(stack.database.count_users().await, 0);

    // What S3 takes at a signed address.
    for head in stack.cloudformation.heads() {
        let head = head.to_lowercase();
        assert!(
            head.starts_with("put /response?x-amz-signature=5ec5e7 http/1.1\r\n"),
            "{head}"
        );
        assert!(
            head.contains("content-length: ") && !head.contains("transfer-encoding"),
            "{head}"
        );
        assert!(!head.contains("content-type"), "{head}");
    }
    let log = whole_log(migrate).await;
    for secret in kept
        .unwrap()
        .iter()
        .flat_map(|secret| secret.as_object().unwrap().values())
    {
        assert!(!log.contains(secret.as_str().unwrap()));
    }
    assert!(!log.contains("5ec5e7"), "{log}");
}

#[tokio::test]
async fn a_deletion_succeeds_though_the_stores_are_gone() {
    let stack = Stack::new().await;
    let gone = [
        ("DATABASE_URL", "postgres://otp@127.0.0.1:1/otp"),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1"),
        ("DATABASE_ADMIN_SECRET_ARN", "gone"),
    ];
    let mut migrate = stack.migrate_with(Sandbox::default(), &gone).await;
    let response = stack.exchange(&mut migrate, "Delete").await;
    assert_eq!(response["Status"], "SUCCESS");
}

#[tokio::test]
async fn a_setup_is_a_command_too() {
    let stack = Stack::new().await;
    let mut migrate = stack.migrate().await;
    let name = stack.database.name();
    let Invocation::Responded(report) = migrate.invoke(&json!({"command": "setup"})).await else {
        panic!("{:#?}", migrate.log())
    };
    assert_eq!(report["migrations"][0]["applied"], true);
    assert_eq!(
        report["roles"],
        json!([
            format!("{name}_signup"),
            format!("{name}_verify"),
            format!("{name}_session")
        ])
    );
    assert!(stack.secrets().await.iter().all(Value::is_object));
    assert!(stack.cloudformation.requests().is_empty());
}

#[tokio::test]
async fn without_secrets_it_sets_up_the_rest() {
    let stack = Stack::new().await;
    let none = [("SIGN_IN_SECRET_ARN", ""), ("SIGNUP_SECRET_ARN", "")];
    let mut migrate = stack.migrate_with(Sandbox::default(), &none).await;
    let response = stack.exchange(&mut migrate, "Create").await;
    assert_eq!(response["Status"], "SUCCESS", "{response}");
    assert_eq!(stack.secrets().await, [Value::Null, Value::Null]);
}

#[tokio::test]
async fn a_failure_is_reported_with_its_cause() {
    let stack = Stack::new().await;
    let mut migrate = stack.migrate().await;
    stack.database.run("CREATE TABLE users ()").await;
    let reason = stack.failure(&mut migrate).await;
    assert!(
        reason.starts_with("migration failed: ")
            && reason.contains("relation \"users\" already exists"),
        "{reason}"
    );
    // The next one, without the mistake, completes what this one began.
    stack.database.run("DROP TABLE users").await;
    let response = stack.exchange(&mut migrate, "Create").await;
    assert_eq!(response["Status"], "SUCCESS");
    assert_eq!(only_error(&whole_log(migrate).await), reason);
}

#[tokio::test]
async fn a_mistake_in_the_properties_is_reported() {
    let stack = Stack::new().await;
    let mut migrate = stack.migrate().await;
    let request = stack.request("Create", &json!({"MonthlySpendLimit": {"Ref": "x"}}));
    assert_null(&migrate.invoke(&request).await, &migrate);
    let response: Value = serde_json::from_str(&stack.cloudformation.requests()[0]).unwrap();
    assert_eq!(response["Status"], "FAILED");
    let reason = response["Reason"].as_str().unwrap();
    assert!(
        reason.starts_with("the properties of the custom resource are invalid: "),
        "{reason}"
    );
}

#[tokio::test]
async fn while_the_database_hangs_a_failure_is_reported_in_time() {
    let stack = Stack::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://otp@{}/otp", silent.local_addr().unwrap());
    let sandbox = Sandbox {
        timeout: Duration::from_secs(3),
        ..Sandbox::default()
    };
    let mut migrate = stack.migrate_with(sandbox, &[("DATABASE_URL", &url)]).await;
    let reason = stack.failure(&mut migrate).await;
    assert_eq!(reason, "connecting to the database did not end in time");
}

#[tokio::test]
async fn a_setup_that_waits_too_long_for_another_is_reported_in_time() {
    let stack = Stack::new().await;
    let other = stack.database.connect().await;
    other.batch_execute(TAKE_LOCK).await.unwrap();
    let sandbox = Sandbox {
        timeout: Duration::from_secs(4),
        ..Sandbox::default()
    };
    let mut migrate = stack.migrate_with(sandbox, &[]).await;
    let reason = stack.failure(&mut migrate).await;
    assert_eq!(reason, "waiting for another setup did not end in time");
}

#[tokio::test]
async fn a_response_that_was_refused_is_sent_again() {
    let stack = Stack::new().await;
    stack
        .cloudformation
        .behave(Behaviour::RefuseOnce(503, "SlowDown"));
    let mut migrate = stack.migrate().await;
    let request = stack.request("Create", &json!({}));
    assert_null(&migrate.invoke(&request).await, &migrate);
    let responses = stack.cloudformation.requests();
    assert_eq!(responses.len(), 2);
    assert_eq!(responses[0], responses[1]);
}

#[tokio::test]
async fn a_response_that_nobody_takes_is_an_error() {
    let stack = Stack::new().await;
    stack
        .cloudformation
        .behave(Behaviour::Refuse(403, "AccessDenied"));
    let mut migrate = stack.migrate().await;
    let request = stack.request("Delete", &json!({}));
    assert!(matches!(migrate.invoke(&request).await, Invocation::Failed));
    assert_eq!(
        only_error(&whole_log(migrate).await),
        "CloudFormation did not take the response: the last of 5 tries failed: HTTP 403"
    );
    assert_eq!(stack.cloudformation.requests().len(), 5);
}

#[tokio::test]
async fn a_response_goes_to_no_other_host_in_plain_text() {
    let stack = Stack::new().await;
    let mut migrate = stack.migrate().await;
    for kind in REQUESTS {
        let mut request = stack.request(kind, &json!({}));
        request["ResponseURL"] = "http://example.com/".into();
        assert!(
            matches!(migrate.invoke(&request).await, Invocation::Failed),
            "{kind}"
        );
    }
    // Nothing was done that nobody would hear of.
    assert_eq!(stack.secrets().await, [Value::Null, Value::Null]);
}

#[tokio::test]
async fn an_older_version_sets_up_beside_a_newer_schema() {
    let stack = Stack::new().await;
    let mut migrate = stack.migrate().await;
    stack.exchange(&mut migrate, "Create").await;
    let newer =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (999, 'of the next release', true, '', 0)";
    stack.database.run(newer).await;
    let response = stack.exchange(&mut migrate, "Update").await;
    assert_eq!(response["Status"], "SUCCESS", "{response}");
    // An operator is told.
    assert!(matches!(
        migrate.invoke(&json!({"command": "up"})).await,
        Invocation::Failed
    ));
}

#[tokio::test]
async fn a_run_that_stopped_between_the_two_secrets_is_completed_by_the_next() {
    let (private, public) = (signing_key().private_pem(), signing_key().public_pem());
    let complete = json!({
        "OTP_PEPPER": "p".repeat(64), "EDGE_SECRET": "e", "TOKEN_PRIVATE_KEY": private,
        "OTHER": "o",
    });
    let twilio = json!({"TWILIO_AUTH_TOKEN": "t"});
    let stack = Stack::with_secrets(Some(&complete), Some(&twilio)).await;
    stack.set_up().await;
    let [sign_in, signup] = stack.secrets().await;
    assert_eq!(sign_in, complete);
    let completed = json!({
        "OTP_PEPPER": "p".repeat(64), "EDGE_SECRET": "e", "TWILIO_AUTH_TOKEN": "t",
        "TOKEN_PUBLIC_KEYS": signup["TOKEN_PUBLIC_KEYS"],
    });
    assert_eq!(signup, completed);
    let of_pem = |pem: &str| pem.split_whitespace().collect::<String>();
    assert_eq!(
        of_pem(signup["TOKEN_PUBLIC_KEYS"].as_str().unwrap()),
        of_pem(&public)
    );
}

#[tokio::test]
async fn a_secret_that_cannot_be_completed_is_not_written_and_not_quoted() {
    let pepper = |pepper| json!({"OTP_PEPPER": pepper});
    for (sign_in, signup, cause) in [
        (
            pepper(json!("hunter2")),
            pepper(json!("hunter3")),
            "hold a different OTP_PEPPER",
        ),
        (pepper(json!(42)), json!({}), "OTP_PEPPER is not a text"),
        (json!(["hunter2"]), json!({}), "is not a JSON object"),
        (json!({}), json!("hunter2"), "is not a JSON object"),
    ] {
        let stack = Stack::with_secrets(Some(&sign_in), Some(&signup)).await;
        let mut migrate = stack.migrate().await;
        let reason = stack.failure(&mut migrate).await;
        assert!(
            reason.starts_with("the secrets cannot be completed: "),
            "{reason}"
        );
        assert!(reason.contains(cause), "{reason}");
        let log = migrate.log().join("\n");
        assert!(
            !reason.contains("hunter") && !log.contains("hunter"),
            "{log}"
        );
        assert_eq!(stack.secrets().await, [sign_in, signup]);
    }
}

#[tokio::test]
async fn two_setups_at_once_wait_for_each_other_and_agree() {
    let stack = Stack::new().await;
    let (mut one, mut other) = (stack.migrate().await, stack.migrate().await);
    let lock = stack.database.connect().await;
    lock.batch_execute(TAKE_LOCK).await.unwrap();
    let command = json!({"command": "setup"});
    let ids = (one.begin(&command).await, other.begin(&command).await);
    let observer = stack.database.observer().await;
    until("both wait", async || observer.waiting().await == 2).await;
    drop(lock);
    let (one, other) = tokio::join!(one.finish(&ids.0), other.finish(&ids.1));
    for invocation in [one, other] {
        assert!(matches!(invocation, Invocation::Responded(_)));
    }
    let [sign_in, signup] = stack.secrets().await;
    assert_eq!(sign_in["OTP_PEPPER"], signup["OTP_PEPPER"]);
}

#[tokio::test]
async fn the_functions_start_with_the_secrets_that_it_made() {
    let stack = Stack::new().await;
    stack.set_up().await;
    let service = Service::start().await;
    let moto = moto();
    let start = async |name, secret: &str| {
        let mut settings = harness::settings(&service.database.url(), &service.redis_server.url());
        settings.retain(|(name, _)| name != "OTP_PEPPER");
        let own = [
            ("TOKEN_PRIVATE_KEY", ""),
            ("TOKEN_PUBLIC_KEYS", ""),
            ("SECRET_ARN", secret),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL_SNS", &moto),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &moto),
        ];
        let settings = settings.iter().map(|(name, value)| (&**name, &**value));
        Function::start(name, settings.chain(own)).await
    };
    let mut signup = start("signup", &stack.signup).await;
    let mut verify = start("verify", &stack.sign_in).await;
    let mut session = start("session", &stack.sign_in).await;
    let phone = fresh_phone();
    signup.sign_up(&phone).await.assert_ok();
    let code = harness::last_code_to(&phone).await;
    let tokens = Tokens::of(&verify.verify(&phone, &code).await);
    // signup verifies what verify has signed.
    let mut change = event(
        "POST",
        "/me/phone",
        &json!({"phone_number": fresh_phone()}).to_string(),
    );
    set_header(
        &mut change,
        "authorization",
        Some(&format!("Bearer {}", tokens.access)),
    );
    signup.send(&change).await.assert_ok();
    let keys = session
        .send(&event("GET", "/.well-known/jwks.json", ""))
        .await;
    assert_eq!(keys.body["keys"][0]["alg"], "RS256", "{keys:?}");
}

#[tokio::test]
async fn the_admins_password_is_read_at_each_run() {
    const ASK_FOR_PASSWORD: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
    let stack = Stack::new().await;
    let postgres = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://{}/otp", postgres.local_addr().unwrap());
    let admin = create_secret(None).await;
    let own = [
        ("DATABASE_URL", &*url),
        ("DATABASE_ADMIN_SECRET_ARN", &admin),
    ];
    let mut migrate = stack.migrate_with(Sandbox::default(), &own).await;
    let reason = stack.failure(&mut migrate).await;
    assert_eq!(
        reason,
        format!("cannot log in to the database: {admin} has no value")
    );
    for password in ["hunter2", "hunter3"] {
        let login = json!({"username": "admin", "password": password, "engine": "postgres"});
        put_secret(&admin, &login.to_string()).await;
        let heard = async {
            let (mut client, _) = postgres.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(format!("{password}\0").as_bytes()) {
                assert_ne!(client.read_buf(&mut heard).await.unwrap(), 0, "{heard:?}");
                client.write_all(ASK_FOR_PASSWORD).await.unwrap();
            }
            String::from_utf8_lossy(&heard).into_owned()
        };
        let (reason, heard) = tokio::join!(stack.failure(&mut migrate), timeout(PATIENCE, heard));
        assert!(heard.unwrap().contains("user\0admin\0"));
        assert!(
            reason.starts_with("cannot connect to the database: "),
            "{reason}"
        );
        assert!(!reason.contains(password), "{reason}");
    }
    assert!(!whole_log(migrate).await.contains("hunter"));
}

#[tokio::test]
async fn settings_that_contradict_each_other_end_the_process() {
    let stack = Stack::new().await;
    for (own, named) in [
        (&[("SIGN_IN_SECRET_ARN", "")][..], "SIGN_IN_SECRET_ARN"),
        (&[("SIGNUP_SECRET_ARN", "")], "SIGNUP_SECRET_ARN"),
        (
            &[
                ("DATABASE_IAM", "true"),
                ("DATABASE_ADMIN_SECRET_ARN", "arn"),
            ],
            "DATABASE_ADMIN_SECRET_ARN",
        ),
    ] {
        let mut migrate = stack.migrate_with(Sandbox::default(), own).await;
        assert!(!migrate.exit().await.success(), "{named}");
        assert!(
            only_error(&migrate.log().join("\n")).starts_with(named),
            "{named}"
        );
    }
}

#[tokio::test]
async fn settings_of_sns_that_are_empty_stay_as_they_are() {
    let stack = Stack::new().await;
    let mut migrate = stack.migrate().await;
    for sms in [
        json!({"MonthlySpendLimit": "20", "DefaultSMSType": "Promotional"}),
        json!({"MonthlySpendLimit": "", "DefaultSMSType": "Transactional",
               "DeliveryStatusIAMRole": "arn:aws:iam::123456789012:role/Sns",
               "DeliveryStatusSuccessSamplingRate": "100"}),
        json!({}),
    ] {
        let request = stack.request("Update", &sms);
        assert_null(&migrate.invoke(&request).await, &migrate);
    }
    let attributes = sms_attributes().await;
    for (name, value) in [
        ("MonthlySpendLimit", "20"),
        ("DefaultSMSType", "Transactional"),
        (
            "DeliveryStatusIAMRole",
            "arn:aws:iam::123456789012:role/Sns",
        ),
        ("DeliveryStatusSuccessSamplingRate", "100"),
    ] {
        let entry = format!("<key>{name}</key><value>{value}</value>");
        let found: String = attributes.split_whitespace().collect();
        assert!(found.contains(&entry), "{entry}: {attributes}");
    }
}

/// The functions, each logged in as its role.
async fn functions_by_role(service: &Service) -> Functions {
    let redis_url = service.redis_server.url();
    let of = async |function: &str| {
        let role = format!("{}_{function}", service.database.name());
        Functions::over(&service.database.url_of(&role), &redis_url, &[])
    };
    Functions {
        signup: of("signup").await.signup,
        verify: of("verify").await.verify,
        session: of("session").await.session,
    }
}

/// Sets up a database.
async fn set_up_roles(database: &Database) {
    set_up_at(&database.url()).await;
}

async fn set_up_at(url: &str) {
    let mut migrate = Function::start("migrate", [("DATABASE_URL", url)]).await;
    let set_up = migrate.invoke(&json!({"command": "setup"})).await;
    assert!(
        matches!(set_up, Invocation::Responded(_)),
        "{:#?}",
        migrate.log()
    );
}

#[tokio::test]
async fn each_function_serves_its_routes_with_its_role() {
    let service = Service::start().await;
    set_up_roles(&service.database).await;
    let functions = functions_by_role(&service).await;
    let phone = functions.registered().await;
    // Registered already: that is read, and not written.
    assert_eq!(functions.sign_up(&phone).await.status, 409);
    let tokens = functions.log_in_again(&phone).await;
    let new_phone = fresh_phone();
    let change = functions.change_challenge(&tokens.access, &new_phone).await;
    let moved = functions.submit_as(&tokens.access, &change).await;
    moved.assert_ok();
    let phone = new_phone;
    functions.me(&tokens.access).await.assert_ok();
    functions.sessions(&tokens.access).await.assert_ok();
    functions.rename(&tokens.access, "Eve", 2).await.assert_ok();
    functions.refresh(&tokens.refresh).await.assert_ok();
    functions.log_out(&tokens.refresh).await.assert_ok();
    let tokens = functions.log_in_again(&phone).await;
    let sessions = functions.sessions(&tokens.access).await;
    let id = sessions.body["data"][0]["id"].as_str().unwrap();
    functions.end_session(&tokens.access, id).await.assert_ok();
    let tokens = functions.log_in_again(&phone).await;
    let everywhere = functions.log_out_everywhere(&tokens.refresh).await;
    everywhere.assert_ok();
    let tokens = functions.log_in_again(&phone).await;
    functions.delete_user(&tokens.access).await.assert_ok();
}

#[tokio::test]
async fn each_role_is_refused_what_its_function_does_not_do() {
    const ANYBODYS: [&str; 8] = [
        "ALTER TABLE users ADD COLUMN x text",
        "DROP TABLE sessions",
        "CREATE TABLE x ()",
        "CREATE TEMPORARY TABLE x ()",
        "CREATE SCHEMA x",
        "TRUNCATE used_challenges",
        "DELETE FROM used_challenges",
        "SELECT FROM _sqlx_migrations",
    ];
    const SIGNUPS: [&str; 10] = [
        "INSERT INTO users (id, name, phone_number) VALUES (1, 'Eve', '+1')",
        "SELECT name FROM users",
        "UPDATE users SET phone_number = '+1'",
        "DELETE FROM users",
        "SELECT token_digest FROM sessions",
        "INSERT INTO sessions (id) VALUES ('x')",
        "UPDATE sessions SET revoked_at = NULL",
        "SELECT challenge_id FROM used_challenges",
        "INSERT INTO used_challenges (challenge_id) VALUES ('x')",
        "SELECT nextval('users_id_seq')",
    ];
    const VERIFYS: [&str; 9] = [
        "DELETE FROM users",
        "UPDATE users SET name = 'Eve'",
        "UPDATE users SET id = 1",
        "INSERT INTO users (id, name, phone_number) VALUES (1, 'Eve', '+1')",
        "DELETE FROM sessions",
        "UPDATE sessions SET token_digest = ''",
        "UPDATE sessions SET expires_at = now()",
        "UPDATE used_challenges SET challenge_id = 'x'",
        "INSERT INTO used_challenges (challenge_id, used_at) VALUES ('x', now())",
    ];
    const SESSIONS: [&str; 9] = [
        "INSERT INTO users (id, name, phone_number) VALUES (1, 'Eve', '+1')",
        "UPDATE users SET phone_number = '+1'",
        "UPDATE users SET id = 1",
        "INSERT INTO sessions (id, user_id, token_digest, expires_at) VALUES ('x', 1, '', now())",
        "UPDATE sessions SET user_id = 1",
        "UPDATE sessions SET created_at = now()",
        "DELETE FROM sessions",
        "INSERT INTO used_challenges (challenge_id) VALUES ('x')",
        "SELECT nextval('users_id_seq')",
    ];
    let database = Database::migrated().await;
    set_up_roles(&database).await;
    for (function, statements) in [
        ("signup", &SIGNUPS[..]),
        ("verify", &VERIFYS),
        ("session", &SESSIONS),
    ] {
        let role = format!("{}_{function}", database.name());
        let url = database.url_of(&role);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        for statement in statements.iter().chain(&ANYBODYS) {
            let refused = client.batch_execute(statement).await;
            let code = refused.as_ref().err().and_then(|error| error.code());
            let code = code.unwrap_or_else(|| panic!("{function}: {statement}"));
            assert_eq!(
                *code,
                SqlState::INSUFFICIENT_PRIVILEGE,
                "{function}: {statement}"
            );
        }
    }
}

#[tokio::test]
async fn its_own_user_owns_the_database_and_need_not_be_a_superuser() {
    let database = Database::empty().await;
    let name = database.name();
    let admin_url = owned_by_an_admin(&database).await;
    database
        .run("GRANT CREATE ON SCHEMA public TO PUBLIC")
        .await;
    for _ in 0..2 {
        set_up_at(&admin_url).await;
    }
    let client = database.connect().await;
    let open = format!(
        "SELECT has_schema_privilege('{name}_verify', 'public', 'CREATE')
             OR has_database_privilege('{name}_verify', '{name}', 'TEMPORARY')"
    );
    assert!(
        !client
            .query_one(&open, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );
}

#[tokio::test]
async fn nobody_but_the_roles_of_a_database_connects_to_it() {
    let (one, other) = (Database::migrated().await, Database::migrated().await);
    set_up_roles(&one).await;
    set_up_roles(&other).await;
    for (database, is_let_in) in [(&one, true), (&other, false)] {
        let url = database.url_of(&format!("{}_verify", one.name()));
        let connected = tokio_postgres::connect(&url, NoTls).await;
        assert_eq!(connected.is_ok(), is_let_in);
    }
}

#[tokio::test]
async fn a_right_that_is_not_granted_any_more_is_gone() {
    let database = Database::migrated().await;
    set_up_roles(&database).await;
    let role = format!("{}_signup", database.name());
    let rights = format!(
        "GRANT INSERT, UPDATE (name) ON users TO {role};
         GRANT SELECT ON sessions TO PUBLIC;
         GRANT USAGE ON SEQUENCE users_id_seq TO {role};
         GRANT CREATE ON SCHEMA public TO {role}, PUBLIC"
    );
    let held = async || {
        let client = database.connect().await;
        let held = format!(
            "SELECT has_table_privilege('{role}', 'users', 'INSERT')
                 OR has_column_privilege('{role}', 'users', 'name', 'UPDATE')
                 OR has_table_privilege('{role}', 'sessions', 'SELECT')
                 OR has_sequence_privilege('{role}', 'users_id_seq', 'USAGE')
                 OR has_schema_privilege('{role}', 'public', 'CREATE')"
        );
        client
            .query_one(&held, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
    };
    database.run(&rights).await;
    assert!(held().await);
    set_up_roles(&database).await;
    assert!(!held().await);
}

/// Gives the database to a user who is no superuser, and returns the URL of that.
///
/// The server knows IAM afterwards. That role stays, since other tests could not grant a role that
/// is about to go.
async fn owned_by_an_admin(database: &Database) -> String {
    let name = database.name();
    let create = format!(
        "DO $$ BEGIN CREATE ROLE rds_iam; EXCEPTION WHEN duplicate_object OR unique_violation THEN
                     END $$;
         CREATE ROLE {name}_admin LOGIN CREATEROLE;
         GRANT rds_iam TO {name}_admin WITH ADMIN OPTION;
         ALTER DATABASE {name} OWNER TO {name}_admin"
    );
    database.run(&create).await;
    database.url_of(&format!("{name}_admin"))
}

#[tokio::test]
async fn where_the_server_knows_iam_only_the_functions_log_in_by_it() {
    let database = Database::empty().await;
    let admin_url = owned_by_an_admin(&database).await;
    set_up_at(&admin_url).await;
    set_up_at(&admin_url).await;
    let admin = format!("{}_admin", database.name());
    let client = database.connect().await;
    for function in ["signup", "verify", "session"] {
        let role = format!("{}_{function}", database.name());
        let members = "SELECT pg_has_role($1::text, 'rds_iam', 'MEMBER'),
                              pg_has_role($2::text, $1::text, 'MEMBER')";
        let row = client.query_one(members, &[&role, &admin]).await.unwrap();
        assert!(row.get::<_, bool>(0), "{role}");
        // Who is a member of a role that logs in by IAM cannot log in with a password.
        assert!(!row.get::<_, bool>(1), "{role}");
    }
}
