//! The real binaries, frozen and killed between any two steps, and at the end of their sandbox.

use std::{net::TcpListener, time::Duration};

use harness::{
    Behaviour, Deployment, Fault, Function, Sandbox, binary, event, fresh_phone, let_time_pass,
    local_settings,
    outcome::{NOT_REGISTERED, OTP_EXPIRED},
    sign_up_event, until, verify_event,
};
use serde_json::Value;
use tokio::time::Instant;

/// Where a process is held.
#[derive(Clone, Copy, Debug)]
enum Step {
    Postgres(Fault),
    Redis(Fault),
    /// The provider has the message and does not reply.
    Provider,
}

const SIGN_UP_STEPS: [Step; 5] = [
    Step::Postgres(Fault::LoseRequest),
    Step::Postgres(Fault::LoseReply),
    Step::Redis(Fault::LoseRequest),
    Step::Redis(Fault::LoseReply),
    Step::Provider,
];

const VERIFY_STEPS: [Step; 4] = [
    Step::Redis(Fault::LoseRequest),
    Step::Redis(Fault::LoseReply),
    Step::Postgres(Fault::LoseRequest),
    Step::Postgres(Fault::LoseReply),
];

/// Starts a function, and gives it something to do, so that it is connected and its scripts are
/// known.
async fn start_in(
    deployment: &Deployment,
    sandbox: Sandbox,
    name: &str,
    own: &[(&str, &str)],
) -> Function {
    let own = [&[("LIMIT_ADDRESS", "off")], own].concat();
    let mut function = deployment.start_in(sandbox, name, &own).await;
    let (warmed, expected) = if name == "signup" {
        (function.sign_up(&fresh_phone()).await, 200)
    } else {
        (function.verify(&fresh_phone(), "000000").await, 401)
    };
    assert_eq!(warmed.status, expected, "{warmed:?}");
    function
}

async fn start(deployment: &Deployment, name: &str) -> Function {
    start_in(deployment, Sandbox::default(), name, &[]).await
}

/// Hands an event to the function and waits until it is held at this step. Returns the event's id.
async fn hold(deployment: &Deployment, function: &mut Function, event: &Value, at: Step) -> String {
    let met = || match at {
        Step::Postgres(_) => deployment.postgres.faults_met(),
        Step::Redis(_) => deployment.redis.faults_met(),
        Step::Provider => deployment.provider.requests().len(),
    };
    let before = met();
    match at {
        Step::Postgres(fault) => deployment.postgres.after(0, fault),
        Step::Redis(fault) => deployment.redis.after(0, fault),
        Step::Provider => deployment.provider.behave(Behaviour::Hang),
    }
    let id = function.begin(event).await;
    until("the request is held", async || met() > before).await;
    deployment.provider.behave(Behaviour::Accept);
    id
}

async fn code_for(deployment: &Deployment, phone: &str) -> String {
    let mut signup = start(deployment, "signup").await;
    signup.sign_up(phone).await.assert_ok();
    deployment.provider.last_code_to(phone)
}

/// API Gateway's authorizer waits for the keys for a second and a half. If it gives up, every route
/// behind it fails.
#[tokio::test]
async fn the_keys_are_served_while_postgres_accepts_connections_and_says_nothing() {
    // The system accepts for a listener that nobody asks for its connections.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let database_url = format!("postgres://otp@{}/otp", silent.local_addr().unwrap());
    binary("session").await;
    let begun = Instant::now();
    let mut session = Function::start("session", local_settings(&database_url, "")).await;
    for page in ["jwks.json", "openid-configuration"] {
        let path = format!("/.well-known/{page}");
        let response = session.send(&event("GET", &path, "")).await;
        assert_eq!(response.status, 200, "{page}");
    }
    let time = begun.elapsed();
    assert!(time < Duration::from_millis(1500), "{time:?}");
    // It goes on connecting, and then says that it could not.
    until("the failure is logged", async || {
        let log = session.log();
        log.iter()
            .any(|line| line.contains("not connected at start"))
    })
    .await;
}

#[tokio::test]
async fn killed_at_any_step_of_a_signup_no_second_message_is_sent_within_the_cool_down() {
    for step in SIGN_UP_STEPS {
        let deployment = Deployment::new().await;
        let phone = fresh_phone();
        let mut signup = start(&deployment, "signup").await;
        let event = sign_up_event(&phone);
        let _unanswered = hold(&deployment, &mut signup, &event, step).await;
        signup.kill().await;

        let mut next = start(&deployment, "signup").await;
        let response = next.sign_up(&phone).await;
        let was_issued = !matches!(step, Step::Postgres(_) | Step::Redis(Fault::LoseRequest));
        let (status, messages) = match (was_issued, step) {
            (false, _) => (200, 1),
            (true, Step::Provider) => (429, 1),
            (true, _) => (429, 0),
        };
        assert_eq!(response.status, status, "{step:?}: {response:?}");
        let sent = deployment.provider.messages_to(&phone).len();
        assert_eq!(sent, messages, "{step:?}");
    }
}

#[tokio::test]
async fn killed_at_any_step_of_a_verification_at_most_one_user_is_registered() {
    for step in VERIFY_STEPS {
        let deployment = Deployment::new().await;
        let phone = fresh_phone();
        let code = code_for(&deployment, &phone).await;
        let mut function = start(&deployment, "verify").await;
        let event = verify_event(&phone, &code);
        let _unanswered = hold(&deployment, &mut function, &event, step).await;
        function.kill().await;

        let mut next = start(&deployment, "verify").await;
        let response = next.verify(&phone, &code).await;
        let was_committed = matches!(step, Step::Postgres(Fault::LoseReply));
        let status = if was_committed { 401 } else { 200 };
        assert_eq!(response.status, status, "{step:?}: {response:?}");
        assert_eq!(deployment.database.users_with(&phone).await, 1, "{step:?}");
        assert_eq!(next.verify(&phone, &code).await.status, 401);
    }
}

/// As a sandbox that nobody needs for a while, whose connections are forgotten on the way
/// meanwhile.
#[tokio::test]
async fn frozen_for_longer_than_its_timeouts_a_function_replaces_its_dead_connections_unnoticed() {
    let deployment = Deployment::new().await;
    let phone = fresh_phone();
    let code = code_for(&deployment, &phone).await;
    let sandbox = || Sandbox {
        freezes: true,
        ..Sandbox::default()
    };
    let own = [("STORE_TIMEOUT_MS", "1000")];
    let mut signup = start_in(&deployment, sandbox(), "signup", &own).await;
    let mut verifier = start_in(&deployment, sandbox(), "verify", &own).await;
    tokio::join!(signup.frozen(), verifier.frozen());
    deployment.postgres.lose_connections();
    deployment.redis.lose_connections();
    // Five times the timeout is idle for long: this is about time that has passed.
    let_time_pass(Duration::from_millis(5100)).await;
    signup.sign_up(&fresh_phone()).await.assert_ok();
    verifier.verify(&phone, &code).await.assert_ok();

    // And once more, this time closed, which a frozen process does not hear either.
    tokio::join!(signup.frozen(), verifier.frozen());
    deployment.postgres.drop_connections().await;
    deployment.redis.drop_connections().await;
    signup.sign_up(&fresh_phone()).await.assert_ok();
    let response = verifier.verify(&phone, &code).await;
    response.assert_is(OTP_EXPIRED);
}

/// Longer than every timeout, and the replies that it waited for are there when it is thawed.
#[tokio::test]
async fn frozen_in_the_middle_of_a_request_it_responds_when_thawed_and_serves_the_next() {
    const LATE: Fault = Fault::DelayReply(Duration::from_millis(500));
    let own = [
        ("STORE_TIMEOUT_MS", "1000"),
        ("SMS_TIMEOUT_MS", "1000"),
        ("REQUEST_TIMEOUT_MS", "4000"),
    ];
    let deployment = Deployment::new().await;
    let mut signup = start_in(&deployment, Sandbox::default(), "signup", &own).await;
    let mut verifier = start_in(&deployment, Sandbox::default(), "verify", &own).await;
    let freeze = async |function: &Function| {
        function.signal("STOP");
        // Over the request's own deadline: this is about time that has passed.
        let_time_pass(Duration::from_millis(4100)).await;
        function.signal("CONT");
    };
    for step in [Step::Postgres(LATE), Step::Redis(LATE), Step::Provider] {
        let phone = fresh_phone();
        let event = sign_up_event(&phone);
        let id = hold(&deployment, &mut signup, &event, step).await;
        freeze(&signup).await;
        let response = signup.receive(&id).await;
        assert!(
            [200, 503].contains(&response.status),
            "{step:?}: {response:?}"
        );
        let sent = deployment.provider.messages_to(&phone).len();
        assert_eq!(sent, usize::from(response.status == 200), "{step:?}");

        let phone = fresh_phone();
        assert_eq!(signup.sign_up(&phone).await.status, 200, "{step:?}");
        let code = deployment.provider.last_code_to(&phone);
        if matches!(step, Step::Provider) {
            continue;
        }
        let event = verify_event(&phone, &code);
        let id = hold(&deployment, &mut verifier, &event, step).await;
        freeze(&verifier).await;
        let response = verifier.receive(&id).await;
        assert!(
            [200, 503].contains(&response.status),
            "{step:?}: {response:?}"
        );
        let registered = deployment.database.users_with(&phone).await;
        assert!(response.status != 200 || registered == 1, "{step:?}");
        let again = verifier.verify(&phone, &code).await;
        let expected = if registered == 1 { 401 } else { 200 };
        assert_eq!(again.status, expected, "{step:?}: {again:?}");
        assert_eq!(deployment.database.users_with(&phone).await, 1, "{step:?}");
    }
}

/// Lambda tells a function when it will cut it off; its own timeouts are far longer here.
#[tokio::test]
async fn a_process_responds_before_lambda_cuts_it_off() {
    let deployment = Deployment::new().await;
    let sandbox = Sandbox {
        timeout: Duration::from_secs(4),
        ..Sandbox::default()
    };
    let own = [
        ("STORE_TIMEOUT_MS", "29000"),
        ("REQUEST_TIMEOUT_MS", "60000"),
    ];
    let mut verifier = start_in(&deployment, sandbox, "verify", &own).await;
    deployment.redis.lose_connections();
    let response = verifier.verify(&fresh_phone(), "123456").await;
    response.assert_is(NOT_REGISTERED);
}

/// Lambda ends a sandbox with SIGTERM if it was asked to.
#[tokio::test]
async fn at_the_end_of_its_sandbox_a_function_says_goodbye_to_postgres() {
    let deployment = Deployment::new().await;
    let observer = deployment.database.observer().await;
    for name in ["signup", "verify"] {
        let mut function = start(&deployment, name).await;
        assert_eq!(function.extensions().await, 1, "{name}");
        assert_eq!(observer.sessions().await, 1, "{name}");
        // The server hears a Terminate even if it does not hear the connection's end.
        deployment.postgres.keep_ends_back();
        function.signal("TERM");
        assert!(function.exit().await.success(), "{name}");
        until("the session is gone", async || {
            observer.sessions().await == 0
        })
        .await;
    }
}
