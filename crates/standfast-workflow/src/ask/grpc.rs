//! `call: grpc`: data becomes a message, messages become data, as the JSON mapping of Protocol Buffers has it.

use std::sync::Arc;

use ::http::header::{CONTENT_TYPE, TE};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use bytes::{BufMut, Bytes, BytesMut};
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::{Map, Value};

use super::{GrpcRequest, HttpRequest, MESSAGES_MAX, Writing, access, http, uri};
use crate::program::Grpc;
use crate::run::{Problem, Standard};

/// What answers may be packed by: nothing.
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

pub(super) fn request(writing: &Writing<'_>, call: &Grpc) -> Result<GrpcRequest, Problem> {
    let arguments = match &call.arguments {
        Some(form) => Value::clone(&*writing.fill(form)?),
        None => Value::Object(Map::new()),
    };
    let method = &call.method;
    let mut body = BytesMut::new();
    match method.is_client_streaming() {
        true => messages(arguments)?.into_iter().try_for_each(|message| write(call, message, &mut body))?,
        false => write(call, arguments, &mut body)?,
    }
    let mut headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto")),
        (TE, HeaderValue::from_static("trailers")),
        (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ]);
    let credential = match &call.access {
        Some(access) => access::show(writing, access, &mut headers)?,
        None => None,
    };
    http::name_step(writing, &mut headers)?;
    let service = method.parent_service().full_name().to_owned();
    let uri = uri::of_http(&format!("{}/{service}/{}", call.server, method.name()))?;
    let http = HttpRequest { method: Method::POST, uri, headers, body: body.freeze(), credential };
    Ok(GrpcRequest { http, streams: method.is_server_streaming() })
}

/// The messages for a method that takes a stream of them: `arguments` holds them as `messages`.
fn messages(arguments: Value) -> Result<Vec<Value>, Problem> {
    let wrong = |what: &str| {
        let detail =
            format!("`arguments` {what}: the method takes a stream, write `arguments: {{messages: [ … ]}}`");
        Standard::Validation.problem(detail)
    };
    let Value::Object(mut fields) = arguments else { return Err(wrong("are no mapping")) };
    match (fields.remove("messages"), fields.keys().next()) {
        (_, Some(other)) => Err(wrong(&format!("hold `{other}` beside or in place of `messages`"))),
        (Some(Value::Array(messages)), None) if messages.len() <= MESSAGES_MAX => Ok(messages),
        (Some(Value::Array(messages)), None) => {
            Err(wrong(&format!("hold {} messages, at most {MESSAGES_MAX} are sent", messages.len())))
        }
        (Some(_), None) => Err(wrong("hold `messages` that are no list")),
        (None, None) => Err(wrong("hold no `messages`")),
    }
}

/// Writes a message behind those before it.
fn write(call: &Grpc, message: Value, body: &mut BytesMut) -> Result<(), Problem> {
    let kind = call.method.input();
    let message = DynamicMessage::deserialize(kind.clone(), message).map_err(|why| {
        Standard::Validation.problem(format!("`arguments` are no `{}`: {why}", kind.full_name()))
    })?;
    let message = message.encode_to_vec();
    body.put_u8(0); // It is not packed.
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(&message);
    Ok(())
}

pub(super) fn answered(call: &Grpc, messages: &[Bytes]) -> Result<Arc<Value>, Problem> {
    let mut values = messages.iter().map(|message| read(call, message));
    if call.method.is_server_streaming() {
        return Ok(Arc::new(Value::Array(values.collect::<Result<_, _>>()?)));
    }
    match (values.next(), values.next()) {
        (Some(value), None) => value.map(Arc::new),
        _ => Err(Standard::Communication.problem("the service did not answer with one message")),
    }
}

fn read(call: &Grpc, message: &Bytes) -> Result<Value, Problem> {
    let kind = call.method.output();
    let broken = |why: String| {
        Standard::Communication
            .problem(format!("the answer is no `{}`: {why}", call.method.output().full_name()))
    };
    let message = DynamicMessage::decode(kind, message.clone()).map_err(|why| broken(why.to_string()))?;
    // Fields that say nothing are there too, so that expressions need not guess them.
    let options = SerializeOptions::new().skip_default_fields(false);
    let value = message.serialize_with_options(serde_json::value::Serializer, &options);
    value.map_err(|why| broken(why.to_string()))
}
