//! `peerlane convex cell`: a form or an encoding, shown as all that it is.

use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use peerlane_convex::{Body, Value, cell, form};

use super::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    what: What,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A Convex form: (+ 1 2)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    form: Option<String>,
    /// An encoding in hex: one cell, or a message's body (a cell, then branches with their lengths)
    #[arg(long, value_name = "HEX")]
    hex: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let value = match (&args.what.form, &args.what.hex) {
        (Some(text), _) => form::read(text).map_err(CliError::usage)?,
        (None, hex) => {
            let hex: String = hex.iter().flat_map(|hex| hex.chars()).filter(|c| !c.is_whitespace()).collect();
            let hex = hex.strip_prefix("0x").unwrap_or(&hex);
            let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(CliError::usage)?;
            let body = Body::decode(&Bytes::from(bytes)).map_err(CliError::usage)?;
            Value { cell: body.top.clone(), cells: body.cells() }
        }
    };
    let text = form::print(&value, form::DEFAULT_PRINT);
    let encoding = HEXLOWER.encode(&cell::encode(&value.cell));
    let id = value.id();
    let missing = Body::of(value.clone()).missing(1000);
    let kind = peerlane_convex::Message::new(Body::of(value.clone())).kind();
    // Nearest first, as a message carries them.
    let branches = Body::of(value).branches;
    if args.json {
        let branch =
            |(id, encoding): &(cell::ValueId, Bytes)| serde_json::json!({ "id": id.to_string(), "encoding": HEXLOWER.encode(encoding) });
        let object = serde_json::json!({
            "form": text, "encoding": encoding, "id": id.to_string(), "message": kind.name(),
            "branches": branches.iter().map(branch).collect::<Vec<_>>(),
            "missing": missing.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        say!("{object}")?;
        return Ok(());
    }
    say!("form      {text}")?;
    say!("encoding  {encoding}")?;
    say!("value id  {id}")?;
    if kind != peerlane_convex::Kind::Unknown {
        say!("message   {kind}")?;
    }
    for (id, encoding) in &branches {
        say!("branch    {id} {}", HEXLOWER.encode(encoding))?;
    }
    for id in &missing {
        say!("missing   {id}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(form: Option<&str>, hex: Option<&str>) -> Result<(), CliError> {
        run(&Args { what: What { form: form.map(Into::into), hex: hex.map(Into::into) }, json: true })
    }

    #[test]
    fn wrong_input_is_the_users() {
        assert!(show(Some("(+ 1 2)"), None).is_ok());
        assert!(show(None, Some("0x8003 110111021103")).is_ok());
        for (form, hex) in [(Some("(+ 1"), None), (None, Some("80")), (None, Some("zz")), (None, Some(""))] {
            assert!(matches!(show(form, hex), Err(CliError::Usage(_))));
        }
    }
}
