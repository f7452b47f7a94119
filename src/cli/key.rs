//! `peerlane key new|show`.

use std::path::PathBuf;

use clap::Subcommand;
use peerlane_transport::identity::Identity;

use super::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a new key, readable by you alone, and prints its peer ID. An existing file is never overwritten
    New {
        /// The file to make (PKCS#8, PEM)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Prints the peer ID of a key file
    Show {
        /// The key file
        file: PathBuf,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: Args) -> Result<(), CliError> {
    let (identity, file, json) = match args.command {
        Command::New { out, json } => {
            let identity = Identity::generate().map_err(CliError::failed)?;
            identity.save_new(&out).map_err(CliError::failed)?;
            (identity, out, json)
        }
        Command::Show { file, json } => (Identity::load(&file).map_err(CliError::usage)?, file, json),
    };
    if json {
        say!("{}", serde_json::json!({ "peer_id": identity.peer_id().to_string(), "file": file }))?;
    } else {
        say!("{}", identity.peer_id())?;
    }
    Ok(())
}
