//! The settings of the controllers that follow Kubernetes.

use super::shape::{Field, Shape};

/// The settings there are.
pub(super) const FIELDS: &[Field] = &[
    Field::new("logSeverityScreen", SEVERITY, "Info"),
    Field::new("healthChecks", SWITCH, "Enabled").stored(r#""Enabled""#),
    Field::new("etcdV3CompactionPeriod", Shape::Duration, "10m"),
    Field::new("prometheusMetricsPort", PORT, "9094"),
    Field::new("controllers", Shape::Object(CONTROLLERS), "").stored("{}"),
    Field::new("debugProfilePort", PORT, ""),
];

const CONTROLLERS: &[Field] = &[
    Field::new("node", Shape::Object(NODE), ""),
    Field::new("policy", Shape::Object(PERIOD), ""),
    Field::new("workloadEndpoint", Shape::Object(PERIOD), ""),
    Field::new("serviceAccount", Shape::Object(PERIOD), ""),
    Field::new("namespace", Shape::Object(PERIOD), ""),
    Field::new("loadBalancer", Shape::Object(LOAD_BALANCER), ""),
    Field::new("policyMigration", Shape::Object(MIGRATION), ""),
];

const NODE: &[Field] = &[
    Field::new("reconcilerPeriod", Shape::Duration, "5m"),
    Field::new("syncLabels", SWITCH, "Enabled"),
    Field::new("hostEndpoint", Shape::Object(HOST_ENDPOINT), ""),
    Field::new("leakGracePeriod", Shape::Duration, "15m"),
];

const HOST_ENDPOINT: &[Field] = &[
    Field::new("autoCreate", SWITCH, "Disabled"),
    Field::new("createDefaultHostEndpoint", SWITCH, "Enabled"),
    Field::new("templates", Shape::List(&Shape::Object(TEMPLATE)), ""),
];

const TEMPLATE: &[Field] = &[
    Field::new("generateName", Shape::Text, ""),
    Field::new("interfaceCIDRs", Shape::List(&Shape::Cidr), ""),
    Field::new("interfacePattern", Shape::Text, ""),
    Field::new("labels", Shape::Texts, ""),
    Field::new("nodeSelector", Shape::Selector, "all()"),
];

const PERIOD: &[Field] = &[Field::new("reconcilerPeriod", Shape::Duration, "5m")];

const LOAD_BALANCER: &[Field] = &[Field::new(
    "assignIPs",
    Shape::Word(&["AllServices", "RequestedServicesOnly"]),
    "AllServices",
)
.stored(r#""AllServices""#)];

const MIGRATION: &[Field] = &[Field::new("enabled", SWITCH, "Enabled").stored(r#""Enabled""#)];

const SWITCH: Shape = Shape::Word(&["Enabled", "Disabled"]);
const PORT: Shape = Shape::Int(0, 65535);
const SEVERITY: Shape = Shape::Word(&[
    "None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic",
]);
