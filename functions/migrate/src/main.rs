//! `migrate up|down|status|purge|setup`: a command line, and the Lambda function `migrate`.

use std::{env, process::ExitCode, time::Duration};

use lambda_runtime::{LambdaEvent, service_fn};
use migrate::{Command, Event, Migrate, Purged, Report, Schema, Setup};
use shared::{api, config::Env, telemetry};

/// The longest that CloudFormation waits for its response. Lambda's own deadline may come before.
const RESPONSE_TIME: Duration = Duration::from_mins(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let env = Env::of_process();
    if let Err(error) = telemetry::init(&env) {
        return telemetry::exit("cannot start", &error);
    }
    let migrate = match Migrate::from_env(&env) {
        Ok(migrate) => migrate,
        Err(error) => return telemetry::exit("cannot start", &error),
    };
    // Lambda sets this variable for the function; nobody sets it in a shell.
    if env.text("AWS_LAMBDA_RUNTIME_API").is_some() {
        serve(&migrate).await
    } else {
        run(&migrate).await
    }
}

async fn serve(migrate: &Migrate) -> ExitCode {
    let handler = service_fn(async |event: LambdaEvent<Event>| {
        let deadline = api::deadline_before(Some(event.context.deadline()), RESPONSE_TIME);
        migrate
            .handle(event.payload, deadline)
            .await
            .map_err(|error| {
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
async fn run(migrate: &Migrate) -> ExitCode {
    let mut words = env::args().skip(1);
    let command = match (words.next(), words.next()) {
        (Some(word), None) => word.parse::<Command>(),
        _ => Err(migrate::UnknownCommand),
    };
    let report = match command {
        Ok(command) => migrate.run(command).await,
        Err(error) => return telemetry::exit("cannot start", &error),
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
            }
            ExitCode::SUCCESS
        }
        Err(error) => telemetry::exit("command failed", &error),
    }
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
