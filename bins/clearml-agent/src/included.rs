//! Parts of the configuration that are included by address.

use clearml_agent_config::Fetch;

/// Gets them. On a thread of its own, because configurations are also loaded where a runtime runs already.
pub(crate) fn fetch() -> Fetch {
    Fetch::new(|url, most_bytes| {
        let get = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| format!("no runtime can be started: {error}"))?
                .block_on(clearml_api_client::fetch_document(url, most_bytes))
        };
        std::thread::scope(|scope| scope.spawn(get).join())
            .unwrap_or_else(|_| Err("the program that gets it has failed".to_owned()))
    })
}
