//! Logging: where it goes and in which form. What is logged is decided where it is logged; never
//! event content, tokens, passwords or query strings.

use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _};

use crate::config::{LogConfig, LogFormat};

/// Starts logging to standard error, for the whole process: only the binary does this; a program
/// that embeds Parlour has its own subscriber.
///
/// # Errors
/// There is a subscriber already.
pub fn start(config: &LogConfig) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
    tracing::subscriber::set_global_default(subscriber(config, std::io::stderr))
}

fn subscriber<W>(config: &LogConfig, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let filter: Targets = config.filter.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    match config.format {
        LogFormat::Text => Box::new(tracing_subscriber::registry().with(layer.with_filter(filter))),
        LogFormat::Json => {
            let layer = layer.json().flatten_event(true);
            Box::new(tracing_subscriber::registry().with(layer.with_filter(filter)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let config = LogConfig { filter: "warn".parse().expect("filter"), format, requests: true };
        let subscriber = subscriber(&config, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("quiet");
            tracing::warn!(status = 404, "loud");
        });
        let bytes = memory.0.lock().expect("lock").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn json_lines_are_json() {
        let text = logged(LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(&text).expect("one JSON line");
        assert_eq!(line["message"], "loud");
        assert_eq!(line["status"], 404);
    }

    #[test]
    fn text_has_no_colours() {
        let text = logged(LogFormat::Text);
        assert!(
            text.contains("WARN") && text.contains("loud") && !text.contains("quiet"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
