//! stub
use std::path::PathBuf;
use weft_proto::discovery::Node;
pub struct XdsOptions;
impl XdsOptions { pub fn new(_: Node, _: Option<PathBuf>) -> Self { Self } }
pub fn node(_: &str, _: &str, _: &str, _: &str) -> Node { Node::default() }
pub async fn run<F, Fut, E>(_: XdsOptions, _: F, _: impl FnMut(crate::state::Change) + Send, _: impl FnOnce() + Send, _: tokio::sync::watch::Receiver<bool>) where F: Fn() -> Fut, Fut: Future<Output = Result<tonic::transport::Channel, E>> {}
