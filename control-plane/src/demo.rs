//! `weft demo`: a small shop on the mesh, load on it, and a live table of what the mesh does.
//!
//! | module | does |
//! |---|---|
//! | [`shop`] | the sample application: three plain HTTP services that know nothing of a mesh |
//! | [`fault`] | what makes a replica slow or failing |
//! | [`client`] | plain HTTP/1.1 calls over kept connections, for shop and load |
//! | [`load`] | constant-rate load with honest latencies |
//! | [`scrape`] | the proxies' metrics, fetched and read |
//! | [`edges`] | golden signals per edge and per replica, from two scrapes |
//! | [`table`] | the signals as text |
//! | [`events`] | ejections and returns, told from changes |
//! | [`live`] | the loop: scrape, compute, draw |
//! | [`summary`] | the totals and what the mesh did, at the end |
//!
//! The numbers on screen are measured by the proxies; nothing here knows which replica was made slow or failing.

pub mod client;
pub mod edges;
pub mod events;
pub mod fault;
pub mod live;
pub mod load;
pub mod scrape;
pub mod shop;
pub mod summary;
pub mod table;

use std::path::Path;

/// The demo's mesh file, with the program's own path where a service runs `weft` itself.
///
/// `orders-2` is slow and `orders-3` fails in bursts, so that there is something for the mesh to do.
pub fn mesh_file(weft: &Path) -> String {
    // A JSON string is a YAML string, whatever characters the path holds.
    let weft = serde_json::Value::from(weft.to_string_lossy()).to_string();
    include_str!("demo/mesh.yaml").replace("\"WEFT\"", &weft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mesh_file_runs_this_program_and_stays_valid_for_odd_paths() {
        let odd = Path::new("/tmp/a \"quoted\" path/weft: #1");
        let file: serde_yaml_ng::Value = serde_yaml_ng::from_str(&mesh_file(odd)).unwrap();
        let services = file["services"].as_mapping().unwrap();
        assert_eq!(services.len(), 4);
        for (name, service) in services {
            let command = service["command"].as_sequence().unwrap();
            let runs = command.iter().filter(|word| word.as_str() == odd.to_str()).count();
            assert_eq!(runs, 1, "{name:?}");
        }
    }

    #[test]
    fn every_command_of_the_mesh_file_is_one_this_program_understands() {
        #[derive(clap::Parser)]
        enum Weft {
            Shop(shop::Arguments),
            Load(load::Arguments),
        }
        let file: serde_yaml_ng::Value = serde_yaml_ng::from_str(&mesh_file(Path::new("weft"))).unwrap();
        for (name, service) in file["services"].as_mapping().unwrap() {
            let mut words: Vec<String> = serde_yaml_ng::from_value(service["command"].clone()).unwrap();
            if words[0] == "sh" {
                words = words[2].split(' ').skip(1).map(|word| word.trim_matches('"').to_owned()).collect();
            }
            for word in &mut words {
                *word = word.replace("${PORT}", "8080").replace("$WEFT_URL_FRONTEND", "http://frontend:80");
            }
            if let Err(problem) = <Weft as clap::Parser>::try_parse_from(words) {
                panic!("{name:?}: {problem}");
            }
        }
        let faults = file["services"]["orders"]["replicaEnv"].as_sequence().unwrap();
        assert_eq!(faults.len(), 3);
        faults[1]["SLOW"].as_str().unwrap().parse::<fault::Slow>().unwrap();
        faults[2]["FAIL"].as_str().unwrap().parse::<fault::Failing>().unwrap();
    }
}
