//! The files of `migrations/`, compiled in.
//!
//! sqlx has a macro that finds them by itself. It is not used, because the compiler would have to
//! build a second sqlx with runtime and TLS for it.

use std::sync::LazyLock;

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

/// One migration: `<version>_<description>.up.sql`, and `….down.sql`, which reverts it.
struct Pair {
    version: i64,
    description: &'static str,
    up: &'static str,
    down: &'static str,
}

const PAIRS: [Pair; 3] = [
    Pair {
        version: 1,
        description: "create-user-table",
        up: include_str!("../../../migrations/000001_create-user-table.up.sql"),
        down: include_str!("../../../migrations/000001_create-user-table.down.sql"),
    },
    Pair {
        version: 2,
        description: "create-used-challenge-table",
        up: include_str!("../../../migrations/000002_create-used-challenge-table.up.sql"),
        down: include_str!("../../../migrations/000002_create-used-challenge-table.down.sql"),
    },
    Pair {
        version: 3,
        description: "create-session-table",
        up: include_str!("../../../migrations/000003_create-session-table.up.sql"),
        down: include_str!("../../../migrations/000003_create-session-table.down.sql"),
    },
];

pub static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let both = |pair: &Pair| {
        [
            (MigrationType::ReversibleUp, pair.up),
            (MigrationType::ReversibleDown, pair.down),
        ]
        .map(|(kind, sql)| {
            let (description, sql) = (pair.description.into(), sql.into_sql_str());
            // Each runs in a transaction.
            Migration::new(pair.version, description, kind, sql, false)
        })
    };
    Migrator::with_migrations(PAIRS.iter().flat_map(both).collect())
});

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::*;

    #[test]
    fn every_file_is_compiled_in_under_its_own_name() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
        let files: BTreeMap<String, String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let text = fs::read_to_string(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), text)
            })
            .collect();
        let compiled = PAIRS.iter().flat_map(|pair| {
            [("up", pair.up), ("down", pair.down)].map(|(way, sql)| {
                let name = format!("{:06}_{}.{way}.sql", pair.version, pair.description);
                (name, sql.to_owned())
            })
        });
        assert_eq!(compiled.collect::<BTreeMap<_, _>>(), files);
    }
}
