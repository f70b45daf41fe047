//! `call: grpc`: data becomes a message, messages become data, as the JSON mapping of Protocol Buffers has it.

use std::sync::Arc;

use ::http::header::{CONTENT_TYPE, TE};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use bytes::{BufMut, Bytes, BytesMut};
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::{Map, Value};

use super::{GrpcRequest, HttpRequest, Writing, access, http, uri};
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
    let message = DynamicMessage::deserialize(method.input(), arguments).map_err(|why| {
        let detail = format!("`arguments` are no `{}`: {why}", method.input().full_name());
        Standard::Validation.problem(detail)
    })?;
    let message = message.encode_to_vec();
    let mut body = BytesMut::with_capacity(message.len() + 5);
    body.put_u8(0); // It is not packed.
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(&message);
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
