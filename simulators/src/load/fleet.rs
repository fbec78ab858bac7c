//! The functions as Lambda runs them when many people come at once: a process each, and in each one
//! request at a time.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fs::{self, File},
    path::Path,
    process::Stdio,
    time::Duration,
};

use harness::{Response, Route, until, variable};
use lambda_simulator::{InvocationState, InvocationStatus, Simulator};
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    sync::Semaphore,
    time::Instant,
};

/// The time after which Lambda would stop a request.
const LAMBDA_TIMEOUT: Duration = Duration::from_secs(10);

/// The processes of one function.
pub struct Fleet {
    idle: RefCell<VecDeque<Instance>>,
    is_idle: Semaphore,
}

struct Instance {
    simulator: Simulator,
    process: Child,
}

/// The outcome of one event.
pub struct Exchange {
    /// `None` if the invocation failed.
    pub response: Option<Response>,
    pub begun: Instant,
    pub ended: Instant,
}

impl Fleet {
    /// So many processes of the function, whose binary is in the folder `FUNCTIONS`. They write
    /// their logs into `logs`.
    pub async fn start(route: Route, size: usize, settings: &[(&str, &str)], logs: &Path) -> Self {
        let name = route.function();
        let folder = variable("FUNCTIONS").expect("FUNCTIONS: run through make load");
        let binary = Path::new(&folder).join(name);
        let mut instances = VecDeque::new();
        for number in 0..size {
            let simulator = Simulator::builder()
                .function_name(name)
                .invocation_timeout(LAMBDA_TIMEOUT)
                .build()
                .await
                .unwrap();
            let log = File::create(logs.join(format!("{name}-{number}"))).unwrap();
            let process = Command::new(&binary)
                .env_clear()
                .envs(simulator.lambda_env_vars())
                .envs([
                    ("AWS_ACCESS_KEY_ID", "testing"),
                    ("AWS_SECRET_ACCESS_KEY", "testing"),
                ])
                .envs(settings.iter().copied())
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            instances.push_back(Instance { simulator, process });
        }
        // Starting so many at once takes its time, which is no request's.
        for instance in &instances {
            until("the function asks for events", async || {
                instance.simulator.is_initialized().await
            })
            .await;
        }
        Self {
            idle: RefCell::new(instances),
            is_idle: Semaphore::new(size),
        }
    }

    /// Hands an event to a process that is idle, as soon as there is one.
    pub async fn invoke(&self, event: Value) -> Exchange {
        let _permit = self.is_idle.acquire().await.unwrap();
        // There are as many permits as processes.
        let instance = self.idle.borrow_mut().pop_front().unwrap();
        let begun = Instant::now();
        let id = instance.simulator.enqueue_payload(event).await;
        let state = completed(&instance.simulator, &id).await;
        let ended = Instant::now();
        let answered = state.filter(|state| state.status == InvocationStatus::Success);
        let response =
            answered.map(|state| Response::of_function(&state.response.unwrap().payload));
        self.idle.borrow_mut().push_back(instance);
        Exchange {
            response,
            begun,
            ended,
        }
    }

    /// The number of processes that ended unasked.
    pub fn ended(&self) -> usize {
        let mut instances = self.idle.borrow_mut();
        let ended = |instance: &mut Instance| instance.process.try_wait().unwrap().is_some();
        instances
            .iter_mut()
            .filter_map(|i| ended(i).then_some(()))
            .count()
    }
}

/// The simulator's news of an invocation can be missed by one who has just looked, so it is looked
/// at again; what was missed seems to have taken that much longer.
async fn completed(simulator: &Simulator, id: &str) -> Option<InvocationState> {
    const LOOK_AGAIN: Duration = Duration::from_millis(100);
    for _ in 0..2 * LAMBDA_TIMEOUT.as_secs() * 10 {
        let state = simulator.wait_for_invocation_complete(id, LOOK_AGAIN).await;
        if state.is_ok() {
            return state.ok();
        }
    }
    None
}

/// Every line of the logs.
pub fn log_lines(logs: &Path) -> Vec<String> {
    let files = fs::read_dir(logs).unwrap().map(|file| file.unwrap().path());
    let texts = files.map(|file| fs::read_to_string(file).unwrap());
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}
