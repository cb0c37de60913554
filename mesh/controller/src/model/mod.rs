//! Holds a mesh as data, between Kubernetes, Envoy and Cloud Map: the translation makes it, everything else reads it.
//!
//! Values that Envoy would refuse cannot be made: what parses a manifest or a published document goes through the
//! constructors here, which say what is wrong.

pub mod composed;
mod derivative;
pub mod endpoint;
mod gateway;
mod logging;
mod names;
mod outlier;
mod policy;
mod pool;
mod problem;
mod published;
mod regex;
mod route;
mod route_match;
mod tcp;
mod tls;
mod upstream;
mod workload;

pub use endpoint::{Attributes, Instances};
pub use gateway::{Gateway, GatewayRoute, HostMatch, PathRewrite};
pub use logging::{AccessLog, LogFormat};
pub use names::{Account, ClusterId, ObjectKey, ServiceKey, VirtualServiceKey, WorkloadKind, WorkloadName};
pub use outlier::OutlierDetection;
pub use policy::{HealthCheck, HealthCheckProtocol, RetryOn, RetryPolicy, Timeouts};
pub use pool::ConnectionPool;
pub use problem::{Invalid, Problem, Reason};
pub use published::Published;
pub use regex::Regex;
pub use route::{Route, RoutedListener, Routing, Target};
pub use route_match::{HeaderMatch, HeaderName, PathMatch, QueryMatch, RouteMatch, Scheme, ValueMatch};
pub use tcp::TcpBackend;
pub use tls::{Certificate, ClientPolicy, ListenerTls, Trust, UpstreamTls, Validation};
pub use upstream::{CloudMapDiscovery, Discovery, DnsDiscovery, IpPreference, Upstream};
pub use workload::{Backend, Egress, Listener, Port, Protocol, Proxy, Workload};

pub use crate::packed::PackedMap;
