//! The command line's grammar.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use margay_model::Kind;

use crate::kinds;

/// Shows and changes what a cluster's datastore holds, and asks this node's agent for live state.
#[derive(Debug, Parser)]
#[command(name = "margayctl", version, infer_subcommands = false)]
pub struct Cli {
    /// File that says which datastore to use; without it /etc/calico/calicoctl.cfg, where that exists,
    /// the environment, or else this machine's own datastore.
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Accepted for scripts written for calicoctl; versions are not compared.
    #[arg(long, global = true, hide = true)]
    pub allow_version_mismatch: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create resources from documents; existing ones are refused.
    Create(Write),
    /// Create or update resources from documents.
    Apply(Write),
    /// Replace existing resources by documents.
    Replace(Write),
    /// Delete resources by name, or those of documents.
    Delete(Delete),
    /// Show resources.
    Get(Get),
    /// Change fields of one resource.
    Patch(Patch),
    /// Set or remove a label of one resource.
    Label(Label),
    /// Check documents without writing anything.
    Validate(Source),
    /// Show and correct address management.
    #[command(subcommand)]
    Ipam(Ipam),
    /// Ask this node's agent.
    #[command(subcommand)]
    Node(Node),
    /// Ask this node's agent about BGP.
    #[command(subcommand)]
    Bgp(Bgp),
    /// Ask this node's kernel about policy.
    #[command(subcommand)]
    Policy(Policy),
    /// Tell why a connection is made or not: policy on both nodes, route and MTU.
    Why(Why),
    /// Show this program's version and the cluster's.
    Version {
        /// Do not ask the datastore.
        #[arg(long)]
        client: bool,
    },
}

/// Where documents come from.
#[derive(Args, Debug)]
pub struct Source {
    /// File, folder, or - for standard input.
    #[arg(short, long, value_name = "FILE", required = true)]
    pub filename: Option<String>,
    /// Folders inside the folder, too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// An empty source is no error.
    #[arg(long)]
    pub skip_empty: bool,
    /// Namespace of namespaced resources that name none.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// Documents to write.
#[derive(Args, Debug)]
pub struct Write {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "clap would show the text in place of the command's"
    )]
    pub source: Source,
    /// Pass over resources that exist (create).
    #[arg(long, short = 's')]
    pub skip_exists: bool,
}

/// Resources meant by name, or by documents.
#[derive(Args, Debug)]
pub struct Delete {
    /// Kind of the resources.
    #[arg(value_parser = kinds::parse, required_unless_present = "filename")]
    pub kind: Option<Kind>,
    /// Names of the resources.
    #[arg(value_name = "NAME", required_unless_present = "filename")]
    pub names: Vec<String>,
    /// File, folder, or - for standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "kind")]
    pub filename: Option<String>,
    /// Folders inside the folder, too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Pass over resources that do not exist.
    #[arg(short, long)]
    pub skip_not_exists: bool,
    /// An empty source is no error.
    #[arg(long)]
    pub skip_empty: bool,
    /// Namespace of namespaced resources.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// What to show.
#[derive(Args, Debug)]
pub struct Get {
    /// Kind of the resources.
    #[arg(value_parser = kinds::parse, required_unless_present = "filename")]
    pub kind: Option<Kind>,
    /// Names of the resources; all of the kind where none is given.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Show the resources of these documents.
    #[arg(short, long, value_name = "FILE", conflicts_with = "kind")]
    pub filename: Option<String>,
    /// Folders inside the folder, too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// How to show them.
    #[arg(short, long, value_enum, default_value = "ps")]
    pub output: Format,
    /// Namespace of namespaced resources.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Resources of all namespaces.
    #[arg(short = 'A', long, visible_short_alias = 'a')]
    pub all_namespaces: bool,
    /// Leave out what belongs to this cluster alone.
    #[arg(long)]
    pub export: bool,
}

/// How resources are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table of the main fields.
    Ps,
    /// A table of more fields.
    Wide,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
    /// `kind/name`, one a line.
    Name,
}

/// A change of one resource.
#[derive(Args, Debug)]
pub struct Patch {
    /// Kind of the resource.
    #[arg(value_parser = kinds::parse)]
    pub kind: Kind,
    /// Name of the resource.
    pub name: String,
    /// The change, JSON or YAML: fields to set, null to remove.
    #[arg(short, long)]
    pub patch: String,
    /// `merge` (RFC 7386), which `strategic` means too.
    #[arg(short = 't', long = "type", value_enum, default_value = "strategic")]
    pub style: PatchStyle,
    /// Namespace of a namespaced resource.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// How a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PatchStyle {
    /// As `merge`: no list of these resources has a merge key.
    Strategic,
    /// JSON Merge Patch, RFC 7386.
    Merge,
}

/// A label to set or remove.
#[derive(Args, Debug)]
pub struct Label {
    /// Kind of the resource.
    #[arg(value_parser = kinds::parse)]
    pub kind: Kind,
    /// Name of the resource.
    pub name: String,
    /// `key=value`, or `key` with --remove.
    pub label: String,
    /// Replace another value.
    #[arg(long)]
    pub overwrite: bool,
    /// Remove the label.
    #[arg(long, conflicts_with = "overwrite")]
    pub remove: bool,
    /// Namespace of a namespaced resource.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// Commands about addresses.
#[derive(Debug, Subcommand)]
pub enum Ipam {
    /// Show how full pools are, or who holds an address.
    Show {
        /// Who holds this address.
        #[arg(long)]
        ip: Option<IpAddr>,
        /// The pools' blocks, too.
        #[arg(long)]
        show_blocks: bool,
        /// Addresses used by other nodes than their blocks' owners.
        #[arg(long)]
        show_borrowed: bool,
        /// The allocator's configuration.
        #[arg(long)]
        show_configuration: bool,
    },
    /// Find addresses, blocks and handles that do not agree.
    Check {
        /// Write a report for machines.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// List every address that is in use.
        #[arg(long)]
        show_all_ips: bool,
        /// List only what is wrong.
        #[arg(long)]
        show_problem_ips: bool,
    },
    /// Give back an address, or those that reports call leaked.
    #[command(group = ArgGroup::new("what").required(true))]
    Release {
        /// The address.
        #[arg(long, group = "what")]
        ip: Option<IpAddr>,
        /// A report of `ipam check`. Of several, what all call leaked is given back.
        #[arg(long, group = "what", value_name = "FILE")]
        from_report: Vec<PathBuf>,
        /// Even if an endpoint uses the address.
        #[arg(long, requires = "ip")]
        force: bool,
    },
    /// Change the allocator's configuration.
    #[command(arg_required_else_help = true)]
    Configure {
        /// Whether nodes may use their own blocks only.
        #[arg(long, visible_alias = "strict-affinity")]
        strictaffinity: Option<bool>,
        /// Most blocks a node may have; 0 for the default of 20.
        #[arg(long)]
        max_blocks_per_host: Option<u32>,
        /// Seconds for which a released address is not given out again.
        #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1200))]
        ip_cooldown_seconds: Option<u32>,
    },
}

/// Commands about this node.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Show the node's blocks, routes and endpoints as its agent sees them.
    Status {
        /// The agent's socket.
        #[arg(long, default_value = DEFAULT_SOCKET)]
        socket: PathBuf,
        /// Node whose blocks to show when the agent does not answer.
        #[arg(long, env = "NODENAME")]
        node: Option<String>,
    },
    /// Declare that a node is gone for good, so that what it held is given back.
    Gone {
        /// The node's name.
        name: String,
        /// Take the declaration back.
        #[arg(long)]
        revoke: bool,
    },
}

/// Commands about BGP on this node.
#[derive(Debug, Subcommand)]
pub enum Bgp {
    /// Show the peers, with states, last errors and numbers of prefixes.
    Peers {
        /// The agent's socket.
        #[arg(long, default_value = DEFAULT_SOCKET)]
        socket: PathBuf,
        /// Form of the answer.
        #[arg(short, long, value_enum, default_value_t)]
        output: Form,
    },
    /// Show the best routes with all others, or what one peer announces or is announced.
    Routes {
        /// What this peer announces, by its name or address.
        #[arg(long, value_name = "PEER", conflicts_with = "advertised")]
        received: Option<String>,
        /// What this peer is announced, by its name or address.
        #[arg(long, value_name = "PEER")]
        advertised: Option<String>,
        /// The agent's socket.
        #[arg(long, default_value = DEFAULT_SOCKET)]
        socket: PathBuf,
        /// Form of the answer.
        #[arg(short, long, value_enum, default_value_t)]
        output: Form,
    },
}

/// Commands about policy on this node.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Show how often each rule matched, and what was dropped for which reason.
    Hits {
        /// Only this policy: its name, with namespace and kind or without.
        policy: Option<String>,
        /// Form of the answer.
        #[arg(short, long, value_enum, default_value_t)]
        output: Report,
    },
    /// Show rules of other programs that drop workloads' packets, or may, with the remedy.
    Others {
        /// Form of the answer.
        #[arg(short, long, value_enum, default_value_t)]
        output: Report,
    },
}

/// A connection to be explained.
#[derive(Args, Debug)]
pub struct Why {
    /// Who begins it: namespace/pod, an endpoint, a node, node/interface, a network set or an address.
    #[arg(value_name = "SRC")]
    pub source: String,
    /// To whom, in the same forms.
    #[arg(value_name = "DST")]
    pub destination: String,
    /// tcp, udp, sctp, icmp, icmpv6 or a number.
    #[arg(value_name = "PROTO")]
    pub protocol: String,
    /// The destination port; of ICMP, TYPE or TYPE/CODE.
    pub port: Option<String>,
    /// The source port, where rules ask for it.
    #[arg(long, default_value_t = 49152)]
    pub source_port: u16,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Report,
}

/// How an explanation is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Report {
    /// For people.
    #[default]
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// How an answer of the agent is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

const DEFAULT_SOCKET: &str = "/run/margay/agent.sock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn calicoctl_spellings() {
        for line in [
            "margayctl get pool -o wide",
            "margayctl get wep -A",
            "margayctl get wep -a -oyaml",
            "margayctl -c /x get node n1 --export",
            "margayctl get node -c /x",
            "margayctl apply -f - -n prod",
            "margayctl create -f x.yaml --skip-exists",
            "margayctl delete np web -n prod --skip-not-exists",
            "margayctl delete -R -f dir",
            "margayctl ipam show --show-blocks",
            "margayctl ipam show --ip=10.0.0.1",
            "margayctl ipam configure --strictaffinity=true",
            "margayctl ipam check -o report.json --show-all-ips",
            "margayctl ipam release --ip=10.0.0.1",
            "margayctl label node n1 rack=r1 --overwrite",
            "margayctl patch ippool a -p {\"spec\":{\"disabled\":true}}",
            "margayctl version --client",
            "margayctl bgp peers -o json",
            "margayctl bgp routes --received Mesh_10_0_0_2",
            "margayctl bgp routes --advertised 10.0.0.2",
            "margayctl why prod/web prod/db tcp 5432 -o json",
            "margayctl policy hits prod/db -o yaml",
            "margayctl policy others",
            "margayctl why 10.0.0.1 10.0.0.2 icmp",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for line in [
            "margayctl get",
            "margayctl get ippol",
            "margayctl delete node",
            "margayctl apply",
            "margayctl ipam release",
            "margayctl bgp routes --received a --advertised b",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
