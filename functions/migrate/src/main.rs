//! `migrate up|down|status|purge`: a command line, and the Lambda function `migrate`.

use std::{env, process::ExitCode};

use lambda_runtime::{LambdaEvent, service_fn};
use migrate::{Command, Database, Event, Purged, Report};
use shared::{config::Env, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let env = Env::of_process();
    if let Err(error) = telemetry::init(&env) {
        return telemetry::exit("cannot start", &error);
    }
    let database = match Database::from_env(&env) {
        Ok(database) => database,
        Err(error) => return telemetry::exit("cannot start", &error),
    };
    // Lambda sets this variable for the function; nobody sets it in a shell.
    if env.text("AWS_LAMBDA_RUNTIME_API").is_some() {
        serve(&database).await
    } else {
        run(&database).await
    }
}

async fn serve(database: &Database) -> ExitCode {
    let handler = service_fn(async |event: LambdaEvent<Event>| {
        database.run(event.payload.command).await.map_err(|error| {
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
async fn run(database: &Database) -> ExitCode {
    let mut words = env::args().skip(1);
    let command = match (words.next(), words.next()) {
        (Some(word), None) => word.parse::<Command>(),
        _ => Err(migrate::UnknownCommand),
    };
    let report = match command {
        Ok(command) => database.run(command).await,
        Err(error) => return telemetry::exit("cannot start", &error),
    };
    match report {
        Ok(report) => {
            match report {
                Report::Schema(schema) => {
                    for migration in schema.migrations {
                        let mark = if migration.applied {
                            "applied"
                        } else {
                            "pending"
                        };
                        println!("{:06} {} {mark}", migration.version, migration.description);
                    }
                }
                Report::Purged(Purged {
                    used_challenges,
                    sessions,
                }) => {
                    println!("deleted {used_challenges} used challenges, {sessions} sessions");
                }
            }
            ExitCode::SUCCESS
        }
        Err(error) => telemetry::exit("command failed", &error),
    }
}
