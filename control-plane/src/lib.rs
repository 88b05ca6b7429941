//! Weft's control plane and its command line.
//!
//! | module | does |
//! |---|---|
//! | [`document`] | YAML documents: reading, checking, naming what is wrong |
//! | [`store`] | documents and their revisions on disk |
//! | [`watch`] | a directory of documents, kept in the store |
//! | [`verdicts`] | what undeclared ports were seen to speak, by the reports of their proxies |
//! | [`compile`] | documents to xDS resources, pure |
//! | [`world`] | the resources in force, and who must hear of a change |
//! | [`serve`] | ADS sessions |
//! | [`programs`] | proxy programs for running proxies, and their rollout |
//! | [`ca`] | root, certificates, join tokens |
//! | [`manage`] | the API of the command line |
//! | [`app`] | wires the parts of a control plane |
//! | [`cli`] | the verbs of `weft` |
//! | [`kubernetes`] | Weft in a cluster: discovery, identity, injection, policy, installation |
//! | [`up`] | a whole mesh on this machine: namespaces, pods, supervision |
//! | [`version`] | which versions work together |
//! | [`demo`] | the sample shop, its load and its table |

pub mod app;
pub mod ca;
pub mod cli;
pub mod compile;
pub mod demo;
pub mod document;
pub mod kubernetes;
pub mod manage;
pub mod programs;
pub mod serve;
pub mod store;
pub mod up;
pub mod verdicts;
pub mod version;
pub mod watch;
pub mod world;
