//! `DATABASE_URL`, and the login that goes with it.

use std::net::IpAddr;

use tokio_postgres::config::Host;

use super::{
    is_loopback,
    tls::{CertFile, RDS_PEM, is_rds},
};
use crate::{
    config::{self, Env},
    iam::IamLogin,
};

/// `DATABASE_URL`, `postgres://user:password@host/name`.
///
/// Its `sslmode` may be `disable`, `require`, `verify-ca` or `verify-full`. The last three mean the
/// same: TLS, with the server's chain and name verified. Without `sslmode`, loopback hosts and Unix
/// sockets get plain text and all other hosts verified TLS. Modes that fall back to plain text are
/// refused.
pub struct DatabaseUrl {
    /// The URL without `sslmode`.
    pub text: String,
    /// Connect by TLS, and verify the server's chain and name.
    pub verified_tls: bool,
    pub(super) config: tokio_postgres::Config,
}

impl DatabaseUrl {
    /// Reads `DATABASE_URL`.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        const NAME: &str = "DATABASE_URL";
        let malformed =
            || config::Error::invalid(NAME, "must be postgres://user:password@host/name");
        let url = env.required(NAME)?;
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(malformed());
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (modes, others): (Vec<_>, Vec<_>) = query
            .split('&')
            .filter(|setting| !setting.is_empty())
            .partition(|setting| setting.starts_with("sslmode="));
        let text = if others.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", others.join("&"))
        };
        let config: tokio_postgres::Config = text.parse().map_err(|_| malformed())?;
        let verified_tls = match modes.last().map(|mode| &mode["sslmode=".len()..]) {
            None => {
                !(config.get_hosts().iter().all(is_local)
                    && config.get_hostaddrs().iter().all(IpAddr::is_loopback))
            }
            Some("disable") => false,
            Some("require" | "verify-ca" | "verify-full") => true,
            Some(_) => {
                return Err(config::Error::invalid(
                    NAME,
                    "must have disable, require, verify-ca or verify-full as its sslmode",
                ));
            }
        };
        Ok(Self {
            text,
            verified_tls,
            config,
        })
    }

    /// The authorities in PEM that this server needs, for a client that trusts the public ones
    /// anyway: those of `SSL_CERT_FILE`, else Amazon's own for a host of RDS.
    pub fn own_authorities(&self, env: &Env) -> Result<Option<Vec<u8>>, config::Error> {
        let file = CertFile::from_env(env)?.map(|file| file.pem);
        let is_rds = self.config.get_hosts().iter().any(is_rds);
        Ok(file.or_else(|| is_rds.then(|| RDS_PEM.into())))
    }

    /// Reads `DATABASE_IAM`: with `true`, the URL's user logs in by IAM instead of a password. An
    /// IAM token is as sensitive as a password: unencrypted only to this machine.
    pub fn iam_login(&self, env: &Env) -> Result<Option<IamLogin>, config::Error> {
        const NAME: &str = "DATABASE_IAM";
        if !env.flag(NAME, false)? {
            return Ok(None);
        }
        let [Host::Tcp(host)] = self.config.get_hosts() else {
            return Err(config::Error::invalid(
                NAME,
                "needs a DATABASE_URL with one host",
            ));
        };
        if !self.verified_tls && !self.config.get_hosts().iter().all(is_local) {
            return Err(config::Error::invalid(NAME, "needs TLS"));
        }
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let user = self
            .config
            .get_user()
            .ok_or_else(|| config::Error::invalid(NAME, "needs a DATABASE_URL with a user"))?;
        IamLogin::to_postgres(env, host, port, user).map(Some)
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => is_loopback(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<DatabaseUrl, config::Error> {
        DatabaseUrl::from_env(&Env::from([("DATABASE_URL", url)]))
    }

    #[test]
    fn loopback_is_plain_and_every_other_host_verified() {
        for (url, verified) in [
            ("postgres://otp@localhost/otp", false),
            ("postgres://otp@127.0.0.1:5433/otp", false),
            ("postgres://otp@[::1]/otp", false),
            ("postgres://otp@%2Fvar%2Frun%2Fpostgresql/otp", false),
            ("postgresql://otp:secret@db.example.com/otp", true),
            ("postgres://otp@10.0.0.1/otp", true),
            ("postgres://otp@localhost,db.example.com/otp", true),
            ("postgres://otp@localhost/otp?hostaddr=10.0.0.1", true),
            ("postgres://otp@localhost/otp?sslmode=verify-full", true),
            ("postgres://otp@localhost/otp?sslmode=require", true),
            ("postgres://otp@db.example.com/otp?sslmode=disable", false),
        ] {
            assert_eq!(parse(url).unwrap().verified_tls, verified, "{url}");
        }
    }

    #[test]
    fn other_settings_of_the_url_survive() {
        let url = parse("postgres://otp@h/otp?application_name=a&sslmode=disable&keepalives=0");
        assert_eq!(
            url.unwrap().text,
            "postgres://otp@h/otp?application_name=a&keepalives=0"
        );
    }

    #[test]
    fn a_host_of_rds_brings_amazons_authorities() {
        let authorities = |url| {
            let url = parse(url).unwrap();
            url.own_authorities(&Env::from([])).unwrap()
        };
        let rds = "postgres://otp@otp.abcdef.us-east-1.rds.amazonaws.com/otp";
        assert_eq!(authorities(rds).unwrap(), RDS_PEM.as_bytes());
        assert_eq!(authorities("postgres://otp@db.example.com/otp"), None);
    }

    #[test]
    fn a_mode_that_falls_back_to_plain_text_is_refused() {
        for mode in ["prefer", "allow", "", "on"] {
            assert!(parse(&format!("postgres://otp@h/otp?sslmode={mode}")).is_err());
        }
    }

    #[test]
    fn a_bad_url_is_named_and_not_echoed() {
        for url in [
            "mysql://otp:hunter2@h/otp",
            "host=h password=hunter2",
            "postgres://otp:hunter2@h:x",
        ] {
            let error = parse(url).err().unwrap().to_string();
            assert!(
                error.starts_with("DATABASE_URL ") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }
}
