//! The roles of the functions in the database, and their rights.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// The functions that log in to the database. Each has a role of its own.
const FUNCTIONS: [&str; 3] = ["signup", "verify", "session"];

/// The length in bytes at which Postgres cuts a name off.
const LONGEST_NAME: usize = 63;

/// The roles were not changed.
#[derive(Debug, thiserror::Error)]
pub enum RolesError {
    #[error("the database's name is too long to be followed by the name of a function")]
    NameTooLong,
    #[error("a statement failed")]
    Database(#[from] sqlx::Error),
}

/// Creates the roles that are missing, `<database>_<function>`, and sets the rights of all as
/// `roles.sql` has them. Returns their names.
///
/// A new role may log in and has no password. Where the server has the role `rds_iam`, it logs in
/// by IAM.
pub async fn set(connection: &mut PgConnection) -> Result<[String; 3], RolesError> {
    let mut transaction = connection.begin().await?;
    let database: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(&mut *transaction)
        .await?;
    let roles = FUNCTIONS.map(|function| format!("{database}_{function}"));
    if roles.iter().any(|role| role.len() > LONGEST_NAME) {
        return Err(RolesError::NameTooLong);
    }

    let has_iam = exists(&mut transaction, "rds_iam").await?;
    let mut rights = include_str!("roles.sql").replace(":\"database\"", &quoted(&database));
    for (function, role) in FUNCTIONS.iter().zip(&roles) {
        let name = quoted(role);
        if !exists(&mut transaction, role).await? {
            let create = format!("CREATE ROLE {name} LOGIN");
            let joins = has_iam && joins_what_it_creates(&mut transaction).await?;
            let create = if joins { by_another(&create) } else { create };
            run(&mut transaction, create).await?;
        }
        if has_iam {
            run(&mut transaction, format!("GRANT rds_iam TO {name}")).await?;
        }
        rights = rights.replace(&format!(":\"{function}\""), &name);
    }
    run(&mut transaction, rights).await?;
    transaction.commit().await?;
    Ok(roles)
}

async fn exists(connection: &mut PgConnection, role: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(role)
        .fetch_one(connection)
        .await
}

/// From Postgres 16, whoever creates a role becomes a member of it, and cannot leave it.
async fn joins_what_it_creates(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT current_setting('server_version_num')::int >= 160000")
        .fetch_one(connection)
        .await
}

/// The statement, run by a role that is gone afterwards. Our own user must not become a member of a
/// role that has `rds_iam`: RDS would refuse our password from then on.
fn by_another(create: &str) -> String {
    format!(
        "SET LOCAL createrole_self_grant = 'set';
         CREATE ROLE otp_auth_creator CREATEROLE;
         SET LOCAL ROLE otp_auth_creator;
         {create};
         RESET ROLE;
         DROP ROLE otp_auth_creator"
    )
}

/// Runs statements that hold nothing from outside but quoted names.
async fn run(connection: &mut PgConnection, statements: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await?;
    Ok(())
}

/// A name as SQL writes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
