//! Who has access tokens?

use clap::{Subcommand, ValueEnum};

use super::{CommandResult, say};
use crate::access::tokens::{NewToken, create, revoke};
use crate::config::Config;
use crate::domain::{Millis, Role, now};

#[derive(Debug, Subcommand)]
pub(super) enum Tokens {
    /// Create a token; its secret is shown once.
    Create {
        /// The person's stable name.
        #[arg(long)]
        user: String,
        /// The person's groups, separated by commas.
        #[arg(long, value_delimiter = ',')]
        groups: Vec<String>,
        /// What the person may do.
        #[arg(long, value_enum, default_value_t = RoleArg::Employee)]
        role: RoleArg,
        /// Days until it stops working; without it, it works until revoked.
        #[arg(long)]
        days: Option<u32>,
    },
    /// List tokens, without their secrets.
    List,
    /// Revoke a token at once.
    Revoke {
        /// Id as in `attune tokens list`.
        id: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum RoleArg {
    Employee,
    Curator,
    Operator,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Employee => Self::Employee,
            RoleArg::Curator => Self::Curator,
            RoleArg::Operator => Self::Operator,
        }
    }
}

pub(super) async fn run(config: Config, command: Tokens, json: bool) -> CommandResult {
    std::fs::create_dir_all(&config.data_dir)?;
    let ledger = crate::ledger::open(config.database.url.as_deref(), &config.data_dir).await?;
    match command {
        Tokens::Create { user, groups, role, days } => {
            let expires = days.map(|days| Millis(now().0 + i64::from(days) * 86_400_000));
            let groups = groups.iter().map(|group| group.trim().to_owned()).collect();
            let (row, secret) =
                create(ledger.as_ref(), NewToken { user, groups, role: role.into(), expires }).await?;
            if json {
                say(serde_json::json!({"id": row.id, "user": row.user, "role": row.role, "secret": secret}));
            } else {
                say(secret);
            }
        }
        Tokens::List => {
            let rows = ledger.tokens().await?;
            if json {
                say(serde_json::to_string_pretty(&rows)?);
            } else {
                for row in rows {
                    let groups = row.groups.iter().cloned().collect::<Vec<_>>().join(",");
                    let state = state(row.revoked, row.expires);
                    say(format!(
                        "{:<16} {:<24} {:<9} {state:<8} {groups}",
                        row.id,
                        row.user,
                        row.role.to_string()
                    ));
                }
            }
        }
        Tokens::Revoke { id } => {
            revoke(ledger.as_ref(), &id).await?;
            say(format!("{id} is revoked"));
        }
    }
    ledger.close().await;
    Ok(())
}

fn state(revoked: Option<Millis>, expires: Option<Millis>) -> &'static str {
    match (revoked, expires) {
        (Some(_), _) => "revoked",
        (None, Some(at)) if at <= now() => "expired",
        _ => "valid",
    }
}
