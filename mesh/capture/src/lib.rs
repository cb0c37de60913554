//! Parses the lists of ports and addresses that a pod's capture is configured with. Admission parses annotations with the
//! same types, so that what it admits is what the init container reads.

pub mod list;
