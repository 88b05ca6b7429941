//! What processes have spent on processors, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};

/// `USER_HZ`, which Linux gives to user space as 100 on every machine it runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds since the processes began, and of one processor since the machine did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    /// Run time of all threads, in nanoseconds' resolution.
    pub(crate) processor: f64,
    /// The same in ticks, outside and inside the kernel: good for a share, too coarse for more.
    pub(crate) user: f64,
    pub(crate) system: f64,
    /// What anybody spent on the subject's processor.
    pub(crate) anybody: f64,
    /// What anybody spent on ours.
    pub(crate) load: f64,
}

/// Whose spending counts.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Watched {
    /// The subject's processes
    #[arg(long, value_delimiter = ',')]
    watch: Vec<u32>,
    /// The processor they run on
    #[arg(long, default_value_t = 0)]
    subject_cpu: usize,
    /// The processor that load and application run on
    #[arg(long, default_value_t = 1)]
    load_cpu: usize,
}

impl Watched {
    pub(crate) fn read(&self) -> Result<Spent> {
        let mut spent = Spent::default();
        for process in &self.watch {
            let tasks = format!("/proc/{process}/task");
            for task in fs::read_dir(&tasks).with_context(|| format!("{tasks}: has the subject ended?"))? {
                let task = task?.path();
                // A thread may end between the listing and the look.
                let (Ok(times), Ok(stat)) =
                    (fs::read_to_string(task.join("schedstat")), fs::read_to_string(task.join("stat")))
                else {
                    continue;
                };
                spent.processor += number(times.split_whitespace().next()) / 1e9;
                let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
                spent.user += number(fields.next()) / TICKS_PER_SECOND;
                spent.system += number(fields.next()) / TICKS_PER_SECOND;
            }
        }
        let all = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        spent.anybody = busy(&all, self.subject_cpu);
        spent.load = busy(&all, self.load_cpu);
        Ok(spent)
    }
}

/// All but idling and waiting for disks.
fn busy(stat: &str, processor: usize) -> f64 {
    let name = format!("cpu{processor} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_default();
    let fields = line.split_whitespace().take(8).enumerate().filter(|(index, _)| ![3, 4].contains(index));
    fields.map(|(_, field)| number(Some(field))).sum::<f64>() / TICKS_PER_SECOND
}

fn number(text: Option<&str>) -> f64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
