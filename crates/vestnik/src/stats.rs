//! `vestnik stats`: how a server does, or all nodes that share its Redis.

use std::io::Write as _;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;

use crate::client::{self, Address};
use crate::failure::Failure;

/// Arguments of `vestnik stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {
    /// Show all nodes and their sum, not only the one that is asked.
    #[arg(long)]
    cluster: bool,
    /// Print the statistics as JSON: an array, one object per node, the asked one first.
    #[arg(long)]
    json: bool,
    /// The address of the statistics.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8895/server-stat/")]
    url: Address,
}

/// The most bytes of an answer: a thousand nodes with a thousand kinds of messages each.
const BYTES_MAX: usize = 64 << 20;

/// What one node says of itself; the originals say the same.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    /// Milliseconds since 1970.
    date: u64,
    #[serde(default)]
    process_unique_id: String,
    #[serde(default)]
    channels: u64,
    #[serde(default)]
    websockets: u64,
    #[serde(default)]
    pollings: u64,
    #[serde(default)]
    daily: Daily,
}

#[derive(Debug, Default, Deserialize)]
struct Daily {
    #[serde(default)]
    requests: std::collections::BTreeMap<String, u64>,
    #[serde(default)]
    messages: std::collections::BTreeMap<String, u64>,
}

/// Asks and prints.
pub(crate) fn run(args: &StatsArgs) -> anyhow::Result<()> {
    client::run(show(args))
}

async fn show(args: &StatsArgs) -> anyhow::Result<()> {
    let nodes = ask(&args.url).await?;
    let count = if args.cluster { nodes.len() } else { 1 };
    let nodes = nodes.get(..count).unwrap_or(&nodes);
    let mut out = std::io::stdout().lock();
    if args.json {
        let texts: Vec<_> = nodes.iter().map(|node| node.get()).collect();
        return writeln!(out, "[{}]", texts.join(",")).context("cannot write");
    }
    let nodes = nodes.iter().map(|node| serde_json::from_str(node.get()));
    let nodes: Vec<Node> = nodes.collect::<Result<_, _>>().map_err(|error| foreign(&error))?;
    let now_ms = vestnik_core::Clock::System.unix_ms();
    write!(out, "{}", table(&nodes, args.cluster, now_ms)).context("cannot write")
}

fn foreign(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        format!("the answer is no statistics: {error}"),
        "the address must be the one of the statistics, /server-stat/ unless it was changed",
    )
}

async fn ask(url: &Address) -> anyhow::Result<Vec<Box<serde_json::value::RawValue>>> {
    let request = Request::builder().method(Method::GET).uri(&url.target);
    let answer = url.send(request, Bytes::new()).await?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::FORBIDDEN => {
            return Err(Failure::new(
                "the server does not answer this machine",
                "add its address to trusted.allow, or ask from the server itself",
            )
            .into());
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            return Err(Failure::new(
                "the server cannot ask the other nodes now",
                "is Redis running? /healthz and the log of the server say what is wrong; /metrics shows \
                 this node alone",
            )
            .into());
        }
        status => {
            let said = client::short_body(answer).await;
            return Err(foreign(&format!("{status} {said}").trim_end()).into());
        }
    }
    let body = http_body_util::Limited::new(answer.into_body(), BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
    Ok(serde_json::from_slice(&body).map_err(|error| foreign(&error))?)
}

/// A line for each node, and with several the sum.
fn table(nodes: &[Node], with_sum: bool, now_ms: u64) -> String {
    let mut rows = vec![
        ["node", "seen", "channels", "websockets", "polls", "messages today", "requests today"]
            .map(str::to_owned),
    ];
    let mut sums = [0_u64; 5];
    for node in nodes {
        let numbers = [
            node.channels,
            node.websockets,
            node.pollings,
            node.daily.messages.values().sum(),
            node.daily.requests.values().sum(),
        ];
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        let seen = format!("{} s ago", now_ms.saturating_sub(node.date) / 1000);
        rows.push(row(&node.process_unique_id, seen, numbers));
    }
    if with_sum {
        let noun = if nodes.len() == 1 { "node" } else { "nodes" };
        rows.push(row(&format!("{} {noun}", nodes.len()), String::new(), sums));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..7).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(name: &str, seen: String, numbers: [u64; 5]) -> [String; 7] {
    // A name of another process may be anything; it must not move the cursor of a terminal.
    let name: String = name.chars().filter(|it| !it.is_control()).take(60).collect();
    let [channels, websockets, polls, messages, requests] = numbers.map(|it| it.to_string());
    [name, seen, channels, websockets, polls, messages, requests]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_node_and_their_sum() {
        let nodes = r#"[
            {"date":1000,"processUniqueId":"one-1","channels":12,"websockets":10,"pollings":2,
             "daily":{"requests":{"serverStats":3},"messages":{"unknown":100,"im_message":7}}},
            {"date":9000,"processUniqueId":"two\u001b[2J","channels":5}
        ]"#;
        let nodes: Vec<Node> = serde_json::from_str(nodes).unwrap();
        let expected = "\
node        seen  channels  websockets  polls  messages today  requests today
one-1    9 s ago        12          10      2             107               3
two[2J   1 s ago         5           0      0               0               0
2 nodes                 17          10      2             107               3
";
        assert_eq!(table(&nodes, true, 10_000), expected);
        assert_eq!(table(&nodes[..1], false, 10_000).lines().count(), 2);
    }
}
