//! The schema: its migrations, and the purge of old rows.

use harness::{Database, Function, Invocation, Service, fresh_phone};
use migrate::{Command, Purged, Report};
use serde_json::json;
use shared::config::Env;
use tokio::process::Command as Process;

fn migrator(database: &Database) -> migrate::Migrate {
    let url = database.url();
    migrate::Migrate::from_env(&Env::from([("DATABASE_URL", url.as_str())])).unwrap()
}

async fn applied(migrator: &migrate::Migrate, command: Command) -> Vec<bool> {
    let Report::Schema(schema) = migrator.run(command).await.unwrap() else {
        panic!("{command:?} reports the schema");
    };
    schema.migrations.iter().map(|m| m.applied).collect()
}

#[tokio::test]
async fn up_applies_all_status_tells_and_down_reverts_one() {
    let database = Database::empty().await;
    let migrator = migrator(&database);
    let first = |count: usize| (0..3).map(|at| at < count).collect::<Vec<_>>();
    assert_eq!(applied(&migrator, Command::Status).await, first(0));
    assert_eq!(applied(&migrator, Command::Up).await, first(3));
    assert_eq!(applied(&migrator, Command::Up).await, first(3));
    for left in [2, 1, 0, 0] {
        assert_eq!(applied(&migrator, Command::Down).await, first(left));
    }
    assert_eq!(applied(&migrator, Command::Up).await, first(3));
}

#[tokio::test]
async fn two_that_race_wait_for_each_other() {
    let database = Database::empty().await;
    let (a, b) = (migrator(&database), migrator(&database));
    let (a_ran, b_ran) = tokio::join!(applied(&a, Command::Up), applied(&b, Command::Up));
    assert_eq!((a_ran, b_ran), (vec![true; 3], vec![true; 3]));
    tokio::join!(applied(&a, Command::Down), applied(&b, Command::Down));
    assert_eq!(applied(&a, Command::Status).await, [true, false, false]);
}

#[tokio::test]
async fn the_table_of_users_has_the_columns_that_were_agreed() {
    let database = Database::migrated().await;
    let rows = database
        .connect()
        .await
        .query(
            "SELECT column_name || ' ' || format_type(a.atttypid, a.atttypmod)
                 || CASE WHEN attnotnull THEN ' not null' ELSE '' END
                 || COALESCE(' default ' || column_default, '')
             FROM information_schema.columns
             JOIN pg_attribute a ON a.attrelid = 'users'::regclass AND a.attname = column_name
             WHERE table_name = 'users' ORDER BY ordinal_position",
            &[],
        )
        .await
        .unwrap();
    let columns: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        columns,
        [
            "id bigint not null default nextval('users_id_seq'::regclass)",
            "created_at timestamp(0) with time zone not null default now()",
            "name text not null",
            "phone_number text not null",
            "version integer not null default 1",
        ]
    );
}

#[tokio::test]
async fn on_the_command_line_it_prints_what_is_applied() {
    let database = Database::empty().await;
    let run = async |words: &[&str]| {
        let output = Process::new(harness::binary("migrate").await)
            .args(words)
            .env("DATABASE_URL", database.url())
            .output()
            .await
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), printed)
    };
    let (succeeded, printed) = run(&["up"]).await;
    assert!(succeeded, "{printed}");
    assert_eq!(
        printed,
        "000001 create-user-table applied\n000002 create-used-challenge-table applied\n\
         000003 create-session-table applied\n"
    );
    for words in [&[][..], &["sideways"], &["up", "down"]] {
        let (succeeded, printed) = run(words).await;
        assert!(
            !succeeded && printed.contains("up, down, status, purge, setup, sms or rotate"),
            "{printed}"
        );
    }
}

#[tokio::test]
async fn as_a_lambda_function_it_takes_a_command() {
    let database = Database::empty().await;
    let url = database.url();
    let mut migrate = Function::start("migrate", [("DATABASE_URL", url.as_str())]).await;
    let Invocation::Responded(report) = migrate.invoke(&json!({"command": "up"})).await else {
        panic!("{:#?}", migrate.log())
    };
    assert_eq!(
        report,
        json!({"migrations": [
            {"version": 1, "description": "create-user-table", "applied": true},
            {"version": 2, "description": "create-used-challenge-table", "applied": true},
            {"version": 3, "description": "create-session-table", "applied": true}
        ]})
    );
    for bad in [
        json!({"command": "sideways"}),
        json!({}),
        json!({"command": "up", "to": 1}),
    ] {
        assert!(matches!(migrate.invoke(&bad).await, Invocation::Failed));
    }
}

/// Rows that are past their time, `count` of each table, and some that are not yet.
async fn fill(database: &Database, count: usize) {
    let user = fresh_phone();
    database.insert_user(&user).await;
    let statements = format!(
        "INSERT INTO used_challenges (challenge_id, used_at)
         SELECT lpad(to_hex(n), 32, '0'), now() - interval '25 hours' FROM generate_series(1, {count}) n
         UNION ALL VALUES (repeat('f', 32), now() - interval '23 hours');
         INSERT INTO sessions (id, user_id, token_digest, expires_at, revoked_at)
         SELECT lpad(to_hex(n), 32, '0'), users.id, '', now() + ends, now() + revoked
         FROM users, generate_series(1, {count}) n, LATERAL (VALUES
             (CASE n % 2 WHEN 0 THEN interval '-25 hours' ELSE interval '1 day' END,
              CASE n % 2 WHEN 0 THEN NULL ELSE interval '-25 hours' END)) AS times (ends, revoked);
         INSERT INTO sessions (id, user_id, token_digest, expires_at, revoked_at)
         SELECT kept.id, users.id, '', now() + ends, now() + revoked
         FROM users, (VALUES
             (repeat('d', 32), interval '-23 hours', NULL::interval),
             (repeat('e', 32), interval '1 day', interval '-23 hours'),
             (repeat('f', 32), interval '1 day', NULL)) AS kept (id, ends, revoked)"
    );
    database.run(&statements).await;
}

async fn count(database: &Database, table: &str) -> i64 {
    let statement = format!("SELECT count(*) FROM {table}");
    let client = database.connect().await;
    client.query_one(&statement, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_purge_of_a_million_rows_deletes_those_past_their_time_while_people_sign_in() {
    const EACH: usize = 500_000;
    let service = Service::start().await;
    fill(&service.database, EACH).await;
    let migrator = migrator(&service.database);
    let mut sign_ins = 0;
    let people = async {
        loop {
            service.sign_in().await;
            sign_ins += 1;
        }
    };
    let report = tokio::select! {
        report = migrator.run(Command::Purge) => report.unwrap(),
        () = people => unreachable!(),
    };
    let each = i64::try_from(EACH).unwrap();
    let purged = Purged {
        used_challenges: each,
        sessions: each,
    };
    assert_eq!(report, Report::Purged(purged));
    assert!(sign_ins > 0);
    let kept = count(&service.database, "sessions").await;
    assert!((sign_ins + 3..=sign_ins + 4).contains(&kept), "{kept}");
    let kept = count(&service.database, "used_challenges").await;
    assert!((sign_ins + 1..=sign_ins + 2).contains(&kept), "{kept}");
}

#[tokio::test]
async fn a_purge_that_is_stopped_keeps_what_it_has_deleted() {
    const EACH: usize = 200_000;
    let database = Database::migrated().await;
    fill(&database, EACH).await;
    let migrator = migrator(&database);
    let left = async || usize::try_from(count(&database, "used_challenges").await).unwrap();
    let has_begun = async {
        while left().await > EACH {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = migrator.run(Command::Purge) => panic!("too fast to be stopped"),
        () = has_begun => {}
    }
    let stopped_at = left().await;
    assert!(stopped_at > 1 && stopped_at <= EACH, "{stopped_at}");
    migrator.run(Command::Purge).await.unwrap();
    assert_eq!(left().await, 1);
}
