//! The Docker API, version 1.41, over a socket of this machine, as far as it is needed. Docker and Podman both speak it.

use std::path::PathBuf;
use std::time::Duration;

use ::http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use ::http::{Method, Request, Response, StatusCode};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use standfast_runtime::{Clock, Net, Peer};
use tokio::io::AsyncWriteExt;

/// Longest answer that is read, but of what a container wrote.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long an answer may take that need not be waited for.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Most that a container may write to its standard output or error, in bytes.
const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// Bytes of a piece of what a container wrote that come before it.
const FRAME_HEAD: usize = 8;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// It cannot be reached.
    #[error("it cannot be reached")]
    Io(#[from] std::io::Error),
    /// It was cut off.
    #[error("the connection broke off")]
    Broken(#[from] hyper::Error),
    /// It did not answer.
    #[error("it did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It would not.
    #[error("{message}")]
    Refused {
        /// As HTTP has it.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// Its answer is none.
    #[error("its answer is not of the Docker API: {0}")]
    Unfit(String),
    /// A container wrote too much.
    #[error("the container wrote more than {} KiB", OUTPUT_BYTES_MAX >> 10)]
    TooLong,
}

impl ApiError {
    /// Whether it may be gone in a moment.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Broken(_) | Self::Late(_))
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, .. })
    }
}

/// What speaks to who runs containers: each time over a connection of its own.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub(super) socket: PathBuf,
    pub(super) clock: Clock,
}

/// What a container wrote.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl Api {
    /// Asks, and reads the whole answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let asking = self.ask_patiently(method, path, body);
        self.clock.timeout(ANSWER_TIME_MAX, asking).await.unwrap_or(Err(ApiError::Late(ANSWER_TIME_MAX)))
    }

    /// The same for an answer that may take as long as it does.
    pub(super) async fn ask_patiently(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let bytes = self
            .talk(request(method, path, body)?, async |answer: Response<Incoming>| whole(answer).await)
            .await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|why| ApiError::Unfit(why.to_string()))
    }

    /// Fetches an image.
    pub(super) async fn pull(&self, image: &str) -> Result<(), ApiError> {
        let path = format!("/images/create?fromImage={}", escaped(&tagged(image)));
        let bytes = self
            .talk(request(Method::POST, &path, None)?, async |answer: Response<Incoming>| whole(answer).await)
            .await?;
        // One line of JSON for each thing that happened; the status was sent before the first.
        let lines =
            bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        match lines.filter_map(|line| line["error"].as_str().map(str::to_owned)).next_back() {
            Some(message) => Err(ApiError::Refused { status: StatusCode::BAD_GATEWAY, message }),
            None => Ok(()),
        }
    }

    /// What a container wrote, and if that is wanted what it writes until it ends.
    pub(super) async fn output(
        &self,
        id: &str,
        follows: bool,
        beats: &(dyn Fn() + Sync),
    ) -> Result<Output, ApiError> {
        let path = format!("/containers/{id}/logs?stdout=1&stderr=1&follow={}", u8::from(follows));
        let reading = async |answer: Response<Incoming>| {
            let mut body = good(answer).await?.into_body();
            let (mut frames, mut output) = (BytesMut::new(), Output::default());
            while let Some(frame) = body.frame().await {
                let Ok(bytes) = frame?.into_data() else { continue };
                beats();
                frames.extend_from_slice(&bytes);
                output.take(&mut frames)?;
            }
            Ok(output)
        };
        self.talk(request(Method::GET, &path, None)?, reading).await
    }

    /// Attaches to a container's standard input, has it begun, and gives it these bytes. Returns when it took them, does not read on
    /// or has ended.
    pub(super) async fn feed(
        &self,
        id: &str,
        bytes: &[u8],
        begin: impl Future<Output = Result<(), ApiError>>,
        ends: impl Future<Output = Result<i32, ApiError>>,
    ) -> Result<(), ApiError> {
        let mut request = request(Method::POST, &format!("/containers/{id}/attach?stream=1&stdin=1"), None)?;
        request.headers_mut().insert(CONNECTION, ::http::HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(UPGRADE, ::http::HeaderValue::from_static("tcp"));
        let feeding = async |answer: Response<Incoming>| {
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                good(answer).await?;
                return Err(ApiError::Unfit("it does not attach to containers".to_owned()));
            }
            let mut input = TokioIo::new(hyper::upgrade::on(answer).await?);
            begin.await?;
            let feeding = async {
                // A container need not read what it is given.
                let _not_read = input.write_all(bytes).await;
                let _not_read = input.shutdown().await;
                Ok(())
            };
            tokio::select! {
                biased;
                fed = feeding => fed,
                ended = ends => ended.map(drop),
            }
        };
        Box::pin(self.talk(request, feeding)).await
    }

    /// Sends a request, and does something with the answer while the connection is seen to.
    async fn talk<T>(
        &self,
        request: Request<Full<Bytes>>,
        reading: impl AsyncFnOnce(Response<Incoming>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let stream = Net::real().connect(&Peer::Unix(self.socket.clone())).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let talking = async {
            let answer = sender.send_request(request).await?;
            reading(answer).await
        };
        let seeing_to_it = async {
            // What went wrong is told to who asks; one that has been read to its end may be gone before that is done with.
            let _told_elsewhere = connection.with_upgrades().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            done = talking => done,
            () = seeing_to_it => Err(ApiError::Unfit("nothing".to_owned())),
        }
    }
}

impl Output {
    /// Takes what is whole.
    fn take(&mut self, frames: &mut BytesMut) -> Result<(), ApiError> {
        while let Some(head) = frames.get(..FRAME_HEAD) {
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let to = match head[0] {
                2 => &mut self.stderr,
                0 | 1 => &mut self.stdout,
                other => return Err(ApiError::Unfit(format!("there is no stream {other}"))),
            };
            if to.len() + length > OUTPUT_BYTES_MAX {
                return Err(ApiError::TooLong);
            }
            if frames.len() < FRAME_HEAD + length {
                return Ok(());
            }
            frames.advance(FRAME_HEAD);
            to.extend_from_slice(&frames.split_to(length));
        }
        Ok(())
    }
}

fn request(method: Method, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, ApiError> {
    let bytes = body.map_or_else(Bytes::new, |body| body.to_string().into());
    let mut request = Request::builder().method(method).uri(format!("/v1.41{path}")).header(HOST, "docker");
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    request.body(Full::new(bytes)).map_err(|why| ApiError::Unfit(why.to_string()))
}

async fn whole(answer: Response<Incoming>) -> Result<Bytes, ApiError> {
    read(good(answer).await?).await
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, ApiError> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|why| match why.downcast::<hyper::Error>() {
        Ok(broken) => ApiError::Broken(*broken),
        Err(why) => ApiError::Unfit(why.to_string()),
    })
}

/// The answer, unless it says no. That nothing was to be done (304) is as good as done.
async fn good(answer: Response<Incoming>) -> Result<Response<Incoming>, ApiError> {
    let status = answer.status();
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(answer);
    }
    let bytes = read(answer).await?;
    let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let message = said["message"]
        .as_str()
        .map_or_else(|| format!("it answered {status}"), |text| text.trim().to_owned());
    Err(ApiError::Refused { status, message })
}

/// As a part of a path or of a query.
pub(super) fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Without a tag all of them would be fetched.
fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.contains([':', '@']) {
        true => image.to_owned(),
        false => format!("{image}:latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_wrote_is_put_together_however_it_comes() {
        let mut all = Vec::new();
        for (stream, text) in [(1u8, "one\n"), (2, "two"), (1, ""), (1, "three")] {
            all.extend([stream, 0, 0, 0]);
            all.extend((text.len() as u32).to_be_bytes());
            all.extend(text.as_bytes());
        }
        for piece in 1..all.len() {
            let (mut frames, mut output) = (BytesMut::new(), Output::default());
            for part in all.chunks(piece) {
                frames.extend_from_slice(part);
                output.take(&mut frames).unwrap();
            }
            assert_eq!(output, Output { stdout: b"one\nthree".to_vec(), stderr: b"two".to_vec() });
        }
        let mut frames = BytesMut::from(&[1u8, 0, 0, 0, 0xff, 0, 0, 0][..]);
        assert!(matches!(Output::default().take(&mut frames), Err(ApiError::TooLong)));
    }

    #[test]
    fn one_image_is_fetched_and_not_all_of_its_name() {
        assert_eq!(tagged("a/b"), "a/b:latest");
        assert_eq!(tagged("host:5000/b"), "host:5000/b:latest");
        for image in ["a:1", "host:5000/a:1", "a@sha256:00"] {
            assert_eq!(tagged(image), image);
        }
    }
}
