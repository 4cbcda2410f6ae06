//! Every typed call: what it sends, how it reads the answer, and whether it is repeated.

mod events;
mod projects;
mod queues;
mod system;
mod tasks;

use clearml_api_client::{ApiError, Client};
use serde_json::Value;

use crate::server::{Server, Step};

/// A client whose server answers what each step says.
pub(crate) struct Scene {
    server: Server,
    pub(crate) client: Client,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let server = Server::start().await;
        let client = server.client().await;
        Self { server, client }
    }

    /// The number of requests that one call made.
    async fn requests<T, F>(
        &self,
        steps: impl IntoIterator<Item = Step>,
        call: impl Fn() -> F,
    ) -> (usize, Result<T, ApiError>)
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        self.server.script(steps);
        let before = self.server.calls().len();
        let outcome = call().await;
        (self.server.calls().len() - before, outcome)
    }

    fn check_request(&self, endpoint: &str, request: &Value) {
        let call = self.server.calls().pop().unwrap();
        assert_eq!(call.path, format!("/v2.23/{endpoint}"));
        if request.is_null() {
            assert!(call.body.is_empty(), "{endpoint}: {:?}", call.body);
        } else {
            assert_eq!(&call.json(), request, "{endpoint}");
        }
    }

    /// A call that is repeated after any hiccup.
    pub(crate) async fn safe<T, F>(
        &self,
        endpoint: &str,
        request: Value,
        reply: Value,
        call: impl Fn() -> F,
    ) -> T
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let (count, outcome) = self.requests([Step::html(502), Step::ok(reply)], call).await;
        let value = outcome.unwrap_or_else(|error| panic!("{endpoint}: {error}"));
        assert_eq!(count, 2, "{endpoint} is repeated");
        self.check_request(endpoint, &request);
        value
    }

    /// A call that is repeated only while it is certain that it was not applied.
    pub(crate) async fn creating<T, F>(
        &self,
        endpoint: &str,
        request: Value,
        reply: Value,
        call: impl Fn() -> F,
    ) -> T
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let (count, outcome) = self.requests([Step::html(502)], &call).await;
        let error = outcome.err().unwrap_or_else(|| panic!("{endpoint} was repeated"));
        assert!(
            matches!(error, ApiError::Ambiguous { .. }) && count == 1,
            "{endpoint}: {error:?}"
        );
        let (count, outcome) = self
            .requests([Step::error(503, 0, "away"), Step::ok(reply)], call)
            .await;
        let value = outcome.unwrap_or_else(|error| panic!("{endpoint}: {error}"));
        assert_eq!(count, 2, "{endpoint} is repeated when it is safe");
        self.check_request(endpoint, &request);
        value
    }

    /// A call that is never repeated.
    pub(crate) async fn once<T, F>(
        &self,
        endpoint: &str,
        request: Value,
        reply: Value,
        call: impl Fn() -> F,
    ) -> T
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let (count, outcome) = self.requests([Step::error(503, 0, "away")], &call).await;
        assert!(outcome.is_err() && count == 1, "{endpoint} was repeated");
        let (_, outcome) = self.requests([Step::ok(reply)], call).await;
        self.check_request(endpoint, &request);
        outcome.unwrap_or_else(|error| panic!("{endpoint}: {error}"))
    }
}
