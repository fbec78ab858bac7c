//! `migrate up|down|status`: a command line, and the Lambda function `migrate`.

use std::{env, process::ExitCode};

use lambda_runtime::{LambdaEvent, service_fn};
use migrate::{Command, Database, Event};
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
            tracing::error!(cause, "migration failed");
            cause
        })
    });
    match lambda_runtime::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => telemetry::exit("the runtime failed", error.as_ref()),
    }
}

/// Runs the command line's command and prints the migrations.
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
            for migration in report.migrations {
                let mark = if migration.applied {
                    "applied"
                } else {
                    "pending"
                };
                println!("{:06} {} {mark}", migration.version, migration.description);
            }
            ExitCode::SUCCESS
        }
        Err(error) => telemetry::exit("migration failed", &error),
    }
}
