//! `migrate up|down|status|purge|setup`, `migrate sms [NUMBER]`,
//! `migrate rotate [pepper|signing_key [leaked]]`: a command line, and the Lambda function
//! `migrate`.

use std::{
    env,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use lambda_runtime::{LambdaEvent, service_fn};
use migrate::{
    Error, Event, Migrate, Purged, Report, Schema, Setup, UnknownCommand,
    rotation::{Order, What},
    sms,
};
use shared::{api, config::Env, telemetry};

/// The longest that CloudFormation waits for its response. Lambda's own deadline may come before.
const RESPONSE_TIME: Duration = Duration::from_mins(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let env = Env::of_process();
    if let Err(error) = telemetry::init(&env) {
        return telemetry::exit("cannot start", &error);
    }
    // Lambda sets this variable for the function; nobody sets it in a shell.
    if env.text("AWS_LAMBDA_RUNTIME_API").is_some() {
        serve(&env).await
    } else {
        run(&env).await
    }
}

async fn serve(env: &Env) -> ExitCode {
    let migrate = match Migrate::from_env(env) {
        Ok(migrate) => migrate,
        Err(error) => return telemetry::exit("cannot start", &error),
    };
    let handler = service_fn(async |event: LambdaEvent<Event>| {
        let report = match event.payload {
            Event::Database { command } => migrate.run(command).await.map(Some),
            Event::Sms { phone_number, .. } => {
                sms::report(env, phone_number.as_deref()).await.map(Some)
            }
            Event::Rotate { what, leaked, .. } => rotate(&migrate, Some(Order { what, leaked }))
                .await
                .map(Some),
            Event::GoOn { .. } => rotate(&migrate, None).await.map(Some),
            Event::CustomResource(request) => {
                let deadline = api::deadline_before(Some(event.context.deadline()), RESPONSE_TIME);
                let responded = request.respond(&migrate, deadline).await;
                responded.map(|()| None).map_err(Error::from)
            }
        };
        report.map_err(|error| {
            let cause = telemetry::chain(&error);
            tracing::error!(cause, "command failed");
            cause
        })
    });
    match lambda_runtime::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => telemetry::exit("the runtime failed", error.as_ref()),
    }
}

/// Runs the command line's command and prints its result.
#[expect(clippy::print_stdout, reason = "a report for a person")]
async fn run(env: &Env) -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let report = match words[..] {
        ["sms"] => sms::report(env, None).await,
        ["sms", phone_number] => sms::report(env, Some(phone_number)).await,
        ["rotate", ref order @ ..] => match (parse_order(order), Migrate::from_env(env)) {
            (Ok(order), Ok(migrate)) => rotate(&migrate, order).await,
            (Err(error), _) => return telemetry::exit("cannot start", &error),
            (_, Err(error)) => return telemetry::exit("cannot start", &error),
        },
        [word] => match (word.parse(), Migrate::from_env(env)) {
            (Ok(command), Ok(migrate)) => migrate.run(command).await,
            (Err(error), _) => return telemetry::exit("cannot start", &error),
            (_, Err(error)) => return telemetry::exit("cannot start", &error),
        },
        _ => return telemetry::exit("cannot start", &UnknownCommand),
    };
    match report {
        Ok(report) => {
            match report {
                Report::Schema(schema) => print_schema(&schema),
                Report::Purged(Purged {
                    used_challenges,
                    sessions,
                }) => {
                    println!("deleted {used_challenges} used challenges, {sessions} sessions");
                }
                Report::Setup(Setup { schema, roles }) => {
                    print_schema(&schema);
                    println!("roles {}", roles.join(", "));
                }
                Report::Rotations(rotations) => print!("{rotations}"),
                Report::Sms(report) => print!("{report}"),
            }
            ExitCode::SUCCESS
        }
        Err(error) => telemetry::exit("command failed", &error),
    }
}

/// The order in the words after `rotate`.
fn parse_order(words: &[&str]) -> Result<Option<Order>, UnknownCommand> {
    let (what, leaked) = match *words {
        [] => return Ok(None),
        [what] => (what, false),
        [what, "leaked"] => (what, true),
        _ => return Err(UnknownCommand),
    };
    let what = match what {
        "pepper" => What::Pepper,
        "signing_key" => What::SigningKey,
        _ => return Err(UnknownCommand),
    };
    Ok(Some(Order { what, leaked }))
}

#[expect(clippy::disallowed_methods, reason = "the edge of a command")]
async fn rotate(migrate: &Migrate, order: Option<Order>) -> Result<Report, Error> {
    let rotations = migrate.rotate(order, SystemTime::now()).await?;
    Ok(Report::Rotations(rotations))
}

#[expect(clippy::print_stdout, reason = "a report for a person")]
fn print_schema(schema: &Schema) {
    for migration in &schema.migrations {
        let mark = if migration.applied {
            "applied"
        } else {
            "pending"
        };
        println!("{:06} {} {mark}", migration.version, migration.description);
    }
}
